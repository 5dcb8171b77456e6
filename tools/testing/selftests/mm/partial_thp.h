/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Partially mapped large folios: make them, migrate them, and look at what
 * became of them.
 *
 * A region is a number of anonymous large folios of one order.  Every page is
 * filled with words made of a seed and its index, so that a page that was lost
 * (zeroes), a page that took the place of another one and a page copied in part
 * are told apart.  Some of its pages, by the shape, are then unmapped.
 *
 * What the region costs is the sum of the sizes of the folios that hold a page
 * it maps, read from /proc/kpageflags: exact, and no other process has a share
 * in it.
 */
#ifndef __PARTIAL_THP_H
#define __PARTIAL_THP_H

#include <errno.h>
#include <fcntl.h>
#include <linux/mempolicy.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef HAVE_SELFTESTS_MM
#include "vm_util.h"
#include "partial_thp_compat.h"
#else
#ifdef HAVE_HUGEPAGE_SETTINGS
#include "hugepage_settings.h"
#include "vm_util.h"
/* The length only counts for sizes other than a PMD's. */
#define check_huge_anon(addr, nr, size) \
	check_huge_anon(addr, (nr) * (size), nr, size)
#else
#include "thp_settings.h"
#include "vm_util.h"
#endif
#endif

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* Bits of /proc/kpageflags, see kernel-page-flags.h, uapi and not */
#define PTHP_KPF_ANON		BIT_ULL(12)
#define PTHP_KPF_HEAD		BIT_ULL(15)
#define PTHP_KPF_TAIL		BIT_ULL(16)
#define PTHP_KPF_ZERO_PAGE	BIT_ULL(24)
#define PTHP_KPF_RESERVED	BIT_ULL(32)
#define PTHP_KPF_MLOCKED	BIT_ULL(33)

#define PTHP_MEMORY		"/sys/devices/system/memory"
#define PTHP_MAX_ORDER		10
#define PTHP_MAX_NODES		1024
#define PTHP_MASK_LONGS		(PTHP_MAX_NODES / (8 * sizeof(unsigned long)))
#define PTHP_WORDS		(psize() / sizeof(uint64_t))

/* ---- shapes: which pages of a folio stay mapped ---- */

enum pthp_shape {
	PTHP_ALL,
	PTHP_FIRST_HALF,
	PTHP_LAST_HALF,
	PTHP_THREE_QUARTERS,
	PTHP_CB64K,
	PTHP_CB16K,
	PTHP_ALTERNATE,
	PTHP_ALL_BUT_ONE,
	PTHP_ONE_PAGE,
	PTHP_RAGGED,
	PTHP_RANDOM,
	PTHP_NR_SHAPES
};

static const char * const pthp_shape_names[] = {
	[PTHP_ALL]		= "all",
	[PTHP_FIRST_HALF]	= "first_half",
	[PTHP_LAST_HALF]	= "last_half",
	[PTHP_THREE_QUARTERS]	= "three_quarters",
	[PTHP_CB64K]		= "cb64k",
	[PTHP_CB16K]		= "cb16k",
	[PTHP_ALTERNATE]	= "alternate",
	[PTHP_ALL_BUT_ONE]	= "all_but_one",
	[PTHP_ONE_PAGE]		= "one_page",
	[PTHP_RAGGED]		= "ragged",
	[PTHP_RANDOM]		= "random",
};

static inline uint64_t pthp_mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

/* Does page @i of @n in folio @folio stay mapped? */
static inline bool pthp_shape_maps(enum pthp_shape shape, unsigned int i,
				   unsigned int n, unsigned int folio,
				   unsigned int seed)
{
	switch (shape) {
	case PTHP_FIRST_HALF:
		return i < n / 2;
	case PTHP_LAST_HALF:
		return i >= n / 2;
	case PTHP_THREE_QUARTERS:
		return i < n / 4 * 3;
	case PTHP_CB64K:
		return !(i / (65536 / psize()) % 2);
	case PTHP_CB16K:
		return !(i / (16384 / psize()) % 2);
	case PTHP_ALTERNATE:
		return !(i % 2);
	case PTHP_ALL_BUT_ONE:
		return i != n / 3;
	case PTHP_ONE_PAGE:
		return i == n / 3;
	case PTHP_RAGGED:
		return (i > n * 3 / 64 && i <= n * 20 / 64 + 3) ||
		       (i + 1 >= n * 37 / 64 && i < n * 55 / 64 + 2);
	case PTHP_RANDOM:
		return pthp_mix(((uint64_t)seed << 32) + folio * n + i) & 1;
	default:
		return true;
	}
}

