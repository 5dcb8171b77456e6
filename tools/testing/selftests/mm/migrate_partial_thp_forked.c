// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of THPs that several processes map, and not all of them the same
 * pages, or not in the same way; and what migration costs others.
 *
 * "Stock" is a 6.1 kernel.  A 6.12 kernel passes where nothing is said of it.
 */
#include "../kselftest_harness.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "partial_thp_test.h"

#define NR_THPS 8

struct env {
	int src, dst;
	struct pthp r;
};

static void env_teardown(struct env *env)
{
	pthp_free(&env->r);
	pthp_restore();
}

static bool build(struct __test_metadata *_metadata, struct env *env,
		  enum pthp_shape shape)
{
	const char *missing;

	missing = pthp_alloc(&env->r, NR_THPS, pthp_pmd_order(), env->src, 1);
	requires(return false, !missing, "%s", missing);
	ASSERT_EQ(0, pthp_punch(&env->r, shape, PTHP_DONTNEED));
	return true;
}

/* It does not say whether all could be moved. */
static int move_to(struct pthp *r, int node)
{
	return pthp_mbind(r->mem, pthp_len(r), node, MPOL_MF_MOVE_ALL);
}

static long counter(const char *name)
{
	struct pthp_vmstat fold;

	if (!pthp_vmstat_read(&fold))
		return -1;
	return pthp_get_named("/proc/vmstat", name);
}

/* Take a reference on a page of each THP, until pthp_unpin(). */
static bool pin(const struct pthp *r, int *pipefd)
{
	struct iovec iov[NR_THPS];
	unsigned int i;

	for (i = 0; i < r->nr_folios; i++) {
		iov[i].iov_base = pthp_addr(r, i << r->order);
		iov[i].iov_len = psize();
	}
	return !pipe(pipefd) &&
	       vmsplice(pipefd[1], iov, i, 0) == (ssize_t)(i * psize());
}

/* ---- a child that does as it is told ---- */

enum order {
	MAP_BY_PTES,
	UNMAP_HALF,
	MIGRATE,	/* to the node */
	HELD,
	INTACT,
	LEAVE,
};

struct child {
	pid_t pid;
	int to, from;
};

static long obey(struct env *env, enum order order)
{
	struct pthp *r = &env->r;

	switch (order) {
	case MAP_BY_PTES:
		return pthp_map_by_ptes(r) ? 0 : -1;
	case UNMAP_HALF:
		return pthp_punch(r, PTHP_FIRST_HALF, PTHP_DONTNEED);
	case MIGRATE:
		return move_to(r, env->dst);
	case HELD:
		return pthp_held(r);
	case INTACT:
		return pthp_intact(r);
	default:
		_exit(0);
	}
}

static bool spawn(struct child *child, struct env *env)
{
	int to[2], from[2];
	enum order order;
	long result;

	if (pipe(to) || pipe(from))
		return false;
	child->pid = fork();
	child->to = to[1];
	child->from = from[0];
	if (child->pid)
		return child->pid > 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	env->r.pagemap = open("/proc/self/pagemap", O_RDONLY);
	while (read(to[0], &order, sizeof(order)) == sizeof(order)) {
		result = obey(env, order);
		if (write(from[1], &result, sizeof(result)) != sizeof(result))
			break;
	}
	_exit(1);
}

static long tell(struct child *child, enum order order)
{
	long result = -1000;
	int status;

	if (write(child->to, &order, sizeof(order)) != sizeof(order))
		return -1001;
	if (order != LEAVE)
		return read(child->from, &result, sizeof(result)) ==
		       sizeof(result) ? result : -1002;
	close(child->to);
	close(child->from);
	if (waitpid(child->pid, &status, 0) != child->pid)
		return -1003;
	return status;
}

/* ---- mapped by PMDs here and by PTEs there ---- */

FIXTURE(forked_thp)
{
	struct env env;
	struct child child;
};

FIXTURE_SETUP(forked_thp)
{
	test_setup_nodes(_metadata, &self->env.src, &self->env.dst);
}

