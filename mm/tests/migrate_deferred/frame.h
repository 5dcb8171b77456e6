/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of the KUnit suite migrate_deferred share: see frame.c.
 *
 * Names say what they are about: thp_*() make and address THPs, expect_*() check,
 * hold_*() and drop_*() are undone at the end of the test if an assertion ends it
 * in between.
 */
#ifndef _MIGRATE_DEFERRED_FRAME_H
#define _MIGRATE_DEFERRED_FRAME_H

#include <kunit/test.h>
#include <kunit/resource.h>
#include <linux/init.h>
#ifdef HAVE_QUEUE_IS_LIST_LRU
#include <linux/list_lru.h>
#endif
#include <linux/memcontrol.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/tracepoint.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>

#include "../../internal.h"
#if !defined(HAVE_KUNIT_ACTION) || !defined(HAVE_FOLIO_RMAP)
#include "compat.h"
#endif

/* What each test has room for */
#define MAX_THPS	4

/* The first @len of every @period pages of a THP stay mapped. */
struct shape {
	const char *desc;
	unsigned int period, len;
};

extern const struct shape shape_whole, shape_half, shape_one;
/* Pieces of order 0 only, on every kernel */
extern const struct shape shape_alternate;
extern const struct shape shape_blocks;

/* What the destinations of one migrate_pages() call are to be, and were */
struct dst {
	int nid;
	enum migrate_reason reason;
	int refuse_from;	/* refuse from this call on; -1: none */
	unsigned int max_order;	/* refuse larger ones */
	int nr_pages;		/* given */
	int nr_calls;
	struct folio *lock;	/* a piece that the first call finds locked */
	struct folio *pin;	/* a piece that the first call finds pinned */
	struct other_lock *other;	/* a piece that somebody else has locked then */
	int nr_calls_lock;	/* calls for the locked piece */
	int zap_call;		/* the call that zaps zap_len bytes at zap_addr; -1: none */
	unsigned long zap_addr, zap_len;
};

/* What the test found when it began: test->priv */
struct ctx {
	unsigned long addr;
	unsigned long pfn[MAX_THPS];	/* where each THP is, or was before */
	unsigned long events[NR_VM_EVENT_ITEMS];
	long isolated, partially_mapped;
};

struct mode_case {
	const char *desc;
	enum migrate_mode mode;
};

/**
 * migrate_cases_add - Add the cases of a file to the suite migrate_deferred.
 * @cases: The cases, which are copied.  One without a function ends them.
 *
 * Context: An initcall, as it is __init.
 * Return: 0, or -ENOSPC if the suite has no room for all of them.  The initcall of
 * the file returns it.
 */
int migrate_cases_add(struct kunit_case *cases);

#ifdef HAVE_API_2026
/**
 * mode_gen_params - Have a case run in each mode.
 * @test: The test, which is not looked at.
 * @prev: The struct mode_case before, or NULL for the first one.
 * @desc: Where the name of the mode goes: KUNIT_PARAM_DESC_SIZE bytes.
 *
 * It is for KUNIT_CASE_PARAM().  test->param_value is then a struct mode_case.
 *
 * Return: the next struct mode_case, or NULL behind the last one.
 */
const void *mode_gen_params(struct kunit *test, const void *prev, char *desc);

/**
 * sync_mode_gen_params - Have a case run in each mode that waits.
 * @test: The test, which is not looked at.
 * @prev: The struct mode_case before, or NULL for the first one.
 * @desc: Where the name of the mode goes: KUNIT_PARAM_DESC_SIZE bytes.
 *
 * It is for KUNIT_CASE_PARAM().  test->param_value is then a struct mode_case.
 *
 * Return: the next struct mode_case, or NULL behind the last one.
 */
const void *sync_mode_gen_params(struct kunit *test, const void *prev, char *desc);
#else
const void *mode_gen_params(const void *prev, char *desc);
const void *sync_mode_gen_params(const void *prev, char *desc);
#endif

struct dst default_dst(void);
int migrate_mode(struct list_head *list, struct dst *dst,
		 enum migrate_mode mode, unsigned int *succeeded);

struct folio *folio_at(struct kunit *test, unsigned long addr);
struct folio *thp_make(struct kunit *test, int thp);
struct folio *thp_make_pte_mapped(struct kunit *test, int thp);
struct folio *thp_make_partial(struct kunit *test, int thp, struct shape shape);
#ifdef HAVE_SPLIT_TO_ORDER
void thp_make_split(struct kunit *test, int thp, unsigned int order);
#endif
void isolate(struct kunit *test, struct folio *folio, struct list_head *list);
#ifdef HAVE_MTHP_STATS

long nr_mthp(unsigned int order, enum mthp_stat_item item);
long nr_partially_mapped(void);
#endif

