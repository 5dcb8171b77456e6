// SPDX-License-Identifier: GPL-2.0
/*
 * NUMA balancing, on kernels where that passes a page: it may get back another one.
 */
#include <trace/events/migrate_split.h>

#include "frame.h"

static void probe_mm_migrate_split_deferred(void *data, unsigned long pfn,
					    unsigned int order, unsigned int nr_mapped,
					    enum migrate_split_action action, int error)
{
	struct folio *piece = data;

	if (action == MIGRATE_SPLIT_SPLIT &&
	    pfn == ALIGN_DOWN(folio_pfn(piece), HPAGE_PMD_NR))
		folio_get(piece);
}

DEFINE_PROBE(mm_migrate_split_deferred)

/*
 * migrate_misplaced_page() puts back all that is left of the THP that it was given.  Here,
 * this is a piece from the middle, which is pinned as soon as it exists.  Stock puts back
 * the page that it was given, and BUG_ON()s if anything is left then.
 */
static void numa_balancing_puts_back(struct kunit *test)
{
	unsigned long addr = thp_addr(test, 0) + 7 * PAGE_SIZE;
	struct dst dst = default_dst();
	struct folio *folio, *piece;
	struct vm_area_struct *vma;

	if (!IS_ENABLED(CONFIG_NUMA_BALANCING))
		kunit_skip(test, "no NUMA balancing");
	if (!dst.nid)
		kunit_skip(test, "one node");

	folio = thp_make(test, 0);
	advise(test, thp_addr(test, 0), 7 * PAGE_SIZE, MADV_DONTNEED);
	advise(test, addr + PAGE_SIZE, (HPAGE_PMD_NR - 8) * PAGE_SIZE,
	       MADV_DONTNEED);
	piece = (struct folio *)folio_page(folio, 7);

	lru_add_drain();
	hold_mm_migrate_split_deferred(test, piece);
	mmap_read_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	folio_get(folio);
	KUNIT_EXPECT_EQ(test, migrate_misplaced_page(&folio->page, vma, dst.nid),
			0);
	mmap_read_unlock(current->mm);
	drop_mm_migrate_split_deferred(test, piece);

	expect_events(test, 0, 1, 0, 0, 1);
	KUNIT_ASSERT_PTR_EQ(test, folio_at(test, addr), piece);
	lru_add_drain_all();
	KUNIT_EXPECT_TRUE(test, folio_test_lru(piece));
	folio_put(piece);
	expect_not_isolated(test);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(numa_balancing_puts_back),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
