# SPDX-License-Identifier: GPL-2.0
# Sourced after lib.sh: reads patches/<base>/, the lists of tests/expected/, and the series-repo.
# shellcheck shell=bash disable=SC2154 # lib.sh sets these

new_file_dirs='mm include tools Documentation/mm'
# modules are built beside a kernel, not in it
module_dirs='mm/livepatch mm/watch'

series_all() {
	sed -e 's/[[:space:]]*#.*//' -e '/^[[:space:]]*$/d' "$patches/series"
}

# A series may be sent in sets: "# set <name>" in the series file begins one.
series_sets() {
	sed -n 's/^# set[[:space:]]*//p' "$patches/series" 2>/dev/null
}
# its patches
set_patches() {
	awk -v set="$1" '/^# set/ { ours = $3 == set; next } ours && NF && !/^#/ { print $1 }' "$patches/series"
}

# those that this tree needs, and why the others are left out
series_patches() {
	local p
	for p in $(series_all); do left_out "$p" || echo "$p"; done
}
series_left_out() {
	local p
	for p in $(series_all); do
		! left_out "$p" || echo "left out: ${p%.patch}, the tree has its own"
	done
}

# patches/<base>/not-if: part of a patch's name, a file of the kernel, and a Perl
# regular expression that is true of the whole of that file where the patch is not
# needed. All lines of a patch must be true.
not_if() {
	[ ! -f "$patches/not-if" ] || grep -vE '^[[:space:]]*(#|$)' "$patches/not-if" || true
}
left_out() {
	local part file regex none=1
	while read -r part file regex; do
		case $1 in *"$part"*) ;; *) continue ;; esac
		none=0
		[ -f "$source_dir/$file" ] && perl -0777 -ne \
			'BEGIN { $r = shift } exit !/$r/m' "$regex" "$source_dir/$file" || return 1
	done < <(not_if)
	return $none
}

# the one patch whose name has <part> in it
patch_named() {
	series_all | grep -F -- "$1" | awk '{ print; n++ } END { exit n != 1 }'
}

# A list of cases ("name [tie...] [text]") without comments, without the ties, and
# without the cases whose ties do not hold here; the text is behind a tab. Ties:
#   patch=part of a patch's name	holds unless that patch is left out
#   without=the same		holds if it is left out
#   config=a,b			holds with one of these configs
expected_here() {
	local name text tie p holds
	while read -r name text; do
		while [[ $text =~ ^(patch|without|config)= ]]; do
			tie=${text%%[[:space:]]*} text=${text#"$tie"}
			text=${text#"${text%%[![:space:]]*}"}
			case $tie in
			patch=* | without=*)
				p=$(patch_named "${tie#*=}") || die "${1#"$top"/}: $name: $tie is not one patch of patches/$base/"
				if left_out "$p"; then holds='without'; else holds='patch'; fi
				[ "${tie%%=*}" = $holds ] || continue 2 ;;
			config=*)
				case ",${tie#config=}," in *",$config,"*) ;; *) continue 2 ;; esac ;;
			esac
		done
		printf '%s\t%s\n' "$name" "$text"
	done < <(sed -E 's/(^|[[:space:]])[[:space:]]*#.*//; /^[[:space:]]*$/d' "$1")
}

# the New-file: lines between "---" and the diff
new_files_of() {
	awk '/^diff --git / { exit } /^---$/ { on = 1 }
	     on && /^New-file:[ \t]*/ { sub(/^New-file:[ \t]*/, ""); sub(/[ \t]+$/, ""); print }' "$1"
}

# files a patch changes; awk because numstat escapes and shortens renames
files_of() {
	git apply --numstat "$1" | cut -f3
}

