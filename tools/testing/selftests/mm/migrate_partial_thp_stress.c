// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of partially mapped large folios, against everything else that can
 * happen to them at the same time.
 *
 * What races, and by which system calls it is reached:
 *
 *   migrate_pages() and the split in it - move_pages(2), mbind(2) and
 *	migrate_pages(2), each by the process itself or by another one, and
 *	compact_memory
 *   deferred_split_folio() - munmap(2), MADV_DONTNEED and exit(2) of a part, in
 *	the process that migrates or in a child that shares the folios
 *   deferred_split_scan() - drop_caches and memory.reclaim
 *   the same queues, of memory cgroups that come and go - writes to cgroup.procs,
 *	rmdir(2)
 *   references that make a split fail - vmsplice(2), registered buffers of
 *	io_uring(7), and all of these to each other
 *   what else splits folios, moves them or changes how they are mapped - page
 *	faults, fork(2), mprotect(2), userfaultfd write protection, MADV_FREE,
 *	MADV_PAGEOUT with swap on zram, MADV_COLLAPSE, KSM
 *
 * A few processes own memory, full of THPs; one of them has folios of 64 KiB
 * where there are any.  Every page holds words made of its owner, its index and
 * how often it was written.  Only the owner's main thread changes what is mapped
 * and what it contains, so that it can look at any time whether every page has
 * what it should: lost pages (zeroes), pages of elsewhere and contents of
 * yesterday are told apart.  The other threads and processes do to this memory
 * what must not change its contents.
 *
 * partial_thp_stress:
 *   race - all of it for PARTIAL_THP_SECONDS, 10 unless told.
 *   race_failing_allocations - and allocations fail in the threads that migrate:
 *	destinations, page tables, slab objects.  Needs fault injection.
 *
 * In the end everything is unmapped.  nr_isolated_anon, nr_anon,
 * nr_anon_partially_mapped and the test's memory cgroups have to be as if nothing
 * had happened, and enough of what the test is about must have happened, by
 * /proc/vmstat.  The rest is for the kernel to complain about: run this with
 * lockdep, DEBUG_VM and DEBUG_LIST, and look at the console.
 *
 * Stock 6.12 passed two runs, of 60 and of 90 seconds.
 *
 * The random seed is printed, and taken from PARTIAL_THP_SEED.
 */
#include "../kselftest_harness.h"

#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#if __has_include("sys/rseq.h")
#include <sys/rseq.h>
#endif
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "partial_thp.h"

/* It runs for as long as it is told to. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 7200

#ifndef MADV_COLD
#define MADV_COLD 20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define NR_OWNERS	4
#define NR_CHUNKS	4		/* of each owner: a THP, or a range of 64K folios */
#define NR_NAMED	16		/* pages in one call of move_pages(2) */
#define SWAP_BYTES	(96ul << 20)
#define MAX_THP_BYTES	(32ul << 20)

#define THP_SYSFS	"/sys/kernel/mm/transparent_hugepage/"
#define KSM_SYSFS	"/sys/kernel/mm/ksm/"
#define ZRAM_SYSFS	"/sys/block/zram0/"
#define CGROUPFS	"/sys/fs/cgroup/"
#define DEBUGFS		"/sys/kernel/debug/"
#define COMPACT		"/proc/sys/vm/compact_memory"
#define DROP_CACHES	"/proc/sys/vm/drop_caches"
#define MAKE_IT_FAIL	"/proc/thread-self/make-it-fail"

/* What is done to the memory, and counted */
enum op {
	REFILL,
	REWRITE,
	PUNCH,
	FORK,
	PROTECT,
	UFFD_WP,
	FREE,
	MOVE,
	BIND,
	MIGRATE,
	REFUSED,		/* folios that those three did not move */
	PAGEOUT,
	COLLAPSE,
	KSM,
	PIN,
	REGISTER,
	COMPACT_ALL,
	SHRINK,
	RECLAIM,
	CHANGE_CGROUP,
	RENEW_CGROUP,
	NR_OPS
};

static const char * const op_names[] = {
	[REFILL]	= "refill",
	[REWRITE]	= "rewrite",
	[PUNCH]		= "punch",
	[FORK]		= "fork",
	[PROTECT]	= "mprotect",
	[UFFD_WP]	= "uffd_wp",
	[FREE]		= "free",
	[MOVE]		= "move_pages",
	[BIND]		= "mbind",
	[MIGRATE]	= "migrate_pages",
	[REFUSED]	= "refused",
	[PAGEOUT]	= "pageout",
	[COLLAPSE]	= "collapse",
	[KSM]		= "mergeable",
	[PIN]		= "vmsplice",
	[REGISTER]	= "io_uring",
	[COMPACT_ALL]	= "compact",
	[SHRINK]	= "drop_caches",
	[RECLAIM]	= "reclaim",
	[CHANGE_CGROUP]	= "change_cgroup",
	[RENEW_CGROUP]	= "renew_cgroup",
};

/* What all the processes share */
struct world {
	int stop;
	bool left_out[NR_OPS];
	bool failing;			/* allocations, of those who migrate */
	int nodes[2];
	unsigned int seed;
	char cgroup[64];		/* "": no cgroups */
	unsigned long ops[NR_OPS];
	unsigned long looked;		/* at pages */
	unsigned int hot[NR_OWNERS];	/* the chunk an owner is busy with */
	bool changed[NR_OWNERS];	/* and which it just filled or unmapped */
	char *mem[NR_OWNERS];
	pid_t pids[NR_OWNERS];
	/*
	 * A long-term pin of movable memory holds mmap_lock, and tries until it
	 * can isolate each page.  move_pages(2) waits for mmap_lock with pages
	 * isolated.  If somebody waits in between to write, as munmap(2) does,
	 * both go on forever, on any kernel.  So they exclude each other here.
	 */
	pthread_rwlock_t move_or_pin[NR_OWNERS];
};

static struct world *world;

static bool stopped(void)
{
	return __atomic_load_n(&world->stop, __ATOMIC_RELAXED);
}

static void stop(void)
{
	__atomic_store_n(&world->stop, 1, __ATOMIC_RELAXED);
}

static void count(enum op op, unsigned long n)
{
	__atomic_fetch_add(&world->ops[op], n, __ATOMIC_RELAXED);
}

static unsigned int rnd(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	return pthp_mix(*state) >> 33;
}

/* Is @op to be done now, one time in @n?  Never if it cannot be done. */
static bool one_in(uint64_t *rng, unsigned int n, enum op op)
{
	return !(rnd(rng) % n) && !world->left_out[op];
}