unsigned int order_wanted(struct shape shape, unsigned int i);
void expect_events(struct kunit *test, long success, long fail,
		   long thp_success, long thp_fail, long thp_split);
void expect_moved(struct kunit *test, int thp, struct shape shape, struct dst *dst);
void expect_moved_in(struct kunit *test, int thp, struct shape shape,
		     struct dst *dst, unsigned int order);
void expect_stayed(struct kunit *test, int thp, struct shape shape,
		   unsigned int order);
void expect_order(struct kunit *test, int thp, unsigned int page, int nid,
		  unsigned int order);
void expect_tokens(struct kunit *test, unsigned long addr, unsigned long end);
void expect_not_isolated(struct kunit *test);

pte_t *thp_ptes(struct kunit *test, int thp, spinlock_t **ptl);

/**
 * hold_lock - Lock a folio until drop_lock(), or until the test ends.
 * @test: The test.
 * @folio: The folio.
 *
 * Context: Sleeps until it has the folio lock, and returns with it held.
 */
void hold_lock(struct kunit *test, struct folio *folio);

/**
 * drop_lock - Unlock a folio that hold_lock() has locked.
 * @test: The test.
 * @folio: The folio.
 */
void drop_lock(struct kunit *test, struct folio *folio);

/**
 * hold_unmapped - Put migration entries in place of the mappings of a folio.
 * @test: The test.
 * @folio: The folio.
 * @flags: For try_to_migrate().
 *
 * They stay until drop_unmapped(), or until the test ends.  Nobody looks whether all
 * mappings were replaced.
 *
 * Context: May sleep.  Returns with the folio locked, and with a reference on it.
 */
void hold_unmapped(struct kunit *test, struct folio *folio, enum ttu_flags flags);

/**
 * drop_unmapped - Map a folio again that hold_unmapped() has unmapped.
 * @test: The test.
 * @folio: The folio.
 *
 * Context: May sleep.  Drops the folio lock and the reference.
 */
void drop_unmapped(struct kunit *test, struct folio *folio);

/**
 * hold_writeback - Have a folio under writeback until drop_writeback().
 * @test: The test.
 * @folio: The folio.
 *
 * It also ends with the test.
 *
 * Context: The caller does not hold the folio lock.  It is taken meanwhile, with
 * newer kernels.
 */
void hold_writeback(struct kunit *test, struct folio *folio);

/**
 * drop_writeback - End the writeback of a folio that hold_writeback() has begun.
 * @test: The test.
 * @folio: The folio.
 */
void drop_writeback(struct kunit *test, struct folio *folio);

/* Somebody else has a folio locked until somebody waits for that. */
struct other_lock;

/**
 * other_ready - Get ready to have a folio locked by somebody else.
 * @test: The test.
 * @folio: The folio.
 * @unmap: Address of a THP that is unmapped before the folio is unlocked, or 0.
 *
 * If it is the @other of a struct dst, the folio is locked when migrate_mode() asks
 * for its first destination.  It is unlocked as soon as somebody waits for the lock,
 * or after 10 seconds.
 *
 * Context: May sleep.
 * Return: what expect_waited() takes.  Without memory the test ends.
 */
struct other_lock *other_ready(struct kunit *test, struct folio *folio,
			       unsigned long unmap);

/**
 * other_locks - Have a folio locked by somebody else, now.
 * @test: The test.
 * @folio: The folio.
 * @unmap: Address of a THP that is unmapped before the folio is unlocked, or 0.
 *
 * It is unlocked as soon as somebody waits for the lock, or after 10 seconds.
 *
 * Context: May sleep.  Takes the folio lock; a workqueue drops it.
 * Return: what expect_waited() takes.  Without memory the test ends.
 */
struct other_lock *other_locks(struct kunit *test, struct folio *folio,
			       unsigned long unmap);

/**
 * other_locks_now - Have the folio of other_ready() locked.
 * @other: What other_ready() returned.
 *
 * Context: the folio is not locked.
 */
void other_locks_now(struct other_lock *other);

/**
 * expect_waited - Expect that somebody waited for the lock, and held no other of that THP.
 * @test: The test.
 * @other: What other_ready() or other_locks() returned.
 *
 * Context: Sleeps until the folio is unlocked.
 */
void expect_waited(struct kunit *test, struct other_lock *other);

/* To be done when the test ends, or at kunit_release_action() */
static inline void at_end(struct kunit *test, void (*func)(void *ctx), void *ctx)
{
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, func, ctx), 0);
}

/*
 * hold_<event>() calls probe_<event>() at each event, with a pointer of the test's, which
 * has to outlive its thread: kunit_kzalloc().  drop_<event>() ends that.
 */
#define DEFINE_PROBE(event)						\
static void undo_##event(void *data)					\
{									\
	unregister_trace_##event(probe_##event, data);			\
	tracepoint_synchronize_unregister();				\
}									\
									\
