// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the migration of folios that wait to be split.
 *
 * When part of a large anonymous folio is unmapped, the folio is put on the
 * deferred split queue.  migrate_pages() has to find it there, split it, free
 * what nobody maps and migrate the rest, or else fail the migration of that
 * folio; and it must tell its caller and vmstat the truth about it.
 *
 * migrate_deferred_check: the look at the queue.  Each case builds a folio that
 *	looks queued in all respects but the one it is about.
 * migrate_deferred: migrate_pages() on real folios mapped by an mm of the
 *	test's own, in each mode.  Failures are provoked by a reference held, a
 *	folio lock held, the folio put where deferred_split_scan() would have
 *	it, or a destination refused, in each case from get_new_folio() or
 *	around migrate_pages(): no timing is involved, but in
 *	written_while_looked_at.
 */
#include <kunit/test.h>
#include <linux/delay.h>
#include <linux/hugetlb.h>
#include <linux/khugepaged.h>
#include <linux/kthread.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/prandom.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/shmem_fs.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/vmstat.h>
#include <trace/events/migrate.h>
#include <trace/events/migrate_split.h>

#include "../internal.h"
#ifndef HAVE_KUNIT_ACTION
#include "migrate_deferred_compat.h"
#endif
#ifdef HAVE_API_2026
#include "../vma.h"

#define PAGE_MAPPING_ANON	FOLIO_MAPPING_ANON
#endif

#define MAX_THPS	4

static struct list_head *deferred_list(struct folio *folio)
{
#ifndef HAVE_FOLIO_RMAP
	return page_deferred_list(&folio->page);
#else
	return &folio->_deferred_list;
#endif
}

#ifdef HAVE_QUEUE_IS_LIST_LRU
static struct list_lru_one *queue_lock(struct folio *folio)
{
	struct mem_cgroup *memcg;
	struct list_lru_one *queue;

	rcu_read_lock();
	memcg = folio_memcg(folio);
	queue = list_lru_lock_irq(&deferred_split_lru, folio_nid(folio), &memcg);
	rcu_read_unlock();
	return queue;
}

static void queue_unlock(struct list_lru_one *queue)
{
	list_lru_unlock_irq(queue);
}
#else
static struct deferred_split *split_queue_of(struct folio *folio)
{
#ifdef CONFIG_MEMCG
	if (folio_memcg(folio))
		return &folio_memcg(folio)->deferred_split_queue;
#endif
	return &NODE_DATA(folio_nid(folio))->deferred_split_queue;
}
#endif

/* --- migrate_deferred_check ---------------------------------------------- */

struct check_case {
	const char *desc;
	unsigned int order;
	bool anon;
	bool hugetlb;
	bool queued;
	bool partially_mapped;
	bool deferred;
};

static const struct check_case check_cases[] = {
	/* What migration has to split */
	{
		.desc = "queued, PMD order",
		.order = HPAGE_PMD_ORDER, .anon = true,
		.queued = true, .partially_mapped = true,
		.deferred = true,
	}, {
		.desc = "queued, smallest order",
		.order = 2, .anon = true,
		.queued = true, .partially_mapped = true,
		.deferred = true,
	},
	/* What it leaves alone */
	{
		.desc = "not queued",
		.order = HPAGE_PMD_ORDER, .anon = true,
	}, {
		.desc = "marked, not queued",
		.order = HPAGE_PMD_ORDER, .anon = true,
		.partially_mapped = true,
#ifdef HAVE_QUEUE_IS_LIST_LRU
		/* The shrinker has it in hand, where it is on no list. */
		.deferred = true,
#endif
#ifdef HAVE_MARK
	}, {
		.desc = "queued as underused",
		.order = HPAGE_PMD_ORDER, .anon = true,
		.queued = true,
#endif
	},
	/* What has no _deferred_list to look at */
	{
		.desc = "file folio",
		.order = HPAGE_PMD_ORDER,
		.queued = true, .partially_mapped = true,
	}, {
		.desc = "order-1 folio",
		.order = 1, .anon = true,
		.queued = true, .partially_mapped = true,
	}, {
		.desc = "hugetlb folio",
		.order = HPAGE_PMD_ORDER, .anon = true, .hugetlb = true,
		.queued = true, .partially_mapped = true,
	},
};