# every file of this repository that goes into a kernel tree
repo_new_files() {
	local d dirs=()
	for d in $new_file_dirs; do
		[ ! -d "$top/$d" ] || dirs+=("$d")
	done
	[ ${#dirs[@]} -gt 0 ] || return 0
	if [ -e "$top/.git" ]; then
		(cd "$top" && git ls-files -co --exclude-standard -- "${dirs[@]}" |
			while read -r f; do [ ! -f "$f" ] || echo "$f"; done)
	else
		(cd "$top" && find "${dirs[@]}" -type f)
	fi | { grep -vE "^(${module_dirs// /|})/" || true; } | sort -u
}

not_here() {
	awk 'NF { print $1 }' <<<"$base_not_here"
}

# The directory, the series file and the New-file lines must agree.
series_lint() {
	local p f part regex bad='' named
	[ -f "$patches/series" ] || die "no $patches/series: no series for BASE=$base"
	for p in $(series_all); do
		[ -f "$patches/$p" ] || bad+="  $p is in series and does not exist"$'\n'
	done
	for p in $(series_all | sort | uniq -d); do
		bad+="  $p is in series twice"$'\n'
	done
	for f in "$patches"/*; do
		f=${f##*/}
		case $f in series|cover-letter*|not-if) continue ;; esac
		series_all | grep -qxF "$f" ||
			bad+="  $f is in patches/$base/ and not in series"$'\n'
	done
	[ -z "$bad" ] || die "patches/$base/ is inconsistent:
${bad%$'\n'}"

	while read -r part f regex; do
		if ! p=$(patch_named "$part"); then
			bad+="  not-if: \"$part\" is not one patch of the series"$'\n'
		elif [ -z "$regex" ] || ! perl -e 'qr/$ARGV[0]/m' "$regex" 2>/dev/null; then
			bad+="  not-if: $part: wants a file and a regular expression"$'\n'
		elif [ -n "$(new_files_of "$patches/$p")" ]; then
			bad+="  not-if: $p has new files, they cannot be left out"$'\n'
		fi
	done < <(not_if)
	[ -z "$bad" ] || die "patches/$base/not-if is wrong:
${bad%$'\n'}"

	named=$(for p in $(series_all); do new_files_of "$patches/$p"; done | sort)
	for f in $(uniq -d <<<"$named"); do
		bad+="  $f is named by more than one New-file line"$'\n'
	done
	for f in $named; do
		[ -f "$top/$f" ] || bad+="  New-file: $f does not exist"$'\n'
		! not_here | grep -qxF "$f" ||
			bad+="  New-file: $f is in base_not_here of bases/$base.conf"$'\n'
	done
	for f in $(repo_new_files); do
		grep -qxF "$f" <<<"$named" || not_here | grep -qxF "$f" ||
			bad+="  $f belongs to no patch (New-file:) nor to base_not_here"$'\n'
	done
	awk 'NF == 1 { print "  base_not_here: no reason for " $1; e = 1 } END { exit e }' \
		<<<"$base_not_here" >&2 || die "bases/$base.conf is incomplete"
	[ -z "$bad" ] || die "the series for $base and the new files disagree:
${bad%$'\n'}"
	capabilities_lint
}

# where a file of this repository goes in the tree
place_of() {
	case $1 in
	tools/testing/selftests/mm/*) echo "$base_selftests/${1##*/}" ;;
	*) echo "$1" ;;
	esac
}

# "line HAVE_name" of each condition on a capability in a file of this repository
conditions_of() {
	case $1 in
	*.[chS]|*.rst|*/Makefile) ;;
	*) return 0 ;;
	esac
	awk '/^[ \t]*#[ \t]*(if|ifdef|ifndef|elif)[ \t(!]/ {
		s = $0; sub(/\/\*.*/, "", s)
		while (match(s, /[A-Za-z0-9_]+/)) {
			w = substr(s, RSTART, RLENGTH); s = substr(s, RSTART + RLENGTH)
			if (w ~ /^(HAVE_|BASE_M|LINUX_VERSION)/) print FNR, w
		}
	}' "$top/$1"
}

# all capabilities, and those this base has or has not
known_capabilities() {
	sed 's/#.*//' "$top/bases/capabilities" | awk 'NF { print $1 }'
}
# shellcheck disable=SC2086 # lists of words
has() { printf '%s\n' $base_has; }
# what new files are told of them, one option a line
has_defines() { has | sed 's/.*/-DHAVE_&=1/'; }
# shellcheck disable=SC2086
has_not() { printf '%s\n' $base_has_not; }

# Each name that a new file asks for has to be known, and each that is known has to be
# asked for by some file and answered by this base.
capabilities_lint() {
	local f n word bad='' asked='' name known
	known=$(known_capabilities)
	for f in $(repo_new_files); do
		while read -r n word; do
			case $word in
			HAVE_*) name=${word#HAVE_}
				asked+=$name$'\n'
				grep -qxF "$name" <<<"$known" ||
					bad+="  $f:$n asks for $word, and bases/capabilities has no $name"$'\n' ;;
			*)	bad+="  $f:$n asks for a version ($word); name what the kernel has, see bases/capabilities"$'\n' ;;
			esac
		done < <(conditions_of "$f")
	done
	for name in $known; do
		grep -qxF "$name" <<<"$asked" ||
			bad+="  $name is in bases/capabilities, and no new file asks for HAVE_$name"$'\n'
		case $(has | grep -cxF "$name" || true)$(has_not | grep -cxF "$name" || true) in
		10|01) ;;
		00)	bad+="  bases/$base.conf does not say whether Linux $base has $name: put it into base_has or base_has_not"$'\n' ;;
		*)	bad+="  bases/$base.conf has $name more than once in base_has and base_has_not"$'\n' ;;
		esac
	done
	for name in $({ has; has_not; } | sort -u); do
		grep -qxF "$name" <<<"$known" ||
			bad+="  bases/$base.conf answers $name, and bases/capabilities has no such name"$'\n'
	done
	[ -z "$bad" ] || die "capabilities and conditions disagree:
