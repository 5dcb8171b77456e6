// SPDX-License-Identifier: GPL-2.0
/*
 * What migration costs, in guest instructions: one BENCH line for each case, in
 * the form that scripts/judge/bench-table reads.
 *
 * The clock.  Under QEMU's -icount shift=0 virtual time is one nanosecond for
 * every instruction executed, the TSC counts its nanoseconds, and RDTSC ends
 * the translation block so that it is exact.  A loop of a known number of
 * instructions is timed first: anything but one tick for each is refused.  QEMU
 * counts every turn of a "rep" as an instruction, so that the copy of a page is
 * what most of a case consists of, as on hardware.
 *
 * A CPU that waits executes nothing while the clock goes on.  So it never waits:
 * a process of class SCHED_IDLE spins in a loop of two instructions and counts
 * its turns where this one sees them, and they are taken off.  Work the kernel
 * leaves to its own threads before a call returns is counted.
 *
 * The floor is a plain copy: the pages that are mapped, one "rep movsb" each, in
 * user space.  No migration can do with less; the kernel copies by the same
 * instruction here, plus a call and some checks for each page.  Before 6.11 it
 * copies eight bytes a turn.
 *
 * "bench tlb" counts something else, on two CPUs and without that clock: how often
 * the other CPU, where a second thread of this process runs, is interrupted to
 * flush its TLB during the call.  One BENCH-TLB line for each shape.
 */
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "blocks.h"
#include "orders.h"
#include "partial_thp.h"

#ifndef __x86_64__
#error "the clock is x86's"
#endif

#define MAX_REPS	15
#define MAX_FILLERS	48
#define COMPACT		"/sys/devices/system/node/node%d/compact"

enum caller {
	MBIND,
	MOVE_PAGES,
	COMPACTION,
	OFFLINE,
};

static const char * const caller_names[] = {
	[MBIND]		= "mbind",
	[MOVE_PAGES]	= "move_pages",
	[COMPACTION]	= "compaction",
	[OFFLINE]	= "offline",
};

/* A shape, and how the folios got there */
static const struct scene {
	const char *name;
	enum pthp_shape shape;
	bool again;	/* whole, mapped by PTEs, and migrated once before */
	bool none;	/* nothing to migrate: what the call costs by itself */
	bool sparse;	/* only the first page of each folio is not all zeroes */
} scenes[] = {
	{ "none",		PTHP_ALL,	.none = true },
	{ "all",		PTHP_ALL },
	{ "all_pte",		PTHP_ALL,	.again = true },
	{ "first_half",		PTHP_FIRST_HALF },
	{ "last_half",		PTHP_LAST_HALF },
	{ "three_quarters",	PTHP_THREE_QUARTERS },
	{ "cb64k",		PTHP_CB64K },
	{ "cb16k",		PTHP_CB16K },
	{ "alternate",		PTHP_ALTERNATE },
	{ "all_but_one",	PTHP_ALL_BUT_ONE },
	{ "one_page",		PTHP_ONE_PAGE },
	{ "sparse",		PTHP_ALL_BUT_ONE,	.sparse = true },
	{ "ragged",		PTHP_RAGGED },
	{ "random",		PTHP_RANDOM },
};

struct setup {
	enum caller caller;
	unsigned int order;
	unsigned int folios;
	unsigned int reps;
};

static const struct setup setups[] = {
	{ MBIND,	9,	1,	5 },
	{ MBIND,	9,	8,	15 },
	{ MBIND,	9,	64,	3 },
	{ MBIND,	4,	1,	5 },
	{ MBIND,	4,	8,	5 },
	{ MBIND,	4,	64,	5 },
	{ MOVE_PAGES,	9,	8,	5 },
	{ COMPACTION,	9,	8,	3 },
	{ COMPACTION,	4,	64,	5 },
	{ OFFLINE,	9,	8,	3 },
};

/* What one run of a case did */
struct result {
	long long instr;
	long ret;
	long succ;
	long fail;
	long copied;		/* pages of the folios that are elsewhere now */
	long large;		/* pages in folios of 16 KiB and more */
	long freed;
	long flushes;		/* of the other CPU's TLB, if it has one to flush */
	bool moved;		/* or the call failed, or says nothing of where to */
};

static volatile uint64_t *spins;
static bool tlb_mode;
static int nodes[2];

