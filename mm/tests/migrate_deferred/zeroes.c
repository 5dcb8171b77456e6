// SPDX-License-Identifier: GPL-2.0
/*
 * Pages of a split folio that hold nothing but zeroes, on kernels that map the shared
 * zero page in place of them.
 */
#include <linux/migrate.h>
#include <trace/events/migrate.h>

#include "frame.h"

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
	unsigned int i, zero_pages = 0;
	spinlock_t *ptl;	/* of the PTEs */
	pte_t *pte;

	pte = thp_ptes(test, thp, &ptl) + first;
	spin_lock(ptl);
	for (i = 0; i < nr; i++)
		zero_pages += pte_present(ptep_get(pte + i)) &&
			      is_zero_pfn(pte_pfn(ptep_get(pte + i)));
	spin_unlock(ptl);
	KUNIT_EXPECT_EQ_MSG(test, zero_pages, zeroed ? nr : 0, "from page %u",
			    first);
}

/*
 * Blocks of zeroes become the shared zero page.  They are neither given a destination
 * nor counted as migrated.
 */
static void zeroes_are_freed(struct kunit *test)
{
	struct dst dst = default_dst();
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

/* A piece is zero-filled by half at most, and such zeroes move with it. */
static void half_may_be_zeroes(struct kunit *test)
{
	struct dst dst = default_dst();
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

/*
 * If the piece is split once more, as there is no destination of its size, the part that
 * holds nothing but zeroes is freed.
 */
static void zeroes_of_split_piece_are_freed(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	thp_zero(test, 0, 64, 64);
	advise(test, thp_addr(test, 0) + HPAGE_PMD_SIZE / 4, 3 * HPAGE_PMD_SIZE / 4,
	       MADV_DONTNEED);
	isolate(test, folio, &list);

	dst.max_order = 6;
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_events(test, 64, 0, 0, 0, 1);
	/* the first call is for the whole piece */
	KUNIT_EXPECT_EQ(test, dst.nr_calls, 2);
	expect_order(test, 0, 0, dst.nid, 6);
	expect_zeroed(test, 0, 0, 64, false);
	expect_zeroed(test, 0, 64, 64, true);
	expect_not_isolated(test);
}

/* Nothing of a folio that is mlocked is taken for zeroes. */
static void mlocked_zeroes_move(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	thp_zero(test, 0, 64, HPAGE_PMD_NR / 2 - 64);
	advise(test, thp_addr(test, 0) + HPAGE_PMD_SIZE / 2, HPAGE_PMD_SIZE / 2,
	       MADV_DONTNEED);
	isolate(test, folio, &list);
	/* Clearing the flag subtracts this from NR_MLOCK. */
	zone_stat_mod_folio(folio, NR_MLOCK, HPAGE_PMD_NR);
	folio_set_mlocked(folio);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	expect_order(test, 0, 0, dst.nid, HPAGE_PMD_ORDER - 1);
	expect_zeroed(test, 0, 0, HPAGE_PMD_NR / 2, false);
	expect_not_isolated(test);
}

/* What is whole is not looked into, whatever it contains. */
static void whole_zeroes_move(struct kunit *test)
{
	struct dst dst = default_dst();
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make(test, 0);
	thp_zero(test, 0, 0, HPAGE_PMD_NR);
	isolate(test, folio, &list);

	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_order(test, 0, 0, dst.nid, HPAGE_PMD_ORDER);
	expect_not_isolated(test);
}

#define NR_WRITTEN 4

/* Writes to a folio while it is split. */
struct late_writer {
	struct task_struct *task;
	struct folio *folio;
	enum { NOT_YET, HAS_REF, HAS_WRITTEN } state;
};

static void __maybe_unused late_write(struct late_writer *w)
{
	int i;

	for (i = 0; i < NR_WRITTEN; i++)
		memset(page_address(folio_page(w->folio, i)), 1, sizeof(long));
	w->state = HAS_WRITTEN;
}

#ifdef HAVE_SPLIT_BY_STEPS
/* The contents are read later, when all of the folio is unmapped. */
static void probe_set_migration_pte(void *data, unsigned long addr, unsigned long pte,
				    int order)
{
	struct late_writer *w = data;

	if (current == w->task && w->state == NOT_YET)
		late_write(w);
}
#else
/* A page is about to be unmapped: until then, anybody can have a reference. */
static void probe_set_migration_pte(void *data, unsigned long addr, unsigned long pte,
				    int order)
{
	struct late_writer *w = data;

	if (current != w->task || w->state != NOT_YET)
		return;
	w->state = HAS_REF;
	folio_get(w->folio);
}

#ifdef CONFIG_LOCKDEP
/* The queue's lock is about to be taken. */
static void write_and_put(void *data)
{
	struct late_writer *w = data;

	if (w->state != HAS_REF || folio_mapped(w->folio))
		return;
	late_write(w);
	folio_put(w->folio);
}
#endif

/* The queue's lock is taken after the look at the contents, and before the split. */
static void write_before_split(struct kunit *test, struct late_writer *w)
{
#ifdef CONFIG_LOCKDEP
	watch_lock(test, &(struct lock_watch) {
		.lock = queue_lockdep_map(w->folio),
		.acquire = write_and_put,
		.data = w,
	});
#else
	kunit_skip(test, "only lockdep tells when a lock is taken");
#endif
}
#endif

DEFINE_PROBE(set_migration_pte)

/*
 * What is written by a reference while the contents are looked at is not taken for
 * zeroes, even if the reference has gone when the folio is split.  Stock looks
 * afterwards.
 */
static void written_while_looked_at(struct kunit *test)
{
	struct dst dst = default_dst();
	struct late_writer *w;
	unsigned long word;
	LIST_HEAD(list);
	int i;

	w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, w);
	w->task = current;
	w->folio = thp_make(test, 0);
	thp_zero(test, 0, 0, HPAGE_PMD_NR);
	advise(test, thp_addr(test, 0) + HPAGE_PMD_SIZE - PAGE_SIZE, PAGE_SIZE,
	       MADV_DONTNEED);
#ifndef HAVE_SPLIT_BY_STEPS
	write_before_split(test, w);
#endif
	isolate(test, w->folio, &list);
	hold_set_migration_pte(test, w);
	KUNIT_EXPECT_EQ(test, migrate_mode(&list, &dst, MIGRATE_SYNC, NULL), 0);
	drop_set_migration_pte(test, w);
	KUNIT_EXPECT_EQ(test, w->state, HAS_WRITTEN);
	/* Nothing is written from now on. */
	if (xchg(&w->state, HAS_WRITTEN) == HAS_REF)
		folio_put(w->folio);
	for (i = 0; i < NR_WRITTEN; i++) {
		KUNIT_EXPECT_EQ(test, get_user(word, user_word(thp_addr(test, 0) +
							       i * PAGE_SIZE)), 0);
		KUNIT_EXPECT_NE(test, word, 0UL);
	}
	expect_not_isolated(test);
}

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(zeroes_are_freed, mode_gen_params),
	KUNIT_CASE_PARAM(half_may_be_zeroes, mode_gen_params),
	KUNIT_CASE_PARAM(zeroes_of_split_piece_are_freed, mode_gen_params),
	KUNIT_CASE_PARAM(mlocked_zeroes_move, mode_gen_params),
	KUNIT_CASE_PARAM(whole_zeroes_move, mode_gen_params),
	KUNIT_CASE(written_while_looked_at),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