static void check_desc(const struct check_case *c, char *desc)
{
	strscpy(desc, c->desc, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(check, check_cases, check_desc);

static void check_deferred(struct kunit *test)
{
	const struct check_case *c = test->param_value;
	/* An order-1 folio gets the memory behind it to be misread, too. */
	unsigned int order = max(c->order, 2U);
	static struct address_space mapping;
	struct folio *folio;
	LIST_HEAD(queue);
	bool deferred;

	folio = folio_alloc(GFP_KERNEL, order);
	KUNIT_ASSERT_NOT_NULL(test, folio);

	folio->mapping = (void *)&mapping + (c->anon ? PAGE_MAPPING_ANON : 0);
	if (c->queued)
		list_add(deferred_list(folio), &queue);
	if (c->partially_mapped)
		folio_set_partially_mapped(folio);
	if (c->order != order)
		folio_set_order(folio, c->order);
	if (c->hugetlb) {
		folio_clear_large_rmappable(folio);
		__folio_set_hugetlb(folio);
	}

	deferred = folio_split_deferred(folio);

	if (c->hugetlb) {
		__folio_clear_hugetlb(folio);
		folio_set_large_rmappable(folio);
	}
	if (c->order != order)
		folio_set_order(folio, order);

	KUNIT_EXPECT_EQ_MSG(test, deferred, c->deferred, "%s", c->desc);
	KUNIT_EXPECT_EQ_MSG(test, list_is_singular(&queue), c->queued,
			    "%s: was taken off its list", c->desc);
	KUNIT_EXPECT_EQ_MSG(test, folio_ref_count(folio), 1, "%s", c->desc);

	list_del_init(deferred_list(folio));
	folio_clear_partially_mapped(folio);
	folio->mapping = NULL;
	folio_put(folio);
}

static struct kunit_case check_test_cases[] = {
	KUNIT_CASE_PARAM(check_deferred, check_gen_params),
	{}
};

static struct kunit_suite check_suite = {
	.name = "migrate_deferred_check",
	.test_cases = check_test_cases,
};

#ifndef HAVE_SPLIT_TO_ORDER
/* --- migrate_deferred_mapped --------------------------------------------- */

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
#else
/* --- migrate_deferred_plan ----------------------------------------------- */

/*
 * The pieces that a folio is to be split into, against an oracle that finds them
 * another way.
 */

/* What is known of each page, and the plan that is made of it */
struct plan {
	DECLARE_BITMAP(unmapped, 512);
	DECLARE_BITMAP(data, 512);
	DECLARE_BITMAP(border, 512);
	DECLARE_BITMAP(starts, 512);
	/* the oracle's */
	DECLARE_BITMAP(wanted, 512);
	DECLARE_BITMAP(stay, 512);
	unsigned int order, max_none;
};

/*
 * The best pieces for a block of 2^@order pages at @start, found by recursion: the
 * block itself if it can stay or go as a whole, else those of its halves.
 */
static void plan_oracle(struct plan *plan, unsigned int start,
			unsigned int order)
{
	unsigned int i, zeroes = 0, nr_data = 0, nr = 1 << order;
	bool fits = order != 1 && order < plan->order, whole = true;

	for (i = start; i < start + nr; i++) {
		if (test_bit(i, plan->unmapped))
			whole = false;
		else if (test_bit(i, plan->data))
			nr_data++;
		else
			zeroes++;
		if (i > start && test_bit(i, plan->border))
			whole = false;
	}
	if (2 * zeroes > nr || zeroes > plan->max_none / (512 / nr))
		whole = false;

	__set_bit(start, plan->wanted);
	if (fits && whole)
		bitmap_set(plan->stay, start, nr);
	if (fits && (whole || !nr_data))
		return;

	plan_oracle(plan, start, order - 1);
	plan_oracle(plan, start + nr / 2, order - 1);
}

static void expect_best_plan(struct kunit *test, struct plan *plan)
{
	struct folio_split_plan split = {
		.order = plan->order,
		.max_none = plan->max_none,
		.unmapped = plan->unmapped,
		.data = plan->data,
		.border = plan->border,
		.starts = plan->starts,
	};
	DECLARE_BITMAP(data, 512);

	bitmap_copy(data, plan->data, 512);
	plan_oracle(plan, 0, plan->order);
	folio_split_plan(&split);
	if (bitmap_equal(plan->starts, plan->wanted, 512) &&
	    bitmap_equal(plan->data, plan->stay, 512))
		return;
	kunit_err(test, "unmapped %*pbl, data %*pbl, border %*pbl", 512,
		  plan->unmapped, 512, data, 512, plan->border);
	KUNIT_FAIL(test, "order %u, max_none %u: starts %*pbl, wanted %*pbl",
		   plan->order, plan->max_none, 512, plan->starts, 512,
		   plan->wanted);
}

/* What an administrator can set max_ptes_none to, the default first */
static const unsigned int plan_max_none[] = { 511, 0, 64, 255 };

/*
 * C3, C11: all folios of order 2 and 3, each page unmapped, zero-filled or with data,
 * in one VMA, and with the border of one anywhere.
 */
static void plan_exhaustive(struct kunit *test)
{
	unsigned int order, border, none, map, m, i, nr, maps;

	for (order = 2, maps = 81; order <= 3; order++, maps *= 81) {
		nr = 1 << order;
		for (m = 0; m < maps * nr * ARRAY_SIZE(plan_max_none); m++) {
			struct plan plan = { .order = order };

			map = m % maps;
			border = m / maps % nr;
			none = m / maps / nr;
			plan.max_none = plan_max_none[none];
			__set_bit(border, plan.border);
			for (i = 0; i < nr; i++, map /= 3) {
				if (map % 3 == 0)
					__set_bit(i, plan.unmapped);
				else if (map % 3 == 1)
					__set_bit(i, plan.data);
			}
			expect_best_plan(test, &plan);
		}
	}
}

/* C3, C11: orders 4 to 9, by random runs of pages: from single ones to hundreds */
static void plan_random(struct kunit *test)
{
	const u64 seed = 20240312;
	struct rnd_state rnd;
	int i;

	prandom_seed_state(&rnd, seed);
	for (i = 0; i < 5000; i++) {
		struct plan plan = {
			.order = 9 - i % 6,
			.max_none = plan_max_none[i % 4],
		};
		unsigned int start = 0, len, run = 1 << i % 9;

		for (; start < 1 << plan.order; start += len) {
			len = prandom_u32_state(&rnd) % run + 1;
			len = min(len, (1 << plan.order) - start);
			switch (prandom_u32_state(&rnd) % (i & 1 ? 3 : 5)) {
			case 0:
				bitmap_set(plan.unmapped, start, len);
				break;
			case 1:
				break;
			default:
				bitmap_set(plan.data, start, len);
			}
			if (!(prandom_u32_state(&rnd) % 16))
				__set_bit(start, plan.border);
		}
		expect_best_plan(test, &plan);
	}
}

#ifndef HAVE_SPLIT_BY_STEPS
#ifdef CONFIG_MEMCG
static void no_release(struct percpu_ref *ref)
{
}

/* C7: each piece is charged to the memcg of the folio, and holds a reference */
static void plan_charges(struct kunit *test)
{
	DECLARE_BITMAP(starts, 16) = { 0x1f11 };
	struct mem_cgroup *memcg;
	struct percpu_ref *ref;
	struct folio *folio;
	int i, wrong = 0;
	long refs;

	memcg = kunit_kzalloc(test, sizeof(*memcg), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, memcg);
	ref = &memcg->css.refcnt;
	KUNIT_ASSERT_EQ(test, percpu_ref_init(ref, no_release,
					      PERCPU_REF_INIT_ATOMIC, GFP_KERNEL), 0);
	refs = atomic_long_read(&ref->data->count);
	folio = folio_alloc(GFP_KERNEL, 4);
	KUNIT_ASSERT_NOT_NULL(test, folio);

	/* Nobody's */
	split_folio_memcg(folio, starts, 16);
	for (i = 0; i < 16; i++)
		wrong += folio_page(folio, i)->memcg_data != 0;
	KUNIT_EXPECT_EQ(test, wrong, 0);

	folio->memcg_data = (unsigned long)memcg;
	split_folio_memcg(folio, starts, 16);
	for (i = 0; i < 16; i++) {
		wrong += folio_page(folio, i)->memcg_data !=
			 (test_bit(i, starts) ? (unsigned long)memcg : 0);
		folio_page(folio, i)->memcg_data = 0;
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&ref->data->count),
			refs + bitmap_weight(starts, 16) - 1);

	folio_put(folio);
	percpu_ref_exit(ref);
}

#endif
#endif
static struct kunit_case plan_test_cases[] = {
	KUNIT_CASE(plan_exhaustive),
	KUNIT_CASE(plan_random),
#ifndef HAVE_SPLIT_BY_STEPS
#ifdef CONFIG_MEMCG
	KUNIT_CASE(plan_charges),
#endif
#endif
	{}
};

static struct kunit_suite plan_suite = {
	.name = "migrate_deferred_plan",
	.test_cases = plan_test_cases,
};
#endif

/* --- migrate_deferred ---------------------------------------------------- */

/* Mapped are, of every @period pages of a THP, the first @len. */
struct shape {
	const char *desc;
	unsigned int period, len;
};

static const struct shape whole = { "whole", 1, 1 };
static const struct shape half = { "first half", HPAGE_PMD_NR, HPAGE_PMD_NR / 2 };
static const struct shape one = { "one page", HPAGE_PMD_NR, 1 };
/* Pieces of order 0 only, on every kernel */
static const struct shape alternate = { "alternate pages", 2, 1 };
static const struct shape blocks = { "every other 16 pages", 32, 16 };

/* What the destinations of one migrate_pages() call are to be, and were */
struct dst {
	int nid;
	int refuse_from;	/* refuse from this call on; -1: none */
	unsigned int max_order;	/* refuse larger ones */
	int nr_pages;		/* given */
	int nr_calls;
	struct folio *lock;	/* a piece that the first call finds locked */
	struct folio *pin;	/* a piece that the first call finds pinned */
	int nr_calls_lock;	/* calls for the locked piece */
	int zap_call;		/* the call that zaps zap_addr; -1: none */
	unsigned long zap_addr;
};

struct ctx {
	unsigned long addr;
	unsigned long events[NR_VM_EVENT_ITEMS];
	long isolated, partially_mapped;
};

static struct dst dst_init(void)
{
	int nid = next_online_node(0);

	return (struct dst) {
		.nid = nid == MAX_NUMNODES ? 0 : nid,
		.refuse_from = -1,
		.max_order = HPAGE_PMD_ORDER,
		.zap_call = -1,
	};
}

#ifndef HAVE_MIGRATE_FOLIO
static struct page *dst_get(struct page *page, unsigned long private)
{
	struct folio *src = page_folio(page);
#else
static struct folio *dst_get(struct folio *src, unsigned long private)
{
#endif
	struct dst *dst = (struct dst *)private;
	unsigned int order = folio_order(src);
	int call = dst->nr_calls++;
	struct folio *folio;

	if (!call && dst->lock)
		folio_lock(dst->lock);
	if (!call && dst->pin)
		folio_get(dst->pin);
	if (call == dst->zap_call)
		do_madvise(current->mm, dst->zap_addr, PAGE_SIZE, MADV_DONTNEED);
	if (src == dst->lock)
		dst->nr_calls_lock++;

	if (dst->refuse_from >= 0 && call >= dst->refuse_from)
		return NULL;
	if (order > dst->max_order)
		return NULL;

	folio = __folio_alloc_node(GFP_HIGHUSER_MOVABLE, order, dst->nid);
	if (folio)
		dst->nr_pages += 1 << order;
#ifndef HAVE_MIGRATE_FOLIO
	return &folio->page;
#else
	return folio;
#endif
}

#ifndef HAVE_MIGRATE_FOLIO
static void dst_put(struct page *page, unsigned long private)
{
	struct folio *folio = page_folio(page);
#else
static void dst_put(struct folio *folio, unsigned long private)
{
#endif
	struct dst *dst = (struct dst *)private;

	dst->nr_pages -= folio_nr_pages(folio);
	folio_put(folio);
}

/* Exact, unlike node_page_state() */
static long nr_isolated(void)
{
	struct pglist_data *pgdat;
	long nr = 0;
	int cpu;

	for_each_online_pgdat(pgdat) {
		nr += atomic_long_read(&pgdat->vm_stat[NR_ISOLATED_ANON]);
		for_each_online_cpu(cpu)
			nr += per_cpu_ptr(pgdat->per_cpu_nodestats,
					  cpu)->vm_node_stat_diff[NR_ISOLATED_ANON];
	}
	return nr;
}

#ifdef HAVE_MTHP_STATS
static long nr_mthp(unsigned int order, enum mthp_stat_item item)
{
	long nr = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		nr += per_cpu(mthp_stats, cpu).stats[order][item];
	return nr;
}

static long nr_partially_mapped(void)
{
	return nr_mthp(HPAGE_PMD_ORDER, MTHP_STAT_NR_ANON_PARTIALLY_MAPPED);
}

#endif
/* Expect these events, exactly, since the last isolate() or call of this */
static void expect_events(struct kunit *test, long success, long fail,
			  long thp_success, long thp_fail, long thp_split)
{
	const struct {
		enum vm_event_item item;
		const char *name;
		long nr;
	} want[] = {
		{ PGMIGRATE_SUCCESS, "pgmigrate_success", success },
		{ PGMIGRATE_FAIL, "pgmigrate_fail", fail },
		{ THP_MIGRATION_SUCCESS, "thp_migration_success", thp_success },
		{ THP_MIGRATION_FAIL, "thp_migration_fail", thp_fail },
		{ THP_MIGRATION_SPLIT, "thp_migration_split", thp_split },
	};
	struct ctx *ctx = test->priv;
	unsigned long *now;
	int i;

	now = kunit_kcalloc(test, NR_VM_EVENT_ITEMS, sizeof(*now), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, now);
	all_vm_events(now);

	for (i = 0; i < ARRAY_SIZE(want); i++)
		KUNIT_EXPECT_EQ_MSG(test, want[i].nr,
				    (long)(now[want[i].item] -
					   ctx->events[want[i].item]),
				    "%s", want[i].name);
	memcpy(ctx->events, now, sizeof(ctx->events));
}

static unsigned long thp_addr(struct kunit *test, int thp)
{
	struct ctx *ctx = test->priv;

	return ctx->addr + thp * HPAGE_PMD_SIZE;
}

static unsigned long page_token(unsigned long addr)
{
	return addr ^ 0x5a5a5a5a5a5a5a5aUL;
}

static unsigned long __user *user_word(unsigned long addr)
{
	return (unsigned long __user *)addr;
}

/* The folio at @addr, without a reference: the mapping is what holds it */
static struct folio *folio_at(struct kunit *test, unsigned long addr)
{
	struct folio *folio;
	struct page *page;

	KUNIT_ASSERT_EQ(test, get_user_pages_fast(addr, 1, 0, &page), 1);
	folio = page_folio(page);
	folio_put(folio);
	return folio;
}

static void advise(struct kunit *test, unsigned long addr, size_t len, int advice)
{
	KUNIT_ASSERT_EQ(test, do_madvise(current->mm, addr, len, advice), 0);
}

/*
 * Fault in THP number @thp, write each page's own token into it, and keep
 * khugepaged from putting together later what is taken apart.
 */
static struct folio *thp_make(struct kunit *test, int thp)
{
	unsigned long addr = thp_addr(test, thp), i;
	struct folio *folio;

	for (i = addr; i < addr + HPAGE_PMD_SIZE; i += PAGE_SIZE)
		KUNIT_ASSERT_EQ(test, put_user(page_token(i), user_word(i)), 0);
	folio = folio_at(test, addr);
	KUNIT_ASSERT_EQ_MSG(test, folio_order(folio), HPAGE_PMD_ORDER,
			    "no THP to test with");
	advise(test, addr, HPAGE_PMD_SIZE, MADV_NOHUGEPAGE);
	return folio;
}

/* Have a THP mapped as a whole, but by PTEs: split its VMA and merge it again */
static struct folio *thp_make_pte_mapped(struct kunit *test, int thp)
{
	struct folio *folio = thp_make(test, thp);

	advise(test, thp_addr(test, thp), PAGE_SIZE, MADV_DONTFORK);
	advise(test, thp_addr(test, thp), PAGE_SIZE, MADV_DOFORK);
	return folio;
}

static struct folio *thp_make_partial(struct kunit *test, int thp,
				      struct shape shape)
{
	struct folio *folio = thp_make(test, thp);
	unsigned int i;

	for (i = 0; i < HPAGE_PMD_NR; i += shape.period)
		advise(test, thp_addr(test, thp) + (i + shape.len) * PAGE_SIZE,
		       (shape.period - shape.len) * PAGE_SIZE, MADV_DONTNEED);
	KUNIT_ASSERT_TRUE(test, folio_split_deferred(folio));
	return folio;
}

#ifdef HAVE_SPLIT_TO_ORDER
/* Make a THP, and split it into folios of @order. */
static void thp_make_split(struct kunit *test, int thp, unsigned int order)
{
	struct folio *folio = thp_make(test, thp);

	folio_get(folio);
	folio_lock(folio);
	KUNIT_ASSERT_EQ(test, split_huge_page_to_list_to_order(&folio->page, NULL,
							       order), 0);
	folio_unlock(folio);
	folio_put(folio);
}

#endif
/* Isolate as all callers of migrate_pages() do */
static void isolate(struct kunit *test, struct folio *folio,
		    struct list_head *list)
{
	struct ctx *ctx = test->priv;

	KUNIT_ASSERT_TRUE(test, folio_isolate_lru(folio));
	list_add_tail(&folio->lru, list);
	node_stat_mod_folio(folio, NR_ISOLATED_ANON, folio_nr_pages(folio));

	/* What the making of the THPs took is of no interest. */
	all_vm_events(ctx->events);
}

static bool page_mapped_in(struct shape shape, unsigned int i)
{
	return i % shape.period < shape.len;
}

static unsigned int nr_mapped_in(struct shape shape)
{
	return HPAGE_PMD_NR / shape.period * shape.len;
}

/*
 * The order that the folio of page @i has to have: that of the largest naturally
 * aligned block around it in which all pages are mapped.  Found from the largest
 * down, by looking at each page, which is not how the kernel goes about it.
 */
static unsigned int order_wanted(struct shape shape, unsigned int i)
{
	unsigned int order, j;

	for (order = HPAGE_PMD_ORDER; order > 1; order--) {
		unsigned int start = i & ~((1U << order) - 1);

		for (j = start; j < start + (1U << order); j++)
			if (!page_mapped_in(shape, j))
				break;
		if (j == start + (1U << order))
			return order;
#ifndef HAVE_SPLIT_TO_ORDER
		/* There is no split but to single pages */
		break;
#endif
	}
	return 0;
}

/*
 * Each mapped page has its content, sits on @nid, in a folio of @order, or of the
 * order wanted if that is negative.  Tell the first page that has not.
 */
static void expect_pages(struct kunit *test, int thp, struct shape shape,
			 int nid, int order)
{
	unsigned long addr = thp_addr(test, thp), token;
	struct folio *folio;
	unsigned int i;
	int want;

	for (i = 0; i < HPAGE_PMD_NR; i++, addr += PAGE_SIZE) {
		if (!page_mapped_in(shape, i))
			continue;
		want = order < 0 ? order_wanted(shape, i) : order;
		KUNIT_ASSERT_EQ(test, get_user(token, user_word(addr)), 0);
		folio = folio_at(test, addr);
		if (token != page_token(addr) || folio_nid(folio) != nid ||
		    folio_order(folio) != want)
			break;
	}
	if (i == HPAGE_PMD_NR)
		return;

	KUNIT_EXPECT_EQ_MSG(test, token, page_token(addr), "page %u", i);
	KUNIT_EXPECT_EQ_MSG(test, folio_nid(folio), nid, "page %u", i);
	KUNIT_EXPECT_EQ_MSG(test, folio_order(folio), want, "page %u", i);
}

/* What the pages from @addr to @end were written by thp_make(), or likewise */
static void expect_tokens(struct kunit *test, unsigned long addr, unsigned long end)
{
	unsigned long token;

	for (; addr < end; addr += PAGE_SIZE) {
		KUNIT_ASSERT_EQ(test, get_user(token, user_word(addr)), 0);
		KUNIT_ASSERT_EQ(test, token, page_token(addr));
	}
}

/* C3: moved to where @dst says, as the largest folios there can be */
static void expect_moved(struct kunit *test, int thp, struct shape shape,
			 struct dst *dst)
{
	expect_pages(test, thp, shape, dst->nid, -1);
}

static void expect_not_isolated(struct kunit *test)
{
	struct ctx *ctx = test->priv;

	KUNIT_EXPECT_EQ(test, nr_isolated(), ctx->isolated);
}

static int list_len(struct list_head *list)
{
	return list_count_nodes(list);
}

struct mode_case {
	const char *desc;
	enum migrate_mode mode;
};

static const struct mode_case modes[] = {
	{ .desc = "MIGRATE_ASYNC", .mode = MIGRATE_ASYNC },
	{ .desc = "MIGRATE_SYNC_LIGHT", .mode = MIGRATE_SYNC_LIGHT },
	{ .desc = "MIGRATE_SYNC", .mode = MIGRATE_SYNC },
};

static void mode_desc(const struct mode_case *c, char *desc)
{
	strscpy(desc, c->desc, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(mode, modes, mode_desc);

/* The modes that wait */
static const struct mode_case *const sync_modes = &modes[1];

#ifdef HAVE_API_2026
static const void *sync_mode_gen_params(struct kunit *test, const void *prev,
					char *desc)
#else
static const void *sync_mode_gen_params(const void *prev, char *desc)
#endif
{
	const struct mode_case *next = prev ? prev + sizeof(*next) : sync_modes;

	if (next == modes + ARRAY_SIZE(modes))
		return NULL;
	strscpy(desc, next->desc, KUNIT_PARAM_DESC_SIZE);
	return next;
}

static int migrate_mode(struct list_head *list, struct dst *dst,
			enum migrate_mode mode, unsigned int *succeeded)
{
	return migrate_pages(list, dst_get, dst_put, (unsigned long)dst, mode,
			     MR_SYSCALL, succeeded);
}

/* In the mode that the case is run for */
static int migrate(struct kunit *test, struct list_head *list, struct dst *dst)
{
	const struct mode_case *c = test->param_value;

	return migrate_mode(list, dst, c->mode, NULL);
}

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
	&half, &one, &alternate, &blocks, &three_quarters, &all_but_last,
	&fours, &pairs, &sevens,
};

static void shape_desc(const struct shape * const *shape, char *desc)
{
	strscpy(desc, (*shape)->desc, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(shape, shapes, shape_desc);

/*
 * C3, C6, C7: the mapped pages move, in the largest folios that hold no other,
 * and only they are given a destination, and counted.
 * Stock makes single pages of them, and counts 512 moved and a failure.
 */
static void pieces_are_largest(struct kunit *test)
{
	const struct shape *shape = *(const struct shape * const *)test->param_value;
	unsigned int i, nr = nr_mapped_in(*shape), pieces = 0, succeeded;
	struct dst dst = dst_init();
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
	struct dst dst = dst_init();
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, half), &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, HPAGE_PMD_NR / 2);
	expect_moved(test, 0, half, &dst);
	expect_not_isolated(test);
}

#ifdef HAVE_SPLIT_TO_ORDER
/* Have pages of a THP hold nothing but zeroes: their token is all that they contain. */
static void thp_zero(struct kunit *test, int thp, unsigned int first,
		     unsigned int nr)
{
	unsigned long addr = thp_addr(test, thp) + first * PAGE_SIZE;

	for (; nr; nr--, addr += PAGE_SIZE)
		KUNIT_ASSERT_EQ(test, put_user(0UL, user_word(addr)), 0);
}

/* Are they mapped to the shared zero page, all of them, or none? */
static void expect_zeroed(struct kunit *test, int thp, unsigned int first,
			  unsigned int nr, bool zeroed)
{
	unsigned long addr = thp_addr(test, thp) + first * PAGE_SIZE;
	unsigned int i, zero_pages = 0;

	for (i = 0; i < nr; i++, addr += PAGE_SIZE)
		zero_pages += is_zero_pfn(folio_pfn(folio_at(test, addr)));
	KUNIT_EXPECT_EQ_MSG(test, zero_pages, zeroed ? nr : 0, "from page %u",
			    first);
}

static void expect_order(struct kunit *test, int thp, unsigned int page,
			 int nid, unsigned int order)
{
	struct folio *folio = folio_at(test, thp_addr(test, thp) +
					     page * PAGE_SIZE);

	KUNIT_EXPECT_EQ_MSG(test, folio_order(folio), order, "page %u", page);
	KUNIT_EXPECT_EQ_MSG(test, folio_nid(folio), nid, "page %u", page);
}

/*
 * C11: blocks of zeroes become the shared zero page.  They are neither given a
 * destination nor counted as migrated.
 */
static void zeroes_are_freed(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	thp_zero(test, 0, 63, 300 - 63);
	thp_zero(test, 0, 301, HPAGE_PMD_NR - 301);
	advise(test, thp_addr(test, 0) + HPAGE_PMD_SIZE - PAGE_SIZE, PAGE_SIZE,
	       MADV_DONTNEED);
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, 65, 0, 0, 0, 1);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, 65);
	KUNIT_EXPECT_EQ(test, dst.nr_calls, 2);
	expect_order(test, 0, 0, dst.nid, 6);
	expect_order(test, 0, 300, dst.nid, 0);
	expect_zeroed(test, 0, 0, 64, false);
	expect_zeroed(test, 0, 64, 300 - 64, true);
	expect_zeroed(test, 0, 301, HPAGE_PMD_NR - 1 - 301, true);
	expect_not_isolated(test);
}

/* C11: a piece is zero-filled by half at most, and such zeroes move with it. */
static void half_may_be_zeroes(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	/* 64 of 128 pages, and 65 of the next */
	thp_zero(test, 0, 64, 64);
	thp_zero(test, 0, 128 + 63, 65);
	advise(test, thp_addr(test, 0) + HPAGE_PMD_SIZE / 2, HPAGE_PMD_SIZE / 2,
	       MADV_DONTNEED);
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, 128 + 64, 0, 0, 0, 1);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, 128 + 64);
	expect_order(test, 0, 0, dst.nid, 7);
	expect_order(test, 0, 128, dst.nid, 6);
	expect_zeroed(test, 0, 0, 192, false);
	expect_zeroed(test, 0, 192, 64, true);
	expect_not_isolated(test);
}

