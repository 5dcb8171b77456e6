// SPDX-License-Identifier: GPL-2.0
/*
 * What the event mm_migrate_split_deferred says of each decision.
 */
#include <trace/events/migrate_split.h>

#include "frame.h"

/* The events so far, and how many of them were looked at */
struct traced {
	struct task_struct *task;
	int nr, seen;
	struct traced_event {
		unsigned long pfn;
		unsigned int order, nr_mapped;
		enum migrate_split_action action;
		int error;
	} events[16];
};

static void probe_mm_migrate_split_deferred(void *data, unsigned long pfn,
					    unsigned int order, unsigned int nr_mapped,
					    enum migrate_split_action action, int error)
{
	struct traced *traced = data;
	int nr = traced->nr;

	if (current != traced->task)
		return;
	traced->nr++;
	if (nr < ARRAY_SIZE(traced->events))
		traced->events[nr] = (struct traced_event) {
			.pfn = pfn,
			.order = order,
			.nr_mapped = nr_mapped,
			.action = action,
			.error = error,
		};
}

DEFINE_PROBE(mm_migrate_split_deferred)

static struct traced *traced_begin(struct kunit *test)
{
	struct traced *traced = kunit_kzalloc(test, sizeof(*traced), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, traced);
	traced->task = current;
	return traced;
}

/* The next @nr events say this of @folio. */
static void expect_traced(struct kunit *test, struct traced *traced, int nr,
			  struct folio *folio, unsigned int nr_mapped,
			  enum migrate_split_action action, int error)
{
	const struct traced_event *event;

	for (; nr; nr--, traced->seen++) {
		KUNIT_ASSERT_LT(test, traced->seen, traced->nr);
		KUNIT_ASSERT_LT(test, traced->seen, (int)ARRAY_SIZE(traced->events));
		event = &traced->events[traced->seen];
		KUNIT_EXPECT_EQ(test, event->pfn, folio_pfn(folio));
		KUNIT_EXPECT_EQ(test, event->order, HPAGE_PMD_ORDER);
		KUNIT_EXPECT_EQ(test, event->nr_mapped, nr_mapped);
		KUNIT_EXPECT_EQ(test, event->action, action);
		KUNIT_EXPECT_EQ(test, event->error, error);
	}
}

static void expect_no_more_traced(struct kunit *test, struct traced *traced)
{
	KUNIT_EXPECT_EQ(test, traced->nr, traced->seen);
	traced->nr = 0;
	traced->seen = 0;
}

/* Migrate the list: there are @nr events, and they say this of @folio. */
static void expect_decision(struct kunit *test, struct traced *traced,
			    struct list_head *list, int nr, struct folio *folio,
			    unsigned int nr_mapped,
			    enum migrate_split_action action, int error)
{
	struct dst dst = default_dst();

	migrate_mode(list, &dst, MIGRATE_ASYNC, NULL);
	expect_traced(test, traced, nr, folio, nr_mapped, action, error);
	expect_no_more_traced(test, traced);
}

/* Each decision about a folio on the queue is traced, every time, and no other is. */
static void decisions_are_traced(struct kunit *test)
{
	struct folio *part, *stale, *stale_pmd;
	struct dst dst = default_dst();
	struct traced *traced = traced_begin(test);
	LIST_HEAD(whole_list);
	LIST_HEAD(part_list);
	LIST_HEAD(stale_list);
	LIST_HEAD(stale_pmd_list);

	part = thp_make_partial(test, 0, shape_half);
	stale = thp_make_pte_mapped(test, 1);
	deferred_split_folio(stale, true);
	stale_pmd = thp_make(test, 3);
	deferred_split_folio(stale_pmd, true);
	isolate(test, thp_make(test, 2), &whole_list);
	isolate(test, part, &part_list);
	isolate(test, stale, &stale_list);
	isolate(test, stale_pmd, &stale_pmd_list);
	hold_mm_migrate_split_deferred(test, traced);

	migrate_mode(&whole_list, &dst, MIGRATE_ASYNC, NULL);
	expect_no_more_traced(test, traced);

	folio_get(part);
	expect_decision(test, traced, &part_list, 10, part, HPAGE_PMD_NR / 2,
			MIGRATE_SPLIT_FAIL, -EAGAIN);

	folio_put(part);
	hold_lock(test, part);
	expect_decision(test, traced, &part_list, 10, part, HPAGE_PMD_NR / 2,
			MIGRATE_SPLIT_FAIL, -EAGAIN);

	/* Not tried again */
	drop_lock(test, part);
	hold_writeback(test, part);
	expect_decision(test, traced, &part_list, 1, part, HPAGE_PMD_NR / 2,
			MIGRATE_SPLIT_FAIL, -EBUSY);

	drop_writeback(test, part);
	expect_decision(test, traced, &part_list, 1, part, HPAGE_PMD_NR / 2,
			MIGRATE_SPLIT_SPLIT, 0);

	expect_decision(test, traced, &stale_list, 1, stale, HPAGE_PMD_NR,
			MIGRATE_SPLIT_WHOLE, 0);

	expect_decision(test, traced, &stale_pmd_list, 1, stale_pmd, HPAGE_PMD_NR,
			MIGRATE_SPLIT_WHOLE, 0);

	drop_mm_migrate_split_deferred(test, traced);
	expect_not_isolated(test);
}

/*
 * Mapped pages are counted under the folio lock.  After three tries without waiting, the
 * migration waits for that lock.  If the rest is unmapped meanwhile, there is nothing to
 * split, nor to copy.  Stock copies the folio, if it gets to it.
 */
static void unmapped_while_waiting(struct kunit *test)
{
	struct traced *traced = traced_begin(test);
	struct dst dst = default_dst();
	struct other_lock *other;
	struct folio *folio;
	LIST_HEAD(list);

	folio = thp_make_partial(test, 0, shape_half);
	isolate(test, folio, &list);
	hold_mm_migrate_split_deferred(test, traced);

	other = other_locks(test, folio, thp_addr(test, 0));
	KUNIT_EXPECT_EQ(test, migrate(test, &list, &dst), 0);
	expect_waited(test, other);
	drop_mm_migrate_split_deferred(test, traced);

	expect_traced(test, traced, 3, folio, HPAGE_PMD_NR / 2, MIGRATE_SPLIT_FAIL,
		      -EAGAIN);
	expect_traced(test, traced, 1, folio, 0, MIGRATE_SPLIT_WHOLE, 0);
	expect_no_more_traced(test, traced);
	KUNIT_EXPECT_EQ(test, list_len(&list), 0);
	KUNIT_EXPECT_EQ(test, dst.nr_pages, 0);
	expect_events(test, HPAGE_PMD_NR, 0, 1, 0, 0);
	expect_not_isolated(test);
}

static struct kunit_case cases[] = {
	KUNIT_CASE(decisions_are_traced),
	KUNIT_CASE_PARAM(unmapped_while_waiting, sync_mode_gen_params),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
