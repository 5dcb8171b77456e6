// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of partially mapped THPs: what must not get lost because the pieces are
 * larger than single pages.
 *
 * A kernel that splits to single pages gets some things right by the way.  A page full
 * of zeroes becomes the shared zero page, each page lies in one VMA, and each is
 * mlocked when it is mapped.  The indices of pages that are interleaved are odd and even.
 * A kernel that splits into larger pieces has to do the same on purpose.  The tests here
 * make THPs with zero-filled pages or with several VMAs, unmap a part of them, migrate
 * the rest, and look at what each piece holds, and where it is.
 *
 * A comment above each case says what it proves and what stock does.  "Stock" is a 6.12
 * kernel that splits to single pages.  A stock 6.1 kernel migrates such THPs whole, and
 * a patched one splits them to single pages.  Nothing in here races.
 */
#include "../kselftest_harness.h"

#include "partial_thp_edges.h"

FIXTURE(partial_thp_edges)
{
	struct env env;
};

FIXTURE_SETUP(partial_thp_edges)
{
	env_setup(_metadata, &self->env);
}

FIXTURE_TEARDOWN(partial_thp_edges)
{
	env_teardown(&self->env);
}

/* ---- zero-filled pages ---- */

#ifdef HAVE_SPLIT_FREES_ZEROES
static const bool replaces_zeroes = true;
#else
static const bool replaces_zeroes;
#endif

#define NO_ZEROES "this kernel does not replace zero-filled pages"

/* In each THP one page holds data, one is unmapped, and all others are zero-filled. */
static bool build_sparse(struct __test_metadata *_metadata, struct env *env)
{
	unsigned int n = 1u << env->order;

	if (!build(_metadata, env))
		return false;
	ASSERT_EQ(0, each_thp(env, zero, 1, n - 2, 0));
	ASSERT_EQ(0, each_thp(env, unmap, n - 1, 1, MADV_DONTNEED));
	return true;
}

/*
 * The zero-filled pages become the shared zero page, and their memory is given back.
 * Stock passes.
 */
TEST_F(partial_thp_edges, zero_sparse)
{
	struct env *env = &self->env;
	unsigned int n = 1u << env->order;
	long rss, data;
	struct seen s;

	requires(return, replaces_zeroes, NO_ZEROES);
	rss = pthp_get_named("/proc/self/status", "RssAnon:");
	if (!build_sparse(_metadata, env))
		return;
	EXPECT_EQ(0, migrate(env));
	look(env, &s);
	EXPECT_EQ(NR_THPS, s.anon);
	EXPECT_EQ(NR_THPS * (n - 2), s.zeropage);
	expect_planned(_metadata, env);
	expect_pages(_metadata, env, env->dst);

	/* The counter may be off by what the CPUs have not added to it yet. */
	rss = pthp_get_named("/proc/self/status", "RssAnon:") - rss;
	data = env->r.nr_mapped * (psize() >> 10);
	EXPECT_GE(2 * data + 1024, rss);
}

/* Only the first quarter of each THP stays mapped, and its first @nr_data pages are data. */
static void migrate_quarter(struct __test_metadata *_metadata, struct env *env,
			    unsigned int quarter, unsigned int nr_data)
{
	if (!build(_metadata, env))
		return;
	ASSERT_EQ(0, each_thp(env, zero, nr_data, quarter - nr_data, 0));
	ASSERT_EQ(0, each_thp(env, unmap, quarter, 3 * quarter, MADV_DONTNEED));
	EXPECT_EQ(0, migrate(env));
	expect_planned(_metadata, env);
	expect_pages(_metadata, env, env->dst);
}

