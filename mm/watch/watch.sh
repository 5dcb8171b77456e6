#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Does the migration of partially mapped huge pages concern this machine?  Without a
# module, for kernels that split such pages to base pages, as 6.12 does: a function
# probe on what unmaps a folio for a split, and the event at the end of a migration.
# usage: watch.sh [seconds]; as root.  The line it prints is the verdict.
#        watch.sh --verdict: only that, of figures on standard input, for its test
set -u
t=/sys/kernel/tracing
[ -e $t/dynamic_events ] || t=/sys/kernel/debug/tracing
i=$t/instances/migrate_watch
name=migrate_watch_sh

die() { echo "watch.sh: $*" >&2; exit 1; }

# As mm/watch/verdict.c; tests/harness/watch-verdict holds both against the same lines.
verdict() {
	awk '
	function size(kib,	n, u) {
		n = kib * 10
		for (u = 1; n >= 10240 && u < 4; u++) n = int((n + 512) / 1024)
		return (n % 10 ? int(n / 10) "." n % 10 : n / 10) " " unit[u]
	}
	function period(s) {
		if (s == 3600) return "the last hour"
		if (s < 120) return "the last " s " s"
		if (s < 7200) return "the last " int(s / 60) " min"
		if (s < 172800) return "the last " int(s / 3600) " h"
		return "the last " int(s / 86400) " d"
	}
	function bad(p) { return f[p ".lost_kib"] > 0 || f[p ".keep_kib"] > 0 }
	function what(p,	s, n) {
		if (f[p ".lost_kib"]) s = "lost " size(f[p ".lost_kib"])
		if (f[p ".lost_kib"] && f[p ".keep_kib"]) s = s " and "
		if (f[p ".keep_kib"]) {
			n = f[p ".shattered"]
			s = s "shattered " n " huge page" (n == 1 ? "" : "s") \
				" into base pages (" size(f[p ".base_kib"])
			if (f[p ".shattered_whole"]) s = s ", " f[p ".shattered_whole"] " of them whole"
			s = s ")"
		}
		s = s " in " period(f[p ".secs"])
		if (p ".by" in f) s = s ", by " f[p ".by"] (f[p ".others"] ? " and others" : "")
		return s
	}
	function fix(p, fixed,	s) {
		if (fixed) return "; the fix is there now" \
			(f[p ".given_kib"] ? " and gave back " size(f[p ".given_kib"]) : "")
		s = "; the fix would have "
		if (f[p ".lost_kib"]) s = s "given it back"
		if (f[p ".lost_kib"] && f[p ".keep_kib"]) s = s ", and "
		if (f[p ".keep_kib"]) s = s "kept up to " size(f[p ".keep_kib"]) " in large folios"
		return s
	}
	function good_for() { return f["hour.calls"] || bad("all") ? "hour" : "all" }
	function good(p,	s) {
		if (!f["all.calls"])
			return "nothing was migrated in " period(f["all.secs"]) ": nothing to judge yet"
		s = "nothing lost in " period(f[p ".secs"])
		if (f["fixed"])
			return s ", the fix is there" \
				(f[p ".given_kib"] ? " and gave back " size(f[p ".given_kib"]) : "")
		if (bad("all")) return s ", but " what("all") fix("all", 0)
		if (f["all.failed"])
			return s "; times that a partially mapped huge page could not be migrated: " f["all.failed"]
		# only the module knows what a split that failed was for
		if (f["all.unsplit"])
			return s "; times that a huge page could not be split, for a migration or else: " f["all.unsplit"]
		if (f[p ".not_seen_kib"]) return s
		return s ", you do not need this: " size(f[p ".seen_kib"]) " migrated, and " \
			(f[p ".queued"] ? "for what was partially mapped the fix would do no better" : \
			 "no huge page of it was partially mapped")
	}
	BEGIN { split("KiB MiB GiB TiB", unit) }
	/^#/ || !NF { next }
	{ key = $1; sub(/^[^ ]* /, ""); f[key] = $0 ~ /^[0-9]+$/ ? $0 + 0 : $0 }
	END {
		p = bad("hour") ? "hour" : good_for()
		if (f[p ".ended"] > f[p ".calls"] + int(f[p ".calls"] / 8) + 4)
			line = "blind: " (f[p ".ended"] - f[p ".calls"]) " of " f[p ".ended"] \
				" migrations in " period(f[p ".secs"]) " went by unseen; set " \
				"kernel.ftrace_enabled=1 and /sys/kernel/debug/kprobes/enabled to 1"
		else if (bad("hour"))
			line = what("hour") fix("hour", f["fixed"])
		else
			line = good(p)
		if (bad("hour") && f["all.secs"] > f["hour.secs"] &&
		    (f["all.lost_kib"] > f["hour.lost_kib"] || f["all.keep_kib"] > f["hour.keep_kib"]))
			line = line " (" what("all") ")"
		if (f[p ".not_seen_kib"])
			line = line (bad("hour") ? "; at least that, as " : "; but ") size(f[p ".not_seen_kib"]) \
				" of the lists were not looked at: see max_walk"
		print line
	}'
}

if [ "${1:-}" = --verdict ]; then
	verdict
	exit
fi
seconds=${1:-60}
case $seconds in
''|*[!0-9]*) die "usage: watch.sh [seconds]" ;;
esac

[ -w $t/dynamic_events ] || die "no $t/dynamic_events to write to; be root, and mount -t tracefs tracefs /sys/kernel/tracing"
grep -q large_folio_split $t/events/migrate/mm_migrate_pages/format 2>/dev/null ||
	die "this kernel does not say what it splits for a migration; use the module (make watch)"
