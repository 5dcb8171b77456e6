# SPDX-License-Identifier: GPL-2.0
# Sourced by the scripts, but for deps and each-base: settings, paths, messages, the lock, and
# how commands are run.
# shellcheck shell=bash disable=SC2034 # the sourcing scripts use these
set -euo pipefail
export LC_ALL=C

# our own make variables must not reach the kernel's makefiles
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL GNUMAKEFLAGS

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
me=${0##*/}

base=${BASE:-6.12}
tree=${TREE:-patched}
config=${CONFIG:-test}
verbose=${V:-0}
jobs=${J:-$(nproc)}
out=${O:-build}
case $out in /*) ;; *) out=$top/$out ;; esac
# absolute, as scripts change directory
for dir in KSRC KDIR; do
	if [ -n "${!dir:-}" ] && [ -d "${!dir}" ]; then
		printf -v "$dir" %s "$(cd "${!dir}" && pwd)"
		export "${dir?}"
	fi
done
ksrc=${KSRC:-}

# progress goes to stderr: stdout is for results
say() { printf '%s\n' "${PROGRESS:-}$*" >&2; }
die() { printf '%s: %s\n' "$me" "$*" >&2; exit 1; }
# Ctrl-C ends all of it. Without this, what it ends is a command that has failed, and the
# script goes on behind "if" or "||".
trap 'exit 130' INT
# a hook of git's may have called us, and these say which repository is meant
# shellcheck disable=SC2046 # a list of names
unset $(git rev-parse --local-env-vars 2>/dev/null) || true
# what was asked for cannot be (EX_USAGE): nothing was tried
refuse() { printf '%s: %s\n' "$me" "$*" >&2; exit 64; }

# names_of <ending> <file...>: their names, without folder and ending
names_of() {
	local ending=$1 f names=
	shift
	for f; do
		f=${f##*/}
		names+=" ${f%"$ending"}"
	done
	echo "${names# }"
}

