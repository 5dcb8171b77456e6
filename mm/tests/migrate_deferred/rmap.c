// SPDX-License-Identifier: GPL-2.0
/*
 * What migration does to the map counts, and what the queue is told of it: migration
 * entries that stand in for mappings, and the walks that put them in and take them out.
 */
#include <linux/hugetlb.h>
#include <linux/mount.h>
#include <linux/shmem_fs.h>

#include "frame.h"
#ifdef HAVE_API_2026
#include "../../vma.h"
#endif

static void unmount(void *mnt)
{
	kern_unmount(mnt);
}

static void close_file(void *file)
{
	fput(file);
}

/*
 * A THP of a file, mapped twice by PTEs in two page tables but for its last page, is
 * mapped again as it was, and not queued; or is split if there is no destination of
 * its size.  Stock passes.
 */
static void file_thp_moves(struct kunit *test)
{
	unsigned long addr = thp_addr(test, 0) + 5 * PAGE_SIZE, i;
	unsigned long twin = addr + 2 * HPAGE_PMD_SIZE;
	unsigned long len = HPAGE_PMD_SIZE - PAGE_SIZE;
	struct file_system_type *type = get_fs_type("tmpfs");
	struct dst dst = default_dst();
	char options[] = "huge=always";
	struct vfsmount *mnt;
	struct folio *folio;
	struct file *file;
	LIST_HEAD(list);

	if (!type || !IS_ENABLED(CONFIG_TMPFS))
		kunit_skip(test, "no tmpfs");
	mnt = vfs_kern_mount(type, SB_KERNMOUNT, type->name, options);
	KUNIT_ASSERT_FALSE(test, IS_ERR(mnt));
	at_end(test, unmount, mnt);
#ifdef HAVE_API_2026
	file = shmem_file_setup_with_mnt(mnt, "kunit", HPAGE_PMD_SIZE,
					 EMPTY_VMA_FLAGS);
#else
	file = shmem_file_setup_with_mnt(mnt, "kunit", HPAGE_PMD_SIZE, 0);
#endif
	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	at_end(test, close_file, file);
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

	KUNIT_EXPECT_EQ(test, vm_munmap(addr, HPAGE_PMD_SIZE), 0);
	KUNIT_EXPECT_EQ(test, vm_munmap(twin, HPAGE_PMD_SIZE), 0);
}

/*
 * A page is unmapped while a migration entry stands in for its mapping.  This is noticed
 * when the entries are removed, and the folio is queued.  Stock loses the page if it was
 * mapped by a PMD.
 */
static void zapped_entry_is_noticed(struct kunit *test)
{
	struct folio *folio = thp_make(test, 0);

	hold_unmapped(test, folio, 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(folio));
	advise(test, thp_addr(test, 0) + 5 * PAGE_SIZE, PAGE_SIZE, MADV_DONTNEED);
	KUNIT_EXPECT_FALSE(test, folio_split_deferred(folio));
	drop_unmapped(test, folio);
	KUNIT_EXPECT_EQ(test, folio_mapcount(folio), HPAGE_PMD_NR - 1);
	KUNIT_EXPECT_TRUE(test, folio_split_deferred(folio));
}

/*
 * If this is noticed after the content has gone to a destination, the destination is
 * queued.  The test goes step by step, as it cannot unmap from within the migration of
 * one THP.  Stock loses the page.
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
	KUNIT_EXPECT_EQ(test, folio_mapcount(dst), HPAGE_PMD_NR - 1);
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

/* Undo others_map(), or put migration entries in its place. */
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
 * A PMD mapping that gives way to migration entries, one for the PMD or one for each
 * page, is no unmapping, whatever others map.  Stock marks the THP partially mapped.
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
 * A PMD mapping that ends is an unmapping, if others map some of the pages; and not if
 * they map all of them, or none for the moment.  Stock passes.
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
 * Move the first two THPs as mremap(2) does, so that each is mapped across two page
 * tables.  The second of three tables maps the end of the first THP, and all but the
 * end of the second one.  Return where they begin.
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
 * A THP is mapped across two page tables.  A huge PMD, or its migration entry, takes the
 * place of the first one.  The walks that install and remove migration entries still get
 * to the end of the THP.  Stock leaves the entries of the second table behind.
 *
 * Needs: mm: page_vma_mapped_walk(): go on behind a huge PMD
 */
static void huge_pmd_gets_in_front(struct kunit *test)
{
	unsigned long start, addr, end, token, i;
	struct folio *folio, *front;
	struct dst dst = default_dst();
	struct anon_vma *anon_vma;
	LIST_HEAD(list);

	thp_make(test, 0);
	folio = thp_make(test, 1);
	start = thps_misalign(test);
	addr = ALIGN(start, HPAGE_PMD_SIZE);
	end = addr + HPAGE_PMD_SIZE;
	hold_unmapped(test, folio, 0);
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
	if (folio_mapcount(folio) != MISALIGNED_BY) {
		/* The entries left behind need a locked folio: it stays so, for good. */
		folio_get(folio);
		drop_unmapped(test, folio);
		folio_lock(folio);
		KUNIT_FAIL(test, "migration entries were left behind");
		return;
	}

	/* Nor is what is behind the first entry of the second table missed. */
	advise(test, end, PAGE_SIZE, MADV_DONTNEED);
	hold_unmapped(test, front, 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(front));
	/*
	 * A walk does not take a migration entry for a mapping.  It finds the anon_vma of
	 * an unmapped folio only if the caller has locked that.
	 */
	anon_vma = folio_anon_vma(front);
	anon_vma_lock_read(anon_vma);
	try_to_migrate(front, TTU_RMAP_LOCKED);
	anon_vma_unlock_read(anon_vma);
	try_to_migrate(folio, 0);
	KUNIT_EXPECT_FALSE(test, folio_mapped(folio));
	remove_migration_ptes(folio, folio, 0);
	KUNIT_EXPECT_EQ(test, folio_mapcount(folio), MISALIGNED_BY - 1);
	drop_unmapped(test, front);
	drop_unmapped(test, folio);

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

static struct kunit_case cases[] = {
	KUNIT_CASE_PARAM(file_thp_moves, mode_gen_params),
	KUNIT_CASE(zapped_entry_is_noticed),
	KUNIT_CASE(zapped_entry_is_noticed_after_copy),
	KUNIT_CASE(pmd_gives_way),
	KUNIT_CASE(pmd_is_unmapped),
	KUNIT_CASE(huge_pmd_gets_in_front),
	{}
};

static int __init add_cases(void)
{
	return migrate_cases_add(cases);
}
subsys_initcall(add_cases);
