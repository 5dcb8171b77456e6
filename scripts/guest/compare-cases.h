/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The cases of "compare": which calls, shapes and states.
 */
#ifndef COMPARE_CASES_H
#define COMPARE_CASES_H

#include "partial_thp.h"

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))
#endif

enum call {
	MBIND,
	MOVE_ONE,	/* move_pages(2), a page of each folio is named */
	MOVE_ALL,	/* all mapped pages are */
	MIGRATE,
	CPUSET,
	COMPACTION,
	OFFLINE,
	BALANCING,	/* NUMA balancing, of what a task reads */
};

static const char * const call_names[] = {
	[MBIND]		= "mbind",
	[MOVE_ONE]	= "move_one",
	[MOVE_ALL]	= "move_all",
	[MIGRATE]	= "migrate_pages",
	[CPUSET]	= "cpuset",
	[COMPACTION]	= "compaction",
	[OFFLINE]	= "offline",
	[BALANCING]	= "numa_balancing",
};

/* Shapes: those of partial_thp.h, and some that are full of zeroes */
enum {
	SPARSE = PTHP_NR_SHAPES,	/* a page is unmapped, one holds data */
	SPARSE_HALF,			/* the last half is, one holds data */
	HALF_ZERO,			/* a page is unmapped, every other holds data */
	NR_SHAPES
};

static const char *shape_name(unsigned int shape)
{
	switch (shape) {
	case SPARSE:
		return "sparse";
	case SPARSE_HALF:
		return "sparse_half";
	case HALF_ZERO:
		return "half_zero";
	default:
		return pthp_shape_names[shape];
	}
}

static enum pthp_shape mapped_shape(unsigned int shape)
{
	switch (shape) {
	case SPARSE:
	case HALF_ZERO:
		return PTHP_ALL_BUT_ONE;
	case SPARSE_HALF:
		return PTHP_FIRST_HALF;
	default:
		return shape;
	}
}

#define S(shape)	(1u << (shape))
#define THP_SHAPES	(S(PTHP_NR_SHAPES) - 1)
#define ALL_SHAPES	(S(NR_SHAPES) - 1)
#define PART		(S(PTHP_FIRST_HALF) | S(PTHP_CB64K) | S(PTHP_ALL_BUT_ONE))
#define FEW		(S(PTHP_ALL) | PART)

/* States */
#define PTES		0x00001	/* whole folios are mapped by PTEs */
#define SLICES		0x00002	/* two quarters, of two policies */
#define MLOCKED		0x00004
#define MLOCKED_SLICE	0x00008	/* the first quarter is */
#define KEEPS		0x00010	/* forked: the child keeps all */
#define CHILD		0x00020	/* forked: the child unmaps, we keep all */
#define BOTH		0x00040	/* forked: both unmap the same */
/*
 * Forked: the child has whole folios mapped by PTEs; between the two migrations it
 * unmaps half of each, and goes.
 */
#define PASSING		0x00080
#define PINNED		0x00100	/* each folio has a reference too many */
#define PINNED_LAST	0x00200	/* the last one has */
#define MERGED		0x00400	/* KSM */
#define SWAPPED		0x00800
#define UFFD_WP		0x01000
#define IN_CGROUP	0x02000
#define THREADS		0x04000	/* a thread on the other CPU */
#define MUNMAP		0x08000	/* not by MADV_DONTNEED */
#define NO_MEMORY	0x10000	/* on the target node */
#define SOFT_DIRTY	0x20000	/* every third page is */
#define FRAGMENTED	0x40000	/* the target node has single pages only */
#define ONCE		0x80000	/* no second migration; if forked, we unmap at once */

static const struct {
	unsigned int state;
	const char *name;
} state_names[] = {
	{ PTES, "ptes" }, { SLICES, "slices" }, { MLOCKED, "mlocked" },
	{ MLOCKED_SLICE, "mlocked_slice" }, { KEEPS, "child_keeps" },
	{ CHILD, "child_unmaps" }, { BOTH, "both_unmap" },
	{ PASSING, "child_passing" }, { PINNED, "pinned" },
	{ PINNED_LAST, "pinned_last" }, { MERGED, "ksm" }, { SWAPPED, "swap" },
	{ UFFD_WP, "uffd_wp" }, { IN_CGROUP, "cgroup" }, { THREADS, "threads" },
	{ MUNMAP, "munmap" }, { NO_MEMORY, "no_memory" },
	{ SOFT_DIRTY, "soft_dirty" }, { FRAGMENTED, "fragmented" },
	{ ONCE, "once" },
};

#define FORKED		(KEEPS | CHILD | BOTH | PASSING)

struct setup {
	enum call call;
	unsigned int order;
	unsigned int folios;
	unsigned int state;
	unsigned int shapes;
};

