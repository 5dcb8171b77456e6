// SPDX-License-Identifier: GPL-2.0
/*
 * Trace events and kernel messages for "compare".
 */
#include "compare.h"

#define TRACING		"/sys/kernel/tracing/"

static int pipe_fd = -1, kmsg_fd = -1;

void watch_start(void)
{
	/* The names of tasks: to record them, the kernel patches its scheduler. */
	pthp_put(TRACING "options/record-cmd", "0");
	pthp_put(TRACING "events/migrate/mm_migrate_pages/enable", "1");
	pthp_put(TRACING "events/compaction/mm_compaction_migratepages/enable", "1");
	pipe_fd = open(TRACING "trace_pipe", O_RDONLY | O_NONBLOCK);
	kmsg_fd = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	if (pipe_fd < 0)
		printf("# no trace events\n");
	watch_flush();
}

/* Sum up "name=number" over the lines that show an event. */
static void read_event(struct snap *s, const char *line, const char *event,
		       const char *what)
{
	const char *p = strstr(line, event), *eq;
	char name[32];
	long value;

	if (!p)
		return;
	for (p += strlen(event); (p = strchr(p, ' ')); ) {
		p++;
		eq = strchr(p, '=');
		if (!eq)
			break;
		if (sscanf(p, "%31[^= ]=%ld", name, &value) == 2)
			add(s, VALUE, value, "%s.%s", what, name);
	}
}

static void read_trace(struct snap *s)
{
	static char buf[65536];
	char *line, *at;
	size_t have = 0;
	ssize_t len;

	while (pipe_fd >= 0 &&
	       (len = read(pipe_fd, buf + have, sizeof(buf) - 1 - have)) > 0) {
		have += len;
		buf[have] = '\0';
		if (!s) {
			have = 0;
			continue;
		}
		at = buf;
		for (line = buf; (at = strchr(line, '\n')); line = at + 1) {
			*at = '\0';
			read_event(s, line, "mm_migrate_pages:", "trace");
			read_event(s, line, "mm_compaction_migratepages:",
				   "trace_compaction");
		}
		have -= line - buf;
		memmove(buf, line, have);
	}
}

/* What a console would show in red; the kernel's messages go nowhere else. */
static void read_kmsg(struct snap *s)
{
	char record[8192], *text;
	ssize_t len;

	while (kmsg_fd >= 0 &&
	       ((len = read(kmsg_fd, record, sizeof(record) - 1)) > 0 ||
		(len < 0 && errno == EPIPE))) {
		if (len < 0 || !s)
			continue;
		record[len] = '\0';
		text = strchr(record, ';');
		if (!text || !(strstr(text, "WARNING:") || strstr(text, "BUG:")))
			continue;
		printf("# kernel: %s", text + 1);
		add(s, VALUE, 1, "log.complaints");
	}
}

void watch_flush(void)
{
	read_trace(NULL);
	read_kmsg(NULL);
}

void watch_read(struct snap *s)
{
	read_trace(s);
	read_kmsg(s);
}
