// SPDX-License-Identifier: GPL-2.0
/*
 * Migration of a partially mapped THP against one other thing at a time.
 *
 * Each round makes a THP, writes to its first pages and unmaps the others, which
 * puts it on the deferred split queue.  Then two threads start at the same moment:
 * one migrates the THP, which splits it first, the other one does what the variant
 * is named after.  Afterwards each page has to have the contents it should have.
 *
 * A run shows something only if both happened, and at the same time, often enough.
 * So each variant has a number of rounds that it takes at least, however slow the
 * machine is; and one in eight has to have seen both at work at once.
 *
 * The split and the migration are in migrate_folio_split_deferred() and
 * migrate_pages_batch(), or migrate_pages() on 6.1.  They race with
 *	fault - do_anonymous_page(), in a hole of the THP
 *	read - do_swap_page() and migration_entry_wait()
 *	zap - zap_pte_range(), of pages and of migration entries
 *	fork - copy_nonpresent_pte(), and exit_mmap() of the child
 *	mprotect - change_pte_range(), of migration entries
 *	gup - references by vmsplice(2), so that the split may fail
 *	split - split_huge_page() from outside
 *	shrinker - deferred_split_scan()
 *	migrate - the same THP, by another thread
 *	cgroup - the removal of the memory cgroup whose queue the THP is on
 *
 * Each of them runs for a fifth of PARTIAL_THP_SECONDS (2 s).
 */
#include "../kselftest_harness.h"

#include <pthread.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#include "partial_thp_test.h"

/* Emulators with a debug kernel are slow. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 3600

#define SPLIT_FILE	"/sys/kernel/debug/split_huge_pages"
#define CGROUP		"/sys/fs/cgroup"

/* Pages of each THP that stay mapped at first */
#define NR_PAGES	8
#define SMALL		(64UL << 10)

struct race {
	char *mem;			/* a THP's worth */
	size_t thp, len;		/* of a THP, of this round's folio */
	bool small;			/* there are folios of 64 KiB */
	int nodes[2];
	unsigned int round;
	bool stop;
	pthread_barrier_t start, end;
	bool migrating;			/* now */
	unsigned long together, moved, refused, done;
	unsigned long bad;		/* pages the opponent saw something else in */
	unsigned int seed;
	int pipefd[2];
	int split;			/* /sys/kernel/debug/split_huge_pages */
	char cgroup[96];
	bool gone[NR_PAGES];		/* the opponent unmapped it */
};

/* What is in the page at @page in this round */
static uint64_t stamp(const struct race *r, unsigned int page)
{
	return pthp_mix(((uint64_t)r->round << 16) + page + 1);
}

static char *page_at(const struct race *r, unsigned int page)
{
	return r->mem + page * psize();
}

static uint64_t read_page(const struct race *r, unsigned int page)
{
	return __atomic_load_n((uint64_t *)page_at(r, page), __ATOMIC_RELAXED);
}

static void write_page(const struct race *r, unsigned int page)
{
	__atomic_store_n((uint64_t *)page_at(r, page), stamp(r, page),
			 __ATOMIC_RELAXED);
}

/* ---- the opponents: true if they did what they are for ---- */

static bool fault(struct race *r)
{
	unsigned int i;

	for (i = NR_PAGES; i < 2 * NR_PAGES; i++)
		write_page(r, i);
	return true;
}

static bool read_all(struct race *r)
{
	unsigned int i, n;

	for (n = 0; n < 8; n++) {
		for (i = 0; i < NR_PAGES; i++)
			r->bad += read_page(r, i) != stamp(r, i);
	}
	return true;
}

static bool zap(struct race *r)
{
	unsigned int i;

	for (i = 0; i < NR_PAGES; i += 2) {
		r->gone[i] = true;
		if (madvise(page_at(r, i), psize(), MADV_DONTNEED))
			return false;
	}
	return true;
}

