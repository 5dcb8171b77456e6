/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory blocks, for the programs that take one offline.
 */
#ifndef BLOCKS_H
#define BLOCKS_H

#include "partial_thp.h"

/* 0, or a negative error */
static inline long set_block(long block, const char *state)
{
	char path[128];

	snprintf(path, sizeof(path), PTHP_MEMORY "/memory%ld/state", block);
	return pthp_write(path, state);
}

/* Is there nothing in @block that can never move? */
static inline bool block_moves(const struct pthp *r, long block)
{
	/* slab, page tables, reserved: asking the kernel makes it complain */
	const uint64_t never = BIT_ULL(7) | BIT_ULL(26) | BIT_ULL(32);
	unsigned long n = pthp_block_pages(), i;
	uint64_t *flags = malloc(n * sizeof(*flags));
	bool ok = pthp_read_flags(r, block * n, flags, n);

	for (i = 0; ok && i < n; i++)
		ok = !(flags[i] & never);
	free(flags);
	return ok;
}

/* The block that all folios of the region are in and that can go offline, or -1 */
static inline long block_of(const struct pthp *r)
{
	unsigned long n = pthp_block_pages();
	struct pthp_census c;
	long block = -1;
	unsigned int i;

	if (!n || !pthp_census_take(r, &c))
		return -1;
	for (i = 0; i < c.nr; i++) {
		long b = c.folios[i].pfn / n;

		if (i && b != block) {
			block = -1;
			break;
		}
		block = b;
	}
	pthp_census_drop(&c);
	return block >= 0 && block_moves(r, block) ? block : -1;
}

#endif /* BLOCKS_H */