static const struct setup setups[] = {
	{ MBIND,	9, 8, 0,		ALL_SHAPES },
	{ MOVE_ONE,	9, 8, 0,		FEW | S(PTHP_ONE_PAGE) | S(SPARSE) },
	{ MOVE_ALL,	9, 8, 0,		THP_SHAPES | S(SPARSE) },
	{ MIGRATE,	9, 8, 0,		FEW | S(PTHP_RAGGED) | S(SPARSE) },
	{ CPUSET,	9, 8, 0,		FEW },
	{ COMPACTION,	9, 8, 0,		S(PTHP_ALL) | S(PTHP_CB64K) },
	{ COMPACTION,	4, 64, 0,		S(PTHP_ALL) | S(PTHP_FIRST_HALF) |
						S(PTHP_ALL_BUT_ONE) },
	{ OFFLINE,	9, 8, 0,		FEW | S(SPARSE) },
	{ BALANCING,	9, 8, 0,		S(PTHP_ALL) | S(PTHP_FIRST_HALF) |
						S(PTHP_ALL_BUT_ONE) | S(SPARSE) },
	{ MBIND,	4, 64, 0,		S(PTHP_ALL) | S(PTHP_LAST_HALF) |
						S(PTHP_CB16K) | S(PTHP_ALL_BUT_ONE) |
						S(PTHP_ONE_PAGE) | S(PTHP_RANDOM) |
						S(SPARSE) },
	{ MOVE_ALL,	4, 64, 0,		S(PTHP_LAST_HALF) | S(PTHP_ALL_BUT_ONE) },

	{ MBIND,	9, 8, PTES,		S(PTHP_ALL) },
	{ MOVE_ALL,	9, 8, PTES,		S(PTHP_ALL) },
	{ MBIND,	9, 8, MUNMAP,		FEW },
	{ MBIND,	9, 8, SLICES,		S(PTHP_ALL) | S(PTHP_FIRST_HALF) |
						S(PTHP_ALL_BUT_ONE) },
	{ MBIND,	9, 8, MLOCKED,		FEW | S(PTHP_ONE_PAGE) | S(SPARSE) },
	{ MBIND,	9, 8, MLOCKED | PTES,	S(PTHP_ALL) },
	{ MBIND,	9, 8, MLOCKED_SLICE,	S(PTHP_ALL) | S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, KEEPS,		PART | S(PTHP_ONE_PAGE) },
	{ MBIND,	9, 8, CHILD,		PART | S(PTHP_ONE_PAGE) },
	{ MBIND,	9, 8, BOTH,		PART | S(PTHP_ONE_PAGE) | S(SPARSE) },
	{ MBIND,	9, 8, PASSING,		S(PTHP_ALL) },
	{ MOVE_ALL,	9, 8, KEEPS,		S(PTHP_FIRST_HALF) },
	{ MOVE_ALL,	9, 8, CHILD,		S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, PINNED,		FEW },
	{ MBIND,	9, 8, PINNED | PTES,	S(PTHP_ALL) },
	{ MBIND,	9, 8, PINNED | KEEPS,	S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, PINNED | CHILD,	S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, PINNED | ONCE,	S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, PINNED | KEEPS | ONCE, S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, PINNED | CHILD | ONCE, S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, KEEPS | ONCE,	S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, CHILD | ONCE,	S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, PINNED_LAST,	S(PTHP_ALL) | S(PTHP_FIRST_HALF) },
	{ MOVE_ALL,	9, 8, PINNED,		S(PTHP_FIRST_HALF) },
	{ MOVE_ALL,	9, 8, PINNED_LAST,	S(PTHP_ALL) | S(PTHP_FIRST_HALF) },
	{ MOVE_ALL,	9, 2, PINNED_LAST,	S(PTHP_ALL) | S(PTHP_FIRST_HALF) },
	{ MOVE_ONE,	9, 8, PINNED_LAST,	S(PTHP_ALL) | S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, MERGED,		S(PTHP_ALL) | S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, SWAPPED,		FEW },
	{ MBIND,	9, 8, UFFD_WP,		FEW | S(SPARSE) },
	{ MBIND,	9, 8, SOFT_DIRTY,	FEW | S(SPARSE) },
	{ MBIND,	9, 8, IN_CGROUP,	FEW | S(SPARSE) },
	{ MBIND,	9, 8, IN_CGROUP | PTES,	S(PTHP_ALL) },
	{ MBIND,	9, 8, THREADS,		FEW | S(PTHP_ONE_PAGE) | S(PTHP_ALTERNATE) },
	{ MOVE_ALL,	9, 8, THREADS,		S(PTHP_ALL) | S(PTHP_FIRST_HALF) },
	{ MBIND,	9, 8, FRAGMENTED,	S(PTHP_ALL) | S(PTHP_FIRST_HALF) |
						S(PTHP_ALL_BUT_ONE) },
	{ MBIND,	9, 48, NO_MEMORY,	S(PTHP_ALL_BUT_ONE) },
	{ MOVE_ONE,	9, 48, NO_MEMORY,	S(PTHP_ALL_BUT_ONE) },
};

#endif /* COMPARE_CASES_H */
