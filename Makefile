# SPDX-License-Identifier: GPL-2.0
# Front door to scripts/; "make help" says what there is.

# Unless told, or KSRC says it, "make bases" and what scripts/each-base runs are for all bases,
# and the rest is for 6.12.
ifdef KSRC
BASE	?= $(shell sed -n 's/^\(VERSION\|PATCHLEVEL\) = //p' \
		"$(KSRC)/Makefile" 2>/dev/null | paste -sd.)
endif
bases	:= $(BASE)
BASE	?= 6.12
TREE	?= patched
CONFIG	?= test
ACCEL	?= auto
O	?= build
export BASE TREE CONFIG KSRC KDIR SRCVERSION O ACCEL V J STEP OUT SET
export GUEST_TIMEOUT KUNIT_FILTER KSELFTEST_ARGS COMPARE HOURS MUTANT MUTANTS
export PARTIAL_THP_SEED PARTIAL_THP_SECONDS MODULE_CYCLES MODULE_LOAD_CYCLES MODULE_PARTS

.DEFAULT_GOAL := all
.NOTPARALLEL:

.PHONY: all
all: deps	## stock and patched kernel, one demonstration, before/after table
	@scripts/demo

.PHONY: deps
deps:		## install missing tools (apt), or name them
	@scripts/deps

.PHONY: source
source:		## get the pristine kernel source; prints its path
	@scripts/deps patches
	@scripts/fetch-source

.PHONY: apply
apply:		## KSRC=tree: the series on a new branch there; else the patched tree
	@scripts/deps patches
	@scripts/apply-series

.PHONY: image
image: deps	## build BASE TREE CONFIG; prints the path of the bzImage
	@scripts/build

.PHONY: kunit
kunit: deps	## KUnit on the patched kernel
	@scripts/check kunit

.PHONY: kselftest
kselftest: deps	## our kselftests on TREE
	@scripts/check kselftest

.PHONY: compare
compare: deps	## all shapes, callers and states on both kernels: is anything worse?
	@scripts/lib/recorded compare

.PHONY: kselftest-mm
kselftest-mm:	## the kernel's own mm selftests on both kernels: what differs
	@scripts/deps mm
	@scripts/lib/recorded kselftest-mm

.PHONY: demo
demo: all	## the same as plain make

.PHONY: check
check: deps	## all tests: KUnit, kselftest on patched and on stock
	@scripts/each-base "check all" $(bases)

.PHONY: mutate
mutate: deps	## change the series line by line: do the tests notice?
	@scripts/lib/recorded mutate

.PHONY: coverage
coverage: deps	## which lines of the series do the tests execute?
	@scripts/lib/recorded coverage

.PHONY: bench
bench: deps	## guest instructions of both kernels, held against limits
	@scripts/lib/recorded bench

.PHONY: report
report:		## the last bench as an HTML page; PICTURE=file.svg: its first chart too
	@scripts/bench report

.PHONY: results
results:	## Documentation/results.csv from what was run in O
	@scripts/results

.PHONY: series
series:		## OUT=dir: the series as mails, with your sign-off; SET=fixes: a part
	@[ -n "$(OUT)" ] || scripts/export-series
	@scripts/deps patches
	@scripts/export-series "$(OUT)"

.PHONY: distro-image
distro-image: deps	## the distribution's unmodified kernel of that version; prints its path
	@scripts/distro image

.PHONY: livepatch
livepatch:	## what the series changes, for the distribution's kernel; prints its path
	@scripts/deps livepatch
	@scripts/livepatch

.PHONY: deb
deb:		## the livepatch as a Debian package with DKMS; prints its path
	@scripts/deps deb
	@scripts/deb

.PHONY: watch
watch:		## the module that tells whether it concerns you; prints its path
	@scripts/deps watch
	@scripts/module/watch

.PHONY: check-module
check-module:	## the modules on the distribution's unmodified kernels
	@scripts/deps module
	@case ",$(or $(MODULE_PARTS),mm)," in *,mm,*) scripts/deps mm ;; esac
	@scripts/each-base check-module $(bases)

.PHONY: bases
bases:		## source packages there are for each base: does the series apply?
	@scripts/deps patches
	@scripts/bases $(bases)

.PHONY: static
static:		## checkpatch, W=1, sparse, coccicheck, clang, kernel-doc, shellcheck
	@scripts/each-base static $(bases)

.PHONY: torture
torture: deps	## HOURS=n: all tests and the race stress on debug kernels
	@scripts/each-base torture $(bases)

.PHONY: bisect-check
bisect-check: deps	## build and test the kernel after each patch
	@scripts/each-base bisect-check $(bases)

.PHONY: control
control: deps	## build and test the kernel without each patch: do its tests fail?
	@scripts/each-base control $(bases)

.PHONY: shell
shell: deps	## a shell in a guest of BASE TREE CONFIG
	@scripts/guest-shell

.PHONY: clean
clean:		## remove built objects, programs and results
	@scripts/clean

.PHONY: distclean
distclean:	## remove all that is ours in O, downloads included
	@scripts/clean --all

.PHONY: help
help:		## this text
	@scripts/help $(firstword $(MAKEFILE_LIST))
