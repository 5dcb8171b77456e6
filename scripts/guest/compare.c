// SPDX-License-Identifier: GPL-2.0
/*
 * What migration does to large folios that are partially unmapped, and to the
 * statistics: the same on a stock and on a patched kernel, for scripts/judge/compare-table
 * to tell what differs.  A line for each number that is not 0, and one for each stage:
 *
 *	<case> <stage>.<metric> <value>
 *
 * A case is a call, the size of the folios, the shape of what stays mapped, and the
 * state they are in.  Each is run by a process of its own.  Its stages:
 *
 *	made	all is as it should be before
 *	moved	the call was made
 *	back	another one in the opposite direction, whoever had pins dropped them
 *	shrunk	the shrinker took what it wanted
 *	touched	every page was read, and written
 *	left	this process has unmapped all and the shrinker ran again, while another
 *		one has the folios, too
 *	gone	nobody maps anything
 *
 * Levels are told as they differ from before the case, events as they differ from
 * the stage before.
 */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "blocks.h"
#include "orders.h"
#include "compare.h"
#include "compare-cases.h"
#include "compare-state.h"

static char name[96];
static int nodes[2];
static struct subject sub;
static struct snap snaps[3], *start = &snaps[0], *old = &snaps[1], *now = &snaps[2];
static long block = -1;

static const char *skip(const char *why)
{
	printf("%s skip %s\n", name, why);
	return why;
}

/* Read everything once, and say what there is to say of it. */
static void stage(const char *which, int target)
{
	struct snap *tmp;

	read_machine(now, &sub);
	read_maps(now, &sub);
	if (sub.r.mem)
		read_region(now, &sub, target);
	watch_read(now);
	/* The stage was reached, even if all numbers are 0. */
	printf("%s %s.read 1\n", name, which);
	print_snap(name, which, now, old, start);
	tmp = old;
	old = now;
	now = tmp;
}

static void tell(const char *which, const char *metric, long value)
{
	if (value)
		printf("%s %s.%s %ld\n", name, which, metric, value);
}

/* ---- the calls ---- */

/* The first quarter of each folio is bound to one node, the second to another. */
static long bind_slices(struct pthp *r, int first, int second)
{
	unsigned int n = 1u << r->order, i;
	long ret = 0;

	for (i = 0; i < r->nr; i += n) {
		size_t len = n / 4 * psize();

		ret += pthp_mbind(pthp_addr(r, i), len, first,
				  MPOL_MF_MOVE_ALL | MPOL_MF_STRICT);
		ret += pthp_mbind(pthp_addr(r, i + n / 4), len, second,
				  MPOL_MF_MOVE_ALL | MPOL_MF_STRICT);
	}
	return ret;
}

static long name_all(struct pthp *r, int to)
{
	unsigned int page;
	long n = 0;

	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page])
			continue;
		r->addrs[n] = pthp_addr(r, page);
		r->nodes[n++] = to;
	}
	return n;
}

/* What move_pages(2) says, and whether that is so */
static void tell_statuses(const char *which, struct pthp *r, long n, int to)
{
	long on = 0, elsewhere = 0, errors = 0, silent = 0, busy = 0, wrong = 0, i;
	int *said = malloc(n * sizeof(*said));

	memcpy(said, r->status, n * sizeof(*said));
	syscall(__NR_move_pages, 0, n, r->addrs, NULL, r->status, 0);
	for (i = 0; i < n; i++) {
		silent += said[i] == NOT_WRITTEN;
		busy += said[i] == -EBUSY;
		errors += said[i] < 0 && said[i] != NOT_WRITTEN && said[i] != -EBUSY;
		on += said[i] == to;
		elsewhere += said[i] >= 0 && said[i] != to;
		/* a page that was replaced by the zero page is nowhere */
		wrong += said[i] >= 0 && r->status[i] >= 0 && said[i] != r->status[i];
	}
	free(said);
	tell(which, "status.named", n);
	tell(which, "status.not_on_target", n - on);
	tell(which, "status.elsewhere", elsewhere);
	tell(which, "status.busy", busy);
	tell(which, "status.other_error", errors);
	tell(which, "status.not_written", silent);
	tell(which, "status.wrong", wrong);
}

static long move_pages(const char *which, struct pthp *r, bool all, int to)
{
	long n = all ? name_all(r, to) : pthp_name_folios(r, to), ret, i;

	for (i = 0; i < n; i++)
		r->status[i] = NOT_WRITTEN;
	ret = n < 0 ? n : pthp_move_named(r, n);
	if (n > 0)
		tell_statuses(which, r, n, to);
	return ret;
}

