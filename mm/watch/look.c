// SPDX-License-Identifier: GPL-2.0
/*
 * The look at a list of folios that are about to be migrated, or that could not be.
 * Whoever calls migrate_pages() has isolated them and holds a reference on each, so
 * that none of them can go away, be put on another list or be given another memcg.
 */
#include <linux/bitmap.h>
#include <linux/module.h>

#include "watch.h"

#define CREATE_TRACE_POINTS
#include "migrate_watch.h"

/*
 * The functions of the series take split_queue_lock.  They act on the answer, and
 * this module only counts.  So it goes without: a probe of a function must not wait,
 * which on PREEMPT_RT a spinlock does, nor keep others from the queue.  The answer is
 * the same unless the folio is queued or taken off at this very moment, and then the
 * lock would only say which of the two came first.  Reading the list head is safe, as
 * the folio stays, and nothing that it points to is looked at.
 */
#define get_deferred_split_queue(folio)			\
	({ (void)(folio); (struct deferred_split *)NULL; })
#define folio_lock_split_queue(folio, flags)		\
	({ (void)(folio); *(flags) = 0; (struct deferred_split *)NULL; })
#define unlock_split_queue(queue, flags)		((void)(queue), (void)(flags))
#pragma push_macro("spin_lock_irqsave")
#pragma push_macro("spin_unlock_irqrestore")
#undef spin_lock_irqsave
#undef spin_unlock_irqrestore
#define spin_lock_irqsave(lock, flags)			((void)sizeof(lock), (flags) = 0)
#define spin_unlock_irqrestore(lock, flags)		((void)sizeof(lock), (void)(flags))
#include "series.h"
#pragma pop_macro("spin_lock_irqsave")
#pragma pop_macro("spin_unlock_irqrestore")

/*
 * Pages of folios that wait to be split, which may have to be looked at one by one:
 * 512 MiB are a millisecond or so with preemption off, for a call that takes seconds.
 */
#define MAX_PAGES		131072

/* Beyond that the look takes too long for a probe. */
#define MAX_MAX_WALK		(1u << 16)

unsigned int max_walk = 4096;
module_param(max_walk, uint, 0644);
MODULE_PARM_DESC(max_walk, "folios of a list that are looked at (4096)");

/* How many of its mapped pages can stay in large folios if it is split? */
static unsigned long pages_to_keep(struct folio *folio)
{
#ifdef HAVE_FOLIO_SPLIT_PLAN
	unsigned int nr = folio_nr_pages(folio), i, end;
	DECLARE_BITMAP(unmapped, HPAGE_PMD_NR);
	DECLARE_BITMAP(mapped, HPAGE_PMD_NR);
	DECLARE_BITMAP(border, HPAGE_PMD_NR);
	DECLARE_BITMAP(starts, HPAGE_PMD_NR);
	struct folio_split_plan plan = {
		.order = folio_order(folio),
		.max_order = MAX_PAGE_ORDER,
		.max_none = HPAGE_PMD_NR,
		.unmapped = unmapped,
		.data = mapped,
		.border = border,
		.starts = starts,
	};
	unsigned long keep = 0;

	if (nr > HPAGE_PMD_NR)
		return 0;

	/* Neither contents nor VMAs are looked at: it may be less than that. */
	bitmap_zero(mapped, HPAGE_PMD_NR);
	bitmap_zero(border, HPAGE_PMD_NR);
	bitmap_zero(starts, HPAGE_PMD_NR);
	for (i = 0; i < nr; i++) {
		if (atomic_read(&folio_page(folio, i)->_mapcount) >= 0)
			__set_bit(i, mapped);
	}
	bitmap_complement(unmapped, mapped, HPAGE_PMD_NR);
	folio_split_plan(&plan);

	for (i = 0; i < nr; i = end) {
		end = find_next_bit(starts, nr, i + 1);
		if (end - i > 1 && test_bit(i, mapped))
			keep += end - i;
	}
	return keep;
#else
	/* It splits to nothing but base pages. */
	return 0;
#endif
}

static unsigned int walk_limit(void)
{
	return clamp(READ_ONCE(max_walk), 1u, MAX_MAX_WALK);
}

static unsigned long pages_of_whole(struct folio *folio)
{
#ifdef HAVE_FOLIO_SPLIT_PLAN
	return folio_nr_pages(folio);
#else
	return 0;
#endif
}

