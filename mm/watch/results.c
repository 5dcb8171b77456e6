// SPDX-License-Identifier: GPL-2.0
/*
 * What was seen, and what became of it: counters for each node and reason, what they
 * were in each minute of the last hour, and the last calls.
 */
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include "watch.h"

#define MINUTES		60
#define MAX_RING	4096
#define PAGES_TO_KIB(n)	((u64)(n) << (PAGE_SHIFT - 10))

unsigned int ring = 64;
module_param(ring, uint, 0444);
MODULE_PARM_DESC(ring, "calls that are remembered (64, at most 4096)");

/* As in the kernel's own trace events */
const char * const watch_reason_names[WATCH_REASONS] = {
	[MR_COMPACTION]		= "compaction",
	[MR_MEMORY_FAILURE]	= "memory_failure",
	[MR_MEMORY_HOTPLUG]	= "memory_hotplug",
	[MR_SYSCALL]		= "syscall_or_cpuset",
	[MR_MEMPOLICY_MBIND]	= "mempolicy_mbind",
	[MR_NUMA_MISPLACED]	= "numa_misplaced",
	[MR_CONTIG_RANGE]	= "contig_range",
	[MR_LONGTERM_PIN]	= "longterm_pin",
	[MR_DEMOTION]		= "demotion",
#ifdef HAVE_REASON_DAMON
	[MR_DAMON]		= "damon",
#endif
	[MR_TYPES]		= "other",
};

/* As an administrator would say it */
static const char * const reason_words[WATCH_REASONS] = {
	[MR_COMPACTION]		= "compaction",
	[MR_MEMORY_FAILURE]	= "memory failures",
	[MR_MEMORY_HOTPLUG]	= "memory offlining",
	[MR_SYSCALL]		= "move_pages(2), migrate_pages(2) or cpusets",
	[MR_MEMPOLICY_MBIND]	= "mbind(2)",
	[MR_NUMA_MISPLACED]	= "NUMA balancing",
	[MR_CONTIG_RANGE]	= "contiguous allocations",
	[MR_LONGTERM_PIN]	= "long-term pins",
	[MR_DEMOTION]		= "demotion",
#ifdef HAVE_REASON_DAMON
	[MR_DAMON]		= "DAMON",
#endif
	[MR_TYPES]		= "other callers",
};

struct watch_counts {
	u64 v[WATCH_REASONS][WATCH_NR];
};

struct watch_moment {
	u64 secs;
	struct watch_counts counts;
};

struct watch_event {
	u64 secs;
	pid_t pid;
	char comm[TASK_COMM_LEN];
	int reason;
	bool fixed;
	struct watch_tally seen;
	unsigned int failed;
	unsigned long split;
	unsigned long lost;
	unsigned long given;
};

static struct watch_counts __percpu **counts;	/* of each node */
static struct watch_counts **zero;		/* what they were at the last reset */
static struct watch_moment *moments;		/* a ring: one a minute */
static unsigned int nr_moments;
static u64 began;
static DEFINE_MUTEX(show_lock);			/* the four above */

static struct watch_event *events;
static unsigned long nr_events;
static DEFINE_RAW_SPINLOCK(events_lock);

static void take_moment(struct work_struct *work);
static DECLARE_DELAYED_WORK(moment_work, take_moment);

/**
 * watch_reason - Where a reason is counted.
 * @reason: What migrate_pages() was told.
 *
 * Return: an index below WATCH_REASONS.
 */
int watch_reason(int reason)
{
	return reason >= 0 && reason < MR_TYPES ? reason : MR_TYPES;
}

/* In the task that migrates, with preemption off: nobody comes in between. */
static void count(int nid, int reason, enum watch_count what, u64 n)
{
	if (n)
		this_cpu_ptr(counts[nid])->v[reason][what] += n;
}

/**
 * watch_seen_small - Count a list that has nothing but small folios of one node.
 * @reason: That of the call, by watch_reason().
 * @nid: The node.
 * @folios: How many.
 *
 * Context: preemption is off.
 */
void watch_seen_small(int reason, int nid, unsigned int folios)
{
	u64 *v = this_cpu_ptr(counts[nid])->v[reason];

	v[WATCH_CALLS]++;
	v[WATCH_FOLIOS] += folios;
	v[WATCH_PAGES] += folios;
}

/**
 * watch_seen - Count what is on the list of a call.
 * @reason: That of the call, by watch_reason().
 * @look: The look at its list.
 *
 * Context: preemption is off.
 */