/* stdio would allocate, and have locks that a child inherits. */
static void say(const char *fmt, ...)
{
	char buf[256];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	if (write(STDERR_FILENO, buf, len) != len)
		_exit(KSFT_FAIL);
}

/* ---- files ---- */

static const char *cgroup_file(char *buf, size_t size, int group,
			       const char *name)
{
	if (group < 0)
		snprintf(buf, size, "%s/%s", world->cgroup, name);
	else
		snprintf(buf, size, "%s/%d/%s", world->cgroup, group, name);
	return buf;
}

/* ---- an owner and its memory ---- */

enum page_state {
	GONE,			/* not in a VMA */
	ZERO,			/* MADV_DONTNEED */
	KEPT,
	LAZY,			/* MADV_FREE: kept or zero */
};

/*
 * A chunk begins at the size of a PMD; where it is shorter than that, the rest
 * stays out of reach, and no folio can have the size of a PMD.
 */
struct owner {
	unsigned int id;
	unsigned int n;		/* pages in a chunk */
	size_t stride;
	char *mem;
	unsigned int nr;	/* pages of all chunks */
	uint8_t *state;
	uint32_t *gen;
	uint64_t rng;
	int uffd;
	pid_t child;
	uint32_t mark;		/* tells what a child writes */
	unsigned int bad;
};

struct helper {
	struct owner o;		/* a copy; that is, the constants of it */
	uint64_t rng;
};

struct range {
	unsigned int start;
	unsigned int end;
};

static char *addr_of(const struct owner *o, unsigned int page)
{
	return o->mem + page / o->n * o->stride +
	       (size_t)(page % o->n) * psize();
}

static size_t len_of(const struct range *r)
{
	return (size_t)(r->end - r->start) * psize();
}

/* Half of the time, what the owner is busy with */
static struct range some_chunk(const struct owner *o, uint64_t *rng)
{
	unsigned int chunk = rnd(rng) % (2 * NR_CHUNKS);

	if (chunk >= NR_CHUNKS)
		chunk = __atomic_load_n(&world->hot[o->id], __ATOMIC_RELAXED);
	return (struct range){ chunk * o->n, (chunk + 1) * o->n };
}

/* A range in a chunk, short ones more often than long ones */
static struct range part_of(const struct range *chunk, const struct owner *o,
			    uint64_t *rng)
{
	unsigned int len = 1 + rnd(rng) % (o->n >> rnd(rng) % ffsl(o->n));
	struct range r = *chunk;

	r.start += rnd(rng) % o->n;
	if (r.end > r.start + len)
		r.end = r.start + len;
	return r;
}

static struct range some_range(const struct owner *o, uint64_t *rng)
{
	struct range chunk = some_chunk(o, rng);

	return part_of(&chunk, o, rng);
}

/* One page in eight has the same content in all chunks of all owners. */
static bool is_for_ksm(unsigned int page)
{
	return page % 8 == 5;
}

static uint64_t stamp(const struct owner *o, unsigned int page)
{
	uint64_t gen = o->gen[page] & 0x7fffff;

	if (is_for_ksm(page))
		return 1ull << 63 | 0x7full << 56 | (uint64_t)(page % o->n) << 16;
	return 1ull << 63 | (uint64_t)o->id << 56 | gen << 32 |
	       (uint64_t)page << 16;
}

static void fill(struct owner *o, unsigned int page)
{
	uint64_t *p = (uint64_t *)addr_of(o, page);
	uint64_t first;
	unsigned int i;

	o->gen[page] = (o->gen[page] + 1) | o->mark;
	o->state[page] = KEPT;
	first = stamp(o, page);
	for (i = 0; i < PTHP_WORDS; i++)
		p[i] = first + i;
}

static void fill_range(struct owner *o, const struct range *r)
{
	unsigned int page;

	for (page = r->start; page < r->end; page++) {
		if (o->state[page] != GONE)
			fill(o, page);
	}
}

static void complain(struct owner *o, unsigned int page, unsigned int word,
		     uint64_t got)
{
	uint64_t want = stamp(o, page);

	if (o->bad++ >= 8)
		return;
	if (o->state[page] == ZERO)
		say("# owner %u page %u word %u: %#llx, should be zero\n",
		    o->id, page, word, (unsigned long long)got);
	else if (!got)
		say("# owner %u page %u word %u: lost\n", o->id, page, word);
	else if (((got ^ want) >> 56) || (got ^ want) & 0xffff0000)
		say("# owner %u page %u word %u: of owner %u page %u\n", o->id,
		    page, word, (unsigned int)(got >> 56) & 0x7f,
		    (unsigned int)(got >> 16) & 0xffff);
	else if ((got ^ want) >> 32)
		say("# owner %u page %u word %u: content %u, should be %u\n",
		    o->id, page, word, (unsigned int)(got >> 32) & 0x7fffff,
		    o->gen[page]);
	else
		say("# owner %u page %u word %u: %#llx\n", o->id, page, word,
		    (unsigned long long)got);
}

/* Look at every @step-th word of a page. */
static void look_at(struct owner *o, unsigned int page, unsigned int step)
{
	const uint64_t *p = (const uint64_t *)addr_of(o, page);
	uint64_t first = stamp(o, page), got;
	unsigned int i;

	if (o->state[page] == GONE)
		return;
	for (i = 0; i < PTHP_WORDS; i += step) {
		got = __atomic_load_n(&p[i], __ATOMIC_RELAXED);
		if (o->state[page] == ZERO) {
			if (!got)
				continue;
		} else if (got == first + i) {
			continue;
		} else if (o->state[page] == LAZY && pthp_zeroed(p)) {
			return;
		}
		complain(o, page, i, got);
		return;
	}
}

static void look(struct owner *o, const struct range *r, unsigned int step)
{
	unsigned int page;

	for (page = r->start; page < r->end; page++) {
		/* A look at every hole would fill it with the zero page. */
		if (o->state[page] != ZERO || step == 1 || page % 16 == 0)
			look_at(o, page, step);
	}
	__atomic_fetch_add(&world->looked, r->end - r->start, __ATOMIC_RELAXED);
}

static void look_at_all(struct owner *o, unsigned int step)
{
	const struct range all = { 0, o->nr };

	look(o, &all, step);
}

/* ---- what an owner does to its memory ---- */

static void give_up(struct owner *o, const char *what)
{
	say("# owner %u: %s: %s\n", o->id, what, strerror(errno));
	o->bad++;
}

static void set_hot(const struct owner *o, const struct range *r)
{
	__atomic_store_n(&world->hot[o->id], r->start / o->n, __ATOMIC_RELAXED);
}