FIXTURE_TEARDOWN(forked_thp)
{
	env_teardown(&self->env);
}

static bool build_forked(struct __test_metadata *_metadata, struct env *env,
			 struct child *child, enum order order)
{
	if (!build(_metadata, env, PTHP_ALL))
		return false;
	ASSERT_TRUE(spawn(child, env));
	ASSERT_EQ(0, tell(child, order));
	ASSERT_TRUE(check_huge_anon(env->r.mem, NR_THPS, read_pmd_pagesize()));
	return true;
}

/* The child has all that it maps, and leaves. */
static void child_is_intact(struct __test_metadata *_metadata, struct child *child)
{
	EXPECT_EQ(1, tell(child, INTACT));
	EXPECT_EQ(0, tell(child, LEAVE));
}

static void unmap_all(struct __test_metadata *_metadata, struct pthp *r)
{
	ASSERT_EQ(0, madvise(r->mem, pthp_len(r), MADV_DONTNEED));
}

/* A migration fails, as all THPs are pinned; then the parent unmaps them. */
static void fail_and_unmap(struct __test_metadata *_metadata, struct env *env)
{
	struct pthp *r = &env->r;
	int pipefd[2];

	ASSERT_TRUE(pin(r, pipefd));
	EXPECT_EQ(0, move_to(r, env->dst));
	pthp_unpin(pipefd);
	EXPECT_EQ(r->nr, pthp_on_node(r, env->src));
	unmap_all(_metadata, r);
}

/*
 * The pages that both map are counted once after a migration, as before.  Stock
 * counts them twice.
 *
 * Needs: mm/migrate: set PG_double_map again
 */
TEST_F(forked_thp, counted_once)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	long before, after;

	if (!build_forked(_metadata, env, &self->child, UNMAP_HALF))
		return;
	before = counter("nr_anon_pages");
	EXPECT_EQ(0, move_to(r, env->dst));
	after = counter("nr_anon_pages");
	/* others may map a page or two meanwhile */
	EXPECT_GT(r->nr / 8, labs(after - before)) {
		TH_LOG("%ld more anonymous pages are mapped", after - before);
	}
	EXPECT_EQ(r->nr, pthp_on_node(r, env->dst));
	EXPECT_TRUE(pthp_intact(r));
	EXPECT_TRUE(check_huge_anon(r->mem, NR_THPS, read_pmd_pagesize()));
	child_is_intact(_metadata, &self->child);
}

/*
 * What only the parent mapped comes back after a migration when the parent unmaps
 * all. Stock has forgotten about it.
 *
 * Needs: mm/migrate: set PG_double_map again
 */
TEST_F(forked_thp, moved_gives_back)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;

	if (!build_forked(_metadata, env, &self->child, UNMAP_HALF))
		return;
	EXPECT_EQ(0, move_to(r, env->dst));
	unmap_all(_metadata, r);
	ASSERT_TRUE(pthp_shrink());
	EXPECT_EQ(r->nr / 2, tell(&self->child, HELD));
	child_is_intact(_metadata, &self->child);
}

/* And it does after a migration that failed.  Stock passes. */
TEST_F(forked_thp, failed_gives_back)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;

	if (!build_forked(_metadata, env, &self->child, UNMAP_HALF))
		return;
	fail_and_unmap(_metadata, env);
	ASSERT_TRUE(pthp_shrink());
	EXPECT_EQ(r->nr / 2, tell(&self->child, HELD));
	child_is_intact(_metadata, &self->child);
}

/*
 * After that, the child migrates only what it maps.  Stock copies the THPs whole; 6.12
 * does not, but counts them whole.
 *
 * Needs: mm/migrate: split folios that wait to be split
 */
TEST_F(forked_thp, failed_and_moved)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	long moved;

	if (!build_forked(_metadata, env, &self->child, UNMAP_HALF))
		return;
	fail_and_unmap(_metadata, env);
	moved = counter("pgmigrate_success");
	EXPECT_EQ(0, tell(&self->child, MIGRATE));
	EXPECT_EQ(r->nr / 2, counter("pgmigrate_success") - moved);
	EXPECT_EQ(r->nr / 2, tell(&self->child, HELD));
	child_is_intact(_metadata, &self->child);
}

