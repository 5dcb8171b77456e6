// SPDX-License-Identifier: GPL-2.0
/*
 * The rmap in the course of a split to pieces larger than a page.  One walk removes the
 * migration entries of all pieces, and no others.
 */

#include "frame.h"

/*
 * As zapped_entry_is_noticed(), but of the destination.  Provoked in a batch: when the
 * second folio asks for its destination, the first is unmapped.  Stock queues it
 * because it took the source for partially mapped while it migrated.
 */
static void zapped_entry_is_noticed_in_batch(struct kunit *test)
{
	const unsigned int order = 4;
	unsigned long addr[] = {
		thp_addr(test, 0), thp_addr(test, 0) + (PAGE_SIZE << order)
	};
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);
	int i;

	thp_make_split(test, 0, order);
	for (i = 0; i < ARRAY_SIZE(addr); i++)
		isolate(test, folio_at(test, addr[i]), &list);

	dst.zap_call = 1;
	dst.zap_addr = addr[0] + 5 * PAGE_SIZE;
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	expect_events(test, 2 << order, 0, 0, 0, 0);
	for (i = 0; i < ARRAY_SIZE(addr); i++) {
		folio = folio_at(test, addr[i]);
		KUNIT_EXPECT_EQ(test, folio_order(folio), order);
		KUNIT_EXPECT_EQ(test, folio_split_deferred(folio), i == 0);
	}
	expect_not_isolated(test);
}

/*
 * Split a THP into pieces of @order that are mapped, and unmap these as a split does.
 * Return the pieces, each with a reference, and locked.
 */
static struct folio **pieces_unmap(struct kunit *test, unsigned int order)
{
	unsigned int i, nr = HPAGE_PMD_NR >> order;
	unsigned long addr = thp_addr(test, 0);
	struct folio **piece;

	piece = kunit_kcalloc(test, nr, sizeof(*piece), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, piece);
	thp_make_split(test, 0, order);
	for (i = 0; i < nr; i++)
		piece[i] = folio_at(test, addr + (i << order) * PAGE_SIZE);
	for (i = 0; i < nr; i++) {
		folio_get(piece[i]);
		folio_lock(piece[i]);
		try_to_migrate(piece[i], 0);
	}
	return piece;
}

/* Map them again, as a split does. */
static void pieces_map(struct folio *first, int flags,
		       const struct folio_split_plan *plan)
{
	struct anon_vma *anon_vma = folio_anon_vma(first);

	anon_vma_lock_write(anon_vma);
	remove_migration_ptes_split(first, HPAGE_PMD_NR, flags, plan);
	anon_vma_unlock_write(anon_vma);
}

/*
 * A page is unmapped while a migration entry stands in for it in a split: the piece
 * that it was in is queued.  Step by step, as there is no place in a split from where
 * to unmap.
 */
static void zapped_entry_is_noticed_in_split(struct kunit *test)
{
	const unsigned int order = 4, nr = HPAGE_PMD_NR >> order, hit = 7;
	unsigned long addr = thp_addr(test, 0);
	struct folio **piece;
	unsigned int i;

	piece = pieces_unmap(test, order);
	advise(test, addr + ((hit << order) + 3) * PAGE_SIZE, PAGE_SIZE,
	       MADV_DONTNEED);
	KUNIT_EXPECT_FALSE(test, folio_split_deferred(piece[hit]));

	pieces_map(piece[0], 0, NULL);
	for (i = 0; i < nr; i++) {
		KUNIT_EXPECT_EQ_MSG(test, folio_mapcount(piece[i]),
				    (1 << order) - (i == hit), "piece %u", i);
		KUNIT_EXPECT_EQ_MSG(test, folio_split_deferred(piece[i]),
				    i == hit, "piece %u", i);
		folio_unlock(piece[i]);
		folio_put(piece[i]);
	}
}

/*
 * A page that nobody seemed to map has not been looked into.  If it is mapped after
 * all, as somebody split a PMD during the look, it must not pass for zero-filled.
 */