static void set_changed(const struct owner *o)
{
	__atomic_store_n(&world->changed[o->id], true, __ATOMIC_RELAXED);
}

/* Map a chunk anew, and write to all of it. */
static void refill(struct owner *o, const struct range *r)
{
	char *addr = addr_of(o, r->start);

	set_hot(o, r);
	if (mmap(addr, len_of(r), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != addr) {
		give_up(o, "mmap");
		return;
	}
	if (madvise(addr, len_of(r), MADV_HUGEPAGE))
		give_up(o, "MADV_HUGEPAGE");
	memset(o->state + r->start, ZERO, r->end - r->start);
	fill_range(o, r);
	set_changed(o);
	count(REFILL, 1);
}

static void unmap(struct owner *o, const struct range *r, bool gone)
{
	unsigned int page;

	if (gone)
		munmap(addr_of(o, r->start), len_of(r));
	else
		madvise(addr_of(o, r->start), len_of(r), MADV_DONTNEED);
	for (page = r->start; page < r->end; page++) {
		if (o->state[page] != GONE)
			o->state[page] = gone ? GONE : ZERO;
	}
}

/* Unmap a part of a chunk, or what one of the shapes does not map. */
static void punch(struct owner *o, const struct range *chunk)
{
	bool gone = rnd(&o->rng) % 2;
	unsigned int seed, shape, i;
	struct range r;

	count(PUNCH, 1);
	set_hot(o, chunk);
	if (rnd(&o->rng) % 4) {
		r = part_of(chunk, o, &o->rng);
		/* That waits for a migration to end, and not a bit longer. */
		look_at(o, r.start, PTHP_WORDS);
		unmap(o, &r, gone);
		set_changed(o);
		return;
	}
	seed = rnd(&o->rng);
	shape = 1 + rnd(&o->rng) % (PTHP_NR_SHAPES - 1);
	for (i = 0; i < o->n; i = r.end - chunk->start) {
		r.start = chunk->start + i;
		r.end = r.start + 1;
		if (pthp_shape_maps(shape, i, o->n, 0, seed))
			continue;
		while (r.end < chunk->end &&
		       !pthp_shape_maps(shape, r.end - chunk->start, o->n, 0,
					seed))
			r.end++;
		unmap(o, &r, gone);
		set_changed(o);
	}
}

/*
 * Not what is for KSM: if MADV_FREE meets a KSM page that is mapped once, reclaim may
 * drop it, and does so later under all that were merged with it meanwhile.  That
 * takes no migration: stock 6.1 and 6.12 do the same.
 */
static void free_lazily(struct owner *o)
{
	struct range r = some_range(o, &o->rng), part;
	unsigned int page;

	for (part.start = r.start; part.start < r.end; part.start = page + 1) {
		for (page = part.start; page < r.end; page++) {
			if (is_for_ksm(page))
				break;
			if (o->state[page] == KEPT)
				o->state[page] = LAZY;
		}
		part.end = page;
		if (part.start < part.end)
			madvise(addr_of(o, part.start), len_of(&part), MADV_FREE);
	}
	count(FREE, 1);
}

static void protect_page(struct owner *o)
{
	unsigned int page = rnd(&o->rng) % o->nr;
	char *addr = addr_of(o, page);

	if (o->state[page] == GONE)
		return;
	if (mprotect(addr, psize(), PROT_READ))
		give_up(o, "mprotect");
	look_at(o, page, 1);
	if (mprotect(addr, psize(), PROT_READ | PROT_WRITE))
		give_up(o, "mprotect back");
	count(PROTECT, 1);
}

static void write_protect(struct owner *o)
{
	struct range r = some_chunk(o, &o->rng), part = some_range(o, &o->rng);
	struct uffdio_range chunk = {
		.start = (uintptr_t)addr_of(o, r.start), .len = len_of(&r),
	};
	struct uffdio_register reg = {
		.range = chunk, .mode = UFFDIO_REGISTER_MODE_WP,
	};
	struct uffdio_writeprotect wp = {
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	part.start = r.start + part.start % o->n;
	part.end = part.start + 1 + rnd(&o->rng) % (r.end - part.start);
	wp.range.start = (uintptr_t)addr_of(o, part.start);
	wp.range.len = len_of(&part);

	/* With holes in it, some of this may not be possible. */
	if (ioctl(o->uffd, UFFDIO_REGISTER, &reg))
		return;
	if (!ioctl(o->uffd, UFFDIO_WRITEPROTECT, &wp)) {
		count(UFFD_WP, 1);
		look(o, &part, 64);
		wp.mode = 0;
		ioctl(o->uffd, UFFDIO_WRITEPROTECT, &wp);
	}
	/* Whoever else waits to write has come for nothing but a reference. */
	if (ioctl(o->uffd, UFFDIO_UNREGISTER, &chunk))
		give_up(o, "UFFDIO_UNREGISTER");
	ioctl(o->uffd, UFFDIO_WAKE, &chunk);
}

static void reap(struct owner *o)
{
	int status;

	if (!o->child)
		return;
	if (waitpid(o->child, &status, 0) != o->child) {
		give_up(o, "waitpid");
	} else if (status) {
		say("# owner %u: its child ended with %#x\n", o->id, status);
		o->bad++;
	}
	o->child = 0;
}

/* A child unmaps and writes to other parts of what it shares, and exits. */
static void child_of(struct owner *o)
{
	unsigned int i, rounds = 1 + rnd(&o->rng) % 4;
	struct range r;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL))
		_exit(KSFT_FAIL);
	o->mark = 1u << 22;
	o->rng = pthp_mix(o->rng);
	for (i = 0; i < rounds && !stopped(); i++) {
		look_at_all(o, 128);
		r = some_chunk(o, &o->rng);
		punch(o, &r);
		r = some_range(o, &o->rng);
		fill_range(o, &r);
		usleep(rnd(&o->rng) % 8192);
	}
	look_at_all(o, 16);
	_exit(o->bad ? KSFT_FAIL : KSFT_PASS);
}

static void fork_one(struct owner *o)
{
	reap(o);
	o->child = fork();
	if (!o->child)
		child_of(o);
	if (o->child < 0) {
		give_up(o, "fork");
		o->child = 0;
	}
	count(FORK, 1);
}

/* ---- what migrates ---- */

/*
 * A thread with restartable sequences, which glibc asks for, is told by the kernel
 * in its own memory which CPU it is on; and ended if that was swapped out and there
 * is no memory to bring it back.
 */
