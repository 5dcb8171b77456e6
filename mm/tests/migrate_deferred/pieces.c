// SPDX-License-Identifier: GPL-2.0
/*
 * Pieces that are larger than a page, on kernels that can split a folio to such.
 */
#include <linux/migrate.h>
#include <linux/page_owner.h>
#include <trace/events/kmem.h>
#include <trace/events/migrate.h>

#include "frame.h"
#ifdef HAVE_API_2026
#include "../../page_alloc.h"
#endif

/* What the event mm_migrate_pages says of splits */
struct splits {
	struct task_struct *task;
	unsigned long thps, folios;
};

static void probe_mm_migrate_pages(void *data, unsigned long succeeded,
				   unsigned long failed, unsigned long thp_succeeded,
				   unsigned long thp_failed, unsigned long thp_split,
				   unsigned long large_folio_split,
#ifdef HAVE_API_2026
				   enum migrate_mode mode, enum migrate_reason reason)
#else
				   enum migrate_mode mode, int reason)
#endif
{
	struct splits *splits = data;

	if (current != splits->task)
		return;
	splits->thps += thp_split;
	splits->folios += large_folio_split;
}

DEFINE_PROBE(mm_migrate_pages)

/*
 * A large piece that is unmapped in part before its turn comes waits to be split in
 * its turn, and is.  That is another split, but not of a THP.
 */
static void piece_is_split_again(struct kunit *test)
{
	struct splits *splits;
	struct shape shape = shape_blocks;
	struct dst dst = default_dst();
	LIST_HEAD(list);

	splits = kunit_kzalloc(test, sizeof(*splits), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, splits);
	splits->task = current;
	isolate(test, thp_make_partial(test, 0, shape), &list);

	/* The first 16 pages have had their turn by then, or come last. */
	dst.zap_call = 0;
	dst.zap_addr = thp_addr(test, 0) + (HPAGE_PMD_NR / 2 + 15) * PAGE_SIZE;
	hold_mm_migrate_pages(test, splits);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	drop_mm_migrate_pages(test, splits);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	KUNIT_EXPECT_EQ(test, splits->thps, 1);
	KUNIT_EXPECT_EQ(test, splits->folios, 2);
	expect_events(test, HPAGE_PMD_NR / 2 - 1, 0, 0, 0, 1);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, HPAGE_PMD_NR / 2 - 1);
	/* Of the 16 pages, 8, 4, and 3 single ones are left. */
	KUNIT_EXPECT_EQ(test, folio_order(folio_at(test, dst.zap_addr -
						   15 * PAGE_SIZE)), 3);
	KUNIT_EXPECT_EQ(test, folio_order(folio_at(test, dst.zap_addr -
						   7 * PAGE_SIZE)), 2);
	KUNIT_EXPECT_EQ(test, folio_order(folio_at(test, dst.zap_addr -
						   PAGE_SIZE)), 0);
	expect_not_isolated(test);
}

/*
 * If there are no destinations of the size of a piece, those of the largest size that
 * there is are taken.  Each size that there is not is asked for only once.
 */
static void smaller_destinations(struct kunit *test)
{
	struct dst dst = default_dst();
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, shape_half), &list);

	dst.max_order = 4;
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	KUNIT_EXPECT_EQ(test, dst.nr_calls, (8 - 4) + HPAGE_PMD_NR / 2 / 16);
	expect_moved_in(test, 0, shape_half, &dst, 4);
	expect_not_isolated(test);
}

/*
 * Callers that bring few folios at a time do not go through all sizes for each of them.
 *
 * Needs: mm/migrate: split pieces further if there are no
 */
static void few_take_single_pages(struct kunit *test)
{
	static const enum migrate_reason reasons[] = {
		MR_COMPACTION, MR_NUMA_MISPLACED, MR_CONTIG_RANGE, MR_DEMOTION,
	};
	struct folio *folio;
	struct dst dst;
	LIST_HEAD(list);
	int i;

	for (i = 0; i < ARRAY_SIZE(reasons); i++) {
		dst = default_dst();
		dst.reason = reasons[i];
		dst.max_order = 4;
		folio = thp_make_partial(test, i, shape_half);
		isolate(test, folio, &list);
		/* Demotion takes that back by itself. */
		if (dst.reason == MR_DEMOTION)
			node_stat_mod_folio(folio, NR_ISOLATED_ANON, -HPAGE_PMD_NR);
		KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
		KUNIT_EXPECT_EQ(test, list_len(&list), 0);
		KUNIT_EXPECT_EQ(test, dst.nr_calls, 1 + HPAGE_PMD_NR / 2);
		expect_moved_in(test, i, shape_half, &dst, 0);
		expect_not_isolated(test);
	}
}

