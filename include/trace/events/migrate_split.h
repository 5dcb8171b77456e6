/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM migrate

/* The other events of this system have that name in C. */
#undef TRACE_SYSTEM_VAR
#define TRACE_SYSTEM_VAR migrate_split

#if !defined(_TRACE_MIGRATE_SPLIT_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MIGRATE_SPLIT_H

#include <linux/tracepoint.h>

#ifndef _MIGRATE_SPLIT_ACTION
#define _MIGRATE_SPLIT_ACTION
/**
 * enum migrate_split_action - What became of a folio that waited to be split
 * @MIGRATE_SPLIT_WHOLE: All of its pages are mapped, or none: it stayed whole.
 * @MIGRATE_SPLIT_SPLIT: It was split.
 * @MIGRATE_SPLIT_FAIL: It could not be split, and was not migrated.
 */
enum migrate_split_action {
	MIGRATE_SPLIT_WHOLE,
	MIGRATE_SPLIT_SPLIT,
	MIGRATE_SPLIT_FAIL,
};
#endif

/* For user space, which does not know the numbers */
TRACE_DEFINE_ENUM(MIGRATE_SPLIT_WHOLE);
TRACE_DEFINE_ENUM(MIGRATE_SPLIT_SPLIT);
TRACE_DEFINE_ENUM(MIGRATE_SPLIT_FAIL);

TRACE_EVENT(mm_migrate_split_deferred,

	TP_PROTO(unsigned long pfn, unsigned int order, unsigned int nr_mapped,
		 enum migrate_split_action action, int error),

	TP_ARGS(pfn, order, nr_mapped, action, error),

	TP_STRUCT__entry(
		__field(unsigned long, pfn)
		__field(unsigned int, order)
		__field(unsigned int, nr_mapped)
		__field(unsigned int, action)
		__field(int, error)
	),

	TP_fast_assign(
		__entry->pfn = pfn;
		__entry->order = order;
		__entry->nr_mapped = nr_mapped;
		__entry->action = action;
		__entry->error = error;
	),

	TP_printk("pfn=0x%lx order=%u nr_mapped=%u action=%s error=%d",
		  __entry->pfn, __entry->order, __entry->nr_mapped,
		  __print_symbolic(__entry->action,
				   { MIGRATE_SPLIT_WHOLE, "whole" },
				   { MIGRATE_SPLIT_SPLIT, "split" },
				   { MIGRATE_SPLIT_FAIL, "fail" }),
		  __entry->error)
);

#endif /* _TRACE_MIGRATE_SPLIT_H */

/* This part must be outside protection */
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE migrate_split
#include <trace/define_trace.h>
