// SPDX-License-Identifier: GPL-2.0
/*
 * Splits that fail, pieces that fail, and folios beside them.  Failures are provoked
 * by a reference held, a lock held, the folio put where deferred_split_scan() would
 * have it, or a destination refused.
 */
#include <linux/migrate.h>
#include <linux/sched/mm.h>
#include <trace/events/migrate.h>
#include <trace/events/tlb.h>

#include "frame.h"

/* The folio came back whole, queued and untouched, and counts as one failure. */
static void expect_failed_whole(struct kunit *test, struct list_head *list,
				struct folio *folio, struct dst *dst)
{
	KUNIT_EXPECT_EQ(test, list_len(list), 1);
	KUNIT_EXPECT_PTR_EQ(test, list_first_entry(list, struct folio, lru),
			    folio);
	KUNIT_EXPECT_TRUE(test, folio_split_deferred(folio));
	KUNIT_EXPECT_EQ_MSG(test, dst->nr_calls, 0,
			    "what is not split must not be migrated whole");
	expect_events(test, 0, HPAGE_PMD_NR, 0, 1, 0);
	expect_stayed(test, 0, shape_half, HPAGE_PMD_ORDER);
}

/* migrate_pages() returned @rc, and has split and moved the half that is mapped */
static void expect_migrated(struct kunit *test, struct list_head *list,
			    struct dst *dst, int rc)
{
	KUNIT_EXPECT_EQ(test, rc, 0);
	KUNIT_EXPECT_EQ(test, list_len(list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_moved(test, 0, shape_half, dst);
	expect_not_isolated(test);
}

/* It migrates, split, once what was in the way is gone. */
static void expect_migrates_now(struct kunit *test, struct list_head *list,
				struct dst *dst, enum migrate_mode mode)
{
	expect_migrated(test, list, dst, migrate_mode(list, dst, mode, NULL));
}

/*
 * Somebody holds a reference: the migration of the folio fails.  Stock goes on and
 * tries to migrate the folio whole.
 */
static void split_fails_on_reference(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);

	folio_get(folio);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	expect_failed_whole(test, &list, folio, &dst);
	folio_put(folio);

	expect_migrates_now(test, &list, &dst, c->mode);
}

/* Gets a reference when the first page of a folio is unmapped */
struct late_reference {
	struct task_struct *task;
	struct folio *folio;
};

static void probe_set_migration_pte(void *data, unsigned long addr, unsigned long pte,
				    int order)
{
	struct late_reference *late = data;

	if (current != late->task || !late->folio)
		return;
	folio_get(late->folio);
	late->folio = NULL;
}

DEFINE_PROBE(set_migration_pte)

/* A reference comes after the check for such: the split fails and maps all pages again */
static void split_fails_on_late_reference(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = default_dst();
	struct late_reference *late;
	struct folio *folio;
	LIST_HEAD(list);

	late = kunit_kzalloc(test, sizeof(*late), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, late);
	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);
	*late = (struct late_reference) { .task = current, .folio = folio };

	hold_set_migration_pte(test, late);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	drop_set_migration_pte(test, late);
	KUNIT_EXPECT_NULL(test, late->folio);
	expect_failed_whole(test, &list, folio, &dst);
	if (!late->folio)
		folio_put(folio);

	expect_migrates_now(test, &list, &dst, c->mode);
}

#ifdef HAVE_QUEUE_IS_LIST_LRU
/*
 * deferred_split_scan() has the folio in hand: it has a reference, and took the folio
 * off all lists.  Then it puts it on the queue again.  Stock takes it for not queued
 * and tries to migrate it whole.
 */
