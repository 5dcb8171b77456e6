// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of partially mapped THPs: where the pieces go, and what callers are told.
 *
 * It is harder to find a place for a larger piece.  If there is none, nobody may be killed
 * for it, and a target node that is fragmented has to give what it has.  The tests here
 * fill the target node from another process.  Others look at what system calls and trace
 * events say of pages that moved, and of pages that could not.
 *
 * A comment above each case says what it proves and what stock does.  "Stock" is a 6.12
 * kernel that splits to single pages.  A stock 6.1 kernel migrates such THPs whole, and
 * a patched one splits them to single pages.  Nothing in here races, but a node that is
 * full is so for whatever else runs.
 */
#include "../kselftest_harness.h"

#include "partial_thp_edges.h"

#define TRACING		"/sys/kernel/tracing/"
#define COMPACTED	TRACING "events/compaction/mm_compaction_migratepages/enable"
#define MIGRATED	TRACING "events/migrate/enable"

FIXTURE(partial_thp_target)
{
	struct env env;
};

FIXTURE_SETUP(partial_thp_target)
{
	env_setup(_metadata, &self->env);
}

FIXTURE_TEARDOWN(partial_thp_target)
{
	env_teardown(&self->env);
}

/* ---- statuses of move_pages(2) ---- */

#define UNWRITTEN 12345

/* Name @nr pages from @page on for @node, as the ones from @at on in the call. */
static void name_run(struct pthp *r, unsigned int at, unsigned int page, unsigned int nr,
		     int node)
{
	for (; nr--; at++, page++) {
		r->addrs[at] = pthp_addr(r, page);
		r->nodes[at] = node;
		r->status[at] = UNWRITTEN;
	}
}

/*
 * Name the pages of two THPs, those that nobody maps only with @holes; @want_moved of
 * them get to the target node.  Each status is written, and true; the return value
 * counts the pages that are there and have not got to the target node.
 */
static void name_pages(struct __test_metadata *_metadata, struct env *env,
		       unsigned int want_moved, bool holes)
{
	unsigned int page, i, nr = 0, unwritten = 0, wrong = 0, moved = 0;
	struct pthp *r = &env->r;
	int *node = malloc(r->nr * sizeof(*node));
	long ret;

	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page] && !holes)
			continue;
		name_run(r, nr++, page, 1, env->dst);
	}
	ret = syscall(__NR_move_pages, 0, nr, r->addrs, r->nodes, r->status,
		      MPOL_MF_MOVE);
	ASSERT_EQ(0, syscall(__NR_move_pages, 0, nr, r->addrs, NULL, node, 0));
	for (page = 0, i = 0; page < r->nr; page++) {
		int got;

		if (!r->mapped[page] && !holes)
			continue;
		got = r->status[i];
		moved += node[i] == env->dst;
		if (got == UNWRITTEN)
			unwritten++;
		else if (node[i] == env->dst)
			wrong += got != env->dst;
		else if (r->mapped[page])
			wrong += got != -EBUSY;
		else
			wrong += got != -ENOENT && got != -EFAULT;
		i++;
	}
	EXPECT_EQ(want_moved, moved);
	EXPECT_EQ(0, unwritten) TH_LOG("%u statuses were not written", unwritten);
	EXPECT_EQ(0, wrong) TH_LOG("%u statuses are wrong", wrong);
	EXPECT_EQ((long)r->nr_mapped - moved, ret);
	EXPECT_TRUE(pthp_intact(r));
	free(node);
}

/* Do so with two THPs, or the first half of two, while one of them is pinned. */
static void name_pinned(struct __test_metadata *_metadata, struct env *env,
			unsigned int pinned, bool half)
{
	unsigned int n = 1u << env->order;
	int pipefd[2];

	env->thps = 2;
	if (!build(_metadata, env))
		return;
	if (half)
		ASSERT_EQ(0, each_thp(env, unmap, n / 2, n / 2, MADV_DONTNEED));
	ASSERT_TRUE(pthp_pin(pthp_addr(&env->r, pinned * n + 7), pipefd));
	name_pages(_metadata, env, env->r.nr_mapped / 2, false);
	pthp_unpin(pipefd);
	name_pages(_metadata, env, env->r.nr_mapped, true);
}

/*
 * The second THP is pinned: all pages of the first one are said to be on the target node,
 * all of the second to be busy.  Stock: the second page of the first is said to be busy,
 * and no status of the second is written, but for its second page.
 *
 * Needs: mm/migrate: move_pages(2): report what became
 * Needs: mm/migrate: let move_pages(2) name several pages
 */