static void let_allocations_fail(void)
{
	if (!world->failing)
		return;
#ifdef RSEQ_SIG
	if (__rseq_size && syscall(__NR_rseq, (char *)__builtin_thread_pointer() +
				   __rseq_offset, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG))
		say("# rseq: %s\n", strerror(errno));
#endif
	if (!pthp_put(MAKE_IT_FAIL, "1"))
		say("# %s: %s\n", MAKE_IT_FAIL, strerror(errno));
}

/* Name pages of an owner to move_pages(2). */
static void move_some(const struct owner *o, pid_t pid, uint64_t *rng)
{
	unsigned int i, n = 1 + rnd(rng) % NR_NAMED;
	int to = world->nodes[rnd(rng) % 2];
	int nodes[NR_NAMED], status[NR_NAMED];
	void *addrs[NR_NAMED];
	struct range r;
	long ret;

	for (i = 0; i < n; i++) {
		r = some_chunk(o, rng);
		addrs[i] = addr_of(o, r.start + rnd(rng) % o->n);
		nodes[i] = to;
		status[i] = 0;
	}
	if (pthread_rwlock_tryrdlock(&world->move_or_pin[o->id]))
		return;
	ret = syscall(__NR_move_pages, pid, n, addrs, nodes, status,
		      rnd(rng) % 2 ? MPOL_MF_MOVE : MPOL_MF_MOVE_ALL);
	pthread_rwlock_unlock(&world->move_or_pin[o->id]);
	count(MOVE, 1);
	if (ret > 0)
		count(REFUSED, ret);
	for (i = 0; i < n; i++) {
		if (status[i] == -EBUSY)
			count(REFUSED, 1);
	}
}

static void bind_some(const struct owner *o, uint64_t *rng)
{
	struct range r = rnd(rng) % 2 ? some_chunk(o, rng) : some_range(o, rng);
	int flags = rnd(rng) % 2 ? MPOL_MF_MOVE : MPOL_MF_MOVE_ALL;

	if (pthp_mbind(addr_of(o, r.start), len_of(&r),
		       world->nodes[rnd(rng) % 2],
		       flags | MPOL_MF_STRICT) == -EIO)
		count(REFUSED, 1);
	count(BIND, 1);
}

/* Mostly when there may be a THP, whole or waiting to be split */
static void *mover(void *arg)
{
	struct helper *h = arg;
	bool *changed = &world->changed[h->o.id];

	let_allocations_fail();
	while (!stopped()) {
		if (!__atomic_exchange_n(changed, false, __ATOMIC_RELAXED) &&
		    rnd(&h->rng) % 16) {
			usleep(rnd(&h->rng) % 2048);
			continue;
		}
		if (rnd(&h->rng) % 4)
			move_some(&h->o, 0, &h->rng);
		else
			bind_some(&h->o, &h->rng);
	}
	return NULL;
}

/* migrate_pages(2) of another process */
static void migrate_process(pid_t pid, int from)
{
	unsigned long old[PTHP_MASK_LONGS], new[PTHP_MASK_LONGS];
	long ret;

	pthp_mask(old, world->nodes[from]);
	pthp_mask(new, world->nodes[!from]);
	ret = syscall(__NR_migrate_pages, pid, PTHP_MAX_NODES + 1, old, new);
	if (ret > 0)
		count(REFUSED, ret);
	count(MIGRATE, 1);
}

/* The same from outside, where addresses of short chunks do not matter. */
static void *outsider(void *arg)
{
	struct helper *h = arg;
	unsigned int id;

	let_allocations_fail();
	while (!stopped()) {
		id = rnd(&h->rng) % NR_OWNERS;
		h->o.mem = __atomic_load_n(&world->mem[id], __ATOMIC_ACQUIRE);
		if (!h->o.mem)
			continue;
		h->o.id = id;
		if (rnd(&h->rng) % 32)
			move_some(&h->o, world->pids[id], &h->rng);
		else
			migrate_process(world->pids[id], rnd(&h->rng) % 2);
		usleep(rnd(&h->rng) % 32768);
	}
	return NULL;
}

/* ---- an owner, all day ---- */

static void work(struct owner *o)
{
	struct range r = some_chunk(o, &o->rng);

	/* THPs do not last: one that is to be unmapped in part is a new one */
	if (one_in(&o->rng, 2, REFILL))
		refill(o, &r);
	if (one_in(&o->rng, 2, PUNCH)) {
		punch(o, &r);
		/* before the shrinker gets there, or others that migrate */
		if (one_in(&o->rng, 2, MOVE))
			move_some(o, 0, &o->rng);
	}
	if (one_in(&o->rng, 16, REWRITE)) {
		r = some_range(o, &o->rng);
		fill_range(o, &r);
		count(REWRITE, 1);
	}
	if (one_in(&o->rng, 32, FORK))
		fork_one(o);
	if (one_in(&o->rng, 16, PROTECT))
		protect_page(o);
	if (one_in(&o->rng, 16, UFFD_WP))
		write_protect(o);
	if (one_in(&o->rng, 32, FREE))
		free_lazily(o);

	r = some_chunk(o, &o->rng);
	look(o, &r, rnd(&o->rng) % 32 ? 128 : 1);
}

/* ---- what is in the way ---- */

static void advise(const struct owner *o, const struct range *r, int advice,
		   enum op op)
{
	if (!madvise(addr_of(o, r->start), len_of(r), advice))
		count(op, 1);
}

/* Take references on some pages, and drop those taken before. */
static void pin(const struct owner *o, uint64_t *rng, int *pipefd)
{
	struct range r = some_range(o, rng);
	struct iovec iov = {
		.iov_base = addr_of(o, r.start), .iov_len = len_of(&r),
	};

	if (pipefd[0] >= 0) {
		close(pipefd[0]);
		close(pipefd[1]);
	}
	if (pipe2(pipefd, O_NONBLOCK)) {
		pipefd[0] = -1;
		return;
	}
	if (vmsplice(pipefd[1], &iov, 1, SPLICE_F_NONBLOCK) > 0)
		count(PIN, 1);
}

static void pin_longterm(const struct owner *o, uint64_t *rng, int ring)
{
	struct range r = some_range(o, rng);
	struct iovec iov = {
		.iov_base = addr_of(o, r.start), .iov_len = len_of(&r),
	};

	syscall(__NR_io_uring_register, ring, IORING_UNREGISTER_BUFFERS, NULL,
		0);
	if (rnd(rng) % 2 ||
	    pthread_rwlock_trywrlock(&world->move_or_pin[o->id]))
		return;
	if (!syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS,
		     &iov, 1))
		count(REGISTER, 1);
	pthread_rwlock_unlock(&world->move_or_pin[o->id]);
}