static void split_fails_on_shrinker_list(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = default_dst();
	struct list_lru_one *queue;
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);

	folio_get(folio);
	queue = queue_lock(folio);
	KUNIT_EXPECT_TRUE(test, __list_lru_del(&deferred_split_lru, queue,
					       deferred_list(folio),
					       folio_nid(folio)));
	queue_unlock(queue);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	KUNIT_EXPECT_TRUE(test, list_empty(deferred_list(folio)));

	deferred_split_folio(folio, true);
	folio_put(folio);
	expect_failed_whole(test, &list, folio, &dst);

	expect_migrates_now(test, &list, &dst, c->mode);
}
#else
/*
 * deferred_split_scan() has the folio on its on-stack list, walks that without the
 * lock, and must find it as it was.  Stock goes on and tries to migrate the folio
 * whole.
 */
static void split_fails_on_shrinker_list(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = default_dst();
	struct deferred_split *queue;
	struct folio *folio;
	LIST_HEAD(scan);
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);
	queue = split_queue_of(folio);

	spin_lock_irq(&queue->split_queue_lock);
	folio_get(folio);
	list_move(deferred_list(folio), &scan);
	spin_unlock_irq(&queue->split_queue_lock);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	KUNIT_EXPECT_TRUE(test, list_is_singular(&scan));
	KUNIT_EXPECT_PTR_EQ(test, scan.next, deferred_list(folio));

	spin_lock_irq(&queue->split_queue_lock);
	list_splice_tail(&scan, &queue->split_queue);
	spin_unlock_irq(&queue->split_queue_lock);
	folio_put(folio);
	expect_failed_whole(test, &list, folio, &dst);

	expect_migrates_now(test, &list, &dst, c->mode);
}
#endif

/*
 * Somebody else holds the folio lock, which MIGRATE_ASYNC does not wait for.  Stock
 * goes on and tries to migrate the folio whole.
 */
static void split_fails_on_lock(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);

	hold_lock(test, folio);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 1);
	drop_lock(test, folio);
	expect_failed_whole(test, &list, folio, &dst);

	expect_migrates_now(test, &list, &dst, MIGRATE_ASYNC);
}

/*
 * In reclaim no mode waits for the folio lock; nor does MIGRATE_SYNC_LIGHT, on later
 * kernels, if whoever holds it may wait for I/O.  Stock goes on and tries to migrate
 * the folio whole.
 */
static void split_fails_on_lock_sync(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = default_dst();
	struct folio *folio;
	unsigned int flags;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);

	hold_lock(test, folio);
	flags = memalloc_noreclaim_save();
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	memalloc_noreclaim_restore(flags);
	expect_failed_whole(test, &list, folio, &dst);

#ifdef HAVE_SYNC_LIGHT_AVOIDS_IO
	if (c->mode == MIGRATE_SYNC_LIGHT) {
		folio_clear_uptodate(folio);
		KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
		folio_mark_uptodate(folio);
		expect_failed_whole(test, &list, folio, &dst);
	}
#endif
	drop_lock(test, folio);

	expect_migrates_now(test, &list, &dst, c->mode);
}

/*
 * The folio is under writeback.  Only MIGRATE_SYNC waits for that, and no other mode
 * tries again.  Stock goes on and tries to migrate the folio whole.
 */
static void split_fails_on_writeback(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);

	hold_writeback(test, folio);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 1);
	expect_failed_whole(test, &list, folio, &dst);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_SYNC_LIGHT, NULL),
			1);
	expect_failed_whole(test, &list, folio, &dst);
	drop_writeback(test, folio);

	expect_migrates_now(test, &list, &dst, MIGRATE_ASYNC);
}

/* The synchronous modes wait for the folio lock, and split when they have it. */
static void split_waits_for_lock(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = default_dst();
	struct other_lock *other;
	struct folio *folio;
	LIST_HEAD(list);
	int rc;

	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);

	other = other_locks(test, folio, 0);
	rc = migrate_mode(&list, &dst, c->mode, NULL);
	expect_waited(test, other);
	expect_migrated(test, &list, &dst, rc);
}

struct writeback_timer {
	struct timer_list timer;
	struct folio *folio;
	int ticks;
	bool waited;
};

