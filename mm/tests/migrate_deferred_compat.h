/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What migrate_deferred_kunit.c takes for granted and kernels before 6.12 do not
 * have, under the names of today.  Later kernels do not get this file.
 */
#ifndef _MIGRATE_DEFERRED_COMPAT_H
#define _MIGRATE_DEFERRED_COMPAT_H

#include <linux/huge_mm.h>
#include <linux/memcontrol.h>
#include <linux/rmap.h>

#ifndef KUNIT_ARRAY_PARAM_DESC
#define KUNIT_ARRAY_PARAM_DESC(name, array, desc_member)			\
	static void name##_get_desc(const typeof((array)[0]) *p, char *desc)	\
	{									\
		strscpy(desc, p->desc_member, KUNIT_PARAM_DESC_SIZE);		\
	}									\
	KUNIT_ARRAY_PARAM(name, array, name##_get_desc)
#endif

static inline size_t list_count_nodes(struct list_head *head)
{
	struct list_head *pos;
	size_t nr = 0;

	list_for_each(pos, head)
		nr++;
	return nr;
}

/* 0 meant success, until 6.6 or so */
static inline bool isolate_lru(struct folio *folio)
{
	return !folio_isolate_lru(folio);
}
#define folio_isolate_lru(folio) isolate_lru(folio)

static inline void folio_set_order(struct folio *folio, unsigned int order)
{
	set_compound_order(&folio->page, order);
}

/* What a folio is, is what frees it. */
static inline void __folio_set_hugetlb(struct folio *folio)
{
	set_compound_page_dtor(&folio->page, HUGETLB_PAGE_DTOR);
}

static inline void __folio_clear_hugetlb(struct folio *folio) {}
static inline void folio_clear_large_rmappable(struct folio *folio) {}

static inline void folio_set_large_rmappable(struct folio *folio)
{
	set_compound_page_dtor(&folio->page, TRANSHUGE_PAGE_DTOR);
}

/* There is no mark: whatever is on the queue counts as partially mapped. */
static inline void folio_set_partially_mapped(struct folio *folio) {}
static inline void folio_clear_partially_mapped(struct folio *folio) {}

static inline void deferred_split_folio(struct folio *folio, bool partially_mapped)
{
	deferred_split_huge_page(&folio->page);
}

static inline long nr_partially_mapped(void)
{
	struct pglist_data *pgdat;
	long nr = 0;

	for_each_online_pgdat(pgdat)
		nr += READ_ONCE(pgdat->deferred_split_queue.split_queue_len);
#ifdef CONFIG_MEMCG
	if (root_mem_cgroup)
		nr += READ_ONCE(root_mem_cgroup->deferred_split_queue.split_queue_len);
#endif
	return nr;
}

#endif /* _MIGRATE_DEFERRED_COMPAT_H */