static bool fork_and_exit(struct race *r)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return false;
	if (!pid) {
		read_all(r);
		_exit(!!r->bad);
	}
	if (waitpid(pid, &status, 0) != pid)
		return false;
	r->bad += status != 0;
	return true;
}

static bool change_protection(struct race *r)
{
	unsigned int i;

	for (i = 0; i < NR_PAGES; i++) {
		if (mprotect(page_at(r, i), psize(), PROT_READ) ||
		    mprotect(page_at(r, i), psize(), PROT_READ | PROT_WRITE))
			return false;
	}
	return true;
}

static bool take_references(struct race *r)
{
	struct iovec iov = { .iov_base = r->mem, .iov_len = NR_PAGES * psize() };
	static char sink[NR_PAGES * 4096];
	ssize_t len = vmsplice(r->pipefd[1], &iov, 1, SPLICE_F_NONBLOCK);

	while (len > 0) {
		ssize_t n = read(r->pipefd[0], sink,
				 len < (ssize_t)sizeof(sink) ? len : (ssize_t)sizeof(sink));

		if (n <= 0)
			return false;
		len -= n;
	}
	return !len;
}

static bool split_from_outside(struct race *r)
{
	char line[64];
	int len = snprintf(line, sizeof(line), "%d,%#lx,%#lx", getpid(),
			   (unsigned long)r->mem, (unsigned long)r->mem + r->len);

	return pwrite(r->split, line, len, 0) == len;
}

static bool shrink(struct race *r)
{
	return pthp_put(PTHP_DROP_CACHES, "2");
}

static long move_to(struct race *r, int node)
{
	void *addrs[NR_PAGES];
	int nodes[NR_PAGES], status[NR_PAGES];
	unsigned int i, moved = 0;

	for (i = 0; i < NR_PAGES; i++) {
		addrs[i] = page_at(r, i);
		nodes[i] = node;
		status[i] = -1;
	}
	if (syscall(__NR_move_pages, 0, NR_PAGES, addrs, nodes, status,
		    MPOL_MF_MOVE_ALL) < 0)
		return -1;
	for (i = 0; i < NR_PAGES; i++)
		moved += status[i] == node;
	return moved;
}

static bool migrate_too(struct race *r)
{
	return move_to(r, r->nodes[0]) >= 0;
}

/* Leave the cgroup, which keeps its charges, and remove it. */
static bool remove_cgroup(struct race *r)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/cgroup.procs", CGROUP);
	return pthp_put(path, "0") && !rmdir(r->cgroup);
}

static bool enter_cgroup(struct race *r)
{
	char path[128];

	snprintf(r->cgroup, sizeof(r->cgroup), "%s/partial_thp_race.%d", CGROUP,
		 r->round % 4);
	snprintf(path, sizeof(path), "%s/cgroup.procs", r->cgroup);
	return !mkdir(r->cgroup, 0755) && pthp_put(path, "0");
}

/* ---- the race ---- */

FIXTURE(partial_thp_race) {
	struct race r;
};

FIXTURE_VARIANT(partial_thp_race) {
	bool (*opponent)(struct race *r);
	bool (*prepare)(struct race *r);
	unsigned int rounds;		/* at least */
};

FIXTURE_VARIANT_ADD(partial_thp_race, fault) {
	.opponent = fault, .rounds = 200,
};

FIXTURE_VARIANT_ADD(partial_thp_race, read) {
	.opponent = read_all, .rounds = 200,
};

FIXTURE_VARIANT_ADD(partial_thp_race, zap) {
	.opponent = zap, .rounds = 200,
};

FIXTURE_VARIANT_ADD(partial_thp_race, fork) {
	.opponent = fork_and_exit, .rounds = 100,
};

FIXTURE_VARIANT_ADD(partial_thp_race, mprotect) {
	.opponent = change_protection, .rounds = 200,
};

FIXTURE_VARIANT_ADD(partial_thp_race, gup) {
	.opponent = take_references, .rounds = 200,
};

