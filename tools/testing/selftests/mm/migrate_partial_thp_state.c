// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of large folios of which a part was unmapped: what is said of each page, and
 * what has to survive on it.
 *
 * Statuses of move_pages(2); protection, mlock(2), userfaultfd, soft-dirty and KSM; folios
 * smaller than a THP, and compaction of them; zswap.
 *
 * "Stock" is a 6.12 kernel that splits such a folio to base pages and counts that as a
 * failure.  A 6.1 kernel does not look, and migrates it whole.
 */
#include "../kselftest_harness.h"

#include <sys/stat.h>

#include "migrate_partial_thp.h"

FIXTURE(partial_thp)
{
	struct env env;
};

FIXTURE_SETUP(partial_thp)
{
	env_setup(_metadata, &self->env, PTHP_MOVE_PAGES);
}

FIXTURE_TEARDOWN(partial_thp)
{
	env_teardown(&self->env);
}

/*
 * move_pages(2) of one page of each THP returns 0 and reports the target node for
 * it. Stock passes.
 */
TEST_F(partial_thp, status_one_each)
{
	struct env *env = &self->env;
	unsigned int i;

	if (!build(_metadata, env, PTHP_FIRST_HALF, PTHP_MUNMAP))
		return;
	ASSERT_EQ(0, pthp_move_folios(&env->r, env->dst));
	for (i = 0; i < NR_THPS; i++)
		EXPECT_EQ(env->dst, env->r.status[i]);
	expect_pages(_metadata, &env->r, env->dst);
}

/*
 * Likewise for all pages that are mapped.  Stock reports -EBUSY for the second
 * page of each THP.
 *
 * Needs: mm/migrate: let move_pages(2) name several pages
 */
TEST_F(partial_thp, status_every_page)
{
	struct env *env = &self->env;
	unsigned int page, n = 0, bad = 0;
	struct pthp *r = &env->r;

	if (!build(_metadata, env, PTHP_CB16K, PTHP_MUNMAP))
		return;
	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page])
			continue;
		r->addrs[n] = pthp_addr(r, page);
		r->nodes[n] = env->dst;
		r->status[n++] = -EINVAL;
	}
	ASSERT_EQ(0, syscall(__NR_move_pages, 0, n, r->addrs, r->nodes,
			     r->status, MPOL_MF_MOVE));
	while (n--) {
		if (r->status[n] == env->dst)
			continue;
		if (bad++ < 8)
			TH_LOG("status of page %u: %d", n, r->status[n]);
	}
	EXPECT_EQ(0, bad);
	expect_pages(_metadata, r, env->dst);
}

/* No page of a THP that stays is reported on the target node.  Stock passes. */
TEST_F(partial_thp, status_of_failed)
{
	struct env *env = &self->env;
	unsigned int page, n = 8;
	struct pthp *r = &env->r;
	int pipefd[2];

	env->thps = 1;
	if (!build(_metadata, env, PTHP_FIRST_HALF, PTHP_DONTNEED))
		return;
	ASSERT_TRUE(pthp_pin(pthp_addr(r, 7), pipefd));
	for (page = 0; page < n; page++) {
		r->addrs[page] = pthp_addr(r, page);
		r->nodes[page] = env->dst;
		r->status[page] = -EINVAL;
	}
	EXPECT_LT(0, syscall(__NR_move_pages, 0, n, r->addrs, r->nodes,
			     r->status, MPOL_MF_MOVE));
	for (page = 0; page < n; page++) {
		EXPECT_NE(env->dst, r->status[page])
			TH_LOG("page %u", page);
	}
	expect_pages(_metadata, r, env->src);
	pthp_unpin(pipefd);
}

/*
 * A small page that is named twice is reported as it always was: unlike the second
 * page of a THP, it is a mistake.  Stock passes.
 */
