// SPDX-License-Identifier: GPL-2.0
/*
 * States for "compare" that take more than a system call: other processes, pins,
 * KSM, swap, userfaultfd, cgroups, memory blocks, a node without memory.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "blocks.h"
#include "compare.h"
#include "compare-state.h"

#define KSM_SYSFS	"/sys/kernel/mm/ksm/"
#define CGROUPFS	"/sys/fs/cgroup/"
#define CGROUP		CGROUPFS "compare"
#define SWAP_BYTES	(64ul << 20)
#define MAX_FILLERS	24
#define MAX_PINS	64
#define NR_HOLES	8192u
#define COMPACT_LOCKED	"/proc/sys/vm/compact_unevictable_allowed"

/* ---- processes ---- */

static int to_other = -1, from_other = -1;

static void other_main(struct subject *sub, enum pthp_shape shape, bool ptes,
		       int in, int out)
{
	char cmd;

	for (;;) {
		char reply = 0;

		if (read(in, &cmd, 1) != 1)
			_exit(1);
		switch (cmd) {
		case OTHER_BEGIN:
			if (ptes)
				reply = !pthp_map_by_ptes(&sub->r);
			else
				reply = !!pthp_punch(&sub->r, shape, PTHP_DONTNEED);
			break;
		case OTHER_UNMAP:
			reply = !!pthp_punch(&sub->r, PTHP_LAST_HALF, PTHP_DONTNEED);
			break;
		case OTHER_CHECK:
			reply = wrong_pages(sub) || full_holes(sub);
			break;
		default:
			_exit(0);
		}
		if (write(out, &reply, 1) != 1)
			_exit(1);
	}
}

/* A process that has the region by fork(2), and unmaps from it what @shape says */
bool other_start(struct subject *sub, enum pthp_shape shape, bool ptes)
{
	int to[2], from[2];
	char path[64];

	if (pipe(to) || pipe(from))
		return false;
	sub->other = fork();
	if (sub->other < 0)
		return false;
	if (!sub->other) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(to[1]);
		close(from[0]);
		close(sub->r.pagemap);
		sub->r.pagemap = open("/proc/self/pagemap", O_RDONLY);
		other_main(sub, shape, ptes, to[0], from[1]);
	}
	close(to[0]);
	close(from[1]);
	to_other = to[1];
	from_other = from[0];
	snprintf(path, sizeof(path), "/proc/%d/pagemap", sub->other);
	sub->other_pagemap = open(path, O_RDONLY);
	return sub->other_pagemap >= 0 && !other_do(OTHER_BEGIN);
}

/* Return 0 if the other process says that all is well. */
int other_do(enum other_command command)
{
	char cmd = command, reply = 1;

	if (write(to_other, &cmd, 1) != 1 || read(from_other, &reply, 1) != 1)
		return 1;
	return reply;
}

void other_end(struct subject *sub)
{
	char cmd = OTHER_EXIT;

	if (!sub->other)
		return;
	if (write(to_other, &cmd, 1) != 1)
		kill(sub->other, SIGKILL);
	waitpid(sub->other, NULL, 0);
	close(to_other);
	close(from_other);
	close(sub->other_pagemap);
	sub->other = 0;
}

/* ---- a thread on the other CPU, so that there is a TLB to flush ---- */

static pthread_t spinner;
static int spinning, spin;

static void *spin_main(void *unused)
{
	pthp_run_on(1);
	__atomic_store_n(&spinning, 1, __ATOMIC_RELEASE);
	while (__atomic_load_n(&spin, __ATOMIC_ACQUIRE))
		;
	return NULL;
}

bool spinner_start(void)
{
	spin = 1;
	spinning = 0;
	if (pthread_create(&spinner, NULL, spin_main, NULL))
		return false;
	while (!__atomic_load_n(&spinning, __ATOMIC_ACQUIRE))
		sched_yield();
	return true;
}

void spinner_end(void)
{
	__atomic_store_n(&spin, 0, __ATOMIC_RELEASE);
	pthread_join(spinner, NULL);
}

/* ---- pins ---- */

static int pins[MAX_PINS][2];
static unsigned int nr_pins;

/* A reference on the first mapped page of THP @folio, until unpin_all() */
bool pin_folio(const struct subject *sub, unsigned int folio)
{
	const struct pthp *r = &sub->r;
	unsigned int page = folio << r->order;
	struct iovec iov = { .iov_len = psize() };

	while (page < r->nr && !r->mapped[page])
		page++;
	if (page == r->nr || nr_pins == MAX_PINS || pipe(pins[nr_pins]))
		return false;
	iov.iov_base = pthp_addr(r, page);
	return vmsplice(pins[nr_pins++][1], &iov, 1, 0) == (ssize_t)psize();
}