/*
 * A quarter of a THP stays mapped, and exactly half of it is data: it stays in one
 * piece.  Stock: all pieces are of order 0.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_edges, zero_half_stays)
{
	unsigned int quarter = 1u << self->env.order >> 2;

	requires(return, replaces_zeroes, NO_ZEROES);
	migrate_quarter(_metadata, &self->env, quarter, quarter / 2);
}

/*
 * One page of data less, and the quarter is split further.  The half with the data stays
 * in one piece, the other becomes the shared zero page.  Stock: all pieces are of order 0.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_edges, zero_less_than_half_splits)
{
	unsigned int quarter = 1u << self->env.order >> 2;

	requires(return, replaces_zeroes, NO_ZEROES);
	migrate_quarter(_metadata, &self->env, quarter, quarter / 2 - 1);
}

/*
 * An administrator's lower max_ptes_none is the bound, scaled to the size of the piece.
 * An eighth of the quarter is zero-filled.  A bound of an eighth leaves it in one piece,
 * a bound just below that or of none does not.  Stock: all pieces are of order 0.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_edges, zero_max_ptes_none)
{
	struct env *env = &self->env;
	unsigned int n = 1u << env->order, quarter = n / 4, i;
	const unsigned int limits[] = { n / 8, n / 8 - 1, 0 };
	char value[16];

	requires(return, replaces_zeroes, NO_ZEROES);
	EXPECT_TRUE(pthp_set(MAX_PTES_NONE, "0"));
	for (i = 0; i < ARRAY_SIZE(limits); i++) {
		snprintf(value, sizeof(value), "%u", limits[i]);
		EXPECT_TRUE(pthp_put(MAX_PTES_NONE, value));
		env->max_zero = limits[i];
		if (!build(_metadata, env))
			return;
		EXPECT_EQ(0, each_thp(env, zero, quarter - quarter / 8,
				      quarter / 8, 0));
		EXPECT_EQ(0, each_thp(env, unmap, quarter, 3 * quarter,
				      MADV_DONTNEED));
		EXPECT_EQ(0, migrate(env));
		expect_planned(_metadata, env);
		expect_pages(_metadata, env, env->dst);
	}
}

/* A zero-filled page that is mlocked stays anonymous memory.  Stock passes. */
TEST_F(partial_thp_edges, zero_mlocked)
{
	struct env *env = &self->env;
	unsigned int n = 1u << env->order;
	struct seen s;

	if (!build(_metadata, env))
		return;
	ASSERT_EQ(0, mlock(env->r.mem, pthp_len(&env->r)));
	ASSERT_EQ(0, each_thp(env, zero, 1, n - 2, 0));
	ASSERT_EQ(0, each_thp(env, unmap, n - 1, 1, MADV_DONTNEED_LOCKED));
	EXPECT_EQ(0, migrate(env));
	look(env, &s);
	EXPECT_EQ(0, s.zeropage);
	EXPECT_EQ(NR_THPS * (n - 1), s.anon);
	expect_pages(_metadata, env, env->dst);
}

/*
 * Zero-filled pages are replaced, too, if a quarter of their THP is a VMA of its own.
 * Stock passes.
 */
TEST_F(partial_thp_edges, zero_at_border)
{
	struct env *env = &self->env;
	unsigned int n = 1u << env->order;
	struct seen s;

	requires(return, replaces_zeroes, NO_ZEROES);
	if (!build_sparse(_metadata, env))
		return;
	ASSERT_EQ(0, each_thp(env, protect, 0, n / 4, PROT_READ));
	EXPECT_EQ(0, migrate(env));
	look(env, &s);
	EXPECT_EQ(NR_THPS, s.anon);
	EXPECT_EQ(NR_THPS * (n - 2), s.zeropage);
	expect_planned(_metadata, env);
	expect_pages(_metadata, env, env->dst);
}

/*
 * A whole THP stays whole though all but one of its pages are zero-filled, mapped by a
 * PMD or by PTEs.  Stock passes.
 */
TEST_F(partial_thp_edges, zero_whole_stays)
{
	struct env *env = &self->env;
	bool by_ptes;

	for (by_ptes = false; ; by_ptes = true) {
		if (!build(_metadata, env))
			return;
		if (by_ptes)
			ASSERT_TRUE(pthp_map_by_ptes(&env->r));
		ASSERT_EQ(0, each_thp(env, zero, 1, (1u << env->order) - 1, 0));
		EXPECT_EQ(0, migrate(env));
		expect_whole(_metadata, env);
		expect_pages(_metadata, env, env->dst);
		if (by_ptes)
			break;
	}
}

/* Expect zero-filled pages to be replaced, and to keep @bit in the page table. */
static void expect_zeroes_keep_bit(struct __test_metadata *_metadata,
				   struct env *env, uint64_t bit)
{
	struct seen s;

