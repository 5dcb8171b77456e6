// SPDX-License-Identifier: GPL-2.0
/*
 * /sys/kernel/debug/migrate_deferred/: a verdict, what it is made of, and a reset.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/nodemask.h>
#include <linux/seq_file.h>

#include "watch.h"

#define MAX_VERDICT	512

static struct dentry *dir;

/* What is in pages is shown in KiB. */
static const struct column {
	const char *name;
	enum watch_count what;
	bool pages;
} columns[] = {
	{ "calls",		WATCH_CALLS },
	{ "ended",		WATCH_ENDED },
	{ "cut_short",		WATCH_CUT },
	{ "folios",		WATCH_FOLIOS },
	{ "seen_kib",		WATCH_PAGES, true },
	{ "large",		WATCH_LARGE },
	{ "queued",		WATCH_QUEUED },
	{ "partial",		WATCH_PARTIAL },
	{ "whole_marked",	WATCH_WHOLE },
	{ "mapped_kib",		WATCH_MAPPED, true },
	{ "unmapped_kib",	WATCH_UNMAPPED, true },
	{ "not_seen_kib",	WATCH_NOT_SEEN, true },
	{ "failed",		WATCH_FAILED },
	{ "lost_kib",		WATCH_LOST, true },
	{ "shattered",		WATCH_SHATTERED },
	{ "shattered_whole",	WATCH_SHATTERED_WHOLE },
	{ "base_kib",		WATCH_BASE, true },
	{ "keep_kib",		WATCH_KEEP, true },
	{ "given_back_kib",	WATCH_GIVEN, true },
};

static void show_row(struct seq_file *m, int nid, int reason)
{
	const struct column *c;

	for (c = columns; c < columns + ARRAY_SIZE(columns); c++) {
		u64 n = watch_read(nid, reason, c->what);

		seq_printf(m, " %llu", c->pages ? n << (PAGE_SHIFT - 10) : n);
	}
	seq_putc(m, '\n');
}

static void show_head(struct seq_file *m, const char *first)
{
	const struct column *c;

	seq_puts(m, first);
	for (c = columns; c < columns + ARRAY_SIZE(columns); c++)
		seq_printf(m, " %s", c->name);
	seq_putc(m, '\n');
}

static int verdict_show(struct seq_file *m, void *unused)
{
	struct watch_report report;
	char line[MAX_VERDICT];
	int ret;

	ret = watch_report(&report);
	if (ret)
		return ret;
	watch_verdict(line, sizeof(line), &report);
	seq_printf(m, "%s\n", line);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(verdict);

/* A row for each reason that there was, and one for all of them */
static int stats_show(struct seq_file *m, void *unused)
{
	struct watch_report report;
	char time[32];
	int reason, ret;

	ret = watch_report(&report);
	if (ret)
		return ret;
	watch_time(time, sizeof(time), report.all.secs);
	seq_printf(m, "# since the watch began, or was reset: %s (%llu s)", time,
		   report.all.secs);
	seq_printf(m, "; fix: %s; calls missed: %lu\n",
		   report.fixed ? "there" : "not there", watch_missed());
	show_head(m, "reason");
	for (reason = 0; reason < WATCH_REASONS; reason++) {
		if (!watch_read(NUMA_NO_NODE, reason, WATCH_CALLS))
			continue;
		seq_puts(m, watch_reason_names[reason]);
		show_row(m, NUMA_NO_NODE, reason);
	}
	seq_puts(m, "all");
	show_row(m, NUMA_NO_NODE, -1);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int nodes_show(struct seq_file *m, void *unused)
{
	int nid, reason;

	show_head(m, "node reason");
	for_each_online_node(nid) {
		for (reason = 0; reason < WATCH_REASONS; reason++) {
			if (!watch_read(nid, reason, WATCH_FOLIOS) &&
			    !watch_read(nid, reason, WATCH_ENDED))
				continue;
			seq_printf(m, "%d %s", nid, watch_reason_names[reason]);
			show_row(m, nid, reason);
		}
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(nodes);

static int recent_show(struct seq_file *m, void *unused)
{
	watch_show_recent(m);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(recent);

static ssize_t reset_write(struct file *file, const char __user *buf, size_t len,
			   loff_t *pos)
{
	watch_reset();
	return len;
}

static const struct file_operations reset_fops = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.write	= reset_write,
};

/**
 * watch_show_init - Make the files.  Without debugfs there are none, and the module
 *	still has its trace event, and says its verdict when it goes.
 */
void watch_show_init(void)
{
	dir = debugfs_create_dir("migrate_deferred", NULL);
	debugfs_create_file("verdict", 0444, dir, NULL, &verdict_fops);
	debugfs_create_file("stats", 0444, dir, NULL, &stats_fops);
	debugfs_create_file("nodes", 0444, dir, NULL, &nodes_fops);
	debugfs_create_file("recent", 0400, dir, NULL, &recent_fops);
	debugfs_create_file("reset", 0200, dir, NULL, &reset_fops);
}

/**
 * watch_show_exit - Take the files away.  Nobody has them open: that holds a reference
 *	on the module.
 */
void watch_show_exit(void)
{
	struct watch_report report;
	char line[MAX_VERDICT];

	debugfs_remove(dir);
	if (watch_report(&report))
		return;
	watch_verdict(line, sizeof(line), &report);
	pr_info("%s: %s\n", KBUILD_MODNAME, line);
}