void unpin_all(void)
{
	while (nr_pins) {
		nr_pins--;
		close(pins[nr_pins][0]);
		close(pins[nr_pins][1]);
	}
}

/* ---- KSM ---- */

const char *merge_same(struct subject *sub)
{
	struct pthp *r = &sub->r;
	unsigned int page, nr = 0, tries;

	if (access(KSM_SYSFS "run", W_OK))
		return "no KSM";
	/* The first two folios: the others are not split by it. */
	for (page = 0; page < 2u << r->order; page += 8) {
		if (!r->mapped[page])
			continue;
		sub->content[page] = SAME;
		fill_page(sub, page);
		nr++;
	}
	if (madvise(r->mem, pthp_len(r), MADV_MERGEABLE))
		return "no MADV_MERGEABLE";
	write_num(KSM_SYSFS "pages_to_scan", 2000);
	write_num(KSM_SYSFS "run", 1);
	for (tries = 0; tries < 1000; tries++) {
		if (read_num(KSM_SYSFS "pages_sharing") +
		    read_num(KSM_SYSFS "pages_shared") >= nr)
			break;
		usleep(20000);
	}
	/* No page that it looks at just now can be migrated. */
	write_num(KSM_SYSFS "run", 0);
	return tries < 1000 ? NULL : "KSM does not merge";
}

void merge_end(void)
{
	pthp_put(KSM_SYSFS "run", "2");
	pthp_put(KSM_SYSFS "run", "0");
}

/* ---- swap ---- */

/* Every other folio has a part of it swapped out. */
const char *swap_out(struct subject *sub)
{
	struct pthp *r = &sub->r;
	unsigned int n = 1u << r->order, i;

	if (pthp_swap_on(SWAP_BYTES))
		return "no swap on zram0";
	for (i = 0; i < r->nr_folios; i += 2) {
		if (madvise(pthp_addr(r, i * n + n / 4), n / 8 * psize(),
			    MADV_PAGEOUT))
			return "no MADV_PAGEOUT";
	}
	return NULL;
}

/* ---- userfaultfd ---- */

/* A quarter of each folio is write protected. */
const char *protect_by_uffd(struct subject *sub)
{
	struct pthp *r = &sub->r;
	unsigned int n = 1u << r->order, i;
	int uffd;

	if (pthp_uffd_open(&uffd) ||
	    uffd_register(uffd, r->mem, pthp_len(r), false, true, false))
		return "no userfaultfd write protection";
	for (i = 0; i < r->nr_folios; i++) {
		if (pthp_uffd_protect(uffd, pthp_addr(r, i * n + n / 3),
				      n / 4 * psize(), true))
			return "UFFDIO_WRITEPROTECT fails";
	}
	return NULL;
}

/* ---- cgroups ---- */

const char *enter_cgroup(struct subject *sub, const char *mems)
{
	pthp_put(CGROUPFS "cgroup.subtree_control", "+memory");
	if (mems && !pthp_put(CGROUPFS "cgroup.subtree_control", "+cpuset"))
		return "no cpuset controller";
	if (mkdir(CGROUP, 0755) && errno != EEXIST)
		return "no cgroup";
	if (mems && !pthp_put(CGROUP "/cpuset.mems", mems))
		return "no cpuset.mems";
	if (!pthp_put(CGROUP "/cgroup.procs", "0"))
		return "cannot enter the cgroup";
	sub->cgroup = CGROUP;
	return NULL;
}

/* The cgroup's node changes, and what its processes have moves along. */
long move_by_cpuset(int node)
{
	return pthp_put(CGROUP "/cpuset.mems", node ? "1" : "0") ? 0 : -errno;
}

/* ---- NUMA balancing ---- */

#define BALANCING_SYSCTL	"/proc/sys/kernel/numa_balancing"
#define BALANCING_SECONDS	10

/* Pages with data that are not on @node, or not to be reached as a fault is awaited */
static long elsewhere(const struct subject *sub, int node)
{
	const struct pthp *r = &sub->r;
	long n = 0, missed = 0, i;

	for (i = 0; i < r->nr; i++) {
		if (r->mapped[i] && sub->content[i] != ZEROED)
			r->addrs[n++] = pthp_addr(r, i);
	}
	if (syscall(__NR_move_pages, 0, n, r->addrs, NULL, r->status, 0))
		return n;
	for (i = 0; i < n; i++)
		missed += r->status[i] != node;
	return missed;
}

/*
 * Read all pages on the CPU of @node, until they are there or time is up.  Return how
 * many are not.  6.1 leaves folios alone that are mapped by PTEs.
 */