FIXTURE_VARIANT_ADD(partial_thp_race, split) {
	.opponent = split_from_outside, .rounds = 200,
};

FIXTURE_VARIANT_ADD(partial_thp_race, shrinker) {
	.opponent = shrink, .rounds = 50,
};

FIXTURE_VARIANT_ADD(partial_thp_race, migrate) {
	.opponent = migrate_too, .rounds = 200,
};

FIXTURE_VARIANT_ADD(partial_thp_race, cgroup) {
	.opponent = remove_cgroup, .prepare = enter_cgroup, .rounds = 20,
};

FIXTURE_SETUP(partial_thp_race)
{
	struct race *r = &self->r;
	char *mem;

	memset(self, 0, sizeof(*self));
	if (!test_setup_nodes(_metadata, &r->nodes[0], &r->nodes[1]))
		return;
	r->split = open(SPLIT_FILE, O_WRONLY);
	setup_requires(return, variant->opponent != split_from_outside || r->split >= 0,
		       "no " SPLIT_FILE);
	/* With it, a new cgroup has a queue of its own. */
	setup_requires(return, !variant->prepare ||
		       pthp_put(CGROUP "/cgroup.subtree_control", "+memory"),
		       "no memory controller for cgroup v2");

	r->thp = read_pmd_pagesize();
	mem = mmap(NULL, 2 * r->thp, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	r->mem = (char *)(((uintptr_t)mem + r->thp - 1) & ~(r->thp - 1));
	r->small = psize() == 4096 &&
		   pthp_set(PTHP_THP "hugepages-64kB/enabled", "madvise");
	ASSERT_EQ(0, pthp_prefer_node(r->nodes[0]));
	ASSERT_EQ(0, pipe2(r->pipefd, O_NONBLOCK));
	/* 4: it does not write to the console from now on */
	pthp_put(PTHP_DROP_CACHES, "4");
	r->seed = time(NULL);
}

FIXTURE_TEARDOWN(partial_thp_race)
{
	pthp_restore();
	if (self->r.mem)
		munmap(self->r.mem, self->r.thp);
}

/* Not at the same moment of the other thread's work each time */
static void dither(unsigned int *seed)
{
	unsigned int n = rand_r(seed) % 4096;

	while (n--)
		__asm__ __volatile__("" ::: "memory");
}

struct opponent {
	struct race *r;
	bool (*run)(struct race *r);
};

static void *opponent(void *arg)
{
	struct opponent *o = arg;
	struct race *r = o->r;
	unsigned int seed = r->seed + 1;
	bool first, done;

	for (;;) {
		pthread_barrier_wait(&r->start);
		if (r->stop)
			return NULL;
		dither(&seed);
		first = __atomic_load_n(&r->migrating, __ATOMIC_ACQUIRE);
		done = o->run(r);
		if (first || __atomic_load_n(&r->migrating, __ATOMIC_ACQUIRE))
			r->together++;
		r->done += done;
		pthread_barrier_wait(&r->end);
	}
}

/*
 * Has the test shown something?  Where there is nothing left to split, or to take a
 * reference on, the opponent fails; and so does migration, where the folio is in use.
 */
static bool enough(const struct race *r, unsigned int rounds)
{
	return r->round >= rounds && r->together >= rounds / 8 &&
	       r->moved >= rounds / 8 && r->done >= rounds / 8;
}

/*
 * A folio of which NR_PAGES pages are mapped: a THP, or mostly one of 64 KiB where
 * there are any, as an emulator takes milliseconds to clear a THP.  It takes a new
 * mapping to get one.
 */
static bool make_folio(struct race *r)
{
	unsigned int i;

	memset(r->gone, 0, sizeof(r->gone));
	r->len = r->small && r->round % 8 ? SMALL : r->thp;
	if (mmap(r->mem, r->thp, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		 MAP_NORESERVE | MAP_FIXED, -1, 0) != r->mem ||
	    mprotect(r->mem, r->len, PROT_READ | PROT_WRITE) ||
	    madvise(r->mem, r->len, MADV_HUGEPAGE))
		return false;
	for (i = 0; i < NR_PAGES; i++)
		write_page(r, i);
	return !madvise(page_at(r, NR_PAGES), r->len - NR_PAGES * psize(),
			MADV_DONTNEED);
}

static unsigned int wrong_pages(const struct race *r, bool filled)
{
	unsigned int i, bad = 0;

	for (i = 0; i < 3 * NR_PAGES && i < r->len / psize(); i++) {
		uint64_t want = 0;

		if ((i < NR_PAGES && !r->gone[i]) ||
		    (filled && i >= NR_PAGES && i < 2 * NR_PAGES))
			want = stamp(r, i);
		bad += read_page(r, i) != want;
	}
	return bad;
}

/* in seconds, for a slow machine */
#define PATIENCE 120

TEST_F(partial_thp_race, contents)
{
	const char *env = getenv("PARTIAL_THP_SECONDS");
	unsigned int seconds = env ? strtoul(env, NULL, 0) / 5 : 2;
	struct opponent o = { .r = &self->r, .run = variant->opponent };
	struct pthp_vmstat before, d;
	struct race *r = &self->r;
	struct timespec now, then;
	pthread_t thread;
	double passed;
	long moved;

	pthread_barrier_init(&r->start, NULL, 2);
	pthread_barrier_init(&r->end, NULL, 2);
	ASSERT_EQ(0, pthread_create(&thread, NULL, opponent, &o));
	ASSERT_TRUE(pthp_vmstat_read(&before));
	clock_gettime(CLOCK_MONOTONIC, &then);
	do {
		r->round++;
		if (variant->prepare)
			ASSERT_TRUE(variant->prepare(r));
		ASSERT_TRUE(make_folio(r));
		pthread_barrier_wait(&r->start);
		__atomic_store_n(&r->migrating, true, __ATOMIC_RELEASE);
		dither(&r->seed);
		moved = move_to(r, r->nodes[1]);
		__atomic_store_n(&r->migrating, false, __ATOMIC_RELEASE);
		pthread_barrier_wait(&r->end);
		if (moved > 0)
			r->moved++;
		else
			r->refused++;
		ASSERT_EQ(0, r->bad) {
			TH_LOG("round %u", r->round);
		}
		ASSERT_EQ(0, wrong_pages(r, variant->opponent == fault)) {
			TH_LOG("round %u", r->round);
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		passed = now.tv_sec - then.tv_sec + (now.tv_nsec - then.tv_nsec) / 1e9;
	} while (passed < (seconds ?: 1) ||
		 (!enough(r, variant->rounds) && passed < PATIENCE));
	r->stop = true;
	pthread_barrier_wait(&r->start);
	pthread_join(thread, NULL);

	ASSERT_TRUE(pthp_vmstat_read(&d));
	pthp_vmstat_sub(&d, &before);
	TH_LOG("%u rounds, %.0f a second; %lu at the same time; moved %lu, not %lu",
	       r->round, r->round / passed, r->together, r->moved, r->refused);
	TH_LOG("THPs split in migration %ld, in all %ld",
	       d.v[PTHP_THP_MIGRATION_SPLIT], d.v[PTHP_THP_SPLIT_PAGE]);
	EXPECT_TRUE(enough(r, variant->rounds));
	/* At least one round in eight has a THP. */
	EXPECT_LE(r->round / 8, d.v[PTHP_THP_DEFERRED_SPLIT_PAGE]);
	EXPECT_LT(0, d.v[PTHP_THP_SPLIT_PAGE]);
	if (variant->opponent != split_from_outside && variant->opponent != shrink)
		EXPECT_LT(0, d.v[PTHP_THP_MIGRATION_SPLIT]);
}

TEST_HARNESS_MAIN