static void *disturber(void *arg)
{
	struct io_uring_params params = { 0 };
	struct helper *h = arg;
	int pipefd[2] = { -1, -1 };
	struct range r;
	int ring = -1;

	if (!world->left_out[REGISTER])
		ring = syscall(__NR_io_uring_setup, 1, &params);
	while (!stopped()) {
		r = some_range(&h->o, &h->rng);
		if (one_in(&h->rng, 32, PAGEOUT))
			advise(&h->o, &r, MADV_PAGEOUT, PAGEOUT);
		r = some_chunk(&h->o, &h->rng);
		if (one_in(&h->rng, 16, COLLAPSE))
			advise(&h->o, &r, MADV_COLLAPSE, COLLAPSE);
		if (one_in(&h->rng, 16, KSM))
			advise(&h->o, &r, rnd(&h->rng) % 4 ? MADV_MERGEABLE :
			       MADV_UNMERGEABLE, KSM);
		if (one_in(&h->rng, 4, PIN))
			pin(&h->o, &h->rng, pipefd);
		if (one_in(&h->rng, 8, REGISTER))
			pin_longterm(&h->o, &h->rng, ring);
		usleep(rnd(&h->rng) % 8192);
	}
	if (pipefd[0] >= 0) {
		close(pipefd[0]);
		close(pipefd[1]);
	}
	if (ring >= 0)
		close(ring);
	return NULL;
}

static void *compactor(void *arg)
{
	while (!stopped()) {
		if (pthp_put(COMPACT, "1"))
			count(COMPACT_ALL, 1);
		sleep(1);
	}
	return NULL;
}

static void *shrinker(void *arg)
{
	struct helper *h = arg;
	char path[128];

	cgroup_file(path, sizeof(path), -1, "memory.reclaim");
	while (!stopped()) {
		if (one_in(&h->rng, 1, SHRINK) && pthp_put(DROP_CACHES, "2"))
			count(SHRINK, 1);
		if (one_in(&h->rng, 8, RECLAIM)) {
			pthp_put(path, "1M");
			count(RECLAIM, 1);
		}
		usleep(rnd(&h->rng) % 32768);
	}
	return NULL;
}

/* Move who is in one cgroup to the other; return how many were. */
static unsigned int change_cgroup(int from, int to)
{
	char procs[4096], path[128], *pid, *next;
	unsigned int nr = 0;

	cgroup_file(path, sizeof(path), from, "cgroup.procs");
	if (!pthp_get(path, procs, sizeof(procs)))
		return 0;
	cgroup_file(path, sizeof(path), to, "cgroup.procs");
	for (pid = procs; *pid; pid = next) {
		next = strchr(pid, '\n');
		if (!next)
			break;
		*next++ = '\0';
		nr += pthp_put(path, pid);
	}
	return nr;
}

static void *cgroup_mover(void *arg)
{
	struct helper *h = arg;
	char path[128], pid[16];
	unsigned int i;
	int from;

	while (!stopped()) {
		from = rnd(&h->rng) % 2;
		count(CHANGE_CGROUP, change_cgroup(from, !from));
		cgroup_file(path, sizeof(path), from, "");
		if (!rmdir(path))
			count(RENEW_CGROUP, 1);
		mkdir(path, 0755);
		cgroup_file(path, sizeof(path), from, "cgroup.procs");
		for (i = 0; i < NR_OWNERS; i++) {
			snprintf(pid, sizeof(pid), "%d", world->pids[i]);
			if (rnd(&h->rng) % 2)
				pthp_put(path, pid);
		}
		usleep(rnd(&h->rng) % 16384);
	}
	return NULL;
}

/* ---- an owner's life ---- */

static void owner_geometry(struct owner *o, unsigned int id)
{
	o->id = id;
	o->stride = read_pmd_pagesize();
	o->n = o->stride / psize();
	/* too short for a THP */
	if (id == NR_OWNERS - 1)
		o->n /= 2;
	o->nr = NR_CHUNKS * o->n;
}

