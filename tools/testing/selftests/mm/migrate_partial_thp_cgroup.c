// SPDX-License-Identifier: GPL-2.0
/*
 * Partially mapped THPs and the memory cgroup on whose queue they wait to be split: it
 * may go away, and with cgroup v1 their charge may move to another one.
 */
#include "../kselftest_harness.h"

#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "migrate_partial_thp.h"

#define CGROUP2		"/sys/fs/cgroup/"
#define CGROUP2_CONTROL	CGROUP2 "cgroup.subtree_control"

FIXTURE(partial_thp_cgroup)
{
	struct env env;
};

FIXTURE_SETUP(partial_thp_cgroup)
{
	env_setup(_metadata, &self->env, PTHP_MOVE_PAGES);
}

FIXTURE_TEARDOWN(partial_thp_cgroup)
{
	env_teardown(&self->env);
	/* if the test has not come that far */
	pthp_put(CGROUP2 "cgroup.procs", "0");
	rmdir(CGROUP2 "partial_thp/inner");
	rmdir(CGROUP2 "partial_thp");
}

/* ---- charges that move, with cgroup v1 ---- */

static char *v1_file(char *buf, size_t size, const char *dir, char group,
		     const char *name)
{
	snprintf(buf, size, "%s/partial_thp.%c/%s", dir, group, name);
	return buf;
}

/* How many memory cgroups are there, those included that were removed and are in use? */
static int v1_cgroups(void)
{
	char buf[1024], *line;
	int nr = 0;

	if (pthp_get("/proc/cgroups", buf, sizeof(buf))) {
		line = strstr(buf, "\nmemory\t");
		if (line)
			sscanf(line, " memory %*d %d", &nr);
	}
	return nr;
}

/*
 * Have the first of the THPs that our parent maps by PMDs wait to be split, if that
 * can be.  A page that we unmap is not noticed as long as PG_double_map is set.  A
 * migration clears it, and stock does not set it again.
 */
static bool queue_first(struct env *env)
{
	struct pthp *r = &env->r;

	return pthp_map_by_ptes(r) &&
	       !pthp_migrate(r, PTHP_MOVE_PAGES, env->src, env->dst) &&
	       !madvise(r->mem, read_pmd_pagesize() / 2, MADV_DONTNEED);
}

/*
 * Take three THPs along from cgroup a to cgroup b.  All are shared with a child that
 * stays.  If the first one waits to be split, its charge has to stay, too.
 */