static void stale_plan_loses_nothing(struct kunit *test)
{
	const unsigned int order = 4, nr = HPAGE_PMD_NR >> order;
	struct folio_split_plan plan = { .order = HPAGE_PMD_ORDER };
	struct folio **piece;
	unsigned int i;

	plan.unmapped = kunit_kcalloc(test, BITS_TO_LONGS(HPAGE_PMD_NR),
				      sizeof(long), GFP_KERNEL);
	plan.data = kunit_kcalloc(test, BITS_TO_LONGS(HPAGE_PMD_NR),
				  sizeof(long), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, plan.unmapped);
	KUNIT_ASSERT_NOT_NULL(test, plan.data);
	bitmap_fill(plan.unmapped, HPAGE_PMD_NR);

	piece = pieces_unmap(test, order);
#ifdef HAVE_SPLIT_BY_STEPS
	pieces_map(piece[0], TTU_USE_SHARED_ZEROPAGE, &plan);
#else
	pieces_map(piece[0], RMP_USE_SHARED_ZEROPAGE, &plan);
#endif
	for (i = 0; i < nr; i++) {
		folio_unlock(piece[i]);
		folio_put(piece[i]);
	}
	expect_stayed(test, 0, shape_whole, order);
}

/*
 * @first is mapped from @addr on, and @behind is mapped behind it.  Unmap @behind for
 * migration, then split and migrate @first.
 */
static void expect_left_alone(struct kunit *test, unsigned long addr,
			      struct folio *first, struct folio *behind,
			      enum ttu_flags flags)
{
	unsigned long end = addr + folio_size(first) + folio_size(behind);
	int nr = folio_nr_pages(first) - 3;
	bool thp = folio_test_pmd_mappable(first);
	struct dst dst = default_dst();
	LIST_HEAD(list);

	advise(test, addr, 3 * PAGE_SIZE, MADV_DONTNEED);
	isolate(test, first, &list);
	hold_unmapped(test, behind, flags);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(behind));
	expect_events(test, nr, 0, 0, 0, thp);
	drop_unmapped(test, behind);
	/* The first one was split: a single page, four pages, and larger pieces */
	KUNIT_EXPECT_EQ(test, folio_order(folio_at(test, addr + 3 * PAGE_SIZE)), 0);
	KUNIT_EXPECT_EQ(test, folio_order(folio_at(test, addr + 4 * PAGE_SIZE)), 2);
	KUNIT_EXPECT_EQ(test, folio_order(folio_at(test, addr + 8 * PAGE_SIZE)), 3);
	expect_tokens(test, addr + 3 * PAGE_SIZE, end);
	expect_not_isolated(test);
}

/*
 * A split maps the pages of its folio again, and none of the folio behind it, in the
 * address space and in memory, that happens to be unmapped for migration.  Stock
 * passes.
 */
static void entries_behind_are_left_alone(struct kunit *test)
{
	static const enum ttu_flags flags[] = { 0, TTU_SPLIT_HUGE_PMD };
	struct folio *first, *behind;
	unsigned long addr;
	int i, thp, tries;

	for (i = 0, thp = 0; i < ARRAY_SIZE(flags); i++, thp += 2) {
		addr = thp_addr(test, thp);
		for (tries = 0; tries < 20; tries++) {
			advise(test, addr, 2 * HPAGE_PMD_SIZE, MADV_HUGEPAGE);
			first = thp_make(test, thp);
			behind = thp_make(test, thp + 1);
			if (folio_pfn(first) < folio_pfn(behind))
				break;
			/* What is freed last is what is allocated first */
			advise(test, addr, 2 * HPAGE_PMD_SIZE, MADV_DONTNEED);
		}
		KUNIT_ASSERT_LT(test, tries, 20);
		expect_left_alone(test, addr, first, behind, flags[i]);
	}
}

/* The same in one page table, with folios next to each other in memory */
static void entries_behind_in_one_table(struct kunit *test)
{
	const unsigned int order = HPAGE_PMD_ORDER - 1;
	unsigned long addr = thp_addr(test, 0);

	thp_make_split(test, 0, order);
	expect_left_alone(test, addr, folio_at(test, addr),
			  folio_at(test, addr + (PAGE_SIZE << order)), 0);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(zapped_entry_is_noticed_in_batch),
	KUNIT_CASE(zapped_entry_is_noticed_in_split),
	KUNIT_CASE(stale_plan_loses_nothing),
	KUNIT_CASE(entries_behind_are_left_alone),
	KUNIT_CASE(entries_behind_in_one_table),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