/* C9: what is whole is not looked into, whatever it contains. */
static void whole_zeroes_move(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	thp_zero(test, 0, 0, HPAGE_PMD_NR);
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_order(test, 0, 0, dst.nid, HPAGE_PMD_ORDER);
	expect_zeroed(test, 0, 0, HPAGE_PMD_NR, false);
	expect_not_isolated(test);
}

#define NR_WRITTEN 4

/* Has a reference from before the folio was unmapped, and writes a little later. */
struct late_writer {
	struct work_struct work;
	struct task_struct *task;
	struct folio *folio;
	bool has_ref;
};

static void late_write(struct folio *folio)
{
	int i;

	for (i = 0; i < NR_WRITTEN; i++)
		memset(page_address(folio_page(folio, i)), 1, sizeof(long));
}

#ifndef HAVE_SPLIT_BY_STEPS
static void late_write_fn(struct work_struct *work)
{
	struct late_writer *w = container_of(work, struct late_writer, work);
	int i;

	/* The first pages are looked at first; to look at all takes far longer. */
	for (i = 0; i < 20000 && folio_mapped(w->folio); i++)
		udelay(5);
	for (i = 0; i < 6; i++)
		udelay(5);
	late_write(w->folio);
	folio_put(w->folio);
}
#endif

/*
 * A page is about to be unmapped: until then, anybody can have a reference, or write
 * where it is mapped.
 */
static void late_writer_probe(void *data, unsigned long addr, unsigned long pte,
			      int order)
{
	struct late_writer *w = data;

	if (current != w->task || w->has_ref)
		return;
	w->has_ref = true;
#ifdef HAVE_SPLIT_BY_STEPS
	/* What is zero-filled has been looked for before anything is unmapped. */
	late_write(w->folio);
#else
	folio_get(w->folio);
	queue_work_on(cpumask_any_but(cpu_online_mask, smp_processor_id()),
		      system_wq, &w->work);
#endif
}

/*
 * C8, C11: what is written by a reference while the contents are looked at is not taken
 * for zeroes, even if the reference has gone when the folio is split.
 * Stock looks afterwards.
 */
static void written_while_looked_at(struct kunit *test)
{
	struct late_writer w = { .task = current };
	struct dst dst = dst_init();
	unsigned long word;
	LIST_HEAD(list);
	int i, tries = 20;

	if (num_online_cpus() == 1)
		kunit_skip(test, "one CPU");

	w.folio = thp_make(test, 0);
	thp_zero(test, 0, 0, HPAGE_PMD_NR);
	advise(test, thp_addr(test, 0) + HPAGE_PMD_SIZE - PAGE_SIZE, PAGE_SIZE,
	       MADV_DONTNEED);
	isolate(test, w.folio, &list);
#ifndef HAVE_SPLIT_BY_STEPS
	INIT_WORK_ONSTACK(&w.work, late_write_fn);
#endif
	KUNIT_ASSERT_EQ(test, register_trace_set_migration_pte(late_writer_probe, &w),
			0);
	/* It fails if the writer is so late that the folio cannot be split */
	do {
		thp_zero(test, 0, 0, NR_WRITTEN);
		w.has_ref = false;
		migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL);
#ifndef HAVE_SPLIT_BY_STEPS
		flush_work(&w.work);
#endif
		for (i = 0; i < NR_WRITTEN; i++) {
			KUNIT_EXPECT_EQ(test, get_user(word,
						       user_word(thp_addr(test, 0) +
								 i * PAGE_SIZE)), 0);
			KUNIT_EXPECT_NE(test, word, 0UL);
		}
	} while (!list_empty(&list) && --tries);
	unregister_trace_set_migration_pte(late_writer_probe, &w);
	tracepoint_synchronize_unregister();
#ifndef HAVE_SPLIT_BY_STEPS
	destroy_work_on_stack(&w.work);
#endif
	KUNIT_EXPECT_GT(test, tries, 0);
	expect_not_isolated(test);
}

/*
 * C4: if there are no destinations of the size of a piece, those of the largest
 * size there is are taken, and each size is asked for in vain but once.
 */
static void smaller_destinations(struct kunit *test)
{
	struct dst dst = dst_init();
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, half), &list);

	dst.max_order = 4;
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	KUNIT_EXPECT_EQ(test, dst.nr_calls, (8 - 4) + HPAGE_PMD_NR / 2 / 16);
	expect_pages(test, 0, half, dst.nid, 4);
	expect_not_isolated(test);
}