static bool owner_init(struct owner *o, unsigned int id)
{
	struct uffdio_api api = {
		.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	struct range r;
	unsigned int i;
	char *mem;

	memset(o, 0, sizeof(*o));
	owner_geometry(o, id);
	o->rng = pthp_mix(world->seed + id);
	o->state = calloc(o->nr, sizeof(*o->state));
	o->gen = calloc(o->nr, sizeof(*o->gen));
	o->uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (o->uffd >= 0)
		ioctl(o->uffd, UFFDIO_API, &api);
	mem = mmap(NULL, (NR_CHUNKS + 2) * o->stride, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED || !o->state || !o->gen)
		return false;
	o->mem = (char *)(((uintptr_t)mem + o->stride) & ~(o->stride - 1));
	for (i = 0; i < NR_CHUNKS; i++) {
		r.start = i * o->n;
		r.end = r.start + o->n;
		refill(o, &r);
	}
	return !o->bad;
}

static struct owner *its_owner;

/* Where: a page of the owner's, or something else; how: see si_code. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
	char *addr = info->si_addr;
	unsigned int page;

	for (page = 0; page < its_owner->nr; page++) {
		if (addr >= addr_of(its_owner, page) &&
		    addr < addr_of(its_owner, page) + psize())
			break;
	}
	say("# owner %u: signal %d, code %d, at %p, page %u of %u, state %d\n",
	    its_owner->id, sig, info->si_code, addr, page, its_owner->nr,
	    page < its_owner->nr ? (int)its_owner->state[page] : -1);
	_exit(KSFT_FAIL);
}

/* Nothing is mapped later on than in here, so that holes stay holes. */
static int owner_main(unsigned int id, pid_t parent)
{
	void *(*const jobs[])(void *) = { mover, disturber };
	struct helper helpers[ARRAY_SIZE(jobs)];
	pthread_t threads[ARRAY_SIZE(jobs)];
	struct sigaction action = {
		.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO,
	};
	struct owner o;
	char path[128];
	unsigned int i;

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		return KSFT_FAIL;
	cgroup_file(path, sizeof(path), id % 2, "cgroup.procs");
	if (*world->cgroup && !pthp_put(path, "0")) {
		say("# owner %u: cannot join %s\n", id, path);
		return KSFT_FAIL;
	}
	if (!owner_init(&o, id)) {
		give_up(&o, "cannot make its region");
		return KSFT_FAIL;
	}
	its_owner = &o;
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	for (i = 0; i < ARRAY_SIZE(jobs); i++) {
		helpers[i].o = o;
		helpers[i].rng = pthp_mix(o.rng + i + 1);
		if (pthread_create(&threads[i], NULL, jobs[i], &helpers[i])) {
			give_up(&o, "pthread_create");
			return KSFT_FAIL;
		}
	}
	__atomic_store_n(&world->mem[id], o.mem, __ATOMIC_RELEASE);
	while (!stopped() && !o.bad)
		work(&o);
	stop();
	for (i = 0; i < ARRAY_SIZE(jobs); i++)
		pthread_join(threads[i], NULL);
	reap(&o);
	look_at_all(&o, 1);
	for (i = 0; i < NR_CHUNKS; i++)
		munmap(addr_of(&o, i * o.n), o.n * psize());
	return o.bad ? KSFT_FAIL : KSFT_PASS;
}

/* ---- the tests ---- */

#define MAX_KNOBS 32

FIXTURE(partial_thp_stress)
{
	unsigned int seconds;
	unsigned long numa_balancing;
	bool swap;			/* ours */
	unsigned int nr_knobs;
	struct {
		char path[96];
		char value[32];
	} knobs[MAX_KNOBS];
};

/* Set a knob, to be set back in the end; false if there is none. */
static bool knob(FIXTURE_DATA(partial_thp_stress) * self, const char *path,
		 const char *value)
{
	char old[128], *word;

	if (self->nr_knobs == MAX_KNOBS || !pthp_get(path, old, sizeof(old)))
		return false;
	/* "always [madvise] never" */
	word = strchr(old, '[');
	word = strtok(word ? word + 1 : old, "]\n");
	if (!word || !pthp_put(path, value))
		return false;
	snprintf(self->knobs[self->nr_knobs].path,
		 sizeof(self->knobs[0].path), "%s", path);
	snprintf(self->knobs[self->nr_knobs].value,
		 sizeof(self->knobs[0].value), "%s", word);
	self->nr_knobs++;
	return true;
}

static void knobs_restore(FIXTURE_DATA(partial_thp_stress) * self)
{
	while (self->nr_knobs--) {
		/* that stops KSM; what is merged has gone already */
		if (!pthp_put(self->knobs[self->nr_knobs].path,
			      self->knobs[self->nr_knobs].value))
			say("# cannot restore %s\n",
			    self->knobs[self->nr_knobs].path);
	}
}

static void leave_out(enum op op, const char *why)
{
	world->left_out[op] = true;
	say("# left out: %s, %s\n", op_names[op], why);
}

static bool have_swap(void)
{
	char swaps[1024], *line;

	if (!pthp_get("/proc/swaps", swaps, sizeof(swaps)))
		return false;
	line = strchr(swaps, '\n');
	return line && line[1];
}

/* What mkswap(8) does */
static bool make_swap(const char *path)
{
	uint32_t *info;
	char *page;
	bool ok;
	int fd;

	page = calloc(1, psize());
	fd = open(path, O_WRONLY);
	if (!page || fd < 0) {
		free(page);
		return false;
	}
	info = (uint32_t *)(page + 1024);
	info[0] = 1;				/* version */
	info[1] = SWAP_BYTES / psize() - 1;	/* last page */
	memcpy(page + psize() - 10, "SWAPSPACE2", 10);
	ok = write(fd, page, psize()) == psize();
	close(fd);
	free(page);
	return ok;
}

static void swap_setup(FIXTURE_DATA(partial_thp_stress) * self)
{
	char value[32];

	if (have_swap())
		return;
	if (!pthp_get(ZRAM_SYSFS "disksize", value, sizeof(value)) || atol(value)) {
		leave_out(PAGEOUT, "no swap, and no unused zram0");
		return;
	}
	snprintf(value, sizeof(value), "%lu", SWAP_BYTES);
	if (!pthp_put(ZRAM_SYSFS "disksize", value))
		leave_out(PAGEOUT, "zram0 cannot be set up");
	else if (!make_swap("/dev/zram0") || swapon("/dev/zram0", 0))
		leave_out(PAGEOUT, "swapon on /dev/zram0 failed");
	else
		self->swap = true;
	if (!self->swap)
		pthp_put(ZRAM_SYSFS "reset", "1");
}

static void swap_teardown(FIXTURE_DATA(partial_thp_stress) * self)
{
	if (!self->swap)
		return;
	if (swapoff("/dev/zram0") || !pthp_put(ZRAM_SYSFS "reset", "1"))
		say("# cannot take swap off /dev/zram0\n");
	self->swap = false;
}

static void cgroup_setup(void)
{
	char path[128];
	int i;

	snprintf(world->cgroup, sizeof(world->cgroup),
		 CGROUPFS "partial_thp_stress.%d", getpid());
	if (access(CGROUPFS "memory.stat", R_OK) &&
	    access(CGROUPFS "cgroup.subtree_control", W_OK))
		goto none;
	pthp_put(CGROUPFS "cgroup.subtree_control", "+memory");
	if (mkdir(world->cgroup, 0755))
		goto none;
	cgroup_file(path, sizeof(path), -1, "cgroup.subtree_control");
	if (!pthp_put(path, "+memory")) {
		rmdir(world->cgroup);
		goto none;
	}
	for (i = 0; i < 2; i++)
		mkdir(cgroup_file(path, sizeof(path), i, ""), 0755);
	if (access(cgroup_file(path, sizeof(path), -1, "memory.reclaim"), W_OK))
		leave_out(RECLAIM, "no memory.reclaim");
	return;
none:
	*world->cgroup = '\0';
	leave_out(RENEW_CGROUP, "no cgroup v2 with memory at " CGROUPFS);
	leave_out(RECLAIM, "no cgroup");
}

static void uffd_setup(void)
{
	struct uffdio_api api = {
		.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		leave_out(UFFD_WP, "no userfaultfd with write protection");
	if (uffd >= 0)
		close(uffd);
}

static void uring_setup(void)
{
	struct io_uring_params params = { 0 };
	int ring = syscall(__NR_io_uring_setup, 1, &params);

	if (ring < 0)
		leave_out(REGISTER, "no io_uring");
	else
		close(ring);
}

FIXTURE_SETUP(partial_thp_stress)
{
	const char *seed = getenv("PARTIAL_THP_SEED");
	const char *seconds = getenv("PARTIAL_THP_SECONDS");
	pthread_rwlockattr_t attr;
	struct pthp_vmstat vmstat;
	unsigned int i;

	memset(self, 0, sizeof(*self));
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, world);

	if (geteuid())
		SKIP(return, "needs root");
	if (!thp_is_enabled() || !pthp_pmd_order())
		SKIP(return, "transparent huge pages are not enabled");
	if (read_pmd_pagesize() > MAX_THP_BYTES)
		SKIP(return, "THPs are too large to have many");
	if (!pthp_two_nodes(&world->nodes[0], &world->nodes[1]))
		SKIP(return, "needs two nodes with memory");
	if (!pthp_vmstat_read(&vmstat))
		SKIP(return, "/proc/vmstat lacks migration events");

	ASSERT_EQ(0, pthread_rwlockattr_init(&attr));
	pthread_rwlockattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	for (i = 0; i < NR_OWNERS; i++)
		ASSERT_EQ(0, pthread_rwlock_init(&world->move_or_pin[i], &attr));

	self->seconds = seconds ? strtoul(seconds, NULL, 0) : 10;
	if (!self->seconds)
		self->seconds = 1;
	world->seed = seed ? strtoul(seed, NULL, 0) : time(NULL) ^ getpid();
	world->seed &= INT32_MAX;
	TH_LOG("PARTIAL_THP_SEED=%u PARTIAL_THP_SECONDS=%u", world->seed,
	       self->seconds);
	self->numa_balancing = pthp_balancing(0);

	if (access(COMPACT, W_OK))
		leave_out(COMPACT_ALL, "no " COMPACT);
	/* 4: it does not write to the console from now on */
	if (!pthp_put(DROP_CACHES, "4"))
		leave_out(SHRINK, "no " DROP_CACHES);
	if (madvise(NULL, 0, MADV_COLLAPSE))
		leave_out(COLLAPSE, "no MADV_COLLAPSE");
	if (!knob(self, KSM_SYSFS "run", "1"))
		leave_out(KSM, "no " KSM_SYSFS);
	knob(self, KSM_SYSFS "sleep_millisecs", "20");
	knob(self, KSM_SYSFS "pages_to_scan", "100");
	knob(self, THP_SYSFS "hugepages-64kB/enabled", "madvise");
	/* the shrinker splits underused THPs, too */
	knob(self, THP_SYSFS "khugepaged/max_ptes_none", "255");
	uffd_setup();
	uring_setup();
	swap_setup(self);
	cgroup_setup();
}

FIXTURE_TEARDOWN(partial_thp_stress)
{
	unsigned int i;
	char path[128];

	if (!world || world == MAP_FAILED)
		return;
	stop();
	for (i = 0; i < NR_OWNERS; i++) {
		if (world->pids[i]) {
			kill(world->pids[i], SIGKILL);
			waitpid(world->pids[i], NULL, 0);
		}
	}
	swap_teardown(self);
	for (i = 0; *world->cgroup && i < 3; i++)
		rmdir(cgroup_file(path, sizeof(path), 1 - (int)i, ""));
	knobs_restore(self);
	if (self->seconds)
		pthp_balancing(self->numa_balancing);
	munmap(world, sizeof(*world));
}

/* What has to come back to what it was */
struct levels {
	long isolated;
	long anon[PTHP_MAX_ORDER + 1];
	long partial[PTHP_MAX_ORDER + 1];
};

static bool levels_read(struct levels *l)
{
	struct pthp_vmstat vmstat;
	unsigned int order;

	if (!pthp_vmstat_read(&vmstat))
		return false;
	l->isolated = vmstat.v[PTHP_NR_ISOLATED_ANON];
	for (order = 0; order <= PTHP_MAX_ORDER; order++) {
		l->anon[order] = pthp_folio_stat(order, "nr_anon");
		l->partial[order] = pthp_folio_stat(order,
						    "nr_anon_partially_mapped");
	}
	return true;
}

static bool levels_above(const struct levels *l, const struct levels *before)
{
	unsigned int order;

	for (order = 0; order <= PTHP_MAX_ORDER; order++) {
		if (l->anon[order] > before->anon[order] ||
		    l->partial[order] > before->partial[order])
			return true;
	}
	return l->isolated > before->isolated;
}

/* Have per-CPU lists and counters given up. */
static void settle(void)
{
	pthp_put(COMPACT, "1");
	pthp_put(DROP_CACHES, "3");
	usleep(200000);
}

/* Not at once: some is counted per CPU, some freed after a grace period. */
#define PATIENCE 50

static void expect_levels(struct __test_metadata *_metadata,
			  const struct levels *before)
{
	unsigned int order, i = 0;
	struct levels now;

	do {
		settle();
		ASSERT_TRUE(levels_read(&now));
	} while (levels_above(&now, before) && ++i < PATIENCE);

	EXPECT_GE(before->isolated, now.isolated) {
		TH_LOG("nr_isolated_anon: %ld, was %ld", now.isolated,
		       before->isolated);
	}
	for (order = 0; order <= PTHP_MAX_ORDER; order++) {
		EXPECT_GE(before->anon[order], now.anon[order]) {
			TH_LOG("order %u: nr_anon %ld, was %ld", order,
			       now.anon[order], before->anon[order]);
		}
		EXPECT_GE(before->partial[order], now.partial[order]) {
			TH_LOG("order %u: nr_anon_partially_mapped %ld, was %ld",
			       order, now.partial[order],
			       before->partial[order]);
		}
	}
}

/* No cgroup is kept by a page that is still charged to it. */
static void expect_cgroups_gone(struct __test_metadata *_metadata)
{
	long dying, usage;
	char path[128], value[32];
	unsigned int i = 0;

	if (!*world->cgroup)
		return;
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(0, rmdir(cgroup_file(path, sizeof(path), i, ""))) {
			TH_LOG("%s: %s", path, strerror(errno));
		}
	}
	i = 0;
	do {
		settle();
		cgroup_file(path, sizeof(path), -1, "cgroup.stat");
		dying = pthp_get_named(path, "nr_dying_descendants");
	} while (dying && ++i < PATIENCE);
	/* A swap device may keep free entries that were charged. */
	EXPECT_EQ(0, have_swap() ? 0 : dying) {
		TH_LOG("%ld memory cgroups were deleted and are still there",
		       dying);
	}
	cgroup_file(path, sizeof(path), -1, "memory.current");
	ASSERT_TRUE(pthp_get(path, value, sizeof(value)));
	usage = atol(value);
	TH_LOG("memory.current in the end: %ld", usage);
	EXPECT_GT((long)read_pmd_pagesize(), usage);
	EXPECT_EQ(0, rmdir(world->cgroup));
	*world->cgroup = '\0';
}