/*
 * Orders that the first THP found no destination for are not made from the second, to be
 * split again piece by piece.
 *
 * Needs: mm/migrate: split by what is mapped
 */
static void refused_orders_are_not_made(struct kunit *test)
{
	struct dst dst = default_dst();
	LIST_HEAD(list);
	long splits;
	int i;

	dst.max_order = 0;
	for (i = 0; i < 2; i++)
		isolate(test, thp_make_partial(test, i, shape_half), &list);
	splits = nr_mthp(HPAGE_PMD_ORDER - 1, MTHP_STAT_SPLIT);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	KUNIT_EXPECT_EQ(test, nr_mthp(HPAGE_PMD_ORDER - 1, MTHP_STAT_SPLIT) - splits, 1);
	for (i = 0; i < 2; i++)
		expect_moved_in(test, i, shape_half, &dst, 0);
}

/* Page 200 has errors, and page 1, in the head's piece, if @head_poisoned. */
static void split_to_order_4(struct kunit *test, int thp, bool head_poisoned)
{
	struct folio *folio, *piece;
	int i, wrong = 0, err;
	long thps, pieces;

	folio = thp_make(test, thp);
	folio_get(folio);
	hold_lock(test, folio);
#ifdef CONFIG_MEMORY_FAILURE
	if (head_poisoned)
		SetPageHWPoison(folio_page(folio, 1));
	SetPageHWPoison(folio_page(folio, 200));
	folio_set_has_hwpoisoned(folio);
#endif
	thps = nr_mthp(HPAGE_PMD_ORDER, MTHP_STAT_NR_ANON);
	pieces = nr_mthp(4, MTHP_STAT_NR_ANON);
	err = split_huge_page_to_list_to_order(&folio->page, NULL, 4);
	thps -= nr_mthp(HPAGE_PMD_ORDER, MTHP_STAT_NR_ANON);
	pieces -= nr_mthp(4, MTHP_STAT_NR_ANON);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_EQ(test, thps, 1);
	KUNIT_EXPECT_EQ(test, pieces, -HPAGE_PMD_NR / 16);
	for (i = 0; i < HPAGE_PMD_NR; i += 16) {
		piece = page_folio(folio_page(folio, i));
		wrong += folio_order(piece) != 4;
#ifdef CONFIG_MEMORY_FAILURE
		wrong += folio_test_has_hwpoisoned(piece) !=
			 ((!i && head_poisoned) || i == 192);
		folio_clear_has_hwpoisoned(piece);
		ClearPageHWPoison(folio_page(folio, i + 1));
		ClearPageHWPoison(folio_page(folio, i + 8));
#endif
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	expect_stayed(test, thp, shape_whole, 4);
	drop_lock(test, folio);
	folio_put(folio);
}

/* All others split to pieces of one order, by the same code.  Stock passes. */
static void split_to_one_order(struct kunit *test)
{
	split_to_order_4(test, 0, true);
	split_to_order_4(test, 1, false);
}

#ifdef HAVE_SPLIT_BY_STEPS
/* A folio that is mapped as a whole, or not at all, is not split, but counted. */
static void nothing_to_split(struct kunit *test)
{
	unsigned int nr_mapped = 0;
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	folio_get(folio);
	hold_lock(test, folio);
	KUNIT_EXPECT_EQ(test, split_folio_to_mapped(folio, &list, MAX_PAGE_ORDER,
						    false, &nr_mapped), 1);
	KUNIT_EXPECT_EQ(test, nr_mapped, HPAGE_PMD_NR);
	/* By PTEs, as in thp_make_pte_mapped() */
	advise(test, thp_addr(test, 0), PAGE_SIZE, MADV_DONTFORK);
	KUNIT_EXPECT_EQ(test, split_folio_to_mapped(folio, &list, MAX_PAGE_ORDER,
						    false, &nr_mapped), 1);
	KUNIT_EXPECT_EQ(test, nr_mapped, HPAGE_PMD_NR);
	expect_stayed(test, 0, shape_whole, HPAGE_PMD_ORDER);
	advise(test, thp_addr(test, 0), HPAGE_PMD_SIZE, MADV_DONTNEED);
	KUNIT_EXPECT_EQ(test, split_folio_to_mapped(folio, &list, MAX_PAGE_ORDER,
						    false, &nr_mapped), 1);
	KUNIT_EXPECT_EQ(test, nr_mapped, 0);
	KUNIT_EXPECT_EQ(test, folio_order(folio), HPAGE_PMD_ORDER);
	KUNIT_EXPECT_TRUE(test, list_empty(&list));
	drop_lock(test, folio);
	folio_put(folio);
}
#else
/* A split of a folio that is mapped as a whole, or not at all, has lost a race. */
static void nothing_to_split(struct kunit *test)
{
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	folio_get(folio);
	hold_lock(test, folio);
	KUNIT_EXPECT_EQ(test, split_folio_to_mapped(folio, &list, MAX_PAGE_ORDER), -EAGAIN);
	/* By PTEs, as in thp_make_pte_mapped() */
	advise(test, thp_addr(test, 0), PAGE_SIZE, MADV_DONTFORK);
	KUNIT_EXPECT_EQ(test, split_folio_to_mapped(folio, &list, MAX_PAGE_ORDER), -EAGAIN);
	expect_stayed(test, 0, shape_whole, HPAGE_PMD_ORDER);
	advise(test, thp_addr(test, 0), HPAGE_PMD_SIZE, MADV_DONTNEED);
	KUNIT_EXPECT_EQ(test, split_folio_to_mapped(folio, &list, MAX_PAGE_ORDER), -EAGAIN);
	KUNIT_EXPECT_EQ(test, folio_order(folio), HPAGE_PMD_ORDER);
	KUNIT_EXPECT_TRUE(test, list_empty(&list));
	drop_lock(test, folio);
	folio_put(folio);
}
#endif

#ifdef CONFIG_MEMORY_FAILURE
/* Is it neither in use nor free?  The lists of the CPUs are drained. */
static bool page_is_kept_out(struct page *page)
{
	return !PageCompound(page) && !page_ref_count(page) &&
	       !is_free_buddy_page(page);
}

/* Give the page allocator back what it kept out. */
static void unpoison(void *data)
{
	struct page *page = data;

	drain_all_pages(NULL);
	ClearPageHWPoison(page);
	if (page_is_kept_out(page)) {
		set_page_refcounted(page);
		/* To free it the first time has told page_owner already. */
		set_page_owner(page, 0, GFP_KERNEL);
		__free_page(page);
	}
}

/* Migrate a THP of which page @i has errors, and the first half is mapped. */
static struct page *poison(struct kunit *test, unsigned int i, bool noted,
			   struct dst *dst)
{
	struct folio *folio = thp_make_partial(test, 0, shape_half);
	struct page *page = folio_page(folio, i);
	LIST_HEAD(list);

	isolate(test, folio, &list);
	SetPageHWPoison(page);
	at_end(test, unpoison, page);
	if (noted)
		folio_set_has_hwpoisoned(folio);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_not_isolated(test);

	/* It stays out of larger free blocks as well. */
	drain_all_pages(NULL);
	KUNIT_EXPECT_TRUE(test, PageHWPoison(page));
	KUNIT_EXPECT_TRUE(test, page_is_kept_out(page));
	return page;
}

static void poison_unmapped(struct kunit *test, bool noted)
{
	struct dst dst = default_dst();

	poison(test, HPAGE_PMD_NR - 7, noted, &dst);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_moved_in(test, 0, shape_half, &dst, 0);
}

/*
 * The page allocator keeps a poisoned page out if it is freed on its own, and only
 * then.
 */
static void poisoned_page_is_kept_out(struct kunit *test)
{
	poison_unmapped(test, true);
}

/*
 * memory_failure() gives up on a folio that is isolated, with the page marked and the
 * folio not.
 */
static void poisoned_page_of_isolated_is_kept_out(struct kunit *test)
{
	poison_unmapped(test, false);
}

/* A page with errors is unmapped for good, and the pages before and behind it move. */
static void poisoned_page_is_unmapped(struct kunit *test)
{
	const unsigned int i = 4;
	struct dst dst = default_dst();
	struct page *page = poison(test, i, true, &dst);
	swp_entry_t poisoned = swp_entry(SWP_HWPOISON, page_to_pfn(page));
	spinlock_t *ptl;	/* of the PTEs */
	pte_t *pte, entry;

	expect_events(test, HPAGE_PMD_NR / 2 - 1, 0, 0, 0, 1);
	expect_order(test, 0, i - 1, dst.nid, 0);
	expect_order(test, 0, i + 1, dst.nid, 0);
	pte = thp_ptes(test, 0, &ptl);
	spin_lock(ptl);
	entry = ptep_get(pte + i);
	spin_unlock(ptl);
	KUNIT_EXPECT_TRUE(test, pte_same(entry, swp_entry_to_pte(poisoned)));
}

#endif
/* What a thread's last allocation of this order asked for */
struct asked {
	struct task_struct *task;
	unsigned int order;
	gfp_t gfp;
};

static void probe_mm_page_alloc(void *data, struct page *page, unsigned int order,
				gfp_t gfp, int migratetype)
{
	struct asked *asked = data;

	if (current == asked->task && order == asked->order)
		asked->gfp = gfp;
}

DEFINE_PROBE(mm_page_alloc)

/*
 * Nobody is killed for a target of order 2 or 3, as smaller ones would do.  For a folio
 * that is not anonymous, or is under writeback, they may not do: the allocator tries as
 * hard as before.  If a caller says how hard to try, it tries no less.
 *
 * Needs: mm/migrate: do not kill for a target of order 2 or 3
 */
static void target_kills_nobody(struct kunit *test)
{
	static const struct {
		unsigned int order;
		gfp_t gfp;
		gfp_t effort;
		bool file, writeback;
	} wanted[] = {
		{ 0, GFP_USER | __GFP_NOWARN, 0 },
		{ 2, GFP_USER | __GFP_NOWARN, __GFP_NORETRY },
		{ 3, GFP_USER | __GFP_NOWARN, __GFP_NORETRY },
		{ 2, GFP_USER | __GFP_NOWARN, __GFP_RETRY_MAYFAIL, .file = true },
		{ 2, GFP_USER | __GFP_NOWARN, __GFP_RETRY_MAYFAIL, .writeback = true },
		{ 2, GFP_USER | __GFP_RETRY_MAYFAIL, __GFP_RETRY_MAYFAIL },
		{ 2, GFP_USER | __GFP_THISNODE, 0 },
		{ 4, GFP_USER | __GFP_NOWARN, 0 },
	};
	struct migration_target_control mtc = { .nid = 0 };
	struct folio *src, *target;
	struct asked *asked;
	int i;

	asked = kunit_kzalloc(test, sizeof(*asked), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, asked);
	asked->task = current;
	thp_make_split(test, 0, 0);
	for (i = 1; i < MAX_THPS; i++)
		thp_make_split(test, i, i + 1);
	hold_mm_page_alloc(test, asked);
	for (i = 0; i < ARRAY_SIZE(wanted); i++) {
		if (wanted[i].file) {
			src = folio_alloc(GFP_KERNEL, wanted[i].order);
			KUNIT_ASSERT_NOT_NULL(test, src);
		} else {
			src = folio_at(test, thp_addr(test, max(wanted[i].order, 1u) - 1));
			folio_get(src);
		}
		if (wanted[i].writeback)
			hold_writeback(test, src);
		asked->order = wanted[i].order;
		asked->gfp = 0;
		mtc.gfp_mask = wanted[i].gfp;
		target = alloc_migration_target(src, (unsigned long)&mtc);
		if (wanted[i].writeback)
			drop_writeback(test, src);
		folio_put(src);
		KUNIT_ASSERT_NOT_NULL(test, target);
		folio_put(target);
		KUNIT_EXPECT_NE_MSG(test, (__force u32)asked->gfp, 0, "case %d", i);
		KUNIT_EXPECT_EQ_MSG(test, (__force u32)(asked->gfp & (__GFP_NORETRY |
								      __GFP_RETRY_MAYFAIL)),
				    (__force u32)wanted[i].effort, "case %d", i);
	}
	drop_mm_page_alloc(test, asked);
}

/*
 * A single page that was none of the pieces has no destination: the call ends with
 * -ENOMEM, and has everything on the list.
 */
static void no_destination_for_a_page(struct kunit *test)
{
	struct dst dst = default_dst();
	LIST_HEAD(list);

	thp_make_split(test, 1, 0);
	isolate(test, thp_make_partial(test, 0, shape_alternate), &list);
	isolate(test, folio_at(test, thp_addr(test, 1)), &list);

	dst.refuse_from = 0;
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), -ENOMEM);
	KUNIT_EXPECT_EQ(test, list_len(&list), HPAGE_PMD_NR / 2 + 1);
	expect_events(test, 0, HPAGE_PMD_NR / 2 + 1, 0, 0, 1);

	dst = default_dst();
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR / 2 + 1, 0, 0, 0, 0);
	expect_moved(test, 0, shape_alternate, &dst);
	expect_not_isolated(test);
}

