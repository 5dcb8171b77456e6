// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the migration of folios that wait to be split: locks, mappings and
 * writeback that somebody holds, and locks that are watched.  frame.h describes them.
 */
#include <linux/kthread.h>
#include <linux/workqueue.h>

#ifdef CONFIG_LOCKDEP
#include <trace/events/lock.h>
#endif

#include "frame.h"

struct other_lock {
	struct work_struct work;
	struct folio *folio;
	struct mm_struct *mm;
	unsigned long unmap;
	unsigned int locked;
	bool waited;
};

/* How many other folios are locked, of what is or was one THP? */
static unsigned int nr_locked_beside(struct folio *folio)
{
	unsigned long pfn = ALIGN_DOWN(folio_pfn(folio), HPAGE_PMD_NR), end;
	unsigned int nr = 0;

	for (end = pfn + HPAGE_PMD_NR; pfn < end; pfn++)
		nr += pfn_folio(pfn) != folio && folio_test_locked(pfn_folio(pfn));
	return nr;
}

/* Anybody can wait: look at the flag, not at who. */
static void other_unlocks(struct work_struct *work)
{
	struct other_lock *other = container_of(work, struct other_lock, work);
	int i;

	for (i = 0; i < 10 * HZ && !folio_test_waiters(other->folio); i++)
		schedule_timeout_idle(1);
	other->waited = folio_test_waiters(other->folio);
	other->locked = nr_locked_beside(other->folio);
	if (other->unmap) {
		kthread_use_mm(other->mm);
		do_madvise(other->mm, other->unmap, HPAGE_PMD_SIZE, MADV_DONTNEED);
		kthread_unuse_mm(other->mm);
	}
	folio_unlock(other->folio);
}

static void other_is_done(void *data)
{
	struct other_lock *other = data;

	flush_work(&other->work);
}

struct other_lock *other_ready(struct kunit *test, struct folio *folio,
			       unsigned long unmap)
{
	struct other_lock *other = kunit_kzalloc(test, sizeof(*other), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, other);
	other->folio = folio;
	other->mm = current->mm;
	other->unmap = unmap;
	INIT_WORK(&other->work, other_unlocks);
	at_end(test, other_is_done, other);
	return other;
}

void other_locks_now(struct other_lock *other)
{
	folio_lock(other->folio);
	schedule_work(&other->work);
}

struct other_lock *other_locks(struct kunit *test, struct folio *folio,
			       unsigned long unmap)
{
	struct other_lock *other = other_ready(test, folio, unmap);

	other_locks_now(other);
	return other;
}

void expect_waited(struct kunit *test, struct other_lock *other)
{
	kunit_release_action(test, other_is_done, other);
	KUNIT_EXPECT_TRUE_MSG(test, other->waited, "nobody waited for the lock");
	KUNIT_EXPECT_EQ_MSG(test, other->locked, 0, "waits with other folios locked");
}

static void unlock(void *folio)
{
	folio_unlock(folio);
}

void hold_lock(struct kunit *test, struct folio *folio)
{
	folio_lock(folio);
	at_end(test, unlock, folio);
}

void drop_lock(struct kunit *test, struct folio *folio)
{
	kunit_release_action(test, unlock, folio);
}

static void map_again(void *folio)
{
	remove_migration_ptes(folio, folio, 0);
	folio_unlock(folio);
	folio_put(folio);
}

void hold_unmapped(struct kunit *test, struct folio *folio, enum ttu_flags flags)
{
	folio_get(folio);
	folio_lock(folio);
	try_to_migrate(folio, flags);
	at_end(test, map_again, folio);
}

void drop_unmapped(struct kunit *test, struct folio *folio)
{
	kunit_release_action(test, map_again, folio);
}

static void end_writeback(void *folio)
{
	folio_end_writeback(folio);
}

void hold_writeback(struct kunit *test, struct folio *folio)
{
#ifdef HAVE_API_2026
	/* Locked, as reclaim does: the kernel checks the lock. */
	folio_lock(folio);
	folio_start_writeback(folio);
	folio_unlock(folio);
#else
	folio_start_writeback(folio);
#endif
	at_end(test, end_writeback, folio);
}

void drop_writeback(struct kunit *test, struct folio *folio)
{
	kunit_release_action(test, end_writeback, folio);
}

#ifdef CONFIG_LOCKDEP
static struct lock_watch lock_watch;

static void probe_lock_acquire(void *data, struct lockdep_map *lock,
			       unsigned int subclass, int trylock, int read, int check,
			       struct lockdep_map *next_lock, unsigned long ip)
{
	if (current == READ_ONCE(lock_watch.task) && lock == lock_watch.lock)
		lock_watch.acquire(lock_watch.data);
}

static void probe_lock_release(void *data, struct lockdep_map *lock, unsigned long ip)
{
	if (current == READ_ONCE(lock_watch.task) && lock == lock_watch.lock &&
	    lock_watch.release)
		lock_watch.release(lock_watch.data);
}

static void undo_watch_lock(void *data)
{
	WRITE_ONCE(lock_watch.task, NULL);
}

void watch_lock(struct kunit *test, const struct lock_watch *watch)
{
	lock_watch = *watch;
	WRITE_ONCE(lock_watch.task, current);
	at_end(test, undo_watch_lock, NULL);
}

void unwatch_lock(struct kunit *test)
{
	kunit_release_action(test, undo_watch_lock, NULL);
}

/*
 * lock_acquire() and lock_release() are patched while there is one CPU: others, of an
 * emulator with threads, may meet the breakpoint when the kernel has forgotten it, and
 * these two are what its handler calls.  Hence the probes stay: to take them out would
 * patch the two again.
 */
static int __init probe_locks(void)
{
	if (!kunit_enabled())
		return 0;
	return register_trace_lock_acquire(probe_lock_acquire, NULL) ?:
	       register_trace_lock_release(probe_lock_release, NULL);
}
early_initcall(probe_locks);
#endif