TEST_F(partial_thp, small_page_twice)
{
	struct env *env = &self->env;
	int nodes[3], status[3] = { -EINVAL, -EINVAL, -EINVAL };
	void *addrs[3];
	char *mem;
	int i;

	mem = mmap(NULL, 2 * psize(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, madvise(mem, 2 * psize(), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, pthp_mbind(mem, 2 * psize(), env->src, 0));
	memset(mem, 1, 2 * psize());
	for (i = 0; i < 3; i++) {
		addrs[i] = mem + i / 2 * psize();
		nodes[i] = env->dst;
	}
	EXPECT_EQ(0, syscall(__NR_move_pages, 0, 3, addrs, nodes, status,
			     MPOL_MF_MOVE));
	EXPECT_EQ(env->dst, status[0]);
	EXPECT_EQ(-EBUSY, status[1]);
	EXPECT_EQ(env->dst, status[2]);
	munmap(mem, 2 * psize());
}

/*
 * By mbind(2), MPOL_MF_MOVE_ALL alone takes along what others map, too.
 *
 * Needs: mm/mempolicy: move partially mapped THPs without
 */
TEST_F(partial_thp, mbind_of_shared)
{
	static const enum pthp_shape shapes[] = {
		PTHP_LAST_HALF, PTHP_FIRST_HALF
	};
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	struct child child;
	unsigned int i;
	size_t len;

	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (!build(_metadata, env, shapes[i], PTHP_DONTNEED))
			return;
		len = pthp_len(r);
		EXPECT_EQ(0, pthp_mbind(r->mem, len, env->dst, MPOL_MF_MOVE));
		expect_pages(_metadata, r, env->dst);
	}

	ASSERT_TRUE(spawn(&child, env, PTHP_FIRST_HALF, PTHP_DONTNEED));
	EXPECT_EQ(0, pthp_mbind(r->mem, len, env->src, MPOL_MF_MOVE));
	expect_pages(_metadata, r, env->dst);
	EXPECT_EQ(0, pthp_mbind(r->mem, len, env->src, MPOL_MF_MOVE_ALL));
	expect_pages(_metadata, r, env->src);
	EXPECT_EQ(0, reap(&child, env->src));
}

/* Can the page be read?  By the page tables, not by what the VMA says. */
static bool readable(const void *addr)
{
	int pipefd[2];
	bool ok;

	if (pipe(pipefd))
		return false;
	ok = write(pipefd[1], addr, 1) == 1;
	close(pipefd[0]);
	close(pipefd[1]);
	return ok;
}

/* The first @first pages of each folio can be read, the others cannot. */
static void protect(struct __test_metadata *_metadata, const struct pthp *r,
		    unsigned int first)
{
	unsigned int i, n = 1u << r->order;

	for (i = 0; i < r->nr_folios; i++) {
		ASSERT_EQ(0, mprotect(pthp_addr(r, i * n), first * psize(),
				      PROT_READ));
		ASSERT_EQ(0, mprotect(pthp_addr(r, i * n + first),
				      (n - first) * psize(), PROT_NONE));
	}
}

static void expect_protected(struct __test_metadata *_metadata,
			     const struct pthp *r, unsigned int first)
{
	unsigned int page, n = 1u << r->order, bad = 0;

	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page] ||
		    readable(pthp_addr(r, page)) == (page % n < first))
			continue;
		if (bad++ < 8)
			TH_LOG("page %u of %u has lost its protection", page % n,
			       n);
	}
	EXPECT_EQ(0, bad);
	ASSERT_EQ(0, mprotect(r->mem, pthp_len(r), PROT_READ));
}

/*
 * What is mapped again keeps the protection of its VMA, where there are several
 * for a folio, split or not: the migration entries of pages of both protections
 * look the same, and a walk that goes on behind the first VMA would map those of
 * the second by its protection. Stock 6.12 passes; 6.1 does not split.
 */