/* Isolate a large folio, which is returned, and a single page behind it. */
static struct folio *isolate_two(struct kunit *test, struct list_head *list)
{
	struct folio *folio;

	thp_make_split(test, 0, HPAGE_PMD_ORDER - 1);
	thp_make_split(test, 1, 0);
	folio = folio_at(test, thp_addr(test, 0));
	isolate(test, folio, list);
	isolate(test, folio_at(test, thp_addr(test, 1)), list);
	return folio;
}

/*
 * There is no target for a folio, and somebody gets a reference before it is split.
 * mbind(2), which has no target if the folio can be split, migrates what is behind it.
 *
 * Needs: mm/migrate: do not kill for a target of order 2 or 3
 */
static void pinned_before_split(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = isolate_two(test, &list);
	dst.reason = MR_MEMPOLICY_MBIND;
	dst.max_order = 0;
	dst.pin = folio;
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	KUNIT_EXPECT_EQ(test, list_len(&list), 1);
	KUNIT_EXPECT_PTR_EQ(test, list_first_entry(&list, struct folio, lru), folio);
	expect_events(test, 1, HPAGE_PMD_NR / 2, 0, 0, 0);
	/* or there is no pin */
	KUNIT_ASSERT_NE(test, dst.nr_calls, 0);
	folio_put(folio);

	dst = default_dst();
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, HPAGE_PMD_NR / 2);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 0);
	expect_not_isolated(test);
}

