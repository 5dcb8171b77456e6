// SPDX-License-Identifier: GPL-2.0
/*
 * The shrinker, and folios that are queued because they are underused.  Only for
 * kernels that mark those that are partially mapped.
 */
#include <linux/khugepaged.h>

#include "frame.h"

/* The queue that @folio is on, or would be, is as long as it says */
static void expect_queue_len(struct kunit *test, struct folio *folio)
{
#ifdef HAVE_QUEUE_IS_LIST_LRU
	struct list_lru_one *queue = queue_lock(folio);

	KUNIT_EXPECT_EQ(test, list_count_nodes(&queue->list), queue->nr_items);
	queue_unlock(queue);
#else
	struct deferred_split *queue = split_queue_of(folio);

	spin_lock_irq(&queue->split_queue_lock);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&queue->split_queue),
			queue->split_queue_len);
	spin_unlock_irq(&queue->split_queue_lock);
#endif
}

static void set_max_ptes_none(void *nr)
{
	khugepaged_max_ptes_none = (long)nr;
}

/*
 * The shrinker meets an underused THP that is locked, as the destination of a
 * migration is: it stays queued.  Stock drops it from the queue for good.
 *
 * Needs: mm: fix deferred split queue races during migration
 */
static void shrinker_keeps_locked(struct kunit *test)
{
	struct folio *folio;
	int refs;

	KUNIT_ASSERT_EQ(test, put_user(1UL, user_word(thp_addr(test, 0))), 0);
	folio = folio_at(test, thp_addr(test, 0));
	KUNIT_ASSERT_EQ(test, folio_order(folio), HPAGE_PMD_ORDER);
	KUNIT_ASSERT_FALSE(test, list_empty(deferred_list(folio)));
	refs = folio_ref_count(folio);

	at_end(test, set_max_ptes_none, (void *)(long)khugepaged_max_ptes_none);
	set_max_ptes_none((void *)(HPAGE_PMD_NR / 2));
	hold_lock(test, folio);
	drop_slab();
	KUNIT_EXPECT_FALSE(test, list_empty(deferred_list(folio)));
	drop_lock(test, folio);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), refs);
	expect_queue_len(test, folio);

	/* Evidence that the shrinker is interested in it. */
	folio_get(folio);
	drop_slab();
	KUNIT_EXPECT_TRUE(test, list_empty(deferred_list(folio)));
	folio_put(folio);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), refs);
	expect_queue_len(test, folio);

	/* One that is partially mapped stays queued whatever is in the way. */
	folio = thp_make_partial(test, 1, shape_half);
	refs = folio_ref_count(folio);
	folio_get(folio);
	drop_slab();
	KUNIT_EXPECT_TRUE(test, folio_split_deferred(folio));
	folio_put(folio);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), refs);
	expect_queue_len(test, folio);
}

#ifdef HAVE_QUEUE_IS_LIST_LRU
/*
 * The shrinker has taken a folio off its list, and does not let go of it in time for
 * migration to see that.  The destination is queued, as the source was marked.  Stock
 * loses the pages that are not mapped.
 */
static void destination_is_queued(struct kunit *test)
{
	struct folio *src, *dst;
	struct list_lru_one *queue;
	LIST_HEAD(list);
	struct dst d = default_dst();

	/* All pages are mapped, so that it is not split: but it is marked. */
	src = thp_make(test, 0);
	deferred_split_folio(src, true);
	isolate(test, src, &list);
	queue = queue_lock(src);
	__list_lru_del(&deferred_split_lru, queue, deferred_list(src), folio_nid(src));
	queue_unlock(queue);

	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &d, MIGRATE_SYNC, NULL), 0);
	dst = folio_at(test, thp_addr(test, 0));
	KUNIT_EXPECT_EQ(test, folio_nid(dst), d.nid);
	KUNIT_EXPECT_EQ(test, folio_order(dst), HPAGE_PMD_ORDER);
	KUNIT_EXPECT_TRUE(test, folio_test_partially_mapped(dst));
	KUNIT_EXPECT_FALSE(test, list_empty(deferred_list(dst)));
	expect_queue_len(test, dst);
	expect_not_isolated(test);
}

#endif
#ifdef CONFIG_LOCKDEP
/* Is @entry where it was when the queue's lock was dropped, when it is taken again? */
struct watched_entry {
	struct list_head *entry;
	bool queued;
	int nr_changes, nr_acquired;
	struct folio *mark;		/* when the lock is about to be taken again */
};

static void queue_locks(void *data)
{
	struct watched_entry *w = data;
	struct folio *mark = w->mark;

	w->nr_changes += w->queued != !list_empty(w->entry);
	if (!w->nr_acquired++ || !mark)
		return;
	w->mark = NULL;
	deferred_split_folio(mark, true);
}

static void queue_unlocks(void *data)
{
	struct watched_entry *w = data;

	w->queued = !list_empty(w->entry);
}

/* Shrink; with @mark, mark @folio when the shrinker takes the lock a second time. */
static int shrink_watched(struct kunit *test, struct folio *folio, bool mark)
{
	struct watched_entry w = {
		.entry = deferred_list(folio),
		.queued = true,
		.mark = mark ? folio : NULL,
	};
	struct lock_watch watch = {
		.lock = queue_lockdep_map(folio),
		.acquire = queue_locks,
		.release = queue_unlocks,
		.data = &w,
	};

	KUNIT_ASSERT_FALSE(test, list_empty(w.entry));
	watch_lock(test, &watch);
	drop_slab();
	unwatch_lock(test);
	KUNIT_EXPECT_NULL(test, w.mark);
	return w.nr_changes + (w.queued != !list_empty(w.entry));
}
#endif

/*
 * The shrinker drops a folio that is not underused from the queue under the queue's
 * lock.  Stock does so without: a mark that is set meanwhile is lost.
 *
 * Needs: mm/huge_memory: have the shrinker unqueue folios
 * Needs: mm/huge_memory: have the shrinker take folios off its list
 */
static void shrinker_unqueues_locked(struct kunit *test)
{
#ifdef CONFIG_LOCKDEP
	struct folio *folio = thp_make(test, 0);

	KUNIT_EXPECT_EQ(test, shrink_watched(test, folio, false), 0);
	KUNIT_EXPECT_TRUE(test, list_empty(deferred_list(folio)));
#else
	kunit_skip(test, "only lockdep tells who takes the lock");
#endif
}

/*
 * One that is marked just before it is dropped is split, by this scan or the next.
 *
 * Needs: mm/huge_memory: have the shrinker take folios off its list
 */
static void shrinker_sees_late_mark(struct kunit *test)
{
#ifdef CONFIG_LOCKDEP
	struct folio *folio = thp_make(test, 0);

	shrink_watched(test, folio, true);
	drop_slab();
	folio = folio_at(test, thp_addr(test, 0));
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	expect_queue_len(test, folio);
#else
	kunit_skip(test, "only lockdep tells who takes the lock");
#endif
}

static struct kunit_case cases[] = {
	KUNIT_CASE(shrinker_keeps_locked),
#ifdef HAVE_QUEUE_IS_LIST_LRU
	KUNIT_CASE(destination_is_queued),
#endif
	KUNIT_CASE(shrinker_unqueues_locked),
	KUNIT_CASE(shrinker_sees_late_mark),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
