// SPDX-License-Identifier: GPL-2.0
/*
 * Partially mapped THPs in memory that somebody else wants: all of it, and now.
 *
 * Memory offlining and CMA empty a range of physical memory by migrate_pages()
 * and cannot do with less than all of it.  The tests here have a range full of
 * partially mapped THPs, have it emptied, and look at what became of them; then
 * the range is given back.  In both ways:
 *   offline - a memory block of a movable zone, by writing to its "state".  The
 *	pages go to another node if there is one.
 *   cma - an area for contiguous allocations, by writing to "alloc" in its
 *	directory in debugfs.  What is not in such areas is used up first, so
 *	that new THPs have to be there.
 *
 * "Stock" is a 6.12 kernel that splits such a THP to base pages and counts that
 * as a failure.  A 6.1 kernel does not look, and migrates it whole.
 *
 * A test whose THPs are not in the range fails: page frame numbers are compared
 * before, and at least MIN_THPS have to be there.  It is skipped without such a range, and
 * for what all programs need.
 */
#include "../kselftest_harness.h"

#include <dirent.h>
#include <signal.h>
#include <sys/time.h>

#include "partial_thp_test.h"

#define CMA		"/sys/kernel/debug/cma"

#define NR_THPS		96	/* as many as are made to have a block full */
#define MIN_THPS	24	/* as many as have to be in the range */
#define MAX_RANGES	256
#define SEED		1

enum how {
	OFFLINE,
	CONTIG,
};

struct range {
	char path[300];
	unsigned long start;		/* page frame numbers */
	unsigned long end;
	unsigned int thps;		/* of the region that are in it */
};

struct env {
	enum how how;
	int node;
	struct range ranges[MAX_RANGES];
	unsigned int nr_ranges;
	struct range *range;		/* the one to be emptied */
	bool empty;
	struct pthp r;
};

/* ---- files of a range ---- */

static long put(const struct range *range, const char *name, const char *value)
{
	char path[320];

	snprintf(path, sizeof(path), "%s/%s", range->path, name);
	return pthp_write(path, value);
}

/* Does the file say @word, and nothing else? */
static bool says(const struct range *range, const char *name, const char *word)
{
	char path[320], buf[64];

	snprintf(path, sizeof(path), "%s/%s", range->path, name);
	if (!pthp_get(path, buf, sizeof(buf)))
		return false;
	buf[strcspn(buf, "\n ")] = '\0';
	return !strcmp(buf, word);
}

static long number(const struct range *range, const char *name)
{
	char path[320];

	snprintf(path, sizeof(path), "%s/%s", range->path, name);
	return pthp_get_number(path);
}

/* ---- ranges ---- */

/* The node of a page frame, or -1 */
static int node_of(unsigned long pfn)
{
	char path[128];
	int node;

	if (!pthp_block_pages())
		return -1;
	for (node = 0; node < PTHP_MAX_NODES; node++) {
		snprintf(path, sizeof(path), PTHP_MEMORY "/memory%lu/node%d",
			 pfn / pthp_block_pages(), node);
		if (!access(path, F_OK))
			return node;
	}
	return -1;
}

/* Pages in the range that have all of these flags and none of those */
static unsigned long pages_with(const struct pthp *r, const struct range *range,
				uint64_t these, uint64_t those)
{
	unsigned long nr = range->end - range->start, i, n = 0;
	uint64_t *flags = malloc(nr * sizeof(*flags));

	if (!pthp_read_flags(r, range->start, flags, nr))
		nr = 0;
	for (i = 0; i < nr; i++)
		n += (flags[i] & (these | those)) == these;
	free(flags);
	return n;
}

/*
 * A node's last block may have pages of early boot, where its memory map is:
 * they are not moved.
 */
static bool has_reserved(const struct range *range)
{
	struct pthp peek = { .kpageflags = open("/proc/kpageflags", O_RDONLY) };
	unsigned long n = pages_with(&peek, range, PTHP_KPF_RESERVED, 0);

	close(peek.kpageflags);
	return n;
}

/* Memory blocks that can all be moved, and are on the node of the first one */
static void find_block(struct env *env, const char *name)
{
	struct range *range = &env->ranges[env->nr_ranges];
	unsigned long block;

	if (sscanf(name, "memory%lu", &block) != 1)
		return;
	snprintf(range->path, sizeof(range->path), PTHP_MEMORY "/%s", name);
	range->start = block * pthp_block_pages();
	range->end = range->start + pthp_block_pages();
	if (!says(range, "state", "online") ||
	    !says(range, "valid_zones", "Movable") || has_reserved(range))
		return;
	if (!env->nr_ranges)
		env->node = node_of(range->start);
	if (env->node >= 0 && node_of(range->start) == env->node)
		env->nr_ranges++;
}