known_bases() { names_of .conf "$top"/bases/*.conf; }
# those that have a livepatch, and the watch
module_bases() { names_of .roots "$top"/mm/livepatch/*.roots; }
# base is part of all others
known_configs() { names_of .config "$top"/configs/*.config | tr ' ' '\n' | grep -vx base | paste -sd' '; }

# is_one_of <word> <list>
is_one_of() {
	case $1 in ''|*[[:space:]]*) return 1 ;; esac
	case " $2 " in *" $1 "*) ;; *) return 1 ;; esac
}

is_one_of "$base" "$(known_bases)" ||
	refuse "unknown BASE=$base${ksrc:+ (that of KSRC=$ksrc, unless it was set)}; there is: $(known_bases)"
is_one_of "$tree" "stock patched" || refuse "unknown TREE=$tree; there is: stock patched"
is_one_of "$config" "$(known_configs)" || refuse "unknown CONFIG=$config; there is: $(known_configs)"
is_one_of "${ACCEL:-auto}" "auto tcg kvm" || refuse "unknown ACCEL=$ACCEL; there is: auto tcg kvm"
for number in J STEP HOURS GUEST_TIMEOUT PARTIAL_THP_SECONDS PARTIAL_THP_SEED MUTANTS MODULE_CYCLES \
	MODULE_LOAD_CYCLES; do
	case ${!number:-} in
	*[!0-9]*) refuse "$number=${!number} is not a number" ;;
	0?*) refuse "$number=${!number} begins with a zero, which is octal to the shell" ;;
	????????????????*) refuse "$number=${!number} is too large" ;;
	esac
done
case ${SRCVERSION:-} in *[!0-9A-Za-z.+:~-]*) refuse "SRCVERSION=\"$SRCVERSION\" is not the version of a package" ;; esac
for number in J GUEST_TIMEOUT; do
	[ "${!number:-1}" -gt 0 ] || refuse "$number=0 is too few"
done
# the kernel's makefiles take neither
case $out in *[[:space:]:]*) refuse "\"$out\" has a blank or a colon in it; set O= to a directory that has none" ;; esac
# shellcheck source=bases/6.12.conf
. "$top/bases/$base.conf"

patches=$top/patches/$base
expected=$top/tests/expected/$base

# is_git_tree <dir>: one that lies inside some other repository is none
is_git_tree() {
	local prefix
	prefix=$(git -C "$1" rev-parse --show-prefix 2>/dev/null) &&
		[ -z "$prefix" ] &&
		git -C "$1" rev-parse -q --verify HEAD >/dev/null 2>&1
}

# A user's tree gets a work directory of its own, named after its state, so
# that a changed tree is a new one and nothing stale is ever used.
ksrc_id() {
	local state
	if is_git_tree "$ksrc"; then
		state=$(git -C "$ksrc" rev-parse HEAD)
	else
		state=$(cd "$ksrc" && find . -name .git -prune -o -type f \
			-printf '%P %s %T@\n' | sort | sha256sum)
	fi
	printf '%s %s\n' "$(cd "$ksrc" && pwd -P)" "$state" | sha256sum | cut -c1-12
}

if [ -n "$ksrc" ]; then
	grep -qs '^PATCHLEVEL = ' "$ksrc/Makefile" ||
		refuse "KSRC=$ksrc is not a kernel tree: no Makefile with a PATCHLEVEL"
	[ ! -e "$ksrc/.git" ] || is_git_tree "$ksrc" ||
		refuse "KSRC=$ksrc: git says: $(git -C "$ksrc" rev-parse HEAD 2>&1 | sed -n 1p)"
	: "${KSRC_ID:=$(ksrc_id)}"
	export KSRC_ID
	work=$out/ksrc-$KSRC_ID
	label=$base-ksrc-$KSRC_ID
else
	work=$out/$base
	label=$base
	# A version that is named has a directory of its own, unless it is the one that
	# is there: to go back to the default then builds nothing.
	if [ -n "${SRCVERSION:-}" ] &&
	   [ "$(cat "$work/version" 2>/dev/null)" != "$base_package $SRCVERSION" ]; then
		label=$base-$SRCVERSION
		work=$out/$label
	fi
	# only the files that the series changes, to see whether it applies
	[ -z "${FILES_ONLY:-}" ] || work=$out/bases/$base-$SRCVERSION
fi

# STEP=n: only the first n patches. All steps share a tree, so that going from
# one to the next builds what the patch changes.
step=${STEP:-}
tree_name=$tree
if [ -n "$step" ] && [ "$tree" = patched ]; then
	tree_name=step
fi
# OWN_TREE=name: the patched tree once more, for a script that changes it
[ -z "${OWN_TREE:-}" ] || tree_name=patched-$OWN_TREE

source_dir=$work/source
tree_dir=$work/$tree_name
obj_dir=$tree_dir/.obj-$config
repo=$work/series-repo
logs=$out/logs/$label
results=$out/results/$label/$tree_name-$config
# A directory that was empty, or not there, is ours from then on, and "make clean" may empty
# it. One from before there was this mark has a tree of ours in it, and nothing else.
mark=$out/.partial-thp
out_is_empty() { [ -z "$(find "$out" -mindepth 1 ! -name .lock -print -quit 2>/dev/null)" ]; }
out_is_ours() {
	local f names
	[ ! -e "$mark" ] || return 0
	compgen -G "$out/*/*/.version-of-source" >/dev/null || return 1
	names=$(our_names)
	for f in "$out"/*; do is_one_of "${f##*/}" "$names" || return 1; done
}
# what scripts put into it, of what is there
our_names() {
	local f b
	for f in "$out"/*; do
		case ${f##*/} in
		*[[:space:]]*) ;;
		download|apt|bases|bases.*|deb|logs|results|recorded.*|ksrc-*|kvm-works*) echo "${f##*/}" ;;
		*) for b in $(known_bases); do
			case ${f##*/} in "$b"|"$b"-[0-9]*) echo "${f##*/}" ;; esac
		done ;;
		esac
	done | paste -sd' '
}
case $me in
help)	HARNESS_LOCK=$out ;;
clean)	! out_is_empty || exit 0
	out_is_ours || refuse "$out had other things in it before; remove by hand what is not wanted, or touch $mark to have it taken for a build directory"
	: >"$mark" ;;