/* Regions that keep others from getting the memory they have */
static struct pthp fillers[MAX_FILLERS];
static unsigned int nr_fillers;

__attribute__((noreturn, format(printf, 1, 2)))
static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("bench: ");
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	exit(1);
}

/* ---- the clock ---- */

static inline uint64_t now(void)
{
	uint32_t lo, hi;

	asm volatile("rdtsc" : "=a" (lo), "=d" (hi) : : "memory");
	return ((uint64_t)hi << 32 | lo) - 2 * *spins;
}

static void start_spinning(void)
{
	const struct sched_param param = { 0 };
	uint64_t *p;

	p = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		die("no memory");
	spins = p;
	switch (fork()) {
	case -1:
		die("no second process");
	case 0:
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (sched_setscheduler(0, SCHED_IDLE, &param))
			_exit(1);
		asm volatile("1: incq (%0); jmp 1b" : : "r" (p) : "memory");
	}
}

/* Ticks come in between: the best of several is the loop alone. */
static void calibrate(void)
{
	const uint64_t turns = 50000;
	uint64_t best = -1ull, start, t;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		uint64_t n = turns;

		start = now();
		asm volatile("1: decq %0; jnz 1b" : "+r" (n) : : "cc");
		t = now() - start;
		if (t < best)
			best = t;
	}
	printf("BENCH-CLOCK instr=%llu ticks=%llu\n",
	       2ull * turns, (unsigned long long)best);
	if (best < 2 * turns || best > 2 * turns + 100)
		die("the TSC does not count instructions: -icount shift=0 is needed");
	/* One that waits must not see the time go by. */
	start = now();
	usleep(20000);
	t = now() - start;
	printf("BENCH-CLOCK sleep_ms=20 ticks=%llu\n", (unsigned long long)t);
	if (t > 2000000)
		die("the CPU waits, and waiting is counted");
}

/* Does this kernel copy a page by "rep movsq"? */
static bool copies_words(void)
{
	unsigned int major, minor;
	struct utsname uts;

	if (uname(&uts) || sscanf(uts.release, "%u.%u", &major, &minor) != 2)
		die("uname() does not tell the version");
	return major < 6 || (major == 6 && minor < 11);
}

