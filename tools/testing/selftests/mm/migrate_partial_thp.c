// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of large folios of which a part was unmapped.
 *
 * Such a folio waits on the deferred split queue.  When migrate_pages() meets
 * it, it has to give the unmapped pages back, move the mapped ones in folios
 * as large as they allow, and say truthfully what it did.  The tests here make
 * folios, unmap a part of them by munmap(2) or MADV_DONTNEED, migrate them from
 * one node to another by move_pages(2), mbind(2) or migrate_pages(2), and then
 * look at contents, nodes, folio orders and statistics.  What else is known of
 * the pages is looked at by migrate_partial_thp_state.
 *
 * "Stock" is a 6.12 kernel that splits such a folio to base pages and counts
 * that as a failure.  A 6.1 kernel does not look, and migrates it whole.
 *
 * A test whose folios did not move fails: the vmstat counters and the node of
 * each page are looked at after every migration.  The random shape prints its
 * seed, and takes it from the environment as PARTIAL_THP_SEED.
 */
#include "../kselftest_harness.h"

#include "migrate_partial_thp.h"

/* ---- once per system call, MIGRATE_SYNC all of them ---- */

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

/*
 * The numbers in /proc/vmstat are exact: a split is a split, what moved is a
 * success, and nothing failed.  Stock counts the freed pages as migrated and the
 * split THPs as failed.
 *
 * Needs: mm/migrate: split folios that wait to be split
 */
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

/*
 * nr_anon, nr_anon_partially_mapped and nr_isolated_anon say what the mappings
 * say. Stock passes.
 */
TEST_F(migrate_partial_thp, counters_come_back)
{
	struct env *env = &self->env;
	struct pthp_vmstat before, d;
	long anon[PTHP_MAX_ORDER + 1];
	struct pthp_census c;
	unsigned int order;
	long partial;

	partial = pthp_folio_stat(env->order, "nr_anon_partially_mapped");
	requires(return, partial >= 0, "no statistics per folio size");
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

/* THPs mapped by a PMD stay whole.  Stock passes. */
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

/*
 * No THP was queued by a migration, and none was taken for partially mapped that was not
 * before, where there is a statistic of those.
 */
static void expect_queued_as_before(struct __test_metadata *_metadata,
				    struct env *env, const struct pthp_vmstat *d,
				    long partial)
{
	if (partial >= 0)
		EXPECT_EQ(partial, pthp_folio_stat(env->order,
						   "nr_anon_partially_mapped"));
	if (d)
		expect_delta(_metadata, d, PTHP_THP_DEFERRED_SPLIT_PAGE, 0);
}

/* The shrinker finds nothing to split: the region is whole, and not on the queue. */
static void expect_not_shrunk(struct __test_metadata *_metadata, struct env *env)
{
	EXPECT_TRUE(pthp_shrink());
	expect_whole(_metadata, &env->r);
}

/*
 * With an extra reference on a page, from vmsplice(2), the THP stays as it is,
 * where it is and on the queue, and counts as one failure; when the reference is
 * gone it is migrated.  Stock tries to migrate it whole, fails too, and gets the
 * numbers of the second attempt wrong.
 *
 * Needs: mm/migrate: split folios that wait to be split
 */
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
	expect_queued_as_before(_metadata, env, &d, partial);

	pthp_unpin(pipefd);
	EXPECT_EQ(0, migrate(env, &d));
	expect_events(_metadata, &d, env->r.nr_mapped, 1, 0);
	expect_pages(_metadata, &env->r, env->dst);
	expect_given_back(_metadata, &env->r);
}

/*
 * One THP that cannot be split does not keep others.  Stock gets the numbers
 * wrong.
 *
 * Needs: mm/migrate: split folios that wait to be split
 */
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

/*
 * The same part is unmapped in parent and child: each THP is split once.  Stock
 * 6.12 passes.
 */
TEST_F(migrate_partial_thp, fork_shared)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;
	struct child child;
	long partial;

	partial = pthp_folio_stat(env->order, "nr_anon_partially_mapped");
	if (!build(_metadata, env, PTHP_ALL, variant->hole))
		return;
	ASSERT_TRUE(spawn(&child, env, PTHP_THREE_QUARTERS, variant->hole));
	ASSERT_EQ(0, pthp_punch(&env->r, PTHP_THREE_QUARTERS, variant->hole));
	/* CONFIG_NO_PAGE_MAPCOUNT marks folios that have fewer mappings than pages */
	requires(return, partial < 0 || partial + NR_THPS ==
		 pthp_folio_stat(env->order, "nr_anon_partially_mapped"),
		 "the kernel does not mark what two processes map in part");

	EXPECT_EQ(0, migrate(env, &d));
	EXPECT_GE(d.v[PTHP_PGMIGRATE_SUCCESS], (long)env->r.nr_mapped);
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SPLIT, NR_THPS);
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SUCCESS, 0);
	expect_pages(_metadata, &env->r, env->dst);
	expect_given_back(_metadata, &env->r);
	EXPECT_EQ(0, reap(&child, env->dst));
	EXPECT_TRUE(pthp_holes_empty(&env->r));
}

/*
 * A part is unmapped in the parent, but not in the child: every page is mapped and
 * the THP stays whole, there and back.  Stock: the way there marks it partially
 * mapped, the way back splits it.
 *
 * Needs: mm/rmap: do not mistake migration
 */
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

/*
 * Partially mapped THPs go there, where they are split, and back and there, where
 * nothing is left to split.  Stock 6.12 passes.
 */