*)	! out_is_empty || fresh=1
	mkdir -p "$out" "$work" "$logs" 2>/dev/null || true
	for dir in "$out" "$work" "$logs"; do
		[ ! -d "$dir" ] || [ ! -w "$dir" ] || continue
		refuse "$dir cannot be written to; set O= to a directory that can"
	done
	[ -z "${fresh:-}" ] || : >"$mark" ;;
esac

# one at a time in one build directory; what this script starts is covered
if [ "${HARNESS_LOCK:-}" != "$out" ]; then
	exec 9>"$out/.lock"
	flock -n 9 || {
		echo "waiting for another make in $out to end" >&2
		flock 9
	}
	export HARNESS_LOCK=$out HARNESS_OWNER=$$
fi

elapsed() {
	local s=$1
	if [ "$s" -ge 60 ]; then
		echo "$((s / 60)) min $((s % 60)) s"
	else
		echo "$s s"
	fi
}

# How far a step is, by its log: a share where it is known how many objects there
# are to build ($planned), else how long it takes already.
progress() {
	local built
	if [ "${planned:-0}" -gt 0 ]; then
		built=$(grep -cE "$object_line" "$1") || true
		[ "$built" -lt "$planned" ] || built=$planned
		echo "$((built * 100 / planned)) %, $built of $planned objects"
	else
		elapsed $((SECONDS - $2))
	fi
}
object_line='^  (CC|AS|LD|AR) '