/* End writeback as soon as somebody waits for it, or after 10 seconds. */
static void end_writeback_fn(struct timer_list *t)
{
	struct writeback_timer *write = container_of(t, struct writeback_timer, timer);

	write->waited = folio_test_waiters(write->folio);
	if (!write->waited && ++write->ticks < 10 * HZ)
		mod_timer(&write->timer, jiffies + 1);
	else
		folio_end_writeback(write->folio);
}

/*
 * MIGRATE_SYNC waits for writeback in its last passes.  The passes before do not keep
 * the folio lock.
 *
 * The end of writeback holds a reference for a moment, and no split succeeds then.  The
 * timer runs on this CPU, so it has dropped the reference before the migration goes on.
 */
static void split_waits_for_writeback(struct kunit *test)
{
	struct writeback_timer write = { };
	struct dst dst = default_dst();
	LIST_HEAD(list);
	int rc;

	write.folio = thp_make_partial(test, 0, shape_half);
	isolate(test, write.folio, &list);

	timer_setup_on_stack(&write.timer, end_writeback_fn, TIMER_PINNED);
#ifdef HAVE_API_2026
	/* See hold_writeback() */
	folio_lock(write.folio);
	folio_start_writeback(write.folio);
	folio_unlock(write.folio);
#else
	folio_start_writeback(write.folio);
#endif
	migrate_disable();
	mod_timer(&write.timer, jiffies + 1);
	rc = migrate_mode(&list, &dst, MIGRATE_SYNC, NULL);
	migrate_enable();
	/* If nobody had to wait, the timer may still be pending. */
	while (timer_pending(&write.timer))
		schedule_timeout_idle(1);
#ifdef HAVE_API_2026
	timer_delete_sync(&write.timer);
	timer_destroy_on_stack(&write.timer);
#else
	del_timer_sync(&write.timer);
	destroy_timer_on_stack(&write.timer);
#endif

	KUNIT_EXPECT_TRUE_MSG(test, write.waited, "nobody waited for writeback");
	expect_migrated(test, &list, &dst, rc);
}

/*
 * There is no destination at all: every piece comes back, and each counts as failed.
 * Stock counts the split as a failure.
 */
static void no_destination(struct kunit *test)
{
	struct dst dst = default_dst();
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, shape_alternate), &list);

	dst.refuse_from = 0;
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), nomem_rc(HPAGE_PMD_NR / 2));
	expect_events(test, 0, nomem_fails(HPAGE_PMD_NR / 2), 0, 0, 1);
	KUNIT_EXPECT_EQ(test, list_len(&list), HPAGE_PMD_NR / 2);

	dst = default_dst();
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_moved(test, 0, shape_alternate, &dst);
	expect_not_isolated(test);
}

/* The destinations run out: what was moved is counted, and the rest comes back. */
static void destinations_run_out(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = default_dst();
	unsigned int succeeded;
	const int nr = 100, left = HPAGE_PMD_NR / 2 - nr;
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, shape_alternate), &list);

	dst.refuse_from = nr;
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, c->mode, &succeeded),
			nomem_rc(left));
	expect_events(test, nr, nomem_fails(left), 0, 0, 1);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, nr);
	/* and as many as were freed */
	KUNIT_EXPECT_EQ(test, succeeded, nr + HPAGE_PMD_NR / 2);
	KUNIT_EXPECT_EQ(test, list_len(&list), left);

	dst = default_dst();
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, c->mode, &succeeded), 0);
	KUNIT_EXPECT_EQ(test, succeeded, left);
	expect_events(test, left, 0, 0, 0, 0);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, left);
	expect_moved(test, 0, shape_alternate, &dst);
	expect_not_isolated(test);
}

/*
 * There is no destination for large pieces: they are split as any other large folio is
 * then, to single pages, and all of them arrive.
 */
static void no_large_destination(struct kunit *test)
{
	struct dst dst = default_dst();
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, shape_blocks), &list);

	dst.max_order = 0;
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_moved_in(test, 0, shape_blocks, &dst, 0);
	expect_not_isolated(test);
}

/*
 * A piece that cannot be migrated comes back and counts, as one page.  Stock counts
 * the THP.
 */