/* How the other pages are unmapped */
enum pthp_hole {
	PTHP_MUNMAP,
	PTHP_DONTNEED,		/* the VMA stays in one piece */
};

/* How the folios are migrated */
enum pthp_call {
	PTHP_MOVE_PAGES,
	PTHP_MBIND,
	PTHP_MIGRATE_PAGES,
	PTHP_NR_CALLS
};

static const char * const pthp_call_names[] = {
	[PTHP_MOVE_PAGES]	= "move_pages",
	[PTHP_MBIND]		= "mbind",
	[PTHP_MIGRATE_PAGES]	= "migrate_pages",
};

/* ---- files ---- */

static inline bool pthp_put(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, value, strlen(value)) == (ssize_t)strlen(value);
	close(fd);
	return ok;
}

static inline bool pthp_get(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t len;

	if (fd < 0)
		return false;
	len = read(fd, buf, size - 1);
	close(fd);
	if (len < 0)
		return false;
	buf[len] = '\0';
	return true;
}

/* The number after @name in a file of names and numbers, or -1 */
static inline long pthp_get_named(const char *path, const char *name)
{
	char word[64];
	long value;
	FILE *f;

	f = fopen(path, "r");
	if (!f)
		return -1;
	while (fscanf(f, "%63s %ld", word, &value) == 2) {
		if (!strcmp(word, name)) {
			fclose(f);
			return value;
		}
	}
	fclose(f);
	return -1;
}

/* ---- nodes ---- */

/* Pages of a memory block, which is what goes offline; 0 if nothing can */
static inline unsigned long pthp_block_pages(void)
{
	char buf[32];

	if (!pthp_get(PTHP_MEMORY "/block_size_bytes", buf, sizeof(buf)))
		return 0;
	return strtoul(buf, NULL, 16) / psize();
}

static inline void pthp_mask(unsigned long *mask, int node)
{
	const int bits = 8 * sizeof(*mask);

	memset(mask, 0, PTHP_MASK_LONGS * sizeof(*mask));
	mask[node / bits] |= 1UL << (node % bits);
}

/* The first two nodes that have memory and that this task may use */
static inline bool pthp_two_nodes(int *a, int *b)
{
	unsigned long mask[PTHP_MASK_LONGS] = { 0 };
	const int bits = 8 * sizeof(*mask);
	int node, found = 0;

	if (syscall(__NR_get_mempolicy, NULL, mask, PTHP_MAX_NODES, NULL,
		    MPOL_F_MEMS_ALLOWED))
		return false;
	for (node = 0; node < PTHP_MAX_NODES && found < 2; node++) {
		if (mask[node / bits] & (1UL << (node % bits)))
			*(found++ ? b : a) = node;
	}
	return found == 2;
}

static inline int pthp_mbind(void *addr, size_t len, int node, int flags)
{
	unsigned long mask[PTHP_MASK_LONGS];

	pthp_mask(mask, node);
	return syscall(__NR_mbind, addr, len, MPOL_BIND, mask,
		       PTHP_MAX_NODES + 1, flags) ? -errno : 0;
}

static inline int pthp_prefer_node(int node)
{
	unsigned long mask[PTHP_MASK_LONGS];

	pthp_mask(mask, node);
	return syscall(__NR_set_mempolicy, MPOL_PREFERRED, mask,
		       PTHP_MAX_NODES + 1) ? -errno : 0;
}

/* migrate_pages(2) of everything this process has on @from */
static inline long pthp_migrate_process(int from, int to)
{
	unsigned long old[PTHP_MASK_LONGS], new[PTHP_MASK_LONGS];
	long ret;

	pthp_mask(old, from);
	pthp_mask(new, to);
	ret = syscall(__NR_migrate_pages, 0, PTHP_MAX_NODES + 1, old, new);
	return ret < 0 ? -errno : ret;
}

