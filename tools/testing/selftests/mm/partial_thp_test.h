/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the programs for partially mapped THPs do with kselftest_harness.h: say what
 * they need, and what they expect of a region.  Include the harness first.
 */
#ifndef __PARTIAL_THP_TEST_H
#define __PARTIAL_THP_TEST_H

#include "partial_thp.h"

/* Emulators with a debug kernel are slow, and nothing here is about time. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 300

/* Has the test failed, up to here? */
static inline bool has_failed(const struct __test_metadata *_metadata)
{
#ifdef HAVE_HARNESS_EXIT_CODE
	return _metadata->exit_code != KSFT_PASS;
#else
	return !_metadata->passed;
#endif
}

/*
 * Skip the test, by @leave, if @ok does not hold; the rest is the reason, as for printf.  A
 * test that has failed stays failed.
 */
#define requires(leave, ok, ...)			\
	do {						\
		if (!(ok)) {				\
			if (!has_failed(_metadata))	\
				SKIP((void)0, __VA_ARGS__); \
			leave;				\
		}					\
	} while (0)

#ifdef HAVE_HARNESS_EXIT_CODE
#define leave_setup(leave)	leave
#else
/* This harness would run the test.  It takes 255 for skipped. */
#define leave_setup(leave)	_exit(255)
#endif

/* The same in a setup, of which no teardown follows then */
#define setup_requires(leave, ok, ...)				\
	do {							\
		if (!(ok)) {					\
			pthp_restore();				\
			SKIP(leave_setup(leave), __VA_ARGS__);	\
		}						\
	} while (0)

/*
 * What all of the programs need; false if the test is skipped.  Teardown has to call
 * pthp_restore().
 */
static inline bool test_setup(struct __test_metadata *_metadata)
{
	struct pthp_vmstat v;

	setup_requires(return false, !geteuid(), "needs root");
	setup_requires(return false, thp_is_enabled() && pthp_pmd_order(),
		       "transparent huge pages are not enabled");
	setup_requires(return false, pthp_vmstat_read(&v),
		       "/proc/vmstat lacks migration events");
	pthp_keep_out();
	return true;
}

/* Likewise, with two nodes to migrate between */
static inline bool test_setup_nodes(struct __test_metadata *_metadata, int *src, int *dst)
{
	setup_requires(return false, pthp_two_nodes(src, dst), "needs two nodes with memory");
	return test_setup(_metadata);
}

static inline void expect_delta(struct __test_metadata *_metadata,
				const struct pthp_vmstat *delta, enum pthp_event event,
				long want)
{
	EXPECT_EQ(want, delta->v[event]) {
		TH_LOG("%s: expected +%ld, got +%ld", pthp_event_names[event],
		       want, delta->v[event]);
	}
}

/* @got are the folios of a region, so many of each order. */
static inline void expect_same_orders(struct __test_metadata *_metadata,
				      const unsigned int *want, const unsigned int *got)
{
	char want_str[128], got_str[128];

	EXPECT_EQ(0, memcmp(want, got, (PTHP_MAX_ORDER + 1) * sizeof(*want))) {
		TH_LOG("folios (order:number): expected %s, got %s",
		       pthp_orders_str(want, want_str, sizeof(want_str)),
		       pthp_orders_str(got, got_str, sizeof(got_str)));
	}
}

static inline void expect_orders(struct __test_metadata *_metadata,
				 const struct pthp *r, const unsigned int *want)
{
	struct pthp_census c;

	EXPECT_TRUE(pthp_census_take(r, &c));
	expect_same_orders(_metadata, want, c.orders);
	pthp_census_drop(&c);
}

/* Folios hold mapped pages only, and none is left where the region was. */
static inline void expect_given_back(struct __test_metadata *_metadata,
				     const struct pthp *r)
{
	struct pthp_census c;

	EXPECT_TRUE(pthp_census_take(r, &c));
	EXPECT_EQ(r->nr_mapped, c.held) {
		TH_LOG("%u pages are mapped, %lu are held", r->nr_mapped,
		       c.held);
	}
	EXPECT_EQ(0, pthp_left_behind(r));
	pthp_census_drop(&c);
}

/* Which pages, mapped ones or @others, have @bit in their pagemap entry?  How many? */
static inline unsigned int pages_with_bit(const struct pthp *r, const bool *others,
					  uint64_t bit, bool *has)
{
	unsigned int page, nr = 0;

	for (page = 0; page < r->nr; page++) {
		has[page] = (r->mapped[page] || (others && others[page])) &&
			    pagemap_get_entry(r->pagemap, pthp_addr(r, page)) & bit;
		nr += has[page];
	}
	return nr;
}

/* Migrate, and see that @bit survives on the pages that have it, and no more. */
static inline void expect_bit_survives(struct __test_metadata *_metadata,
				       struct pthp *r, const bool *others,
				       uint64_t bit, int from, int to)
{
	bool *before = calloc(r->nr, sizeof(*before));
	bool *after = calloc(r->nr, sizeof(*after));
	unsigned int nr, page, all = 0, bad = 0;

	ASSERT_TRUE(before && after);
	nr = pages_with_bit(r, others, bit, before);
	EXPECT_LT(0, nr);
	EXPECT_EQ(0, pthp_migrate(r, PTHP_MOVE_PAGES, from, to));
	EXPECT_EQ(nr, pages_with_bit(r, others, bit, after));
	for (page = 0; page < r->nr; page++) {
		all += r->mapped[page] || (others && others[page]);
		bad += before[page] != after[page];
	}
	EXPECT_GT(all, nr);
	EXPECT_EQ(0, bad);
	free(before);
	free(after);
}

/* Is each page, most of the time, right behind the one before in physical memory? */
static inline bool ascending(struct __test_metadata *_metadata, const struct pthp *r,
			     const char *what)
{
	unsigned int up = 0, down = 0, page;
	unsigned long pfn, last = 0;

	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page])
			continue;
		pfn = pagemap_get_pfn(r->pagemap, pthp_addr(r, page));
		up += pfn == last + 1;
		down += pfn == last - 1;
		last = pfn;
	}
	TH_LOG("%s: of %u pages %u are behind the one before, %u in front",
	       what, r->nr_mapped, up, down);
	return up > r->nr_mapped / 2;
}

#endif /* __PARTIAL_THP_TEST_H */
