// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel says of migration and splits: statistics, and its log.  See
 * partial_thp.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "partial_thp.h"

/* ---- the kernel's log ---- */

/* What the kernel says from now on, for pthp_log_next() and close(2); or -1 */
int pthp_log_open(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	if (log >= 0)
		lseek(log, 0, SEEK_END);
	return log;
}

/* Read the next record into @record, of PTHP_LOG_RECORD bytes; false if there is none yet. */
bool pthp_log_next(int log, char *record)
{
	ssize_t len;

	do {
		len = read(log, record, PTHP_LOG_RECORD - 1);
	} while (len < 0 && errno == EPIPE);	/* overwritten meanwhile */
	if (len <= 0)
		return false;
	record[len] = '\0';
	return true;
}

/* ---- statistics ---- */

const char * const pthp_event_names[PTHP_NR_EVENTS] = {
	[PTHP_PGMIGRATE_SUCCESS]	= "pgmigrate_success",
	[PTHP_PGMIGRATE_FAIL]		= "pgmigrate_fail",
	[PTHP_THP_MIGRATION_SUCCESS]	= "thp_migration_success",
	[PTHP_THP_MIGRATION_FAIL]	= "thp_migration_fail",
	[PTHP_THP_MIGRATION_SPLIT]	= "thp_migration_split",
	[PTHP_THP_SPLIT_PAGE]		= "thp_split_page",
	[PTHP_THP_DEFERRED_SPLIT_PAGE]	= "thp_deferred_split_page",
	[PTHP_NR_ISOLATED_ANON]		= "nr_isolated_anon",
};

/*
 * Have per-CPU counters added up.  Where one is below zero, all files say 0: only the
 * kernel's log has the number.  It is returned for nr_isolated_anon, or 0.
 */
static long refresh_counters(void)
{
	static const char message[] = "vmstat_refresh: nr_isolated_anon ";
	char record[PTHP_LOG_RECORD], *at;
	int log = pthp_log_open();
	long err, isolated = 0;

	err = pthp_write("/proc/sys/vm/stat_refresh", "1");
	if (err && err != -ENOENT)
		fprintf(stderr, "# stat_refresh: %s\n", strerror(-err));
	while (pthp_log_next(log, record)) {
		at = strstr(record, message);
		if (at)
			isolated = strtol(at + strlen(message), NULL, 10);
	}
	close(log);
	return isolated;
}

/* Events are summed over the CPUs, the rest is once stat_refresh folded it. */
bool pthp_vmstat_read(struct pthp_vmstat *s)
{
	long value, below_zero = refresh_counters();
	unsigned int i, found = 0;
	char name[64];
	FILE *f;

	memset(s, 0, sizeof(*s));
	f = fopen("/proc/vmstat", "r");
	if (!f)
		return false;
	while (fscanf(f, "%63s %ld", name, &value) == 2) {
		for (i = 0; i < PTHP_NR_EVENTS; i++) {
			if (strcmp(name, pthp_event_names[i]))
				continue;
			s->v[i] = value;
			found++;
		}
	}
	fclose(f);
	if (below_zero)
		s->v[PTHP_NR_ISOLATED_ANON] = below_zero;
	return found == PTHP_NR_EVENTS;
}

/* A statistic of all folios of @order, or -1 where the kernel has none */
long pthp_folio_stat(unsigned int order, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), PTHP_THP "hugepages-%ukB/stats/%s",
		 (psize() >> 10) << order, name);
	return pthp_get_number(path);
}

/* The knob for anonymous folios of @order */
void pthp_order_knob(char *path, size_t size, unsigned int order)
{
	snprintf(path, size, PTHP_THP "hugepages-%ukB/enabled", (psize() >> 10) << order);
}
