/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the files of migrate_partial_thp_stress share: the owners of memory in
 * partial_thp_owner.c, what others do to it in partial_thp_others.c.
 */
#ifndef __PARTIAL_THP_STRESS_H
#define __PARTIAL_THP_STRESS_H

#include <pthread.h>
#include <sys/types.h>

#include "partial_thp.h"

#define NR_OWNERS	4
#define NR_CHUNKS	4		/* of each owner: a THP, or a range of 64K folios */
#define NR_NAMED	16		/* pages in one call of move_pages(2) */

/* What is done to the memory, and counted */
enum op {
	REFILL,
	REWRITE,
	PUNCH,
	FORK,
	PROTECT,
	UFFD_WP,
	FREE,
	MOVE,
	BIND,
	MIGRATE,
	REFUSED,		/* folios that those three did not move */
	PAGEOUT,
	COLLAPSE,
	KSM,
	PIN,
	REGISTER,
	COMPACT_ALL,
	SHRINK,
	RECLAIM,
	CHANGE_CGROUP,
	RENEW_CGROUP,
	NR_OPS
};

/* What all the processes share */
struct world {
	int stop;
	bool left_out[NR_OPS];
	bool failing;			/* allocations, of those who migrate */
	int nodes[2];
	unsigned int seed;
	char cgroup[64];		/* "": no cgroups */
	unsigned long ops[NR_OPS];
	unsigned long looked;		/* at pages */
	unsigned int hot[NR_OWNERS];	/* the chunk an owner is busy with */
	bool changed[NR_OWNERS];	/* and which it just filled or unmapped */
	char *mem[NR_OWNERS];
	pid_t pids[NR_OWNERS];
	/*
	 * Long-term pins of an owner's memory take this for writing, because two
	 * faults of stock kernels would end the run.  Both readers only try.
	 *
	 * A long-term pin of movable memory holds mmap_lock, and tries until it
	 * can isolate each page.  move_pages(2) waits for mmap_lock with pages
	 * isolated.  If somebody waits in between to write, as munmap(2) does,
	 * both go on forever, on any kernel.
	 *
	 * 6.1 cannot drop mmap_lock in a long-term pin, nor in ksmd.  If the page is
	 * write-protected by userfaultfd, DEBUG_VM complains in
	 * handle_userfault().
	 */
	pthread_rwlock_t pins_longterm[NR_OWNERS];
};

extern struct world *world;

enum page_state {
	GONE,			/* not in a VMA */
	ZERO,			/* MADV_DONTNEED */
	KEPT,
	LAZY,			/* MADV_FREE: kept or zero */
};

/*
 * A chunk begins at the size of a PMD; where it is shorter than that, the rest
 * stays out of reach, and no folio can have the size of a PMD.
 */
struct owner {
	unsigned int id;
	unsigned int n;		/* pages in a chunk */
	size_t stride;
	char *mem;
	unsigned int nr;	/* pages of all chunks */
	uint8_t *state;
	uint32_t *gen;
	uint64_t rng;
	int uffd;
	pid_t child;
	uint32_t mark;		/* tells what a child writes */
	unsigned int bad;
};

struct helper {
	struct owner o;		/* a copy; that is, the constants of it */
	uint64_t rng;
};

struct range {
	unsigned int start;
	unsigned int end;
};

static inline bool stopped(void)
{
	return __atomic_load_n(&world->stop, __ATOMIC_RELAXED);
}

static inline void stop(void)
{
	__atomic_store_n(&world->stop, 1, __ATOMIC_RELAXED);
}

static inline void count(enum op op, unsigned long n)
{
	__atomic_fetch_add(&world->ops[op], n, __ATOMIC_RELAXED);
}

static inline unsigned int rnd(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return pthp_mix(*state) >> 33;
}

/* Is @op to be done now, one time in @n?  Never if it cannot be done. */
static inline bool one_in(uint64_t *rng, unsigned int n, enum op op)
{
	return !(rnd(rng) % n) && !world->left_out[op];
}

static inline char *addr_of(const struct owner *o, unsigned int page)
{
	return o->mem + page / o->n * o->stride +
	       (size_t)(page % o->n) * psize();
}

static inline size_t len_of(const struct range *r)
{
	return (size_t)(r->end - r->start) * psize();
}

/* ---- what others do ---- */

void say(const char *fmt, ...);
const char *cgroup_file(char *buf, size_t size, int group, const char *name);
void move_some(const struct owner *o, pid_t pid, uint64_t *rng);
void *mover(void *arg);
void *outsider(void *arg);
void *disturber(void *arg);
void *compactor(void *arg);
void *shrinker(void *arg);
void *cgroup_mover(void *arg);

/* ---- owners ---- */

struct range some_chunk(const struct owner *o, uint64_t *rng);
struct range some_range(const struct owner *o, uint64_t *rng);
void owner_geometry(struct owner *o, unsigned int id);
int owner_main(unsigned int id, pid_t parent);

#endif /* __PARTIAL_THP_STRESS_H */
