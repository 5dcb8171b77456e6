/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A region of partially mapped THPs, two nodes, and a call that migrates it from one to
 * the other: for migrate_partial_thp.c and migrate_partial_thp_state.c.
 */
#ifndef __MIGRATE_PARTIAL_THP_H
#define __MIGRATE_PARTIAL_THP_H

#include <sys/wait.h>
#include <time.h>

#include "partial_thp_test.h"

#define NR_THPS 8

/* What every fixture has */
struct env {
	int src;
	int dst;
	unsigned int thps;
	unsigned int order;
	unsigned int seed;
	enum pthp_call call;
	struct pthp r;
	/* what migrate_pages(2) does to the rest of this process, each time */
	struct pthp_vmstat idle;
	long idle_ret;
};

static inline long migrate(struct env *env, struct pthp_vmstat *delta)
{
	struct pthp_vmstat before;
	long ret;

	if (!pthp_vmstat_read(&before))
		return -ENOENT;
	ret = pthp_migrate(&env->r, env->call, env->src, env->dst);
	if (!pthp_vmstat_read(delta))
		return -ENOENT;
	pthp_vmstat_sub(delta, &before);
	if (env->call == PTHP_MIGRATE_PAGES) {
		pthp_vmstat_sub(delta, &env->idle);
		ret -= env->idle_ret;
	}
	return ret;
}

/*
 * What a call says of the region.  When the rest of the process is no longer where
 * settle() put it, migrate_pages(2) also counts folios of the rest that stay: ignore
 * them.
 */
static inline long of_region(const struct env *env, long ret)
{
	return env->call == PTHP_MIGRATE_PAGES && ret > 0 ? 0 : ret;
}

static inline long migrate_back(struct env *env)
{
	return of_region(env, pthp_migrate(&env->r, env->call, env->dst,
					   env->src));
}

/*
 * migrate_pages(2) takes the whole process along.  Have the rest of it where it
 * is to go, with all of it mapped, so that only the region is left to move.
 */
static inline bool settle(struct env *env)
{
	bool ok;
	int i;

	if (mlockall(MCL_CURRENT) || munlockall())
		return false;
	for (i = 0; i < 2; i++) {
		if (pthp_migrate_process(env->src, env->dst) < 0)
			return false;
	}
	ok = pthp_vmstat_read(&env->idle);
	env->idle_ret = pthp_migrate_process(env->src, env->dst);
	if (ok && env->idle_ret >= 0) {
		struct pthp_vmstat after;

		ok = pthp_vmstat_read(&after);
		pthp_vmstat_sub(&after, &env->idle);
		env->idle = after;
	}
	return ok && env->idle_ret >= 0;
}

static inline void env_setup(struct __test_metadata *_metadata, struct env *env,
			     enum pthp_call call)
{
	const char *seed = getenv("PARTIAL_THP_SEED");

	if (!test_setup_nodes(_metadata, &env->src, &env->dst))
		return;
	env->thps = NR_THPS;
	env->order = pthp_pmd_order();
	env->seed = seed ? strtoul(seed, NULL, 0) : time(NULL) ^ getpid();
	env->seed &= INT32_MAX;
	env->call = call;
	ASSERT_EQ(0, pthp_prefer_node(env->dst));
	if (call == PTHP_MIGRATE_PAGES)
		ASSERT_TRUE(settle(env));
}

static inline void env_teardown(struct env *env)
{
	pthp_free(&env->r);
	pthp_restore();
}

/* Make the region; false if the test was skipped. */
static inline bool build(struct __test_metadata *_metadata, struct env *env,
			 enum pthp_shape shape, enum pthp_hole hole)
{
	const char *missing;

	pthp_free(&env->r);
	missing = pthp_alloc(&env->r, env->thps, env->order, env->src,
			     env->seed);
	requires(return false, !missing, "%s", missing);
	if (shape == PTHP_RANDOM)
		TH_LOG("PARTIAL_THP_SEED=%u", env->seed);
	ASSERT_EQ(0, pthp_punch(&env->r, shape, hole));
	return true;
}

/* @split THPs were split and @pages moved, @failed THPs stayed. */
static inline void expect_events(struct __test_metadata *_metadata,
				 const struct pthp_vmstat *delta, long pages,
				 long split, long failed)
{
	const long n = 1l << pthp_pmd_order();

	expect_delta(_metadata, delta, PTHP_PGMIGRATE_SUCCESS, pages);
	expect_delta(_metadata, delta, PTHP_PGMIGRATE_FAIL, failed * n);
	expect_delta(_metadata, delta, PTHP_THP_MIGRATION_SUCCESS, 0);
	expect_delta(_metadata, delta, PTHP_THP_MIGRATION_FAIL, failed);
	expect_delta(_metadata, delta, PTHP_THP_MIGRATION_SPLIT, split);
}

