/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _MIGRATE_DEFERRED_WATCH_H
#define _MIGRATE_DEFERRED_WATCH_H

#include <linux/list.h>
#include <linux/types.h>

struct seq_file;

#include "compat.h"
#include "verdict.h"

/* Reasons of a later kernel share the last entry. */
#define WATCH_REASONS		(MR_TYPES + 1)

/* What is counted for each node and reason; watch_count_names has the words. */
enum watch_count {
	WATCH_CALLS,
	WATCH_ENDED,
	WATCH_CUT,
	WATCH_FOLIOS,
	WATCH_PAGES,
	WATCH_LARGE,
	WATCH_QUEUED,
	WATCH_PARTIAL,
	WATCH_WHOLE,
	WATCH_MAPPED,
	WATCH_UNMAPPED,
	WATCH_NOT_SEEN,
	WATCH_FAILED,
	WATCH_LOST,
	WATCH_SHATTERED,
	WATCH_SHATTERED_WHOLE,
	WATCH_BASE,
	WATCH_KEEP,
	WATCH_GIVEN,
	WATCH_NR
};

/**
 * struct watch_tally - Folios of one list on one node
 * @nid: The node.
 * @folios: All of them.
 * @pages: Their pages.
 * @large: Those that are large.
 * @thps: Those that are THPs, which a split leaves none of.
 * @queued: Large folios that wait to be split, as the kernel says.
 * @partial: Those of @queued of which some pages are mapped and others not.
 * @whole: Those of @queued of which all pages are mapped.
 * @mapped: Mapped pages of @partial.
 * @unmapped: Other pages of @partial.
 * @whole_pages: Pages of @whole.
 * @keep: Mapped pages of @partial and @whole that can stay in large folios.
 */
struct watch_tally {
	int nid;
	unsigned int folios;
	unsigned int large;
	unsigned int thps;
	unsigned int queued;
	unsigned int partial;
	unsigned int whole;
	unsigned long pages;
	unsigned long mapped;
	unsigned long unmapped;
	unsigned long whole_pages;
	unsigned long keep;
};

/* The folios of more nodes than this are all put down to the last of them. */
#define WATCH_NODES		4

/**
 * struct watch_look - What a look at a list has found
 * @nr: How many of @node are used.
 * @cut: The end of the list was not reached.
 * @total: All nodes together.
 * @node: Each of them.
 */
struct watch_look {
	unsigned int nr;
	bool cut;
	struct watch_tally total;
	struct watch_tally node[WATCH_NODES];
};

/**
 * struct watch_outcome - What a call of migrate_pages() says of itself
 * @succeeded: Pages that were migrated.
 * @failed: Pages that were not.
 * @split: Large folios that it has split.
 */
struct watch_outcome {
	unsigned long succeeded;
	unsigned long failed;
	unsigned long split;
};

/* look.c */
extern unsigned int max_walk;
unsigned int watch_small(struct list_head *list, int *nid);
void watch_list(struct list_head *list, struct watch_look *look,
		const struct watch_look *before, bool trace);

/* results.c */
extern unsigned int ring;
int watch_results_init(void);
void watch_results_exit(void);
int watch_reason(int reason);
void watch_seen(int reason, const struct watch_look *look);
void watch_seen_small(int reason, int nid, unsigned int folios);
void watch_ended(int reason);
void watch_result(int reason, const struct watch_look *before,
		  const struct watch_look *left,
		  const struct watch_outcome *outcome,
		  unsigned long given, bool fixed);
void watch_reset(void);
u64 watch_read(int nid, int reason, enum watch_count what);
int watch_report(struct watch_report *report);

void watch_show_recent(struct seq_file *m);
extern const char * const watch_reason_names[WATCH_REASONS];

/* main.c */
bool watch_fix_is_there(void);
unsigned long watch_missed(void);

/* show.c */
void watch_show_init(void);
void watch_show_exit(void);

#endif
