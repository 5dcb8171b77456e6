/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For the programs that test where larger pieces might do worse than single pages.
 *
 * The region of partial_thp.h gets zero-filled pages and borders of VMAs.  plan() says
 * what its pieces should be, look() says what they are.
 */
#ifndef __PARTIAL_THP_EDGES_H
#define __PARTIAL_THP_EDGES_H

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "partial_thp_test.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

#define NR_THPS		8
#define SEED		1

#define MAX_PTES_NONE	PTHP_THP "khugepaged/max_ptes_none"

struct env {
	int src;
	int dst;
	unsigned int thps;
	unsigned int order;
	struct pthp r;
	bool *zero;		/* zero-filled pages: @r takes them for unmapped */
	bool *border;		/* a VMA begins with this page */
	unsigned int max_zero;	/* of a THP's pages, in one that stays whole */
	pid_t child;
	int alive;		/* at its end when the child and its children are gone */
};

/* What the mapped pages of the region, the zero-filled ones too, are made of */
struct seen {
	unsigned int anon;		/* pages of anonymous folios */
	unsigned int zeropage;		/* mappings of the shared zero page */
	unsigned int too_empty;		/* folios with less than half data */
	unsigned int crossing;		/* folios that lie in two VMAs */
	unsigned int orders[PTHP_MAX_ORDER + 1];
};

static inline void env_setup(struct __test_metadata *_metadata, struct env *env)
{
	char all_but_one[16];

	if (!test_setup_nodes(_metadata, &env->src, &env->dst))
		return;
	env->thps = NR_THPS;
	env->order = pthp_pmd_order();
	env->max_zero = 1u << env->order;
	/* The default, by which the kernel takes a piece for too empty, if it has that */
	snprintf(all_but_one, sizeof(all_but_one), "%u", env->max_zero - 1);
	pthp_set(MAX_PTES_NONE, all_but_one);
}

/* Fork a child that does @fn and stays until stop_child(). */
static inline bool spawn(struct env *env, int (*fn)(struct env *env, long arg), long arg)
{
	pid_t parent = getpid();
	int ready[2];
	char ok = 0;

	if (pipe(ready))
		return false;
	env->child = fork();
	if (!env->child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		ok = !fn(env, arg);
		if (write(ready[1], &ok, 1) == 1)
			pause();
		_exit(0);
	}
	close(ready[1]);
	env->alive = ready[0];
	return read(env->alive, &ok, 1) == 1 && ok;
}

/* When this returns, the memory of the child and of its children is free again. */
static inline void stop_child(struct env *env)
{
	char c;

	if (env->child <= 0)
		return;
	kill(env->child, SIGKILL);
	waitpid(env->child, NULL, 0);
	while (read(env->alive, &c, 1) == 1)
		;
	close(env->alive);
	env->child = 0;
}

static inline void env_teardown(struct env *env)
{
	stop_child(env);
	pthp_free(&env->r);
	free(env->zero);
	free(env->border);
	pthp_restore();
}

/* Make the region; false if the test was skipped. */
static inline bool build(struct __test_metadata *_metadata, struct env *env)
{
	const char *missing;

	pthp_free(&env->r);
	missing = pthp_alloc(&env->r, env->thps, env->order, env->src, SEED);
	requires(return false, !missing, "%s", missing);
	env->r.hole = PTHP_DONTNEED;
	free(env->zero);
	free(env->border);
	env->zero = calloc(env->r.nr, sizeof(*env->zero));
	env->border = calloc(env->r.nr, sizeof(*env->border));
	ASSERT_TRUE(env->zero && env->border);
	return true;
}

/* Do to the same pages of each THP what one of the next functions does. */
typedef int (*slice_fn)(struct env *env, unsigned int page, unsigned int nr,
			long arg);

static inline int each_thp(struct env *env, slice_fn fn, unsigned int page,
			   unsigned int nr, long arg)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < env->r.nr_folios && !err; i++)
		err = fn(env, (i << env->order) + page, nr, arg);
	return err;
}

static inline void forget(struct env *env, unsigned int page, unsigned int nr)
{
	unsigned int i;

	for (i = page; i < page + nr; i++)
		env->r.mapped[i] = false;
	env->r.nr_mapped -= nr;
}

static inline int unmap(struct env *env, unsigned int page, unsigned int nr, long advice)
{
	forget(env, page, nr);
	return madvise(pthp_addr(&env->r, page), nr * psize(), advice);
}

static inline int zero(struct env *env, unsigned int page, unsigned int nr, long unused)
{
	forget(env, page, nr);
	memset(env->zero + page, true, nr * sizeof(*env->zero));
	memset(pthp_addr(&env->r, page), 0, nr * psize());
	return 0;
}

static inline int mark_border(struct env *env, unsigned int page, unsigned int nr,
			      long unused)
{
	env->border[page] = true;
	if (page + nr < env->r.nr)
		env->border[page + nr] = true;
	return 0;
}

