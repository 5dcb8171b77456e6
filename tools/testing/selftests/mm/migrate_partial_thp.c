// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of large folios of which a part was unmapped.
 *
 * Such a folio waits on the deferred split queue.  When migrate_pages() meets
 * it, it has to give the unmapped pages back, move the mapped ones in folios
 * as large as they allow, and say truthfully what it did.  The tests here make
 * folios, unmap a part of them by munmap(2) or MADV_DONTNEED, migrate them from
 * one node to another by move_pages(2), mbind(2) or migrate_pages(2), and then
 * look at contents, nodes, folio orders and statistics.
 *
 * "Stock" is a 6.12 kernel that splits such a folio to base pages and counts
 * that as a failure.  A 6.1 kernel does not look, and migrates it whole.
 *
 * migrate_partial_thp: once per system call, MIGRATE_SYNC all of them.
 *   stats - the numbers in /proc/vmstat are exact: a split is a split, what
 *	moved is a success, nothing failed.  Stock counts the freed pages as
 *	migrated and the split THPs as failed.
 *   counters_come_back - nr_anon, nr_anon_partially_mapped and
 *	nr_isolated_anon say what the mappings say.  Stock passes.
 *   whole_untouched - THPs mapped by a PMD stay whole.  Stock passes.
 *   pinned_fails_whole - with an extra reference, from vmsplice(2), on a page
 *	the THP stays as it is and where it is, and counts as one failure; when
 *	the reference is gone it is migrated.  Stock tries to migrate it whole,
 *	fails too, and gets the numbers of the second attempt wrong.
 *   pinned_one_of_many - one THP that cannot be split does not keep others.
 *	Stock gets the numbers wrong.
 *   fork_shared - the same part unmapped in parent and child.  Stock passes.
 *   fork_child_maps_all - unmapped in the parent, but not in the child: every
 *	page is mapped and the THP stays whole, there and back.  Stock: the way
 *	there marks it partially mapped, the way back splits it.
 *   ping_pong - partially mapped THPs go there and back and there.  Stock
 *	passes.
 *   huge_pmd_in_front - a THP that is mapped across two page tables, the first
 *	of which gave way to a huge PMD.  Stock: the walk that is to unmap the
 *	THP ends at the huge PMD, and nothing can split, migrate or reclaim it.
 *   stale_mark - whole THPs that are mapped by PTEs go there and back and stay
 *	whole.  Stock: as fork_child_maps_all.
 *   stale_mark_after_pin - and so they do after a migration that failed for a
 *	pin.  Stock: the failed migration is enough to mark them.
 *
 * partial_thp_shape: once per shape of what stays mapped.
 *   contents - each page keeps its content and gets to the target node, what
 *	was unmapped stays unmapped.  By all three calls, with both ways to
 *	unmap.  Stock passes.
 *   given_back - no unmapped page is held by what holds the mapped ones, and
 *	none is left on the source node.  Stock passes; 6.1 carries them along.
 *   orders - mapped pages end up in the largest naturally aligned folios they
 *	fill.  Stock: all of order 0.
 *
 * partial_thp: by one call only.
 *   status_one_each, status_every_page - move_pages(2) returns 0 and reports
 *	the target node for every page it was given, be it one page of a THP or
 *	all that are mapped.  Stock passes the first and reports -EBUSY for the
 *	second page of each THP.
 *   status_of_failed - no page of a THP that stays is reported on the target
 *	node.  Stock passes.
 *   mlocked, uffd_wp, soft_dirty - the state of each page survives; but that
 *	of large folios is for reclaim to mark as mlocked.  Stock passes.
 *   small_page_twice - a small page that is named twice is reported as it always
 *	was: unlike the second page of a THP, it is a mistake.  Stock passes.
 *   protections - what is mapped again keeps the protection of its VMA, where
 *	there are several for a folio, split or not.  Stock passes, but for 6.1,
 *	which does not split.
 *   protections_shrinker - the same of a split by the shrinker.  Stock passes.
 *   ksm_pages - a page that KSM mapped at several offsets keeps its content.
 *	Stock passes.
 *   moved_charge - 6.1 only: who changes cgroups, with cgroup v1, does not take the
 *	charge of a THP along that waits to be split, as the queue is that of the
 *	cgroup.  Stock does, and may use the queue after it was freed.
 *   compaction - contents survive compact_memory, with partially mapped folios
 *	of 64 KiB for it to move.  Stock passes.
 *   mthp_64k, mthp_64k_orders - as contents, given_back and orders, for folios
 *	of 64 KiB.  Stock fails the second one.
 *
 * A test whose folios did not move fails: the vmstat counters and the node of
 * each page are looked at after every migration.  The random shape prints its
 * seed, and takes it from the environment as PARTIAL_THP_SEED.
 */
#include "../kselftest_harness.h"

#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <time.h>

#include "partial_thp.h"

/* Emulators with a debug kernel are slow, and nothing here is about time. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 300

#define NR_THPS 8
#define MTHP_64K "hugepages-64kB/enabled"

static const char * const mthp_enabled[] = {
	"never", "always", "inherit", "madvise", NULL
};

/* What every fixture has */
struct env {
	int src;
	int dst;
	unsigned int thps;
	unsigned int order;
	unsigned int seed;
	unsigned long numa_balancing;
	enum pthp_call call;
	struct pthp r;
	/* what migrate_pages(2) does to the rest of this process, each time */
	struct pthp_vmstat idle;
	long idle_ret;
};

static long migrate(struct env *env, struct pthp_vmstat *delta)
{
	struct pthp_vmstat before;
	long ret;

	if (!pthp_vmstat_read(&before))
		return -ENOENT;
	ret = pthp_migrate(&env->r, env->call, env->src, env->dst);
	if (!pthp_vmstat_read(delta))
		return -ENOENT;
	pthp_vmstat_sub(delta, &before);
	if (env->call == PTHP_MIGRATE_PAGES) {
		pthp_vmstat_sub(delta, &env->idle);
		ret -= env->idle_ret;
	}
	return ret;
}

/*
 * What a call says of the region, once the rest of the process is not where settle()
 * had it any more: where that stays is none of the test's business.
 */
static long of_region(const struct env *env, long ret)
{
	return env->call == PTHP_MIGRATE_PAGES && ret > 0 ? 0 : ret;
}

static long migrate_back(struct env *env)
{
	return of_region(env, pthp_migrate(&env->r, env->call, env->dst,
					   env->src));
}

/*
 * migrate_pages(2) takes the whole process along.  Have the rest of it where it
 * is to go, with all of it mapped, so that only the region is left to move.
 */
static bool settle(struct env *env)
{
	bool ok;
	int i;

	if (mlockall(MCL_CURRENT) || munlockall())
		return false;
	for (i = 0; i < 2; i++) {
		if (pthp_migrate_process(env->src, env->dst) < 0)
			return false;
	}
	ok = pthp_vmstat_read(&env->idle);
	env->idle_ret = pthp_migrate_process(env->src, env->dst);
	if (ok && env->idle_ret >= 0) {
		struct pthp_vmstat after;

		ok = pthp_vmstat_read(&after);
		pthp_vmstat_sub(&after, &env->idle);
		env->idle = after;
	}
	return ok && env->idle_ret >= 0;
}