TEST_F(partial_thp, protections)
{
	/* Split, and not */
	static const enum pthp_shape shapes[] = { PTHP_ALL_BUT_ONE, PTHP_ALL };
	struct env *env = &self->env;
	unsigned int i, half = (1u << env->order) / 2;
	struct pthp *r = &env->r;
	struct pthp_vmstat d;

	env->call = PTHP_MBIND;
	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (!build(_metadata, env, shapes[i], PTHP_DONTNEED))
			return;
		protect(_metadata, r, half);
		EXPECT_EQ(0, migrate(env, &d));
		EXPECT_EQ(shapes[i] == PTHP_ALL ? 0 : r->nr_folios,
			  d.v[PTHP_THP_MIGRATION_SPLIT]);
		expect_protected(_metadata, r, half);
		expect_pages(_metadata, r, env->dst);
		expect_given_back(_metadata, r);
	}
}

/*
 * The same of a split by the shrinker, as what migrates afterwards is mapped once
 * more. Each page table has a VMA of its own.  Stock passes.
 */
TEST_F(partial_thp, protections_shrinker)
{
	struct env *env = &self->env;
	unsigned int first = (1u << env->order) - MISALIGNED_BY;
	struct pthp_vmstat before, after;
	struct pthp *r = &env->r;

	if (!build(_metadata, env, PTHP_ALL, PTHP_DONTNEED))
		return;
	misalign(_metadata, r);
	ASSERT_EQ(0, pthp_punch(r, PTHP_ALL_BUT_ONE, PTHP_DONTNEED));
	protect(_metadata, r, first);
	ASSERT_TRUE(pthp_vmstat_read(&before));
	EXPECT_TRUE(pthp_shrink());
	ASSERT_TRUE(pthp_vmstat_read(&after));
	pthp_vmstat_sub(&after, &before);
	EXPECT_LE(r->nr_folios, after.v[PTHP_THP_SPLIT_PAGE]);
	expect_protected(_metadata, r, first);
	expect_pages(_metadata, r, env->src);
	expect_given_back(_metadata, r);
}

/* Pages i and i + NR_KSM have the same content. */
#define NR_KSM 32

static unsigned int ksm_fill(char *mem, unsigned int page, bool look)
{
	uint64_t *p = (uint64_t *)(mem + (size_t)page * psize());
	unsigned int i, bad = 0;

	for (i = 0; i < PTHP_WORDS; i++) {
		uint64_t word = (uint64_t)(page % NR_KSM + 1) << 32 | i;

		if (look)
			bad += p[i] != word;
		else
			p[i] = word;
	}
	return bad;
}

