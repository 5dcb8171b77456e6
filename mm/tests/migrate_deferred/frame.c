// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the migration of folios that wait to be split.
 *
 * When part of a large anonymous folio is unmapped, the folio is put on the
 * deferred split queue.  migrate_pages() has to find it there, split it, free
 * what nobody maps and migrate the rest, or else fail the migration of that
 * folio; and it must tell its caller and vmstat the truth about it.
 *
 * The suite migrate_deferred runs migrate_pages() on real folios mapped by an mm of
 * the test's own, in each mode.  Failures are provoked from get_new_folio(), from a
 * trace event, or around migrate_pages().  Where somebody waits for a lock or for writeback,
 * another thread or a timer ends that.
 *
 * This file has what the others stand on: an mm, folios, mappings and expectations.
 * held.c has what is held or watched meanwhile.  frame.h describes that, and what is for
 * cases and modes.
 */
#include <linux/sched/mm.h>

#include "frame.h"

const struct shape shape_whole = { "whole", 1, 1 };
const struct shape shape_half = { "first half", HPAGE_PMD_NR, HPAGE_PMD_NR / 2 };
const struct shape shape_one = { "one page", HPAGE_PMD_NR, 1 };
const struct shape shape_alternate = { "alternate pages", 2, 1 };
const struct shape shape_blocks = { "every other 16 pages", 32, 16 };

static const struct mode_case modes[] = {
	{ .desc = "MIGRATE_ASYNC", .mode = MIGRATE_ASYNC },
	{ .desc = "MIGRATE_SYNC_LIGHT", .mode = MIGRATE_SYNC_LIGHT },
	{ .desc = "MIGRATE_SYNC", .mode = MIGRATE_SYNC },
};

static const void *mode_gen(const struct mode_case *next, char *desc)
{
	if (next == modes + ARRAY_SIZE(modes))
		return NULL;
	strscpy(desc, next->desc, KUNIT_PARAM_DESC_SIZE);
	return next;
}

#ifdef HAVE_API_2026
const void *mode_gen_params(struct kunit *test, const void *prev, char *desc)
#else
const void *mode_gen_params(const void *prev, char *desc)
#endif
{
	return mode_gen(prev ? prev + sizeof(*modes) : &modes[0], desc);
}

#ifdef HAVE_API_2026
const void *sync_mode_gen_params(struct kunit *test, const void *prev, char *desc)
#else
const void *sync_mode_gen_params(const void *prev, char *desc)
#endif
{
	return mode_gen(prev ? prev + sizeof(*modes) : &modes[1], desc);
}

/**
 * default_dst - Destinations as most tests want them.
 *
 * They are on the first node with memory behind node 0, or on node 0 if there is none.
 * None is refused, and nothing is locked, pinned or zapped.
 *
 * Return: what migrate_mode() takes.
 */
struct dst default_dst(void)
{
	int nid = next_node(0, node_states[N_MEMORY]);

	return (struct dst) {
		.nid = nid == MAX_NUMNODES ? 0 : nid,
		.reason = MR_SYSCALL,
		.refuse_from = -1,
		.max_order = HPAGE_PMD_ORDER,
		.zap_call = -1,
		.zap_len = PAGE_SIZE,
	};
}

static struct folio *dst_get(struct folio *src, unsigned long private)
{
	struct dst *dst = (struct dst *)private;
	unsigned int order = folio_order(src);
	int call = dst->nr_calls++;
	struct folio *folio;

	if (!call && dst->lock)
		folio_lock(dst->lock);
	if (!call && dst->other)
		other_locks_now(dst->other);
	if (!call && dst->pin)
		folio_get(dst->pin);
	if (call == dst->zap_call)
		do_madvise(current->mm, dst->zap_addr, dst->zap_len, MADV_DONTNEED);
	if (src == dst->lock)
		dst->nr_calls_lock++;

