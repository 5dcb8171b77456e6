/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Partially mapped large folios: make them, migrate them, and look at what
 * became of them.
 *
 * A region is a number of anonymous large folios of one order.  Every page is
 * filled with words made of a seed and its index, so that a page that was lost
 * (zeroes), a page that took the place of another one and a page copied in part
 * are told apart.  Some of its pages, by the shape, are then unmapped.
 *
 * What the region costs is the sum of the sizes of the folios that hold a page
 * it maps, read from /proc/kpageflags: exact, and no other process has a share
 * in it.
 */
#ifndef __PARTIAL_THP_H
#define __PARTIAL_THP_H

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vm_util.h"
#ifdef HAVE_SELFTESTS_MM
#ifdef HAVE_HUGEPAGE_SETTINGS
#include "hugepage_settings.h"

/* The length only counts for sizes other than a PMD's. */
static inline bool pthp_check_huge_anon(void *addr, int nr, uint64_t size)
{
	return check_huge_anon(addr, nr * size, nr, size);
}

#define check_huge_anon pthp_check_huge_anon
#else
#include "thp_settings.h"
#endif
#else
#include "partial_thp_compat.h"
#endif

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

static inline bool pthp_run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return !sched_setaffinity(0, sizeof(set), &set);
}

/* Bits of /proc/kpageflags, see kernel-page-flags.h, uapi and not */
#define PTHP_KPF_LRU		BIT_ULL(5)
#define PTHP_KPF_ANON		BIT_ULL(12)
#define PTHP_KPF_HEAD		BIT_ULL(15)
#define PTHP_KPF_TAIL		BIT_ULL(16)
#define PTHP_KPF_ZERO_PAGE	BIT_ULL(24)
#define PTHP_KPF_RESERVED	BIT_ULL(32)
#define PTHP_KPF_MLOCKED	BIT_ULL(33)

#define PTHP_MEMORY		"/sys/devices/system/memory"
#define PTHP_THP		"/sys/kernel/mm/transparent_hugepage/"
#define PTHP_KSM		"/sys/kernel/mm/ksm/"
#define PTHP_COMPACT		"/proc/sys/vm/compact_memory"
#define PTHP_DROP_CACHES	"/proc/sys/vm/drop_caches"

/* That of a PMD with pages of 64 KiB */
#define PTHP_MAX_ORDER		13
#define PTHP_MAX_NODES		1024
#define PTHP_MASK_LONGS		(PTHP_MAX_NODES / (8 * sizeof(unsigned long)))
#define PTHP_WORDS		(psize() / sizeof(uint64_t))

/* ---- shapes: which pages of a folio stay mapped ---- */

enum pthp_shape {
	PTHP_ALL,
	PTHP_FIRST_HALF,
	PTHP_LAST_HALF,
	PTHP_THREE_QUARTERS,
	PTHP_CB64K,
	PTHP_CB16K,
	PTHP_ALTERNATE,
	PTHP_ALL_BUT_ONE,
	PTHP_ONE_PAGE,
	PTHP_RAGGED,
	PTHP_RANDOM,
	PTHP_NR_SHAPES
};

/* How the other pages are unmapped */
enum pthp_hole {
	PTHP_MUNMAP,
	PTHP_DONTNEED,		/* the VMA stays in one piece */
};

/* How the folios are migrated */
enum pthp_call {
	PTHP_MOVE_PAGES,
	PTHP_MBIND,
	PTHP_MIGRATE_PAGES,
	PTHP_NR_CALLS
};

extern const char * const pthp_shape_names[PTHP_NR_SHAPES];
extern const char * const pthp_call_names[PTHP_NR_CALLS];

static inline uint64_t pthp_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

bool pthp_shape_maps(enum pthp_shape shape, unsigned int i, unsigned int n,
		     unsigned int folio, unsigned int seed);

/* ---- files, and knobs that are set back ---- */

long pthp_write(const char *path, const char *value);
bool pthp_get(const char *path, char *buf, size_t size);
long pthp_get_number(const char *path);
long pthp_get_named(const char *path, const char *name);

static inline bool pthp_put(const char *path, const char *value)
{
	return !pthp_write(path, value);
}

bool pthp_set(const char *path, const char *value);
void pthp_restore(void);
void pthp_keep_out(void);
void pthp_order_knob(char *path, size_t size, unsigned int order);
bool pthp_shrink(void);
bool pthp_drop_cgroups(const char *dir);

const char *pthp_swap_on(unsigned long bytes);
bool pthp_swap_off(void);

/* ---- nodes ---- */