/* The largest area that nobody has a part of */
static void find_area(struct env *env, const char *name)
{
	struct range *range = &env->ranges[0], new = { 0 };
	long count;

	snprintf(new.path, sizeof(new.path), CMA "/%s", name);
	count = number(&new, "count");
	new.start = number(&new, "base_pfn");
	new.end = new.start + count;
	if (count < MIN_THPS << pthp_pmd_order() ||
	    number(&new, "maxchunk") != count)
		return;
	if (env->nr_ranges && range->end - range->start >= (unsigned long)count)
		return;
	*range = new;
	env->node = node_of(range->start);
	env->nr_ranges = env->node >= 0;
}

static void find_ranges(struct env *env)
{
	DIR *dir = opendir(env->how == OFFLINE ? PTHP_MEMORY : CMA);
	struct dirent *entry;

	while (dir && env->nr_ranges < MAX_RANGES && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		if (env->how == OFFLINE)
			find_block(env, entry->d_name);
		else
			find_area(env, entry->d_name);
	}
	if (dir)
		closedir(dir);
}

static bool within(const struct range *range, unsigned long pfn)
{
	return pfn >= range->start && pfn < range->end;
}

static long empty_range_once(struct env *env)
{
	char count[32];
	long ret;

	snprintf(count, sizeof(count), "%lu",
		 env->range->end - env->range->start);
	if (env->how == OFFLINE)
		ret = put(env->range, "state", "offline");
	else
		ret = put(env->range, "alloc", count);
	env->empty = !ret;
	return ret;
}

/* CMA gives up where offlining goes on: when a page is busy for a moment. */
static long empty_range(struct env *env)
{
	unsigned int tries = 0;
	long ret;

	do {
		ret = empty_range_once(env);
	} while (ret == -ENOMEM && env->how == CONTIG && ++tries < 5);
	return ret;
}

static long give_range_back(struct env *env)
{
	char count[32];

	if (!env->empty)
		return 0;
	env->empty = false;
	snprintf(count, sizeof(count), "%lu",
		 env->range->end - env->range->start);
	if (env->how == OFFLINE)
		return put(env->range, "state", "online_movable");
	return put(env->range, "free", count);
}

/* Does the kernel say, too, that the range is empty? */
static bool range_is_empty(const struct env *env)
{
	if (env->how == OFFLINE)
		return says(env->range, "state", "offline");
	return number(env->range, "used") ==
	       (long)(env->range->end - env->range->start);
}

/* ... or that it is there for everybody? */
static bool range_is_back(const struct env *env)
{
	if (env->how == OFFLINE)
		return says(env->range, "state", "online") &&
		       says(env->range, "valid_zones", "Movable");
	return !number(env->range, "used");
}

static void interrupted(int sig)
{
}

/* As empty_range_once(), with a signal every second from the third one on */
static long try_to_empty_range(struct env *env)
{
	const struct itimerval on = {
		.it_value.tv_sec = 3,
		.it_interval.tv_sec = 1,
	};
	struct itimerval off = { 0 };
	struct sigaction sa = { .sa_handler = interrupted };
	long ret;

	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &on, NULL);
	ret = empty_range_once(env);
	setitimer(ITIMER_REAL, &off, NULL);
	return ret;
}

/* ---- THPs that are in the range ---- */

static unsigned long pfn_of(const struct pthp *r, unsigned int page)
{
	return pagemap_get_pfn(r->pagemap, pthp_addr(r, page));
}

/* Pages of the region that are mapped, and in the range */
static unsigned int pages_within(const struct env *env)
{
	unsigned int page, n = 0;

	for (page = 0; page < env->r.nr; page++) {
		n += env->r.mapped[page] &&
		     within(env->range, pfn_of(&env->r, page));
	}
	return n;
}

/*
 * Use up the THPs that the node has outside of the range, until most of the range is
 * taken as well: in the end the kernel takes them from both by halves.  Return how many
 * there are at @mem.
 */