static void piece_fails(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_alternate);
	isolate(test, folio, &list);

	dst.pin = (struct folio *)folio_page(folio, 4);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	KUNIT_EXPECT_EQ(test, list_len(&list), 1);
	KUNIT_EXPECT_PTR_EQ(test, list_first_entry(&list, struct folio, lru),
			    dst.pin);
	expect_events(test, HPAGE_PMD_NR / 2 - 1, 1, 0, 0, 1);
	/* or there is no pin */
	KUNIT_ASSERT_NE(test, dst.nr_calls, 0);
	folio_put(dst.pin);

	dst = default_dst();
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_moved(test, 0, shape_alternate, &dst);
	expect_not_isolated(test);
}

/*
 * Pieces get as many passes as any other folio: ten for MIGRATE_ASYNC.  Stock puts
 * them on split_folios, where there is one.
 */
static void piece_gets_all_passes(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_alternate);
	isolate(test, folio, &list);

	dst.lock = (struct folio *)folio_page(folio, 4);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 1);
	KUNIT_EXPECT_EQ(test, dst.nr_calls_lock, 10);
	/* Every other piece was moved in its first pass. */
	KUNIT_EXPECT_EQ(test, dst.nr_calls, HPAGE_PMD_NR / 2 - 1 + 10);
	KUNIT_EXPECT_EQ(test, list_len(&list), 1);
	KUNIT_EXPECT_PTR_EQ(test, list_first_entry(&list, struct folio, lru),
			    dst.lock);
	expect_events(test, HPAGE_PMD_NR / 2 - 1, 1, 0, 0, 1);
	/* or nobody has locked it */
	KUNIT_ASSERT_NE(test, dst.nr_calls, 0);
	folio_unlock(dst.lock);

	dst = default_dst();
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	expect_events(test, 1, 0, 0, 0, 0);
	expect_moved(test, 0, shape_alternate, &dst);
	expect_not_isolated(test);
}

static void expect_whole_moves(struct kunit *test, struct list_head *list)
{
	struct dst dst = default_dst();

	KUNIT_EXPECT_EQ(test, migrate(test, list, &dst), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_moved(test, 0, shape_whole, &dst);
	expect_not_isolated(test);
}

/* With a pin on the page at @addr a whole THP stays as it is; without, it moves. */
static void expect_pin_keeps(struct kunit *test, struct folio *folio,
			     unsigned long addr)
{
	struct dst dst = default_dst();
	struct page *page;
	LIST_HEAD(list);

	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(addr, 1, FOLL_WRITE, &page), 1);
	isolate(test, folio, &list);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	KUNIT_EXPECT_EQ(test, list_len(&list), 1);
	expect_events(test, 0, HPAGE_PMD_NR, 0, 1, 0);
	expect_stayed(test, 0, shape_whole, HPAGE_PMD_ORDER);
	unpin_user_page(page);
	expect_whole_moves(test, &list);
}

/*
 * A whole THP with a pin cannot be unmapped, which is no reason to split it or to give
 * up on others.  Stock passes.
 */
static void whole_is_pinned(struct kunit *test)
{
	expect_pin_keeps(test, thp_make(test, 0), thp_addr(test, 0));
}

/*
 * A whole THP with a pin on a page in its middle cannot be unmapped, either.  Its
 * first half is not exclusive, as after a fork(), and has given way to migration
 * entries by then: those are taken back.  Stock passes.
 */
static void whole_is_pinned_in_the_middle(struct kunit *test)
{
	unsigned long addr = thp_addr(test, 0);
	struct mm_struct *mm = current->mm;
	struct folio *folio;
	spinlock_t *ptl;	/* of the PTEs */
	pte_t *pte;
	int i;

	folio = thp_make_pte_mapped(test, 0);
	pte = thp_ptes(test, 0, &ptl);
	spin_lock(ptl);
	for (i = 0; i < HPAGE_PMD_NR / 2; i++) {
		ptep_set_wrprotect(mm, addr + i * PAGE_SIZE, pte + i);
		ClearPageAnonExclusive(folio_page(folio, i));
	}
	spin_unlock(ptl);
	flush_tlb_mm(mm);

	expect_pin_keeps(test, folio, addr + HPAGE_PMD_SIZE / 2);
}
#ifdef HAVE_FOLIO_RMAP