static void hold_##event(struct kunit *test, void *data)		\
{									\
	KUNIT_ASSERT_EQ(test, register_trace_##event(probe_##event, data), 0); \
	at_end(test, undo_##event, data);				\
}									\
									\
static void drop_##event(struct kunit *test, void *data)		\
{									\
	kunit_release_action(test, undo_##event, data);			\
}

#ifdef CONFIG_LOCKDEP
/* What is called, with @data, each time that @task takes or drops @lock */
struct lock_watch {
	struct task_struct *task;
	struct lockdep_map *lock;
	void (*acquire)(void *data);	/* before it is taken */
	void (*release)(void *data);	/* while it is still held, or NULL */
	void *data;
};

/**
 * watch_lock - Watch a lock until unwatch_lock(), or until the test ends.
 * @test: The test.
 * @watch: The lock, and what is called.  It is copied, and the caller becomes its
 * task.
 *
 * One lock can be watched at a time.  Only the task that is watched reads more than
 * the task, and it is the caller: nothing has to be locked.
 */
void watch_lock(struct kunit *test, const struct lock_watch *watch);

/**
 * unwatch_lock - Do not watch the lock of watch_lock() any more.
 * @test: The test.
 */
void unwatch_lock(struct kunit *test);
#endif

static inline struct list_head *deferred_list(struct folio *folio)
{
#ifdef HAVE_FOLIO_RMAP
	return &folio->_deferred_list;
#else
	return page_deferred_list(&folio->page);
#endif
}

#ifdef HAVE_QUEUE_IS_LIST_LRU
/* The queue that @folio is on, or would be */
static inline struct list_lru_one *queue_lock(struct folio *folio)
{
	struct mem_cgroup *memcg;
	struct list_lru_one *queue;

	rcu_read_lock();
	memcg = folio_memcg(folio);
	queue = list_lru_lock_irq(&deferred_split_lru, folio_nid(folio), &memcg);
	rcu_read_unlock();
	return queue;
}

static inline void queue_unlock(struct list_lru_one *queue)
{
	list_lru_unlock_irq(queue);
}
#else
static inline struct deferred_split *split_queue_of(struct folio *folio)
{
#ifdef CONFIG_MEMCG
	if (folio_memcg(folio))
		return &folio_memcg(folio)->deferred_split_queue;
#endif
	return &NODE_DATA(folio_nid(folio))->deferred_split_queue;
}
#endif

#ifdef CONFIG_LOCKDEP
static inline struct lockdep_map *queue_lockdep_map(struct folio *folio)
{
#ifdef HAVE_QUEUE_IS_LIST_LRU
	struct list_lru_one *queue = queue_lock(folio);

	queue_unlock(queue);
	return &queue->lock.dep_map;
#else
	return &split_queue_of(folio)->split_queue_lock.dep_map;
#endif
}
#endif

static inline unsigned long thp_addr(struct kunit *test, int thp)
{
	struct ctx *ctx = test->priv;

	return ctx->addr + thp * HPAGE_PMD_SIZE;
}

/* What thp_make() writes into the page at @addr */
static inline unsigned long page_token(unsigned long addr)
{
	return addr ^ 0x5a5a5a5a5a5a5a5aUL;
}

static inline unsigned long __user *user_word(unsigned long addr)
{
	return (unsigned long __user *)addr;
}

/* Does not end the test if it fails: folios may be locked. */
static inline void advise(struct kunit *test, unsigned long addr, size_t len,
			  int advice)
{
	KUNIT_EXPECT_EQ(test, do_madvise(current->mm, addr, len, advice), 0);
}

static inline bool page_mapped_in(struct shape shape, unsigned int i)
{
	return i % shape.period < shape.len;
}

static inline unsigned int nr_mapped_in(struct shape shape)
{
	return HPAGE_PMD_NR / shape.period * shape.len;
}

/* Not all versions of 6.1 have list_count_nodes(). */
static inline int list_len(struct list_head *list)
{
	struct list_head *pos;
	int n = 0;

	list_for_each(pos, list)
		n++;
	return n;
}

/* migrate_pages() in the mode that the case is run for */
static inline int migrate(struct kunit *test, struct list_head *list,
			  struct dst *dst)
{
	const struct mode_case *c = test->param_value;

	return migrate_mode(list, dst, c->mode, NULL);
}

/*
 * What migrate_pages() returns if there is no destination for @nr pieces of order 0,
 * and how many it counts as failed.
 */
static inline int nomem_rc(int nr)
{
#ifdef HAVE_NOMEM_IS_COUNTED
	return nr;
#else
	return -ENOMEM;
#endif
}

static inline int nomem_fails(int nr)
{
	return nomem_rc(nr) < 0 ? 1 : nr;
}

#endif /* _MIGRATE_DEFERRED_FRAME_H */