/* A page that KSM mapped at several offsets keeps its content.  Stock passes. */
TEST_F(partial_thp, ksm_pages)
{
	const size_t len = 2 * NR_KSM * psize();
	struct env *env = &self->env;
	unsigned int page, bad = 0, tries;
	void *addr;
	char *mem;
	int node;

	requires(return, !access(PTHP_KSM "run", W_OK), "no KSM");
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_EQ(0, madvise(mem, len, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, pthp_mbind(mem, len, env->src, 0));
	for (page = 0; page < 2 * NR_KSM; page++)
		ksm_fill(mem, page, false);
	ASSERT_EQ(0, madvise(mem, len, MADV_MERGEABLE));

	EXPECT_TRUE(pthp_set(PTHP_KSM "pages_to_scan", "320"));
	EXPECT_TRUE(pthp_set(PTHP_KSM "run", "1"));
	for (tries = 0; tries < 3000; tries++) {
		if (pthp_get_number("/proc/self/ksm_merging_pages") >= 2 * NR_KSM)
			break;
		usleep(20000);
	}
	/* No page that it looks at just now can be migrated. */
	EXPECT_TRUE(pthp_put(PTHP_KSM "run", "0"));
	EXPECT_LT(tries, 3000) TH_LOG("KSM did not merge the pages");

	/* Not MPOL_MF_STRICT, which minds to meet a page twice */
	EXPECT_EQ(0, pthp_mbind(mem, len, env->dst, MPOL_MF_MOVE_ALL));
	for (page = 0; page < 2 * NR_KSM; page++) {
		bad += ksm_fill(mem, page, true);
		addr = mem + (size_t)page * psize();
		bad += syscall(__NR_move_pages, 0, 1, &addr, NULL, &node, 0) ||
		       node != env->dst;
	}
	EXPECT_EQ(0, bad);
	munmap(mem, len);
}

/*
 * Memory that was mlocked still is after the move, in folios of any size.  Stock 6.12
 * passes, as it moves single pages.
 */
TEST_F(partial_thp, mlocked)
{
	unsigned int i, unlocked = 0;
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	struct pthp_census c;
	struct pthp_vmstat d;
	uint64_t flags;

	if (!build(_metadata, env, PTHP_ALL, PTHP_MUNMAP))
		return;
	ASSERT_EQ(0, mlock(r->mem, pthp_len(r)));
	ASSERT_EQ(0, pthp_punch(r, PTHP_RAGGED, PTHP_MUNMAP));
	EXPECT_EQ(0, migrate(env, &d));
	expect_pages(_metadata, r, env->dst);
	expect_given_back(_metadata, r);

	ASSERT_TRUE(pthp_census_take(r, &c));
	EXPECT_LT(0, c.nr);
	for (i = 0; i < c.nr; i++) {
		ASSERT_TRUE(pthp_read_flags(r, c.folios[i].pfn, &flags, 1));
		unlocked += !(flags & PTHP_KPF_MLOCKED);
	}
	pthp_census_drop(&c);
	EXPECT_EQ(0, unlocked);
}

/* What is write-protected by userfaultfd stays so.  Stock passes. */
TEST_F(partial_thp, uffd_wp)
{
	struct env *env = &self->env;
	unsigned int n = 1u << env->order, i;
	struct pthp *r = &env->r;
	const char *missing;
	int uffd;

	missing = pthp_uffd_open(&uffd);
	requires(return, !missing, "%s", missing);
	if (!build(_metadata, env, PTHP_ALL, PTHP_DONTNEED))
		return;
	requires(return, !uffd_register(uffd, r->mem, pthp_len(r), false, true, false),
		 "no userfaultfd write protection of memory");

	/* A quarter of each, across the border of what stays mapped */
	for (i = 0; i < r->nr_folios; i++)
		ASSERT_EQ(0, pthp_uffd_protect(uffd, pthp_addr(r, i * n + n / 3),
					       n / 4 * psize(), true));
	ASSERT_EQ(0, pthp_punch(r, PTHP_FIRST_HALF, PTHP_DONTNEED));
	expect_bit_survives(_metadata, r, NULL, PM_UFFD_WP, env->src, env->dst);
	expect_pages(_metadata, r, env->dst);
	close(uffd);
}

/* What is soft-dirty stays so.  Stock passes. */
TEST_F(partial_thp, soft_dirty)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	unsigned int page;

	requires(return, softdirty_supported(), "no soft-dirty tracking");
	if (!build(_metadata, env, PTHP_THREE_QUARTERS, PTHP_DONTNEED))
		return;
	clear_softdirty();
	for (page = 0; page < r->nr; page += 3) {
		if (r->mapped[page])
			pthp_fill(r, page);
	}
	expect_bit_survives(_metadata, r, NULL, PM_SOFT_DIRTY, env->src, env->dst);
	expect_pages(_metadata, r, env->dst);
}

/* Have folios of 64 KiB from here on; false if the test was skipped. */
static bool enable_mthp_64k(struct __test_metadata *_metadata, struct env *env)
{
	char path[96];

	env->order = ffsl(65536 / psize()) - 1;
	pthp_order_knob(path, sizeof(path), env->order);
	requires(return false, env->order >= 2 && pthp_set(path, "always"),
		 "no folios of 64 KiB");
	/* A region short of one PMD */
	env->thps = (1u << pthp_pmd_order() >> env->order) / 2;
	return true;
}

/* Migrate folios of 64 KiB of each of the shapes: their orders are right, or all else is. */
static void migrate_mthp_64k(struct __test_metadata *_metadata, struct env *env,
			     const enum pthp_shape *shapes, unsigned int nr_shapes,
			     enum pthp_hole hole, bool orders)
{
	struct pthp_vmstat d;
	unsigned int i;