static void env_setup(struct __test_metadata *_metadata, struct env *env,
		      enum pthp_call call)
{
	const char *seed = getenv("PARTIAL_THP_SEED");

	if (geteuid())
		SKIP(return, "needs root");
	if (!thp_is_enabled() || !pthp_pmd_order())
		SKIP(return, "transparent huge pages are not enabled");
	if (!pthp_two_nodes(&env->src, &env->dst))
		SKIP(return, "needs two nodes with memory");
	if (!pthp_vmstat_read(&env->idle))
		SKIP(return, "/proc/vmstat lacks migration events");
	memset(&env->idle, 0, sizeof(env->idle));

	env->thps = NR_THPS;
	env->order = pthp_pmd_order();
	env->seed = seed ? strtoul(seed, NULL, 0) : time(NULL) ^ getpid();
	env->seed &= INT32_MAX;
	env->call = call;
	env->numa_balancing = pthp_balancing(0);
	ASSERT_EQ(0, pthp_prefer_node(env->dst));
	if (call == PTHP_MIGRATE_PAGES)
		ASSERT_TRUE(settle(env));
}

static void env_teardown(struct env *env)
{
	pthp_free(&env->r);
	pthp_balancing(env->numa_balancing);
}

/* Make the region; false if the test was skipped. */
static bool build(struct __test_metadata *_metadata, struct env *env,
		  enum pthp_shape shape, enum pthp_hole hole)
{
	const char *missing;

	pthp_free(&env->r);
	missing = pthp_alloc(&env->r, env->thps, env->order, env->src,
			     env->seed);
	if (missing)
		SKIP(return false, "%s", missing);
	if (shape == PTHP_RANDOM)
		TH_LOG("PARTIAL_THP_SEED=%u", env->seed);
	ASSERT_EQ(0, pthp_punch(&env->r, shape, hole));
	return true;
}

static void expect_delta(struct __test_metadata *_metadata,
			 const struct pthp_vmstat *delta, enum pthp_event event,
			 long want)
{
	EXPECT_EQ(want, delta->v[event]) {
		TH_LOG("%s: expected +%ld, got +%ld", pthp_event_names[event],
		       want, delta->v[event]);
	}
}

/* @split THPs were split and @pages moved, @failed THPs stayed. */
static void expect_events(struct __test_metadata *_metadata,
			  const struct pthp_vmstat *delta, long pages,
			  long split, long failed)
{
	const long n = 1l << pthp_pmd_order();

	expect_delta(_metadata, delta, PTHP_PGMIGRATE_SUCCESS, pages);
	expect_delta(_metadata, delta, PTHP_PGMIGRATE_FAIL, failed * n);
	expect_delta(_metadata, delta, PTHP_THP_MIGRATION_SUCCESS, 0);
	expect_delta(_metadata, delta, PTHP_THP_MIGRATION_FAIL, failed);
	expect_delta(_metadata, delta, PTHP_THP_MIGRATION_SPLIT, split);
}

/* Every mapped page is on @node, with its content. */
static void expect_pages(struct __test_metadata *_metadata,
			 const struct pthp *r, int node)
{
	EXPECT_EQ(r->nr_mapped, pthp_on_node(r, node));
	EXPECT_TRUE(pthp_intact(r));
}

static void expect_orders(struct __test_metadata *_metadata,
			  const struct pthp *r, const unsigned int *want)
{
	char want_str[128], got_str[128];
	struct pthp_census c;

	EXPECT_TRUE(pthp_census_take(r, &c));
	EXPECT_EQ(0, memcmp(want, c.orders, sizeof(c.orders))) {
		TH_LOG("folios (order:number): expected %s, got %s",
		       pthp_orders_str(want, want_str, sizeof(want_str)),
		       pthp_orders_str(c.orders, got_str, sizeof(got_str)));
	}
	pthp_census_drop(&c);
}

/* All folios are still there, of the order they were made with. */
static void expect_whole(struct __test_metadata *_metadata,
			 const struct pthp *r)
{
	unsigned int want[PTHP_MAX_ORDER + 1] = { 0 };

	want[r->order] = r->nr_folios;
	expect_orders(_metadata, r, want);
}

/* Folios hold mapped pages only. */
static void expect_given_back(struct __test_metadata *_metadata,
			      const struct pthp *r)
{
	struct pthp_census c;

	EXPECT_TRUE(pthp_census_take(r, &c));
	EXPECT_EQ(r->nr_mapped, c.held) {
		TH_LOG("%u pages are mapped, %lu are held", r->nr_mapped,
		       c.held);
	}
	EXPECT_EQ(0, pthp_left_behind(r));
	pthp_census_drop(&c);
}

/*
 * The orders of the largest naturally aligned folios that hold the mapped pages
 * of the region and nothing else.  There are no anonymous folios of order 1.
 */
static void largest_orders(const struct pthp *r, unsigned int *orders)
{
	unsigned int page, start, i, order;

	memset(orders, 0, (PTHP_MAX_ORDER + 1) * sizeof(*orders));
	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page])
			continue;
		for (order = r->order; order; order--) {
			if (order == 1)
				continue;
			start = page >> order << order;
			for (i = 0; i < 1u << order; i++) {
				if (!r->mapped[start + i])
					break;
			}
			if (i == 1u << order)
				break;
#ifndef HAVE_SPLIT_TO_ORDER
			/* There is no split but to single pages. */
			order = 1;
#endif
		}
		/* Count pages: the block is met once for each of its pages. */
		orders[order]++;
	}
	for (order = 0; order <= PTHP_MAX_ORDER; order++)
		orders[order] >>= order;
}

static void expect_largest_orders(struct __test_metadata *_metadata,
				  const struct pthp *r)
{
	unsigned int want[PTHP_MAX_ORDER + 1];

	largest_orders(r, want);
	expect_orders(_metadata, r, want);
}

/* What a call that could not move @n folios, one at most, returns */
static long failed_ret(const struct env *env)
{
	return env->call == PTHP_MBIND ? -EIO : 1;
}

/* ---- per system call ---- */

FIXTURE(migrate_partial_thp)
{
	struct env env;
};

FIXTURE_VARIANT(migrate_partial_thp)
{
	enum pthp_call call;
	enum pthp_hole hole;
};

FIXTURE_VARIANT_ADD(migrate_partial_thp, move_pages)
{
	.call = PTHP_MOVE_PAGES,
	.hole = PTHP_MUNMAP,
};

FIXTURE_VARIANT_ADD(migrate_partial_thp, mbind)
{
	.call = PTHP_MBIND,
	.hole = PTHP_DONTNEED,
};

FIXTURE_VARIANT_ADD(migrate_partial_thp, migrate_pages)
{
	.call = PTHP_MIGRATE_PAGES,
	.hole = PTHP_MUNMAP,
};

FIXTURE_SETUP(migrate_partial_thp)
{
	env_setup(_metadata, &self->env, variant->call);
}

FIXTURE_TEARDOWN(migrate_partial_thp)
{
	env_teardown(&self->env);
}