/* Page 200 has errors, and page 1, in the head's piece, if @head_poisoned. */
static void split_to_order_4(struct kunit *test, int thp, bool head_poisoned)
{
	struct folio *folio, *piece;
	int i, wrong = 0, err;
	long thps, pieces;

	folio = thp_make(test, thp);
	folio_get(folio);
	folio_lock(folio);
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
	expect_pages(test, thp, whole, folio_nid(folio), 4);
	folio_unlock(folio);
	folio_put(folio);
}

/* C9: all others split to pieces of one order, by the same code.  Stock passes. */
static void split_to_one_order(struct kunit *test)
{
	split_to_order_4(test, 0, true);
	split_to_order_4(test, 1, false);
}

#ifdef HAVE_SPLIT_BY_STEPS
static int split_to_mapped(struct folio *folio, struct list_head *list)
{
	unsigned int nr_mapped;

	return split_folio_to_mapped(folio, list, &nr_mapped);
}

/* All pages are mapped, or none is */
#define NOTHING_TO_SPLIT	1
#else
#define split_to_mapped		split_folio_to_mapped
#define NOTHING_TO_SPLIT	(-EAGAIN)
#endif

/* C3: whoever wants to split what is all mapped, or not at all, lost a race */
static void nothing_to_split(struct kunit *test)
{
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	folio_get(folio);
	folio_lock(folio);
	KUNIT_EXPECT_EQ(test, split_to_mapped(folio, &list), NOTHING_TO_SPLIT);
	/* By PTEs, as in thp_make_pte_mapped() */
	advise(test, thp_addr(test, 0), PAGE_SIZE, MADV_DONTFORK);
	KUNIT_EXPECT_EQ(test, split_to_mapped(folio, &list), NOTHING_TO_SPLIT);
	expect_pages(test, 0, whole, folio_nid(folio), HPAGE_PMD_ORDER);
	advise(test, thp_addr(test, 0), HPAGE_PMD_SIZE, MADV_DONTNEED);
	KUNIT_EXPECT_EQ(test, split_to_mapped(folio, &list), NOTHING_TO_SPLIT);
	KUNIT_EXPECT_EQ(test, folio_order(folio), HPAGE_PMD_ORDER);
	KUNIT_EXPECT_TRUE(test, list_empty(&list));
	folio_unlock(folio);
	folio_put(folio);
}

#ifdef CONFIG_MEMORY_FAILURE
/*
 * C3: the page allocator keeps a poisoned page out if it is freed on its own, and
 * only then.
 */
static void poisoned_page_is_kept_out(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	struct page *page;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, half);
	page = folio_page(folio, HPAGE_PMD_NR - 7);
	isolate(test, folio, &list);
	SetPageHWPoison(page);
	folio_set_has_hwpoisoned(folio);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_pages(test, 0, half, dst.nid, 0);
	expect_not_isolated(test);

	/* it stays out: page_owner would count another free of it, too */
	KUNIT_EXPECT_TRUE(test, PageHWPoison(page));
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 0);
	KUNIT_EXPECT_EQ(test, compound_order(compound_head(page)), 0);
}

#endif
#endif
/* C3, C6: unmapped pages are freed, whatever the LRU made of their folio */
static void unmapped_are_freed(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);
	int i;

	folio = thp_make_partial(test, 0, half);
	isolate(test, folio, &list);
	if (c->mode == MIGRATE_ASYNC)
		folio_set_active(folio);
	else
		folio_set_unevictable(folio);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_moved(test, 0, half, &dst);

	/* All of it, and before it is looked at, queued or not: counts as moved */
	dst = dst_init();
	for (i = 1; i <= 2; i++) {
		folio = i == 1 ? thp_make(test, i) : thp_make_partial(test, i, half);
		isolate(test, folio, &list);
		advise(test, thp_addr(test, i), HPAGE_PMD_SIZE, MADV_DONTNEED);
		KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
		KUNIT_EXPECT_EQ(test, list_len(&list), 0);
		KUNIT_EXPECT_EQ(test, dst.nr_pages, 0);
		expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	}
	expect_not_isolated(test);
}

/* C9: a whole THP migrates as ever, though it is queued (as underused) */
static void whole_is_left_alone(struct kunit *test)
{
	struct dst dst = dst_init();
	LIST_HEAD(list);

	isolate(test, thp_make(test, 0), &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	KUNIT_EXPECT_EQ(test, dst.nr_calls, 1);
	expect_moved(test, 0, whole, &dst);
	expect_not_isolated(test);
}

/*
 * C2: so does one that is mapped by PTEs, any number of times.
 * Stock marks it partially mapped as it migrates, and shatters it next time.
 */
static void whole_pte_mapped_hops(struct kunit *test)
{
	struct dst dst = dst_init();
	struct ctx *ctx = test->priv;
	struct folio *folio;
	LIST_HEAD(list);
	int hop;

	folio = thp_make_pte_mapped(test, 0);
	for (hop = 0; hop < 4; hop++) {
		isolate(test, folio, &list);
		dst.nid = hop % 2 ? 0 : dst_init().nid;
		KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
		expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
		expect_moved(test, 0, whole, &dst);
		folio = folio_at(test, thp_addr(test, 0));
		KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
		KUNIT_EXPECT_EQ(test, nr_partially_mapped(),
				ctx->partially_mapped);
	}
	expect_not_isolated(test);
}

/*
 * C2: nor does a migration that fails leave a mark behind.
 * Stock marks it partially mapped, and shatters it next time.
 */
static void whole_pte_mapped_fails(struct kunit *test)
{
	struct dst dst = dst_init();
	struct ctx *ctx = test->priv;
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_pte_mapped(test, 0);
	isolate(test, folio, &list);

	folio_get(folio);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	folio_put(folio);
	expect_events(test, 0, HPAGE_PMD_NR, 0, 1, 0);
	KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
	KUNIT_EXPECT_EQ(test, nr_partially_mapped(), ctx->partially_mapped);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_moved(test, 0, whole, &dst);
	expect_not_isolated(test);
}

/*
 * C2: a mark that is false all the same is not acted upon.
 * Stock shatters the folio.
 */
static void stale_mark_is_not_believed(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_pte_mapped(test, 0);
	deferred_split_folio(folio, true);
	KUNIT_ASSERT_TRUE(test, folio_split_deferred(folio));
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_moved(test, 0, whole, &dst);
	expect_not_isolated(test);
}

/*
 * C8, C9: a THP of a file, mapped twice by PTEs in two page tables but for its last
 * page, is mapped again as it was, and not queued; or is split if there is no
 * destination of its size.  Stock passes.
 */
static void file_thp_moves(struct kunit *test)
{
	unsigned long addr = thp_addr(test, 0) + 5 * PAGE_SIZE, i;
	unsigned long twin = addr + 2 * HPAGE_PMD_SIZE;
	unsigned long len = HPAGE_PMD_SIZE - PAGE_SIZE;
	struct file_system_type *type = get_fs_type("tmpfs");
	struct dst dst = dst_init();
	char options[] = "huge=always";
	struct vfsmount *mnt;
	struct folio *folio;
	struct file *file;
	LIST_HEAD(list);

	if (!type || !IS_ENABLED(CONFIG_SHMEM))
		kunit_skip(test, "no tmpfs");
	mnt = vfs_kern_mount(type, SB_KERNMOUNT, type->name, options);
	KUNIT_ASSERT_FALSE(test, IS_ERR(mnt));
#ifdef HAVE_API_2026
	file = shmem_file_setup_with_mnt(mnt, "kunit", HPAGE_PMD_SIZE,
					 EMPTY_VMA_FLAGS);
#else
	file = shmem_file_setup_with_mnt(mnt, "kunit", HPAGE_PMD_SIZE, 0);
#endif
	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	/* A fault at such an address does not ask for a THP */
	KUNIT_ASSERT_EQ(test, vfs_fallocate(file, 0, 0, HPAGE_PMD_SIZE), 0);
	KUNIT_ASSERT_EQ(test, vm_mmap(file, addr, HPAGE_PMD_SIZE,
				      PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_FIXED, 0), addr);
	KUNIT_ASSERT_EQ(test, vm_mmap(file, twin, HPAGE_PMD_SIZE,
				      PROT_READ | PROT_WRITE,
				      MAP_SHARED | MAP_FIXED, 0), twin);
	for (i = 0; i < HPAGE_PMD_SIZE; i += PAGE_SIZE) {
		KUNIT_ASSERT_EQ(test, put_user(0UL, user_word(twin + i)), 0);
		KUNIT_ASSERT_EQ(test, put_user(page_token(addr + i),
					       user_word(addr + i)), 0);
	}
	folio = folio_at(test, addr);
	KUNIT_ASSERT_EQ(test, folio_order(folio), HPAGE_PMD_ORDER);
	advise(test, addr + len, PAGE_SIZE, MADV_DONTNEED);
	advise(test, twin + len, PAGE_SIZE, MADV_DONTNEED);
	KUNIT_EXPECT_TRUE(test, list_empty(deferred_list(folio)));
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	folio = folio_at(test, addr);
	KUNIT_EXPECT_EQ(test, folio_nid(folio), dst.nid);
	KUNIT_EXPECT_EQ(test, folio_order(folio), HPAGE_PMD_ORDER);
	KUNIT_EXPECT_EQ(test, folio_mapcount(folio), 2 * (HPAGE_PMD_NR - 1));
	KUNIT_EXPECT_TRUE(test, list_empty(deferred_list(folio)));
	expect_tokens(test, addr, addr + len);

	isolate(test, folio, &list);
	dst.nid = 0;
	dst.max_order = 0;
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_tokens(test, addr, addr + len);
	folio = folio_at(test, addr);
	KUNIT_EXPECT_EQ(test, folio_nid(folio), 0);
	KUNIT_EXPECT_EQ(test, folio_order(folio), 0);
	expect_not_isolated(test);

	vm_munmap(addr, HPAGE_PMD_SIZE);
	vm_munmap(twin, HPAGE_PMD_SIZE);
	fput(file);
	kern_unmount(mnt);
}

#ifndef HAVE_MARK
/*
 * C2: a folio of which all pages are mapped has nothing to wait for, and does not
 * after it was migrated.  Stock passes.
 */
static void whole_is_unqueued(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	deferred_split_folio(folio, true);
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_moved(test, 0, whole, &dst);
	folio = folio_at(test, thp_addr(test, 0));
	KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
	expect_not_isolated(test);
}

#endif
/*
 * C2: a page that is unmapped while a migration entry stands in for its mapping
 * is missed when the entries are removed: the folio is queued.
 * Stock loses it if it was mapped by a PMD.
 */
static void zapped_entry_is_noticed(struct kunit *test)
{
	struct folio *folio = thp_make(test, 0);

	folio_lock(folio);
	folio_get(folio);
	try_to_migrate(folio, 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(folio));
	advise(test, thp_addr(test, 0) + 5 * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED);
	KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
	remove_migration_ptes(folio, folio, 0);
	KUNIT_EXPECT_EQ(test, folio_nr_pages_mapped(folio), HPAGE_PMD_NR - 1);
	KUNIT_EXPECT_TRUE(test, folio_split_deferred(folio));
	folio_put(folio);
	folio_unlock(folio);
}

/*
 * C2: and if it is missed after the content has gone to a destination, that is
 * what is queued.  Step by step, as there is no place in the migration of one THP
 * from where to unmap.  Stock loses it.
 */
static void zapped_entry_is_noticed_after_copy(struct kunit *test)
{
	struct folio *src = thp_make(test, 0), *dst;
	LIST_HEAD(list);

	dst = __folio_alloc_node(GFP_HIGHUSER_MOVABLE, HPAGE_PMD_ORDER,
				 folio_nid(src));
	KUNIT_ASSERT_NOT_NULL(test, dst);
	isolate(test, src, &list);
	folio_lock(src);
	folio_lock(dst);
	try_to_migrate(src, 0);
	advise(test, thp_addr(test, 0) + 5 * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED);
	KUNIT_EXPECT_EQ(test, migrate_folio(NULL, dst, src, MIGRATE_SYNC), 0);
	remove_migration_ptes(src, dst, 0);
	KUNIT_EXPECT_EQ(test, folio_nr_pages_mapped(dst), HPAGE_PMD_NR - 1);
	KUNIT_EXPECT_TRUE(test, folio_split_deferred(dst));
	folio_unlock(dst);
	folio_unlock(src);

	list_del(&src->lru);
	node_stat_mod_folio(src, NR_ISOLATED_ANON, -HPAGE_PMD_NR);
	folio_put(src);
	folio_add_lru(dst);
	folio_put(dst);
	expect_not_isolated(test);
}

/* Pretend that others map the first pages of a THP by PTEs; @addr is ours. */
static void others_map(struct folio *folio, int nr, struct vm_area_struct *vma,
		       unsigned long addr)
{
	folio_ref_add(folio, nr);
	/* In place of the page table lock of the others */
	preempt_disable();
	folio_add_anon_rmap_ptes(folio, &folio->page, nr, vma, addr, RMAP_NONE);
	preempt_enable();
}

/* They stop to, or have migration entries in place of that for now. */
static void others_unmap(struct folio *folio, int nr, struct vm_area_struct *vma,
			 bool migrate)
{
	int i;

	preempt_disable();
	if (migrate) {
		for (i = 0; i < nr; i++)
			folio_remove_rmap_pte_migration(folio, folio_page(folio, i),
							vma);
	} else {
		folio_remove_rmap_ptes(folio, &folio->page, nr, vma);
	}
	preempt_enable();
	folio_ref_sub(folio, nr);
}

/*
 * C2: a PMD mapping that gives way to migration entries, one for the PMD or one for
 * each page, is no unmapping, whatever others map.  Stock marks the THP partially
 * mapped.
 */
static void pmd_gives_way(struct kunit *test)
{
	static const enum ttu_flags flags[] = { 0, TTU_SPLIT_HUGE_PMD };
	const int others = 8;
	struct vm_area_struct *vma;
	struct folio *folio;
	unsigned long addr;
	int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		folio = thp_make(test, i);
		addr = thp_addr(test, i);
		mmap_read_lock(current->mm);
		vma = vma_lookup(current->mm, addr);
		folio_lock(folio);
		folio_get(folio);
		others_map(folio, others, vma, addr);

		try_to_migrate(folio, flags[i]);
		KUNIT_EXPECT_EQ(test, folio_mapcount(folio), others);
		KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));

		others_unmap(folio, others, vma, false);
		remove_migration_ptes(folio, folio, 0);
		folio_unlock(folio);
		folio_put(folio);
		mmap_read_unlock(current->mm);
		expect_tokens(test, addr, addr + HPAGE_PMD_SIZE);
	}
}