/* Automatic balancing moves pages too; returns what it was set to. */
static inline unsigned long pthp_balancing(unsigned long value)
{
	const char *path = "/proc/sys/kernel/numa_balancing";
	unsigned long old;

	if (access(path, W_OK))
		return 0;
	old = read_num(path);
	if (old != value)
		write_num(path, value);
	return old;
}

/* ---- statistics ---- */

enum pthp_event {
	PTHP_PGMIGRATE_SUCCESS,
	PTHP_PGMIGRATE_FAIL,
	PTHP_THP_MIGRATION_SUCCESS,
	PTHP_THP_MIGRATION_FAIL,
	PTHP_THP_MIGRATION_SPLIT,
	PTHP_THP_SPLIT_PAGE,
	PTHP_THP_DEFERRED_SPLIT_PAGE,
	PTHP_NR_ISOLATED_ANON,
	PTHP_NR_EVENTS
};

static const char * const pthp_event_names[] = {
	[PTHP_PGMIGRATE_SUCCESS]	= "pgmigrate_success",
	[PTHP_PGMIGRATE_FAIL]		= "pgmigrate_fail",
	[PTHP_THP_MIGRATION_SUCCESS]	= "thp_migration_success",
	[PTHP_THP_MIGRATION_FAIL]	= "thp_migration_fail",
	[PTHP_THP_MIGRATION_SPLIT]	= "thp_migration_split",
	[PTHP_THP_SPLIT_PAGE]		= "thp_split_page",
	[PTHP_THP_DEFERRED_SPLIT_PAGE]	= "thp_deferred_split_page",
	[PTHP_NR_ISOLATED_ANON]		= "nr_isolated_anon",
};

struct pthp_vmstat {
	long v[PTHP_NR_EVENTS];
};

/* Events are summed over the CPUs, the rest is once stat_refresh folded it. */
static inline bool pthp_vmstat_read(struct pthp_vmstat *s)
{
	unsigned int i, found = 0;
	char name[64];
	long value;
	FILE *f;
	int fd;

	fd = open("/proc/sys/vm/stat_refresh", O_WRONLY);
	if (fd >= 0) {
		if (write(fd, "1", 1) != 1)
			fprintf(stderr, "# stat_refresh: %s\n", strerror(errno));
		close(fd);
	}

	memset(s, 0, sizeof(*s));
	f = fopen("/proc/vmstat", "r");
	if (!f)
		return false;
	while (fscanf(f, "%63s %ld", name, &value) == 2) {
		for (i = 0; i < PTHP_NR_EVENTS; i++) {
			if (strcmp(name, pthp_event_names[i]))
				continue;
			s->v[i] = value;
			found++;
		}
	}
	fclose(f);
	return found == PTHP_NR_EVENTS;
}

static inline void pthp_vmstat_sub(struct pthp_vmstat *a,
				   const struct pthp_vmstat *b)
{
	unsigned int i;

	for (i = 0; i < PTHP_NR_EVENTS; i++)
		a->v[i] -= b->v[i];
}

/* A statistic of all folios of @order, or -1 where the kernel has none */
static inline long pthp_folio_stat(unsigned int order, const char *name)
{
	char path[128];
	long value;
	FILE *f;

	snprintf(path, sizeof(path),
		 "/sys/kernel/mm/transparent_hugepage/hugepages-%ukB/stats/%s",
		 (psize() >> 10) << order, name);
	f = fopen(path, "r");
	if (!f)
		return -1;
	if (fscanf(f, "%ld", &value) != 1)
		value = -1;
	fclose(f);
	return value;
}

/* ---- regions ---- */

struct pthp_folio {
	unsigned long pfn;		/* of the head */
	unsigned int order;
	unsigned int page;		/* a page of the region that it holds */
};

