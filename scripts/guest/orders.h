/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The size of the folios of the next anonymous memory, for the programs that choose it.
 */
#ifndef ORDERS_H
#define ORDERS_H

#include "partial_thp.h"

/* Of PMD size and 64 KiB, only @order; kernels that have one size have no such setting. */
static inline void only_order(unsigned int order)
{
	const unsigned int orders[2] = { pthp_pmd_order(), __builtin_ctz(65536 / psize()) };
	char path[128];
	unsigned int i;

	for (i = 0; i < 2; i++) {
		pthp_order_knob(path, sizeof(path), orders[i]);
		pthp_write(path, orders[i] == order ? "madvise" : "never");
	}
}

#endif /* ORDERS_H */