/*
 * C2: but one that ends is, if others map some of the pages, and not if they map all
 * of them, or none for the moment.  Stock passes.
 */
static void pmd_is_unmapped(struct kunit *test)
{
	static const struct {
		int nr;
		bool migrate, deferred;
	} others[] = {
		{ 8, false, true },
		{ HPAGE_PMD_NR, false, false },
		{ 8, true, false },
	};
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	struct folio *folio;
	unsigned long addr;
	int i;

	for (i = 0; i < ARRAY_SIZE(others); i++) {
		folio = thp_make(test, i);
		addr = thp_addr(test, i);
		folio_get(folio);
		mmap_read_lock(mm);
		vma = vma_lookup(mm, addr);
		folio_lock(folio);
		others_map(folio, others[i].nr, vma, addr);
		if (others[i].migrate)
			others_unmap(folio, others[i].nr, vma, true);
		folio_unlock(folio);
		mmap_read_unlock(mm);

		KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
		advise(test, addr, HPAGE_PMD_SIZE, MADV_DONTNEED);
		KUNIT_EXPECT_EQ(test, folio_split_deferred(folio),
				others[i].deferred);

		mmap_read_lock(mm);
		vma = vma_lookup(mm, addr);
		if (!others[i].migrate)
			others_unmap(folio, others[i].nr, vma, false);
		mmap_read_unlock(mm);
		folio_put(folio);
	}
}

#define MISALIGNED_BY	5

/*
 * mremap(2) of the first two THPs, to where each of them is mapped across two page
 * tables: by the second of three is the end of the first THP, and all but the end
 * of the second one.  Return where they begin.
 */
static unsigned long thps_misalign(struct kunit *test)
{
	unsigned long from = thp_addr(test, 0), len = 2 * HPAGE_PMD_SIZE, to;
	struct vm_area_struct *vma, *new = NULL;
	struct mm_struct *mm = current->mm;
	unsigned long moved = 0;
	bool need_rmap_locks;

	mmap_write_lock(mm);
	vma = vma_lookup(mm, from);
	to = get_unmapped_area(NULL, 0, len + 2 * HPAGE_PMD_SIZE, 0, 0);
	if (!IS_ERR_VALUE(to)) {
		to = ALIGN(to, HPAGE_PMD_SIZE) + MISALIGNED_BY * PAGE_SIZE;
#ifdef HAVE_API_2026
		new = copy_vma(&vma, to, len, linear_page_index(vma, from),
			       linear_anon_page_index(vma, from),
			       &need_rmap_locks, true);
#else
		new = copy_vma(&vma, to, len, linear_page_index(vma, from),
			       &need_rmap_locks, true);
#endif
	}
	if (new) {
#ifdef HAVE_API_2026
		PAGETABLE_MOVE(pmc, vma, new, from, to, len);

		pmc.need_rmap_locks = need_rmap_locks;
		moved = move_page_tables(&pmc);
#else
		moved = move_page_tables(vma, from, new, to, len,
					 need_rmap_locks, false);
#endif
		vm_stat_account(mm, new->vm_flags, len >> PAGE_SHIFT);
		vm_acct_memory(len >> PAGE_SHIFT);
	}
	mmap_write_unlock(mm);
	KUNIT_ASSERT_EQ(test, moved, len);
	KUNIT_ASSERT_EQ(test, vm_munmap(from, len), 0);
	return to;
}

/*
 * C8: the walks that put migration entries in and take them out get to the end of a
 * THP that is mapped across two page tables, though in the place of the first one
 * there is a huge PMD, or its migration entry.
 * Stock leaves the entries of the second one behind, and has a BUG when they are met.
 */
static void huge_pmd_gets_in_front(struct kunit *test)
{
	unsigned long start, addr, end, token, i;
	struct folio *folio, *front;
	struct dst dst = dst_init();
	struct anon_vma *anon_vma;
	LIST_HEAD(list);

	thp_make(test, 0);
	folio = thp_make(test, 1);
	start = thps_misalign(test);
	addr = ALIGN(start, HPAGE_PMD_SIZE);
	end = addr + HPAGE_PMD_SIZE;
	folio_get(folio);
	folio_lock(folio);
	try_to_migrate(folio, 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(folio));

	advise(test, addr, HPAGE_PMD_SIZE, MADV_DONTNEED);
	KUNIT_ASSERT_EQ(test, put_user(1UL, user_word(addr)), 0);
	/* All of it, so that it stays one VMA */
	advise(test, start, 2 * HPAGE_PMD_SIZE, MADV_HUGEPAGE);
	advise(test, addr, HPAGE_PMD_SIZE, MADV_COLLAPSE);
	advise(test, start, 2 * HPAGE_PMD_SIZE, MADV_NOHUGEPAGE);
	front = folio_at(test, addr);
	KUNIT_ASSERT_EQ(test, folio_order(front), HPAGE_PMD_ORDER);
	remove_migration_ptes(folio, folio, 0);
	KUNIT_EXPECT_EQ(test, folio_nr_pages_mapped(folio), MISALIGNED_BY);

	/* Nor is what is behind the first entry of the second table missed. */
	advise(test, end, PAGE_SIZE, MADV_DONTNEED);
	folio_get(front);
	folio_lock(front);
	try_to_migrate(front, 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(front));
	/*
	 * A walk does not take a migration entry for a mapping.  Of what is not mapped
	 * there is one only for who holds the lock.
	 */
	anon_vma = folio_anon_vma(front);
	anon_vma_lock_read(anon_vma);
	try_to_migrate(front, TTU_RMAP_LOCKED);
	anon_vma_unlock_read(anon_vma);
	try_to_migrate(folio, 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(folio));
	remove_migration_ptes(folio, folio, 0);
	KUNIT_EXPECT_EQ(test, folio_nr_pages_mapped(folio), MISALIGNED_BY - 1);
	remove_migration_ptes(front, front, 0);
	folio_unlock(front);
	folio_put(front);
	folio_unlock(folio);
	folio_put(folio);

	isolate(test, folio, &list);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	expect_events(test, MISALIGNED_BY - 1, 0, 0, 0, 1);
	for (i = 1; i < MISALIGNED_BY; i++) {
		addr = end + i * PAGE_SIZE;
		KUNIT_ASSERT_EQ(test, get_user(token, user_word(addr)), 0);
		KUNIT_EXPECT_EQ(test, token,
				page_token(thp_addr(test, 2) -
					   (MISALIGNED_BY - i) * PAGE_SIZE));
		KUNIT_EXPECT_EQ(test, folio_nid(folio_at(test, addr)), dst.nid);
	}
	expect_not_isolated(test);
}

#ifdef HAVE_SPLIT_TO_ORDER
/*
 * C2: as zapped_entry_is_noticed(), but of the destination.  Provoked in a batch:
 * when the second folio asks for its destination, the first is unmapped.  Stock
 * queues it because it took the source for partially mapped while it migrated.
 */