/*
 * The parent maps the pages that the child unmaps: nothing is split.  If the THPs were
 * migrated before, stock splits them when memory gets short, and so does 6.12.
 *
 * Needs: mm/rmap: do not mistake migration
 */
TEST_F(forked_thp, whole_for_parent)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;

	if (!build_forked(_metadata, env, &self->child, MAP_BY_PTES))
		return;
	EXPECT_EQ(0, move_to(r, env->dst));
	EXPECT_EQ(0, tell(&self->child, UNMAP_HALF));
	ASSERT_TRUE(pthp_shrink());
	EXPECT_TRUE(check_huge_anon(r->mem, NR_THPS, read_pmd_pagesize()));
	EXPECT_EQ(0, tell(&self->child, LEAVE));
	ASSERT_TRUE(pthp_shrink());
	EXPECT_TRUE(check_huge_anon(r->mem, NR_THPS, read_pmd_pagesize()));
	EXPECT_TRUE(pthp_intact(r));
}

/*
 * The same, if it is migrated once more after the child has gone.  Stock passes,
 * 6.12 does not.
 *
 * Needs: mm/rmap: do not mistake migration
 */
TEST_F(forked_thp, whole_after_all)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;

	if (!build_forked(_metadata, env, &self->child, MAP_BY_PTES))
		return;
	EXPECT_EQ(0, move_to(r, env->dst));
	EXPECT_EQ(0, tell(&self->child, UNMAP_HALF));
	EXPECT_EQ(0, tell(&self->child, LEAVE));
	EXPECT_EQ(0, move_to(r, env->src));
	ASSERT_TRUE(pthp_shrink());
	EXPECT_TRUE(check_huge_anon(r->mem, NR_THPS, read_pmd_pagesize()));
	EXPECT_TRUE(pthp_intact(r));
}

static int advise_run(void *addr, size_t len, long advice)
{
	return madvise(addr, len, advice);
}

/*
 * The child shares the second half of each THP, and the first is the parent's alone.
 * When all of it is read-only, nothing but PageAnonExclusive tells one PTE from the
 * other.  What the parent writes after a migration, the child does not see.  Stock
 * passes.
 */
TEST_F(forked_thp, shared_stays_shared)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	unsigned int i, n;

	if (!build(_metadata, env, PTHP_ALL))
		return;
	n = 1u << r->order;
	for (i = 0; i < r->nr; i++)
		r->mapped[i] = pthp_shape_maps(PTHP_LAST_HALF, i % n, n, 0, 0);
	ASSERT_EQ(0, pthp_walk_runs(r, false, advise_run, MADV_DONTFORK));
	ASSERT_TRUE(spawn(&self->child, env));
	ASSERT_EQ(0, pthp_walk_runs(r, false, advise_run, MADV_DOFORK));
	for (i = 0; i < r->nr; i++)
		r->mapped[i] = true;
	ASSERT_EQ(0, mprotect(r->mem, pthp_len(r), PROT_READ));
	EXPECT_EQ(0, move_to(r, env->dst));
	EXPECT_EQ(r->nr, pthp_on_node(r, env->dst));
	EXPECT_TRUE(pthp_intact(r));

	ASSERT_EQ(0, mprotect(r->mem, pthp_len(r), PROT_READ | PROT_WRITE));
	r->seed++;
	for (i = 0; i < r->nr; i++)
		pthp_fill(r, i);
	EXPECT_TRUE(pthp_intact(r));
	child_is_intact(_metadata, &self->child);
}

/* ---- what others feel ---- */

FIXTURE(partial_thp_cost)
{
	struct env env;
};

FIXTURE_SETUP(partial_thp_cost)
{
	test_setup_nodes(_metadata, &self->env.src, &self->env.dst);
}

FIXTURE_TEARDOWN(partial_thp_cost)
{
	env_teardown(&self->env);
}

/* Enough to use up what the page allocator has in pieces and in no order */
#define SMALL_LEN (64ul << 20)