static void probe_tlb_flush(void *data, int reason, unsigned long pages)
{
	struct late_reference *late = data;

	if (current == late->task && late->folio &&
	    !try_grab_folio(late->folio, 1, FOLL_PIN))
		late->folio = NULL;
}

DEFINE_PROBE(tlb_flush)

/*
 * A whole THP is pinned while the TLB is flushed for what has been unmapped.  That is
 * mapped again as it was.  Stock passes.
 */
static void whole_is_pinned_late(struct kunit *test)
{
	struct folio *folio = thp_make_pte_mapped(test, 0);
	struct dst dst = default_dst();
	unsigned int i, other = 0;
	struct late_reference *late;
	spinlock_t *ptl;	/* of the PTEs */
	pte_t *pte, *before;
	LIST_HEAD(list);

	late = kunit_kzalloc(test, sizeof(*late), GFP_KERNEL);
	before = kunit_kcalloc(test, HPAGE_PMD_NR, sizeof(*before), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, late);
	KUNIT_ASSERT_NOT_NULL(test, before);
	isolate(test, folio, &list);
	pte = thp_ptes(test, 0, &ptl);
	spin_lock(ptl);
	for (i = 0; i < HPAGE_PMD_NR; i++) {
		before[i] = pte_clear_soft_dirty(ptep_get(pte + i));
		set_pte_at(current->mm, thp_addr(test, 0) + i * PAGE_SIZE, pte + i,
			   before[i]);
	}
	spin_unlock(ptl);

	/* To register a probe flushes the TLB, too. */
	hold_tlb_flush(test, late);
	*late = (struct late_reference) { .task = current, .folio = folio };
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	drop_tlb_flush(test, late);
	KUNIT_EXPECT_NULL(test, late->folio);

	spin_lock(ptl);
	for (i = 0; i < HPAGE_PMD_NR; i++)
		other += !pte_same(before[i], ptep_get(pte + i)) ||
			 !PageAnonExclusive(folio_page(folio, i));
	spin_unlock(ptl);
	KUNIT_EXPECT_EQ_MSG(test, other, 0, "pages are mapped in another way");
	expect_events(test, 0, HPAGE_PMD_NR, 0, 1, 0);
	expect_stayed(test, 0, shape_whole, HPAGE_PMD_ORDER);
	if (!late->folio)
		unpin_user_page(&folio->page);
	expect_whole_moves(test, &list);
}
#endif

/*
 * A list of all sorts: a whole THP, one to be split, one that cannot be, and one more
 * to be split.  Only the one comes back.
 */
static void mixed_list(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = default_dst();
	struct folio *pinned;
	LIST_HEAD(list);

	isolate(test, thp_make(test, 1), &list);
	isolate(test, thp_make_partial(test, 2, shape_alternate), &list);
	pinned = thp_make_partial(test, 0, shape_half);
	isolate(test, pinned, &list);
	isolate(test, thp_make_partial(test, 3, shape_one), &list);

	folio_get(pinned);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	KUNIT_EXPECT_EQ(test, list_len(&list), 1);
	KUNIT_EXPECT_PTR_EQ(test, list_first_entry(&list, struct folio, lru),
			    pinned);
	expect_events(test, HPAGE_PMD_NR + HPAGE_PMD_NR / 2 + 1, HPAGE_PMD_NR,
		      1, 1, 2);
	expect_moved(test, 1, shape_whole, &dst);
	expect_moved(test, 2, shape_alternate, &dst);
	expect_moved(test, 3, shape_one, &dst);
	folio_put(pinned);

	expect_migrates_now(test, &list, &dst, c->mode);
}