/**
 * pthp_block_pages - How large is a memory block, which is what goes offline?
 *
 * Return: its pages, or 0 if nothing can go offline.
 */
unsigned long pthp_block_pages(void);

/**
 * pthp_node_pages - How much memory has a node?
 * @node: The node.
 *
 * Return: its pages, or 0 if that cannot be read.
 */
unsigned long pthp_node_pages(int node);

/**
 * pthp_mask - Make the mask of one node.
 * @mask: The mask, of PTHP_MASK_LONGS longs.
 * @node: The node, below PTHP_MAX_NODES.
 */
void pthp_mask(unsigned long *mask, int node);

/**
 * pthp_nodes - Find the first nodes that have memory and that this task may use.
 * @nodes: The nodes.
 * @max: How many there is room for.
 *
 * Return: how many were found, or 0 if get_mempolicy(2) fails.
 */
int pthp_nodes(int *nodes, int max);

/**
 * pthp_two_nodes - Find the first two nodes that this task may use.
 * @a: The first node.
 * @b: The second node.
 *
 * Return: true, or false if there are no two with memory; then nothing is written.
 */
bool pthp_two_nodes(int *a, int *b);

/**
 * pthp_mbind - Bind memory to a node by mbind(2).
 * @addr: Its address.
 * @len: Its length in bytes.
 * @node: The node.
 * @flags: MPOL_MF_MOVE and so on, or 0 to set nothing but the policy.
 *
 * Return: 0, or a negative error.
 */
int pthp_mbind(void *addr, size_t len, int node, int flags);

/**
 * pthp_mbind_preferred - Have memory prefer a node, by mbind(2).
 * @addr: Its address.
 * @len: Its length in bytes.
 * @node: The node.
 * @flags: MPOL_MF_MOVE and so on, or 0 to set nothing but the policy.
 *
 * Return: 0, or a negative error.
 */
int pthp_mbind_preferred(void *addr, size_t len, int node, int flags);

/**
 * pthp_node_of - On which node is a page?
 * @addr: Its address.
 *
 * Return: the node, or a negative error if it is on none.
 */
int pthp_node_of(void *addr);

/**
 * pthp_prefer_node - Have this task allocate from a node as long as that has memory.
 * @node: The node.
 *
 * Return: 0, or a negative error.
 */
int pthp_prefer_node(int node);
bool pthp_fill_node(int node, size_t step);
bool pthp_fill_share(int node, unsigned int share);
bool pthp_can_have(int from, int to, unsigned int order);

/**
 * pthp_migrate_process - Migrate everything this process has on a node.
 * @from: That node.
 * @to: The node it is to go to.
 *
 * Return: what migrate_pages(2) returns: how many folios stayed, or a negative
 * error.
 */
long pthp_migrate_process(int from, int to);

/* ---- the kernel's log ---- */

/* More than the kernel has in one */
#define PTHP_LOG_RECORD	8192

int pthp_log_open(void);
bool pthp_log_next(int log, char *record);

/* ---- statistics ---- */

enum pthp_event {
	PTHP_PGMIGRATE_SUCCESS,
	PTHP_PGMIGRATE_FAIL,
	PTHP_THP_MIGRATION_SUCCESS,
	PTHP_THP_MIGRATION_FAIL,
	PTHP_THP_MIGRATION_SPLIT,
	PTHP_THP_SPLIT_PAGE,
	PTHP_THP_DEFERRED_SPLIT_PAGE,
	PTHP_NR_ISOLATED_ANON,
	PTHP_NR_EVENTS
};

struct pthp_vmstat {
	long v[PTHP_NR_EVENTS];
};

extern const char * const pthp_event_names[PTHP_NR_EVENTS];

bool pthp_vmstat_read(struct pthp_vmstat *s);
long pthp_folio_stat(unsigned int order, const char *name);

static inline void pthp_vmstat_sub(struct pthp_vmstat *a, const struct pthp_vmstat *b)
{
	unsigned int i;

	for (i = 0; i < PTHP_NR_EVENTS; i++)
		a->v[i] -= b->v[i];
}

/* ---- regions ---- */

struct pthp_folio {
	unsigned long pfn;		/* of the head */
	unsigned int order;
	unsigned int page;		/* a page of the region that it holds */
};

struct pthp {
	char *mem;
	unsigned int order;
	unsigned int nr_folios;
	unsigned int nr;		/* pages, mapped or not */
	unsigned int nr_mapped;
	unsigned int seed;
	enum pthp_hole hole;
	bool *mapped;
	void **addrs;			/* scratch, as are the next two */
	int *status;
	int *nodes;
	unsigned long *src;		/* heads of the folios it began with */
	int pagemap;
	int kpageflags;
};

