// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of large folios of which a part was unmapped: what is said of each page, and
 * what has to survive on it.
 *
 * Statuses of move_pages(2); protection, mlock(2), userfaultfd, soft-dirty and KSM; the
 * cgroup that is charged; folios smaller than a THP, and compaction of them.
 *
 * "Stock" is a 6.12 kernel that splits such a folio to base pages and counts that as a
 * failure.  A 6.1 kernel does not look, and migrates it whole.
 */
#include "../kselftest_harness.h"

#include <sys/mount.h>
#include <sys/prctl.h>
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

/* By mbind(2), MPOL_MF_MOVE_ALL alone takes along what others map, too. */
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
		if (pthp_get_number(PTHP_KSM "pages_sharing") >= NR_KSM)
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
 * Single pages that were mlocked are when they have moved; to mark large folios is
 * for reclaim.  Stock 6.12 passes.
 */
TEST_F(partial_thp, mlocked)
{
	unsigned int i, base = 0, unlocked = 0;
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

	/* Large folios are left to reclaim to be mlocked. */
	ASSERT_TRUE(pthp_census_take(r, &c));
	for (i = 0; i < c.nr; i++) {
		if (c.folios[i].order)
			continue;
		base++;
		ASSERT_TRUE(pthp_read_flags(r, c.folios[i].pfn, &flags, 1));
		unlocked += !(flags & PTHP_KPF_MLOCKED);
	}
	pthp_census_drop(&c);
	EXPECT_LT(0, base);
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

/* As orders, for folios of 64 KiB.  Stock: all of order 0. */
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
 * Partially mapped folios of 64 KiB are moved by compact_memory: what moved has
 * given back its unmapped pages, and keeps its content.  Stock passes.
 */
TEST_F(partial_thp, compaction)
{
	struct pthp small[NR_COMPACTED] = { 0 };
	unsigned long *pfns[NR_COMPACTED] = { 0 };
	struct env *env = &self->env;
	unsigned int i, moved = 0;
	const char *missing;

	requires(return, !access(PTHP_COMPACT, W_OK), "no compact_memory");
	if (!build(_metadata, env, PTHP_CB64K, PTHP_MUNMAP))
		return;
	/* Compaction leaves folios as large as a pageblock alone. */
	if (!enable_mthp_64k(_metadata, env))
		return;
	for (i = 0; i < NR_COMPACTED; i++) {
		missing = pthp_alloc(&small[i], env->thps, env->order, env->src,
				     env->seed + i);
		requires(return, !missing, "no folios of 64 KiB to be had: %s", missing);
	}
	/* Make room among them, and have the others wait to be split. */
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

	expect_pages(_metadata, &env->r, env->src);
	EXPECT_TRUE(pthp_holes_empty(&env->r));
	for (i = 0; i < NR_COMPACTED; i++) {
		if (!small[i].mem)
			continue;
		moved += expect_moved_pages(_metadata, &small[i], pfns[i]);
		expect_pages(_metadata, &small[i], env->src);
		EXPECT_TRUE(pthp_holes_empty(&small[i]));
		pthp_free(&small[i]);
		free(pfns[i]);
	}
	TH_LOG("%u pages of partially mapped folios moved", moved);
	/* A quarter of what is mapped of one of the regions, at the least */
	EXPECT_LE(env->thps << env->order >> 3, moved);
}

#ifndef HAVE_MOVE_CHARGE_UNQUEUES
#define CGROUP2_CONTROL "/sys/fs/cgroup/cgroup.subtree_control"

static char *v1_file(char *buf, size_t size, const char *dir, char group,
		     const char *name)
{
	snprintf(buf, size, "%s/partial_thp.%c/%s", dir, group, name);
	return buf;
}

/* How many memory cgroups are there, those included that were removed and are in use? */
static int v1_cgroups(void)
{
	char buf[1024], *line;
	int nr = 0;

	if (pthp_get("/proc/cgroups", buf, sizeof(buf))) {
		line = strstr(buf, "\nmemory\t");
		if (line)
			sscanf(line, " memory %*d %d", &nr);
	}
	return nr;
}

/*
 * Have the first of the THPs that our parent maps by PMDs wait to be split, if that
 * can be.  A page that we unmap is not noticed as long as PG_double_map is set.  A
 * migration clears it, and stock does not set it again.
 */
static bool queue_first(struct env *env)
{
	struct pthp *r = &env->r;

	return pthp_map_by_ptes(r) &&
	       !pthp_migrate(r, PTHP_MOVE_PAGES, env->src, env->dst) &&
	       !madvise(r->mem, read_pmd_pagesize() / 2, MADV_DONTNEED);
}

/*
 * Take three THPs along from cgroup a to cgroup b.  All are shared with a child that
 * stays.  If the first one waits to be split, its charge has to stay, too.
 */
static int change_cgroup(struct env *env, const char *dir)
{
	size_t pmd = read_pmd_pagesize();
	struct pthp *r = &env->r;
	int fds[2], status = 2, tries, i;
	long huge[2], queued, stay;
	char path[128];
	char ready;
	pid_t child;

	if (!pthp_put(v1_file(path, sizeof(path), dir, 'a', "cgroup.procs"), "0"))
		return 2;
	if (pthp_alloc(r, 3, env->order, env->src, env->seed) || pipe(fds))
		return 2;
	queued = pthp_get_named("/proc/vmstat", "thp_deferred_split_page");
	child = fork();
	if (!child) {
		close(fds[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ready = queue_first(env);
		if (write(fds[1], &ready, 1) == 1)
			pause();
		_exit(0);
	}
	close(fds[1]);
	if (read(fds[0], &ready, 1) == 1 && ready &&
	    check_huge_anon(r->mem, 3, pmd))
		status = 0;
	stay = pthp_get_named("/proc/vmstat", "thp_deferred_split_page") > queued;

	if (!pthp_put(v1_file(path, sizeof(path), dir, 'b', "cgroup.procs"), "0"))
		status = 2;
	/* The statistics may be two seconds old. */
	for (tries = 0; tries < 100; tries++) {
		for (i = 0; i < 2; i++) {
			v1_file(path, sizeof(path), dir, 'a' + i, "memory.stat");
			huge[i] = pthp_get_named(path, "rss_huge");
		}
		if (huge[0] == stay * (long)pmd &&
		    huge[1] == (3 - stay) * (long)pmd)
			break;
		usleep(50000);
	}
	if (tries == 100) {
		fprintf(stderr, "# %ld bytes of THPs stayed, %ld moved\n", huge[0],
			huge[1]);
		status = status ?: 3;
	}
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	return status;
}

/*
 * A task that changes cgroups, with cgroup v1, does not take the charge of a THP
 * along that waits to be split, as the queue is that of the cgroup.  Stock does,
 * and may use the queue after it was freed.
 *
 * Needs: mm/memcg: do not take a THP's memcg away
 */
TEST_F(partial_thp, moved_charge)
{
	char dir[] = "/tmp/partial_thp.XXXXXX", path[128], group;
	bool v2 = pthp_get(CGROUP2_CONTROL, path, sizeof(path)) &&
		  strstr(path, "memory");
	struct env *env = &self->env;
	int status = -1, tries, nr;
	pid_t pid;

	ASSERT_TRUE(!!mkdtemp(dir));
	if (mount("cgroup", dir, "cgroup", 0, "memory")) {
		rmdir(dir);
		SKIP(return, "no memory controller for cgroup v1");
	}
	nr = v1_cgroups();
	for (group = 'a'; group <= 'b'; group++)
		mkdir(v1_file(path, sizeof(path), dir, group, ""), 0755);
	/* Not to a: what is shared with us stays where it is. */
	v1_file(path, sizeof(path), dir, 'b', "memory.move_charge_at_immigrate");
	EXPECT_TRUE(pthp_put(path, "1"));
	pid = fork();
	if (!pid)
		_exit(change_cgroup(env, dir));
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, WIFEXITED(status) ? WEXITSTATUS(status) : -1);

	for (group = 'a'; group <= 'b'; group++) {
		v1_file(path, sizeof(path), dir, group, "memory.force_empty");
		pthp_put(path, "0");
		EXPECT_EQ(0, rmdir(v1_file(path, sizeof(path), dir, group, "")));
	}
	/* umount(2) gives the controller back, but not if there are cgroups left. */
	for (tries = 0; v1_cgroups() > nr && tries < 3000; tries++)
		usleep(20000);
	EXPECT_GE(nr, v1_cgroups());
	EXPECT_EQ(0, umount(dir));
	for (tries = 0; v2 && !pthp_put(CGROUP2_CONTROL, "+memory"); tries++) {
		ASSERT_LT(tries, 3000) TH_LOG("cgroup v2 has no memory controller");
		usleep(20000);
	}
	rmdir(dir);
}

#endif
TEST_HARNESS_MAIN