static int change_cgroup(struct env *env, const char *dir)
{
	size_t pmd = read_pmd_pagesize();
	struct pthp *r = &env->r;
	int fds[2], status = 2, tries, i;
	long huge[2], queued, stay;
	char path[128];
	char ready;
	pid_t child;

	if (!pthp_put(v1_file(path, sizeof(path), dir, 'a', "cgroup.procs"), "0"))
		return 2;
	if (pthp_alloc(r, 3, env->order, env->src, env->seed) || pipe(fds))
		return 2;
	queued = pthp_get_named("/proc/vmstat", "thp_deferred_split_page");
	child = fork();
	if (!child) {
		close(fds[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		ready = queue_first(env);
		if (write(fds[1], &ready, 1) == 1)
			pause();
		_exit(0);
	}
	close(fds[1]);
	if (read(fds[0], &ready, 1) == 1 && ready &&
	    check_huge_anon(r->mem, 3, pmd))
		status = 0;
	stay = pthp_get_named("/proc/vmstat", "thp_deferred_split_page") > queued;

	if (!pthp_put(v1_file(path, sizeof(path), dir, 'b', "cgroup.procs"), "0"))
		status = 2;
	/* The statistics may be two seconds old. */
	for (tries = 0; tries < 100; tries++) {
		for (i = 0; i < 2; i++) {
			v1_file(path, sizeof(path), dir, 'a' + i, "memory.stat");
			huge[i] = pthp_get_named(path, "rss_huge");
		}
		if (huge[0] == stay * (long)pmd &&
		    huge[1] == (3 - stay) * (long)pmd)
			break;
		usleep(50000);
	}
	if (tries == 100) {
		fprintf(stderr, "# %ld bytes of THPs stayed, %ld moved\n", huge[0],
			huge[1]);
		status = status ?: 3;
	}
	if (child > 0) {
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
	}
	return status;
}

/*
 * A task that changes cgroups, with cgroup v1, does not take the charge of a THP
 * along that waits to be split, as the queue is that of the cgroup.  Stock does,
 * and may use the queue after it was freed.  With the whole series, only a race queues
 * a THP that is mapped by PMD.
 *
 * Needs at times: mm/memcg: do not take a THP's memcg away
 */
TEST_F(partial_thp_cgroup, moved_charge)
{
	char dir[] = "/tmp/partial_thp.XXXXXX", path[128], group;
	bool v2 = pthp_get(CGROUP2_CONTROL, path, sizeof(path)) &&
		  strstr(path, "memory");
	struct env *env = &self->env;
	int status = -1, tries, nr;
	pid_t pid;

	ASSERT_TRUE(!!mkdtemp(dir));
	if (mount("cgroup", dir, "cgroup", 0, "memory")) {
		rmdir(dir);
		SKIP(return, "no memory controller for cgroup v1");
	}
	nr = v1_cgroups();
	for (group = 'a'; group <= 'b'; group++)
		mkdir(v1_file(path, sizeof(path), dir, group, ""), 0755);
	/* Not to a: what is shared with us stays where it is. */
	v1_file(path, sizeof(path), dir, 'b', "memory.move_charge_at_immigrate");
	EXPECT_TRUE(pthp_put(path, "1"));
	pid = fork();
	if (!pid)
		_exit(change_cgroup(env, dir));
	EXPECT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, WIFEXITED(status) ? WEXITSTATUS(status) : -1);

	for (group = 'a'; group <= 'b'; group++) {
		v1_file(path, sizeof(path), dir, group, "memory.force_empty");
		pthp_put(path, "0");
		EXPECT_EQ(0, rmdir(v1_file(path, sizeof(path), dir, group, "")));
	}
	EXPECT_TRUE(pthp_drop_cgroups(v1_file(path, sizeof(path), dir, group, "")));
	/* umount(2) gives the controller back, but not if there are cgroups left. */
	for (tries = 0; v1_cgroups() > nr && tries < 3000; tries++)
		usleep(20000);
	EXPECT_GE(nr, v1_cgroups());
	EXPECT_EQ(0, umount(dir));
	for (tries = 0; v2 && !pthp_put(CGROUP2_CONTROL, "+memory"); tries++) {
		ASSERT_LT(tries, 3000) TH_LOG("cgroup v2 has no memory controller");
		usleep(20000);
	}
	rmdir(dir);
}

/* ---- a cgroup that is removed ---- */

static void cgroup_dir(struct __test_metadata *_metadata, const char *dir,
		       bool make)
{
	int tries;

	for (tries = 0; tries < 100; tries++) {
		if (!(make ? mkdir(dir, 0755) : rmdir(dir)))
			return;
		usleep(20000);
	}
	ASSERT_TRUE(false) TH_LOG("%s: %s", dir, strerror(errno));
}

/*
 * Is the root the first of its cgroups that is still there?  One that was removed goes
 * away some time after rmdir(2).
 */
static bool charged_to_root(unsigned long pfn)
{
	int fd = open("/proc/kpagecgroup", O_RDONLY);
	struct stat root;
	uint64_t ino = 0;
	bool known;

	known = pread(fd, &ino, sizeof(ino), pfn * sizeof(ino)) == sizeof(ino);
	close(fd);
	return known && !stat(CGROUP2, &root) && ino == root.st_ino;
}

/*
 * What waits to be split is still found when the cgroup that it is charged to has
 * gone. Stock does not find it.
 *
 * Needs: mm: thp: reparent the split queue during memcg offline
 */
TEST_F(partial_thp_cgroup, cgroup_removed)
{
	static const char * const dirs[] = {
		CGROUP2 "partial_thp", CGROUP2 "partial_thp/inner",
	};
	size_t pmd = read_pmd_pagesize(), off;
	struct env *env = &self->env;
	struct pthp *r = &env->r;
	char path[128];
	int tries;

	requires(return, !access("/proc/kpagecgroup", R_OK), "no /proc/kpagecgroup");
	requires(return, pthp_put(CGROUP2_CONTROL, "+memory"),
		 "no memory controller for cgroup v2");
	cgroup_dir(_metadata, dirs[0], true);
	snprintf(path, sizeof(path), "%s/cgroup.subtree_control", dirs[0]);
	ASSERT_TRUE(pthp_put(path, "+memory"));
	cgroup_dir(_metadata, dirs[1], true);
	snprintf(path, sizeof(path), "%s/cgroup.procs", dirs[1]);
	ASSERT_TRUE(pthp_put(path, "0"));
	if (!build(_metadata, env, PTHP_ALL, PTHP_DONTNEED))
		return;
	for (off = 0; off < pthp_len(r) / 2; off += pmd)
		ASSERT_EQ(0, madvise(r->mem + off + pmd / 2, pmd / 2,
				     MADV_DONTNEED));

	/* The charge stays when we leave.  The inner one goes first. */
	ASSERT_TRUE(pthp_put(CGROUP2 "cgroup.procs", "0"));
	cgroup_dir(_metadata, dirs[1], false);
	cgroup_dir(_metadata, dirs[0], false);
	for (tries = 0; !charged_to_root(r->src[0]) && tries < 3000; tries++)
		usleep(20000);
	ASSERT_GT(3000, tries) {
		TH_LOG("the cgroups are still there");
	}

	/* Half of the THPs have been queued, the others are only now. */
	ASSERT_EQ(0, pthp_punch(r, PTHP_FIRST_HALF, PTHP_DONTNEED));
	for (tries = 0; pthp_held(r) > r->nr_mapped && tries < 50; tries++) {
		pthp_shrink();
		usleep(20000);
	}
	EXPECT_EQ(r->nr_mapped, pthp_held(r));
	EXPECT_TRUE(pthp_intact(r));
}

TEST_HARNESS_MAIN