static void look_at_queued(struct folio *folio, struct watch_tally *t, bool trace)
{
	unsigned long nr = folio_nr_pages(folio), mapped = nr;

	t->queued++;
	if (folio_some_pages_mapped(folio)) {
		mapped = min_t(unsigned long, nr, folio_nr_pages_mapped(folio));
		t->partial++;
		t->mapped += mapped;
		t->unmapped += nr - mapped;
		t->keep += pages_to_keep(folio);
	} else if (folio_entire_mapcount(folio) || folio_nr_pages_mapped(folio)) {
		t->whole++;
		t->whole_pages += nr;
		t->keep += pages_of_whole(folio);
	} else {
		/* The last page was unmapped: it is about to be freed. */
		mapped = 0;
	}
	if (trace)
		trace_mm_migrate_split_deferred(folio_pfn(folio), folio_order(folio),
						mapped, MIGRATE_SPLIT_SEEN, 0);
}

static struct watch_tally *tally_of(struct watch_look *look, int nid)
{
	struct watch_tally *t;
	unsigned int i;

	for (i = 0; i < look->nr; i++) {
		if (look->node[i].nid == nid)
			return &look->node[i];
	}
	if (look->nr == WATCH_NODES)
		return &look->node[WATCH_NODES - 1];
	t = &look->node[look->nr++];
	memset(t, 0, sizeof(*t));
	t->nid = nid;
	return t;
}

static void add_up(struct watch_look *look)
{
	struct watch_tally *sum = &look->total, *t;

	memset(sum, 0, sizeof(*sum));
	sum->nid = NUMA_NO_NODE;
	for (t = look->node; t < look->node + look->nr; t++) {
		sum->folios += t->folios;
		sum->pages += t->pages;
		sum->large += t->large;
		sum->thps += t->thps;
		sum->queued += t->queued;
		sum->partial += t->partial;
		sum->whole += t->whole;
		sum->mapped += t->mapped;
		sum->unmapped += t->unmapped;
		sum->whole_pages += t->whole_pages;
		sum->keep += t->keep;
	}
}

/**
 * watch_small - Is a list nothing but small folios of one node?
 * @list: The list.
 * @nid: That node.
 *
 * Most lists are, and of those of NUMA balancing and compaction there are many.
 *
 * Context: as watch_list().
 * Return: how many there are, or 0 if it has to be looked at by watch_list().
 */
unsigned int watch_small(struct list_head *list, int *nid)
{
	unsigned int walk = walk_limit(), folios = 0;
	struct folio *folio;

	list_for_each_entry(folio, list, lru) {
		if (!folios)
			*nid = folio_nid(folio);
		else if (folio_nid(folio) != *nid)
			return 0;
		if (folio_test_large(folio) || folios++ == walk)
			return 0;
	}
	return folios;
}

/**
 * watch_list - Look at the folios of a list.
 * @list: The list.
 * @look: What there is.
 * @before: An earlier look that it will be compared with, or NULL.
 * @trace: Emit an event for each folio that waits to be split.
 *
 * Looks at @max_walk folios at most, and at the pages of those that wait to be split
 * until these are MAX_PAGES.
 *
 * Context: The folios are isolated.  Does not sleep, takes no lock.
 */
void watch_list(struct list_head *list, struct watch_look *look,
		const struct watch_look *before, bool trace)
{
	unsigned int walk = walk_limit(), folios = 0, i;
	unsigned long budget = MAX_PAGES;
	struct watch_tally *t = NULL;
	struct folio *folio;

	look->nr = 0;
	look->cut = false;
	/* The same nodes, so that what is put down to one of them can be compared */
	for (i = 0; before && i < before->nr; i++)
		tally_of(look, before->node[i].nid);
	list_for_each_entry(folio, list, lru) {
		unsigned long nr = 1;
		int nid = folio_nid(folio);

		if (folios++ == walk || !budget) {
			look->cut = true;
			break;
		}
		if (!t || t->nid != nid)
			t = tally_of(look, nid);
		t->folios++;
		if (folio_test_large(folio)) {
			nr = folio_nr_pages(folio);
			t->large++;
			t->thps += folio_test_pmd_mappable(folio) && !folio_test_hugetlb(folio);
			if (folio_split_deferred(folio)) {
				look_at_queued(folio, t, trace);
				budget -= min(budget, nr);
			}
		}
		t->pages += nr;
	}
	add_up(look);
}