/*
 * The same, and all of the folio is unmapped instead.  Synchronous passes find that nobody
 * has it any more.
 *
 * Needs: mm/migrate: do not kill for a target of order 2 or 3
 */
static void unmapped_before_split(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	const int left = c->mode == MIGRATE_ASYNC;
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = isolate_two(test, &list);
	dst.reason = MR_MEMPOLICY_MBIND;
	dst.max_order = 0;
	dst.zap_call = 0;
	dst.zap_addr = thp_addr(test, 0);
	dst.zap_len = folio_size(folio);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), left);
	KUNIT_EXPECT_EQ(test, list_len(&list), left);
	if (left)
		expect_events(test, 1, HPAGE_PMD_NR / 2, 0, 0, 0);
	else
		expect_events(test, 1 + HPAGE_PMD_NR / 2, 0, 0, 0, 0);

	dst = default_dst();
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	KUNIT_EXPECT_EQ(test, dst.nr_calls, 0);
	expect_not_isolated(test);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(piece_is_split_again, mode_gen_params),
	KUNIT_CASE_PARAM(smaller_destinations, mode_gen_params),
	KUNIT_CASE_PARAM(few_take_single_pages, mode_gen_params),
	KUNIT_CASE_PARAM(refused_orders_are_not_made, mode_gen_params),
	KUNIT_CASE(split_to_one_order),
	KUNIT_CASE_PARAM(no_destination_for_a_page, mode_gen_params),
	KUNIT_CASE_PARAM(pinned_before_split, mode_gen_params),
	KUNIT_CASE_PARAM(unmapped_before_split, mode_gen_params),
	KUNIT_CASE(nothing_to_split),
	KUNIT_CASE(target_kills_nobody),
#ifdef CONFIG_MEMORY_FAILURE
	KUNIT_CASE_PARAM(poisoned_page_is_kept_out, mode_gen_params),
	KUNIT_CASE_PARAM(poisoned_page_of_isolated_is_kept_out, mode_gen_params),
	KUNIT_CASE_PARAM(poisoned_page_is_unmapped, mode_gen_params),
#endif
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