struct pthp {
	char *mem;
	unsigned int order;
	unsigned int nr_folios;
	unsigned int nr;		/* pages, mapped or not */
	unsigned int nr_mapped;
	unsigned int seed;
	enum pthp_hole hole;
	bool *mapped;
	void **addrs;			/* scratch, as are the next two */
	int *status;
	int *nodes;
	unsigned long *src;		/* heads of the folios it began with */
	int pagemap;
	int kpageflags;
};

/* The folios that hold the mapped pages of a region */
struct pthp_census {
	struct pthp_folio *folios;
	unsigned int nr;
	unsigned int orders[PTHP_MAX_ORDER + 1];
	unsigned long held;		/* pages in all of them */
};

static inline unsigned int pthp_pmd_order(void)
{
	unsigned long pages = read_pmd_pagesize() / psize();

	return pages ? ffsl(pages) - 1 : 0;
}

static inline void *pthp_addr(const struct pthp *r, unsigned int page)
{
	return r->mem + (size_t)page * psize();
}

static inline uint64_t pthp_stamp(const struct pthp *r, unsigned int page)
{
	return ((uint64_t)(r->seed | 1u << 31) << 32) | page << 12;
}

static inline void pthp_fill(struct pthp *r, unsigned int page)
{
	uint64_t *p = pthp_addr(r, page), stamp = pthp_stamp(r, page);
	unsigned int i;

	for (i = 0; i < PTHP_WORDS; i++)
		p[i] = stamp + i;
}

/* Have all mapped pages of the region the content they were given? */
static inline bool pthp_intact(const struct pthp *r)
{
	unsigned int page, i, bad = 0;
	const uint64_t *p;
	uint64_t stamp;

	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page])
			continue;
		p = pthp_addr(r, page);
		stamp = pthp_stamp(r, page);
		for (i = 0; i < PTHP_WORDS && p[i] == stamp + i; i++)
			;
		if (i == PTHP_WORDS)
			continue;
		if (bad++ >= 8)
			continue;
		if (!p[i])
			fprintf(stderr, "# page %u is zero from word %u on\n",
				page, i);
		else if ((p[i] ^ stamp) >> 32)
			fprintf(stderr, "# page %u word %u: foreign %#llx\n",
				page, i, (unsigned long long)p[i]);
		else
			fprintf(stderr, "# page %u word %u is of page %u\n",
				page, i, (uint32_t)p[i] >> 12);
	}
	return !bad;
}

static inline bool pthp_zeroed(const uint64_t *p)
{
	unsigned int i;

	for (i = 0; i < PTHP_WORDS; i++) {
		if (p[i])
			return false;
	}
	return true;
}

/* Do the unmapped pages read as nothing (munmap) or as zeroes (DONTNEED)? */
static inline bool pthp_holes_empty(const struct pthp *r)
{
	unsigned int page, bad = 0;
	unsigned char vec;

	for (page = 0; page < r->nr; page++) {
		char *addr = pthp_addr(r, page);
		bool ok;

		if (r->mapped[page])
			continue;
		if (pagemap_get_entry(r->pagemap, addr) & (PM_PRESENT | PM_SWAP))
			ok = false;
		else if (r->hole == PTHP_MUNMAP)
			ok = mincore(addr, psize(), &vec) && errno == ENOMEM;
		else
			ok = pthp_zeroed((uint64_t *)addr);
		if (!ok && bad++ < 8)
			fprintf(stderr, "# page %u should be a hole\n", page);
	}
	return !bad;
}

static inline int pthp_cmp_folio(const void *a, const void *b)
{
	const struct pthp_folio *x = a, *y = b;

	if (x->pfn != y->pfn)
		return x->pfn < y->pfn ? -1 : 1;
	return x->page < y->page ? -1 : x->page > y->page;
}

/*
 * Fill in @f for the page at @pfn from a window of page flags that is naturally
 * aligned to the largest folio.
 */
static inline void pthp_folio_of(struct pthp_folio *f, unsigned long pfn,
				 const uint64_t *win, unsigned int n)
{
	unsigned int head = pfn % n, end;

	if (win[head] & (PTHP_KPF_HEAD | PTHP_KPF_TAIL)) {
		while (head && win[head] & PTHP_KPF_TAIL)
			head--;
	}
	for (end = head + 1; end < n && win[end] & PTHP_KPF_TAIL; end++)
		;
	f->pfn = pfn - pfn % n + head;
	f->order = ffsl(end - head) - 1;
}