static void zapped_entry_is_noticed_in_batch(struct kunit *test)
{
	const unsigned int order = 4;
	unsigned long addr[] = {
		thp_addr(test, 0), thp_addr(test, 0) + (PAGE_SIZE << order)
	};
	struct dst dst = dst_init();
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

/* Split a THP into pieces of @order that are mapped, and unmap these as a split does. */
static void pieces_unmap(struct kunit *test, unsigned int order,
			 struct folio **piece)
{
	unsigned long addr = thp_addr(test, 0);
	unsigned int i;

	thp_make_split(test, 0, order);
	for (i = 0; i < HPAGE_PMD_NR >> order; i++) {
		piece[i] = folio_at(test, addr + (i << order) * PAGE_SIZE);
		folio_get(piece[i]);
		folio_lock(piece[i]);
		try_to_migrate(piece[i], 0);
	}
}

/* Map them again, as a split does. */
static void pieces_map(struct folio *first, int flags,
		       const struct folio_split_plan *plan)
{
	struct anon_vma *anon_vma = folio_anon_vma(first);
#ifdef HAVE_SPLIT_BY_STEPS
	unsigned long i;
#endif

	anon_vma_lock_write(anon_vma);
#ifdef HAVE_SPLIT_BY_STEPS
	for (i = 0; i < HPAGE_PMD_NR; i += folio_nr_pages(first)) {
		struct folio *piece = page_folio(&first->page + i);

		remove_migration_ptes(piece, piece, TTU_RMAP_LOCKED | flags);
	}
#else
	remove_migration_ptes_split(first, HPAGE_PMD_NR, flags, plan);
#endif
	anon_vma_unlock_write(anon_vma);
}

/*
 * C2: nor is one missed that is unmapped while a migration entry stands in for it
 * in a split: the piece it was in is queued.  Step by step, as there is no place in
 * a split from where to unmap.
 */
static void zapped_entry_is_noticed_in_split(struct kunit *test)
{
	const unsigned int order = 4, nr = HPAGE_PMD_NR >> order, hit = 7;
	unsigned long addr = thp_addr(test, 0);
	struct folio *piece[HPAGE_PMD_NR >> 4];
	unsigned int i;

	pieces_unmap(test, order, piece);
	advise(test, addr + ((hit << order) + 3) * PAGE_SIZE, PAGE_SIZE,
	       MADV_DONTNEED);
	KUNIT_EXPECT_FALSE(test, folio_split_deferred(piece[hit]));

	pieces_map(piece[0], 0, NULL);
	for (i = 0; i < nr; i++) {
		KUNIT_EXPECT_EQ_MSG(test, folio_nr_pages_mapped(piece[i]),
				    (1 << order) - (i == hit), "piece %u", i);
		KUNIT_EXPECT_EQ_MSG(test, folio_split_deferred(piece[i]),
				    i == hit, "piece %u", i);
		folio_unlock(piece[i]);
		folio_put(piece[i]);
	}
}

/*
 * C8: a page that nobody seemed to map has not been looked into.  If it is mapped after
 * all, as somebody split a PMD during the look, it must not pass for zero-filled.
 */
static void stale_plan_loses_nothing(struct kunit *test)
{
	const unsigned int order = 4, nr = HPAGE_PMD_NR >> order;
	struct folio *piece[HPAGE_PMD_NR >> 4];
	struct folio_split_plan plan = { .order = HPAGE_PMD_ORDER };
	unsigned int i;

	plan.unmapped = kunit_kcalloc(test, BITS_TO_LONGS(HPAGE_PMD_NR),
				      sizeof(long), GFP_KERNEL);
	plan.data = kunit_kcalloc(test, BITS_TO_LONGS(HPAGE_PMD_NR),
				  sizeof(long), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, plan.unmapped);
	KUNIT_ASSERT_NOT_NULL(test, plan.data);
	bitmap_fill(plan.unmapped, HPAGE_PMD_NR);

	pieces_unmap(test, order, piece);
#ifdef HAVE_SPLIT_BY_STEPS
	pieces_map(piece[0], TTU_USE_SHARED_ZEROPAGE, &plan);
#else
	pieces_map(piece[0], RMP_USE_SHARED_ZEROPAGE, &plan);
#endif
	for (i = 0; i < nr; i++) {
		folio_unlock(piece[i]);
		folio_put(piece[i]);
	}
	expect_pages(test, 0, whole, folio_nid(piece[0]), order);
}

/*
 * Unmap @behind for migration; split and migrate @first, which is mapped from @addr
 * on, and @behind is behind it there.
 */
static void expect_left_alone(struct kunit *test, unsigned long addr,
			      struct folio *first, struct folio *behind,
			      enum ttu_flags flags)
{
	unsigned long end = addr + folio_size(first) + folio_size(behind);
	struct dst dst = dst_init();
	LIST_HEAD(list);

	folio_get(behind);
	folio_lock(behind);
	try_to_migrate(behind, flags);
	advise(test, addr, 3 * PAGE_SIZE, MADV_DONTNEED);
	isolate(test, first, &list);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(behind));
	remove_migration_ptes(behind, behind, 0);
	folio_unlock(behind);
	folio_put(behind);
	expect_tokens(test, addr + 3 * PAGE_SIZE, end);
	expect_not_isolated(test);
}

/*
 * C8: a split maps the pages of its folio again, and none of the folio behind it,
 * in the address space and in memory, that happens to be unmapped for migration.
 * Stock passes.
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

/*
 * The shrinker meets an underused THP that is locked, as the destination of a
 * migration is: it stays queued.  Stock drops it from the queue for good.
 */
static void shrinker_keeps_locked(struct kunit *test)
{
	unsigned int max_ptes_none = khugepaged_max_ptes_none;
	struct folio *folio;
	int refs;

	KUNIT_ASSERT_EQ(test, put_user(1UL, user_word(thp_addr(test, 0))), 0);
	folio = folio_at(test, thp_addr(test, 0));
	KUNIT_ASSERT_EQ(test, folio_order(folio), HPAGE_PMD_ORDER);
	KUNIT_ASSERT_FALSE(test, list_empty(deferred_list(folio)));
	refs = folio_ref_count(folio);

	khugepaged_max_ptes_none = HPAGE_PMD_NR / 2;
	folio_lock(folio);
	drop_slab();
	KUNIT_EXPECT_FALSE(test, list_empty(deferred_list(folio)));
	folio_unlock(folio);
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
	folio = thp_make_partial(test, 1, half);
	refs = folio_ref_count(folio);
	folio_get(folio);
	drop_slab();
	KUNIT_EXPECT_TRUE(test, folio_split_deferred(folio));
	folio_put(folio);
	KUNIT_EXPECT_EQ(test, folio_ref_count(folio), refs);
	expect_queue_len(test, folio);
	khugepaged_max_ptes_none = max_ptes_none;
}

#endif
/* C5: the folio came back whole, queued and untouched, and counts once */
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
	expect_pages(test, 0, half, folio_nid(folio), HPAGE_PMD_ORDER);
}

/* migrate_pages() returned @rc, and has split and moved the half that is mapped */
static void expect_migrated(struct kunit *test, struct list_head *list,
			    struct dst *dst, int rc)
{
	KUNIT_EXPECT_EQ(test, rc, 0);
	KUNIT_EXPECT_EQ(test, list_len(list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_moved(test, 0, half, dst);
	expect_not_isolated(test);
}

/* C5: and migrates once what was in the way is gone */
static void expect_migrates_now(struct kunit *test, struct list_head *list,
				struct dst *dst, enum migrate_mode mode)
{
	expect_migrated(test, list, dst, migrate_mode(list, dst, mode, NULL));
}

/*
 * C5: somebody holds a reference.
 * Stock goes on and tries to migrate the folio whole.
 */
static void split_fails_on_reference(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, half);
	isolate(test, folio, &list);

	folio_get(folio);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	expect_failed_whole(test, &list, folio, &dst);
	folio_put(folio);

	expect_migrates_now(test, &list, &dst, c->mode);
}

#ifdef HAVE_QUEUE_IS_LIST_LRU
/*
 * C1, C5: deferred_split_scan() has the folio in hand: it has a reference, and took the
 * folio off all lists.  Then it puts it on the queue again.
 * Stock takes it for not queued and tries to migrate it whole.
 */
static void split_fails_on_shrinker_list(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = dst_init();
	struct list_lru_one *queue;
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, half);
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

/*
 * C1, C2: the shrinker lets go of it when it is too late to look again: the destination
 * is queued as the source was marked.
 * Stock loses the pages that are not mapped.
 */
static void destination_is_queued(struct kunit *test)
{
	struct folio *src, *dst;
	struct list_lru_one *queue;
	LIST_HEAD(list);
	struct dst d = dst_init();

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
#else
/*
 * C1, C5: deferred_split_scan() has the folio on its on-stack list, walks that
 * without the lock and must find it as it was.
 * Stock goes on and tries to migrate the folio whole.
 */
static void split_fails_on_shrinker_list(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = dst_init();
	struct deferred_split *queue;
	struct folio *folio;
	LIST_HEAD(scan);
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, half);
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
 * C5: somebody else holds the folio lock, which MIGRATE_ASYNC does not wait
 * for.  Stock goes on and tries to migrate the folio whole.
 */
static void split_fails_on_lock(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, half);
	isolate(test, folio, &list);

	folio_lock(folio);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 1);
	folio_unlock(folio);
	expect_failed_whole(test, &list, folio, &dst);

	expect_migrates_now(test, &list, &dst, MIGRATE_ASYNC);
}

/*
 * C5: in reclaim no mode waits for the lock, and, from 6.4 on, MIGRATE_SYNC_LIGHT
 * does not if it may take I/O.  Stock goes on and tries to migrate the folio whole.
 */
static void split_fails_on_lock_sync(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = dst_init();
	struct folio *folio;
	unsigned int flags;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, half);
	isolate(test, folio, &list);

	folio_lock(folio);
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
	folio_unlock(folio);

	expect_migrates_now(test, &list, &dst, c->mode);
}

/* As reclaim does */
static void start_writeback(struct folio *folio)
{
	folio_lock(folio);
	folio_start_writeback(folio);
	folio_unlock(folio);
}

/*
 * C5: under writeback, which only MIGRATE_SYNC waits for, and no other mode tries
 * again.  Stock goes on and tries to migrate the folio whole.
 */
static void split_fails_on_writeback(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, half);
	isolate(test, folio, &list);

	start_writeback(folio);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 1);
	expect_failed_whole(test, &list, folio, &dst);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_SYNC_LIGHT, NULL),
			1);
	expect_failed_whole(test, &list, folio, &dst);
	folio_end_writeback(folio);

	expect_migrates_now(test, &list, &dst, MIGRATE_ASYNC);
}

struct unlock_work {
	struct work_struct work;
	struct folio *folio;
	struct mm_struct *mm;	/* not NULL: to unmap the THP at addr in, first */
	unsigned long addr;
};

static void unlock_fn(struct work_struct *work)
{
	struct unlock_work *unlock = container_of(work, struct unlock_work, work);
	int i;

	if (unlock->mm) {
		/* As soon as the migration waits, if it ever does */
		for (i = 0; i < 10 * HZ && !folio_test_waiters(unlock->folio); i++)
			schedule_timeout_idle(1);
		kthread_use_mm(unlock->mm);
		do_madvise(unlock->mm, unlock->addr, HPAGE_PMD_SIZE, MADV_DONTNEED);
		kthread_unuse_mm(unlock->mm);
	}
	folio_unlock(unlock->folio);
}

/*
 * C5: the synchronous modes wait for the folio lock.
 * Whoever comes first, the lock holder or the migration, the split succeeds.
 */
static void split_waits_for_lock(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = dst_init();
	struct unlock_work unlock = { };
	LIST_HEAD(list);

	unlock.folio = thp_make_partial(test, 0, half);
	isolate(test, unlock.folio, &list);

	INIT_WORK_ONSTACK(&unlock.work, unlock_fn);
	folio_lock(unlock.folio);
	schedule_work(&unlock.work);
	expect_migrates_now(test, &list, &dst, c->mode);
	flush_work(&unlock.work);
	destroy_work_on_stack(&unlock.work);
}

struct writeback_timer {
	struct timer_list timer;
	struct folio *folio;
};

static void end_writeback_fn(struct timer_list *t)
{
	folio_end_writeback(container_of(t, struct writeback_timer, timer)->folio);
}

/*
 * C5: MIGRATE_SYNC waits for writeback, in its last passes: the folio lock is not
 * kept by those before.  If writeback should end before, that is as well.
 *
 * What ends writeback holds a reference, with which no split succeeds.  A timer of
 * this CPU has dropped it before the migration goes on.
 */
static void split_waits_for_writeback(struct kunit *test)
{
	struct dst dst = dst_init();
	struct writeback_timer write;
	LIST_HEAD(list);
	int rc;

	write.folio = thp_make_partial(test, 0, half);
	isolate(test, write.folio, &list);

	timer_setup_on_stack(&write.timer, end_writeback_fn, TIMER_PINNED);
	start_writeback(write.folio);
	migrate_disable();
	mod_timer(&write.timer, jiffies + 2);
	rc = migrate_mode(&list, &dst, MIGRATE_SYNC, NULL);
	migrate_enable();
#ifdef HAVE_API_2026
	timer_delete_sync(&write.timer);
	timer_destroy_on_stack(&write.timer);
#else
	del_timer_sync(&write.timer);
	destroy_timer_on_stack(&write.timer);
#endif

	expect_migrated(test, &list, &dst, rc);
}

/*
 * C6, C7: no destination at all: every piece comes back, and each counts as failed.
 * Stock counts the split as a failure.
 */
static void no_destination(struct kunit *test)
{
	struct dst dst = dst_init();
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, alternate), &list);

	dst.refuse_from = 0;