/*
 * A slow machine gets more time for the rarest: an emulator with two CPUs and
 * lockdep sees about one every other second.
 */
#define PATIENT 10

static bool enough(const struct pthp_vmstat *before, unsigned int seconds)
{
	struct pthp_vmstat d;

	if (!pthp_vmstat_read(&d))
		return true;
	pthp_vmstat_sub(&d, before);
	return d.v[PTHP_THP_MIGRATION_SPLIT] >= 1 + seconds / 10 &&
	       d.v[PTHP_THP_MIGRATION_FAIL] >= 2 + seconds / 5 &&
	       d.v[PTHP_THP_SPLIT_PAGE] - d.v[PTHP_THP_MIGRATION_SPLIT] >=
	       1 + seconds / 10;
}

/* So much has to happen for ten seconds, or the test shows nothing. */
static void expect_events(struct __test_metadata *_metadata,
			  const char *what, long value, long floor,
			  unsigned int seconds)
{
	TH_LOG("%s: %ld, %ld.%ld a second", what, value, value / seconds,
	       value * 10 / seconds % 10);
	EXPECT_LE(floor * seconds / 10, value) {
		TH_LOG("%s is too rare for the test to show anything", what);
	}
}

static void run(struct __test_metadata *_metadata,
		FIXTURE_DATA(partial_thp_stress) * self)
{
	struct {
		void *(*job)(void *arg);
		enum op op;
	} const jobs[] = {
		{ outsider, MIGRATE }, { compactor, COMPACT_ALL },
		{ shrinker, SHRINK }, { cgroup_mover, RENEW_CGROUP },
	};
	struct helper helpers[ARRAY_SIZE(jobs)] = { 0 };
	pthread_t threads[ARRAY_SIZE(jobs)] = { 0 };
	struct pthp_vmstat before, d;
	pid_t pid, parent = getpid();
	struct levels levels;
	long swapped = pthp_get_named("/proc/vmstat", "pswpout");
	char line[512], merged[32] = "no";
	unsigned int i;
	int status, len;

	settle();
	ASSERT_TRUE(levels_read(&levels));
	ASSERT_TRUE(pthp_vmstat_read(&before));

	for (i = 0; i < NR_OWNERS; i++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			_exit(owner_main(i, parent));
		world->pids[i] = pid;
	}
	for (i = 0; i < ARRAY_SIZE(jobs); i++) {
		owner_geometry(&helpers[i].o, 0);
		helpers[i].rng = pthp_mix(world->seed + NR_OWNERS + i);
		if (!world->left_out[jobs[i].op] &&
		    pthread_create(&threads[i], NULL, jobs[i].job, &helpers[i]))
			threads[i] = 0;
	}
	for (i = 0; i < PATIENT * self->seconds && !stopped(); i++) {
		if (i >= self->seconds && enough(&before, self->seconds))
			break;
		sleep(1);
	}
	pthp_get(KSM_SYSFS "pages_sharing", merged, sizeof(merged));
	merged[strcspn(merged, "\n")] = '\0';
	stop();
	for (i = 0; i < ARRAY_SIZE(jobs); i++) {
		if (threads[i])
			pthread_join(threads[i], NULL);
	}
	for (i = 0; i < NR_OWNERS; i++) {
		EXPECT_EQ(world->pids[i], waitpid(world->pids[i], &status, 0));
		world->pids[i] = 0;
		EXPECT_EQ(0, status) {
			TH_LOG("owner %u ended with %#x", i, status);
		}
	}

	ASSERT_TRUE(pthp_vmstat_read(&d));
	pthp_vmstat_sub(&d, &before);
	for (i = 0, len = 0; i < NR_OPS; i++)
		len += snprintf(line + len, sizeof(line) - len, " %s=%lu",
				op_names[i], world->ops[i]);
	TH_LOG("done:%s", line);
	TH_LOG("looked at %lu pages; swapped out %ld; KSM shared %s at the end",
	       world->looked, pthp_get_named("/proc/vmstat", "pswpout") - swapped,
	       merged);
	TH_LOG("pgmigrate_fail: %ld, thp_migration_success: %ld",
	       d.v[PTHP_PGMIGRATE_FAIL], d.v[PTHP_THP_MIGRATION_SUCCESS]);

	expect_events(_metadata, "thp_deferred_split_page",
		      d.v[PTHP_THP_DEFERRED_SPLIT_PAGE], 2, self->seconds);
	expect_events(_metadata, "pgmigrate_success",
		      d.v[PTHP_PGMIGRATE_SUCCESS], 2000, self->seconds);
	expect_events(_metadata, "thp_migration_split",
		      d.v[PTHP_THP_MIGRATION_SPLIT], 1, self->seconds);
	expect_events(_metadata, "thp_migration_fail",
		      d.v[PTHP_THP_MIGRATION_FAIL], 2, self->seconds);
	expect_events(_metadata, "folios refused by the system calls",
		      world->ops[REFUSED], 10, self->seconds);
	expect_events(_metadata, "THPs split by others, mostly the shrinker",
		      d.v[PTHP_THP_SPLIT_PAGE] - d.v[PTHP_THP_MIGRATION_SPLIT],
		      world->left_out[SHRINK] ? 0 : 1, self->seconds);

	swap_teardown(self);
	expect_levels(_metadata, &levels);
	expect_cgroups_gone(_metadata);
}

