// SPDX-License-Identifier: GPL-2.0
/*
 * The look at the deferred split queue, and folios that it holds without reason.
 *
 * migrate_deferred_check: each case builds a folio that looks queued in all respects
 * but the one it is about.
 * migrate_deferred: a folio of which all pages are mapped is migrated whole, whatever
 * the queue says of it, and is on the queue afterwards if it was before.
 */
#include <linux/hugetlb.h>

#include "frame.h"
#ifdef HAVE_API_2026

#define PAGE_MAPPING_ANON	FOLIO_MAPPING_ANON
#endif

struct check_case {
	const char *desc;
	unsigned int order;
	bool anon;
	bool hugetlb;
	bool queued;
	bool partially_mapped;
	bool deferred;
};

static const struct check_case check_cases[] = {
	/* What migration has to split */
	{
		.desc = "queued, PMD order",
		.order = HPAGE_PMD_ORDER, .anon = true,
		.queued = true, .partially_mapped = true,
		.deferred = true,
	}, {
		.desc = "queued, smallest order",
		.order = 2, .anon = true,
		.queued = true, .partially_mapped = true,
		.deferred = true,
	},
	/* What it leaves alone */
	{
		.desc = "not queued",
		.order = HPAGE_PMD_ORDER, .anon = true,
	}, {
		.desc = "marked, not queued",
		.order = HPAGE_PMD_ORDER, .anon = true,
		.partially_mapped = true,
#ifdef HAVE_QUEUE_IS_LIST_LRU
		/* The shrinker has it in hand, where it is on no list. */
		.deferred = true,
#endif
#ifdef HAVE_MARK
	}, {
		.desc = "queued as underused",
		.order = HPAGE_PMD_ORDER, .anon = true,
		.queued = true,
#endif
	},
	/* What has no _deferred_list to look at */
	{
		.desc = "file folio",
		.order = HPAGE_PMD_ORDER,
		.queued = true, .partially_mapped = true,
	}, {
		.desc = "order-1 folio",
		.order = 1, .anon = true,
		.queued = true, .partially_mapped = true,
	}, {
		.desc = "hugetlb folio",
		.order = HPAGE_PMD_ORDER, .anon = true, .hugetlb = true,
		.queued = true, .partially_mapped = true,
	},
};