	if (dst->refuse_from >= 0 && call >= dst->refuse_from)
		return NULL;
	if (order > dst->max_order)
		return NULL;

	folio = __folio_alloc_node(GFP_HIGHUSER_MOVABLE, order, dst->nid);
	if (folio)
		dst->nr_pages += 1 << order;
	return folio;
}

static void dst_put(struct folio *folio, unsigned long private)
{
	struct dst *dst = (struct dst *)private;

	dst->nr_pages -= folio_nr_pages(folio);
	folio_put(folio);
}
#ifndef HAVE_MIGRATE_FOLIO

static struct page *dst_get_page(struct page *page, unsigned long private)
{
	struct folio *folio = dst_get(page_folio(page), private);

	return folio ? &folio->page : NULL;
}

static void dst_put_page(struct page *page, unsigned long private)
{
	dst_put(page_folio(page), private);
}

#define dst_get dst_get_page
#define dst_put dst_put_page
#endif

/**
 * migrate_mode - Call migrate_pages().
 * @list: Isolated folios.  Those that are not migrated stay on it.
 * @dst: What the destinations are to be.  It gets what they were.
 * @mode: The mode.
 * @succeeded: How many pages were migrated; it may be NULL.
 *
 * Return: what migrate_pages() returns: 0, how many folios were not migrated, or a
 * negative error.
 */
int migrate_mode(struct list_head *list, struct dst *dst,
		 enum migrate_mode mode, unsigned int *succeeded)
{
	return migrate_pages(list, dst_get, dst_put, (unsigned long)dst, mode,
			     dst->reason, succeeded);
}

/* With what CPUs have not added up yet, unlike node_page_state() */
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

/**
 * nr_mthp - Read a statistic of folios of one order.
 * @order: The order.
 * @item: The statistic.
 *
 * Return: the sum over all possible CPUs.
 */
long nr_mthp(unsigned int order, enum mthp_stat_item item)
{
	long nr = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		nr += per_cpu(mthp_stats, cpu).stats[order][item];
	return nr;
}

/**
 * nr_partially_mapped - How many THPs count as partially mapped?
 *
 * Return: their number, in the whole system.
 */
long nr_partially_mapped(void)
{
	return nr_mthp(HPAGE_PMD_ORDER, MTHP_STAT_NR_ANON_PARTIALLY_MAPPED);
}
#endif

/**
 * expect_events - Expect that vmstat has counted these events, exactly.
 * @test: The test.
 * @success: pgmigrate_success, in pages.
 * @fail: pgmigrate_fail, in pages.
 * @thp_success: thp_migration_success, in THPs.
 * @thp_fail: thp_migration_fail, in THPs.
 * @thp_split: thp_migration_split, in THPs.
 *
 * They are those since the last isolate(), or the last call of this function.
 */