static unsigned int use_up(const struct env *env, char *mem, unsigned int max,
			   const struct pthp *r)
{
	const struct range *range = &env->ranges[0];
	unsigned int i, most, in = 0;
	size_t pmd = read_pmd_pagesize();
	unsigned long pfn;
	char *addr;

	most = (range->end - range->start) >> pthp_pmd_order();
	most -= most / 8;
	for (i = 0; i < max && in < most; i++) {
		addr = mem + i * pmd;
		*addr = 1;
		pfn = pagemap_get_pfn(r->pagemap, addr);
		/* Only a whole THP has a page where nothing was touched. */
		if (pagemap_get_pfn(r->pagemap, addr + pmd - psize()) == -1ul ||
		    node_of(pfn) != env->node)
			break;
		in += within(range, pfn);
	}
	return i;
}

/* Make the region where the kernel will put it. */
static const char *alloc_in_area(struct env *env)
{
	struct pthp peek = { .pagemap = open("/proc/self/pagemap", O_RDONLY) };
	unsigned long mask[PTHP_MASK_LONGS];
	size_t pmd = read_pmd_pagesize(), len;
	unsigned int max, n, i, in = 0;
	const char *missing;
	char *map, *mem;

	max = pthp_node_pages(env->node) >> pthp_pmd_order();
	len = max * pmd;
	map = mmap(NULL, len + pmd, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!max || map == MAP_FAILED || peek.pagemap < 0)
		return "cannot use up the memory of the node";
	mem = (char *)(((uintptr_t)map + pmd - 1) & ~(pmd - 1));
	/* A node that is full is not to be reclaimed: go elsewhere. */
	pthp_mask(mask, env->node);
	if (madvise(mem, len, MADV_HUGEPAGE) ||
	    syscall(__NR_mbind, mem, len, MPOL_PREFERRED, mask,
		    PTHP_MAX_NODES + 1, 0))
		return "no mbind(2) or MADV_HUGEPAGE";
	n = use_up(env, mem, max, &peek);
	for (i = 0; i < n; i++) {
		if (!within(&env->ranges[0],
			    pagemap_get_pfn(peek.pagemap, mem + i * pmd)))
			continue;
		madvise(mem + i * pmd, pmd, MADV_DONTNEED);
		in++;
	}
	if (in < MIN_THPS)
		missing = "the kernel gives out no THPs in the area";
	else
		missing = pthp_alloc(&env->r, in - in / 16, pthp_pmd_order(),
				     env->node, SEED);
	munmap(map, len + pmd);
	close(peek.pagemap);
	return missing;
}

/* Choose the range that has the most THPs of the region. */
static void choose_range(struct env *env)
{
	unsigned int i, thp;

	env->range = &env->ranges[0];
	for (i = 0; i < env->nr_ranges; i++) {
		struct range *range = &env->ranges[i];

		range->thps = 0;
		for (thp = 0; thp < env->r.nr_folios; thp++)
			range->thps += within(range, env->r.src[thp]);
		if (range->thps > env->range->thps)
			env->range = range;
	}
}

/*
 * Have a range full of THPs of which three quarters are mapped.  Those that are
 * elsewhere go away altogether.
 */
static void build(struct __test_metadata *_metadata, struct env *env)
{
	unsigned int n = 1u << pthp_pmd_order(), nr_thps = NR_THPS, tries, i;
	struct pthp *r = &env->r;
	const char *missing = NULL;

	for (tries = 0; tries < 5; tries++) {
		pthp_free(r);
		/* What a test before this one has freed is still in pieces. */
		if (tries)
			pthp_put("/proc/sys/vm/compact_memory", "1");
		if (env->how == OFFLINE)
			missing = pthp_alloc(r, nr_thps, pthp_pmd_order(),
					     env->node, SEED);
		else
			missing = alloc_in_area(env);
		if (missing) {
			nr_thps = NR_THPS;
			continue;
		}
		choose_range(env);
		if (env->range->thps >= MIN_THPS)
			break;
		/* They are all over the node: some more, then. */
		nr_thps += NR_THPS / 2;
	}
	ASSERT_TRUE(!missing) {
		TH_LOG("%s", missing);
	}
	ASSERT_LE(MIN_THPS, env->range->thps);
	TH_LOG("%u THPs in %s", env->range->thps, env->range->path);

	ASSERT_EQ(0, pthp_punch(r, PTHP_THREE_QUARTERS, PTHP_DONTNEED));
	for (i = 0; i < r->nr; i += n) {
		if (within(env->range, pfn_of(r, i)))
			continue;
		ASSERT_EQ(0, madvise(pthp_addr(r, i), n * psize(),
				     MADV_DONTNEED));
		memset(&r->mapped[i], false, n * sizeof(*r->mapped));
		r->nr_mapped -= n / 4 * 3;
	}
	ASSERT_EQ(env->range->thps * (n / 4 * 3), r->nr_mapped);
	ASSERT_EQ(r->nr_mapped, pages_within(env));
}