TEST_F(migrate_partial_thp, stats)
{
	static const enum pthp_shape shapes[] = {
		PTHP_ONE_PAGE, PTHP_FIRST_HALF
	};
	struct env *env = &self->env;
	struct pthp_vmstat d;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (!build(_metadata, env, shapes[i], variant->hole))
			return;
		EXPECT_EQ(0, migrate(env, &d));
		expect_events(_metadata, &d, env->r.nr_mapped, NR_THPS, 0);
		expect_delta(_metadata, &d, PTHP_THP_SPLIT_PAGE, NR_THPS);
		expect_pages(_metadata, &env->r, env->dst);
	}
}

TEST_F(migrate_partial_thp, counters_come_back)
{
	struct env *env = &self->env;
	struct pthp_vmstat before, d;
	long anon[PTHP_MAX_ORDER + 1];
	struct pthp_census c;
	unsigned int order;
	long partial;

	partial = pthp_folio_stat(env->order, "nr_anon_partially_mapped");
	if (partial < 0)
		SKIP(return, "no statistics per folio size");
	for (order = 2; order <= env->order; order++)
		anon[order] = pthp_folio_stat(order, "nr_anon");
	if (!build(_metadata, env, PTHP_THREE_QUARTERS, variant->hole))
		return;
	ASSERT_EQ(anon[env->order] + NR_THPS,
		  pthp_folio_stat(env->order, "nr_anon"));
	ASSERT_EQ(partial + NR_THPS,
		  pthp_folio_stat(env->order, "nr_anon_partially_mapped"));

	ASSERT_TRUE(pthp_vmstat_read(&before));
	EXPECT_EQ(0, migrate(env, &d));
	EXPECT_EQ(env->r.nr_mapped, pthp_on_node(&env->r, env->dst));
	ASSERT_TRUE(pthp_vmstat_read(&d));
	pthp_vmstat_sub(&d, &before);
	expect_delta(_metadata, &d, PTHP_NR_ISOLATED_ANON, 0);

	EXPECT_TRUE(pthp_census_take(&env->r, &c));
	for (order = 2; order <= env->order; order++) {
		EXPECT_EQ(anon[order] + c.orders[order],
			  pthp_folio_stat(order, "nr_anon"));
	}
	pthp_census_drop(&c);
	EXPECT_EQ(partial,
		  pthp_folio_stat(env->order, "nr_anon_partially_mapped"));
}

TEST_F(migrate_partial_thp, whole_untouched)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;

	if (!build(_metadata, env, PTHP_ALL, variant->hole))
		return;
	EXPECT_EQ(0, migrate(env, &d));
	expect_delta(_metadata, &d, PTHP_PGMIGRATE_SUCCESS, env->r.nr);
	expect_delta(_metadata, &d, PTHP_PGMIGRATE_FAIL, 0);
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SUCCESS, NR_THPS);
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_FAIL, 0);
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SPLIT, 0);
	expect_delta(_metadata, &d, PTHP_THP_SPLIT_PAGE, 0);
	expect_delta(_metadata, &d, PTHP_THP_DEFERRED_SPLIT_PAGE, 0);
	expect_pages(_metadata, &env->r, env->dst);
	expect_whole(_metadata, &env->r);
	EXPECT_TRUE(check_huge_anon(env->r.mem, NR_THPS,
				    read_pmd_pagesize()));
}

TEST_F(migrate_partial_thp, pinned_fails_whole)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;
	long partial;
	int pipefd[2];

	env->thps = 1;
	if (!build(_metadata, env, PTHP_FIRST_HALF, variant->hole))
		return;
	partial = pthp_folio_stat(env->order, "nr_anon_partially_mapped");
	ASSERT_TRUE(pthp_pin(pthp_addr(&env->r, 7), pipefd));

	EXPECT_EQ(failed_ret(env), migrate(env, &d));
	expect_events(_metadata, &d, 0, 0, 1);
	expect_delta(_metadata, &d, PTHP_NR_ISOLATED_ANON, 0);
	expect_pages(_metadata, &env->r, env->src);
	expect_whole(_metadata, &env->r);
	EXPECT_EQ(partial,
		  pthp_folio_stat(env->order, "nr_anon_partially_mapped"));

	pthp_unpin(pipefd);
	EXPECT_EQ(0, migrate(env, &d));
	expect_events(_metadata, &d, env->r.nr_mapped, 1, 0);
	expect_pages(_metadata, &env->r, env->dst);
	expect_given_back(_metadata, &env->r);
}

TEST_F(migrate_partial_thp, pinned_one_of_many)
{
	struct env *env = &self->env;
	unsigned int n = 1u << env->order;
	struct pthp_census c;
	struct pthp_vmstat d;
	int pipefd[2];

	if (!build(_metadata, env, PTHP_FIRST_HALF, variant->hole))
		return;
	ASSERT_TRUE(pthp_pin(pthp_addr(&env->r, 3 * n + 7), pipefd));

	EXPECT_EQ(failed_ret(env), migrate(env, &d));
	expect_events(_metadata, &d, (NR_THPS - 1) * (n / 2), NR_THPS - 1, 1);
	EXPECT_EQ((NR_THPS - 1) * (n / 2), pthp_on_node(&env->r, env->dst));
	EXPECT_EQ(n / 2, pthp_on_node(&env->r, env->src));
	EXPECT_TRUE(pthp_census_take(&env->r, &c));
	EXPECT_EQ(1, c.orders[env->order]);
	pthp_census_drop(&c);
	EXPECT_TRUE(pthp_intact(&env->r));

	pthp_unpin(pipefd);
	EXPECT_EQ(0, migrate(env, &d));
	expect_pages(_metadata, &env->r, env->dst);
	expect_given_back(_metadata, &env->r);
}

/* Run by the child of a fork test, on its own page tables. */
static int child_looks(struct pthp *r, int node)
{
	r->pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (r->pagemap < 0)
		return 2;
	if (pthp_on_node(r, node) != r->nr_mapped)
		return 3;
	if (!pthp_intact(r))
		return 4;
	return pthp_holes_empty(r) ? 0 : 5;
}

struct child {
	pid_t pid;
	int to;
	int from;
};

/* The child unmaps by @shape, says so, and looks at its pages when told to. */
static bool spawn(struct child *child, struct env *env, enum pthp_shape shape,
		  enum pthp_hole hole)
{
	int to[2], from[2], node;
	char ready;

	if (pipe(to) || pipe(from))
		return false;
	child->pid = fork();
	if (child->pid < 0)
		return false;
	if (child->pid) {
		close(to[0]);
		close(from[1]);
		child->to = to[1];
		child->from = from[0];
		return read(from[0], &ready, 1) == 1 && !ready;
	}
	close(to[1]);
	close(from[0]);
	ready = !!pthp_punch(&env->r, shape, hole);
	if (write(from[1], &ready, 1) != 1 ||
	    read(to[0], &node, sizeof(node)) != sizeof(node))
		_exit(1);
	_exit(child_looks(&env->r, node));
}