static inline bool pthp_read_flags(const struct pthp *r, unsigned long pfn,
				   uint64_t *flags, unsigned int n)
{
	ssize_t len = n * sizeof(*flags);

	return pread(r->kpageflags, flags, len, pfn * sizeof(*flags)) == len;
}

/* Find the folios behind the mapped pages; false if a page is not present. */
static inline bool pthp_census_take(const struct pthp *r, struct pthp_census *c)
{
	unsigned int n = 1u << pthp_pmd_order(), page, i = 0, missing = 0;
	unsigned long pfn, base = -1ul;
	uint64_t *win = malloc(n * sizeof(*win));

	memset(c, 0, sizeof(*c));
	c->folios = malloc((r->nr_mapped + 1) * sizeof(*c->folios));

	for (page = 0; page < r->nr; page++) {
		if (!r->mapped[page])
			continue;
		pfn = pagemap_get_pfn(r->pagemap, pthp_addr(r, page));
		if (pfn == -1ul || !pfn) {
			missing++;
			continue;
		}
		if (base != pfn - pfn % n) {
			base = pfn - pfn % n;
			if (!pthp_read_flags(r, base, win, n))
				memset(win, 0, n * sizeof(*win));
		}
		pthp_folio_of(&c->folios[i], pfn, win, n);
		c->folios[i++].page = page;
	}
	free(win);

	qsort(c->folios, i, sizeof(*c->folios), pthp_cmp_folio);
	for (page = 0; page < i; page++) {
		struct pthp_folio *f = &c->folios[page];

		if (c->nr && c->folios[c->nr - 1].pfn == f->pfn)
			continue;
		c->orders[f->order]++;
		c->held += 1ul << f->order;
		c->folios[c->nr++] = *f;
	}
	if (missing)
		fprintf(stderr, "# %u mapped pages are not present\n", missing);
	return !missing;
}

static inline void pthp_census_drop(struct pthp_census *c)
{
	free(c->folios);
	c->folios = NULL;
}

/* "9:8,0:4", largest first */
static inline const char *pthp_orders_str(const unsigned int *orders, char *buf,
					  size_t len)
{
	int order, pos = 0;

	buf[0] = '\0';
	for (order = PTHP_MAX_ORDER; order >= 0; order--) {
		if (orders[order] && (size_t)pos < len)
			pos += snprintf(buf + pos, len - pos, "%s%d:%u",
					pos ? "," : "", order, orders[order]);
	}
	return pos ? buf : "none";
}

/* How many mapped pages of the region are on @node? */
static inline unsigned int pthp_on_node(const struct pthp *r, int node)
{
	unsigned int page, n = 0, on = 0;

	for (page = 0; page < r->nr; page++) {
		if (r->mapped[page])
			r->addrs[n++] = pthp_addr(r, page);
	}
	if (syscall(__NR_move_pages, 0, n, r->addrs, NULL, r->status, 0))
		return 0;
	while (n--)
		on += r->status[n] == node;
	return on;
}

/*
 * How many pages of the folios it began with are still anonymous memory, mapped
 * by nobody?  Free ones are not, and those somebody else got are mapped.
 */
static inline unsigned int pthp_left_behind(const struct pthp *r)
{
	unsigned int n = 1u << r->order, i, j, left = 0;
	int kpagecount = open("/proc/kpagecount", O_RDONLY);
	ssize_t len = n * sizeof(uint64_t);
	uint64_t *flags = malloc(len), *counts = malloc(len);

	for (i = 0; i < r->nr_folios; i++) {
		if (!pthp_read_flags(r, r->src[i], flags, n) ||
		    pread(kpagecount, counts, len,
			  r->src[i] * sizeof(*counts)) != len) {
			left += n;
			continue;
		}
		for (j = 0; j < n; j++)
			left += flags[j] & PTHP_KPF_ANON && !counts[j];
	}
	free(flags);
	free(counts);
	close(kpagecount);
	return left;
}

