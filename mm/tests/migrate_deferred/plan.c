// SPDX-License-Identifier: GPL-2.0
/*
 * The pieces that a folio is to be split into, against an oracle that finds them
 * another way.
 */
#include <linux/prandom.h>

#include "frame.h"

/* What is known of each page, and the plan that is made of it */
struct plan {
	DECLARE_BITMAP(unmapped, HPAGE_PMD_NR);
	DECLARE_BITMAP(data, HPAGE_PMD_NR);
	DECLARE_BITMAP(border, HPAGE_PMD_NR);
	DECLARE_BITMAP(starts, HPAGE_PMD_NR);
	/* the oracle's */
	DECLARE_BITMAP(wanted, HPAGE_PMD_NR);
	DECLARE_BITMAP(stay, HPAGE_PMD_NR);
	/* as it was before the planning, for a message */
	DECLARE_BITMAP(data_before, HPAGE_PMD_NR);
	unsigned int order, max_order, max_none;
};

/* Too large for the stack where a THP has more than 512 pages */
static struct plan *plan_alloc(struct kunit *test)
{
	struct plan *plan = kunit_kzalloc(test, sizeof(*plan), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, plan);
	return plan;
}

static void plan_clear(struct plan *plan, unsigned int order,
		       unsigned int max_order, unsigned int max_none)
{
	memset(plan, 0, sizeof(*plan));
	plan->order = order;
	plan->max_order = max_order;
	plan->max_none = max_none;
}

/*
 * The best pieces for a block of 2^@order pages at @start, found by recursion: the
 * block itself if it can stay or go as a whole, else those of its halves.  A THP that
 * consists of such blocks must not have more than max_none zero-filled pages.
 */
static void plan_oracle(struct plan *plan, unsigned int start,
			unsigned int order)
{
	unsigned int i, zeroes = 0, nr_data = 0, nr = 1 << order;
	unsigned int per_thp = HPAGE_PMD_NR / nr;
	bool fits = order != 1 && order < plan->order, whole = true;

	for (i = start; i < start + nr; i++) {
		if (test_bit(i, plan->unmapped))
			whole = false;
		else if (test_bit(i, plan->data))
			nr_data++;
		else
			zeroes++;
		if (i > start && test_bit(i, plan->border))
			fits = false;
	}
	if (2 * zeroes > nr || zeroes * per_thp > plan->max_none ||
	    order > plan->max_order)
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
		.max_order = plan->max_order,
		.max_none = plan->max_none,
		.unmapped = plan->unmapped,
		.data = plan->data,
		.border = plan->border,
		.starts = plan->starts,
	};
	unsigned int nr = 1 << plan->order;

	bitmap_copy(plan->data_before, plan->data, HPAGE_PMD_NR);
	plan_oracle(plan, 0, plan->order);
	folio_split_plan(&split);
	if (bitmap_equal(plan->starts, plan->wanted, HPAGE_PMD_NR) &&
	    bitmap_equal(plan->data, plan->stay, HPAGE_PMD_NR))
		return;
	kunit_err(test, "unmapped %*pbl, data %*pbl, border %*pbl", nr,
		  plan->unmapped, nr, plan->data_before, nr, plan->border);
	KUNIT_FAIL(test, "order %u, max_order %u, max_none %u: starts %*pbl, wanted %*pbl",
		   plan->order, plan->max_order, plan->max_none, nr,
		   plan->starts, nr, plan->wanted);
}

/* What an administrator can set max_ptes_none to, the default first */
static const unsigned int plan_max_none[] = {
	HPAGE_PMD_NR - 1, 0, HPAGE_PMD_NR / 8, HPAGE_PMD_NR / 2 - 1
};

/*
 * All folios of order 2 and 3, each page unmapped, zero-filled or with data, in one
 * VMA, and with the border of one anywhere.
 */
static void plan_exhaustive(struct kunit *test)
{
	unsigned int order, border, none, map, m, i, nr, maps;
	struct plan *plan = plan_alloc(test);

	for (order = 2, maps = 81; order <= 3; order++, maps *= 81) {
		nr = 1 << order;
		for (m = 0; m < maps * nr * ARRAY_SIZE(plan_max_none); m++) {
			map = m % maps;
			border = m / maps % nr;
			none = m / maps / nr;
			plan_clear(plan, order, HPAGE_PMD_ORDER,
				   plan_max_none[none]);
			__set_bit(border, plan->border);
			for (i = 0; i < nr; i++, map /= 3) {
				if (map % 3 == 0)
					__set_bit(i, plan->unmapped);
				else if (map % 3 == 1)
					__set_bit(i, plan->data);
			}
			expect_best_plan(test, plan);
		}
	}
}

/* Orders from 4 on, by random runs of pages: from single ones to half of a THP */
static void plan_random(struct kunit *test)
{
	struct plan *plan = plan_alloc(test);
	const unsigned int largest = HPAGE_PMD_ORDER - 1;
	const u64 seed = 20240312;
	unsigned int i, max_order;
	struct rnd_state rnd;

	prandom_seed_state(&rnd, seed);
	for (i = 0; i < 5000; i++) {
		unsigned int start = 0, len, run = 1 << i % HPAGE_PMD_ORDER;

		/* That of the largest piece, and so no limit, for every other one */
		max_order = min(prandom_u32_state(&rnd) % (2 * largest), largest);
		plan_clear(plan, HPAGE_PMD_ORDER - i % (HPAGE_PMD_ORDER - 3),
			   max_order, plan_max_none[i % 4]);

		for (; start < 1 << plan->order; start += len) {
			len = prandom_u32_state(&rnd) % run + 1;
			len = min(len, (1 << plan->order) - start);
			switch (prandom_u32_state(&rnd) % (i & 1 ? 3 : 5)) {
			case 0:
				bitmap_set(plan->unmapped, start, len);
				break;
			case 1:
				break;
			default:
				bitmap_set(plan->data, start, len);
			}
			if (!(prandom_u32_state(&rnd) % 16))
				__set_bit(start, plan->border);
		}
		expect_best_plan(test, plan);
	}
}

#ifndef HAVE_SPLIT_BY_STEPS
#ifdef CONFIG_MEMCG
static void no_release(struct percpu_ref *ref)
{
}

/* Each piece is charged to the memcg of the folio, and holds a reference. */
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

kunit_test_suite(plan_suite);