static long migrate(const struct setup *s, const char *which, bool away)
{
	int from = away ? sub.src : sub.dst, to = away ? sub.dst : sub.src;
	struct pthp *r = &sub.r;

	if (s->state & SLICES)
		return bind_slices(r, from, to);
	switch (s->call) {
	case MOVE_ONE:
	case MOVE_ALL:
		return move_pages(which, r, s->call == MOVE_ALL, to);
	case MIGRATE:
		return pthp_migrate_process(from, to);
	case CPUSET:
		return move_by_cpuset(to);
	case COMPACTION:
		if (away)
			return pthp_put("/proc/sys/vm/compact_memory", "1") ? 0 : -errno;
		break;
	case OFFLINE:
		if (away)
			return set_block(block, "offline");
		break;
	case BALANCING:
		if (away)
			return move_by_balancing(&sub, to);
		break;
	default:
		break;
	}
	return pthp_migrate(r, PTHP_MBIND, from, to);
}

static void set_targets(const struct setup *s, bool away)
{
	int from = away ? sub.src : sub.dst, to = away ? sub.dst : sub.src;
	unsigned int n = 1u << sub.r.order, page;

	for (page = 0; page < sub.r.nr; page++)
		sub.want[page] = s->state & SLICES && page % n < n / 4 ? from : to;
}

/* Migrate, and tell what can be told of the call alone. */
static void call(const struct setup *s, const char *which, bool away)
{
	int to = away ? sub.dst : sub.src;
	long ret, missed, success;

	sub.on_target = 0;
	set_targets(s, away);
	/* What is on the target already did not move. */
	now->nr = 0;
	read_region(now, &sub, to);
	read_machine(old, &sub);
	success = get(old, "vm.pgmigrate_success");
	watch_flush();
	if (s->state & THREADS && !spinner_start())
		printf("# no second thread\n");
	ret = migrate(s, which, away);
	if (s->state & THREADS)
		spinner_end();
	tell(which, "call.ret", ret);
	tell(which, "call.error", ret < 0);
	stage(which, to);

	/* Only these two say in pages of the region what they did. */
	if ((s->call == MBIND || s->call == MOVE_ALL || s->call == MOVE_ONE) &&
	    !(s->state & SLICES)) {
		/* the last snapshot is the old one now */
		long moved = get(old, "page.moved");

		tell(which, "truth.success_gap",
		     labs(get(old, "vm.pgmigrate_success") - success - moved));
		tell(which, "truth.trace_gap",
		     labs(get(old, "trace.nr_succeeded") - moved));
	}
	missed = get(old, "page.misplaced");
	if (s->call == MOVE_ALL)
		tell(which, "truth.return_gap", labs(ret - missed));
}

/* ---- the states ---- */

static const char *make_contents(unsigned int shape)
{
	unsigned int n = 1u << sub.r.order, page, data;

	sub.content = calloc(sub.r.nr, 1);
	sub.want = calloc(sub.r.nr, sizeof(*sub.want));
	if (!sub.content || !sub.want)
		return "no memory";
	for (page = 0; page < sub.r.nr; page++) {
		data = shape == HALF_ZERO ? page % 2 : page % n == n / 8;
		if (shape >= PTHP_NR_SHAPES && !data) {
			sub.content[page] = ZEROED;
			fill_page(&sub, page);
		}
	}
	return NULL;
}

static const char *lock_memory(const struct setup *s)
{
	unsigned int n = 1u << sub.r.order, i;

	if (s->state & MLOCKED && mlock(sub.r.mem, pthp_len(&sub.r)))
		return "no mlock(2)";
	for (i = 0; s->state & MLOCKED_SLICE && i < sub.r.nr; i += n) {
		if (mlock(pthp_addr(&sub.r, i), n / 4 * psize()))
			return "no mlock(2)";
	}
	return NULL;
}

static const char *fork_and_unmap(const struct setup *s, enum pthp_shape shape)
{
	enum pthp_hole hole = s->state & MUNMAP ? PTHP_MUNMAP : PTHP_DONTNEED;
	bool keeps = s->state & (KEEPS | PASSING);

	if (s->state & FORKED &&
	    !other_start(&sub, keeps ? PTHP_ALL : shape, s->state & PASSING))
		return "no other process";
	if (s->state & CHILD) {
		sub.r.hole = hole;
		return NULL;
	}
	/* What is locked cannot be given up by madvise(2). */
	if (s->state & (MLOCKED | MLOCKED_SLICE))
		hole = PTHP_MUNMAP;
	if (pthp_punch(&sub.r, shape, hole))
		return "cannot unmap";
	if (s->state & PTES && !pthp_map_by_ptes(&sub.r))
		return "cannot map by PTEs";
	return NULL;
}