static int reap(struct child *child, int node)
{
	int status;

	if (write(child->to, &node, sizeof(node)) != sizeof(node))
		return -1;
	close(child->to);
	close(child->from);
	if (waitpid(child->pid, &status, 0) != child->pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(migrate_partial_thp, fork_shared)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;
	struct child child;

	if (!build(_metadata, env, PTHP_ALL, variant->hole))
		return;
	ASSERT_TRUE(spawn(&child, env, PTHP_THREE_QUARTERS, variant->hole));
	ASSERT_EQ(0, pthp_punch(&env->r, PTHP_THREE_QUARTERS, variant->hole));

	EXPECT_EQ(0, migrate(env, &d));
	EXPECT_GE(d.v[PTHP_PGMIGRATE_SUCCESS], (long)env->r.nr_mapped);
	expect_pages(_metadata, &env->r, env->dst);
	expect_given_back(_metadata, &env->r);
	EXPECT_EQ(0, reap(&child, env->dst));
	EXPECT_TRUE(pthp_holes_empty(&env->r));
}

TEST_F(migrate_partial_thp, fork_child_maps_all)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;
	struct child child;

	/*
	 * munmap(2) moves the parent's VMAs behind those of the child in the
	 * rmap walk; the other way round stock is not misled.
	 */
	if (!build(_metadata, env, PTHP_ALL, PTHP_MUNMAP))
		return;
	ASSERT_TRUE(spawn(&child, env, PTHP_ALL, PTHP_MUNMAP));
	ASSERT_EQ(0, pthp_punch(&env->r, PTHP_LAST_HALF, PTHP_MUNMAP));

	EXPECT_EQ(0, migrate(env, &d));
	EXPECT_GE(d.v[PTHP_PGMIGRATE_SUCCESS], (long)env->r.nr);
	expect_pages(_metadata, &env->r, env->dst);
	expect_whole(_metadata, &env->r);

	EXPECT_EQ(0, migrate_back(env));
	expect_pages(_metadata, &env->r, env->src);
	expect_whole(_metadata, &env->r);
	EXPECT_EQ(0, reap(&child, env->src));
}

TEST_F(migrate_partial_thp, ping_pong)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;

	if (!build(_metadata, env, PTHP_RAGGED, variant->hole))
		return;
	EXPECT_EQ(0, migrate(env, &d));
	expect_pages(_metadata, &env->r, env->dst);
	EXPECT_EQ(0, migrate_back(env));
	expect_pages(_metadata, &env->r, env->src);
	EXPECT_EQ(0, of_region(env, migrate(env, &d)));
	EXPECT_GE(d.v[PTHP_PGMIGRATE_SUCCESS], (long)env->r.nr_mapped);
	expect_pages(_metadata, &env->r, env->dst);
	expect_given_back(_metadata, &env->r);
	EXPECT_TRUE(pthp_holes_empty(&env->r));
}

/* In pages: how far each folio reaches into a second page table */
#define MISALIGNED_BY 5

/* Move the whole region to where no folio is mapped by one page table alone. */
static void misalign(struct __test_metadata *_metadata, struct pthp *r)
{
	size_t pmd = read_pmd_pagesize(), len = (size_t)r->nr * psize();
	char *mem, *to;

	mem = mmap(NULL, len + 2 * pmd, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	to = (char *)(((uintptr_t)mem + pmd - 1) & ~(pmd - 1));
	to += MISALIGNED_BY * psize();
	ASSERT_EQ(to, mremap(r->mem, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	r->mem = to;
}

/*
 * THPs that have been moved to where each of them is mapped across two page
 * tables.  Stock: passes.
 */
TEST_F(migrate_partial_thp, misaligned)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;
	struct pthp *r = &env->r;

	if (!build(_metadata, env, PTHP_ALL, PTHP_DONTNEED))
		return;
	misalign(_metadata, r);
	ASSERT_EQ(0, pthp_punch(r, PTHP_RAGGED, PTHP_DONTNEED));

	EXPECT_EQ(0, migrate(env, &d));
	EXPECT_EQ(env->thps, d.v[PTHP_THP_MIGRATION_SPLIT]);
	expect_pages(_metadata, r, env->dst);
	expect_given_back(_metadata, r);
	EXPECT_TRUE(pthp_holes_empty(r));
}

/*
 * Two THPs in three page tables, the second of which holds the end of the first
 * THP and all but the end of the second.  Put a third THP in its place.
 */
TEST_F(migrate_partial_thp, huge_pmd_in_front)
{
	struct env *env = &self->env;
	size_t pmd = read_pmd_pagesize(), len;
	struct pthp *r = &env->r;
	unsigned int page, first;
	struct pthp_vmstat d;

	env->thps = 2;
	if (!build(_metadata, env, PTHP_ALL, PTHP_DONTNEED))
		return;
	misalign(_metadata, r);
	len = (size_t)r->nr * psize();
	first = pmd / psize() - MISALIGNED_BY;

	ASSERT_EQ(0, madvise(pthp_addr(r, first), pmd, MADV_DONTNEED));
	pthp_fill(r, first);
	ASSERT_EQ(0, madvise(r->mem, len, MADV_HUGEPAGE));
	if (madvise(pthp_addr(r, first), pmd, MADV_COLLAPSE))
		SKIP(return, "MADV_COLLAPSE: %s", strerror(errno));
	ASSERT_EQ(0, madvise(r->mem, len, MADV_NOHUGEPAGE));
	for (page = first; page < first + pmd / psize(); page++)
		pthp_fill(r, page);
	ASSERT_TRUE(check_huge_anon(r->mem, 1, pmd));

	EXPECT_EQ(0, migrate(env, &d));
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SPLIT, 2);
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SUCCESS, 1);
	expect_delta(_metadata, &d, PTHP_PGMIGRATE_SUCCESS, r->nr);
	expect_pages(_metadata, r, env->dst);
	expect_given_back(_metadata, r);
}

TEST_F(migrate_partial_thp, stale_mark)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;
	long partial;

	partial = pthp_folio_stat(env->order, "nr_anon_partially_mapped");
	if (!build(_metadata, env, PTHP_ALL, variant->hole))
		return;
	ASSERT_TRUE(pthp_map_by_ptes(&env->r));

	EXPECT_EQ(0, migrate(env, &d));
	expect_pages(_metadata, &env->r, env->dst);
	expect_whole(_metadata, &env->r);
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SUCCESS, NR_THPS);
	EXPECT_EQ(partial,
		  pthp_folio_stat(env->order, "nr_anon_partially_mapped"));

	EXPECT_EQ(0, migrate_back(env));
	expect_pages(_metadata, &env->r, env->src);
	expect_whole(_metadata, &env->r);
	EXPECT_EQ(partial,
		  pthp_folio_stat(env->order, "nr_anon_partially_mapped"));
}