static void check_desc(const struct check_case *c, char *desc)
{
	strscpy(desc, c->desc, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(check, check_cases, check_desc);

static void check_deferred(struct kunit *test)
{
	const struct check_case *c = test->param_value;
	/* An order-1 folio gets the memory behind it to be misread, too. */
	unsigned int order = max(c->order, 2U);
	static struct address_space mapping;
	struct folio *folio;
	LIST_HEAD(queue);
	bool deferred;

	folio = folio_alloc(GFP_KERNEL, order);
	KUNIT_ASSERT_NOT_NULL(test, folio);

	folio->mapping = (void *)&mapping + (c->anon ? PAGE_MAPPING_ANON : 0);
	if (c->queued)
		list_add(deferred_list(folio), &queue);
	if (c->partially_mapped)
		folio_set_partially_mapped(folio);
	if (c->order != order)
		folio_set_order(folio, c->order);
	if (c->hugetlb) {
		folio_clear_large_rmappable(folio);
		__folio_set_hugetlb(folio);
	}

	deferred = folio_split_deferred(folio);

	if (c->hugetlb) {
		__folio_clear_hugetlb(folio);
		folio_set_large_rmappable(folio);
	}
	if (c->order != order)
		folio_set_order(folio, order);

	KUNIT_EXPECT_EQ_MSG(test, deferred, c->deferred, "%s", c->desc);
	KUNIT_EXPECT_EQ_MSG(test, list_is_singular(&queue), c->queued,
			    "%s: was taken off its list", c->desc);
	KUNIT_EXPECT_EQ_MSG(test, folio_ref_count(folio), 1, "%s", c->desc);

	list_del_init(deferred_list(folio));
	folio_clear_partially_mapped(folio);
	folio->mapping = NULL;
	folio_put(folio);
}

static struct kunit_case check_test_cases[] = {
	KUNIT_CASE_PARAM(check_deferred, check_gen_params),
	{}
};

static struct kunit_suite check_suite = {
	.name = "migrate_deferred_check",
	.test_cases = check_test_cases,
};

kunit_test_suite(check_suite);

/* A new THP may be underused, and is queued for that on kernels that know such THPs. */
#ifdef HAVE_MARK
static const bool new_is_queued = true;
#else
static const bool new_is_queued;
#endif

/* A whole THP migrates as ever, and is queued or not as it was before. */
static void whole_is_left_alone(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	KUNIT_EXPECT_EQ(test, !list_empty(deferred_list(folio)), new_is_queued);
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	KUNIT_EXPECT_EQ(test, dst.nr_calls, 1);
	expect_moved(test, 0, shape_whole, &dst);
	folio = folio_at(test, thp_addr(test, 0));
	KUNIT_EXPECT_EQ(test, !list_empty(deferred_list(folio)), new_is_queued);
	KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
	expect_not_isolated(test);
}

/*
 * A whole THP that is mapped by PTEs stays whole, however often it is migrated.  Stock
 * marks it partially mapped as it migrates, and shatters it next time.
 */
static void whole_pte_mapped_hops(struct kunit *test)
{
	struct dst dst = default_dst();
	struct ctx *ctx = test->priv;
	struct folio *folio;
	LIST_HEAD(list);
	int hop;

	folio = thp_make_pte_mapped(test, 0);
	for (hop = 0; hop < 4; hop++) {
		isolate(test, folio, &list);
		dst.nid = hop % 2 ? 0 : default_dst().nid;
		KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
		expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
		expect_moved(test, 0, shape_whole, &dst);
		folio = folio_at(test, thp_addr(test, 0));
		KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
		KUNIT_EXPECT_EQ(test, nr_partially_mapped(),
				ctx->partially_mapped);
	}
	expect_not_isolated(test);
}

/*
 * A migration that fails does not leave a mark behind.  Stock marks the folio
 * partially mapped, and shatters it next time.
 */
static void whole_pte_mapped_fails(struct kunit *test)
{
	struct dst dst = default_dst();
	struct ctx *ctx = test->priv;
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_pte_mapped(test, 0);
	isolate(test, folio, &list);

	folio_get(folio);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	folio_put(folio);
	expect_events(test, 0, HPAGE_PMD_NR, 0, 1, 0);
	KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
	KUNIT_EXPECT_EQ(test, nr_partially_mapped(), ctx->partially_mapped);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_moved(test, 0, shape_whole, &dst);
	expect_not_isolated(test);
}

/* A mark that is false all the same is not acted upon.  Stock shatters the folio. */
static void stale_mark_is_not_believed(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_pte_mapped(test, 0);
	deferred_split_folio(folio, true);
	KUNIT_ASSERT_TRUE(test, folio_split_deferred(folio));
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_moved(test, 0, shape_whole, &dst);
	expect_not_isolated(test);
}

#ifdef CONFIG_LOCKDEP
static void count_lock(void *data)
{
	++*(int *)data;
}

static void expect_look(struct kunit *test, struct folio *folio, bool deferred, int locks)
{
	int taken = 0;
	struct lock_watch watch = {
		.lock = queue_lockdep_map(folio),
		.acquire = count_lock,
		.data = &taken,
	};
	bool looked;

	watch_lock(test, &watch);
	looked = folio_split_deferred(folio);
	unwatch_lock(test);
	KUNIT_EXPECT_EQ(test, looked, deferred);
	KUNIT_EXPECT_EQ(test, taken, locks);
}
#endif

/* The look takes the queue's lock for folios that wait to be split, and for no others. */
static void look_takes_lock(struct kunit *test)
{
#ifdef CONFIG_LOCKDEP
	expect_look(test, thp_make_partial(test, 0, shape_half), true, 1);
	expect_look(test, thp_make(test, 1), false, 0);
	expect_look(test, thp_make_pte_mapped(test, 2), false, 0);
#else
	kunit_skip(test, "only lockdep tells who takes the lock");
#endif
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(whole_is_left_alone, mode_gen_params),
	KUNIT_CASE_PARAM(whole_pte_mapped_hops, mode_gen_params),
	KUNIT_CASE_PARAM(whole_pte_mapped_fails, mode_gen_params),
	KUNIT_CASE_PARAM(stale_mark_is_not_believed, mode_gen_params),
	KUNIT_CASE(look_takes_lock),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