/*
 * The pages of a THP that was split are as much in physical order as before.
 * Stock passes, as it does not split.  On 6.12 they are in reverse order.
 *
 * Needs: mm/migrate: split folios that wait to be split
 */
TEST_F(partial_thp_cost, pages_in_order)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	char *small;

	/* What is used up below is this CPU's. */
	ASSERT_TRUE(pthp_run_on(sched_getcpu()));
	if (!build(_metadata, env, PTHP_FIRST_HALF))
		return;
	small = mmap(NULL, SMALL_LEN, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, small);
	ASSERT_EQ(0, madvise(small, SMALL_LEN, MADV_NOHUGEPAGE));
	ASSERT_EQ(0, pthp_mbind(small, SMALL_LEN, env->dst, 0));
	memset(small, 1, SMALL_LEN);
	EXPECT_EQ(0, move_to(r, env->dst));
	munmap(small, SMALL_LEN);
	EXPECT_EQ(r->nr_mapped, pthp_on_node(r, env->dst));
	EXPECT_TRUE(ascending(_metadata, r, "first half"));
}

/*
 * A pinned THP is recognised without an attempt to split it.  Stock passes.  6.12 tries
 * to split it.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(partial_thp_cost, pinned_is_seen)
{
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	int pipefd[2];
	long failed;

	if (!build(_metadata, env, PTHP_FIRST_HALF))
		return;
	ASSERT_TRUE(pin(r, pipefd));
	failed = counter("thp_split_page_failed");
	EXPECT_EQ(0, move_to(r, env->dst));
	EXPECT_EQ(failed, counter("thp_split_page_failed"));
	EXPECT_EQ(r->nr_mapped, pthp_on_node(r, env->src));
	EXPECT_TRUE(pthp_intact(r));
	pthp_unpin(pipefd);
}

/* TLB shootdowns that CPU 1 was interrupted for, or -1 */
static long shootdowns(void)
{
	FILE *f = fopen("/proc/interrupts", "r");
	char line[4096];
	long n = -1;

	while (f && fgets(line, sizeof(line), f))
		sscanf(line, " TLB: %*d %ld", &n);
	if (f)
		fclose(f);
	return n;
}

static bool spinning, stop;

static void *spin(void *arg)
{
	__atomic_store_n(&spinning, pthp_run_on(1), __ATOMIC_RELEASE);
	while (!__atomic_load_n(&stop, __ATOMIC_ACQUIRE))
		;
	return NULL;
}

/* What stock takes, at the most */
static long shootdowns_allowed(enum pthp_shape shape, unsigned int nr_mapped)
{
	if (shape == PTHP_ALL)
		return NR_THPS;
#ifdef HAVE_MIGRATE_BATCH
	return 2 * NR_THPS;
#else
	return nr_mapped;
#endif
}

/*
 * There are at most as many TLB shootdowns as mapped pages.  Where the pages of a THP
 * are unmapped together, there are at most two for each THP: one for the split and one
 * for the migration.  Stock passes.
 *
 * Needs: mm/huge_memory: flush the TLB once
 * Needs: mm/migrate: flush the TLB for a split
 */