static const char *alloc_region(const struct setup *s)
{
	switch (s->call) {
	case OFFLINE:
		return alloc_in_block(&sub.r, s->folios, s->order, sub.src, &block);
	case COMPACTION:
		return alloc_below(&sub.r, s->folios, s->order, sub.src);
	default:
		return pthp_alloc(&sub.r, s->folios, s->order, sub.src, SEED);
	}
}

/* Return what is missing, or NULL. */
static const char *make(const struct setup *s, unsigned int shape)
{
	const char *missing = alloc_region(s);
	unsigned int i;

	if (!missing)
		missing = make_contents(shape);
	if (!missing && s->state & UFFD_WP)
		missing = protect_by_uffd(&sub);
	if (!missing)
		missing = lock_memory(s);
	if (!missing)
		missing = fork_and_unmap(s, mapped_shape(shape));
	/* Two quarters of a slice each: the rest goes. */
	if (!missing && s->state & SLICES) {
		unsigned int n = 1u << sub.r.order, page;

		for (i = 0; shape != PTHP_ALL && i < sub.r.nr; i += n) {
			madvise(pthp_addr(&sub.r, i + n / 2), n / 2 * psize(),
				MADV_DONTNEED);
			for (page = i + n / 2; page < i + n; page++)
				sub.r.mapped[page] = false;
		}
	}
	if (!missing && s->state & SWAPPED)
		missing = swap_out(&sub);
	if (!missing && s->state & SOFT_DIRTY) {
		clear_softdirty();
		for (i = 0; i < sub.r.nr; i += 3) {
			if (sub.r.mapped[i])
				fill_page(&sub, i);
		}
	}
	if (!missing && s->state & MERGED)
		missing = merge_same(&sub);
	for (i = 0; !missing && i < sub.r.nr_folios; i++) {
		bool last = i == sub.r.nr_folios - 1;

		if ((s->state & PINNED || (s->state & PINNED_LAST && last)) &&
		    !pin_folio(&sub, i))
			missing = "cannot pin";
	}
	return missing;
}

/* Read all, then write all that is not zero: what that takes, and what is there */
static void touch(const struct setup *s)
{
	struct rusage before, after;
	unsigned int page;

	tell("touched", "holes_filled", full_holes(&sub));
	getrusage(RUSAGE_SELF, &before);
	tell("touched", "pages_lost", wrong_pages(&sub));
	getrusage(RUSAGE_SELF, &after);
	tell("touched", "read_faults", after.ru_minflt - before.ru_minflt);
	if (sub.other)
		tell("touched", "other_lost", other_do(OTHER_CHECK));
	if (s->state & UFFD_WP)
		return;			/* nobody would handle the faults */
	before = after;
	for (page = 0; page < sub.r.nr; page++) {
		if (sub.r.mapped[page] && sub.content[page] != ZEROED)
			fill_page(&sub, page);
	}
	getrusage(RUSAGE_SELF, &after);
	tell("touched", "write_faults", after.ru_minflt - before.ru_minflt);
}

static void unmap_all(void)
{
	munmap(sub.r.mem, pthp_len(&sub.r));
	drop_fillers();
}

static void run_stages(const struct setup *s)
{
	call(s, "moved", true);
	if (s->call == OFFLINE && set_block(block, "online"))
		printf("# memory block %ld is not online\n", block);
	unpin_all();
	/* The child unmaps half of what it had mapped by PTEs, and goes. */
	if (s->state & PASSING) {
		tell("moved", "other_failed", other_do(OTHER_UNMAP));
		other_end(&sub);
	}
	if (!(s->state & ONCE))
		call(s, "back", false);
	else if (s->state & FORKED)
		return;
	pthp_shrink();
	stage("shrunk", sub.src);
	touch(s);
}