void watch_seen(int reason, const struct watch_look *look)
{
	const struct watch_tally *t;
	int nid;

	/* A call is counted where the first folio is. */
	nid = look->nr ? look->node[0].nid : numa_node_id();
	count(nid, reason, WATCH_CALLS, 1);
	count(nid, reason, WATCH_CUT, look->cut);
	for (t = look->node; t < look->node + look->nr; t++) {
		count(t->nid, reason, WATCH_FOLIOS, t->folios);
		count(t->nid, reason, WATCH_PAGES, t->pages);
		if (!t->large)
			continue;
		count(t->nid, reason, WATCH_LARGE, t->large);
		count(t->nid, reason, WATCH_QUEUED, t->queued);
		count(t->nid, reason, WATCH_PARTIAL, t->partial);
		count(t->nid, reason, WATCH_WHOLE, t->whole);
		count(t->nid, reason, WATCH_MAPPED, t->mapped);
		count(t->nid, reason, WATCH_UNMAPPED, t->unmapped);
	}
}

/**
 * watch_ended - Count a call that ended, seen before or not, where it ran.
 * @reason: That of the call, by watch_reason().
 *
 * Context: preemption is off.
 */
void watch_ended(int reason)
{
	this_cpu_ptr(counts[numa_node_id()])->v[reason][WATCH_ENDED]++;
}

/*
 * Of @gone folios that waited to be split, how many did the call split?  In @split, stock
 * 6.12 counts these, and folios that had no destination.  6.1 counts only the latter;
 * assume the same share as of all THPs.
 */
static unsigned long split_of(unsigned long split, unsigned long gone,
			      unsigned long thps_gone)
{
#ifdef HAVE_FOLIO_SPLIT_PLAN
	return min(split, gone);
#else
	thps_gone = max(thps_gone, gone);
	return thps_gone ? mult_frac(gone, min(split, thps_gone), thps_gone) : 0;
#endif
}

/* @was before and @left after the call; others may have come to it meanwhile */
static unsigned long gone_of(unsigned long was, unsigned long left)
{
	return was > left ? was - left : 0;
}

/*
 * What became of the folios that are not on the list any more: @split of @gone were
 * split, and the others moved whole.  Which ones is not known.  It is all or none,
 * unless splits failed or there was no destination for some: then it is shared out.
 */
static unsigned long result_on(int reason, const struct watch_tally *t,
			       const struct watch_tally *l, unsigned long split,
			       unsigned long gone)
{
	unsigned long partial = gone_of(t->partial, l->partial);
	unsigned long whole = gone_of(t->whole, l->whole);
	unsigned long base = gone_of(t->mapped, l->mapped) +
			     gone_of(t->whole_pages, l->whole_pages);
	unsigned long lost;

	if (!gone)
		return 0;
	lost = mult_frac(gone_of(t->unmapped, l->unmapped), gone - split, gone);
	count(t->nid, reason, WATCH_LOST, lost);
	count(t->nid, reason, WATCH_SHATTERED, mult_frac(partial + whole, split, gone));
	count(t->nid, reason, WATCH_SHATTERED_WHOLE, mult_frac(whole, split, gone));
	count(t->nid, reason, WATCH_BASE, mult_frac(base, split, gone));
	count(t->nid, reason, WATCH_KEEP,
	      mult_frac(gone_of(t->keep, l->keep), split, gone));
	return lost;
}

static void remember(const struct watch_event *event)
{
	unsigned long flags;

	if (!ring)
		return;
	raw_spin_lock_irqsave(&events_lock, flags);
	events[nr_events++ % ring] = *event;
	raw_spin_unlock_irqrestore(&events_lock, flags);
}

/**
 * watch_result - Count what became of a list.
 * @reason: That of the call, by watch_reason().
 * @before: The look at the list before the call.
 * @left: The look at what the call left on it, for @before.
 * @outcome: What the call says of itself.
 * @given: Pages that the fix gave back.
 * @fixed: The fix was at work.
 *
 * Context: preemption is off, in the task that makes the call.
 */
