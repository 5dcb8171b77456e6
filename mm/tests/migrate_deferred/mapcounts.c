// SPDX-License-Identifier: GPL-2.0
/*
 * The look at the map counts of a folio, where only that tells which of its pages
 * are mapped.
 */
#include "frame.h"

/*
 * The pages of @ptes are mapped by PTEs, and all of them @pmds times by a PMD.
 * While the folio is double mapped all _mapcounts are one higher.
 */
struct mapped_case {
	const char *desc;
	unsigned long ptes;
	int pmds;
	bool double_map;
	int mapped;
};

#define MAPPED_ORDER	4
#define MAPPED_NR	16

static const struct mapped_case mapped_cases[] = {
	{ .desc = "by nobody" },
	{ .desc = "one page", .ptes = 0x0100, .mapped = 1 },
	{ .desc = "some pages", .ptes = 0x0c31, .mapped = 5 },
	{ .desc = "all pages", .ptes = 0xffff, .mapped = MAPPED_NR },
	{ .desc = "a PMD", .pmds = 1, .mapped = MAPPED_NR },
	{
		.desc = "a PMD, some pages in another process",
		.ptes = 0x0c31, .pmds = 1, .double_map = true,
		.mapped = MAPPED_NR,
	}, {
		.desc = "a PMD, no page in another process any more",
		.pmds = 2, .double_map = true, .mapped = MAPPED_NR,
	}, {
		/* remove_migration_ptes() is about to set PG_double_map */
		.desc = "a PMD, some pages in another process, migrated",
		.ptes = 0x0c31, .pmds = 1, .mapped = MAPPED_NR,
	}, {
		/* page_remove_anon_compound_rmap() is about to clear it */
		.desc = "some pages, the last PMD just gone",
		.ptes = 0x0c31, .double_map = true, .mapped = 5,
	}, {
		.desc = "no page, the last PMD just gone",
		.double_map = true,
	},
};

static void mapped_desc(const struct mapped_case *c, char *desc)
{
	strscpy(desc, c->desc, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(mapped, mapped_cases, mapped_desc);

static void mapped_pages(struct kunit *test)
{
	const struct mapped_case *c = test->param_value;
	static struct address_space mapping;
	struct folio *folio;
	int i, mapped;
	bool some;

	folio = folio_alloc(GFP_KERNEL, MAPPED_ORDER);
	KUNIT_ASSERT_NOT_NULL(test, folio);

	folio->mapping = (void *)&mapping + PAGE_MAPPING_ANON;
	atomic_set(folio_mapcount_ptr(folio), c->pmds - 1);
	for (i = 0; i < MAPPED_NR; i++)
		atomic_set(&folio_page(folio, i)->_mapcount,
			   !!(c->ptes & BIT(i)) + c->double_map - 1);
	if (c->double_map)
		folio_set_double_map(folio);

	mapped = folio_nr_pages_mapped(folio);
	some = folio_some_pages_mapped(folio);

	folio_clear_double_map(folio);
	for (i = 0; i < MAPPED_NR; i++)
		atomic_set(&folio_page(folio, i)->_mapcount, -1);
	atomic_set(folio_mapcount_ptr(folio), -1);
	folio->mapping = NULL;
	folio_put(folio);

	KUNIT_EXPECT_EQ_MSG(test, mapped, c->mapped, "%s", c->desc);
	KUNIT_EXPECT_EQ_MSG(test, some, c->mapped && c->mapped < MAPPED_NR,
			    "%s", c->desc);
}

static struct kunit_case mapped_test_cases[] = {
	KUNIT_CASE_PARAM(mapped_pages, mapped_gen_params),
	{}
};

static struct kunit_suite mapped_suite = {
	.name = "migrate_deferred_mapped",
	.test_cases = mapped_test_cases,
};

kunit_test_suite(mapped_suite);

/*
 * A queued folio of which all pages are mapped is not queued any more after its
 * migration.  Stock passes.
 */
static void whole_is_unqueued(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	deferred_split_folio(folio, true);
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_moved(test, 0, shape_whole, &dst);
	folio = folio_at(test, thp_addr(test, 0));
	KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
	expect_not_isolated(test);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(whole_is_unqueued),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