static int run(const struct setup *s, unsigned int shape)
{
	const char *missing = NULL;
	pid_t filler = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pthp_run_on(0);

	/* What goes offline is where the kernel does not live. */
	sub.src = nodes[s->call == OFFLINE || s->call == COMPACTION];
	sub.dst = nodes[!(s->call == OFFLINE || s->call == COMPACTION)];
	if (s->state & IN_CGROUP || s->call == CPUSET)
		missing = enter_cgroup(&sub, s->call == CPUSET ? "0" : NULL);
	read_machine(start, &sub);
	read_maps(start, &sub);
	*old = *start;
	if (!missing)
		missing = make(s, shape);
	if (missing) {
		skip(missing);
		return 0;
	}
	set_targets(s, true);
	if (s->state & (NO_MEMORY | FRAGMENTED)) {
		/* the console is watched for this, and here it is looked for */
		pthp_put("/proc/sys/kernel/printk", "1");
		filler = fill_start(&sub, s->state & FRAGMENTED);
		if (filler < 0) {
			skip("the target node cannot be filled");
			return 0;
		}
	}
	stage("made", sub.dst);
	if (filler) {
		call(s, "moved", true);
		tell("moved", "filler_killed", !fill_end(filler));
		pthp_put("/proc/sys/kernel/printk", "5");
	} else {
		run_stages(s);
	}

	unmap_all();
	if (sub.other) {
		pthp_shrink();
		stage("left", sub.src);
		other_end(&sub);
	}
	/* There is nothing left to look at. */
	sub.r.mem = NULL;
	if (s->state & SWAPPED)
		pthp_swap_off();
	if (s->state & MERGED)
		merge_end();
	pthp_shrink();
	stage("gone", sub.src);
	return 0;
}

static void make_name(const struct setup *s, unsigned int shape)
{
	int len, first = 1;
	unsigned int i;

	len = snprintf(name, sizeof(name), "%s.%ux%uk.%s.", call_names[s->call],
		       s->folios, (psize() >> 10) << s->order, shape_name(shape));
	for (i = 0; i < ARRAY_SIZE(state_names); i++) {
		if (!(s->state & state_names[i].state))
			continue;
		len += snprintf(name + len, sizeof(name) - len, "%s%s",
				first ? "" : "+", state_names[i].name);
		first = 0;
	}
	if (first)
		snprintf(name + len, sizeof(name) - len, "plain");
}

/* With arguments, only cases that have one of them in their name */
static bool wanted(char **words)
{
	if (!*words)
		return true;
	for (; *words; words++) {
		if (strstr(name, *words))
			return true;
	}
	return false;
}

static void run_case(const struct setup *s, unsigned int shape)
{
	int status;
	pid_t pid;

	printf("%s case 1\n", name);
	if (s->order != pthp_pmd_order() &&
	    !(thp_supported_orders() & 1ul << s->order)) {
		skip("this kernel has no folios of that size");
		return;
	}
	only_order(s->order);
	fflush(stdout);
	pid = fork();
	if (!pid)
		exit(run(s, shape));
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
		printf("%s died %d\n", name, pid < 0 ? -1 : status);
		/* what it may have left behind */
		pthp_swap_off();
		pthp_put("/proc/sys/kernel/printk", "5");
	}
	if (s->state & IN_CGROUP || s->call == CPUSET)
		remove_cgroup();
}

int main(int argc, char **argv)
{
	unsigned int i, shape, cases = 0;

	setvbuf(stdout, NULL, _IOFBF, 65536);
	if (!thp_is_enabled() || !pthp_two_nodes(&nodes[0], &nodes[1])) {
		printf("compare: needs THPs and two nodes with memory\n");
		return 1;
	}
	pthp_keep_out();
	/* A process that begins on the other CPU may leave its page tables in use there. */
	pthp_run_on(0);
	/* If somebody has to go it is not who tells about it. */
	pthp_put("/proc/self/oom_score_adj", "-1000");
	watch_start();
	read_machine(start, &sub);
	*old = *start;
	for (i = 0; i < ARRAY_SIZE(setups); i++) {
		for (shape = 0; shape < NR_SHAPES; shape++) {
			if (!(setups[i].shapes & S(shape)))
				continue;
			make_name(&setups[i], shape);
			if (!wanted(argv + 1))
				continue;
			run_case(&setups[i], shape);
			fflush(stdout);
			cases++;
		}
	}
	if (!cases) {
		printf("compare: no case has such a name\n");
		return 1;
	}
	/* What all of them left behind */
	snprintf(name, sizeof(name), "overall");
	printf("%s case 1\n", name);
	pthp_shrink();
	stage("gone", 0);
	printf("COMPARE-END cases=%u\n", cases + 1);
	return 0;
}
