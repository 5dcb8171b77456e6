/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the suite takes for granted and older kernels do not have, under the names of
 * today.  Later kernels do not get this file.
 */
#ifndef _MIGRATE_DEFERRED_COMPAT_H
#define _MIGRATE_DEFERRED_COMPAT_H

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/kthread.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#ifndef HAVE_KUNIT_ACTION
/* An action for the end of the test; the last one added is done first */
struct kunit_action_ctx {
	struct kunit_resource res;
	void (*func)(void *ctx);
	void *ctx;
};

static inline void kunit_action_free(struct kunit_resource *res)
{
	struct kunit_action_ctx *action = container_of(res, struct kunit_action_ctx, res);

	action->func(action->ctx);
}

static inline int kunit_add_action_or_reset(struct kunit *test, void (*func)(void *ctx),
					    void *ctx)
{
	struct kunit_action_ctx *action = kzalloc(sizeof(*action), GFP_KERNEL);

	if (!action) {
		func(ctx);
		return -ENOMEM;
	}
	action->func = func;
	action->ctx = ctx;
	/*
	 * The resource comes first, and its memory is that of the action.
	 * kunit_add_resource() would say that it is not to be freed.
	 */
	action->res.should_kfree = true;
	return __kunit_add_resource(test, NULL, kunit_action_free, &action->res, action);
}

static inline bool kunit_action_match(struct kunit *test, struct kunit_resource *res,
				      void *data)
{
	struct kunit_action_ctx *action, *wanted = data;

	if (res->free != kunit_action_free)
		return false;
	action = container_of(res, struct kunit_action_ctx, res);
	return action->func == wanted->func && action->ctx == wanted->ctx;
}

static inline void kunit_release_action(struct kunit *test, void (*func)(void *ctx),
					void *ctx)
{
	struct kunit_action_ctx wanted = { .func = func, .ctx = ctx };

	WARN_ON(kunit_destroy_resource(test, kunit_action_match, &wanted));
}

/* The mm dies with the thread of the test, if nobody holds it. */
static inline unsigned long kunit_vm_mmap(struct kunit *test, struct file *file,
					  unsigned long addr, unsigned long len,
					  unsigned long prot, unsigned long flag,
					  unsigned long offset)
{
	struct mm_struct *mm = current->mm;

	if (!mm) {
		mm = mm_alloc();
		if (!mm)
			return 0;
		mm->task_size = TASK_SIZE;
		arch_pick_mmap_layout(mm, &current->signal->rlim[RLIMIT_STACK]);
		kthread_use_mm(mm);
	}
	return vm_mmap(file, addr, len, prot, flag, offset);
}
#endif

#ifndef HAVE_FOLIO_RMAP
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

/* 6.1 tells the kind of a folio by its destructor. */
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

static inline void deferred_split_folio(struct folio *folio, bool partially_mapped)
{
	deferred_split_huge_page(&folio->page);
}

#define move_page_tables(vma, old_addr, new_vma, new_addr, len, locks, for_stack) \
	move_page_tables(vma, old_addr, new_vma, new_addr, len, locks)

/* PTE mappings of a folio that is mapped by a PMD elsewhere: see folio_nr_pages_mapped() */
static inline void folio_add_anon_rmap_ptes(struct folio *folio, struct page *page,
					    int nr, struct vm_area_struct *vma,
					    unsigned long addr, rmap_t flags)
{
	long i;

	for (i = 0; i < nr; i++)
		page_add_anon_rmap(page + i, vma, addr + i * PAGE_SIZE, flags);
	for (i = 0; i < folio_nr_pages(folio); i++)
		atomic_inc(&folio_page(folio, i)->_mapcount);
	folio_set_double_map(folio);
}

static inline void folio_remove_rmap_ptes(struct folio *folio, struct page *page,
					  int nr, struct vm_area_struct *vma)
{
	while (nr--)
		page_remove_rmap(page + nr, vma, false);
}

static inline void folio_remove_rmap_pte_migration(struct folio *folio, struct page *page,
						   struct vm_area_struct *vma)
{
	page_remove_rmap_migration(page, vma, false);
}
#endif

#ifndef HAVE_MARK
/* There is no mark: whatever is on the queue counts as partially mapped. */
static inline void folio_set_partially_mapped(struct folio *folio) {}
static inline void folio_clear_partially_mapped(struct folio *folio) {}
#endif

#ifndef HAVE_MTHP_STATS
/*
 * No statistic tells how many are queued, so count them.  Count those of this mm only:
 * the mm of the test before may still be exiting.
 */
static inline long nr_partially_mapped(void)
{
	struct deferred_split *queue = &NODE_DATA(0)->deferred_split_queue;
	struct anon_vma *anon_vma = NULL;
	struct vma_iterator vmi;
	struct vm_area_struct *vma;
	struct list_head *pos;
	long nr = 0;

#ifdef CONFIG_MEMCG
	if (root_mem_cgroup)
		queue = &root_mem_cgroup->deferred_split_queue;
#endif
	mmap_read_lock(current->mm);
	vma_iter_init(&vmi, current->mm, 0);
	for_each_vma(vmi, vma) {
		anon_vma = vma->anon_vma;
		if (anon_vma)
			break;
	}
	mmap_read_unlock(current->mm);

	spin_lock_irq(&queue->split_queue_lock);
	list_for_each(pos, &queue->split_queue) {
		struct page *page = list_entry(pos, struct page, deferred_list);

		nr += folio_anon_vma(page_folio(page)) == anon_vma;
	}
	spin_unlock_irq(&queue->split_queue_lock);
	return nr;
}
#endif

/* Not all versions of 6.1 have the last argument. These are declared for their types. */
struct vm_area_struct *copy_vma_without(struct vm_area_struct **vma, unsigned long addr,
					unsigned long len, pgoff_t pgoff, bool *locks);
struct vm_area_struct *copy_vma_with(struct vm_area_struct **vma, unsigned long addr,
				     unsigned long len, pgoff_t pgoff, bool *locks,
				     bool keep_source);

static inline struct vm_area_struct *copy_vma_compat(struct vm_area_struct **vma,
						     unsigned long addr, unsigned long len,
						     pgoff_t pgoff, bool *locks,
						     bool keep_source)
{
	void *fn = copy_vma;

	if (__builtin_types_compatible_p(typeof(copy_vma), typeof(copy_vma_without)))
		return ((typeof(copy_vma_without) *)fn)(vma, addr, len, pgoff, locks);
	return ((typeof(copy_vma_with) *)fn)(vma, addr, len, pgoff, locks, keep_source);
}

#define copy_vma copy_vma_compat

#endif /* _MIGRATE_DEFERRED_COMPAT_H */
