# SPDX-License-Identifier: GPL-2.0
# Sourced by what builds modules for the distribution's kernel.
# shellcheck shell=bash disable=SC2154,SC2034 # lib.sh sets these, others use those

livepatch_dir=$work/livepatch${MODULE_CONFIG:+-$MODULE_CONFIG}

# The source and the distribution's packages of one version: sets distro_version,
# distro_image, distro_kdir and distro_release, and SRCVERSION if the packages decide which
# it is. MODULE_CONFIG=<config>: our own build of stock in their place.
distro_setup() {
	if [ -n "${MODULE_CONFIG:-}" ]; then
		own_kernel
		return
	fi
	distro_version=$("$top/scripts/distro" version)
	"$top/scripts/fetch-source" >/dev/null
	if [ "$(cut -d' ' -f2 "$work/version")" != "$distro_version" ]; then
		# paths depend on it
		SRCVERSION=$distro_version exec "$0" "$@"
	fi
	distro_image=$("$top/scripts/distro" image)
	distro_kdir=$("$top/scripts/distro" kdir)
	distro_release=$(cat "$work/distro/release")
}

own_kernel() {
	"$top/scripts/fetch-source" >/dev/null
	distro_version=$(cut -d' ' -f2 "$work/version")
	distro_image=$(TREE=stock CONFIG=$MODULE_CONFIG STEP='' "$top/scripts/build")
	distro_kdir=$work/stock/.obj-$MODULE_CONFIG
	# the symbols that modules may use
	[ "$distro_kdir/Module.symvers" -nt "$distro_kdir/vmlinux" ] ||
		run_logged "preparing that kernel for modules" "$logs/stock-$MODULE_CONFIG-modules.log" \
			kmake -C "$work/stock" O="$distro_kdir" modules
	distro_release=$(release_of "$distro_kdir")
}

# What uname -r says of the kernel that headers are of, which is not the version on every base.
release_of() {
	sed -n 's/^#define UTS_RELEASE "\(.*\)"$/\1/p' "$1/include/generated/utsrelease.h" 2>/dev/null |
		grep .
}

# the same of the user's KDIR=
release_of_kdir() {
	release_of "$KDIR" ||
		die "KDIR=$KDIR has no prepared kernel headers; it is /lib/modules/<release>/build of an installed linux-headers package"
}

# the compiler, which is the one that the distribution's headers name
distro_cc() {
	if [ -n "${MODULE_CONFIG:-}" ]; then
		echo gcc
	else
		# shellcheck disable=SC2016 # a variable of make
		printf 'include %s/.kernelvariables\nall:;@echo $(CC)\n' "$distro_kdir" | make -s -f -
	fi
}

# distro_make <directory of the module> [make argument...]
# BTF of modules wants
# pahole, and is of no use to anybody who has not got the kernel's.
distro_make() {
	local dir=$1 cc
	shift
	cc=$(distro_cc)
	command -v "${cc##* }" >/dev/null 2>&1 ||
		die "the headers of $distro_version want ${cc##* }; install it (apt-get install ${cc##*-linux-gnu-})"
	clean_make -C "$distro_kdir" M="$dir" CONFIG_DEBUG_INFO_BTF_MODULES= "$@"
}