	if (!enable_mthp_64k(_metadata, env))
		return;
	for (i = 0; i < nr_shapes; i++) {
		if (!build(_metadata, env, shapes[i], hole))
			return;
		EXPECT_EQ(0, migrate(env, &d));
		expect_pages(_metadata, &env->r, env->dst);
		if (orders) {
			expect_largest_orders(_metadata, &env->r);
			continue;
		}
		expect_given_back(_metadata, &env->r);
		EXPECT_TRUE(pthp_holes_empty(&env->r));
	}
}

/* As contents and given_back, for folios of 64 KiB.  Stock passes. */
TEST_F(partial_thp, mthp_64k)
{
	static const enum pthp_shape shapes[] = {
		PTHP_LAST_HALF, PTHP_CB16K, PTHP_ALL_BUT_ONE, PTHP_ONE_PAGE,
		PTHP_RANDOM
	};

	migrate_mthp_64k(_metadata, &self->env, shapes, ARRAY_SIZE(shapes),
			 PTHP_MUNMAP, false);
}

/*
 * As orders, for folios of 64 KiB.  Stock: all of order 0.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp, mthp_64k_orders)
{
	static const enum pthp_shape shapes[] = {
		PTHP_LAST_HALF, PTHP_THREE_QUARTERS, PTHP_ALL_BUT_ONE
	};

	migrate_mthp_64k(_metadata, &self->env, shapes, ARRAY_SIZE(shapes),
			 PTHP_DONTNEED, true);
}

#define NR_COMPACTED 24

/* Where each page of a region is, if it is mapped */
static void note_pfns(const struct pthp *r, unsigned long *pfns)
{
	unsigned int page;

	for (page = 0; page < r->nr; page++)
		pfns[page] = pagemap_get_pfn(r->pagemap, pthp_addr(r, page));
}

/*
 * How many mapped pages of the region are somewhere else now?  Folios that they came
 * from have given back what was not mapped.
 */
static unsigned int expect_moved_pages(struct __test_metadata *_metadata,
				       const struct pthp *r, const unsigned long *pfns)
{
	unsigned int page, i, n = 1u << r->order, moved = 0, stayed = 0;
	struct pthp_census c;

	for (page = 0; page < r->nr; page += n) {
		unsigned int mapped = 0, away = 0;

		for (i = page; i < page + n; i++) {
			mapped += r->mapped[i];
			away += r->mapped[i] && pfns[i] !=
				pagemap_get_pfn(r->pagemap, pthp_addr(r, i));
		}
		moved += away;
		/* It may have been split by others, and less of it moved. */
		stayed += away ? mapped : n;
	}
	EXPECT_TRUE(pthp_census_take(r, &c));
	EXPECT_GE(stayed, c.held);
	pthp_census_drop(&c);
	return moved;
}

/*
 * Regions of folios of 64 KiB with room among them, half of each folio unmapped, are
 * compacted.  How many of their pages moved, or -1 if the test was skipped?
 */
static long compact_mthp_64k(struct __test_metadata *_metadata, struct env *env)
{
	struct pthp small[NR_COMPACTED] = { 0 };
	unsigned long *pfns[NR_COMPACTED] = { 0 };
	const char *missing;
	unsigned int i;
	long moved = 0;

	for (i = 0; i < NR_COMPACTED; i++) {
		missing = pthp_alloc(&small[i], env->thps, env->order, env->src,
				     env->seed + i);
		requires(return -1, !missing, "no folios of 64 KiB to be had: %s", missing);
	}
	for (i = 0; i < NR_COMPACTED; i++) {
		if (i % 3 == 0) {
			pthp_free(&small[i]);
			continue;
		}
		ASSERT_EQ(0, pthp_punch(&small[i], PTHP_FIRST_HALF,
					PTHP_MUNMAP));
		pfns[i] = malloc(small[i].nr * sizeof(*pfns[i]));
		ASSERT_TRUE(!!pfns[i]);
		note_pfns(&small[i], pfns[i]);
	}

	EXPECT_TRUE(pthp_put(PTHP_COMPACT, "1"));

	for (i = 0; i < NR_COMPACTED; i++) {
		if (!small[i].mem)
			continue;
		moved += expect_moved_pages(_metadata, &small[i], pfns[i]);
		expect_pages(_metadata, &small[i], env->src);
		EXPECT_TRUE(pthp_holes_empty(&small[i]));
		pthp_free(&small[i]);
		free(pfns[i]);
	}
	return moved;
}

