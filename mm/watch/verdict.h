/* SPDX-License-Identifier: GPL-2.0 */
/* The verdict: plain figures in, one line out.  Also built in user space, for its test. */
#ifndef _MIGRATE_DEFERRED_WATCH_VERDICT_H
#define _MIGRATE_DEFERRED_WATCH_VERDICT_H

#ifdef __KERNEL__
#include <linux/types.h>
#else
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef uint64_t u64;
#endif

/**
 * struct watch_figures - What happened in some time
 * @secs: The time.
 * @calls: Calls of migrate_pages().
 * @ended: Calls that ended, by the kernel's own word.
 * @seen_kib: Memory on their lists.
 * @queued: Folios that waited to be split.
 * @failed: Those of them that could not be migrated.
 * @lost_kib: Memory that was copied and is lost, as nobody maps it.
 * @shattered: Folios that were split into base pages.
 * @shattered_whole: Those of them of which all pages were mapped.
 * @base_kib: Mapped memory of @shattered.
 * @keep_kib: What of that the fix would have kept in large folios, at most.
 * @given_kib: Memory that the fix gave back.
 * @not_seen_kib: Memory on the lists that was not looked at.
 * @by: The reason for most of what was lost or shattered.
 * @others: There are other reasons, too.
 */
struct watch_figures {
	u64 secs;
	u64 calls;
	u64 ended;
	u64 seen_kib;
	u64 queued;
	u64 failed;
	u64 lost_kib;
	u64 shattered;
	u64 shattered_whole;
	u64 base_kib;
	u64 keep_kib;
	u64 given_kib;
	u64 not_seen_kib;
	const char *by;
	bool others;
};

/**
 * struct watch_report - What the verdict is about
 * @all: Since the watch began, or was reset.
 * @hour: The last hour, or @all if that is less.
 * @fixed: The kernel has the fix, or a livepatch with it is loaded.
 */
struct watch_report {
	struct watch_figures all;
	struct watch_figures hour;
	bool fixed;
};

size_t watch_verdict(char *buf, size_t size, const struct watch_report *r);
size_t watch_time(char *buf, size_t size, u64 secs);

#endif