TEST_F(partial_thp_target, status_second_pinned)
{
	name_pinned(_metadata, &self->env, 1, false);
}

/*
 * The same with THPs that are split, but for the one that is pinned.
 *
 * Needs: mm/migrate: move_pages(2): report what became
 * Needs: mm/migrate: let move_pages(2) name several pages
 */
TEST_F(partial_thp_target, status_second_pinned_half)
{
	name_pinned(_metadata, &self->env, 1, true);
}

/*
 * The first THP is pinned: the second one, of the same batch, is migrated all the same.
 * Stock: stops after the first one, without a status, and counts all of the second as
 * not migrated.
 *
 * Needs: mm/migrate: move_pages(2): report what became
 * Needs: mm/migrate: let move_pages(2) name several pages
 */
TEST_F(partial_thp_target, status_first_pinned)
{
	name_pinned(_metadata, &self->env, 0, false);
}

/*
 * Needs: mm/migrate: move_pages(2): report what became
 * Needs: mm/migrate: let move_pages(2) name several pages
 */
TEST_F(partial_thp_target, status_first_pinned_half)
{
	name_pinned(_metadata, &self->env, 0, true);
}

/* ---- a call of move_pages(2) that ends before it is through ---- */

static unsigned int statuses(const struct pthp *r, unsigned int at, unsigned int nr, int want)
{
	unsigned int n = 0;

	while (nr--)
		n += r->status[at++] == want;
	return n;
}

/*
 * The halves of two THPs go to different nodes, and the first one is pinned.  The call
 * ends there, has a status for each page that it came to, and counts all others as not
 * migrated.  Stock: the second page is said to be busy, and no other has a status.
 *
 * Needs: mm/migrate: move_pages(2): report what became
 * Needs: mm/migrate: let move_pages(2) name several pages
 */
TEST_F(partial_thp_target, status_two_nodes)
{
	struct env *env = &self->env;
	unsigned int half = 1u << env->order >> 1;
	struct pthp *r = &env->r;
	int pipefd[2];

	env->thps = 2;
	if (!build(_metadata, env))
		return;
	ASSERT_EQ(0, each_thp(env, unmap, half, half, MADV_DONTNEED));
	ASSERT_TRUE(pthp_pin(r->mem, pipefd));
	name_run(r, 0, 0, half, env->dst);
	name_run(r, half, 2 * half, half, env->src);
	EXPECT_EQ(2 * half, pthp_move_named(r, 2 * half));
	EXPECT_EQ(half, statuses(r, 0, half, -EBUSY));
	EXPECT_EQ(half, statuses(r, half, half, UNWRITTEN));
	/* A page that is pinned counts once, and so does each page that is not tried. */
	name_run(r, 0, 0, 1, env->dst);
	name_run(r, 1, 2 * half, half, env->src);
	EXPECT_EQ(1 + half, pthp_move_named(r, 1 + half));
	EXPECT_EQ(-EBUSY, r->status[0]);
	pthp_unpin(pipefd);

	name_run(r, 0, 0, half, env->dst);
	name_run(r, half, 2 * half, half, env->src);
	EXPECT_EQ(0, pthp_move_named(r, 2 * half));
	EXPECT_EQ(half, statuses(r, 0, half, env->dst));
	EXPECT_EQ(half, statuses(r, half, half, env->src));
	EXPECT_EQ(half, pthp_on_node(r, env->dst));
	EXPECT_TRUE(pthp_intact(r));
}

/*
 * Some of the addresses cannot be read, or no status can be written: -EFAULT.  What was
 * named before is migrated, or is not, and has a status if there is a place for it.
 * Stock: the second page is said to be busy.
 *
 * Needs: mm/migrate: move_pages(2): report what became
 * Needs: mm/migrate: let move_pages(2) name several pages
 */