/* Pages in the range that may have to be moved and are not of the region */
static unsigned long other_pages(const struct env *env)
{
	return pages_with(&env->r, env->range, PTHP_KPF_LRU,
			  PTHP_KPF_HEAD | PTHP_KPF_TAIL);
}

/* The region is somewhere else, with its content. */
static void expect_moved(struct __test_metadata *_metadata, struct env *env)
{
	EXPECT_EQ(0, pages_within(env));
	EXPECT_TRUE(pthp_intact(&env->r));
}

/* ---- tests ---- */

FIXTURE(evacuate_partial_thp)
{
	struct env env;
};

FIXTURE_VARIANT(evacuate_partial_thp)
{
	enum how how;
};

FIXTURE_VARIANT_ADD(evacuate_partial_thp, offline)
{
	.how = OFFLINE,
};

FIXTURE_VARIANT_ADD(evacuate_partial_thp, cma)
{
	.how = CONTIG,
};

FIXTURE_SETUP(evacuate_partial_thp)
{
	struct env *env = &self->env;

	memset(env, 0, sizeof(*env));
	env->how = variant->how;
	if (!test_setup(_metadata))
		return;
	find_ranges(env);
	setup_requires(return, env->nr_ranges, env->how == OFFLINE ?
		 "no memory block is movable memory (movablecore=)" :
		 "no unused area in " CMA " (cma=)");
}

FIXTURE_TEARDOWN(evacuate_partial_thp)
{
	struct env *env = &self->env;

	give_range_back(env);
	pthp_free(&env->r);
	pthp_restore();
}

/*
 * The range is emptied and comes back; no page of the region is left in it, each
 * keeps its content, and what was unmapped stays unmapped.  Stock passes.
 */
TEST_F(evacuate_partial_thp, contents)
{
	struct env *env = &self->env;

	build(_metadata, env);
	ASSERT_EQ(0, empty_range(env));
	EXPECT_TRUE(range_is_empty(env));
	expect_moved(_metadata, env);
	EXPECT_EQ(0, give_range_back(env));
	EXPECT_TRUE(range_is_back(env));
	EXPECT_TRUE(pthp_intact(&env->r));
	EXPECT_TRUE(pthp_holes_empty(&env->r));
}

/*
 * No unmapped page is held by what holds the mapped ones.  Stock 6.12 passes; 6.1
 * carries them along.
 */
TEST_F(evacuate_partial_thp, given_back)
{
	struct env *env = &self->env;

	build(_metadata, env);
	ASSERT_EQ(0, empty_range(env));
	expect_moved(_metadata, env);
	expect_given_back(_metadata, &env->r);
	EXPECT_EQ(0, give_range_back(env));
	expect_given_back(_metadata, &env->r);
}

/*
 * Mapped pages end up in the largest naturally aligned folios that they fill.
 * Stock: all of order 0.
 *
 * Needs: mm/migrate: split by what is mapped
 */
TEST_F(evacuate_partial_thp, orders)
{
	struct env *env = &self->env;
	unsigned int want[PTHP_MAX_ORDER + 1] = { 0 };

	build(_metadata, env);
	ASSERT_EQ(0, empty_range(env));
	EXPECT_EQ(0, give_range_back(env));
	/* Of each a half, and half of the other half */
#ifndef HAVE_SPLIT_TO_ORDER
	/* There is no split but to single pages. */
	want[0] = env->r.nr_mapped;
#else
	want[pthp_pmd_order() - 1] = env->range->thps;
	want[pthp_pmd_order() - 2] = env->range->thps;
#endif
	expect_orders(_metadata, &env->r, want);
}

/* Have no page in a CPU's batch, where its flags do not say that it may be moved. */
static void drain(void)
{
	void *page = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	pthp_mbind(page, psize(), 0, MPOL_MF_MOVE);
	munmap(page, psize());
}