/* Every mapped page is on @node, with its content. */
static inline void expect_pages(struct __test_metadata *_metadata,
				const struct pthp *r, int node)
{
	EXPECT_EQ(r->nr_mapped, pthp_on_node(r, node));
	EXPECT_TRUE(pthp_intact(r));
}

/* All folios are still there, of the order they were made with. */
static inline void expect_whole(struct __test_metadata *_metadata,
				const struct pthp *r)
{
	unsigned int want[PTHP_MAX_ORDER + 1] = { 0 };

	want[r->order] = r->nr_folios;
	expect_orders(_metadata, r, want);
}

/*
 * The orders of the largest naturally aligned folios that hold the mapped pages
 * of the region and nothing else.  There are no anonymous folios of order 1.
 */
static inline void largest_orders(const struct pthp *r, unsigned int *orders)
{
	unsigned int page, start, i, order;

	memset(orders, 0, (PTHP_MAX_ORDER + 1) * sizeof(*orders));
	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page])
			continue;
		for (order = r->order; order; order--) {
			if (order == 1)
				continue;
			start = page >> order << order;
			for (i = 0; i < 1u << order; i++) {
				if (!r->mapped[start + i])
					break;
			}
			if (i == 1u << order)
				break;
#ifndef HAVE_SPLIT_TO_ORDER
			/* There is no split but to single pages. */
			order = 1;
#endif
		}
		/* Count pages: the block is met once for each of its pages. */
		orders[order]++;
	}
	for (order = 0; order <= PTHP_MAX_ORDER; order++)
		orders[order] >>= order;
}

static inline void expect_largest_orders(struct __test_metadata *_metadata,
					 const struct pthp *r)
{
	unsigned int want[PTHP_MAX_ORDER + 1];

	largest_orders(r, want);
	expect_orders(_metadata, r, want);
}

/* What a call that could not move one folio returns */
static inline long failed_ret(const struct env *env)
{
	return env->call == PTHP_MBIND ? -EIO : 1;
}

/* Run by the child of a fork test, on its own page tables. */
static inline int child_looks(struct pthp *r, int node)
{
	r->pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (r->pagemap < 0)
		return 2;
	if (pthp_on_node(r, node) != r->nr_mapped)
		return 3;
	if (!pthp_intact(r))
		return 4;
	return pthp_holes_empty(r) ? 0 : 5;
}

struct child {
	pid_t pid;
	int to;
	int from;
};

/* The child unmaps by @shape, says so, and looks at its pages when told to. */
static inline bool spawn(struct child *child, struct env *env, enum pthp_shape shape,
			 enum pthp_hole hole)
{
	int to[2], from[2], node;
	char ready;

	if (pipe(to) || pipe(from))
		return false;
	child->pid = fork();
	if (child->pid < 0)
		return false;
	if (child->pid) {
		close(to[0]);
		close(from[1]);
		child->to = to[1];
		child->from = from[0];
		return read(from[0], &ready, 1) == 1 && !ready;
	}
	close(to[1]);
	close(from[0]);
	ready = !!pthp_punch(&env->r, shape, hole);
	if (write(from[1], &ready, 1) != 1 ||
	    read(to[0], &node, sizeof(node)) != sizeof(node))
		_exit(1);
	_exit(child_looks(&env->r, node));
}

static inline int reap(struct child *child, int node)
{
	int status;

	if (write(child->to, &node, sizeof(node)) != sizeof(node))
		return -1;
	close(child->to);
	close(child->from);
	if (waitpid(child->pid, &status, 0) != child->pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* In pages: how far each folio reaches into a second page table */
#define MISALIGNED_BY 5

/* Move the whole region to where no folio is mapped by one page table alone. */
static inline void misalign(struct __test_metadata *_metadata, struct pthp *r)
{
	size_t pmd = read_pmd_pagesize(), len = pthp_len(r);
	char *mem, *to;

	mem = mmap(NULL, len + 2 * pmd, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	to = (char *)(((uintptr_t)mem + pmd - 1) & ~(pmd - 1));
	to += MISALIGNED_BY * psize();
	ASSERT_EQ(to, mremap(r->mem, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to));
	r->mem = to;
}

#endif /* __MIGRATE_PARTIAL_THP_H */