/* The folios that hold the mapped pages of a region */
struct pthp_census {
	struct pthp_folio *folios;
	unsigned int nr;
	unsigned int orders[PTHP_MAX_ORDER + 1];
	unsigned long held;		/* pages in all of them */
};

static inline void *pthp_addr(const struct pthp *r, unsigned int page)
{
	return r->mem + (size_t)page * psize();
}

static inline size_t pthp_len(const struct pthp *r)
{
	return (size_t)r->nr * psize();
}

static inline uint64_t pthp_stamp(const struct pthp *r, unsigned int page)
{
	return ((uint64_t)(r->seed | 1u << 31) << 32) | page << 12;
}

unsigned int pthp_pmd_order(void);
const char *pthp_alloc(struct pthp *r, unsigned int nr_folios,
		       unsigned int order, int node, unsigned int seed);
void pthp_free(struct pthp *r);
void pthp_fill(struct pthp *r, unsigned int page);
int pthp_punch(struct pthp *r, enum pthp_shape shape, enum pthp_hole hole);
bool pthp_map_by_ptes(const struct pthp *r);

/* What is mapped, and by what */
bool pthp_intact(const struct pthp *r);
bool pthp_zeroed(const uint64_t *p);
bool pthp_holes_empty(const struct pthp *r);
unsigned int pthp_on_node(const struct pthp *r, int node);
unsigned int pthp_left_behind(const struct pthp *r);
bool pthp_read_flags(const struct pthp *r, unsigned long pfn, uint64_t *flags,
		     unsigned int n);
void pthp_folio_of(struct pthp_folio *f, unsigned long pfn, const uint64_t *win,
		   unsigned int n);
bool pthp_census_take(const struct pthp *r, struct pthp_census *c);
void pthp_census_drop(struct pthp_census *c);
unsigned int pthp_split_in_vain(const struct pthp *r, const struct pthp_census *c, int node);

/* Pages in the folios that hold what we map, or -1 */
static inline long pthp_held(const struct pthp *r)
{
	struct pthp_census c;
	long n = pthp_census_take(r, &c) ? (long)c.held : -1;

	pthp_census_drop(&c);
	return n;
}

const char *pthp_orders_str(const unsigned int *orders, char *buf, size_t len);

/* For each run of pages of the region that are mapped, or are not */
typedef int (*pthp_run_fn)(void *addr, size_t len, long arg);

int pthp_walk_runs(struct pthp *r, bool mapped, pthp_run_fn fn, long arg);
int pthp_punch_run(void *addr, size_t len, long hole);
int pthp_mbind_run(void *addr, size_t len, long node);

/* Migration, and what is in its way */

/**
 * pthp_migrate - Migrate a region, shared with other processes or not.
 * @r: The region.
 * @call: By which system call.
 * @from: The node it is on; PTHP_MIGRATE_PAGES moves the whole process from there.
 * @to: The node it is to go to.
 *
 * Return: what the call returns: how many folios stayed, or a negative error.
 * mbind(2) has -EIO for folios that stayed.
 */
long pthp_migrate(struct pthp *r, enum pthp_call call, int from, int to);

/**
 * pthp_name_folios - Name one page of every folio of a region, for move_pages(2).
 * @r: The region; its @addrs, @nodes and @status are filled in.
 * @to: The node they are to go to.
 *
 * Return: how many there are, or -EFAULT if a mapped page is not present.
 */
long pthp_name_folios(struct pthp *r, int to);

/**
 * pthp_move_named - Call move_pages(2) for pages that are named.
 * @r: The region; its @addrs and @nodes name them, and its @status is written.
 * @nr: How many.
 *
 * Return: what the call returns: how many of them stayed, or a negative error.
 */
long pthp_move_named(struct pthp *r, long nr);

/**
 * pthp_move_folios - Migrate all folios of a region by move_pages(2).
 * @r: The region.
 * @to: The node they are to go to.
 *
 * Return: what the call returns: how many folios stayed, or a negative error;
 * -EFAULT also if a mapped page is not present.
 */
long pthp_move_folios(struct pthp *r, int to);
bool pthp_pin(void *addr, int *pipefd);

static inline void pthp_unpin(int *pipefd)
{
	close(pipefd[0]);
	close(pipefd[1]);
}

const char *pthp_uffd_open(int *uffd);
int pthp_uffd_protect(int uffd, void *addr, size_t len, bool protect);

#endif /* __PARTIAL_THP_H */