TEST_F(partial_thp_cost, one_flush_a_page)
{
	static const enum pthp_shape shapes[] = {
		PTHP_ALL, PTHP_ONE_PAGE, PTHP_FIRST_HALF, PTHP_ALTERNATE,
	};
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	pthread_t thread;
	unsigned int i;
	long n = 0;

	requires(return, shootdowns() >= 0 && pthp_run_on(0), "TLB shootdowns are not counted");
	requires(return, !pthread_create(&thread, NULL, spin, NULL), "no second thread");
	for (i = 0; i < 6000 && !__atomic_load_n(&spinning, __ATOMIC_ACQUIRE); i++)
		usleep(10000);
	if (!spinning) {
		__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
		pthread_join(thread, NULL);
		SKIP(return, "no second CPU");
	}
	for (i = 0; i < sizeof(shapes) / sizeof(*shapes); i++) {
		pthp_free(r);
		if (!build(_metadata, env, shapes[i]))
			break;
		n = shootdowns();
		EXPECT_EQ(0, move_to(r, env->dst));
		n = shootdowns() - n;
		TH_LOG("%s: %u pages, %ld shootdowns", pthp_shape_names[shapes[i]],
		       r->nr_mapped, n);
		EXPECT_EQ(r->nr_mapped, pthp_on_node(r, env->dst));
		if (!i && !n)
			break;
		/* mbind(2) drains the LRU caches of all CPUs: that is none */
		EXPECT_GE(shootdowns_allowed(shapes[i], r->nr_mapped) + 3, n);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	requires(return, i || n, "TLB flushes interrupt no CPU");
}

#ifndef HAVE_MBIND_FOLIO
static void touch(const char *mem, size_t len)
{
	size_t i;

	for (i = 0; i < len; i += psize())
		asm volatile("" : : "r" (mem[i]));
}

/* The child maps what we map, and moves it if told to, as an ordinary user. */
static int other(char *mem, size_t len, int fd, int node, int ready, int go)
{
	char c = 0;

	touch(mem, len);
	if (setresuid(1000, 1000, 1000) || write(ready, &c, 1) != 1 ||
	    read(go, &c, 1) != 1)
		return 1;
	return c == 'm' && pthp_mbind(mem, len, node, MPOL_MF_MOVE) ? 2 : 0;
}

/*
 * A THP of shared memory has a first page that nobody maps.  A process can move it only
 * if no other process maps it any more.  Stock lets nobody move it.  Later kernels go
 * by other rules.
 *
 * Needs: mm/mempolicy: move partially mapped THPs without
 */
TEST_F(partial_thp_cost, shared_without_first)
{
	size_t pmd = read_pmd_pagesize(), len = pmd - psize();
	char *mem, *thp;
	int fd, ready[2], go[2], i, status, src, pid;
	struct env *env = &self->env;
	char c[2] = { 'm', 'x' };

	requires(return, pthp_set(PTHP_THP "shmem_enabled", "advise"),
		 "no THPs of shared memory");
	fd = memfd_create("partial_thp", 0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, ftruncate(fd, pmd));
	ASSERT_EQ(0, pthp_prefer_node(env->src));

	mem = mmap(NULL, 2 * pmd, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	thp = (char *)(((uintptr_t)mem + pmd - 1) & ~(pmd - 1));
	ASSERT_EQ(thp, mmap(thp, pmd, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, fd, 0));
	madvise(thp, pmd, MADV_HUGEPAGE);
	memset(thp, 1, pmd);
	requires(return, check_huge_shmem(thp, 1, pmd), "no THP of shared memory to be had");

	/* Not the first page: so nobody can map it by a PMD. */
	munmap(thp, pmd);
	mem = thp + psize();
	ASSERT_EQ(mem, mmap(mem, len, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, fd, psize()));
	touch(mem, len);
	src = pthp_node_of(mem);
	ASSERT_LE(0, src);
	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(go));
	for (i = 0; i < 2; i++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			/* It ends if the test does. */
			close(go[1]);
			_exit(other(mem, len, fd, src == env->dst ? env->src :
				    env->dst, ready[1], go[0]));
		}
		ASSERT_EQ(1, read(ready[0], &c[1], 1));
	}
	ASSERT_EQ(1, write(go[1], "m", 1));
	EXPECT_LT(0, wait(&status));
	EXPECT_EQ(0, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	EXPECT_EQ(src, pthp_node_of(mem));
	ASSERT_EQ(1, write(go[1], "x", 1));
	EXPECT_LT(0, wait(&status));

	/* Nobody else maps it any more: it is ours to move. */
	EXPECT_EQ(0, pthp_mbind(mem, len, src == env->dst ? env->src : env->dst,
				MPOL_MF_MOVE));
	EXPECT_NE(src, pthp_node_of(mem));
	EXPECT_EQ(1, *mem);
	munmap(mem, len);
	close(fd);
}

#endif
TEST_HARNESS_MAIN