# begin <command...>: start it beside this script, in a process group of its own, so that
# all of it can be ended. Its id is $pid. It has no terminal to ask. Errexit works in it,
# which it does not in a command before ||.
begun=()
begin() {
	[ ${#begun[@]} -gt 0 ] || traps_before=$(trap -p HUP INT TERM)
	trap 'end_begun; exit 130' HUP INT TERM
	set -m
	# shellcheck disable=SC2030 # only there
	{ trap - HUP INT TERM; begun=(); "$@"; } </dev/null &
	pid=$!
	set +m
	# shellcheck disable=SC2031
	begun+=("$pid")
}
end_begun() {
	local p
	[ ${#begun[@]} -gt 0 ] || return 0
	for p in "${begun[@]}"; do kill -- "-$p" 2>/dev/null || true; done
	wait "${begun[@]}" 2>/dev/null || true
	begun=()
}
# wait_begun: until all that was begun has ended. The first that fails ends the others, and
# gives the status.
wait_begun() {
	local rc=0 p left
	while :; do
		left=()
		for p in "${begun[@]}"; do
			if kill -0 "$p" 2>/dev/null; then left+=("$p"); else wait "$p" || rc=$?; fi
		done
		begun=("${left[@]}")
		[ $rc -eq 0 ] || end_begun
		[ ${#begun[@]} -gt 0 ] || break
		still_wanted
		sleep 0.3
	done
	trap - HUP INT TERM
	eval "$traps_before"
	return $rc
}
# The script that has the lock may have been killed, and then nobody waits for this one.
still_wanted() {
	kill -0 "${HARNESS_OWNER:-$$}" 2>/dev/null || { end_begun; exit 130; }
}

# run_logged <what> <log> <command...>: one line while it runs, one when done
run_logged() {
	local what=$1 log=$2 start=$SECONDS pid rc=0 t
	shift 2
	mkdir -p "${log%/*}"
	if [ "$verbose" = 1 ]; then
		say "$what"
		begin shown "$log" "$@"
	else
		begin "$@" >"$log" 2>&1
		[ -t 2 ] || say "$what ..."
		while kill -0 "$pid" 2>/dev/null; do
			still_wanted
			t=$((SECONDS - start))
			if [ -t 2 ]; then
				printf '\r\033[K%s%s ... %s' "${PROGRESS:-}" "$what" \
					"$(progress "$log" "$start")" >&2
			elif [ $t -gt 0 ] && [ $((t % 60)) -eq 0 ]; then
				say "$what ... $(progress "$log" "$start")"
			fi
			sleep 1
		done
		[ -t 2 ] && printf '\r\033[K' >&2
	fi
	wait_begun || rc=$?
	if [ $rc -ne 0 ]; then
		say "$what FAILED after $(elapsed $((SECONDS - start)))"
		tail -n 25 "$log" >&2
		die "$what failed (exit $rc); log: $log"
	fi
	say "$what ... $(elapsed $((SECONDS - start))), log ${log#"$top"/}"
}
# shown <log> <command...>: its output there, and here
shown() {
	"${@:2}" 2>&1 | tee "$1" >&2
}

# What something is made from, as one word: standard input, and the tools
inputs() {
	{ cat; gcc --version; ld --version; } | sha256sum | cut -d' ' -f1
}

# is_made <file> <inputs>: is it there, and made from these? made says that it is.
is_made() {
	[ -e "$1" ] && [ "$(cat "$1.made" 2>/dev/null)" = "$2" ]
}

made() {
	printf '%s\n' "$2" >"$1.made"
}

# at <n>: what follows is step n of $steps
at() { export PROGRESS="[$1/${steps:?}] "; }

# on_both <step> <image of stock> <image of patched> <command...>: run the command with
# each tree and its image behind it, as this step and the next, beside each other: a
# guest mostly keeps one CPU busy
on_both() {
	local first=$1 stock=$2 patched=$3
	shift 3
	at "$first"; begin "$@" stock "$stock"
	at $((first + 1)); begin "$@" patched "$patched"
	wait_begun || die "one of the two runs did not end as it should (see above)"
}

# two_at_a_time <function>: call it with 0 and with 1, beside each other. It may then take
# every second one of a list
two_at_a_time() {
	begin "$1" 1
	begin "$1" 0
	wait_begun || die "one of the two runs did not end as it should (see above)"
}

# memory blocks that can go offline, and an area for CMA among them
offline_options=(movablecore=1G cma=128M@4608M)

# what guest/init is to run, from the paths of the programs
guest_run() {
	xargs -n 1 basename <<<"$1" | paste -sd,
}

# What a kernel complains of on <console>, without what is another one in each run
complaints() {
	{ "$top/scripts/judge/splats" "$1" || true; } |
		sed -E 's/^[0-9]+:(\[[^]]*\])?//; s/0x[0-9a-f]+|[0-9]+/N/g' | sort -u
}

# kernel makefiles see only what is on their command line: neither our settings, nor what
# the user's shell has for other kernels (see Documentation/kbuild/kbuild.rst there)
not_for_make=(O V J KSRC BASE TREE CONFIG STEP OUT KDIR
	ARCH SRCARCH SUBARCH CROSS_COMPILE LLVM LLVM_IAS CC LD HOSTCC HOSTCFLAGS HOSTLDFLAGS
	KCFLAGS KCPPFLAGS KAFLAGS KRUSTFLAGS CFLAGS CPPFLAGS LDFLAGS CFLAGS_KERNEL CFLAGS_MODULE
	AFLAGS_KERNEL AFLAGS_MODULE LDFLAGS_MODULE LDFLAGS_vmlinux EXTRA_CFLAGS USERCFLAGS
	USERLDFLAGS KCONFIG_CONFIG KCONFIG_ALLCONFIG KCONFIG_DEFCONFIG_LIST KBUILD_OUTPUT
	KBUILD_EXTMOD KBUILD_DEFCONFIG KBUILD_EXTRA_SYMBOLS KBUILD_EXTRA_WARN
	KBUILD_BUILD_VERSION KBUILD_VERBOSE KBUILD_MODPOST_WARN KBUILD_ABS_SRCTREE
	LOCALVERSION INSTALL_PATH INSTALL_MOD_PATH INSTALL_HDR_PATH M W C CF CHECK KHDR_INCLUDES)
clean_make() {
	env "${not_for_make[@]/#/-u}" make -j"$jobs" "$@"
}
kmake() {
	clean_make LOCALVERSION= KBUILD_BUILD_TIMESTAMP='1 Jan 2026' \
		KBUILD_BUILD_USER=user KBUILD_BUILD_HOST=host \
		${kmake_cc:+CC="$kmake_cc"} "$@"
}

kmake_cc=
if command -v ccache >/dev/null 2>&1; then
	kmake_cc='ccache gcc'
	# the user's own, so that a second clone builds warm
	export CCACHE_DIR=${CCACHE_DIR:-${XDG_CACHE_HOME:-${HOME:-$out}/.cache}/ccache}
	export CCACHE_BASEDIR=${CCACHE_BASEDIR:-$out}
fi