TEST_F(partial_thp_stress, race)
{
	run(_metadata, self);
}

TEST_F(partial_thp_stress, race_failing_allocations)
{
	static const char * const knobs[][2] = {
		{ "fail_page_alloc/ignore-gfp-highmem", "N" },
		{ "fail_page_alloc/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/min-order", "0" },
		{ "fail_page_alloc/task-filter", "Y" },
		{ "fail_page_alloc/verbose", "0" },
		{ "fail_page_alloc/interval", "1" },
		{ "fail_page_alloc/times", "-1" },
		{ "fail_page_alloc/probability", "10" },
		{ "failslab/ignore-gfp-wait", "N" },
		{ "failslab/task-filter", "Y" },
		{ "failslab/verbose", "0" },
		{ "failslab/interval", "1" },
		{ "failslab/times", "-1" },
		{ "failslab/probability", "5" },
	};
	char path[96];
	unsigned int i;

	if (access(DEBUGFS "fail_page_alloc", F_OK) ||
	    access(DEBUGFS "failslab", F_OK) || access(MAKE_IT_FAIL, W_OK))
		SKIP(return, "no fault injection for page and slab allocations");
	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		snprintf(path, sizeof(path), DEBUGFS "%s", knobs[i][0]);
		ASSERT_TRUE(knob(self, path, knobs[i][1])) {
			TH_LOG("cannot set %s", path);
		}
	}
	world->failing = true;
	run(_metadata, self);
}

TEST_HARNESS_MAIN