static double measure_floor(void)
{
	const size_t len = 512 * psize();
	const bool words = copies_words();
	uint64_t best = -1ull, start, t;
	unsigned int rep, i;
	char *from, *to;

	from = mmap(NULL, 2 * len, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (from == MAP_FAILED)
		die("no memory");
	to = from + len;
	memset(from, 1, 2 * len);
	for (rep = 0; rep < 5; rep++) {
		start = now();
		for (i = 0; i < 512; i++) {
			const void *s = from + i * psize();
			void *d = to + i * psize();
			size_t n = psize();

			if (words) {
				n /= sizeof(uint64_t);
				asm volatile("rep movsq"
					     : "+D" (d), "+S" (s), "+c" (n)
					     : : "memory");
			} else {
				asm volatile("rep movsb"
					     : "+D" (d), "+S" (s), "+c" (n)
					     : : "memory");
			}
		}
		t = now() - start;
		if (t < best)
			best = t;
	}
	munmap(from, 2 * len);
	printf("BENCH-FLOOR instr_per_page=%.1f\n", best / 512.0);
	return best / 512.0;
}

/* ---- the other CPU ---- */

static void pin_to(int cpu)
{
	if (!pthp_run_on(cpu))
		die("cannot run on CPU %d", cpu);
}

/* It runs in user space all the time: a lazy TLB would not be flushed. */
static void *run_on_other(void *running)
{
	pin_to(1);
	*(volatile bool *)running = true;
	for (;;)
		asm volatile("pause");
	return NULL;
}

static void start_other(void)
{
	static volatile bool running;
	pthread_t thread;

	pin_to(0);
	if (pthread_create(&thread, NULL, run_on_other, (void *)&running))
		die("no second thread");
	while (!running)
		usleep(1000);
}

/* "TLB: <CPU 0> <CPU 1> TLB shootdowns": what CPU 1 was interrupted for */
static long flushes_of_other(void)
{
	char line[256];
	long n = -1;
	FILE *f;

	f = fopen("/proc/interrupts", "r");
	while (f && n < 0 && fgets(line, sizeof(line), f)) {
		if (sscanf(line, " TLB: %*d %ld", &n) != 1)
			n = -1;
	}
	if (f)
		fclose(f);
	if (n < 0)
		die("/proc/interrupts does not count TLB shootdowns");
	return n;
}

/* ---- one run ---- */

static bool holds_data(const struct pthp *r, const struct scene *scene,
		       unsigned int page)
{
	return !scene->sparse || !(page % (1u << r->order));
}

/* What is mapped and holds data, as a region that the checks understand */
static struct pthp data_of(const struct pthp *r, const struct scene *scene)
{
	struct pthp data = *r;
	unsigned int i;

	data.mapped = malloc(r->nr * sizeof(*data.mapped));
	data.nr_mapped = 0;
	for (i = 0; i < r->nr; i++) {
		data.mapped[i] = r->mapped[i] && holds_data(r, scene, i);
		data.nr_mapped += data.mapped[i];
	}
	return data;
}

static bool intact(const struct pthp *r, const struct scene *scene)
{
	struct pthp data = data_of(r, scene);
	bool ok = pthp_intact(&data);
	unsigned int i;

	for (i = 0; ok && i < r->nr; i++)
		ok = !r->mapped[i] || data.mapped[i] ||
		     pthp_zeroed(pthp_addr(r, i));
	free(data.mapped);
	return ok;
}

/* The shared zero page is on no node in particular. */
static bool all_on(const struct pthp *r, const struct scene *scene, int node)
{
	struct pthp data = data_of(r, scene);
	bool ok = pthp_on_node(&data, node) == data.nr_mapped;

	free(data.mapped);
	return ok;
}

/* Large folios on @node, ready to be migrated by the call that is measured */
static void arrange(struct pthp *r, const struct setup *s,
		    const struct scene *scene, int node, int other)
{
	const char *missing;
	unsigned int i;

	missing = pthp_alloc(r, s->folios, s->order, scene->again ? other : node,
			     scene->shape + 1);
	if (missing)
		die("%s", missing);
	for (i = 0; i < r->nr; i++) {
		if (!holds_data(r, scene, i))
			memset(pthp_addr(r, i), 0, psize());
	}
	if (pthp_punch(r, scene->shape, PTHP_DONTNEED))
		die("cannot unmap");
	if (scene->again && (!pthp_map_by_ptes(r) ||
			     pthp_migrate(r, PTHP_MOVE_PAGES, other, node)))
		die("cannot migrate the first time");
}

static unsigned long *pfns_of(const struct pthp *r)
{
	unsigned long *pfns = malloc(r->nr * sizeof(*pfns));
	unsigned int i;

	for (i = 0; i < r->nr; i++)
		pfns[i] = pagemap_get_pfn(r->pagemap, pthp_addr(r, i));
	return pfns;
}

/*
 * Pages in folios of 16 KiB and more, as many as can be for what is mapped.  What
 * is mostly zeroes is not to be kept.
 */
static long most_large(const struct pthp *r, const struct scene *scene)
{
	unsigned int i;
	long n = 0;

	if (scene->sparse)
		return 0;
	for (i = 0; i < r->nr; i += 4)
		n += r->mapped[i] && r->mapped[i + 1] && r->mapped[i + 2] &&
		     r->mapped[i + 3];
	return 4 * n;
}

static long call(const struct setup *s, struct pthp *r, int to, long arg)
{
	char path[128];

	switch (s->caller) {
	case MBIND:
		return pthp_migrate(r, PTHP_MBIND, !to, to);
	case MOVE_PAGES:
		return pthp_move_named(r, arg);
	case COMPACTION:
		snprintf(path, sizeof(path), COMPACT, nodes[1]);
		return pthp_write(path, "1");
	default:
		return set_block(arg, "offline");
	}
}

static void run_once(const struct setup *s, const struct scene *scene,
		     struct result *res, struct pthp *r, long arg, int to)
{
	struct pthp_census before, after;
	struct pthp_vmstat d, start;
	unsigned long *pfns;
	unsigned int i;
	long flushes;
	uint64_t t;

	pfns = pfns_of(r);
	if (!pthp_census_take(r, &before) || !pthp_vmstat_read(&start))
		die("cannot read the state before migration");
	if (s->caller == MOVE_PAGES)
		arg = pthp_name_folios(r, to);

	if (tlb_mode) {
		flushes = flushes_of_other();
		res->ret = call(s, r, to, arg);
		res->flushes = flushes_of_other() - flushes;
	} else {
		t = now();
		res->ret = call(s, r, to, arg);
		res->instr = now() - t;
	}

	if (!pthp_vmstat_read(&d) || !pthp_census_take(r, &after))
		die("cannot read the state after migration");
	pthp_vmstat_sub(&d, &start);
	res->succ = d.v[PTHP_PGMIGRATE_SUCCESS];
	res->fail = d.v[PTHP_PGMIGRATE_FAIL];
	res->freed = (long)before.held - (long)after.held;
	res->copied = 0;
	res->large = 0;
	for (i = 0; i < after.nr; i++) {
		const struct pthp_folio *f = &after.folios[i];

		if (pfns[f->page] != pagemap_get_pfn(r->pagemap,
						     pthp_addr(r, f->page)))
			res->copied += 1l << f->order;
		if (f->order >= 2)
			res->large += 1l << f->order;
	}
	res->moved = s->caller == COMPACTION || res->ret || scene->none ||
		     all_on(r, scene, to);
	if (!intact(r, scene))
		die("contents were lost");
	pthp_census_drop(&before);
	pthp_census_drop(&after);
	free(pfns);
}

static void drop_fillers(void)
{
	while (nr_fillers)
		pthp_free(&fillers[--nr_fillers]);
}

/*
 * A region in one block that can go offline; others stay where they are so that
 * the next one is elsewhere.
 */
static long arrange_in_block(struct pthp *r, const struct setup *s,
			     const struct scene *scene)
{
	long block = -1;

	for (;;) {
		arrange(r, s, scene, nodes[1], nodes[0]);
		block = block_of(r);
		if (block >= 0 || nr_fillers == MAX_FILLERS)
			break;
		fillers[nr_fillers++] = *r;
	}
	/* That block then goes offline with nothing in it. */
	if (scene->none || block < 0)
		pthp_free(r);
	return block;
}

/*
 * Compaction moves folios up, into pageblocks that are neither full nor empty:
 * have every eighth folio taken in those above.
 */
static void arrange_below(struct pthp *r, const struct setup *s,
			  const struct scene *scene)
{
	const struct setup top = { .order = s->order, .folios = 4 * s->folios };
	struct pthp *above = &fillers[nr_fillers++];
	const size_t len = psize() << s->order;
	unsigned int i;

	arrange(above, &top, &scenes[0], nodes[1], nodes[0]);
	arrange(r, s, scene, nodes[1], nodes[0]);
	for (i = 0; i < top.folios; i += 8) {
		if (madvise(above->mem + i * len, 7 * len, MADV_DONTNEED))
			die("cannot unmap");
	}
}

/* One THP on the first node: no caller but the first two has a hand on it. */
static void arrange_bystander(struct pthp *r, const struct scene *scene)
{
	const struct setup s = { .order = pthp_pmd_order(), .folios = 1 };

	only_order(s.order);
	arrange(r, &s, scene, nodes[0], nodes[1]);
}

/* Return why there is no result, or NULL. */
static const char *run(const struct setup *s, const struct scene *scene,
		       struct result *res, struct pthp *r)
{
	/* Memory goes offline where the kernel does not live. */
	int from = s->caller == OFFLINE || s->caller == COMPACTION;
	long block = -1;

	only_order(s->order);
	if (s->caller == OFFLINE) {
		if (!pthp_block_pages())
			return "no memory blocks";
		block = arrange_in_block(r, s, scene);
		if (block < 0)
			return "no memory block can go offline that holds all folios";
	}
	if (scene->none)
		arrange_bystander(r, scene);
	else if (s->caller == COMPACTION)
		arrange_below(r, s, scene);
	else if (s->caller != OFFLINE)
		arrange(r, s, scene, nodes[from], nodes[!from]);
	run_once(s, scene, res, r, block, nodes[!from]);
	if (s->caller == COMPACTION)
		drop_fillers();
	if (block >= 0 && !res->ret && set_block(block, "online"))
		die("memory block %ld does not come back", block);
	if (s->caller == OFFLINE && res->ret)
		return res->ret == -EBUSY ? "the block has memory that cannot move" :
					    strerror(-res->ret);
	return res->moved ? NULL : "it succeeds, and leaves pages where they were";
}

/* ---- cases ---- */

static int by_instr(const void *a, const void *b)
{
	const struct result *x = a, *y = b;

	return x->instr < y->instr ? -1 : x->instr > y->instr;
}

static int by_flushes(const void *a, const void *b)
{
	const struct result *x = a, *y = b;

	return x->flushes < y->flushes ? -1 : x->flushes > y->flushes;
}

static const char *unsupported(const struct setup *s, const struct scene *scene)
{
	if (scene->none && s->caller != COMPACTION && s->caller != OFFLINE)
		return "";
	if (s->order != pthp_pmd_order() &&
	    !(thp_supported_orders() & 1ul << s->order))
		return "this kernel has no folios of that size";
	if (s->caller == COMPACTION && s->order == pthp_pmd_order())
		return "compaction leaves folios as large as a pageblock alone";
	if (s->order == 4 && scene->shape == PTHP_CB64K)
		return "";
	return NULL;
}

static void show(const struct setup *s, const struct scene *scene, double floor)
{
	const unsigned int reps = tlb_mode ? 5 : s->reps;
	struct result res[MAX_REPS], *mid = &res[reps / 2];
	unsigned int kb = psize() >> 10, i;
	const char *why;
	long most = 0, mapped = 0;
	long long median;

	why = unsupported(s, scene);
	if (why && !*why)
		return;
	/* The first one warms up. */
	for (i = 0; !why && i <= reps; i++) {
		struct pthp r = { 0 };

		why = run(s, scene, &res[i ? i - 1 : 0], &r);
		most = scene->none ? 0 : most_large(&r, scene);
		mapped = scene->none ? 0 : r.nr_mapped;
		if (scene->sparse)
			mapped = r.nr_folios;
		pthp_free(&r);
	}
	printf(why ? "BENCH-SKIP" : tlb_mode ? "BENCH-TLB" : "BENCH");
	printf(" call=%s folio_kb=%u folios=%u shape=%s", caller_names[s->caller],
	       kb << s->order, s->folios, scene->name);
	if (why) {
		printf(" reason=%s\n", why);
		return;
	}
	qsort(res, reps, sizeof(*res), tlb_mode ? by_flushes : by_instr);
	/* Some are not needed when a kernel thread is on the other CPU. */
	if (tlb_mode) {
		printf(" reps=%u flushes=%ld min=%ld\n", reps,
		       res[reps - 1].flushes, res[0].flushes);
		return;
	}
	median = mid->instr;
	if (!(reps % 2))
		median = (median + mid[-1].instr) / 2;
	printf(" reps=%u instr=%lld min=%lld max=%lld floor=%.0f", reps,
	       median, res[0].instr, res[reps - 1].instr, floor * mapped);
	printf(" mapped=%ld copied=%ld succ=%ld fail=%ld freed=%ld", mapped,
	       mid->copied, mid->succ, mid->fail, mid->freed);
	printf(" large_kb=%ld large_most_kb=%ld ret=%ld\n", mid->large * kb,
	       most * kb, mid->ret);
}

/*
 * With arguments, only these shapes of 8 THPs by mbind(2); with "tlb" all of them,
 * the call that has most to do by itself and that others do not come in between.
 */
static bool wanted(const struct setup *s, const struct scene *scene, char **names)
{
	if (!*names && !tlb_mode)
		return true;
	if (s->caller != MBIND || s->order != pthp_pmd_order() || s->folios != 8)
		return false;
	if (!*names)
		return true;
	while (*names && strcmp(*names, scene->name))
		names++;
	return *names;
}

static double start_clock(void)
{
	if (sysconf(_SC_NPROCESSORS_ONLN) != 1)
		die("needs a guest with one CPU");
	start_spinning();
	calibrate();
	return measure_floor();
}

int main(int argc, char **argv)
{
	double floor = 0;
	unsigned int i, j;
	char **names = argv + 1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!pthp_two_nodes(&nodes[0], &nodes[1]))
		die("needs two nodes with memory");
	pthp_keep_out();
	tlb_mode = *names && !strcmp(*names, "tlb");
	if (tlb_mode) {
		names++;
		start_other();
	} else {
		floor = start_clock();
	}

	for (i = 0; i < sizeof(setups) / sizeof(*setups); i++) {
		for (j = 0; j < sizeof(scenes) / sizeof(*scenes); j++) {
			if (wanted(&setups[i], &scenes[j], names))
				show(&setups[i], &scenes[j], floor);
		}
		drop_fillers();
	}
	printf("BENCH-END\n");
	return 0;
}