void expect_events(struct kunit *test, long success, long fail,
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

/* The page at @addr, without a reference: the mapping is what holds it */
static struct page *page_at(struct kunit *test, unsigned long addr)
{
	struct page *page;

	KUNIT_ASSERT_EQ(test, get_user_pages_fast(addr, 1, 0, &page), 1);
	put_page(page);
	return page;
}

/**
 * folio_at - Find the folio that is mapped at an address.
 * @test: The test.
 * @addr: The address, in the mm of the test.
 *
 * Context: May sleep.  Faults the page in if it is not there.
 * Return: the folio, without a reference: the mapping is what holds it.  The test
 * ends if there is none.
 */
struct folio *folio_at(struct kunit *test, unsigned long addr)
{
	return page_folio(page_at(test, addr));
}

/**
 * thp_make - Fault in a THP.
 * @test: The test.
 * @thp: Its number, below MAX_THPS.
 *
 * Each page is written its page_token().  khugepaged is kept from putting together
 * later what is taken apart.
 *
 * Return: the folio, without a reference.  The test ends if it is not a THP.
 */
struct folio *thp_make(struct kunit *test, int thp)
{
	unsigned long addr = thp_addr(test, thp), i;
	struct ctx *ctx = test->priv;
	struct folio *folio;

	for (i = addr; i < addr + HPAGE_PMD_SIZE; i += PAGE_SIZE)
		KUNIT_ASSERT_EQ(test, put_user(page_token(i), user_word(i)), 0);
	folio = folio_at(test, addr);
	KUNIT_ASSERT_EQ_MSG(test, folio_order(folio), HPAGE_PMD_ORDER,
			    "no THP to test with");
	advise(test, addr, HPAGE_PMD_SIZE, MADV_NOHUGEPAGE);
	ctx->pfn[thp] = folio_pfn(folio);
	return folio;
}

/**
 * thp_make_pte_mapped - Make a THP, and split its VMA and merge it again.
 * @test: The test.
 * @thp: Its number, below MAX_THPS.
 *
 * Return: what thp_make() returns.  It is mapped as a whole, but by PTEs.
 */
struct folio *thp_make_pte_mapped(struct kunit *test, int thp)
{
	struct folio *folio = thp_make(test, thp);

	advise(test, thp_addr(test, thp), PAGE_SIZE, MADV_DONTFORK);
	advise(test, thp_addr(test, thp), PAGE_SIZE, MADV_DOFORK);
	KUNIT_ASSERT_NOT_NULL(test, mm_find_pmd(current->mm, thp_addr(test, thp)));
	return folio;
}

/**
 * thp_make_partial - Make a THP, and unmap all of it that a shape does not have.
 * @test: The test.
 * @thp: Its number, below MAX_THPS.
 * @shape: What stays mapped, which is not all of it.
 *
 * Return: what thp_make() returns.  The test also ends if the THP does not wait to
 * be split.
 */
struct folio *thp_make_partial(struct kunit *test, int thp, struct shape shape)
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

/**
 * thp_make_split - Make a THP, and split it into folios of one order.
 * @test: The test.
 * @thp: Its number, below MAX_THPS.
 * @order: The order of the folios.  The test ends if it cannot be split.
 *
 * Context: Takes the folio lock meanwhile.
 */
void thp_make_split(struct kunit *test, int thp, unsigned int order)
{
	struct folio *folio = thp_make(test, thp);

	int err;

	folio_get(folio);
	folio_lock(folio);
	err = split_huge_page_to_list_to_order(&folio->page, NULL, order);
	folio_unlock(folio);
	folio_put(folio);
	KUNIT_ASSERT_EQ(test, err, 0);
}
#endif

/**
 * isolate - Isolate a folio as all callers of migrate_pages() do.
 * @test: The test.
 * @folio: The folio.  The test ends if it cannot be isolated.
 * @list: The list that it is added to, at the end.
 *
 * expect_events() counts from here on.
 */
void isolate(struct kunit *test, struct folio *folio, struct list_head *list)
{
	struct ctx *ctx = test->priv;

	KUNIT_ASSERT_TRUE(test, folio_isolate_lru(folio));
	list_add_tail(&folio->lru, list);
	node_stat_mod_folio(folio, NR_ISOLATED_ANON, folio_nr_pages(folio));

	/* What the making of the THPs took is of no interest. */
	all_vm_events(ctx->events);
}

/**
 * order_wanted - Which order must the folio of a page have?
 * @shape: What is mapped of the THP.
 * @i: Index of the page in the THP.
 *
 * It is found from the largest order down, by looking at each page, which is not how
 * the kernel goes about it.
 *
 * Return: the order of the largest naturally aligned block around the page in which
 * all pages are mapped; 0 instead of 1.  Where a THP can only be split into single
 * pages it is 0 unless all of it is mapped.
 */
unsigned int order_wanted(struct shape shape, unsigned int i)
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
 * Each mapped page has its content, and is in a folio of @order, or of the order wanted
 * if that is negative.  It has moved to @nid, or stayed in its page frame if that is
 * NUMA_NO_NODE.  On a machine with one node only the page frame tells whether it moved.
 * Tell the first page that is not as it should be.
 */
static void expect_pages(struct kunit *test, int thp, struct shape shape, int nid,
			 int order)
{
	unsigned long addr = thp_addr(test, thp), token;
	bool moved, to_move = nid != NUMA_NO_NODE;
	struct ctx *ctx = test->priv;
	struct page *page = NULL;
	struct folio *folio;
	unsigned int i;
	int want;

	for (i = 0; i < HPAGE_PMD_NR; i++, addr += PAGE_SIZE) {
		if (!page_mapped_in(shape, i))
			continue;
		want = order < 0 ? order_wanted(shape, i) : order;
		KUNIT_ASSERT_EQ(test, get_user(token, user_word(addr)), 0);
		page = page_at(test, addr);
		folio = page_folio(page);
		moved = page_to_pfn(page) != ctx->pfn[thp] + i;
		if (token != page_token(addr) || folio_order(folio) != want ||
		    moved != to_move || (to_move && folio_nid(folio) != nid))
			break;
	}
	if (i == HPAGE_PMD_NR) {
		/* As a whole it can be moved, and looked at, once more. */
		if (shape.period == shape.len)
			ctx->pfn[thp] = page_to_pfn(page) - (HPAGE_PMD_NR - 1);
		return;
	}

	KUNIT_EXPECT_EQ_MSG(test, token, page_token(addr), "page %u", i);
	KUNIT_EXPECT_EQ_MSG(test, moved, to_move, "page %u", i);
	if (to_move)
		KUNIT_EXPECT_EQ_MSG(test, folio_nid(folio), nid, "page %u", i);
	KUNIT_EXPECT_EQ_MSG(test, folio_order(folio), want, "page %u", i);
}

/**
 * expect_moved - Expect that all that is mapped of a THP moved, as large as can be.
 * @test: The test.
 * @thp: The number of the THP.
 * @shape: What is mapped.
 * @dst: Where it moved to.
 *
 * Each page has its token, and is in a folio of order_wanted().
 */
void expect_moved(struct kunit *test, int thp, struct shape shape, struct dst *dst)
{
	expect_pages(test, thp, shape, dst->nid, -1);
}

/**
 * expect_moved_in - Expect what expect_moved() does, but in folios of one order.
 * @test: The test.
 * @thp: The number of the THP.
 * @shape: What is mapped.
 * @dst: Where it moved to.
 * @order: The order of the folios.
 */
void expect_moved_in(struct kunit *test, int thp, struct shape shape,
		     struct dst *dst, unsigned int order)
{
	expect_pages(test, thp, shape, dst->nid, order);
}

/**
 * expect_stayed - Expect all that is mapped of a THP where it was, with its tokens.
 * @test: The test.
 * @thp: The number of the THP.
 * @shape: What is mapped.
 * @order: The order of the folios.
 */
void expect_stayed(struct kunit *test, int thp, struct shape shape,
		   unsigned int order)
{
	expect_pages(test, thp, shape, NUMA_NO_NODE, order);
}

/**
 * expect_order - Expect that one page of a THP moved, and where it is.
 * @test: The test.
 * @thp: The number of the THP.
 * @i: Index of the page in the THP.
 * @nid: The node that it moved to.
 * @order: The order of its folio.
 */
void expect_order(struct kunit *test, int thp, unsigned int i, int nid,
		  unsigned int order)
{
	struct page *page = page_at(test, thp_addr(test, thp) + i * PAGE_SIZE);
	struct ctx *ctx = test->priv;

	KUNIT_EXPECT_EQ_MSG(test, folio_order(page_folio(page)), order, "page %u", i);
	KUNIT_EXPECT_EQ_MSG(test, page_to_nid(page), nid, "page %u", i);
	KUNIT_EXPECT_NE_MSG(test, page_to_pfn(page), ctx->pfn[thp] + i, "page %u", i);
}

/**
 * expect_tokens - Expect what thp_make() has written, or what was written likewise.
 * @test: The test.
 * @addr: Address of the first page.
 * @end: Address behind the last page.
 *
 * The test ends at the first page that has something else.
 */
void expect_tokens(struct kunit *test, unsigned long addr, unsigned long end)
{
	unsigned long token;

	for (; addr < end; addr += PAGE_SIZE) {
		KUNIT_ASSERT_EQ(test, get_user(token, user_word(addr)), 0);
		KUNIT_ASSERT_EQ(test, token, page_token(addr));
	}
}

/**
 * expect_not_isolated - Expect as many isolated pages as when the test began.
 * @test: The test.
 */
void expect_not_isolated(struct kunit *test)
{
	struct ctx *ctx = test->priv;

	KUNIT_EXPECT_EQ(test, nr_isolated(), ctx->isolated);
}

/**
 * thp_ptes - Find the PTEs of a THP.
 * @test: The test.
 * @thp: The number of the THP, which is mapped by PTEs.
 * @ptl: The lock of the PTEs.
 *
 * Context: The caller has to take @ptl, as sparse does not see what
 * pte_offset_map_lock() takes.
 * Return: the PTE of the first page.
 */
pte_t *thp_ptes(struct kunit *test, int thp, spinlock_t **ptl)
{
	pmd_t *pmd = mm_find_pmd(current->mm, thp_addr(test, thp));

	*ptl = pte_lockptr(current->mm, pmd);
	return pte_offset_kernel(pmd, thp_addr(test, thp));
}

static void put_mm(void *mm)
{
	mmput(mm);
}

/* An mm of the test's own, with room for MAX_THPS THPs */
static int migrate_init(struct kunit *test)
{
	unsigned long len = (MAX_THPS + 1) * HPAGE_PMD_SIZE;
	struct ctx *ctx;

	if (!has_transparent_hugepage() ||
	    !(transparent_hugepage_flags & (BIT(TRANSPARENT_HUGEPAGE_FLAG) |
					    BIT(TRANSPARENT_HUGEPAGE_REQ_MADV_FLAG))))
		kunit_skip(test, "no transparent hugepages");

	ctx = kunit_kzalloc(test, sizeof(*ctx), GFP_KERNEL);
	if (!ctx)
		return -ENOMEM;
	test->priv = ctx;
	/* The thread is the test's own, and ends with it. */
	set_cpus_allowed_ptr(current, cpumask_of_node(0));

	ctx->addr = kunit_vm_mmap(test, NULL, 0, len, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (!ctx->addr || IS_ERR_VALUE(ctx->addr))
		return -ENOMEM;
	ctx->addr = ALIGN(ctx->addr, HPAGE_PMD_SIZE);
	/* What is held is dropped before the memory goes. */
	mmget(current->mm);
	at_end(test, put_mm, current->mm);

	ctx->isolated = nr_isolated();
	ctx->partially_mapped = nr_partially_mapped();
	all_vm_events(ctx->events);

	return do_madvise(current->mm, ctx->addr, MAX_THPS * HPAGE_PMD_SIZE,
			  MADV_HUGEPAGE);
}

static struct kunit_case migrate_cases[96];

int __init migrate_cases_add(struct kunit_case *cases)
{
	static int nr __initdata;

	/* The last one stays empty. */
	for (; cases->run_case; cases++) {
		if (WARN_ON(nr == ARRAY_SIZE(migrate_cases) - 1))
			return -ENOSPC;
		migrate_cases[nr++] = *cases;
	}
	return 0;
}

static struct kunit_suite migrate_suite = {
	.name = "migrate_deferred",
	.init = migrate_init,
	.test_cases = migrate_cases,
};

kunit_test_suite(migrate_suite);

MODULE_DESCRIPTION("KUnit tests for migrating folios that wait to be split");
MODULE_LICENSE("GPL");
