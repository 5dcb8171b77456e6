/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by the files of "compare": what is read, and what it is read of.
 */
#ifndef COMPARE_H
#define COMPARE_H

#include <stdarg.h>
#include <sys/types.h>

#include "partial_thp.h"

#define MAX_METRICS	1200
#define NOT_WRITTEN	(-99999)	/* no error number and no node */

enum metric_kind {
	VALUE,		/* printed as it is */
	LEVEL,		/* printed as it differs from the start of the case */
	EVENT,		/* printed as it differs from the snapshot before */
};

struct metric {
	char name[56];
	enum metric_kind kind;
	long value;
};

struct snap {
	unsigned int nr;
	struct metric m[MAX_METRICS];
};

/* What a page of the region was filled with */
enum content {
	STAMPED,	/* words that no other page has */
	ZEROED,
	SAME,		/* what some other pages have, too: for KSM */
};

/* A region, and who else maps it */
struct subject {
	struct pthp r;
	unsigned char *content;
	int *want;		/* node of each page, once the call succeeded */
	pid_t other;		/* the process it was forked to, or 0 */
	int other_pagemap;
	const char *cgroup;	/* its directory, or NULL */
	int src;
	int dst;
	long on_target;		/* mapped pages on the node they should go to */
};

/* compare-read.c */
void add(struct snap *s, enum metric_kind kind, long value, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
long get(const struct snap *s, const char *name);
void read_machine(struct snap *s, const struct subject *sub);
void print_snap(const char *name, const char *stage, const struct snap *s,
		const struct snap *before, const struct snap *start);

/* compare-pages.c */
void read_region(struct snap *s, struct subject *sub, int target);
void read_maps(struct snap *s, const struct subject *sub);
void fill_page(struct subject *sub, unsigned int page);
unsigned int wrong_pages(const struct subject *sub);
unsigned int full_holes(const struct subject *sub);
int node_of_pfn(unsigned long pfn);

/* compare-trace.c */
void watch_start(void);
void watch_flush(void);
void watch_read(struct snap *s);

#endif /* COMPARE_H */