#ifndef HAVE_NOMEM_IS_COUNTED
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), -ENOMEM);
	expect_events(test, 0, 1, 0, 0, 1);
#else
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), HPAGE_PMD_NR / 2);
	expect_events(test, 0, HPAGE_PMD_NR / 2, 0, 0, 1);
#endif
	KUNIT_EXPECT_EQ(test, list_len(&list), HPAGE_PMD_NR / 2);

	dst = dst_init();
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_moved(test, 0, alternate, &dst);
	expect_not_isolated(test);
}

/* C6: the destinations run out: what was moved is counted, the rest returned */
static void destinations_run_out(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = dst_init();
	unsigned int succeeded;
	const int nr = 100;
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, alternate), &list);

	dst.refuse_from = nr;
#ifndef HAVE_NOMEM_IS_COUNTED
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, c->mode, &succeeded),
			-ENOMEM);
#else
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, c->mode, &succeeded),
			HPAGE_PMD_NR / 2 - nr);
	expect_events(test, nr, HPAGE_PMD_NR / 2 - nr, 0, 0, 1);
#endif
	/* and as many as were freed */
	KUNIT_EXPECT_EQ(test, succeeded, nr + HPAGE_PMD_NR / 2);
	KUNIT_EXPECT_EQ(test, list_len(&list), HPAGE_PMD_NR / 2 - nr);

	dst = dst_init();
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, c->mode, &succeeded), 0);
	KUNIT_EXPECT_EQ(test, succeeded, HPAGE_PMD_NR / 2 - nr);
	expect_moved(test, 0, alternate, &dst);
	expect_not_isolated(test);
}

/*
 * C3, C6: no destination for large pieces: they are split as any other large
 * folio is then, to single pages, and all of them arrive.
 */
static void no_large_destination(struct kunit *test)
{
	struct dst dst = dst_init();
	LIST_HEAD(list);

	isolate(test, thp_make_partial(test, 0, blocks), &list);

	dst.max_order = 0;
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, HPAGE_PMD_NR / 2, 0, 0, 0, 1);
	expect_pages(test, 0, blocks, dst.nid, 0);
	expect_not_isolated(test);
}

/*
 * C4, C6: a piece that cannot be migrated comes back and counts, as one page.
 * Stock counts the THP.
 */
static void piece_fails(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, alternate);
	isolate(test, folio, &list);

	dst.pin = (struct folio *)folio_page(folio, 4);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	KUNIT_EXPECT_EQ(test, list_len(&list), 1);
	KUNIT_EXPECT_PTR_EQ(test, list_first_entry(&list, struct folio, lru),
			    dst.pin);
	expect_events(test, HPAGE_PMD_NR / 2 - 1, 1, 0, 0, 1);
	folio_put(dst.pin);

	dst = dst_init();
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_moved(test, 0, alternate, &dst);
	expect_not_isolated(test);
}

/*
 * C4: pieces get as many passes as any other folio: ten for MIGRATE_ASYNC.
 * Stock puts them on split_folios, where there is one.
 */
static void piece_gets_all_passes(struct kunit *test)
{
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, alternate);
	isolate(test, folio, &list);

	dst.lock = (struct folio *)folio_page(folio, 4);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 1);
	KUNIT_EXPECT_EQ(test, dst.nr_calls_lock, 10);
	KUNIT_EXPECT_EQ(test, list_len(&list), 1);
	folio_unlock(dst.lock);

	dst = dst_init();
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	expect_not_isolated(test);
}

#ifdef HAVE_SPLIT_TO_ORDER
/* What the event mm_migrate_pages says of splits */
struct splits {
	struct task_struct *task;
	unsigned long thps, folios;
};

static void splits_probe(void *data, unsigned long succeeded, unsigned long failed,
			 unsigned long thp_succeeded, unsigned long thp_failed,
			 unsigned long thp_split, unsigned long large_folio_split,
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

/*
 * C3, C5, C7: a large piece that is unmapped in part before its turn comes waits
 * to be split in its turn, and is.  That is another split, but not of a THP.
 */
static void piece_is_split_again(struct kunit *test)
{
	struct splits splits = { .task = current };
	struct shape shape = blocks;
	struct dst dst = dst_init();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape);
	isolate(test, folio, &list);

	/* The first 16 pages have had their turn by then, or come last. */
	dst.zap_call = 0;
	dst.zap_addr = thp_addr(test, 0) + (HPAGE_PMD_NR / 2 + 15) * PAGE_SIZE;
	KUNIT_ASSERT_EQ(test, register_trace_mm_migrate_pages(splits_probe, &splits), 0);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	unregister_trace_mm_migrate_pages(splits_probe, &splits);
	tracepoint_synchronize_unregister();
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	KUNIT_EXPECT_EQ(test, splits.thps, 1);
	KUNIT_EXPECT_EQ(test, splits.folios, 2);
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

#endif
/* With a pin on the page at @addr a whole THP stays as it is; without, it moves. */
static void expect_pin_keeps(struct kunit *test, struct folio *folio,
			     unsigned long addr)
{
	struct dst dst = dst_init();
	struct page *page;
	LIST_HEAD(list);

	KUNIT_ASSERT_EQ(test, pin_user_pages_fast(addr, 1, FOLL_WRITE, &page), 1);
	isolate(test, folio, &list);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	KUNIT_EXPECT_EQ(test, list_len(&list), 1);
	expect_events(test, 0, HPAGE_PMD_NR, 0, 1, 0);
	expect_pages(test, 0, whole, 0, -1);
	unpin_user_page(page);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_moved(test, 0, whole, &dst);
	expect_not_isolated(test);
}

/*
 * C9: a whole THP with a pin cannot be unmapped, which is no reason to split it or
 * to give up on others.  Stock passes.
 */
static void whole_is_pinned(struct kunit *test)
{
	expect_pin_keeps(test, thp_make(test, 0), thp_addr(test, 0));
}

/*
 * C9: nor can one with a pin on a page in its middle.  Its first half is not
 * exclusive, as after a fork(), and has given way to migration entries by then:
 * those are taken back.  Stock passes.
 */
static void whole_is_pinned_in_the_middle(struct kunit *test)
{
	unsigned long addr = thp_addr(test, 0);
	struct mm_struct *mm = current->mm;
	struct folio *folio;
	pmd_t *pmd;
	pte_t *pte;
	int i;

	folio = thp_make_pte_mapped(test, 0);
	pmd = mm_find_pmd(mm, addr);
	/* Sparse does not see what pte_offset_map_lock() takes */
	pte = pte_offset_kernel(pmd, addr);
	spin_lock(pte_lockptr(mm, pmd));
	for (i = 0; i < HPAGE_PMD_NR / 2; i++) {
		ptep_set_wrprotect(mm, addr + i * PAGE_SIZE, pte + i);
		ClearPageAnonExclusive(folio_page(folio, i));
	}
	spin_unlock(pte_lockptr(mm, pmd));
	flush_tlb_mm(mm);

	expect_pin_keeps(test, folio, addr + HPAGE_PMD_SIZE / 2);
}

/*
 * C5, C6: a list of all sorts: a whole THP, one to be split, one that cannot
 * be, and one more to be split.  Only the one comes back.
 */
static void mixed_list(struct kunit *test)
{
	const struct mode_case *c = test->param_value;
	struct dst dst = dst_init();
	struct folio *pinned;
	LIST_HEAD(list);

	isolate(test, thp_make(test, 1), &list);
	isolate(test, thp_make_partial(test, 2, alternate), &list);
	pinned = thp_make_partial(test, 0, half);
	isolate(test, pinned, &list);
	isolate(test, thp_make_partial(test, 3, one), &list);

	folio_get(pinned);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 1);
	KUNIT_EXPECT_EQ(test, list_len(&list), 1);
	KUNIT_EXPECT_PTR_EQ(test, list_first_entry(&list, struct folio, lru),
			    pinned);
	expect_events(test, HPAGE_PMD_NR + HPAGE_PMD_NR / 2 + 1, HPAGE_PMD_NR,
		      1, 1, 2);
	expect_moved(test, 1, whole, &dst);
	expect_moved(test, 2, alternate, &dst);
	expect_moved(test, 3, one, &dst);
	folio_put(pinned);

	expect_migrates_now(test, &list, &dst, c->mode);
}

/*
 * C4, C5, C6: in one batch, where there are batches: a folio that is split, one that
 * is and one that is not partially mapped and fails for good, and one that is tried
 * again to the end.  Each is counted once, and nothing but the pieces moves.
 */
static void failures_in_a_batch(struct kunit *test)
{
#ifndef HAVE_SPLIT_TO_ORDER
	const unsigned long size = HPAGE_PMD_SIZE;
#else
	const unsigned long size = HPAGE_PMD_SIZE / 4;
#endif
	unsigned long addr = thp_addr(test, 0), nr = size / PAGE_SIZE;
	bool thp = size == HPAGE_PMD_SIZE;
	struct dst dst = dst_init();
	struct folio *folio[4];
	LIST_HEAD(list);
	int i;

#ifndef HAVE_SPLIT_TO_ORDER
	for (i = 0; i < 4; i++)
		thp_make(test, i);
#else
	thp_make_split(test, 0, HPAGE_PMD_ORDER - 2);
#endif
	for (i = 0; i < 4; i++) {
		folio[i] = folio_at(test, addr + i * size);
		if (i != 3)
			advise(test, addr + i * size + size / 2, size / 2,
			       MADV_DONTNEED);
		isolate(test, folio[i], &list);
	}
	start_writeback(folio[1]);
	folio_get(folio[2]);
	start_writeback(folio[3]);

	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 3);
	KUNIT_EXPECT_EQ(test, list_len(&list), 3);
	expect_events(test, nr / 2, 3 * nr, 0, thp ? 3 : 0, thp ? 1 : 0);
	KUNIT_EXPECT_EQ(test, folio_nid(folio_at(test, addr)), dst.nid);
	for (i = 1; i < 4; i++)
		KUNIT_EXPECT_PTR_EQ(test, folio_at(test, addr + i * size), folio[i]);

	folio_end_writeback(folio[1]);
	folio_put(folio[2]);
	folio_end_writeback(folio[3]);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_ASYNC, NULL), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, 2 * nr, 0, thp ? 1 : 0, 0, thp ? 2 : 0);
	for (i = 0; i < 4; i++)
		expect_tokens(test, addr + i * size,
			      addr + i * size + (i == 3 ? size : size / 2));
	expect_not_isolated(test);
}

struct traced {
	struct task_struct *task;
	int nr;
	unsigned long pfn;
	unsigned int order, nr_mapped;
	enum migrate_split_action action;
	int error;
};

static void trace_probe(void *data, unsigned long pfn, unsigned int order,
			unsigned int nr_mapped,
			enum migrate_split_action action, int error)
{
	struct traced *traced = data;

	if (current != traced->task)
		return;
	traced->nr++;
	traced->pfn = pfn;
	traced->order = order;
	traced->nr_mapped = nr_mapped;
	traced->action = action;
	traced->error = error;
}

static void expect_traced(struct kunit *test, struct traced *traced, int nr,
			  struct folio *folio, unsigned int nr_mapped,
			  enum migrate_split_action action, int error)
{
	KUNIT_EXPECT_EQ(test, traced->nr, nr);
	KUNIT_EXPECT_EQ(test, traced->pfn, folio_pfn(folio));
	KUNIT_EXPECT_EQ(test, traced->order, HPAGE_PMD_ORDER);
	KUNIT_EXPECT_EQ(test, traced->nr_mapped, nr_mapped);
	KUNIT_EXPECT_EQ(test, traced->action, action);
	KUNIT_EXPECT_EQ(test, traced->error, error);
	traced->nr = 0;
}

