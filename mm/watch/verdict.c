// SPDX-License-Identifier: GPL-2.0
/*
 * The line that an administrator reads first.  No more than plain C, as
 * scripts/module/watch-verdict builds it in user space to test it.
 */
#ifdef __KERNEL__
#include <linux/kernel.h>
#include <linux/math64.h>
#else
#include <stdarg.h>
#include <stdio.h>
#define __printf(a, b)	__attribute__((format(printf, a, b)))
#define div_u64(n, d)	((n) / (d))
#endif

#include "verdict.h"

/* A line that grows, and is cut rather than written past its end */
struct line {
	char *buf;
	size_t size;
	size_t len;
};

static __printf(2, 3) void add(struct line *l, const char *fmt, ...)
{
	va_list args;
	int n;

	if (l->len + 1 >= l->size)
		return;
	va_start(args, fmt);
	n = vsnprintf(l->buf + l->len, l->size - l->len, fmt, args);
	va_end(args);
	if (n < 0)
		return;
	l->len += n;
	if (l->len >= l->size)
		l->len = l->size - 1;
}

static void add_size(struct line *l, u64 kib)
{
	static const char * const units[] = { "KiB", "MiB", "GiB", "TiB" };
	unsigned int unit = 0;
	u64 tenths = kib * 10;

	/* Rounded half up, with a digit behind the point unless that is 0 */
	while (tenths >= 10240 && unit < 3) {
		tenths = div_u64(tenths + 512, 1024);
		unit++;
	}
	add(l, "%llu", (unsigned long long)div_u64(tenths, 10));
	if (tenths != 10 * div_u64(tenths, 10))
		add(l, ".%llu", (unsigned long long)(tenths - 10 * div_u64(tenths, 10)));
	add(l, " %s", units[unit]);
}

static void add_time(struct line *l, u64 secs)
{
	if (secs < 120)
		add(l, "%llu s", (unsigned long long)secs);
	else if (secs < 120 * 60)
		add(l, "%llu min", (unsigned long long)div_u64(secs, 60));
	else if (secs < 48 * 60 * 60)
		add(l, "%llu h", (unsigned long long)div_u64(secs, 60 * 60));
	else
		add(l, "%llu d", (unsigned long long)div_u64(secs, 24 * 60 * 60));
}

static void add_period(struct line *l, const struct watch_figures *f)
{
	if (f->secs == 60 * 60) {
		add(l, "the last hour");
		return;
	}
	add(l, "the last ");
	add_time(l, f->secs);
}

static void add_folios(struct line *l, u64 n)
{
	add(l, "%llu huge page%s", (unsigned long long)n, n == 1 ? "" : "s");
}

/* Some are on their way when the watch begins, or when the livepatch comes or goes. */
static bool blind(const struct watch_figures *f)
{
	return f->ended > f->calls + div_u64(f->calls, 8) + 4;
}

static bool bad(const struct watch_figures *f)
{
	return f->lost_kib || f->keep_kib;
}

/* What was lost and shattered, in which time and by whom */
static void add_bad(struct line *l, const struct watch_figures *f)
{
	if (f->lost_kib) {
		add(l, "lost ");
		add_size(l, f->lost_kib);
		if (f->keep_kib)
			add(l, " and ");
	}
	if (f->keep_kib) {
		add(l, "shattered ");
		add_folios(l, f->shattered);
		add(l, " into base pages (");
		add_size(l, f->base_kib);
		if (f->shattered_whole)
			add(l, ", %llu of them whole",
			    (unsigned long long)f->shattered_whole);
		add(l, ")");
	}
	add(l, " in ");
	add_period(l, f);
	if (f->by)
		add(l, ", by %s%s", f->by, f->others ? " and others" : "");
}

static void add_given(struct line *l, const struct watch_figures *f)
{
	if (f->given_kib) {
		add(l, " and gave back ");
		add_size(l, f->given_kib);
	}
}

static void add_fix(struct line *l, const struct watch_figures *f, bool fixed)
{
	if (fixed) {
		add(l, "; the fix is there now");
		add_given(l, f);
		return;
	}
	add(l, "; the fix would have ");
	if (f->lost_kib)
		add(l, "given it back");
	if (f->lost_kib && f->keep_kib)
		add(l, ", and ");
	if (f->keep_kib) {
		add(l, "kept up to ");
		add_size(l, f->keep_kib);
		add(l, " in large folios");
	}
}

/* What a verdict that nothing was lost is about: an idle hour says nothing. */
static const struct watch_figures *good_for(const struct watch_report *r)
{
	return r->hour.calls || bad(&r->all) ? &r->hour : &r->all;
}

static void add_good(struct line *l, const struct watch_report *r,
		     const struct watch_figures *f)
{
	if (!r->all.calls) {
		add(l, "nothing was migrated in ");
		add_period(l, &r->all);
		add(l, ": nothing to judge yet");
		return;
	}
	add(l, "nothing lost in ");
	add_period(l, f);
	if (r->fixed) {
		add(l, ", the fix is there");
		add_given(l, f);
		return;
	}
	if (bad(&r->all)) {
		add(l, ", but ");
		add_bad(l, &r->all);
		add_fix(l, &r->all, false);
		return;
	}
	if (r->all.failed) {
		add(l, "; times that a partially mapped huge page could not be migrated: %llu",
		    (unsigned long long)r->all.failed);
		return;
	}
	/* Of what was not looked at, nobody knows. */
	if (f->not_seen_kib)
		return;
	add(l, ", you do not need this: ");
	add_size(l, f->seen_kib);
	add(l, " migrated, and ");
	if (!f->queued)
		add(l, "no huge page of it was partially mapped");
	else
		add(l, "for what was partially mapped the fix would do no better");
}

/**
 * watch_verdict - Say whether the fix is needed, in one line.
 * @buf: Where to.
 * @size: Its size; the line is cut there.
 * @r: What happened.
 *
 * Return: the length of the line, which has no newline.
 */
size_t watch_verdict(char *buf, size_t size, const struct watch_report *r)
{
	struct line l = { .buf = buf, .size = size };
	const struct watch_figures *all = &r->all, *hour = &r->hour;
	const struct watch_figures *shown = bad(hour) ? hour : good_for(r);

	if (blind(shown)) {
		add(&l, "blind: %llu of %llu migrations in ",
		    (unsigned long long)(shown->ended - shown->calls),
		    (unsigned long long)shown->ended);
		add_period(&l, shown);
		add(&l, " went by unseen; set kernel.ftrace_enabled=1 and /sys/kernel/debug/kprobes/enabled to 1");
	} else if (bad(hour)) {
		add_bad(&l, hour);
		add_fix(&l, hour, r->fixed);
	} else {
		add_good(&l, r, shown);
	}
	if (bad(hour) && all->secs > hour->secs &&
	    (all->lost_kib > hour->lost_kib || all->keep_kib > hour->keep_kib)) {
		add(&l, " (");
		add_bad(&l, all);
		add(&l, ")");
	}
	if (shown->not_seen_kib) {
		add(&l, bad(hour) ? "; at least that, as " : "; but ");
		add_size(&l, shown->not_seen_kib);
		add(&l, " of the lists were not looked at: see max_walk");
	}
	return l.len;
}

/**
 * watch_time - Write a time as the verdict does.
 * @buf: Where to.
 * @size: Its size.
 * @secs: The time.
 *
 * Return: its length.
 */
size_t watch_time(char *buf, size_t size, u64 secs)
{
	struct line l = { .buf = buf, .size = size };

	add_time(&l, secs);
	return l.len;
}
