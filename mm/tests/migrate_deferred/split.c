// SPDX-License-Identifier: GPL-2.0
/*
 * What is split, into what, and what becomes of the pages that nobody maps.
 */
#include "frame.h"

static const struct shape three_quarters = {
	"three quarters", HPAGE_PMD_NR, HPAGE_PMD_NR / 4 * 3
};

static const struct shape all_but_last = {
	"all but the last page", HPAGE_PMD_NR, HPAGE_PMD_NR - 1
};

static const struct shape fours = { "every other 4 pages", 8, 4 };
static const struct shape pairs = { "pairs", 4, 2 };
static const struct shape sevens = { "7 of 8", 8, 7 };

static const struct shape * const shapes[] = {
	&shape_half, &shape_one, &shape_alternate, &shape_blocks, &three_quarters, &all_but_last,
	&fours, &pairs, &sevens,
};

static void shape_desc(const struct shape * const *shape, char *desc)
{
	strscpy(desc, (*shape)->desc, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(shape, shapes, shape_desc);

/*
 * The mapped pages move, in the largest folios that hold no other, and only they are
 * given a destination, and counted.  Stock makes single pages of them, and counts 512
 * moved and a failure.
 */
static void pieces_are_largest(struct kunit *test)
{
	const struct shape *shape = *(const struct shape * const *)test->param_value;
	unsigned int i, nr = nr_mapped_in(*shape), pieces = 0, succeeded;
	struct dst dst = default_dst();
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, *shape), &list);
	for (i = 0; i < HPAGE_PMD_NR; i++)
		if (page_mapped_in(*shape, i) &&
		    IS_ALIGNED(i, 1U << order_wanted(*shape, i)))
			pieces++;

	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC,
					   &succeeded), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, nr, 0, 0, 0, 1);
	/* The caller is told of those that were freed, too. */
	KUNIT_EXPECT_EQ(test, succeeded, HPAGE_PMD_NR);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, nr);
	KUNIT_EXPECT_EQ(test, dst.nr_calls, pieces);
	expect_moved(test, 0, *shape, &dst);
	expect_not_isolated(test);
}

/* The same in each mode */
static void split_and_migrate(struct kunit *test)
{
	struct dst dst = default_dst();
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, shape_half), &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, HPAGE_PMD_NR / 2);
	expect_moved(test, 0, shape_half, &dst);
	expect_not_isolated(test);
}

/* Unmapped pages are freed, whatever the LRU made of their folio. */
static void unmapped_are_freed(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);
	int i, left = 0;

	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);
	if (c->mode == MIGRATE_ASYNC)
		folio_set_active(folio);
	else
		folio_set_unevictable(folio);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_moved(test, 0, shape_half, &dst);
	/* A page that is freed belongs to no anon_vma, and who gets it now is the kernel. */
	lru_add_drain_all();
	for (i = HPAGE_PMD_NR / 2; i < HPAGE_PMD_NR; i++)
		left += PageAnon(folio_page(folio, i));
	KUNIT_EXPECT_EQ(test, left, 0);

	/* A folio that is all unmapped before the look counts as moved, queued or not. */
	dst = default_dst();
	for (i = 1; i <= 2; i++) {
		folio = i == 1 ? thp_make(test, i) : thp_make_partial(test, i, shape_half);
		isolate(test, folio, &list);
		advise(test, thp_addr(test, i), HPAGE_PMD_SIZE, MADV_DONTNEED);
		KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
		KUNIT_EXPECT_EQ(test, list_len(&list), 0);
		KUNIT_EXPECT_EQ(test, dst.nr_pages, 0);
		expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	}
	expect_not_isolated(test);
}

/*
 * Demotion takes back itself what it counted as isolated, so that neither pieces nor
 * freed pages are taken off NR_ISOLATED_ANON.
 */
static void demotion_counts_itself(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	dst.reason = MR_DEMOTION;
	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);
	node_stat_mod_folio(folio, NR_ISOLATED_ANON, -folio_nr_pages(folio));

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_moved(test, 0, shape_half, &dst);
	expect_not_isolated(test);
}

/* A piece that somebody has locked is waited for, as any other folio would be. */
static void piece_is_waited_for(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_alternate);
	isolate(test, folio, &list);
	dst.other = other_ready(test, (struct folio *)folio_page(folio, 4), 0);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_waited(test, dst.other);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_moved(test, 0, shape_alternate, &dst);
	expect_not_isolated(test);
}

/* The young and the dirty bit of each page, and PageAnonExclusive, go along with it. */
static void entries_survive(struct kunit *test)
{
	unsigned long addr = thp_addr(test, 0);
	struct mm_struct *mm = current->mm;
	unsigned int i, young = 0, dirty = 0, shared = 0;
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);
	spinlock_t *ptl;	/* of the PTEs */
	pte_t *pte;

	folio = thp_make_partial(test, 0, shape_half);
	pte = thp_ptes(test, 0, &ptl);
	spin_lock(ptl);
	for (i = 0; i < HPAGE_PMD_NR / 2; i++) {
		pte_t entry = ptep_get(pte + i);

		entry = i % 3 ? pte_mkyoung(entry) : pte_mkold(entry);
		entry = i % 2 ? pte_mkdirty(entry) : pte_mkclean(entry);
		set_pte_at(mm, addr + i * PAGE_SIZE, pte + i, entry);
	}
	spin_unlock(ptl);
	flush_tlb_mm(mm);
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);

	spin_lock(ptl);
	for (i = 0; i < HPAGE_PMD_NR / 2; i++) {
		pte_t entry = ptep_get(pte + i);

		if (!pte_present(entry))
			continue;
		young += !pte_young(entry) != !(i % 3);
		dirty += !pte_dirty(entry) != !(i % 2);
		shared += !PageAnonExclusive(pte_page(entry));
	}
	spin_unlock(ptl);
	KUNIT_EXPECT_EQ_MSG(test, young, 0, "pages are younger or older than before");
	KUNIT_EXPECT_EQ_MSG(test, dirty, 0, "pages are cleaner or dirtier than before");
	KUNIT_EXPECT_EQ_MSG(test, shared, 0, "pages are not exclusive any more");
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_moved(test, 0, shape_half, &dst);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(pieces_are_largest, shape_gen_params),
	KUNIT_CASE_PARAM(split_and_migrate, mode_gen_params),
	KUNIT_CASE_PARAM(unmapped_are_freed, mode_gen_params),
	KUNIT_CASE_PARAM(demotion_counts_itself, mode_gen_params),
	KUNIT_CASE_PARAM(piece_is_waited_for, sync_mode_gen_params),
	KUNIT_CASE_PARAM(entries_survive, mode_gen_params),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
