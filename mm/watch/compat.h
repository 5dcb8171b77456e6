/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What differs between kernels, by the name of what differs.  Those of which only
 * the headers of the kernel tell are found out in Kbuild.
 */
#ifndef _MIGRATE_DEFERRED_WATCH_COMPAT_H
#define _MIGRATE_DEFERRED_WATCH_COMPAT_H

#include <linux/mm.h>
#include <linux/migrate_mode.h>

/* mm_migrate_pages also tells of all large folios that were split: 6.6 and later */
#ifdef HAVE_TRACE_LARGE_FOLIO_SPLIT
#define WATCH_RESULT_PROTO						\
	void *data, unsigned long succeeded, unsigned long failed,	\
	unsigned long thp_succeeded, unsigned long thp_failed,		\
	unsigned long thp_split, unsigned long large_folio_split,	\
	enum migrate_mode mode, int reason
#define WATCH_RESULT_SPLIT	large_folio_split
#else
#define WATCH_RESULT_PROTO						\
	void *data, unsigned long succeeded, unsigned long failed,	\
	unsigned long thp_succeeded, unsigned long thp_failed,		\
	unsigned long thp_split, enum migrate_mode mode, int reason
#define WATCH_RESULT_SPLIT	thp_split
#endif

#endif