TEST_F(partial_thp_target, status_fault)
{
	struct env *env = &self->env;
	unsigned int half = 1u << env->order >> 1, n = 16;
	struct pthp *r = &env->r;
	void **addrs, *mem;
	int pipefd[2];

	env->thps = 1;
	if (!build(_metadata, env))
		return;
	ASSERT_EQ(0, each_thp(env, unmap, half, half, MADV_DONTNEED));
	mem = mmap(NULL, 2 * psize(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, mprotect(mem + psize(), psize(), PROT_NONE));
	name_run(r, 0, 0, 2 * n, env->dst);
	addrs = mem + psize() - n * sizeof(*addrs);
	memcpy(addrs, r->addrs, n * sizeof(*addrs));

	ASSERT_TRUE(pthp_pin(r->mem, pipefd));
	EXPECT_EQ(-1, syscall(__NR_move_pages, 0, n, r->addrs, r->nodes, mem + psize(),
			      MPOL_MF_MOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-1, syscall(__NR_move_pages, 0, 2 * n, addrs, r->nodes, r->status,
			      MPOL_MF_MOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(n, statuses(r, 0, n, -EBUSY));
	pthp_unpin(pipefd);

	EXPECT_EQ(-1, syscall(__NR_move_pages, 0, 2 * n, addrs, r->nodes, r->status,
			      MPOL_MF_MOVE));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(n, statuses(r, 0, n, env->dst));
	EXPECT_EQ(n, statuses(r, n, n, UNWRITTEN));
	expect_pages(_metadata, env, env->dst);
	munmap(mem, 2 * psize());
}

/* ---- a target node that is full, or in pieces ---- */

/* Run by the child, which the OOM killer is to prefer. */
static int fill_dst(struct env *env, long step)
{
	pthp_put("/proc/self/oom_score_adj", "1000");
	return !pthp_fill_node(env->dst, step);
}

static int fill_share(struct env *env, long nr)
{
	return !pthp_fill_share(env->dst, nr);
}

/*
 * Run by the child: @nr processes fill the target node, so that one that is killed is soon
 * gone.  The OOM killer gives up on a large one, and then takes the test itself.
 */
static int fill_dst_in_shares(struct env *env, long nr)
{
	struct env other = *env;
	long i;

	/* The others inherit that. */
	pthp_put("/proc/self/oom_score_adj", "1000");
	for (i = 1; i < nr; i++)
		if (!spawn(&other, fill_share, nr))
			return 1;
	return !pthp_fill_node(env->dst, 0);
}

/* How many warnings are in the kernel's log by now?  Data races are not about this. */
static unsigned int complaints(int log)
{
	static const char * const kinds[] = { "WARNING: ", "BUG: ", "kernel BUG " };
	char record[PTHP_LOG_RECORD], *next;
	unsigned int i, n = 0;

	while (pthp_log_next(log, record)) {
		for (i = 0; i < ARRAY_SIZE(kinds); i++) {
			for (next = strstr(record, kinds[i]); next; next = strstr(next, kinds[i])) {
				next += strlen(kinds[i]);
				n += !!strncmp(next, "KCSAN:", 6);
			}
		}
	}
	return n;
}

/*
 * Move more to the target node than there is room for, and see that nobody is killed.
 * Any kernel reports a single page that it cannot allocate, and each kill.  Keep that off
 * the console, where it passes for a fault of the kernel.
 */
static void expect_no_kill(struct __test_metadata *_metadata, struct env *env)
{
	long killed = pthp_get_named("/proc/vmstat", "oom_kill");
	int status, ret, log = pthp_log_open();

	EXPECT_LE(0, log);
	EXPECT_TRUE(pthp_set("/proc/sys/kernel/printk", "1"));
	ret = pthp_mbind(env->r.mem, pthp_len(&env->r), env->dst, MPOL_MF_MOVE);
	TH_LOG("mbind: %d, %u of %u pages moved", ret,
	       pthp_on_node(&env->r, env->dst), env->r.nr_mapped);
	EXPECT_GT(env->r.nr_mapped, pthp_on_node(&env->r, env->dst));
	EXPECT_EQ(killed, pthp_get_named("/proc/vmstat", "oom_kill"));
	EXPECT_EQ(0, waitpid(env->child, &status, WNOHANG));
	EXPECT_TRUE(pthp_intact(&env->r));
	EXPECT_EQ(0, complaints(log));
	close(log);
}

/* CPUs may keep some of what was freed, and let go of it when it has to be full. */
#define NR_TOO_MANY 72

/* Each fills more than the test moves. */
#define NR_FILLERS 8

/*
 * The target node is full of another process's memory.  Orders 2 and 3 are not costly to
 * the page allocator: if it is asked for such a destination as for that of a THP, it ends
 * in the OOM killer.  Stock passes: it asks for single pages, and that may fail.
 *
 * Needs: mm/migrate: do not kill for a target of order 2 or 3
 */
TEST_F(partial_thp_target, full_target)
{
	struct env *env = &self->env;

	ASSERT_TRUE(spawn(env, fill_dst_in_shares, NR_FILLERS));
	env->thps = NR_TOO_MANY;
	if (!build(_metadata, env))
		return;
	ASSERT_EQ(0, each_thp(env, unmap, 1u << env->order >> 1, 1, MADV_DONTNEED));
	expect_no_kill(_metadata, env);
}

/* Folios are made of @order from now on, and not of the PMD's. */
static bool switch_order(struct env *env, unsigned int order)
{
	char path[96];

	pthp_order_knob(path, sizeof(path), env->order);
	if (!pthp_set(path, "never"))
		return false;
	env->order = order;
	pthp_order_knob(path, sizeof(path), order);
	return pthp_set(path, "always");
}

/*
 * The same with folios that are of order 2 from the start.  Stock: a process is killed.
 *
 * Needs: mm/migrate: do not kill for a target of order 2 or 3
 */
TEST_F(partial_thp_target, full_target_mthp)
{
	struct env *env = &self->env;

	requires(return, thp_supported_orders() & 1ul << 2, "no anonymous folios of order 2");
	ASSERT_TRUE(spawn(env, fill_dst_in_shares, NR_FILLERS));
	env->thps = NR_TOO_MANY << (env->order - 2);
	ASSERT_TRUE(switch_order(env, 2));
	if (!build(_metadata, env))
		return;
	expect_no_kill(_metadata, env);
}

/* The order of folios of 64 KiB, or 0 if anonymous memory has none. */
static unsigned int order_of_64k(void)
{
	unsigned int order = ffsl(65536 / psize()) - 1;

	return order >= 2 && thp_supported_orders() & 1ul << order ? order : 0;
}

/*
 * The target node is full, and the policy prefers it: whole folios of 64 KiB stay whole,
 * since their single pages would not get there, either.  Stock passes.
 */
TEST_F(partial_thp_target, full_target_preferred)
{
	unsigned int order = order_of_64k();
	struct env *env = &self->env;
	struct pthp_census c = { 0 };

	requires(return, order, "no anonymous folios of 64 KiB");
	ASSERT_TRUE(spawn(env, fill_dst, 0));
	env->thps = NR_TOO_MANY << (env->order - order);
	ASSERT_TRUE(switch_order(env, order));
	if (!build(_metadata, env))
		return;
	EXPECT_EQ(0, pthp_mbind_preferred(env->r.mem, pthp_len(&env->r), env->dst,
					  MPOL_MF_MOVE));
	TH_LOG("%u of %u pages moved", pthp_on_node(&env->r, env->dst), env->r.nr_mapped);
	EXPECT_GT(env->r.nr_mapped, pthp_on_node(&env->r, env->dst));
	ASSERT_TRUE(pthp_census_take(&env->r, &c));
	/* What is split finds room, unless others were faster. */
	EXPECT_GE(env->thps / 16, pthp_split_in_vain(&env->r, &c, env->dst));
	EXPECT_TRUE(pthp_intact(&env->r));
	pthp_census_drop(&c);
}

/*
 * Leave the target node with free blocks of 64 KiB and hardly any larger ones.  Return
 * the order of these blocks, or 0.
 */
static unsigned int fragment_target(struct __test_metadata *_metadata, struct env *env)
{
	unsigned int have = order_of_64k();
	char pmd[96], path[96];
	bool ready;

	requires(return 0, have, "no anonymous folios of 64 KiB");
	pthp_order_knob(pmd, sizeof(pmd), env->order);
	pthp_order_knob(path, sizeof(path), have);
	/* Nothing is kept free, in large blocks, for others. */
	ready = pthp_set(pmd, "never") && pthp_set(path, "always") &&
		pthp_set("/proc/sys/vm/compact_unevictable_allowed", "0") &&
		pthp_set("/proc/sys/vm/lowmem_reserve_ratio", "0 0 0") &&
		pthp_set("/proc/sys/vm/watermark_boost_factor", "0") &&
		pthp_set("/proc/sys/vm/min_free_kbytes", "1024") &&
		spawn(env, fill_dst, 65536) && pthp_put(pmd, "always");
	EXPECT_TRUE(ready);
	EXPECT_TRUE(pthp_can_have(env->src, env->dst, have));
	return ready ? have : 0;
}

/* And map THPs without their second half. */
static unsigned int fragment_target_of_halves(struct __test_metadata *_metadata,
					      struct env *env)
{
	unsigned int half = 1u << env->order >> 1;
	unsigned int have = fragment_target(_metadata, env);

	env->thps = NR_TOO_MANY;
	if (!have || !build(_metadata, env))
		return 0;
	EXPECT_EQ(0, each_thp(env, unmap, half, half, MADV_DONTNEED));
	return have;
}

/*
 * The target node has free blocks of 64 KiB and hardly any larger ones: halves of THPs
 * arrive in folios of that size.  Stock: all pieces are of order 0, though folios that
 * were of that size before arrive whole.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_target, fragmented_target)
{
	unsigned int order, have, pages = 0, larger = 0;
	struct env *env = &self->env;
	char str[96];
	struct seen s;

	have = fragment_target_of_halves(_metadata, env);
	if (!have)
		return;
	EXPECT_EQ(0, migrate(env));
	expect_pages(_metadata, env, env->dst);
	look(env, &s);
	for (order = have; order <= env->order; order++) {
		pages += s.orders[order] << order;
		if (order > have)
			larger += s.orders[order] << order;
	}
	TH_LOG("folios (order:number): %s",
	       pthp_orders_str(s.orders, str, sizeof(str)));
	EXPECT_EQ(env->r.nr_mapped, pages);
	EXPECT_GE(env->r.nr_mapped / 2, larger) {
		TH_LOG("the target node is not as fragmented as it should be");
	}
}

/*
 * The same with a policy that prefers the target node.  The other node has larger blocks,
 * but that is where the pages are to get away from.  Stock passes: it asks for single
 * pages, and the target node has these.
 *
 * Needs: mm/mempolicy: take smaller targets rather than those
 */
TEST_F(partial_thp_target, fragmented_target_preferred)
{
	struct env *env = &self->env;

	if (!fragment_target_of_halves(_metadata, env))
		return;
	EXPECT_EQ(0, pthp_mbind_preferred(env->r.mem, pthp_len(&env->r), env->dst,
					  MPOL_MF_MOVE));
	expect_pages(_metadata, env, env->dst);
}

/*
 * The same with whole folios of 128 KiB, of which one is pinned: all others get there.
 * Stock: it copies them to the node they are on.
 *
 * Needs: mm/mempolicy: take smaller targets rather than those
 */
TEST_F(partial_thp_target, fragmented_target_pinned)
{
	unsigned int have = fragment_target(_metadata, &self->env);
	struct env *env = &self->env;
	int pipefd[2];

	if (!have)
		return;
	requires(return, thp_supported_orders() & 2ul << have, "no anonymous folios of 128 KiB");
	/* Some larger blocks are left: more than these. */
	env->thps = NR_TOO_MANY << 3;
	ASSERT_TRUE(switch_order(env, have + 1));
	if (!build(_metadata, env))
		return;
	ASSERT_TRUE(pthp_pin(pthp_addr(&env->r, env->r.nr / 2), pipefd));
	EXPECT_EQ(0, pthp_mbind_preferred(env->r.mem, pthp_len(&env->r), env->dst,
					  MPOL_MF_MOVE));
	EXPECT_EQ(env->r.nr_mapped - (1u << env->order), pthp_on_node(&env->r, env->dst));
	EXPECT_TRUE(pthp_intact(&env->r));
	close(pipefd[0]);
	close(pipefd[1]);
}

/* ---- in which order they arrive ---- */

/*
 * Pages of a THP that was split arrive in ascending order, as single pages do that never
 * were in a THP.  Stock: they arrive in descending order.
 *
 * Needs: mm/migrate: split folios that wait to be split
 */
TEST_F(partial_thp_target, arrival_order)
{
	static const enum pthp_shape shapes[] = { PTHP_ALTERNATE, PTHP_ALL_BUT_ONE };
	struct pthp kept[12 + ARRAY_SIZE(shapes)] = { 0 };
	struct env *env = &self->env;
	unsigned int i, page, shape = 0;
	bool ready = false, sorted;

	/* Each CPU reuses first what it freed last: stay on one, and free nothing. */
	ASSERT_TRUE(pthp_run_on(sched_getcpu()));

	for (i = 0; i < ARRAY_SIZE(kept) && shape < ARRAY_SIZE(shapes); i++) {
		const char *what = ready ? pthp_shape_names[shapes[shape]] : "small";

		if (!build(_metadata, env))
			goto free;
		if (ready) {
			ASSERT_EQ(0, pthp_punch(&env->r, shapes[shape++],
						PTHP_DONTNEED));
		} else {
			ASSERT_EQ(0, madvise(env->r.mem, pthp_len(&env->r),
					     MADV_DONTNEED));
			for (page = 0; page < env->r.nr; page++)
				pthp_fill(&env->r, page);
		}
		EXPECT_EQ(0, migrate(env));
		expect_pages(_metadata, env, env->dst);
		sorted = ascending(_metadata, &env->r, what);
		EXPECT_TRUE(sorted || !ready);
		/* First, what the CPU has and what earlier cases left is used up. */
		ready |= i && sorted;
		kept[i] = env->r;
		memset(&env->r, 0, sizeof(env->r));
	}
	requires(goto free, ready, "single pages do not arrive in order, either");
	EXPECT_EQ(ARRAY_SIZE(shapes), shape);
free:
	while (i--)
		pthp_free(&kept[i]);
}

/* ---- trace events ---- */

struct traced {
	long succeeded;
	long failed;
	long thp_succeeded;
	long thp_failed;
	long thp_split;
	long set_pte;
	long removed_pte;
	long compaction_failed;
};

static void trace_setup(void)
{
	/* The names of tasks: to record them, the kernel patches its scheduler. */
	pthp_set(TRACING "options/record-cmd", "0");
	/* If events are lost, read_trace() sees it. */
	pthp_set(TRACING "options/overwrite", "1");
	pthp_set(TRACING "tracing_on", "1");
}

/* Trace these events, and forget all events from before. */
static bool trace_begin(const char *enable)
{
	close(open(TRACING "trace", O_WRONLY | O_TRUNC));
	return pthp_put(enable, "1");
}

static void trace_end(const char *enable)
{
	pthp_put(enable, "0");
}

static long field(const char *line, const char *name)
{
	const char *at = strstr(line, name);

	return at ? atol(at + strlen(name)) : 0;
}

/* Read all that was traced; false if some of it was overwritten. */
static bool read_trace(struct traced *t)
{
	unsigned long kept = 0, written = 1;
	FILE *f = fopen(TRACING "trace", "r");
	char line[512];

	memset(t, 0, sizeof(*t));
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "# entries-in-buffer/entries-written: %lu/%lu",
			   &kept, &written) == 2)
			continue;
		t->set_pte += !!strstr(line, " set_migration_pte: ");
		t->removed_pte += !!strstr(line, " remove_migration_pte: ");
		if (strstr(line, " mm_compaction_migratepages: "))
			t->compaction_failed += field(line, " nr_failed=");
		if (!strstr(line, " mm_migrate_pages: "))
			continue;
		t->succeeded += field(line, " nr_succeeded=");
		t->failed += field(line, " nr_failed=");
		t->thp_succeeded += field(line, " nr_thp_succeeded=");
		t->thp_failed += field(line, " nr_thp_failed=");
		t->thp_split += field(line, " nr_thp_split=");
	}
	if (f)
		fclose(f);
	return kept == written && kept;
}

/*
 * mm_migrate_pages says the same as /proc/vmstat, if some THPs are split and one cannot
 * be split.  Stock passes.
 */
TEST_F(partial_thp_target, trace_agrees_with_vmstat)
{
	struct env *env = &self->env;
	struct pthp_vmstat before, d;
	unsigned int half = 1u << env->order >> 1;
	struct traced t;
	int pipefd[2];

	requires(return, !access(MIGRATED, W_OK), "no trace events");
	trace_setup();
	if (!build(_metadata, env))
		return;
	ASSERT_EQ(0, each_thp(env, unmap, half, half, MADV_DONTNEED));
	ASSERT_TRUE(pthp_pin(pthp_addr(&env->r, 7), pipefd));
	ASSERT_TRUE(pthp_vmstat_read(&before));
	ASSERT_TRUE(trace_begin(MIGRATED));
	EXPECT_EQ(0, migrate(env));
	trace_end(MIGRATED);
	ASSERT_TRUE(pthp_vmstat_read(&d));
	pthp_unpin(pipefd);
	pthp_vmstat_sub(&d, &before);
	ASSERT_TRUE(read_trace(&t));
	EXPECT_EQ(t.succeeded, d.v[PTHP_PGMIGRATE_SUCCESS]);
	EXPECT_EQ(t.failed, d.v[PTHP_PGMIGRATE_FAIL]);
	EXPECT_EQ(t.thp_succeeded, d.v[PTHP_THP_MIGRATION_SUCCESS]);
	EXPECT_EQ(t.thp_failed, d.v[PTHP_THP_MIGRATION_FAIL]);
	EXPECT_EQ(t.thp_split, d.v[PTHP_THP_MIGRATION_SPLIT]);
	EXPECT_EQ(NR_THPS - 1, t.thp_split);
}

/*
 * remove_migration_pte reports each migration entry that set_migration_pte reported, as
 * tools pair them, of THPs that are mapped by PTEs.  Stock passes.
 */
TEST_F(partial_thp_target, trace_pairs)
{
	struct env *env = &self->env;
	struct traced t;

	requires(return, !access(MIGRATED, W_OK), "no trace events");
	trace_setup();
	env->thps = 2;
	if (!build(_metadata, env))
		return;
	ASSERT_TRUE(pthp_map_by_ptes(&env->r));
	ASSERT_TRUE(trace_begin(MIGRATED));
	EXPECT_EQ(0, migrate(env));
	trace_end(MIGRATED);
	ASSERT_TRUE(read_trace(&t));
	EXPECT_EQ(env->r.nr, t.set_pte);
	EXPECT_EQ(t.set_pte, t.removed_pte);
}

#define NR_COMPACTED 24

/*
 * Unmap the second half of folios, and compact memory.  Of the pages that are not mapped
 * then, compaction gives back some, which is what is returned.
 */
static long compact_halves(struct __test_metadata *_metadata, struct env *env,
			   struct traced *t, long *unmapped)
{
	unsigned int half = 1u << pthp_pmd_order() >> 1, i;
	struct pthp small[NR_COMPACTED] = { 0 };
	struct pthp_census c;
	long freed = 0;

	*unmapped = 0;
	for (i = 0; i < NR_COMPACTED; i++)
		EXPECT_TRUE(!pthp_alloc(&small[i], half >> env->order, env->order,
					env->src, SEED + i));
	for (i = 0; i < NR_COMPACTED; i++) {
		if (i % 3 == 0) {
			pthp_free(&small[i]);
			continue;
		}
		EXPECT_EQ(0, pthp_punch(&small[i], PTHP_FIRST_HALF, PTHP_DONTNEED));
	}

	EXPECT_TRUE(trace_begin(COMPACTED));
	EXPECT_TRUE(pthp_put(PTHP_COMPACT, "1"));
	trace_end(COMPACTED);
	EXPECT_TRUE(read_trace(t));
	for (i = 0; i < NR_COMPACTED; i++) {
		if (!small[i].mem)
			continue;
		EXPECT_TRUE(pthp_census_take(&small[i], &c));
		freed += (long)small[i].nr - c.held;
		*unmapped += small[i].nr - small[i].nr_mapped;
		pthp_census_drop(&c);
		EXPECT_TRUE(pthp_intact(&small[i]));
		pthp_free(&small[i]);
	}
	return freed;
}

/*
 * mm_compaction_migratepages does not report the unmapped pages of folios of 64 KiB, which
 * are given back, as failed.  Stock passes: it reports them as migrated.
 */
TEST_F(partial_thp_target, trace_compaction)
{
	struct env *env = &self->env;
	struct traced t = { 0 };
	char path[96];
	long freed, unmapped;
	int tries = 0;

	env->order = order_of_64k();
	requires(return, env->order, "no anonymous folios of 64 KiB");
	requires(return, !access(COMPACTED, W_OK), "no trace events");
	trace_setup();
	pthp_order_knob(path, sizeof(path), env->order);
	EXPECT_TRUE(pthp_set(path, "always"));
	/*
	 * The scanners may meet before they come to many of these folios, and then what
	 * they have isolated fails.  So do pages of others.
	 */
	do {
		freed = compact_halves(_metadata, env, &t, &unmapped);
	} while ((8 * freed < unmapped || freed / 2 <= t.compaction_failed) && ++tries < 8);
	TH_LOG("%ld of %ld unmapped pages were given back, %ld pages failed", freed,
	       unmapped, t.compaction_failed);
	EXPECT_LE(unmapped, 8 * freed);
	EXPECT_GT(freed / 2, t.compaction_failed);
}

TEST_HARNESS_MAIN