TEST_F(migrate_partial_thp, stale_mark_after_pin)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;
	int pipefd[2];
	long partial;

	env->thps = 1;
	partial = pthp_folio_stat(env->order, "nr_anon_partially_mapped");
	if (!build(_metadata, env, PTHP_ALL, variant->hole))
		return;
	ASSERT_TRUE(pthp_map_by_ptes(&env->r));
	ASSERT_TRUE(pthp_pin(pthp_addr(&env->r, 7), pipefd));

	EXPECT_EQ(failed_ret(env), migrate(env, &d));
	expect_pages(_metadata, &env->r, env->src);
	expect_whole(_metadata, &env->r);
	EXPECT_EQ(partial,
		  pthp_folio_stat(env->order, "nr_anon_partially_mapped"));

	pthp_unpin(pipefd);
	EXPECT_EQ(0, migrate(env, &d));
	expect_pages(_metadata, &env->r, env->dst);
	expect_whole(_metadata, &env->r);
	EXPECT_EQ(partial,
		  pthp_folio_stat(env->order, "nr_anon_partially_mapped"));
}

/* ---- per shape ---- */

FIXTURE(partial_thp_shape)
{
	struct env env;
};

FIXTURE_VARIANT(partial_thp_shape)
{
	enum pthp_shape shape;
};

FIXTURE_VARIANT_ADD(partial_thp_shape, all)
{
	.shape = PTHP_ALL,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, first_half)
{
	.shape = PTHP_FIRST_HALF,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, last_half)
{
	.shape = PTHP_LAST_HALF,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, three_quarters)
{
	.shape = PTHP_THREE_QUARTERS,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, cb64k)
{
	.shape = PTHP_CB64K,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, cb16k)
{
	.shape = PTHP_CB16K,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, alternate)
{
	.shape = PTHP_ALTERNATE,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, all_but_one)
{
	.shape = PTHP_ALL_BUT_ONE,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, one_page)
{
	.shape = PTHP_ONE_PAGE,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, ragged)
{
	.shape = PTHP_RAGGED,
};

FIXTURE_VARIANT_ADD(partial_thp_shape, random)
{
	.shape = PTHP_RANDOM,
};

FIXTURE_SETUP(partial_thp_shape)
{
	env_setup(_metadata, &self->env, PTHP_MOVE_PAGES);
}

FIXTURE_TEARDOWN(partial_thp_shape)
{
	env_teardown(&self->env);
}

TEST_F(partial_thp_shape, contents)
{
	static const enum pthp_hole holes[] = { PTHP_MUNMAP, PTHP_DONTNEED };
	struct env *env = &self->env;
	struct pthp_vmstat d;
	unsigned int i;

	env->thps = 2;
	for (env->call = 0; env->call < PTHP_NR_CALLS; env->call++) {
		for (i = 0; i < ARRAY_SIZE(holes); i++) {
			if (!build(_metadata, env, variant->shape, holes[i]))
				return;
			EXPECT_EQ(0, pthp_on_node(&env->r, env->dst));
			EXPECT_LE(0, migrate(env, &d));
			expect_pages(_metadata, &env->r, env->dst);
			EXPECT_TRUE(pthp_holes_empty(&env->r));
#ifndef HAVE_HARNESS_EXIT_CODE
			if (!_metadata->passed) {
#else
			if (_metadata->exit_code) {
#endif
				TH_LOG("call %s, unmapped by %s",
				       pthp_call_names[env->call],
				       i ? "MADV_DONTNEED" : "munmap");
				return;
			}
		}
	}
}

TEST_F(partial_thp_shape, given_back)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;

	if (!build(_metadata, env, variant->shape, PTHP_DONTNEED))
		return;
	EXPECT_EQ(0, migrate(env, &d));
	EXPECT_EQ(env->r.nr_mapped, pthp_on_node(&env->r, env->dst));
	expect_given_back(_metadata, &env->r);
}

TEST_F(partial_thp_shape, orders)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;

	if (!build(_metadata, env, variant->shape, PTHP_DONTNEED))
		return;
	EXPECT_EQ(0, migrate(env, &d));
	EXPECT_EQ(env->r.nr_mapped, pthp_on_node(&env->r, env->dst));
	expect_largest_orders(_metadata, &env->r);
}

/* ---- the rest ---- */

FIXTURE(partial_thp)
{
	struct env env;
	int mthp_64k;		/* index in mthp_enabled[] to restore, or -1 */
};

FIXTURE_SETUP(partial_thp)
{
	self->mthp_64k = -1;
	env_setup(_metadata, &self->env, PTHP_MOVE_PAGES);
}

FIXTURE_TEARDOWN(partial_thp)
{
	env_teardown(&self->env);
	if (self->mthp_64k >= 0)
		thp_write_string(MTHP_64K, mthp_enabled[self->mthp_64k]);
}

TEST_F(partial_thp, status_one_each)
{
	struct env *env = &self->env;
	unsigned int i;

	if (!build(_metadata, env, PTHP_FIRST_HALF, PTHP_MUNMAP))
		return;
	ASSERT_EQ(0, pthp_move_folios(&env->r, env->dst));
	for (i = 0; i < NR_THPS; i++)
		EXPECT_EQ(env->dst, env->r.status[i]);
	expect_pages(_metadata, &env->r, env->dst);
}

TEST_F(partial_thp, status_every_page)
{
	struct env *env = &self->env;
	unsigned int page, n = 0, bad = 0;
	struct pthp *r = &env->r;

	if (!build(_metadata, env, PTHP_CB16K, PTHP_MUNMAP))
		return;
	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page])
			continue;
		r->addrs[n] = pthp_addr(r, page);
		r->nodes[n] = env->dst;
		r->status[n++] = -EINVAL;
	}
	ASSERT_EQ(0, syscall(__NR_move_pages, 0, n, r->addrs, r->nodes,
			     r->status, MPOL_MF_MOVE));
	while (n--) {
		if (r->status[n] == env->dst)
			continue;
		if (bad++ < 8)
			TH_LOG("status of page %u: %d", n, r->status[n]);
	}
	EXPECT_EQ(0, bad);
	expect_pages(_metadata, r, env->dst);
}

TEST_F(partial_thp, status_of_failed)
{
	struct env *env = &self->env;
	unsigned int page, n = 8;
	struct pthp *r = &env->r;
	int pipefd[2];

	env->thps = 1;
	if (!build(_metadata, env, PTHP_FIRST_HALF, PTHP_DONTNEED))
		return;
	ASSERT_TRUE(pthp_pin(pthp_addr(r, 7), pipefd));
	for (page = 0; page < n; page++) {
		r->addrs[page] = pthp_addr(r, page);
		r->nodes[page] = env->dst;
		r->status[page] = -EINVAL;
	}
	EXPECT_LT(0, syscall(__NR_move_pages, 0, n, r->addrs, r->nodes,
			     r->status, MPOL_MF_MOVE));
	for (page = 0; page < n; page++) {
		EXPECT_NE(env->dst, r->status[page])
			TH_LOG("page %u", page);
	}
	expect_pages(_metadata, r, env->src);
	pthp_unpin(pipefd);
}