[ ! -e $i ] || die "watch.sh runs already; if not: rmdir $i; echo -:$name/split >>$t/dynamic_events"
[ "$(cat /proc/sys/kernel/ftrace_enabled 2>/dev/null)" != 0 ] ||
	die "the function probe would not be called; set kernel.ftrace_enabled=1"
fixed=
[ ! -e $t/events/migrate/mm_migrate_split_deferred ] || fixed=1
# the livepatch has the event as long as it is loaded
! grep -q '^partial_thp_migration ' /proc/modules ||
	[ "$(cat /sys/kernel/livepatch/partial_thp_migration/enabled 2>/dev/null)" = 1 ] || fixed=

end() {
	trap - EXIT HUP INT TERM
	{ echo 0 >$i/events/enable; rmdir $i; echo "-:$name/split" >>$t/dynamic_events; } 2>/dev/null
}
trap end EXIT
trap exit HUP INT TERM
# the kernel's count of splits that failed, of all orders
unsplit() { cat /sys/kernel/mm/transparent_hugepage/hugepages-*/stats/split_failed | awk '{ n += $1 } END { print n + 0 }'; }
# Whole huge pages are split, too, if there is no room for them, as with the fix.  Those
# that wait to be split are marked, by PG_reclaim of their second page in 6.12.
case $(uname -r) in
6.12.*) marked=' && marks & 65536' ;;
*) marked= ;;
esac
# TTU_RMAP_LOCKED and TTU_SYNC: only splits ask for both
echo "f:$name/split try_to_migrate nr=folio->_nr_pages_mapped.counter pages=folio->_folio_nr_pages marks=folio->_flags_1 flags=flags" \
	>>$t/dynamic_events 2>/dev/null ||
	die "this kernel cannot probe functions by the names of their arguments (CONFIG_FPROBE_EVENTS, CONFIG_PROBE_EVENTS_BTF_ARGS); use the module (make watch)"
mkdir $i || die "cannot make $i"
m=$i/events/migrate/mm_migrate_pages
echo "flags & 128 && flags & 16 && pages > 1$marked" >$i/events/$name/split/filter &&
	echo 'large_folio_split > 0' >$m/filter &&
	echo 'hist:keys=reason:vals=succeeded,failed' >$m/trigger &&
	echo 1 >$i/events/$name/split/enable && echo 1 >$m/enable && ready=1
[ -n "${ready:-}" ] ||
	die "this kernel's tracing cannot do what is needed (CONFIG_HIST_TRIGGERS); use the module (make watch)"

before=$(unsplit)
sleep "$seconds"
unsplit=$(($(unsplit) - before))

lost=$(cat $i/per_cpu/cpu*/stats | awk '/^overrun:/ { n += $2 } END { print n + 0 }')
[ "$lost" = 0 ] || echo "watch.sh: $lost events were lost, so there is more; watch for a shorter time" >&2
kib=$(($(getconf PAGESIZE 2>/dev/null || echo 4096) / 1024))
# a line for each reason: { reason: 4 } hitcount: 9 succeeded: 4096 failed: 0
calls=$(awk -v kib=$kib '/^[{] reason:/ {
			for (n = 1; n < NF; n++) {
				if ($n == "hitcount:") calls += $(n + 1)
				if ($n ~ /^(succeeded|failed):$/) pages += $(n + 1)
			}
		}
		END { print "all.calls", calls + 0; print "hour.calls", calls + 0
			print "hour.seen_kib", pages * kib }' $m/hist) || die "cannot read $m/hist"
# The splits of a task before the end of its migration belong to that: the last of
# them, as it may have split others for reclaim.
splits=$(awk -v kib=$kib -v fixed="$fixed" '
	BEGIN { ENTIRELY_MAPPED = 8388608
		word["compaction"] = "compaction"; word["mempolicy_mbind"] = "mbind(2)"
		word["syscall_or_cpuset"] = "move_pages(2), migrate_pages(2) or cpusets"
		word["numa_misplaced"] = "NUMA balancing"; word["memory_hotplug"] = "memory offlining"
		word["memory_failure"] = "memory failures"; word["contig_range"] = "contiguous allocations"
		word["longterm_pin"] = "long-term pins"; word["damon"] = "DAMON" }
	function value(name,	s) {
		if (!match($0, name "=[^ )]*")) return ""
		s = substr($0, RSTART + length(name) + 1, RLENGTH - length(name) - 1)
		return s
	}
	/^#/ { next }
	{ pid = $0; sub(/ *\[[0-9]*\].*/, "", pid); sub(/.*-/, "", pid) }
	/: split: / { k = ++nr[pid]; mapped[pid, k] = value(" nr") + 0; pages[pid, k] = value(" pages") + 0; next }
	/: mm_migrate_pages: / {
		reason = value("reason"); n = value("nr_split") + 0
		for (k = nr[pid]; k > 0 && n > 0; k--) {
			p = pages[pid, k]; m = mapped[pid, k]; n--
			shattered++
			if (m >= p || m >= ENTIRELY_MAPPED) { whole++; m = p }
			# an anonymous folio has four pages at least
			base += m; by[reason] += m; if (m >= 4) keep += m
		}
		nr[pid] = 0
	}
	END {
		if (fixed || !shattered) exit
		for (r in by) { reasons++; if (by[r] > most) { most = by[r]; top = r } }
		print "hour.shattered", shattered; print "hour.shattered_whole", whole + 0
		print "hour.queued", shattered
		print "hour.base_kib", base * kib; print "hour.keep_kib", keep * kib
		print "hour.by", (top in word ? word[top] : top); if (reasons > 1) print "hour.others 1"
	}' $i/trace) || die "cannot read $i/trace"
printf '%s\n' "all.secs $seconds" "hour.secs $seconds" ${fixed:+"fixed 1"} "all.unsplit $unsplit" "$calls" "$splits" | verdict