long move_by_balancing(const struct subject *sub, int node)
{
	const struct pthp *r = &sub->r;
	time_t end = time(NULL) + BALANCING_SECONDS;
	long missed;

	/* A policy would keep them where they are. */
	if (syscall(__NR_mbind, r->mem, pthp_len(r), MPOL_DEFAULT, NULL, 0, 0) ||
	    !pthp_run_on(node) || !pthp_put(BALANCING_SYSCTL, "1"))
		return -errno;
	do {
		wrong_pages(sub);
		missed = elsewhere(sub, node);
	} while (missed && time(NULL) < end);
	pthp_put(BALANCING_SYSCTL, "0");
	/* the faults that are still awaited */
	wrong_pages(sub);
	pthp_run_on(0);
	return missed;
}

void remove_cgroup(void)
{
	unsigned int tries;

	for (tries = 0; rmdir(CGROUP) && errno == EBUSY && tries < 200; tries++)
		usleep(10000);
}

/* ---- a node without memory ---- */

/*
 * Until what is left is not given to the likes of it, in any size.  With @holes,
 * single pages are free then, and the others are locked, so that compaction lets
 * them stay where they are.
 */
static void fill_node(int node, bool holes)
{
	const size_t step = read_pmd_pagesize(), len = 8ul << 30;
	unsigned int missed = 0, i;
	char *mem, *small, *at;

	if (holes && mlockall(MCL_FUTURE | MCL_ONFAULT))
		_exit(1);
	mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED || pthp_prefer_node(node))
		_exit(1);
	small = mem;
	at = (char *)(((uintptr_t)mem + step - 1) & ~(step - 1));
	if (holes) {
		at += 2 * NR_HOLES * psize();
		madvise(small, at - small, MADV_NOHUGEPAGE);
		memset(small, 1, at - small);
	}
	madvise(at, mem + len - at, MADV_HUGEPAGE);
	do {
		*at = 1;
		at += step;
	} while (pthp_node_of(at - step) == node);
	madvise(at, mem + len - at, MADV_NOHUGEPAGE);
	while (missed < 1024) {
		*at = 1;
		missed = pthp_node_of(at) == node ? 0 : missed + 1;
		at += psize();
	}
	for (i = 0; holes && i < NR_HOLES; i++)
		munmap(small + 2 * i * psize(), psize());
}

/* A process that has all of the target node; the OOM killer likes it best. */
pid_t fill_start(const struct subject *sub, bool holes)
{
	int fds[2];
	char ready;
	pid_t pid;

	if (pipe(fds))
		return -1;
	if (holes)
		pthp_put(COMPACT_LOCKED, "0");
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fds[0]);
		pthp_put("/proc/self/oom_score_adj", "500");
		munmap(sub->r.mem, pthp_len(&sub->r));
		fill_node(sub->dst, holes);
		if (write(fds[1], "", 1) == 1)
			pause();
		_exit(0);
	}
	close(fds[1]);
	if (read(fds[0], &ready, 1) != 1)
		pid = -1;
	close(fds[0]);
	return pid;
}

/* Was it still alive? */
bool fill_end(pid_t pid)
{
	bool alive = waitpid(pid, NULL, WNOHANG) == 0;

	pthp_put(COMPACT_LOCKED, "1");
	if (alive) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return alive;
}

/* ---- memory blocks ---- */

static struct pthp fillers[MAX_FILLERS];
static unsigned int nr_fillers;

/* A region in one block; others stay where they are so that the next is elsewhere. */
const char *alloc_in_block(struct pthp *r, unsigned int folios, unsigned int order,
			   int node, long *block)
{
	const char *missing;

	for (;;) {
		missing = pthp_alloc(r, folios, order, node, SEED);
		if (missing)
			return missing;
		*block = block_of(r);
		if (*block >= 0)
			return NULL;
		if (nr_fillers == MAX_FILLERS)
			return "no memory block that can go offline holds all folios";
		fillers[nr_fillers++] = *r;
	}
}

/*
 * Compaction moves folios up, into pageblocks that are neither full nor empty:
 * have every eighth folio taken in those above.
 */
const char *alloc_below(struct pthp *r, unsigned int folios, unsigned int order,
			int node)
{
	struct pthp *above = &fillers[nr_fillers++];
	const size_t len = psize() << order;
	const char *missing;
	unsigned int i;

	missing = pthp_alloc(above, 4 * folios, order, node, SEED);
	if (!missing)
		missing = pthp_alloc(r, folios, order, node, SEED);
	if (missing)
		return missing;
	for (i = 0; i + 8 <= 4 * folios; i += 8)
		madvise(above->mem + i * len, 7 * len, MADV_DONTNEED);
	return NULL;
}

void drop_fillers(void)
{
	while (nr_fillers)
		pthp_free(&fillers[--nr_fillers]);
}