TEST_F(partial_thp, small_page_twice)
{
	struct env *env = &self->env;
	int nodes[3], status[3] = { -EINVAL, -EINVAL, -EINVAL };
	void *addrs[3];
	char *mem;
	int i;

	mem = mmap(NULL, 2 * psize(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, madvise(mem, 2 * psize(), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, pthp_mbind(mem, 2 * psize(), env->src, 0));
	memset(mem, 1, 2 * psize());
	for (i = 0; i < 3; i++) {
		addrs[i] = mem + i / 2 * psize();
		nodes[i] = env->dst;
	}
	EXPECT_EQ(0, syscall(__NR_move_pages, 0, 3, addrs, nodes, status,
			     MPOL_MF_MOVE));
	EXPECT_EQ(env->dst, status[0]);
	EXPECT_EQ(-EBUSY, status[1]);
	EXPECT_EQ(env->dst, status[2]);
	munmap(mem, 2 * psize());
}

/* By mbind(2), MPOL_MF_MOVE_ALL alone takes along what others map, too. */
TEST_F(partial_thp, mbind_of_shared)
{
	static const enum pthp_shape shapes[] = {
		PTHP_LAST_HALF, PTHP_FIRST_HALF
	};
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	struct child child;
	unsigned int i;
	size_t len;

	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (!build(_metadata, env, shapes[i], PTHP_DONTNEED))
			return;
		len = (size_t)r->nr * psize();
		EXPECT_EQ(0, pthp_mbind(r->mem, len, env->dst, MPOL_MF_MOVE));
		expect_pages(_metadata, r, env->dst);
	}

	ASSERT_TRUE(spawn(&child, env, PTHP_FIRST_HALF, PTHP_DONTNEED));
	EXPECT_EQ(0, pthp_mbind(r->mem, len, env->src, MPOL_MF_MOVE));
	expect_pages(_metadata, r, env->dst);
	EXPECT_EQ(0, pthp_mbind(r->mem, len, env->src, MPOL_MF_MOVE_ALL));
	expect_pages(_metadata, r, env->src);
	EXPECT_EQ(0, reap(&child, env->src));
}

/* Can the page be read?  By the page tables, not by what the VMA says. */
static bool readable(const void *addr)
{
	int pipefd[2];
	bool ok;

	if (pipe(pipefd))
		return false;
	ok = write(pipefd[1], addr, 1) == 1;
	close(pipefd[0]);
	close(pipefd[1]);
	return ok;
}

/* The first @first pages of each folio can be read, the others cannot. */
static void protect(struct __test_metadata *_metadata, const struct pthp *r,
		    unsigned int first)
{
	unsigned int i, n = 1u << r->order;

	for (i = 0; i < r->nr_folios; i++) {
		ASSERT_EQ(0, mprotect(pthp_addr(r, i * n), first * psize(),
				      PROT_READ));
		ASSERT_EQ(0, mprotect(pthp_addr(r, i * n + first),
				      (n - first) * psize(), PROT_NONE));
	}
}

static void expect_protected(struct __test_metadata *_metadata,
			     const struct pthp *r, unsigned int first)
{
	unsigned int page, n = 1u << r->order, bad = 0;

	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page] ||
		    readable(pthp_addr(r, page)) == (page % n < first))
			continue;
		if (bad++ < 8)
			TH_LOG("page %u of %u has lost its protection", page % n,
			       n);
	}
	EXPECT_EQ(0, bad);
	ASSERT_EQ(0, mprotect(r->mem, (size_t)r->nr * psize(), PROT_READ));
}

/*
 * The migration entries of pages of both protections look the same: a walk that
 * goes on behind the first VMA would map those of the second by its protection.
 */
TEST_F(partial_thp, protections)
{
	/* Split, and not */
	static const enum pthp_shape shapes[] = { PTHP_ALL_BUT_ONE, PTHP_ALL };
	struct env *env = &self->env;
	unsigned int i, half = (1u << env->order) / 2;
	struct pthp *r = &env->r;
	struct pthp_vmstat d;

	env->call = PTHP_MBIND;
	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (!build(_metadata, env, shapes[i], PTHP_DONTNEED))
			return;
		protect(_metadata, r, half);
		EXPECT_EQ(0, migrate(env, &d));
		EXPECT_EQ(shapes[i] == PTHP_ALL ? 0 : r->nr_folios,
			  d.v[PTHP_THP_MIGRATION_SPLIT]);
		expect_protected(_metadata, r, half);
		expect_pages(_metadata, r, env->dst);
		expect_given_back(_metadata, r);
	}
}

/*
 * Split by the shrinker, as what migrates afterwards is mapped once more.  Each
 * page table has a VMA of its own.
 */
TEST_F(partial_thp, protections_shrinker)
{
	struct env *env = &self->env;
	unsigned int first = (1u << env->order) - MISALIGNED_BY;
	struct pthp_vmstat before, after;
	struct pthp *r = &env->r;

	if (!build(_metadata, env, PTHP_ALL, PTHP_DONTNEED))
		return;
	misalign(_metadata, r);
	ASSERT_EQ(0, pthp_punch(r, PTHP_ALL_BUT_ONE, PTHP_DONTNEED));
	protect(_metadata, r, first);
	ASSERT_TRUE(pthp_vmstat_read(&before));
	/* 4: it does not write to the console from now on */
	write_num("/proc/sys/vm/drop_caches", 4);
	write_num("/proc/sys/vm/drop_caches", 2);
	ASSERT_TRUE(pthp_vmstat_read(&after));
	pthp_vmstat_sub(&after, &before);
	EXPECT_LE(r->nr_folios, after.v[PTHP_THP_SPLIT_PAGE]);
	expect_protected(_metadata, r, first);
	expect_pages(_metadata, r, env->src);
	expect_given_back(_metadata, r);
}

#define KSM_SYSFS "/sys/kernel/mm/ksm/"

/* Pages i and i + NR_KSM have the same content. */
#define NR_KSM 32

static unsigned int ksm_fill(char *mem, unsigned int page, bool look)
{
	uint64_t *p = (uint64_t *)(mem + (size_t)page * psize());
	unsigned int i, bad = 0;

	for (i = 0; i < PTHP_WORDS; i++) {
		uint64_t word = (uint64_t)(page % NR_KSM + 1) << 32 | i;

		if (look)
			bad += p[i] != word;
		else
			p[i] = word;
	}
	return bad;
}

TEST_F(partial_thp, ksm_pages)
{
	const size_t len = 2 * NR_KSM * psize();
	struct env *env = &self->env;
	unsigned int page, bad = 0, tries;
	unsigned long run, to_scan;
	void *addr;
	char *mem;
	int node;

	if (access(KSM_SYSFS "run", W_OK))
		SKIP(return, "no KSM");
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, madvise(mem, len, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, pthp_mbind(mem, len, env->src, 0));
	for (page = 0; page < 2 * NR_KSM; page++)
		ksm_fill(mem, page, false);
	ASSERT_EQ(0, madvise(mem, len, MADV_MERGEABLE));

	run = read_num(KSM_SYSFS "run");
	to_scan = read_num(KSM_SYSFS "pages_to_scan");
	write_num(KSM_SYSFS "pages_to_scan", 10 * NR_KSM);
	write_num(KSM_SYSFS "run", 1);
	for (tries = 0; tries < 3000; tries++) {
		if (read_num(KSM_SYSFS "pages_sharing") >= NR_KSM)
			break;
		usleep(20000);
	}
	/* No page that it looks at just now can be migrated. */
	write_num(KSM_SYSFS "run", 0);
	write_num(KSM_SYSFS "pages_to_scan", to_scan);
	EXPECT_LT(tries, 3000) TH_LOG("KSM did not merge the pages");

	/* Not MPOL_MF_STRICT, which minds to meet a page twice */
	EXPECT_EQ(0, pthp_mbind(mem, len, env->dst, MPOL_MF_MOVE_ALL));
	for (page = 0; page < 2 * NR_KSM; page++) {
		bad += ksm_fill(mem, page, true);
		addr = mem + (size_t)page * psize();
		bad += syscall(__NR_move_pages, 0, 1, &addr, NULL, &node, 0) ||
		       node != env->dst;
	}
	EXPECT_EQ(0, bad);
	munmap(mem, len);
	if (run == 1)
		write_num(KSM_SYSFS "run", 1);
}

