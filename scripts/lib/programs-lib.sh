# SPDX-License-Identifier: GPL-2.0
# Sourced after lib.sh: which of our kselftest programs are not for every run.
# shellcheck shell=bash disable=SC2154 # lib.sh assigns it

# one of them interleaves over the two nodes that THPs are not on
export GUEST_NODES=3

# Those that have one of these traits; the others are quick, and go anywhere.
#   slow	is left out where quick runs are wanted
#   random	fails at a different time in each run
#   ends_stock	a kernel without the fixes loses the race, and ends with a warning
#   offlines	has memory emptied: takes long, and stock may not get through
#   early	turns to cgroup v1, whose counters do not know what others charged with v2
programs_traits='
migrate_partial_thp_cgroup	slow early
migrate_partial_thp_offline	slow offlines
migrate_partial_thp_race	slow random ends_stock
migrate_partial_thp_state	slow
migrate_partial_thp_stress	slow random ends_stock
migrate_partial_thp_target	slow
'

# programs_with <trait...>: the names of those that have one of them
programs_with() {
	local name traits t names=
	while read -r name traits; do
		for t; do
			case " $traits " in *" $t "*) names+="$name"$'\n'; break ;; esac
		done
	done <<<"$programs_traits"
	[ -n "$names" ] || die "no program has a trait called: $*"
	printf '%s' "$names"
}

# programs_but <trait...>: of the paths in standard input, those of all other programs
programs_but() {
	local names
	[ $# -gt 0 ] || { cat; return; }
	names=$(programs_with "$@") || exit 1
	grep -vE "/(${names//$'\n'/|})\$" || true
}

# the cases of the programs whose paths are in standard input
cases_in() { sed 's/$/.cases/' | xargs cat; }

# cases_but <trait...>: of the list of cases in standard input, those of all other programs
cases_but() {
	local names fixtures
	[ $# -gt 0 ] || { cat; return; }
	names=$(programs_with "$@" | sed 's|$|.c|') || exit 1
	# shellcheck disable=SC2086 # a list of files
	fixtures=$(cd "$top/tools/testing/selftests/mm" &&
		sed -nE 's/^FIXTURE\((\w+)\).*/\1/p' $names | paste -sd'|')
	grep -vE "^($fixtures)\\." || true
}
