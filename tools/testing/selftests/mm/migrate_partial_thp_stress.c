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
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "partial_thp_stress.h"
#include "partial_thp_test.h"

/* It runs for as long as it is told to. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT 7200

#define SWAP_BYTES	(96ul << 20)
#define MAX_THP_BYTES	(32ul << 20)

#define CGROUPFS	"/sys/fs/cgroup/"
#define DEBUGFS		"/sys/kernel/debug/"

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

struct world *world;

FIXTURE(partial_thp_stress)
{
	unsigned int seconds;
	bool swap;			/* ours */
};

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

static void swap_setup(FIXTURE_DATA(partial_thp_stress) * self)
{
	const char *why;

	if (have_swap())
		return;
	why = pthp_swap_on(SWAP_BYTES);
	if (why)
		leave_out(PAGEOUT, why);
	self->swap = !why;
}

static void swap_teardown(FIXTURE_DATA(partial_thp_stress) * self)
{
	if (self->swap && !pthp_swap_off())
		say("# cannot take swap off zram0\n");
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
	int uffd;

	if (pthp_uffd_open(&uffd))
		leave_out(UFFD_WP, "no userfaultfd with write protection");
	else
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
	unsigned int i;

	memset(self, 0, sizeof(*self));
	world = mmap(NULL, sizeof(*world), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, world);

	if (!test_setup_nodes(_metadata, &world->nodes[0], &world->nodes[1]))
		return;
	setup_requires(return, read_pmd_pagesize() <= MAX_THP_BYTES,
		       "THPs are too large to have many");

	ASSERT_EQ(0, pthread_rwlockattr_init(&attr));
	pthread_rwlockattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	for (i = 0; i < NR_OWNERS; i++)
		ASSERT_EQ(0, pthread_rwlock_init(&world->pins_longterm[i], &attr));

	self->seconds = seconds ? strtoul(seconds, NULL, 0) : 10;
	if (!self->seconds)
		self->seconds = 1;
	world->seed = seed ? strtoul(seed, NULL, 0) : time(NULL) ^ getpid();
	world->seed &= INT32_MAX;
	TH_LOG("PARTIAL_THP_SEED=%u PARTIAL_THP_SECONDS=%u", world->seed,
	       self->seconds);

	if (access(PTHP_COMPACT, W_OK))
		leave_out(COMPACT_ALL, "no " PTHP_COMPACT);
	/* 4: it does not write to the console from now on */
	if (!pthp_put(PTHP_DROP_CACHES, "4"))
		leave_out(SHRINK, "no " PTHP_DROP_CACHES);
	if (madvise(NULL, 0, MADV_COLLAPSE))
		leave_out(COLLAPSE, "no MADV_COLLAPSE");
	if (!pthp_set(PTHP_KSM "run", "1"))
		leave_out(KSM, "no " PTHP_KSM);
	pthp_set(PTHP_KSM "sleep_millisecs", "20");
	pthp_set(PTHP_KSM "pages_to_scan", "100");
	pthp_set(PTHP_THP "hugepages-64kB/enabled", "madvise");
	/* the shrinker splits underused THPs, too */
	pthp_set(PTHP_THP "khugepaged/max_ptes_none", "255");
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
	for (i = 0; *world->cgroup && i < 4; i++)
		rmdir(cgroup_file(path, sizeof(path), 2 - (int)i, ""));
	pthp_restore();
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

static bool levels_differ(const struct levels *l, const struct levels *before)
{
	unsigned int order;

	for (order = 0; order <= PTHP_MAX_ORDER; order++) {
		if (l->anon[order] > before->anon[order] ||
		    l->partial[order] > before->partial[order])
			return true;
	}
	return l->isolated != before->isolated;
}

/* Have per-CPU lists and counters given up. */
static void settle(void)
{
	pthp_put(PTHP_COMPACT, "1");
	pthp_put(PTHP_DROP_CACHES, "3");
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
	} while (levels_differ(&now, before) && ++i < PATIENCE);

	EXPECT_EQ(before->isolated, now.isolated) {
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
	EXPECT_TRUE(pthp_drop_cgroups(cgroup_file(path, sizeof(path), i, "")));
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

enum event {
	QUEUED,
	MIGRATED,
	SPLIT,
	FAILED,
	REFUSALS,
	SPLIT_BY_OTHERS,
	NR_EVENTS
};

/* So much has to happen in ten seconds, or the test shows nothing. */
static const struct {
	const char *what;
	long floor;
} events[NR_EVENTS] = {
	[QUEUED]	  = { "thp_deferred_split_page", 2 },
	[MIGRATED]	  = { "pgmigrate_success", 2000 },
	[SPLIT]		  = { "thp_migration_split", 1 },
	[FAILED]	  = { "thp_migration_fail", 2 },
	[REFUSALS]	  = { "folios refused by the system calls", 10 },
	[SPLIT_BY_OTHERS] = { "THPs split by others, mostly the shrinker", 1 },
};

static long floor_of(enum event e, unsigned int seconds)
{
	/* None at all will do. */
	if (e == SPLIT_BY_OTHERS && world->left_out[SHRINK])
		return 0;
	return events[e].floor * seconds / 10;
}

static void count_events(const struct pthp_vmstat *d, long n[NR_EVENTS])
{
	n[QUEUED] = d->v[PTHP_THP_DEFERRED_SPLIT_PAGE];
	n[MIGRATED] = d->v[PTHP_PGMIGRATE_SUCCESS];
	n[SPLIT] = d->v[PTHP_THP_MIGRATION_SPLIT];
	n[FAILED] = d->v[PTHP_THP_MIGRATION_FAIL];
	n[REFUSALS] = world->ops[REFUSED];
	n[SPLIT_BY_OTHERS] = d->v[PTHP_THP_SPLIT_PAGE] - n[SPLIT];
}

/* Has one more happened of everything than has to? */
static bool enough(const struct pthp_vmstat *before, unsigned int seconds)
{
	struct pthp_vmstat d;
	long n[NR_EVENTS];
	enum event e;

	if (!pthp_vmstat_read(&d))
		return true;
	pthp_vmstat_sub(&d, before);
	count_events(&d, n);
	for (e = 0; e < NR_EVENTS; e++)
		if (n[e] <= floor_of(e, seconds))
			return false;
	return true;
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
	long n[NR_EVENTS];
	enum event e;
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
	pthp_get(PTHP_KSM "pages_sharing", merged, sizeof(merged));
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

	count_events(&d, n);
	for (e = 0; e < NR_EVENTS; e++) {
		TH_LOG("%s: %ld, %ld.%ld a second", events[e].what, n[e],
		       n[e] / self->seconds, n[e] * 10 / self->seconds % 10);
		EXPECT_LE(floor_of(e, self->seconds), n[e]) {
			TH_LOG("%s is too rare for the test to show anything",
			       events[e].what);
		}
	}

	swap_teardown(self);
	expect_levels(_metadata, &levels);
	expect_cgroups_gone(_metadata);
}

/* All of it for PARTIAL_THP_SECONDS, 10 unless told.  Stock passes. */
TEST_F(partial_thp_stress, race)
{
	run(_metadata, self);
}

/*
 * And allocations fail in the threads that migrate: destinations, page tables, slab
 * objects.  Needs fault injection.
 */
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

	requires(return, !access(DEBUGFS "fail_page_alloc", F_OK) &&
		 !access(DEBUGFS "failslab", F_OK) &&
		 !access("/proc/thread-self/make-it-fail", W_OK),
		 "no fault injection for page and slab allocations");
	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		snprintf(path, sizeof(path), DEBUGFS "%s", knobs[i][0]);
		ASSERT_TRUE(pthp_set(path, knobs[i][1])) {
			TH_LOG("cannot set %s", path);
		}
	}
	world->failing = true;
	run(_metadata, self);
}

TEST_HARNESS_MAIN