TEST_F(partial_thp, mlocked)
{
	unsigned int i, base = 0, unlocked = 0;
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	struct pthp_census c;
	struct pthp_vmstat d;
	uint64_t flags;

	if (!build(_metadata, env, PTHP_ALL, PTHP_MUNMAP))
		return;
	ASSERT_EQ(0, mlock(r->mem, (size_t)r->nr * psize()));
	ASSERT_EQ(0, pthp_punch(r, PTHP_RAGGED, PTHP_MUNMAP));
	EXPECT_EQ(0, migrate(env, &d));
	expect_pages(_metadata, r, env->dst);
	expect_given_back(_metadata, r);

	/* Large folios are left to reclaim to be mlocked. */
	ASSERT_TRUE(pthp_census_take(r, &c));
	for (i = 0; i < c.nr; i++) {
		if (c.folios[i].order)
			continue;
		base++;
		ASSERT_TRUE(pthp_read_flags(r, c.folios[i].pfn, &flags, 1));
		unlocked += !(flags & PTHP_KPF_MLOCKED);
	}
	pthp_census_drop(&c);
	EXPECT_LT(0, base);
	EXPECT_EQ(0, unlocked);
}

/* Which mapped pages have @bit in their pagemap entry? */
static unsigned int pagemap_bits(const struct pthp *r, uint64_t bit, bool *set)
{
	unsigned int page, nr = 0;

	for (page = 0; page < r->nr; page++) {
		set[page] = r->mapped[page] &&
			    pagemap_get_entry(r->pagemap,
					      pthp_addr(r, page)) & bit;
		nr += set[page];
	}
	return nr;
}

/* Migrate, and see that @bit survives on the pages that have it, and no more. */
static void expect_bit_survives(struct __test_metadata *_metadata,
				struct env *env, uint64_t bit)
{
	struct pthp *r = &env->r;
	unsigned int page, nr, bad = 0;
	bool *before, *after;
	struct pthp_vmstat d;

	before = calloc(r->nr, sizeof(*before));
	after = calloc(r->nr, sizeof(*after));
	ASSERT_TRUE(before && after);

	nr = pagemap_bits(r, bit, before);
	EXPECT_LT(0, nr);
	EXPECT_GT(r->nr_mapped, nr);
	EXPECT_EQ(0, migrate(env, &d));
	EXPECT_EQ(nr, pagemap_bits(r, bit, after));
	for (page = 0; page < r->nr; page++)
		bad += before[page] != after[page];
	EXPECT_EQ(0, bad);
	expect_pages(_metadata, r, env->dst);
	free(before);
	free(after);
}

TEST_F(partial_thp, uffd_wp)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	struct uffdio_writeprotect wp = {
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	struct env *env = &self->env;
	unsigned int n = 1u << env->order;
	struct pthp *r = &env->r;
	size_t quarter;
	unsigned int i;
	int uffd;

	uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0)
		SKIP(return, "no userfaultfd(2)");
	if (ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd write protection");
	if (!build(_metadata, env, PTHP_ALL, PTHP_DONTNEED))
		return;
	if (uffd_register(uffd, r->mem, (size_t)r->nr * psize(), false, true,
			  false))
		SKIP(return, "no userfaultfd write protection of memory");

	/* A quarter of each, across the border of what stays mapped */
	quarter = (size_t)n / 4 * psize();
	for (i = 0; i < r->nr_folios; i++) {
		wp.range.start = (uintptr_t)pthp_addr(r, i * n + n / 3);
		wp.range.len = quarter;
		ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	}
	ASSERT_EQ(0, pthp_punch(r, PTHP_FIRST_HALF, PTHP_DONTNEED));
	expect_bit_survives(_metadata, env, PM_UFFD_WP);
	close(uffd);
}

TEST_F(partial_thp, soft_dirty)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	unsigned int page;

	if (!softdirty_supported())
		SKIP(return, "no soft-dirty tracking");
	if (!build(_metadata, env, PTHP_THREE_QUARTERS, PTHP_DONTNEED))
		return;
	clear_softdirty();
	for (page = 0; page < r->nr; page += 3) {
		if (r->mapped[page])
			pthp_fill(r, page);
	}
	expect_bit_survives(_metadata, env, PM_SOFT_DIRTY);
}

/* Have folios of 64 KiB from here on; false if the test was skipped. */
static bool enable_mthp_64k(struct __test_metadata *_metadata, struct env *env,
			    int *restore)
{
	env->order = ffsl(65536 / psize()) - 1;
	if (env->order < 2 || !(thp_supported_orders() & 1ul << env->order))
		SKIP(return false, "no folios of 64 KiB");
	*restore = thp_read_string(MTHP_64K, mthp_enabled);
	thp_write_string(MTHP_64K, "always");
	/* A region short of one PMD */
	env->thps = (1u << pthp_pmd_order() >> env->order) / 2;
	return true;
}

TEST_F(partial_thp, mthp_64k)
{
	static const enum pthp_shape shapes[] = {
		PTHP_LAST_HALF, PTHP_CB16K, PTHP_ALL_BUT_ONE, PTHP_ONE_PAGE,
		PTHP_RANDOM
	};
	struct env *env = &self->env;
	struct pthp_vmstat d;
	unsigned int i;

	if (!enable_mthp_64k(_metadata, env, &self->mthp_64k))
		return;
	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (!build(_metadata, env, shapes[i], PTHP_MUNMAP))
			return;
		EXPECT_EQ(0, migrate(env, &d));
		expect_pages(_metadata, &env->r, env->dst);
		expect_given_back(_metadata, &env->r);
		EXPECT_TRUE(pthp_holes_empty(&env->r));
	}
}

TEST_F(partial_thp, mthp_64k_orders)
{
	static const enum pthp_shape shapes[] = {
		PTHP_LAST_HALF, PTHP_THREE_QUARTERS, PTHP_ALL_BUT_ONE
	};
	struct env *env = &self->env;
	struct pthp_vmstat d;
	unsigned int i;

	if (!enable_mthp_64k(_metadata, env, &self->mthp_64k))
		return;
	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (!build(_metadata, env, shapes[i], PTHP_DONTNEED))
			return;
		EXPECT_EQ(0, migrate(env, &d));
		EXPECT_EQ(env->r.nr_mapped, pthp_on_node(&env->r, env->dst));
		expect_largest_orders(_metadata, &env->r);
	}
}

#define NR_COMPACTED 24

