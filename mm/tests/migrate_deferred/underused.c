// SPDX-License-Identifier: GPL-2.0
/*
 * The shrinker, and folios that are queued because they are underused.  Only for
 * kernels that mark those that are partially mapped.
 */
#include <linux/khugepaged.h>

#include "frame.h"

/* @queue is as long as it says */
static void expect_queue_len(struct kunit *test, struct deferred_split *queue)
{
	spin_lock_irq(&queue->split_queue_lock);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&queue->split_queue),
			queue->split_queue_len);
	spin_unlock_irq(&queue->split_queue_lock);
}

static void set_max_ptes_none(void *nr)
{
	khugepaged_max_ptes_none = (long)nr;
}

/*
 * The shrinker meets an underused THP that is locked, as the destination of a
 * migration is: it stays queued.  Stock drops it from the queue for good.
 */
static void shrinker_keeps_locked(struct kunit *test)
{
	struct deferred_split *queue;
	struct folio *folio;
	int refs;

	KUNIT_ASSERT_EQ(test, put_user(1UL, user_word(thp_addr(test, 0))), 0);
	folio = folio_at(test, thp_addr(test, 0));
	KUNIT_ASSERT_EQ(test, folio_order(folio), HPAGE_PMD_ORDER);
	KUNIT_ASSERT_FALSE(test, list_empty(deferred_list(folio)));
	queue = split_queue_of(folio);
	refs = folio_ref_count(folio);

	at_end(test, set_max_ptes_none, (void *)(long)khugepaged_max_ptes_none);
	set_max_ptes_none((void *)(HPAGE_PMD_NR / 2));
	hold_lock(test, folio);
	drop_slab();
	KUNIT_EXPECT_FALSE(test, list_empty(deferred_list(folio)));
	drop_lock(test, folio);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), refs);
	expect_queue_len(test, queue);

	/* Evidence that the shrinker is interested in it. */
	folio_get(folio);
	drop_slab();
	KUNIT_EXPECT_TRUE(test, list_empty(deferred_list(folio)));
	folio_put(folio);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), refs);
	expect_queue_len(test, queue);

	/* One that is partially mapped stays queued whatever is in the way. */
	folio = thp_make_partial(test, 1, shape_half);
	refs = folio_ref_count(folio);
	folio_get(folio);
	drop_slab();
	KUNIT_EXPECT_TRUE(test, folio_split_deferred(folio));
	folio_put(folio);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), refs);
	expect_queue_len(test, queue);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(shrinker_keeps_locked),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