static inline void pthp_free(struct pthp *r)
{
	if (!r->mem)
		return;
	munmap(r->mem, (size_t)r->nr * psize());
	close(r->pagemap);
	close(r->kpageflags);
	free(r->mapped);
	free(r->addrs);
	free(r->status);
	free(r->nodes);
	free(r->src);
	memset(r, 0, sizeof(*r));
}

/*
 * Map and fill @nr_folios folios of @order on @node.  Return NULL or what is
 * missing.  The order is asked for by MADV_HUGEPAGE, and a smaller one than
 * that of the PMD by a region too short for it.  khugepaged is kept out.
 */
static inline const char *pthp_alloc(struct pthp *r, unsigned int nr_folios,
				     unsigned int order, int node,
				     unsigned int seed)
{
	size_t pmd = read_pmd_pagesize(), len, slack;
	struct pthp_census c;
	unsigned int i;
	char *mem;
	bool ok;

	memset(r, 0, sizeof(*r));
	if (!pmd || order > pthp_pmd_order())
		return "no transparent huge pages";
	r->order = order;
	r->nr_folios = nr_folios;
	r->nr = nr_folios << order;
	r->nr_mapped = r->nr;
	r->seed = seed;
	len = (size_t)r->nr * psize();

	/* Unmapped space on both sides keeps neighbours from being merged. */
	mem = mmap(NULL, len + 3 * pmd, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return "no address space";
	r->mem = (char *)(((uintptr_t)mem + 2 * pmd - 1) & ~(pmd - 1));
	slack = r->mem - mem;
	munmap(mem, slack);
	munmap(r->mem + len, 3 * pmd - slack);
	if (mmap(r->mem, len, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != r->mem)
		return "no memory";

	r->pagemap = open("/proc/self/pagemap", O_RDONLY);
	r->kpageflags = open("/proc/kpageflags", O_RDONLY);
	r->mapped = malloc(r->nr * sizeof(*r->mapped));
	r->addrs = malloc(r->nr * sizeof(*r->addrs));
	r->status = malloc(r->nr * sizeof(*r->status));
	r->nodes = malloc(r->nr * sizeof(*r->nodes));
	r->src = malloc(nr_folios * sizeof(*r->src));
	if (r->pagemap < 0 || r->kpageflags < 0)
		return "no /proc/self/pagemap or /proc/kpageflags, or not root";
	memset(r->mapped, true, r->nr * sizeof(*r->mapped));

	if (pthp_mbind(r->mem, len, node, 0))
		return "no mbind(2)";
	if (madvise(r->mem, len, MADV_HUGEPAGE))
		return "no MADV_HUGEPAGE";
	for (i = 0; i < r->nr; i++)
		pthp_fill(r, i);
	if (madvise(r->mem, len, MADV_NOHUGEPAGE))
		return "no MADV_NOHUGEPAGE";

	ok = pthp_census_take(r, &c) && c.nr == nr_folios &&
	     c.orders[order] == nr_folios;
	for (i = 0; ok && i < nr_folios; i++)
		r->src[i] = c.folios[i].pfn;
	pthp_census_drop(&c);
	if (!ok)
		return "no large folios of the wanted order to be had";
	if (order == pthp_pmd_order() && !check_huge_anon(r->mem, nr_folios, pmd))
		return "the large folios are not mapped by a PMD";
	if (pthp_on_node(r, node) != r->nr)
		return "no memory on the wanted node";
	return NULL;
}

typedef int (*pthp_run_fn)(void *addr, size_t len, long arg);

/* Call @fn for every run of pages of the region that are mapped, or are not. */
static inline int pthp_walk_runs(struct pthp *r, bool mapped, pthp_run_fn fn,
				 long arg)
{
	unsigned int start, end;
	int err, ret = 0;

	for (start = 0; start < r->nr; start = end) {
		end = start + 1;
		if (r->mapped[start] != mapped)
			continue;
		while (end < r->nr && r->mapped[end] == mapped)
			end++;
		err = fn(pthp_addr(r, start), (size_t)(end - start) * psize(),
			 arg);
		if (err && !ret)
			ret = err;
	}
	return ret;
}

static inline int pthp_punch_run(void *addr, size_t len, long hole)
{
	int err;

	if (hole == PTHP_MUNMAP)
		err = munmap(addr, len);
	else
		err = madvise(addr, len, MADV_DONTNEED);
	return err ? -errno : 0;
}

/* Unmap what @shape does not map, in this process. */
static inline int pthp_punch(struct pthp *r, enum pthp_shape shape,
			     enum pthp_hole hole)
{
	unsigned int n = 1u << r->order, page;

	r->hole = hole;
	r->nr_mapped = 0;
	for (page = 0; page < r->nr; page++) {
		r->mapped[page] = pthp_shape_maps(shape, page % n, n, page / n,
						  r->seed);
		r->nr_mapped += r->mapped[page];
	}
	return pthp_walk_runs(r, false, pthp_punch_run, hole);
}

/* Have whole THPs mapped by PTEs. */
static inline bool pthp_map_by_ptes(const struct pthp *r)
{
	unsigned int n = 1u << r->order, i;

	for (i = 0; i < r->nr_folios; i++) {
		void *addr = pthp_addr(r, i * n + n / 3);

		if (mprotect(addr, psize(), PROT_READ) ||
		    mprotect(addr, psize(), PROT_READ | PROT_WRITE))
			return false;
	}
	return check_huge_anon(r->mem, 0, read_pmd_pagesize());
}

static inline int pthp_mbind_run(void *addr, size_t len, long node)
{
	return pthp_mbind(addr, len, node, MPOL_MF_MOVE_ALL | MPOL_MF_STRICT);
}

/* Name one page of every folio, for move_pages(2); return how many there are. */
static inline long pthp_name_folios(struct pthp *r, int to)
{
	struct pthp_census c;
	long i, nr = -EFAULT;

	if (pthp_census_take(r, &c))
		nr = c.nr;
	for (i = 0; i < nr; i++) {
		r->addrs[i] = pthp_addr(r, c.folios[i].page);
		r->nodes[i] = to;
		r->status[i] = -EINVAL;
	}
	pthp_census_drop(&c);
	return nr;
}

static inline long pthp_move_named(struct pthp *r, long nr)
{
	long ret;

	ret = syscall(__NR_move_pages, 0, nr, r->addrs, r->nodes, r->status,
		      MPOL_MF_MOVE_ALL);
	return ret < 0 ? -errno : ret;
}

static inline long pthp_move_folios(struct pthp *r, int to)
{
	long nr = pthp_name_folios(r, to);

	return nr < 0 ? nr : pthp_move_named(r, nr);
}

/*
 * Migrate the region, shared with other processes or not.  Return what the call
 * does: the number of folios that stayed, or a negative error.
 */
static inline long pthp_migrate(struct pthp *r, enum pthp_call call, int from,
				int to)
{
	switch (call) {
	case PTHP_MOVE_PAGES:
		return pthp_move_folios(r, to);
	case PTHP_MBIND:
		/* Without a hole in the VMA one call will do. */
		if (r->hole == PTHP_DONTNEED || r->nr_mapped == r->nr)
			return pthp_mbind_run(r->mem, (size_t)r->nr * psize(),
					      to);
		return pthp_walk_runs(r, true, pthp_mbind_run, to);
	default:
		return pthp_migrate_process(from, to);
	}
}

/* The number after @name in a file of lines, as /proc/meminfo is one, or -1 */
static inline long pthp_get_kb(const char *path, const char *name)
{
	long value = -1;
	char line[256];
	FILE *f;

	f = fopen(path, "r");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, name, strlen(name))) {
			value = atol(line + strlen(name));
			break;
		}
	}
	fclose(f);
	return value;
}

/* Take a reference on the page at @addr, until pthp_unpin(). */
static inline bool pthp_pin(void *addr, int *pipefd)
{
	struct iovec iov = { .iov_base = addr, .iov_len = psize() };

	return !pipe(pipefd) &&
	       vmsplice(pipefd[1], &iov, 1, 0) == (ssize_t)psize();
}

static inline void pthp_unpin(int *pipefd)
{
	close(pipefd[0]);
	close(pipefd[1]);
}

#endif /* __PARTIAL_THP_H */