${bad%$'\n'}"
}

# resolve_new_file <path in the repository> <destination>
resolve_new_file() {
	local rc=0 text='' name args=()
	mkdir -p "$(dirname "$2")"
	if [ -z "$(conditions_of "$1")" ]; then
		cp "$top/$1" "$2"
		return
	fi
	# elsewhere an apostrophe is no quote
	case $1 in *.[chS]) ;; *) text=-t ;; esac
	mapfile -t args < <(has_defines)
	for name in $(has_not); do args+=("-UHAVE_$name"); done
	unifdef -k ${text:+"$text"} "${args[@]}" -o "$2" "$top/$1" || rc=$?
	[ $rc -le 1 ] || die "unifdef cannot resolve $1"
	! grep -nE '\bHAVE_('"$(known_capabilities | paste -sd'|')"')\b' "$2" >&2 ||
		die "$1 still asks what this kernel has after unifdef (lines above)"
}

# "file:line" of the first hunk of <patch> that does not apply to the index
# or the work tree git is in
first_failing_hunk() {
	{ git apply --check "${@:2}" "$1" 2>&1 || true; } |
		sed -n 's/^error: patch failed: //p; s/^error: \(.*: does not exist.*\)/\1/p' |
		sed -n 1p
}

# files of the kernel's own that the series changes code in
series_touched() {
	git -C "$repo" diff --diff-filter=M --name-only base HEAD -- '*.[ch]' \
		':!tools' ':!Documentation' ':!include/trace'
}

# the objects of the files of the kernel's own that the series changes, as kbuild
# names them; what the patches say is enough
series_objects() {
	local p
	for p in $(series_all); do
		sed -n 's|^+++ b/\(.*\)\.c$|\1.o|p' "$patches/$p"
	done | grep -vE '^(tools|Documentation)/' | sort -u
}

# the names of the KUnit cases that the tree has of ours
kunit_cases() {
	local f
	for f in "$top"/mm/tests/*/*.c; do
		f=$tree_dir/${f#"$top"/}
		[ ! -f "$f" ] || sed -nE 's/^[[:space:]]*KUNIT_CASE[A-Z_]*\((\w+).*/\1/p' "$f"
	done | sort -u
}

# Each line of <file>, and which patch it is of: "commit line) text". What is only
# moved (-M) is not the series' own.
series_blame() {
	git -C "$repo" blame -s -l -M base..HEAD -- "$1"
}

series_commits() {
	git -C "$repo" rev-list --reverse base..HEAD | paste -sd' '
}

# file, line, function, text of each line that the series adds to the kernel's own files,
# separated by the ASCII unit separator
series_lines() {
	local f
	for f in $(series_touched); do
		series_blame "$f" | awk -v file="$f" -v commits="$(series_commits)" '
			BEGIN { n = split(commits, c, " "); for (i = 1; i <= n; i++) ours[c[i]] = 1 }
			{
				commit = $1; line = $2 + 0
				sub(/^[^)]*\) ?/, "")
				if ($0 ~ /^[A-Za-z].*\(/) {
					name = $0
					sub(/\(.*/, "", name); sub(/.*[ *\t]/, "", name)
				}
				if (commit in ours) print file "\037" line "\037" name "\037" $0
			}'
	done
}

# all mutants of these lines, see scripts/mutation/mutants
series_mutants() {
	local f commits
	commits=$(series_commits)
	for f in $(series_touched); do
		series_blame "$f" |
			awk -f "$top/scripts/mutation/mutants" -v file="$f" -v commits="$commits"
	done
}

# What a list of lines, or of mutants, has that <those there are> have not: prints them.
# usage: series_stale <list> <those there are> <fields of these to compare>
series_stale() {
	local us=$'\037' listed
	listed=$(awk -f "$top/scripts/judge/reasons" "$1") || return 1
	# the last two are the reason, and at-times
	awk -F"$us" 'NF { print $1 FS $2 (NF > 4 ? FS $3 : "") }' <<<"$listed" | sort -u |
		comm -13 <(cut -d"$us" -f"$3" "$2" | tr -s '[:blank:]' ' ' |
			sed "s/$us/ /; s/ *$us */$us/g; s/ *$//" | sort -u) - | tr "$us" '|'
}
