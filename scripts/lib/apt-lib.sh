# SPDX-License-Identifier: GPL-2.0
# Sourced: an apt of our own in $(O)/apt, for the source packages of suites that
# this machine does not use. Its own sources say where the mirrors are; they and
# its lists are only read.
# shellcheck shell=bash disable=SC2154 # lib.sh sets these

apt_dir=$out/apt

private_apt() {
	"$1" -c "$apt_dir/conf" "${@:2}"
}

own_suite() {
	sed -n 's/^VERSION_CODENAME=//p' /etc/os-release 2>/dev/null | tr -d '"'
}

# the version that make takes, if it is not told; nothing if this machine's suites have none
newest_here() {
	{ apt-cache show --no-all-versions "$base_package" 2>/dev/null || true; } |
		sed -n 's/^Version: //p' | head -n1
}

# where this machine gets <suite>, or else its own or any suite of that kind, from
mirror_of() {
	local own
	own=$(own_suite)
	case $1 in *-security) own+=-security ;; esac
	# shellcheck disable=SC2016 # apt's variables
	apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Identifier: Packages' 2>/dev/null |
		awk -v suite="$1" -v own="$own" '
			($2 ~ /-security$/) != (suite ~ /-security$/) { next }
			{ print ($2 == suite ? 1 : $2 == own ? 2 : 3), $1 }' |
		sort -s -k1,1n | awk 'NR == 1 { print $2 }'
}

private_sources() {
	local suite uri key=/usr/share/keyrings/debian-archive-keyring.gpg by=
	[ ! -s $key ] || by="[signed-by=$key] "
	for suite; do
		uri=$(mirror_of "$suite")
		if [ -n "$uri" ]; then
			echo "deb $by$uri $suite main"
		else
			say "suite $suite: no source of this machine has a mirror for it"
		fi
	done
}

# private_update <suite...>: a suite that cannot be had gets a line, no more
private_update() {
	local log=$logs/apt.log
	mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
	: >"$apt_dir/status"
	: >"$log"
	private_sources "$@" >"$apt_dir/sources.list"
	cat >"$apt_dir/conf" <<-EOT
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		Dir::State "$apt_dir";
		Dir::State::lists "$apt_dir/lists";
		Dir::State::status "$apt_dir/status";
		Dir::Cache "$apt_dir/cache";
		Dir::Etc::sourcelist "$apt_dir/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Acquire::Languages "none";
		APT::Sandbox::User "$(id -un)";
	EOT
	[ -s "$apt_dir/sources.list" ] || return 0
	private_apt apt-get update >"$log" 2>&1 || true
	sed -nE "s/^E: The repository '[^ ]* ([^ ]*) Release' does not have.*/suite \1: the mirror does not have it/p" \
		"$log" | while read -r line; do say "$line"; done
	if grep -q 'Some index files failed to download' "$log"; then
		say "the mirror cannot be reached: looking at the package lists of the last time, if any ($log)"
	elif grep -q '^E: ' "$log" && ! grep -q '^E: The repository' "$log"; then
		say "apt: $(sed -n 's/^E: //p' "$log" | sed -n 1p)"
	fi
}

# versions and suites of <package> in our own lists, newest first; no candidates
# of a release to be
private_versions() {
	[ -f "$apt_dir/conf" ] || return 0
	private_apt apt-cache madison "$1" 2>/dev/null |
		awk -F' *[|] *' '{ split($3, w, " "); sub(/\/.*/, "", w[2])
			if ($2 !~ /~rc/) print $2, w[2] }' | version_sort
}

# "version rest", newest first, by dpkg's rules; one line for each version
version_sort() {
	local lines=() line i
	while read -r line; do
		for ((i = 0; i < ${#lines[@]}; i++)); do
			if [ "${line%% *}" = "${lines[i]%% *}" ]; then
				lines[i]+=",${line#* }"
				continue 2
			fi
			! dpkg --compare-versions "${line%% *}" gt "${lines[i]%% *}" || break
		done
		lines=("${lines[@]:0:i}" "$line" "${lines[@]:i}")
	done
	[ ${#lines[@]} -eq 0 ] || printf '%s\n' "${lines[@]}"
}

# the suites of all bases, and this machine's own
all_suites() {
	local f own
	own=$(own_suite)
	{
		for f in "$top"/bases/*.conf; do
			# shellcheck disable=SC2016 # expanded by that shell
			bash -c '. "$1"; printf "%s\n" $base_suites' - "$f"
		done
		printf '%s\n' ${own:+"$own" "$own-security" "$own-backports"}
	} | awk 'NF && !seen[$1]++'
}