static inline int protect(struct env *env, unsigned int page, unsigned int nr, long prot)
{
	mark_border(env, page, nr, 0);
	return mprotect(pthp_addr(&env->r, page), nr * psize(), prot);
}

static inline int lock(struct env *env, unsigned int page, unsigned int nr, long unused)
{
	mark_border(env, page, nr, 0);
	return mlock(pthp_addr(&env->r, page), nr * psize());
}

static inline int bind_slice(struct env *env, unsigned int page, unsigned int nr,
			     long node)
{
	mark_border(env, page, nr, 0);
	return pthp_mbind(pthp_addr(&env->r, page), nr * psize(), node, 0);
}

static inline int move_slice(struct env *env, unsigned int page, unsigned int nr,
			     long node)
{
	mark_border(env, page, nr, 0);
	return pthp_mbind(pthp_addr(&env->r, page), nr * psize(), node,
			  MPOL_MF_MOVE);
}

/* Without MPOL_MF_STRICT: a pinned page or a full node is not an error here. */
static inline int migrate(struct env *env)
{
	return pthp_mbind(env->r.mem, pthp_len(&env->r), env->dst,
			  MPOL_MF_MOVE_ALL);
}

/* ---- what became of it ---- */

static inline void look(const struct env *env, struct seen *s)
{
	unsigned int n = 1u << pthp_pmd_order(), page, data = 0, size = 0;
	unsigned long pfn, base = -1ul, head = -1ul;
	const struct pthp *r = &env->r;
	struct pthp_folio f;
	uint64_t *win = calloc(n, sizeof(*win));

	memset(s, 0, sizeof(*s));
	for (page = 0; page < r->nr; page++) {
		pfn = pagemap_get_pfn(r->pagemap, pthp_addr(r, page));
		if (pfn == -1ul || !pfn)
			continue;
		if (base != pfn - pfn % n) {
			base = pfn - pfn % n;
			if (!pthp_read_flags(r, base, win, n))
				memset(win, 0, n * sizeof(*win));
		}
		if (win[pfn % n] & PTHP_KPF_ZERO_PAGE) {
			s->zeropage++;
			continue;
		}
		s->anon++;
		pthp_folio_of(&f, pfn, win, n);
		if (f.pfn != head) {
			s->too_empty += 2 * data < size;
			head = f.pfn;
			size = 1u << f.order;
			data = 0;
			s->orders[f.order]++;
		} else {
			s->crossing += env->border[page];
		}
		data += r->mapped[page];
	}
	s->too_empty += 2 * data < size;
	free(win);
}

/*
 * Plan the largest pieces that are mapped throughout and lie within one VMA.  At most
 * half of the pages of each may be zero-filled, and no more than khugepaged allows.
 */
static inline void plan(const struct env *env, unsigned int start, unsigned int order,
			unsigned int *want)
{
	unsigned int n = 1u << order, i, data = 0, zeroes = 0, borders = 0;
	bool keep = order != 1;

#ifndef HAVE_SPLIT_TO_ORDER
	keep = !order;
#endif
	for (i = start; i < start + n; i++) {
		data += env->r.mapped[i];
		zeroes += env->zero[i];
		borders += i > start && env->border[i];
	}
	if (!data)
		return;
	if (keep && data + zeroes == n && !borders && 2 * data >= n &&
	    zeroes <= env->max_zero >> (env->order - order)) {
		want[order]++;
		return;
	}
	plan(env, start, order - 1, want);
	plan(env, start + n / 2, order - 1, want);
}

/* The pieces are as large as they may be, and what they are made of is right. */
static inline void expect_planned(struct __test_metadata *_metadata,
				  const struct env *env)
{
	unsigned int want[PTHP_MAX_ORDER + 1] = { 0 }, i;
	struct seen s;

	for (i = 0; i < env->r.nr_folios; i++)
		plan(env, i << env->order, env->order, want);
	look(env, &s);
	expect_same_orders(_metadata, want, s.orders);
	EXPECT_EQ(0, s.crossing);
	EXPECT_EQ(0, s.too_empty);
}

/* Every page with data is on @node, each page has its content. */
static inline void expect_pages(struct __test_metadata *_metadata,
				const struct env *env, int node)
{
	unsigned int page, bad = 0;

	EXPECT_EQ(env->r.nr_mapped, pthp_on_node(&env->r, node));
	EXPECT_TRUE(pthp_intact(&env->r));
	for (page = 0; page < env->r.nr; page++)
		bad += env->zero[page] && !pthp_zeroed(pthp_addr(&env->r, page));
	EXPECT_EQ(0, bad);
}

static inline void expect_whole(struct __test_metadata *_metadata,
				const struct env *env)
{
	struct seen s;

	look(env, &s);
	EXPECT_EQ(env->r.nr_folios, s.orders[env->order]);
	EXPECT_EQ(env->r.nr, s.anon);
}

#endif /* __PARTIAL_THP_EDGES_H */
