/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What compare-state.c offers to compare.c.
 */
#ifndef COMPARE_STATE_H
#define COMPARE_STATE_H

#include "compare.h"

#define SEED	20		/* of contents and of the random shape */

enum other_command {
	OTHER_BEGIN,
	OTHER_UNMAP,		/* keep the last half */
	OTHER_CHECK,
	OTHER_EXIT,
};

bool other_start(struct subject *sub, enum pthp_shape shape, bool ptes);
int other_do(enum other_command command);
void other_end(struct subject *sub);

bool spinner_start(void);
void spinner_end(void);

bool pin_folio(const struct subject *sub, unsigned int folio);
void unpin_all(void);

/* These return NULL, or what is missing. */
const char *merge_same(struct subject *sub);
const char *swap_out(struct subject *sub);
const char *protect_by_uffd(struct subject *sub);
const char *enter_cgroup(struct subject *sub, const char *mems);
const char *alloc_in_block(struct pthp *r, unsigned int folios, unsigned int order,
			   int node, long *block);
const char *alloc_below(struct pthp *r, unsigned int folios, unsigned int order,
			int node);
void merge_end(void);
void remove_cgroup(void);
void drop_fillers(void);

long move_by_cpuset(int node);
long move_by_balancing(const struct subject *sub, int node);

pid_t fill_start(const struct subject *sub, bool holes);
bool fill_end(pid_t pid);

#endif /* COMPARE_STATE_H */