/* Four folios side by side; on kernels that migrate in batches, they make one batch */
#ifdef HAVE_SPLIT_TO_ORDER
#define BATCH_ORDER	(HPAGE_PMD_ORDER - 2)

static void batch_make(struct kunit *test)
{
	thp_make_split(test, 0, BATCH_ORDER);
}
#else
#define BATCH_ORDER	HPAGE_PMD_ORDER

static void batch_make(struct kunit *test)
{
	int i;

	for (i = 0; i < 4; i++)
		thp_make(test, i);
}
#endif

/*
 * Four folios, in one batch where there are batches.  One is split.  Two fail for good:
 * one that is partially mapped, and one that is not.  One is tried again to the end.
 * Each is counted once, and nothing but the pieces moves.
 */
static void failures_in_a_batch(struct kunit *test)
{
	const unsigned long size = PAGE_SIZE << BATCH_ORDER;
	unsigned long addr = thp_addr(test, 0), nr = size / PAGE_SIZE;
	bool thp = size == HPAGE_PMD_SIZE;
	struct dst dst = default_dst();
	struct folio *folio[4];
	LIST_HEAD(list);
	int i;

	batch_make(test);
	for (i = 0; i < 4; i++) {
		folio[i] = folio_at(test, addr + i * size);
		if (i != 3)
			advise(test, addr + i * size + size / 2, size / 2,
			       MADV_DONTNEED);
		isolate(test, folio[i], &list);
	}
	hold_writeback(test, folio[1]);
	folio_get(folio[2]);
	hold_writeback(test, folio[3]);

	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 3);
	KUNIT_EXPECT_EQ(test, list_len(&list), 3);
	expect_events(test, nr / 2, 3 * nr, 0, thp ? 3 : 0, thp ? 1 : 0);
	KUNIT_EXPECT_EQ(test, folio_nid(folio_at(test, addr)), dst.nid);
	KUNIT_EXPECT_PTR_NE(test, folio_at(test, addr), folio[0]);
	for (i = 1; i < 4; i++)
		KUNIT_EXPECT_PTR_EQ(test, folio_at(test, addr + i * size), folio[i]);

	drop_writeback(test, folio[1]);
	folio_put(folio[2]);
	drop_writeback(test, folio[3]);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, 2 * nr, 0, thp ? 1 : 0, 0, thp ? 2 : 0);
	for (i = 0; i < 4; i++)
		expect_tokens(test, addr + i * size,
			      addr + i * size + (i == 3 ? size : size / 2));
	expect_not_isolated(test);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(split_fails_on_reference, mode_gen_params),
	KUNIT_CASE_PARAM(split_fails_on_late_reference, mode_gen_params),
	KUNIT_CASE_PARAM(split_fails_on_shrinker_list, mode_gen_params),
	KUNIT_CASE(split_fails_on_lock),
	KUNIT_CASE_PARAM(split_fails_on_lock_sync, sync_mode_gen_params),
	KUNIT_CASE(split_fails_on_writeback),
	KUNIT_CASE_PARAM(split_waits_for_lock, sync_mode_gen_params),
	KUNIT_CASE(split_waits_for_writeback),
	KUNIT_CASE_PARAM(no_destination, mode_gen_params),
	KUNIT_CASE_PARAM(destinations_run_out, mode_gen_params),
	KUNIT_CASE_PARAM(no_large_destination, mode_gen_params),
	KUNIT_CASE_PARAM(piece_fails, mode_gen_params),
	KUNIT_CASE(piece_gets_all_passes),
	KUNIT_CASE_PARAM(whole_is_pinned, mode_gen_params),
	KUNIT_CASE_PARAM(whole_is_pinned_in_the_middle, mode_gen_params),
#ifdef HAVE_FOLIO_RMAP
	KUNIT_CASE_PARAM(whole_is_pinned_late, sync_mode_gen_params),
#endif
	KUNIT_CASE_PARAM(mixed_list, mode_gen_params),
	KUNIT_CASE(failures_in_a_batch),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