TEST_F(partial_thp, compaction)
{
	struct pthp small[NR_COMPACTED] = { 0 };
	struct env *env = &self->env;
	struct pthp_vmstat before, d;
	unsigned int i;

	if (access("/proc/sys/vm/compact_memory", W_OK))
		SKIP(return, "no compact_memory");
	if (!build(_metadata, env, PTHP_CB64K, PTHP_MUNMAP))
		return;
	/* Compaction leaves folios as large as a pageblock alone. */
	if (!enable_mthp_64k(_metadata, env, &self->mthp_64k))
		return;
	for (i = 0; i < NR_COMPACTED; i++) {
		if (pthp_alloc(&small[i], env->thps, env->order, env->src,
			       env->seed + i))
			SKIP(return, "no folios of 64 KiB to be had");
	}
	/* Make room among them, and have the others wait to be split. */
	for (i = 0; i < NR_COMPACTED; i++) {
		if (i % 3 == 0) {
			pthp_free(&small[i]);
			continue;
		}
		ASSERT_EQ(0, pthp_punch(&small[i], PTHP_FIRST_HALF,
					PTHP_MUNMAP));
	}

	ASSERT_TRUE(pthp_vmstat_read(&before));
	write_num("/proc/sys/vm/compact_memory", 1);
	ASSERT_TRUE(pthp_vmstat_read(&d));
	pthp_vmstat_sub(&d, &before);
	TH_LOG("%ld pages moved", d.v[PTHP_PGMIGRATE_SUCCESS]);
	EXPECT_LT(0, d.v[PTHP_PGMIGRATE_SUCCESS]);

	expect_pages(_metadata, &env->r, env->src);
	EXPECT_TRUE(pthp_holes_empty(&env->r));
	for (i = 0; i < NR_COMPACTED; i++) {
		if (!small[i].mem)
			continue;
		expect_pages(_metadata, &small[i], env->src);
		EXPECT_TRUE(pthp_holes_empty(&small[i]));
		pthp_free(&small[i]);
	}
}

#ifndef HAVE_MOVE_CHARGE_UNQUEUES
#define CGROUP2_CONTROL "/sys/fs/cgroup/cgroup.subtree_control"

static char *v1_file(char *buf, size_t size, const char *dir, char group,
		     const char *name)
{
	snprintf(buf, size, "%s/partial_thp.%c/%s", dir, group, name);
	return buf;
}

/* How many memory cgroups are there, those included that were removed and are in use? */
static int v1_cgroups(void)
{
	char buf[1024], *line;
	int nr = 0;

	if (pthp_get("/proc/cgroups", buf, sizeof(buf))) {
		line = strstr(buf, "\nmemory\t");
		if (line)
			sscanf(line, " memory %*d %d", &nr);
	}
	return nr;
}

/*
 * Have the first of the THPs that our parent maps by PMDs wait to be split, if that
 * can be.  A page that we unmap is not noticed as long as PG_double_map is set.  A
 * migration clears it, and stock does not set it again.
 */
static bool queue_first(struct env *env)
{
	struct pthp *r = &env->r;

	return pthp_map_by_ptes(r) &&
	       !pthp_migrate(r, PTHP_MOVE_PAGES, env->src, env->dst) &&
	       !madvise(r->mem, read_pmd_pagesize() / 2, MADV_DONTNEED);
}

/*
 * Take three THPs along from cgroup a to cgroup b.  All are shared with a child that
 * stays.  If the first one waits to be split, its charge has to stay, too.
 */
static int change_cgroup(struct env *env, const char *dir)
{
	size_t pmd = read_pmd_pagesize();
	struct pthp *r = &env->r;
	int fds[2], status = 2, tries, i;
	long huge[2], queued, stay;
	char path[128];
	char ready;
	pid_t child;

	write_num(v1_file(path, sizeof(path), dir, 'a', "cgroup.procs"), 0);
	if (pthp_alloc(r, 3, env->order, env->src, env->seed) || pipe(fds))
		return 2;
	queued = pthp_get_named("/proc/vmstat", "thp_deferred_split_page");
	child = fork();
	if (!child) {
		close(fds[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ready = queue_first(env);
		if (write(fds[1], &ready, 1) == 1)
			pause();
		_exit(0);
	}
	close(fds[1]);
	if (read(fds[0], &ready, 1) == 1 && ready &&
	    check_huge_anon(r->mem, 3, pmd))
		status = 0;
	stay = pthp_get_named("/proc/vmstat", "thp_deferred_split_page") > queued;

	write_num(v1_file(path, sizeof(path), dir, 'b', "cgroup.procs"), 0);
	/* The statistics may be two seconds old. */
	for (tries = 0; tries < 100; tries++) {
		for (i = 0; i < 2; i++) {
			v1_file(path, sizeof(path), dir, 'a' + i, "memory.stat");
			huge[i] = pthp_get_named(path, "rss_huge");
		}
		if (huge[0] == stay * (long)pmd &&
		    huge[1] == (3 - stay) * (long)pmd)
			break;
		usleep(50000);
	}
	if (tries == 100) {
		fprintf(stderr, "# %ld bytes of THPs stayed, %ld moved\n", huge[0],
			huge[1]);
		status = status ?: 3;
	}
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	return status;
}

TEST_F(partial_thp, moved_charge)
{
	char dir[] = "/tmp/partial_thp.XXXXXX", path[128], group;
	bool v2 = pthp_get(CGROUP2_CONTROL, path, sizeof(path)) &&
		  strstr(path, "memory");
	struct env *env = &self->env;
	int status = -1, tries, nr;
	pid_t pid;

	ASSERT_TRUE(!!mkdtemp(dir));
	if (mount("cgroup", dir, "cgroup", 0, "memory")) {
		rmdir(dir);
		SKIP(return, "no memory controller for cgroup v1");
	}
	nr = v1_cgroups();
	for (group = 'a'; group <= 'b'; group++)
		mkdir(v1_file(path, sizeof(path), dir, group, ""), 0755);
	/* Not to a: what is shared with us stays where it is. */
	v1_file(path, sizeof(path), dir, 'b', "memory.move_charge_at_immigrate");
	write_num(path, 1);
	pid = fork();
	if (!pid)
		_exit(change_cgroup(env, dir));
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, WIFEXITED(status) ? WEXITSTATUS(status) : -1);

	for (group = 'a'; group <= 'b'; group++) {
		v1_file(path, sizeof(path), dir, group, "memory.force_empty");
		pthp_put(path, "0");
		EXPECT_EQ(0, rmdir(v1_file(path, sizeof(path), dir, group, "")));
	}
	/* umount(2) gives the controller back, but not if there are cgroups left. */
	for (tries = 0; v1_cgroups() > nr && tries < 3000; tries++)
		usleep(20000);
	EXPECT_GE(nr, v1_cgroups());
	EXPECT_EQ(0, umount(dir));
	for (tries = 0; v2 && !pthp_put(CGROUP2_CONTROL, "+memory"); tries++) {
		ASSERT_LT(tries, 3000) TH_LOG("cgroup v2 has no memory controller");
		usleep(20000);
	}
	rmdir(dir);
}

#endif
TEST_HARNESS_MAIN