	expect_bit_survives(_metadata, &env->r, env->zero, bit, env->src, env->dst);
	look(env, &s);
	EXPECT_EQ(NR_THPS, s.anon);
	EXPECT_EQ(NR_THPS * ((1u << env->order) - 2), s.zeropage);
	expect_pages(_metadata, env, env->dst);
}

/*
 * A page stays write-protected by userfaultfd when the shared zero page takes its place.
 * Stock passes.
 */
TEST_F(partial_thp_edges, zero_uffd_wp)
{
	struct env *env = &self->env;
	unsigned int n = 1u << env->order, i;
	int uffd;

	requires(return, replaces_zeroes, NO_ZEROES);
	requires(return, !pthp_uffd_open(&uffd), "no userfaultfd write protection");
	if (!build(_metadata, env))
		return;
	requires(return, !uffd_register(uffd, env->r.mem, pthp_len(&env->r), false, true, false),
		 "no userfaultfd write protection of memory");
	ASSERT_EQ(0, each_thp(env, zero, 1, n - 2, 0));
	for (i = 0; i < NR_THPS; i++)
		ASSERT_EQ(0, pthp_uffd_protect(uffd, pthp_addr(&env->r, i * n),
					       n / 3 * psize(), true));
	ASSERT_EQ(0, each_thp(env, unmap, n - 1, 1, MADV_DONTNEED));
	expect_zeroes_keep_bit(_metadata, env, PM_UFFD_WP);
	close(uffd);
}

/* A page stays soft-dirty when the shared zero page takes its place.  Stock passes. */
TEST_F(partial_thp_edges, zero_soft_dirty)
{
	struct env *env = &self->env;
	unsigned int n = 1u << env->order, i;

	requires(return, replaces_zeroes, NO_ZEROES);
	requires(return, softdirty_supported(), "no soft-dirty tracking");
	if (!build_sparse(_metadata, env))
		return;
	clear_softdirty();
	for (i = 0; i < NR_THPS; i++)
		memset(pthp_addr(&env->r, i * n + n / 3), 0, n / 3 * psize());
	expect_zeroes_keep_bit(_metadata, env, PM_SOFT_DIRTY);
}

/* ---- borders of VMAs ---- */

/*
 * The first and the second quarter of each THP are bound to different nodes.  mbind(2)
 * of one moves both, mbind(2) of the other moves that back: each page is where its policy
 * says.  A piece that lies in both would follow the second call.  Stock: the nodes are
 * right, all pieces are of order 0.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_edges, border_policy)
{
	struct env *env = &self->env;
	unsigned int quarter = 1u << env->order >> 2, away, page, wrong;
	struct pthp *r = &env->r;

	for (away = 0; away < 2; away++) {
		if (!build(_metadata, env))
			return;
		ASSERT_EQ(0, each_thp(env, unmap, 2 * quarter, 2 * quarter,
				      MADV_DONTNEED));
		EXPECT_EQ(0, each_thp(env, bind_slice, !away * quarter, quarter,
				      env->src));
		EXPECT_EQ(0, each_thp(env, move_slice, away * quarter, quarter,
				      env->dst));
		EXPECT_EQ(0, each_thp(env, move_slice, !away * quarter, quarter,
				      env->src));

		for (page = 0; page < r->nr; page++)
			r->addrs[page] = pthp_addr(r, page);
		ASSERT_EQ(0, syscall(__NR_move_pages, 0, r->nr, r->addrs, NULL,
				     r->status, 0));
		for (wrong = 0, page = 0; page < r->nr; page++) {
			if (!r->mapped[page])
				continue;
			wrong += r->status[page] !=
				 (page / quarter % 2 == away ? env->dst : env->src);
		}
		EXPECT_EQ(0, wrong) TH_LOG("%u pages are on the wrong node", wrong);
		expect_planned(_metadata, env);
		EXPECT_TRUE(pthp_intact(r));
	}
}
#ifndef HAVE_MBIND_FOLIO

/* The second quarter of each THP is bound: the first has a policy of its own. */
static void expect_policy_in_front(struct __test_metadata *_metadata, struct env *env)
{
	unsigned int quarter = 1u << env->order >> 2;

	ASSERT_EQ(0, each_thp(env, unmap, 2 * quarter, 2 * quarter, MADV_DONTNEED));
	EXPECT_EQ(0, each_thp(env, bind_slice, 0, quarter, env->src));
	/* What has no policy of its own would go there. */
	ASSERT_EQ(0, pthp_prefer_node(env->dst));
	EXPECT_EQ(0, each_thp(env, move_slice, quarter, quarter, env->dst));
	EXPECT_EQ(env->r.nr_mapped / 2, pthp_on_node(&env->r, env->dst));
	EXPECT_TRUE(pthp_intact(&env->r));
}

