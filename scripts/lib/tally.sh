# SPDX-License-Identifier: GPL-2.0
# Sourced, with pipefail set: $passed and $failed, and the verdict. Runs commands that end
# with "N passed, N failed", and adds up.
# shellcheck shell=bash

passed=0 failed=0
tally_log=

# tally <command...>: one that ends in another way, or in which nothing passed, has failed
# once at least, and one that was refused (lib.sh) ends it all
tally() {
	local p f rc=0
	if [ -z "$tally_log" ]; then
		tally_log=$(mktemp)
		trap 'rm -f "$tally_log"' EXIT
	fi
	"$@" | tee "$tally_log" || rc=$?
	[ $rc -ne 64 ] || exit $rc
	# make adds a line of its own when a test fails
	if read -r p _ f _ < <(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$tally_log" | tail -n 1); then
		passed=$((passed + p)) failed=$((failed + f))
		if [ "$f" -eq 0 ] && { [ $rc -ne 0 ] || [ "$p" -eq 0 ]; }; then failed=$((failed + 1)); fi
	else
		echo "did not get to its end: $*" >&2
		failed=$((failed + 1))
	fi
}

# The verdict, and the status to end with
tally_end() {
	echo "$passed passed, $failed failed"
	[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
}