TEST_F(migrate_partial_thp, ping_pong)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;

	if (!build(_metadata, env, PTHP_RAGGED, variant->hole))
		return;
	EXPECT_EQ(0, migrate(env, &d));
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SPLIT, NR_THPS);
	expect_delta(_metadata, &d, PTHP_PGMIGRATE_FAIL, 0);
	expect_pages(_metadata, &env->r, env->dst);
	EXPECT_EQ(0, migrate_back(env));
	expect_pages(_metadata, &env->r, env->src);
	EXPECT_EQ(0, of_region(env, migrate(env, &d)));
	EXPECT_GE(d.v[PTHP_PGMIGRATE_SUCCESS], (long)env->r.nr_mapped);
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SPLIT, 0);
	expect_delta(_metadata, &d, PTHP_THP_SPLIT_PAGE, 0);
	expect_pages(_metadata, &env->r, env->dst);
	expect_given_back(_metadata, &env->r);
	EXPECT_TRUE(pthp_holes_empty(&env->r));
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
 * THP and all but the end of the second.  A third THP takes its place.  Stock: the
 * walk that is to unmap the second THP ends at the huge PMD, and nothing can
 * split, migrate or reclaim it.
 *
 * Needs: mm: page_vma_mapped_walk(): go on behind a huge PMD
 * Needs: mm/migrate: split folios that wait to be split
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
	len = pthp_len(r);
	first = pmd / psize() - MISALIGNED_BY;

	ASSERT_EQ(0, madvise(pthp_addr(r, first), pmd, MADV_DONTNEED));
	pthp_fill(r, first);
	ASSERT_EQ(0, madvise(r->mem, len, MADV_HUGEPAGE));
	requires(return, !madvise(pthp_addr(r, first), pmd, MADV_COLLAPSE),
		 "MADV_COLLAPSE: %s", strerror(errno));
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

/*
 * Whole THPs that are mapped by PTEs go there and back, are not queued, and stay whole,
 * also when the shrinker comes.  Stock queues them on the way there; 6.12 splits them on
 * the way back.
 *
 * Needs: mm/rmap: do not mistake migration
 */
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
	expect_queued_as_before(_metadata, env, &d, partial);

	EXPECT_EQ(0, migrate_back(env));
	expect_pages(_metadata, &env->r, env->src);
	expect_not_shrunk(_metadata, env);
	expect_queued_as_before(_metadata, env, NULL, partial);
}

/*
 * And so they do after a migration that failed for a pin.  Stock: the failed migration is
 * enough to queue them.
 *
 * Needs: mm/rmap: do not mistake migration
 */
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
	expect_queued_as_before(_metadata, env, &d, partial);

	pthp_unpin(pipefd);
	expect_not_shrunk(_metadata, env);
	EXPECT_EQ(0, migrate(env, &d));
	expect_delta(_metadata, &d, PTHP_THP_MIGRATION_SUCCESS, 1);
	expect_pages(_metadata, &env->r, env->dst);
	expect_not_shrunk(_metadata, env);
	expect_queued_as_before(_metadata, env, &d, partial);
}

/* ---- once per shape of what stays mapped ---- */

FIXTURE(partial_thp_shape)
{
	struct env env;
};

FIXTURE_VARIANT(partial_thp_shape)
{
	enum pthp_shape shape;
};

FIXTURE_VARIANT_ADD(partial_thp_shape, all) { .shape = PTHP_ALL };
FIXTURE_VARIANT_ADD(partial_thp_shape, first_half) { .shape = PTHP_FIRST_HALF };
FIXTURE_VARIANT_ADD(partial_thp_shape, last_half) { .shape = PTHP_LAST_HALF };
FIXTURE_VARIANT_ADD(partial_thp_shape, three_quarters) { .shape = PTHP_THREE_QUARTERS };
FIXTURE_VARIANT_ADD(partial_thp_shape, cb64k) { .shape = PTHP_CB64K };
FIXTURE_VARIANT_ADD(partial_thp_shape, cb16k) { .shape = PTHP_CB16K };
FIXTURE_VARIANT_ADD(partial_thp_shape, alternate) { .shape = PTHP_ALTERNATE };
FIXTURE_VARIANT_ADD(partial_thp_shape, all_but_one) { .shape = PTHP_ALL_BUT_ONE };
FIXTURE_VARIANT_ADD(partial_thp_shape, one_page) { .shape = PTHP_ONE_PAGE };
FIXTURE_VARIANT_ADD(partial_thp_shape, ragged) { .shape = PTHP_RAGGED };
FIXTURE_VARIANT_ADD(partial_thp_shape, random) { .shape = PTHP_RANDOM };

FIXTURE_SETUP(partial_thp_shape)
{
	env_setup(_metadata, &self->env, PTHP_MOVE_PAGES);
}

FIXTURE_TEARDOWN(partial_thp_shape)
{
	env_teardown(&self->env);
}

/*
 * Each page keeps its content and gets to the target node, and what was unmapped
 * stays unmapped.  By all three calls, with both ways to unmap.  Stock 6.12
 * passes.
 */
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
			if (has_failed(_metadata)) {
				TH_LOG("call %s, unmapped by %s",
				       pthp_call_names[env->call],
				       i ? "MADV_DONTNEED" : "munmap");
				return;
			}
		}
	}
}

/*
 * No unmapped page is held by what holds the mapped ones, and none is left on the
 * source node.  Stock 6.12 passes; 6.1 carries them along.
 */
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

/*
 * Mapped pages end up in the largest naturally aligned folios that they fill.
 * Stock: all of order 0.
 */
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

TEST_HARNESS_MAIN