/*
 * mbind(2) of the second quarter of each THP brings the first along.  The first goes where
 * the policy of its own VMA says, although that VMA is in front of the range of the call.
 * Stock: all of the THP goes where the second quarter is bound to.
 */
TEST_F(partial_thp_edges, border_policy_in_front)
{
	if (build(_metadata, &self->env))
		expect_policy_in_front(_metadata, &self->env);
}

/*
 * The same if mremap(2) has moved the THPs to lower addresses.  The indices still tell the
 * order of the pages, but no longer their addresses.  Stock: as above.
 */
TEST_F(partial_thp_edges, border_policy_in_front_moved)
{
	struct pthp *r = &self->env.r;
	size_t len;
	char *to;

	if (!build(_metadata, &self->env))
		return;
	len = pthp_len(r);
	to = r->mem - 2 * len;
	ASSERT_EQ(to, mmap(to, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
			   MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0));
	ASSERT_EQ(to, mremap(r->mem, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	r->mem = to;
	expect_policy_in_front(_metadata, &self->env);
}
#endif

/*
 * The first half of each THP stays mapped.  @make, run by a child with @in_child, puts a
 * border behind the first quarter: no piece lies across that.
 */
static void expect_border(struct __test_metadata *_metadata, struct env *env,
			  int (*make)(struct env *env, long quarter), bool in_child)
{
	unsigned int quarter = 1u << env->order >> 2;

	if (!build(_metadata, env))
		return;
	ASSERT_EQ(0, each_thp(env, unmap, 2 * quarter, 2 * quarter, MADV_DONTNEED));
	ASSERT_TRUE(in_child ? spawn(env, make, quarter) : !make(env, quarter));
	each_thp(env, mark_border, 0, quarter, 0);
	EXPECT_EQ(0, migrate(env));
	expect_planned(_metadata, env);
	expect_pages(_metadata, env, env->dst);
}

static int protect_quarter(struct env *env, long quarter)
{
	return each_thp(env, protect, 0, quarter, PROT_READ);
}

static int lock_quarter(struct env *env, long quarter)
{
	return each_thp(env, lock, 0, quarter, 0);
}

/* The second quarter goes, and so does its VMA. */
static int end_behind_quarter(struct env *env, long quarter)
{
	unsigned int i;

	for (i = 0; i < NR_THPS; i++) {
		if (munmap(pthp_addr(&env->r, (i << env->order) + quarter),
			   quarter * psize()))
			return -1;
	}
	return 0;
}

/*
 * The first quarter is read-only and the second is not: no piece lies in both.  Stock:
 * all pieces are of order 0.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_edges, border_protection)
{
	expect_border(_metadata, &self->env, protect_quarter, false);
}

/*
 * The same if the first quarter is locked.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_edges, border_mlock)
{
	expect_border(_metadata, &self->env, lock_quarter, false);
}

/*
 * Parent and child map the same half of each THP, and only the child has a VMA that ends
 * in the middle of it: no piece lies across that.  Stock: all pieces are of order 0.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_edges, border_in_child)
{
	expect_border(_metadata, &self->env, protect_quarter, true);
}

/*
 * The same if there is no VMA behind the border.  Stock: all pieces are of order 0.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_edges, border_ends_child)
{
	expect_border(_metadata, &self->env, end_behind_quarter, true);
}

/*
 * A whole THP whose halves are bound to different nodes is not split.  It goes where the
 * last call sends it.  Stock: the first migration marks it partially mapped, the second
 * splits it.
 *
 * Needs: mm/rmap: do not mistake migration
 */
TEST_F(partial_thp_edges, border_whole)
{
	struct env *env = &self->env;
	unsigned int half = 1u << env->order >> 1;

	if (!build(_metadata, env))
		return;
	EXPECT_EQ(0, each_thp(env, move_slice, half, half, env->dst));
	expect_whole(_metadata, env);
	EXPECT_EQ(env->r.nr, pthp_on_node(&env->r, env->dst));
	EXPECT_EQ(0, each_thp(env, move_slice, 0, half, env->src));
	expect_whole(_metadata, env);
	expect_pages(_metadata, env, env->src);
}

/* ---- mlock(2) ---- */

struct locked {
	long mlocked;
	long unevictable;
};

/*
 * mbind(2) drains the LRU batches of all CPUs, stat_refresh adds up their counters.
 */
static struct locked count_locked(void)
{
	struct pthp_vmstat v;
	struct locked l;
	void *page;

	page = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthp_mbind(page, psize(), 0, MPOL_MF_MOVE);
	munmap(page, psize());
	pthp_vmstat_read(&v);
	l.mlocked = pthp_get_named("/proc/meminfo", "Mlocked:");
	l.unevictable = pthp_get_named("/proc/meminfo", "Unevictable:");
	return l;
}

static void expect_locked(struct __test_metadata *_metadata,
			  const struct locked *before, unsigned int pages)
{
	struct locked now = count_locked();

	EXPECT_EQ(pages * (psize() >> 10), now.mlocked - before->mlocked);
	EXPECT_EQ(pages * (psize() >> 10), now.unevictable - before->unevictable);
}

/*
 * Of each 2 * @len pages of locked THPs the second half is unmapped.  The others count as
 * locked after they were migrated, and no longer when they are unlocked.
 */
static void expect_mlock(struct __test_metadata *_metadata, struct env *env,
			 unsigned int len)
{
	struct locked before;
	unsigned int i;

	if (!build(_metadata, env))
		return;
	before = count_locked();
	ASSERT_EQ(0, mlock(env->r.mem, pthp_len(&env->r)));
	expect_locked(_metadata, &before, env->r.nr);
	for (i = len; i < 1u << env->order; i += 2 * len)
		ASSERT_EQ(0, each_thp(env, unmap, i, len, MADV_DONTNEED_LOCKED));
	EXPECT_EQ(0, migrate(env));
	expect_locked(_metadata, &before, env->r.nr_mapped);
	expect_pages(_metadata, env, env->dst);
	ASSERT_EQ(0, munlock(env->r.mem, pthp_len(&env->r)));
	expect_locked(_metadata, &before, 0);
}

/* A half of each THP stays locked.  Stock passes. */
TEST_F(partial_thp_edges, mlock_half)
{
	expect_mlock(_metadata, &self->env, 1u << self->env.order >> 1);
}

/* The same with alternate pages.  Stock passes. */
TEST_F(partial_thp_edges, mlock_alternate)
{
	expect_mlock(_metadata, &self->env, 1);
}

/* Only half of what stays mapped is locked.  Stock passes. */
TEST_F(partial_thp_edges, mlock_partly)
{
	struct env *env = &self->env;
	unsigned int quarter = 1u << env->order >> 2;
	struct locked before;

	if (!build(_metadata, env))
		return;
	before = count_locked();
	ASSERT_EQ(0, each_thp(env, unmap, 2 * quarter, 2 * quarter, MADV_DONTNEED));
	ASSERT_EQ(0, each_thp(env, lock, 0, quarter, 0));
	EXPECT_EQ(0, migrate(env));
	expect_locked(_metadata, &before, NR_THPS * quarter);
	expect_pages(_metadata, env, env->dst);
	ASSERT_EQ(0, munlock(env->r.mem, pthp_len(&env->r)));
	expect_locked(_metadata, &before, 0);
}

#ifdef HAVE_SPLIT_TO_ORDER
/*
 * A page in the middle of each locked THP is write-protected by userfaultfd.  The THP
 * stays whole and counts as locked, once.  Stock: what PTEs map of a large folio does not
 * count after it was migrated.
 *
 * Needs: mm/migrate: mlock large folios that all of is mapped
 */
TEST_F(partial_thp_edges, mlock_runs)
{
	struct env *env = &self->env;
	unsigned int n = 1u << env->order, i;
	struct locked before;
	int uffd;

	requires(return, !pthp_uffd_open(&uffd), "no userfaultfd write protection");
	if (!build(_metadata, env))
		return;
	before = count_locked();
	requires(return, !uffd_register(uffd, env->r.mem, pthp_len(&env->r), false, true, false),
		 "userfaultfd does not write-protect memory");
	ASSERT_EQ(0, mlock(env->r.mem, pthp_len(&env->r)));
	for (i = 0; i < env->thps; i++)
		ASSERT_EQ(0, pthp_uffd_protect(uffd, pthp_addr(&env->r, i * n + n / 3),
					       psize(), true));
	EXPECT_EQ(0, migrate(env));
	expect_locked(_metadata, &before, env->r.nr);
	expect_pages(_metadata, env, env->dst);
	close(uffd);
	ASSERT_EQ(0, munlock(env->r.mem, pthp_len(&env->r)));
	expect_locked(_metadata, &before, 0);
}

#endif
/* ---- interleaving ---- */

enum interleaved {
	HALVES,
	HALVES_BEHIND_PAGE,
	PIECES,
};

static void interleave(struct __test_metadata *_metadata, struct env *env,
		       enum interleaved what)
{
	unsigned int n = 1u << env->order, i;
	const unsigned int gone[] = { n / 2, 1 };
	unsigned long masks[2][PTHP_MASK_LONGS];
	int nodes[3];

	requires(return, pthp_nodes(nodes, 3) == 3, "needs three nodes with memory");
	pthp_mask(masks[0], nodes[1]);
	pthp_mask(masks[1], nodes[2]);
	for (i = 0; i < PTHP_MASK_LONGS; i++)
		masks[0][i] |= masks[1][i];

	for (i = 0; i < ARRAY_SIZE(gone); i++) {
		if (!build(_metadata, env))
			return;
		ASSERT_EQ(0, each_thp(env, unmap, n - gone[i], gone[i], MADV_DONTNEED));
		if (what == HALVES_BEHIND_PAGE) {
			ASSERT_EQ(0, unmap(env, 0, n - gone[i], MADV_DONTNEED));
			*env->r.mem = 1;
		}
		if (what == PIECES) {
			ASSERT_EQ(0, pthp_mbind(env->r.mem, pthp_len(&env->r), nodes[1],
						MPOL_MF_MOVE));
			ASSERT_EQ(0, pthp_mbind(env->r.mem, pthp_len(&env->r), nodes[0],
						MPOL_MF_MOVE));
		}
		ASSERT_EQ(0, syscall(__NR_mbind, env->r.mem, pthp_len(&env->r),
				     MPOL_INTERLEAVE, masks[0], PTHP_MAX_NODES + 1,
				     MPOL_MF_MOVE));
		EXPECT_GE(pthp_on_node(&env->r, nodes[1]), env->r.nr_mapped * 3 / 8);
		EXPECT_GE(pthp_on_node(&env->r, nodes[2]), env->r.nr_mapped * 3 / 8);
		EXPECT_TRUE(pthp_intact(&env->r));
	}
}

/*
 * mbind(2) interleaves what is left of THPs, of each the same pages, over two nodes.
 * Stock passes: the indices of single pages are odd and even.
 *
 * Needs: mm/mempolicy: interleave what is left of THPs
 */
TEST_F(partial_thp_edges, interleave)
{
	interleave(_metadata, &self->env, HALVES);
}

/*
 * The same if the first page of the range is a single one.  Stock passes, likewise.
 *
 * Needs: mm/mempolicy: interleave what is left of THPs
 */
TEST_F(partial_thp_edges, interleave_behind_page)
{
	interleave(_metadata, &self->env, HALVES_BEHIND_PAGE);
}

/*
 * The same if earlier migrations have split them, and the pieces are folios like others.
 * Stock passes, likewise.
 *
 * Needs: mm/mempolicy: interleave what is left of THPs
 */
TEST_F(partial_thp_edges, interleave_pieces)
{
	interleave(_metadata, &self->env, PIECES);
}

TEST_HARNESS_MAIN