void watch_result(int reason, const struct watch_look *before,
		  const struct watch_look *left,
		  const struct watch_outcome *outcome,
		  unsigned long given, bool fixed)
{
	unsigned long moved = outcome->succeeded + outcome->failed;
	unsigned long gone, split, not_seen = 0;
	struct watch_event event = {
		.secs = ktime_get_boottime_seconds(),
		.pid = task_pid_nr(current),
		.reason = reason,
		.fixed = fixed,
		.seen = before->total,
		.failed = left->total.partial,
		.split = outcome->split,
		.given = given,
	};
	const struct watch_tally *t, *l = left->node;

	if (!before->nr)
		return;
	if (before->nr == 1)
		event.seen.nid = before->node[0].nid;
	gone = gone_of(before->total.partial, left->total.partial) +
	       gone_of(before->total.whole, left->total.whole);
	split = split_of(outcome->split, gone,
			 gone_of(before->total.thps, left->total.thps));

	for (t = before->node; t < before->node + before->nr; t++, l++) {
		count(t->nid, reason, WATCH_FAILED, l->partial);
		/* What was not found on the list may be behind what was looked at. */
		if (!fixed && !left->cut)
			event.lost += result_on(reason, t, l, split, gone);
	}
	count(before->node[0].nid, reason, WATCH_GIVEN, given);
	if (left->cut)
		not_seen = max(moved, before->total.pages);
	else if (before->cut && moved > before->total.pages)
		not_seen = moved - before->total.pages;
	count(before->node[0].nid, reason, WATCH_NOT_SEEN, not_seen);

	if (!before->total.queued)
		return;
	/* get_task_comm() takes a lock */
	strscpy(event.comm, current->comm, sizeof(event.comm));
	remember(&event);
}

/* ---- reading ---- */

/**
 * watch_read - Read a counter.
 * @nid: A possible node, or NUMA_NO_NODE for all of them.
 * @reason: The reason, by watch_reason(), or a negative number for all of them.
 * @what: The counter.
 *
 * Return: what was counted since the last reset.
 */
u64 watch_read(int nid, int reason, enum watch_count what)
{
	u64 sum = 0;
	int cpu, n, r;

	for_each_node_state(n, N_POSSIBLE) {
		if (nid != NUMA_NO_NODE && nid != n)
			continue;
		for (r = 0; r < WATCH_REASONS; r++) {
			if (reason >= 0 && reason != r)
				continue;
			/* That first, as a reset can come in between. */
			sum -= smp_load_acquire(&zero[n]->v[r][what]);
			for_each_possible_cpu(cpu)
				sum += per_cpu_ptr(counts[n], cpu)->v[r][what];
		}
	}
	return sum;
}

static void read_all(struct watch_counts *c)
{
	int r, what;

	for (r = 0; r < WATCH_REASONS; r++) {
		for (what = 0; what < WATCH_NR; what++)
			c->v[r][what] = watch_read(NUMA_NO_NODE, r, what);
	}
}

/* show_lock is held */
static void add_moment(void)
{
	struct watch_moment *m = &moments[nr_moments++ % MINUTES];

	m->secs = ktime_get_boottime_seconds();
	read_all(&m->counts);
}

static void take_moment(struct work_struct *work)
{
	mutex_lock(&show_lock);
	add_moment();
	mutex_unlock(&show_lock);
	schedule_delayed_work(&moment_work, 60 * HZ);
}

/**
 * watch_reset - Begin anew.
 */
void watch_reset(void)
{
	unsigned long flags;
	int cpu, n, r, what;

	mutex_lock(&show_lock);
	for_each_node_state(n, N_POSSIBLE) {
		for (r = 0; r < WATCH_REASONS; r++) {
			for (what = 0; what < WATCH_NR; what++) {
				u64 sum = 0;

				for_each_possible_cpu(cpu)
					sum += per_cpu_ptr(counts[n], cpu)->v[r][what];
				smp_store_release(&zero[n]->v[r][what], sum);
			}
		}
	}
	raw_spin_lock_irqsave(&events_lock, flags);
	nr_events = 0;
	raw_spin_unlock_irqrestore(&events_lock, flags);
	nr_moments = 0;
	began = ktime_get_boottime_seconds();
	add_moment();
	mutex_unlock(&show_lock);
}

static void fill(struct watch_figures *f, const struct watch_counts *now,
		 const struct watch_counts *then)
{
	u64 d[WATCH_NR] = { 0 }, most = 0;
	int r, what;

	for (r = 0; r < WATCH_REASONS; r++) {
		u64 share;

		for (what = 0; what < WATCH_NR; what++)
			d[what] += now->v[r][what] - then->v[r][what];
		share = now->v[r][WATCH_LOST] - then->v[r][WATCH_LOST] +
			now->v[r][WATCH_KEEP] - then->v[r][WATCH_KEEP];
		if (!share)
			continue;
		if (f->by)
			f->others = true;
		if (share > most) {
			most = share;
			f->by = reason_words[r];
		}
	}
	f->calls = d[WATCH_CALLS];
	f->ended = d[WATCH_ENDED];
	f->seen_kib = PAGES_TO_KIB(d[WATCH_PAGES]);
	f->queued = d[WATCH_PARTIAL] + d[WATCH_WHOLE];
	f->failed = d[WATCH_FAILED];
	f->lost_kib = PAGES_TO_KIB(d[WATCH_LOST]);
	f->shattered = d[WATCH_SHATTERED];
	f->shattered_whole = d[WATCH_SHATTERED_WHOLE];
	f->base_kib = PAGES_TO_KIB(d[WATCH_BASE]);
	f->keep_kib = PAGES_TO_KIB(d[WATCH_KEEP]);
	f->given_kib = PAGES_TO_KIB(d[WATCH_GIVEN]);
	f->not_seen_kib = PAGES_TO_KIB(d[WATCH_NOT_SEEN]);
}

