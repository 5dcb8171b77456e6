// SPDX-License-Identifier: GPL-2.0
/*
 * migrate_partial_thp_stress: an owner of memory.  It fills, unmaps, protects and shares
 * its memory, and looks at any time whether every page has what it should.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "../kselftest.h"
#include "partial_thp_stress.h"

/* ---- an owner and its memory ---- */

/**
 * some_chunk - Choose a chunk of an owner.
 * @o: The owner.
 * @rng: State of rnd().
 *
 * Half of the time it is what the owner is busy with.
 *
 * Return: the range of its pages.
 */
struct range some_chunk(const struct owner *o, uint64_t *rng)
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

/**
 * some_range - Choose a range in a chunk of an owner.
 * @o: The owner.
 * @rng: State of rnd().
 *
 * Short ones are chosen more often than long ones.
 *
 * Return: the range.
 */
struct range some_range(const struct owner *o, uint64_t *rng)
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
		/* Faults, so it waits for a running migration of this page. */
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
	char *addr;

	part.start = r.start + part.start % o->n;
	part.end = part.start + 1 + rnd(&o->rng) % (r.end - part.start);
	addr = addr_of(o, part.start);

	if (pthread_rwlock_tryrdlock(&world->pins_longterm[o->id]))
		return;
	/*
	 * On 6.1, ksmd makes a page private again like somebody who writes to it, but cannot
	 * wait for userfaultfd: DEBUG_VM complains.
	 */
	madvise(addr_of(o, r.start), len_of(&r), MADV_UNMERGEABLE);
	/* With holes in it, some of this may not be possible. */
	if (uffd_register(o->uffd, addr_of(o, r.start), len_of(&r), false, true, false))
		goto unlock;
	if (!pthp_uffd_protect(o->uffd, addr, len_of(&part), true)) {
		count(UFFD_WP, 1);
		look(o, &part, 64);
		pthp_uffd_protect(o->uffd, addr, len_of(&part), false);
	}
	/* Others that still wait for write access only want a reference: wake them. */
	if (ioctl(o->uffd, UFFDIO_UNREGISTER, &chunk))
		give_up(o, "UFFDIO_UNREGISTER");
	ioctl(o->uffd, UFFDIO_WAKE, &chunk);
unlock:
	pthread_rwlock_unlock(&world->pins_longterm[o->id]);
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

/* ---- an owner's life ---- */

/**
 * owner_geometry - Set how many pages an owner has, and in which chunks.
 * @o: The owner.
 * @id: Its number.  The last one has chunks that are too short for a THP.
 */
void owner_geometry(struct owner *o, unsigned int id)
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
	struct range r;
	unsigned int i;
	char *mem;

	memset(o, 0, sizeof(*o));
	owner_geometry(o, id);
	o->rng = pthp_mix(world->seed + id);
	o->state = calloc(o->nr, sizeof(*o->state));
	o->gen = calloc(o->nr, sizeof(*o->gen));
	pthp_uffd_open(&o->uffd);
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

/**
 * owner_main - Be an owner until the run is to stop, or a page is wrong.
 * @id: Its number.
 * @parent: The process that has made this one.
 *
 * Nothing is mapped later on than in here, so that holes stay holes.  A page that is
 * wrong ends the whole run.  The process is killed if its parent ends.
 *
 * Return: KSFT_PASS; or KSFT_FAIL if a page was wrong, or something is not possible.
 */
int owner_main(unsigned int id, pid_t parent)
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