/*
 * A split is a split, and what moved is a success.  Stock counts the freed pages
 * as migrated and the split THPs as failed.
 *
 * Needs: mm/migrate: split folios that wait to be split
 */
TEST_F(evacuate_partial_thp, stats)
{
	struct env *env = &self->env;
	struct pthp_vmstat before, d;
	long others, isolated = 0;

	build(_metadata, env);
#ifndef HAVE_OFFLINE_COUNTS_PAGES
	/* A THP is isolated as one page, and taken off as all that it has. */
	if (env->how == OFFLINE)
		isolated = -(long)env->range->thps * ((1l << pthp_pmd_order()) - 1);
#endif
	drain();
	ASSERT_TRUE(pthp_vmstat_read(&before));
	others = other_pages(env);
	ASSERT_EQ(0, empty_range(env));
	EXPECT_TRUE(pthp_vmstat_read(&d));
	EXPECT_EQ(0, give_range_back(env));
	pthp_vmstat_sub(&d, &before);
	TH_LOG("%u pages are mapped, %ld are others, %ld migrated, %ld failed",
	       env->r.nr_mapped, others, d.v[PTHP_PGMIGRATE_SUCCESS],
	       d.v[PTHP_PGMIGRATE_FAIL]);
	EXPECT_EQ(env->range->thps, d.v[PTHP_THP_MIGRATION_SPLIT]);
	EXPECT_EQ(env->range->thps, d.v[PTHP_THP_SPLIT_PAGE]);
	EXPECT_EQ(0, d.v[PTHP_THP_MIGRATION_SUCCESS]);
	EXPECT_EQ(0, d.v[PTHP_THP_MIGRATION_FAIL]);
	EXPECT_EQ(isolated, d.v[PTHP_NR_ISOLATED_ANON]);
	/*
	 * What others have faulted in meanwhile may have to be moved, too: that is less
	 * than two pages for each THP.
	 */
	EXPECT_LE((long)env->r.nr_mapped, d.v[PTHP_PGMIGRATE_SUCCESS]);
	EXPECT_GT(env->r.nr_mapped + others + 2 * env->range->thps,
		  d.v[PTHP_PGMIGRATE_SUCCESS]);
}

/*
 * With an extra reference, from vmsplice(2), on a page of one THP the range cannot
 * be emptied: offlining goes on until there is a signal, CMA gives up.  That THP
 * stays as it is and where it is, the range stays in use, and it can be emptied
 * when the reference is gone.  Stock 6.12 passes; 6.1 carries the unmapped pages
 * along.
 */
TEST_F(evacuate_partial_thp, pinned)
{
	struct env *env = &self->env;
	unsigned int n = 1u << pthp_pmd_order(), page = 7, i;
	struct pthp *r = &env->r;
	struct pthp_census c;
	unsigned long pfn;
	int pipefd[2];
	long ret = 0;

	build(_metadata, env);
	while (!r->mapped[page])
		page += n;
	pfn = pfn_of(r, page);
	ASSERT_TRUE(pthp_pin(pthp_addr(r, page), pipefd));

	/* On a slow machine the signal may come before all others have moved. */
	for (i = 0; i < 20; i++) {
		ret = try_to_empty_range(env);
		if (ret != -EINTR || pages_within(env) == n / 4 * 3)
			break;
	}
	EXPECT_EQ(env->how == OFFLINE ? -EINTR : -ENOMEM, ret);
	EXPECT_TRUE(range_is_back(env));
	EXPECT_EQ(pfn, pfn_of(r, page));
	EXPECT_TRUE(pthp_intact(r));
	EXPECT_EQ(n / 4 * 3, pages_within(env));
	EXPECT_TRUE(pthp_census_take(r, &c));
	for (i = 0; i < c.nr && c.folios[i].pfn != pfn / n * n; i++)
		;
	EXPECT_LT(i, c.nr);
	if (i < c.nr)
		EXPECT_EQ(pthp_pmd_order(), c.folios[i].order);
	pthp_census_drop(&c);

	pthp_unpin(pipefd);
	EXPECT_EQ(0, empty_range(env));
	EXPECT_TRUE(range_is_empty(env));
	expect_moved(_metadata, env);
	expect_given_back(_metadata, r);
	EXPECT_EQ(0, give_range_back(env));
	EXPECT_TRUE(range_is_back(env));
	EXPECT_TRUE(pthp_holes_empty(r));
}

TEST_HARNESS_MAIN