/**
 * watch_report - Sum up what the verdict is about.
 * @report: The figures.
 *
 * Return: 0, or -ENOMEM.
 */
int watch_report(struct watch_report *report)
{
	static const struct watch_counts none;
	const struct watch_moment *m;
	struct watch_counts *now;
	u64 secs;

	now = kvzalloc(sizeof(*now), GFP_KERNEL);
	if (!now)
		return -ENOMEM;
	memset(report, 0, sizeof(*report));
	mutex_lock(&show_lock);
	read_all(now);
	secs = ktime_get_boottime_seconds();
	report->all.secs = secs - began;
	fill(&report->all, now, &none);
	/* the oldest one there is: an hour ago, or the beginning */
	m = &moments[nr_moments < MINUTES ? 0 : nr_moments % MINUTES];
	fill(&report->hour, now, &m->counts);
	report->hour.secs = secs - m->secs;
	/* It is taken a minute before or behind, and later if the machine slept. */
	if (report->hour.secs >= 58 * 60 && report->hour.secs <= 62 * 60)
		report->hour.secs = 60 * 60;
	report->fixed = watch_fix_is_there();
	mutex_unlock(&show_lock);
	kvfree(now);
	return 0;
}

/**
 * watch_show_recent - Show the last calls that met folios that wait to be split.
 * @m: Where to.
 */
void watch_show_recent(struct seq_file *m)
{
	unsigned long n, end;
	const unsigned int kib = PAGE_SIZE >> 10;
	struct watch_event e;

	seq_puts(m, "secs_ago pid comm reason node folios queued partial whole mapped_kib unmapped_kib failed split lost_kib given_kib fix\n");
	if (!ring)
		return;
	end = READ_ONCE(nr_events);
	for (n = end > ring ? end - ring : 0; n < end; n++) {
		/* The oldest ones may be replaced meanwhile. */
		raw_spin_lock_irq(&events_lock);
		e = events[n % ring];
		raw_spin_unlock_irq(&events_lock);
		seq_printf(m, "%llu %d %s %s ",
			   ktime_get_boottime_seconds() - e.secs, e.pid, e.comm,
			   watch_reason_names[e.reason]);
		if (e.seen.nid == NUMA_NO_NODE)
			seq_puts(m, "several");
		else
			seq_printf(m, "%d", e.seen.nid);
		seq_printf(m, " %u %u %u %u %lu %lu %u %lu %lu %lu %s\n",
			   e.seen.folios, e.seen.queued, e.seen.partial,
			   e.seen.whole, e.seen.mapped * kib,
			   e.seen.unmapped * kib, e.failed, e.split,
			   e.lost * kib, e.given * kib, e.fixed ? "on" : "off");
	}
}

/**
 * watch_results_init - Get the memory for all this.
 *
 * Return: 0, or -ENOMEM; then watch_results_exit() frees what there is.
 */
int watch_results_init(void)
{
	int n;

	if (ring > MAX_RING)
		ring = MAX_RING;
	counts = kcalloc(nr_node_ids, sizeof(*counts), GFP_KERNEL);
	zero = kcalloc(nr_node_ids, sizeof(*zero), GFP_KERNEL);
	moments = kvcalloc(MINUTES, sizeof(*moments), GFP_KERNEL);
	events = kvcalloc(max(ring, 1u), sizeof(*events), GFP_KERNEL);
	if (!counts || !zero || !moments || !events)
		return -ENOMEM;
	for_each_node_state(n, N_POSSIBLE) {
		counts[n] = alloc_percpu(struct watch_counts);
		zero[n] = kvzalloc(sizeof(*zero[n]), GFP_KERNEL);
		if (!counts[n] || !zero[n])
			return -ENOMEM;
	}
	watch_reset();
	schedule_delayed_work(&moment_work, 60 * HZ);
	return 0;
}

/**
 * watch_results_exit - Free it.  Nothing counts any more.
 */
void watch_results_exit(void)
{
	int n;

	cancel_delayed_work_sync(&moment_work);
	for_each_node_state(n, N_POSSIBLE) {
		if (counts)
			free_percpu(counts[n]);
		if (zero)
			kvfree(zero[n]);
	}
	kfree(counts);
	kfree(zero);
	kvfree(moments);
	kvfree(events);
}
