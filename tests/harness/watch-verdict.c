// SPDX-License-Identifier: GPL-2.0
/*
 * The verdict of mm/watch in user space: "<all|hour>.<figure> <value>" and "fixed 1"
 * on standard input, the line on standard output.  scripts/module/watch-verdict
 * builds it.
 */
#include <stdio.h>
#include <string.h>

#include "../../mm/watch/verdict.c"

#define FIGURE(name)	{ #name, offsetof(struct watch_figures, name) }

static const struct {
	const char *name;
	size_t offset;
} figures[] = {
	FIGURE(secs), FIGURE(calls), FIGURE(ended), FIGURE(seen_kib), FIGURE(queued),
	FIGURE(failed), FIGURE(lost_kib), FIGURE(shattered), FIGURE(shattered_whole),
	FIGURE(base_kib), FIGURE(keep_kib), FIGURE(given_kib), FIGURE(not_seen_kib),
};

static int set(struct watch_figures *f, const char *name, const char *value)
{
	static char words[2][80];
	static unsigned int used;
	unsigned int i;

	if (!strcmp(name, "by") && used < 2) {
		snprintf(words[used], sizeof(words[used]), "%s", value);
		f->by = words[used++];
		return 0;
	}
	if (!strcmp(name, "others")) {
		f->others = true;
		return 0;
	}
	for (i = 0; i < sizeof(figures) / sizeof(*figures); i++) {
		if (!strcmp(name, figures[i].name))
			return sscanf(value, "%lu",
				      (u64 *)((char *)f + figures[i].offset)) != 1;
	}
	return 1;
}

int main(void)
{
	struct watch_report r = { .fixed = false };
	char line[128], name[32], value[80], out[512];
	int bad = 0;

	while (fgets(line, sizeof(line), stdin)) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (sscanf(line, "%31s %79[^\n]", name, value) != 2)
			bad = 1;
		else if (!strcmp(name, "fixed"))
			r.fixed = true;
		else if (!strncmp(name, "all.", 4))
			bad |= set(&r.all, name + 4, value);
		else if (!strncmp(name, "hour.", 5))
			bad |= set(&r.hour, name + 5, value);
		else
			bad = 1;
		if (bad) {
			fprintf(stderr, "watch-verdict: not understood: %s", line);
			return 2;
		}
	}
	/* The module's line is cut at 512; a short one must be cut as well. */
	watch_verdict(out, 16, &r);
	if (strlen(out) > 15)
		return 3;
	watch_verdict(out, sizeof(out), &r);
	puts(out);
	return 0;
}