/* C10: each decision about a folio on the queue is traced, and no other */
static void decisions_are_traced(struct kunit *test)
{
	struct folio *part, *stale, *stale_pmd;
	struct dst dst = dst_init();
	struct traced traced = { .task = current };
	LIST_HEAD(whole_list);
	LIST_HEAD(part_list);
	LIST_HEAD(stale_list);
	LIST_HEAD(stale_pmd_list);

	part = thp_make_partial(test, 0, half);
	stale = thp_make_pte_mapped(test, 1);
	deferred_split_folio(stale, true);
	stale_pmd = thp_make(test, 3);
	deferred_split_folio(stale_pmd, true);
	isolate(test, thp_make(test, 2), &whole_list);
	isolate(test, part, &part_list);
	isolate(test, stale, &stale_list);
	isolate(test, stale_pmd, &stale_pmd_list);
	KUNIT_ASSERT_EQ(test, register_trace_mm_migrate_split_pending(trace_probe,
								      &traced), 0);

	migrate_mode(&whole_list, &dst, MIGRATE_ASYNC, NULL);
	KUNIT_EXPECT_EQ(test, traced.nr, 0);

	folio_get(part);
	migrate_mode(&part_list, &dst, MIGRATE_ASYNC, NULL);
	expect_traced(test, &traced, 10, part, HPAGE_PMD_NR / 2,
		      MIGRATE_SPLIT_FAIL, -EAGAIN);

	folio_put(part);
	folio_lock(part);
	migrate_mode(&part_list, &dst, MIGRATE_ASYNC, NULL);
	expect_traced(test, &traced, 10, part, HPAGE_PMD_NR / 2,
		      MIGRATE_SPLIT_FAIL, -EAGAIN);

	/* Not tried again */
	folio_unlock(part);
	start_writeback(part);
	migrate_mode(&part_list, &dst, MIGRATE_ASYNC, NULL);
	expect_traced(test, &traced, 1, part, HPAGE_PMD_NR / 2,
		      MIGRATE_SPLIT_FAIL, -EBUSY);

	folio_end_writeback(part);
	migrate_mode(&part_list, &dst, MIGRATE_ASYNC, NULL);
	expect_traced(test, &traced, 1, part, HPAGE_PMD_NR / 2,
		      MIGRATE_SPLIT_SPLIT, 0);

	migrate_mode(&stale_list, &dst, MIGRATE_ASYNC, NULL);
	expect_traced(test, &traced, 1, stale, HPAGE_PMD_NR,
		      MIGRATE_SPLIT_WHOLE, 0);

	migrate_mode(&stale_pmd_list, &dst, MIGRATE_ASYNC, NULL);
	expect_traced(test, &traced, 1, stale_pmd, HPAGE_PMD_NR,
		      MIGRATE_SPLIT_WHOLE, 0);

	unregister_trace_mm_migrate_split_pending(trace_probe, &traced);
	tracepoint_synchronize_unregister();
	expect_not_isolated(test);
}

/*
 * C2, C3: what is mapped is counted under the folio lock: if the rest is unmapped
 * while the migration waits for it, which it does after three tries without, there
 * is nothing to split, nor to copy.
 * Stock copies the folio, if it gets to it.
 */
static void unmapped_while_waiting(struct kunit *test)
{
	struct unlock_work unlock = { .mm = current->mm };
	struct traced traced = { .task = current };
	struct dst dst = dst_init();
	LIST_HEAD(list);

	unlock.folio = thp_make_partial(test, 0, half);
	unlock.addr = thp_addr(test, 0);
	isolate(test, unlock.folio, &list);
	KUNIT_ASSERT_EQ(test, register_trace_mm_migrate_split_pending(trace_probe,
								      &traced), 0);

	INIT_WORK_ONSTACK(&unlock.work, unlock_fn);
	folio_lock(unlock.folio);
	schedule_work(&unlock.work);
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	flush_work(&unlock.work);
	destroy_work_on_stack(&unlock.work);
	unregister_trace_mm_migrate_split_pending(trace_probe, &traced);
	tracepoint_synchronize_unregister();

	expect_traced(test, &traced, 4, unlock.folio, 0, MIGRATE_SPLIT_WHOLE, 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_not_isolated(test);
}

#ifndef HAVE_MIGRATE_FOLIO
static void pin_probe(void *data, unsigned long pfn, unsigned int order,
		      unsigned int nr_mapped, enum migrate_split_action action,
		      int error)
{
	struct folio *piece = data;

	if (action == MIGRATE_SPLIT_SPLIT &&
	    pfn == ALIGN_DOWN(folio_pfn(piece), HPAGE_PMD_NR))
		folio_get(piece);
}

/*
 * C6: migrate_misplaced_page() puts back what is left of the page it was given,
 * which need not be that page: here, a piece from its middle that is pinned as
 * soon as it is one.
 * Stock puts back the page it was given, and BUG_ON()s if anything is left then.
 */
static void numa_balancing_puts_back(struct kunit *test)
{
	unsigned long addr = thp_addr(test, 0) + 7 * PAGE_SIZE;
	struct dst dst = dst_init();
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
	KUNIT_ASSERT_EQ(test, register_trace_mm_migrate_split_pending(pin_probe,
								      piece), 0);
	mmap_read_lock(current->mm);
	vma = vma_lookup(current->mm, addr);
	folio_get(folio);
	KUNIT_EXPECT_EQ(test, migrate_misplaced_page(&folio->page, vma, dst.nid),
			0);
	mmap_read_unlock(current->mm);
	unregister_trace_mm_migrate_split_pending(pin_probe, piece);
	tracepoint_synchronize_unregister();

	expect_events(test, 0, 1, 0, 0, 1);
	KUNIT_EXPECT_PTR_EQ(test, folio_at(test, addr), piece);
	lru_add_drain_all();
	KUNIT_EXPECT_TRUE(test, folio_test_lru(piece));
	folio_put(piece);
	expect_not_isolated(test);
}

#endif
/* An mm of the test's own, with room for MAX_THPS THPs; it dies with us. */
static int migrate_init(struct kunit *test)
{
	unsigned long len = (MAX_THPS + 1) * HPAGE_PMD_SIZE;
	struct mm_struct *mm;
	struct ctx *ctx;

	if (!has_transparent_hugepage())
		kunit_skip(test, "no transparent hugepages");

	ctx = kunit_kzalloc(test, sizeof(*ctx), GFP_KERNEL);
	mm = mm_alloc();
	if (!ctx || !mm)
		return -ENOMEM;
	test->priv = ctx;

	mm->task_size = TASK_SIZE;
	arch_pick_mmap_layout(mm, &current->signal->rlim[RLIMIT_STACK]);
	kthread_use_mm(mm);
	set_cpus_allowed_ptr(current, cpumask_of_node(0));

	ctx->addr = vm_mmap(NULL, 0, len, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (IS_ERR_VALUE(ctx->addr))
		return ctx->addr;
	ctx->addr = ALIGN(ctx->addr, HPAGE_PMD_SIZE);
	ctx->isolated = nr_isolated();
	ctx->partially_mapped = nr_partially_mapped();
	all_vm_events(ctx->events);

	return do_madvise(mm, ctx->addr, MAX_THPS * HPAGE_PMD_SIZE,
			  MADV_HUGEPAGE);
}

static struct kunit_case migrate_test_cases[] = {
	/* What is split, and into what */
	KUNIT_CASE_PARAM(pieces_are_largest, shape_gen_params),
	KUNIT_CASE_PARAM(split_and_migrate, mode_gen_params),
#ifdef HAVE_SPLIT_TO_ORDER
	KUNIT_CASE_PARAM(piece_is_split_again, mode_gen_params),
	KUNIT_CASE(split_to_one_order),
	KUNIT_CASE(nothing_to_split),
#ifdef CONFIG_MEMORY_FAILURE
	KUNIT_CASE_PARAM(poisoned_page_is_kept_out, mode_gen_params),
#endif
#endif
	KUNIT_CASE_PARAM(unmapped_are_freed, mode_gen_params),
	/* What is not */
	KUNIT_CASE_PARAM(whole_is_left_alone, mode_gen_params),
	KUNIT_CASE_PARAM(whole_pte_mapped_hops, mode_gen_params),
	KUNIT_CASE_PARAM(whole_pte_mapped_fails, mode_gen_params),
	KUNIT_CASE_PARAM(stale_mark_is_not_believed, mode_gen_params),
	KUNIT_CASE_PARAM(file_thp_moves, mode_gen_params),
	/* What the queue is told */
	KUNIT_CASE(zapped_entry_is_noticed),
	KUNIT_CASE(zapped_entry_is_noticed_after_copy),
	KUNIT_CASE(pmd_gives_way),
	KUNIT_CASE(pmd_is_unmapped),
	KUNIT_CASE(huge_pmd_gets_in_front),
#ifdef HAVE_SPLIT_TO_ORDER
	KUNIT_CASE(zapped_entry_is_noticed_in_batch),
	KUNIT_CASE(zapped_entry_is_noticed_in_split),
	KUNIT_CASE(stale_plan_loses_nothing),
	KUNIT_CASE(entries_behind_are_left_alone),
	KUNIT_CASE(entries_behind_in_one_table),
	KUNIT_CASE(shrinker_keeps_locked),
#else
	KUNIT_CASE(whole_is_unqueued),
#endif
	/* Splits that fail */
	KUNIT_CASE_PARAM(split_fails_on_reference, mode_gen_params),
	KUNIT_CASE_PARAM(split_fails_on_shrinker_list, mode_gen_params),
#ifdef HAVE_QUEUE_IS_LIST_LRU
	KUNIT_CASE(destination_is_queued),
#endif
	KUNIT_CASE(split_fails_on_lock),
	KUNIT_CASE_PARAM(split_fails_on_lock_sync, sync_mode_gen_params),
	KUNIT_CASE(split_fails_on_writeback),
	KUNIT_CASE_PARAM(split_waits_for_lock, sync_mode_gen_params),
	KUNIT_CASE(split_waits_for_writeback),
	/* Pieces that fail */
	KUNIT_CASE_PARAM(no_destination, mode_gen_params),
	KUNIT_CASE_PARAM(destinations_run_out, mode_gen_params),
	KUNIT_CASE_PARAM(no_large_destination, mode_gen_params),
#ifdef HAVE_SPLIT_TO_ORDER
	KUNIT_CASE_PARAM(smaller_destinations, mode_gen_params),
	KUNIT_CASE_PARAM(zeroes_are_freed, mode_gen_params),
	KUNIT_CASE_PARAM(half_may_be_zeroes, mode_gen_params),
	KUNIT_CASE_PARAM(whole_zeroes_move, mode_gen_params),
	KUNIT_CASE(written_while_looked_at),
#endif
	KUNIT_CASE_PARAM(piece_fails, mode_gen_params),
	KUNIT_CASE(piece_gets_all_passes),
	KUNIT_CASE_PARAM(whole_is_pinned, mode_gen_params),
	KUNIT_CASE_PARAM(whole_is_pinned_in_the_middle, mode_gen_params),
	KUNIT_CASE_PARAM(mixed_list, mode_gen_params),
	KUNIT_CASE(failures_in_a_batch),
#ifndef HAVE_MIGRATE_FOLIO
	KUNIT_CASE(numa_balancing_puts_back),
#endif
	/* What is seen of it */
	KUNIT_CASE(decisions_are_traced),
	KUNIT_CASE_PARAM(unmapped_while_waiting, sync_mode_gen_params),
	{}
};

static struct kunit_suite migrate_suite = {
	.name = "migrate_deferred",
	.init = migrate_init,
	.test_cases = migrate_test_cases,
};

#ifndef HAVE_SPLIT_TO_ORDER
kunit_test_suites(&check_suite, &mapped_suite, &migrate_suite);
#else
kunit_test_suites(&check_suite, &plan_suite, &migrate_suite);
#endif

MODULE_DESCRIPTION("KUnit tests for migrating folios that wait to be split");
MODULE_LICENSE("GPL");
