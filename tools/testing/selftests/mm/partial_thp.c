// SPDX-License-Identifier: GPL-2.0
/*
 * Partially mapped large folios: make them, migrate them, and look at what became of
 * them.  See partial_thp.h, which also describes the functions for nodes and
 * those that migrate a region.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "partial_thp.h"

/* ---- shapes: which pages of a folio stay mapped ---- */

const char * const pthp_shape_names[PTHP_NR_SHAPES] = {
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

/**
 * pthp_shape_maps - Does a page of a folio stay mapped?
 * @shape: The shape.
 * @i: Index of the page in the folio.
 * @n: How many pages the folio has.
 * @folio: Index of the folio in its region.
 * @seed: That of the region; only PTHP_RANDOM looks at it and at @folio.
 *
 * Return: true if it stays mapped.
 */
bool pthp_shape_maps(enum pthp_shape shape, unsigned int i, unsigned int n,
		     unsigned int folio, unsigned int seed)
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

const char * const pthp_call_names[PTHP_NR_CALLS] = {
	[PTHP_MOVE_PAGES]	= "move_pages",
	[PTHP_MBIND]		= "mbind",
	[PTHP_MIGRATE_PAGES]	= "migrate_pages",
};

/* ---- nodes ---- */

unsigned long pthp_block_pages(void)
{
	char buf[32];

	if (!pthp_get(PTHP_MEMORY "/block_size_bytes", buf, sizeof(buf)))
		return 0;
	return strtoul(buf, NULL, 16) / psize();
}

void pthp_mask(unsigned long *mask, int node)
{
	const int bits = 8 * sizeof(*mask);

	memset(mask, 0, PTHP_MASK_LONGS * sizeof(*mask));
	mask[node / bits] |= 1UL << (node % bits);
}

int pthp_nodes(int *nodes, int max)
{
	unsigned long mask[PTHP_MASK_LONGS] = { 0 };
	const int bits = 8 * sizeof(*mask);
	int node, found = 0;

	if (syscall(__NR_get_mempolicy, NULL, mask, PTHP_MAX_NODES, NULL,
		    MPOL_F_MEMS_ALLOWED))
		return 0;
	for (node = 0; node < PTHP_MAX_NODES && found < max; node++) {
		if (mask[node / bits] & (1UL << (node % bits)))
			nodes[found++] = node;
	}
	return found;
}

bool pthp_two_nodes(int *a, int *b)
{
	int nodes[2];

	if (pthp_nodes(nodes, 2) < 2)
		return false;
	*a = nodes[0];
	*b = nodes[1];
	return true;
}

static int mbind_mode(void *addr, size_t len, int mode, int node, int flags)
{
	unsigned long mask[PTHP_MASK_LONGS];

	pthp_mask(mask, node);
	return syscall(__NR_mbind, addr, len, mode, mask, PTHP_MAX_NODES + 1, flags) ?
	       -errno : 0;
}

int pthp_mbind(void *addr, size_t len, int node, int flags)
{
	return mbind_mode(addr, len, MPOL_BIND, node, flags);
}

int pthp_mbind_preferred(void *addr, size_t len, int node, int flags)
{
	return mbind_mode(addr, len, MPOL_PREFERRED, node, flags);
}

int pthp_node_of(void *addr)
{
	int node = -1;

	if (syscall(__NR_move_pages, 0, 1, &addr, NULL, &node, 0))
		return -errno;
	return node;
}

int pthp_prefer_node(int node)
{
	unsigned long mask[PTHP_MASK_LONGS];

	pthp_mask(mask, node);
	return syscall(__NR_set_mempolicy, MPOL_PREFERRED, mask,
		       PTHP_MAX_NODES + 1) ? -errno : 0;
}

long pthp_migrate_process(int from, int to)
{
	unsigned long old[PTHP_MASK_LONGS], new[PTHP_MASK_LONGS];
	long ret;

	pthp_mask(old, from);
	pthp_mask(new, to);
	ret = syscall(__NR_migrate_pages, 0, PTHP_MAX_NODES + 1, old, new);
	return ret < 0 ? -errno : ret;
}

unsigned long pthp_node_pages(int node)
{
	char path[64];
	long kb;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/meminfo", node);
	kb = pthp_get_named(path, "MemTotal:");
	return kb < 0 ? 0 : kb / (psize() >> 10);
}

/* ---- regions ---- */

/**
 * pthp_pmd_order - What is the order of a THP?
 *
 * Return: the order, or 0 if there are no THPs.
 */
unsigned int pthp_pmd_order(void)
{
	unsigned long pages = read_pmd_pagesize() / psize();

	return pages ? ffsl(pages) - 1 : 0;
}

/**
 * pthp_fill - Write to a page the content that pthp_intact() expects.
 * @r: The region.
 * @page: Index of the page in the region.
 */
void pthp_fill(struct pthp *r, unsigned int page)
{
	uint64_t *p = pthp_addr(r, page), stamp = pthp_stamp(r, page);
	unsigned int i;

	for (i = 0; i < PTHP_WORDS; i++)
		p[i] = stamp + i;
}

/**
 * pthp_intact - Have all mapped pages of a region the content they were given?
 * @r: The region.
 *
 * Return: true if so.  Otherwise the first eight that do not are written to stderr.
 */
bool pthp_intact(const struct pthp *r)
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

/**
 * pthp_zeroed - Is a page full of zeroes?
 * @p: The page.
 *
 * Return: true if so.
 */
bool pthp_zeroed(const uint64_t *p)
{
	unsigned int i;

	for (i = 0; i < PTHP_WORDS; i++) {
		if (p[i])
			return false;
	}
	return true;
}

/**
 * pthp_holes_empty - Do the unmapped pages read as nothing or as zeroes?
 * @r: The region.
 *
 * They read as nothing after munmap(2), and as zeroes after MADV_DONTNEED.  The read
 * maps the zero page there, so that a second call returns false.
 *
 * Return: true if so.  Otherwise the first eight that do not are written to stderr.
 */
bool pthp_holes_empty(const struct pthp *r)
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

static int pthp_cmp_folio(const void *a, const void *b)
{
	const struct pthp_folio *x = a, *y = b;

	if (x->pfn != y->pfn)
		return x->pfn < y->pfn ? -1 : 1;
	return x->page < y->page ? -1 : x->page > y->page;
}

/**
 * pthp_folio_of - Find the folio of a page by page flags.
 * @f: Gets the PFN of the head, and the order.
 * @pfn: PFN of the page.
 * @win: Flags of the @n naturally aligned pages around it.
 * @n: How many pages the largest folio has.
 */
void pthp_folio_of(struct pthp_folio *f, unsigned long pfn,
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

/**
 * pthp_read_flags - Read page flags, as /proc/kpageflags has them.
 * @r: The region, which has that file open.
 * @pfn: PFN of the first page.
 * @flags: The flags.
 * @n: How many pages.
 *
 * Return: true if all could be read.
 */
bool pthp_read_flags(const struct pthp *r, unsigned long pfn,
		     uint64_t *flags, unsigned int n)
{
	ssize_t len = n * sizeof(*flags);

	return pread(r->kpageflags, flags, len, pfn * sizeof(*flags)) == len;
}

/**
 * pthp_census_take - Find the folios behind the mapped pages of a region.
 * @r: The region.
 * @c: Gets the folios, by ascending PFN.  pthp_census_drop() has to free it.
 *
 * Return: true, or false if mapped pages are not present; stderr has their number.
 */
bool pthp_census_take(const struct pthp *r, struct pthp_census *c)
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

/**
 * pthp_census_drop - Free a census.
 * @c: The census.
 */
void pthp_census_drop(struct pthp_census *c)
{
	free(c->folios);
	c->folios = NULL;
}

/**
 * pthp_orders_str - Write numbers of folios as "9:8,0:4", the largest order first.
 * @orders: How many there are of each order, up to PTHP_MAX_ORDER.
 * @buf: Where it is written, and cut if it is too long.
 * @len: Size of @buf in bytes.
 *
 * Return: @buf, or "none".
 */
const char *pthp_orders_str(const unsigned int *orders, char *buf, size_t len)
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

/**
 * pthp_on_node - How many mapped pages of a region are on a node?
 * @r: The region.
 * @node: The node.
 *
 * Return: how many pages, or 0 if move_pages(2) fails.
 */
unsigned int pthp_on_node(const struct pthp *r, int node)
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

/**
 * pthp_left_behind - How many pages are anonymous memory mapped by nobody?
 * @r: The region.  The pages are those of the folios it began with.
 *
 * Free pages are not anonymous, and those somebody else got are mapped.
 *
 * Return: how many pages.  All pages of a folio count if it cannot be looked at.
 */
unsigned int pthp_left_behind(const struct pthp *r)
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

/**
 * pthp_free - Unmap a region and free what belongs to it.
 * @r: The region.  It is zeroed, and nothing is done if it is already.
 */
void pthp_free(struct pthp *r)
{
	if (!r->mem)
		return;
	munmap(r->mem, pthp_len(r));
	close(r->pagemap);
	close(r->kpageflags);
	free(r->mapped);
	free(r->addrs);
	free(r->status);
	free(r->nodes);
	free(r->src);
	memset(r, 0, sizeof(*r));
}

/**
 * pthp_alloc - Map and fill a region.
 * @r: The region; pthp_free() frees it, also if this fails.
 * @nr_folios: How many large folios.
 * @order: Their order.
 * @node: The node they are on.
 * @seed: What contents and PTHP_RANDOM are made of.
 *
 * The order is asked for by MADV_HUGEPAGE, and a smaller one than that of the PMD by
 * a region too short for it.  khugepaged is kept out.
 *
 * Return: NULL, or what is missing.
 */
const char *pthp_alloc(struct pthp *r, unsigned int nr_folios,
		       unsigned int order, int node, unsigned int seed)
{
	size_t pmd = read_pmd_pagesize(), len, slack;
	struct pthp_census c;
	unsigned int i;
	char *mem;
	bool ok;

	memset(r, 0, sizeof(*r));
	r->pagemap = -1;
	r->kpageflags = -1;
	if (!pmd || order > pthp_pmd_order())
		return "no transparent huge pages";
	r->order = order;
	r->nr_folios = nr_folios;
	r->nr = nr_folios << order;
	r->nr_mapped = r->nr;
	r->seed = seed;
	len = pthp_len(r);

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

/**
 * pthp_walk_runs - Call a function for runs of pages that are mapped, or are not.
 * @r: The region.
 * @mapped: Whether they are mapped.
 * @fn: The function; it gets the address, the length in bytes and @arg.
 * @arg: Whatever it needs.
 *
 * Return: 0, or the first error of @fn; it is called for the other runs, too.
 */
int pthp_walk_runs(struct pthp *r, bool mapped, pthp_run_fn fn, long arg)
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

/**
 * pthp_punch_run - Unmap memory, for pthp_walk_runs().
 * @addr: Its address.
 * @len: Its length in bytes.
 * @hole: An enum pthp_hole: how.
 *
 * Return: 0, or a negative error.
 */
int pthp_punch_run(void *addr, size_t len, long hole)
{
	int err;

	if (hole == PTHP_MUNMAP)
		err = munmap(addr, len);
	else
		err = madvise(addr, len, MADV_DONTNEED);
	return err ? -errno : 0;
}

/**
 * pthp_punch - Unmap what a shape does not map, in this process.
 * @r: The region.
 * @shape: The shape.
 * @hole: How to unmap it.
 *
 * Return: 0, or the first error, which is negative.
 */
int pthp_punch(struct pthp *r, enum pthp_shape shape, enum pthp_hole hole)
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

/**
 * pthp_map_by_ptes - Have whole THPs mapped by PTEs.
 * @r: The region.
 *
 * Return: true if no PMD maps any of them any more.
 */
bool pthp_map_by_ptes(const struct pthp *r)
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

/**
 * pthp_mbind_run - Migrate memory by mbind(2), for pthp_walk_runs().
 * @addr: Its address.
 * @len: Its length in bytes.
 * @node: The node it is to go to.
 *
 * Return: 0, or a negative error: -EIO if some of it stayed.
 */
int pthp_mbind_run(void *addr, size_t len, long node)
{
	return pthp_mbind(addr, len, node, MPOL_MF_MOVE_ALL | MPOL_MF_STRICT);
}

long pthp_name_folios(struct pthp *r, int to)
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

long pthp_move_named(struct pthp *r, long nr)
{
	long ret;

	ret = syscall(__NR_move_pages, 0, nr, r->addrs, r->nodes, r->status,
		      MPOL_MF_MOVE_ALL);
	return ret < 0 ? -errno : ret;
}

long pthp_move_folios(struct pthp *r, int to)
{
	long nr = pthp_name_folios(r, to);

	return nr < 0 ? nr : pthp_move_named(r, nr);
}

long pthp_migrate(struct pthp *r, enum pthp_call call, int from, int to)
{
	switch (call) {
	case PTHP_MOVE_PAGES:
		return pthp_move_folios(r, to);
	case PTHP_MBIND:
		/* Without a hole in the VMA one call will do. */
		if (r->hole == PTHP_DONTNEED || r->nr_mapped == r->nr)
			return pthp_mbind_run(r->mem, pthp_len(r), to);
		return pthp_walk_runs(r, true, pthp_mbind_run, to);
	default:
		return pthp_migrate_process(from, to);
	}
}

/**
 * pthp_pin - Take a reference on a page, until pthp_unpin().
 * @addr: Its address.
 * @pipefd: The two ends of the pipe that has it.
 *
 * Return: true, or false if there is no pipe or the page did not get into it.
 */
bool pthp_pin(void *addr, int *pipefd)
{
	struct iovec iov = { .iov_base = addr, .iov_len = psize() };

	return !pipe(pipefd) &&
	       vmsplice(pipefd[1], &iov, 1, 0) == (ssize_t)psize();
}

/* ---- userfaultfd(2) ---- */

/**
 * pthp_uffd_open - Open a userfaultfd that can write-protect.
 * @uffd: The file descriptor, or -1.
 *
 * Return: NULL, or what is missing.
 */
const char *pthp_uffd_open(int *uffd)
{
	struct uffdio_api api = {
		.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};

	*uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (*uffd < 0)
		return "no userfaultfd(2)";
	if (!ioctl(*uffd, UFFDIO_API, &api))
		return NULL;
	close(*uffd);
	*uffd = -1;
	return "no userfaultfd write protection";
}

/**
 * pthp_uffd_protect - Write-protect memory that is registered, or no longer.
 * @uffd: The userfaultfd.
 * @addr: Address of the memory.
 * @len: Its length in bytes.
 * @protect: false: do not write-protect it any longer.
 *
 * Return: 0, or a negative error.
 */
int pthp_uffd_protect(int uffd, void *addr, size_t len, bool protect)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)addr, .len = len },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}
