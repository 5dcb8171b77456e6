// SPDX-License-Identifier: GPL-2.0
/*
 * migrate_partial_thp_stress: threads that do to the memory of an owner what must not
 * change its contents.  Some migrate it, others are in the way of that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <stdarg.h>
#if __has_include("sys/rseq.h")
#include <sys/rseq.h>
#endif
#include <sys/stat.h>
#include <sys/uio.h>

#include "../kselftest.h"
#include "partial_thp_stress.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define MAKE_IT_FAIL	"/proc/thread-self/make-it-fail"

/**
 * say - Write a message to stderr.
 * @fmt: The message, as for printf(3): less than 256 bytes.
 * @...: What @fmt refers to.
 *
 * stdio would allocate, and have locks that a child inherits.  The process exits if
 * the message cannot be written.
 */
void say(const char *fmt, ...)
{
	char buf[256];
	va_list args;
	int len;

	va_start(args, fmt);
	len = vsnprintf(buf, sizeof(buf), fmt, args);
	va_end(args);
	if (len >= (int)sizeof(buf))
		len = sizeof(buf) - 1;
	if (write(STDERR_FILENO, buf, len) != len)
		_exit(KSFT_FAIL);
}

/**
 * cgroup_file - Make the path of a file of a cgroup.
 * @buf: Gets the path.
 * @size: Size of @buf in bytes.
 * @group: Number of the cgroup, or -1 for the one that all of them are in.
 * @name: The file.
 *
 * Return: @buf.
 */
const char *cgroup_file(char *buf, size_t size, int group,
			const char *name)
{
	if (group < 0)
		snprintf(buf, size, "%s/%s", world->cgroup, name);
	else
		snprintf(buf, size, "%s/%d/%s", world->cgroup, group, name);
	return buf;
}

/* ---- what migrates ---- */

/*
 * glibc asks for restartable sequences.  The kernel then writes into the memory of each
 * thread which CPU the thread is on.  If that page was swapped out and there is no memory
 * to bring it back, the kernel ends the thread.  Do without.
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

/**
 * move_some - Name pages of an owner to move_pages(2).
 * @o: The owner.
 * @pid: Its process, or 0 for this one.
 * @rng: State of rnd().
 *
 * What the call does is counted, and not returned.
 *
 * Context: Takes pins_longterm of the owner for reading.  If somebody has it for
 * writing, it does nothing, rather than wait.
 */
void move_some(const struct owner *o, pid_t pid, uint64_t *rng)
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
	if (pthread_rwlock_tryrdlock(&world->pins_longterm[o->id]))
		return;
	ret = syscall(__NR_move_pages, pid, n, addrs, nodes, status,
		      rnd(rng) % 2 ? MPOL_MF_MOVE : MPOL_MF_MOVE_ALL);
	pthread_rwlock_unlock(&world->pins_longterm[o->id]);
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

/**
 * mover - A thread of an owner: migrate its memory.
 * @arg: A struct helper.
 *
 * It does so mostly when there may be a THP, whole or waiting to be split.
 *
 * Return: NULL, when the run is to stop.
 */
void *mover(void *arg)
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

/**
 * outsider - A thread outside: migrate the memory of all owners.
 * @arg: A struct helper.
 *
 * It takes the geometry of @arg for that of all owners.  Some have shorter chunks,
 * which does not matter here.
 *
 * Return: NULL, when the run is to stop.
 */
void *outsider(void *arg)
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
	    pthread_rwlock_trywrlock(&world->pins_longterm[o->id]))
		return;
	if (!syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS,
		     &iov, 1))
		count(REGISTER, 1);
	pthread_rwlock_unlock(&world->pins_longterm[o->id]);
}

/* Not while a part is write-protected by userfaultfd: see write_protect(). */
static void merge(const struct owner *o, uint64_t *rng, const struct range *r)
{
	if (pthread_rwlock_trywrlock(&world->pins_longterm[o->id]))
		return;
	advise(o, r, rnd(rng) % 4 ? MADV_MERGEABLE : MADV_UNMERGEABLE, KSM);
	pthread_rwlock_unlock(&world->pins_longterm[o->id]);
}

/**
 * disturber - A thread of an owner: be in the way of those who migrate its memory.
 * @arg: A struct helper.
 *
 * It swaps out, collapses, merges and pins.
 *
 * Context: Takes pins_longterm of the owner for writing, to merge and for long-term
 * pins.  It does not wait for that.
 * Return: NULL, when the run is to stop.
 */
void *disturber(void *arg)
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
			merge(&h->o, &h->rng, &r);
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

/**
 * compactor - A thread outside: compact all memory, once a second.
 * @arg: Not looked at.
 *
 * Return: NULL, when the run is to stop.
 */
void *compactor(void *arg)
{
	while (!stopped()) {
		if (pthp_put(PTHP_COMPACT, "1"))
			count(COMPACT_ALL, 1);
		sleep(1);
	}
	return NULL;
}

/**
 * shrinker - A thread outside: call the shrinkers, and reclaim memory of owners.
 * @arg: A struct helper.
 *
 * Return: NULL, when the run is to stop.
 */
void *shrinker(void *arg)
{
	struct helper *h = arg;
	char path[128];

	cgroup_file(path, sizeof(path), -1, "memory.reclaim");
	while (!stopped()) {
		if (one_in(&h->rng, 1, SHRINK) && pthp_put(PTHP_DROP_CACHES, "2"))
			count(SHRINK, 1);
		if (one_in(&h->rng, 8, RECLAIM)) {
			pthp_put(path, "1M");
			count(RECLAIM, 1);
		}
		usleep(rnd(&h->rng) % 32768);
	}
	return NULL;
}

/* Move all processes of one cgroup to the other; return their number. */
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

/**
 * cgroup_mover - A thread outside: move owners between two cgroups.
 * @arg: A struct helper.
 *
 * It also removes the cgroup that they left, if it can, and makes it again.  It
 * begins when all owners have their memory: an owner cannot join a cgroup while that
 * is renewed.
 *
 * Return: NULL, when the run is to stop.
 */
void *cgroup_mover(void *arg)
{
	struct helper *h = arg;
	char path[128], pid[16];
	unsigned int i;
	int from;

	/* An owner cannot join a cgroup while that is renewed. */
	for (i = 0; i < NR_OWNERS; i++) {
		while (!stopped() &&
		       !__atomic_load_n(&world->mem[i], __ATOMIC_ACQUIRE))
			usleep(1000);
	}
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