/*
 * Partially mapped folios of 64 KiB are moved by compact_memory: what moved has
 * given back its unmapped pages, and keeps its content.  Stock passes.
 */
TEST_F(partial_thp, compaction)
{
	struct env *env = &self->env;
	unsigned int tries = 0;
	long moved, isolated, wanted;

	requires(return, !access(PTHP_COMPACT, W_OK), "no compact_memory");
	if (!build(_metadata, env, PTHP_CB64K, PTHP_MUNMAP))
		return;
	/* Compaction leaves folios as large as a pageblock alone. */
	if (!enable_mthp_64k(_metadata, env))
		return;
	/*
	 * A quarter of what is mapped of one of the regions, at the least; where memory
	 * is already packed, there is nothing to do.
	 */
	wanted = env->thps << env->order >> 3;
	do {
		isolated = pthp_get_named("/proc/vmstat", "compact_isolated");
		moved = compact_mthp_64k(_metadata, env);
		if (moved < 0)
			return;
		isolated = pthp_get_named("/proc/vmstat", "compact_isolated") - isolated;
		TH_LOG("compaction isolated %ld pages; %ld of partially mapped folios moved",
		       isolated, moved);
	} while (moved < wanted && ++tries < 32);
	EXPECT_LE(wanted, moved);
	expect_pages(_metadata, &env->r, env->src);
	EXPECT_TRUE(pthp_holes_empty(&env->r));
}

/* ---- zswap ---- */

#define ZSWAP		"/sys/module/zswap/parameters/enabled"
#define GROUP		"/sys/fs/cgroup/partial_thp_zswap/"
#define GROUP_SWAP	(64ul << 20)

FIXTURE(partial_thp_zswap)
{
	struct env env;
	bool swap;
};

FIXTURE_SETUP(partial_thp_zswap)
{
	env_setup(_metadata, &self->env, PTHP_MBIND);
}

FIXTURE_TEARDOWN(partial_thp_zswap)
{
	env_teardown(&self->env);
	pthp_put("/sys/fs/cgroup/cgroup.procs", "0");
	rmdir(GROUP);
	if (self->swap)
		pthp_swap_off();
}

/*
 * Memory that may be swapped to zswap only can be reclaimed after the migration: zswap
 * of 6.12 takes single pages only.  Stock passes.
 */
TEST_F(partial_thp_zswap, reclaim)
{
	struct env *env = &self->env;
	struct pthp_vmstat d;
	const char *why;

	requires(return, !access(ZSWAP, W_OK), "no zswap");
	pthp_put("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
	mkdir(GROUP, 0755);
	requires(return, pthp_put(GROUP "memory.zswap.writeback", "0"),
		 "no cgroup that zswap does not write back for");
	/* First: slab caches of zram that zswap's were merged with would outlive zram. */
	ASSERT_TRUE(pthp_set(ZSWAP, "Y"));
	why = pthp_swap_on(GROUP_SWAP);
	requires(return, !why, "%s", why);
	self->swap = true;
	ASSERT_TRUE(pthp_put(GROUP "cgroup.procs", "0"));
	if (!build(_metadata, env, PTHP_FIRST_HALF, PTHP_DONTNEED))
		return;
	EXPECT_EQ(0, migrate(env, &d));
	EXPECT_EQ(env->r.nr_mapped, pthp_on_node(&env->r, env->dst));
	/* Half of what is left */
	EXPECT_EQ(0, pthp_write(GROUP "memory.reclaim", "4M"));
	EXPECT_TRUE(pthp_intact(&env->r));
}

TEST_HARNESS_MAIN
