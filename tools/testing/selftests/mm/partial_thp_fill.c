// SPDX-License-Identifier: GPL-2.0
/*
 * migrate_partial_thp_target: processes that fill a node with memory of their own, and
 * what there is room for then.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>

#include "../kselftest.h"
#include "partial_thp.h"

/*
 * Touch memory from @at on in steps of @step bytes until @misses of them in a row are not
 * on @node.  Return where that is.
 */
static char *fill(char *at, const char *end, size_t step, int node, int misses)
{
	int missed = 0;
	size_t i;

	for (; at + step <= end && missed < misses; at += step) {
		for (i = 0; i < step; i += psize())
			at[i] = 1;
		missed = pthp_node_of(at) == node ? 0 : missed + 1;
	}
	return at;
}

/*
 * Map a 1/@share of what @node has, and some more, for THPs.  The policy only prefers the
 * node: when it is full memory comes from elsewhere, and nobody has to be killed.
 */
static char *map_for_node(int node, unsigned int share, char **end)
{
	size_t pmd = read_pmd_pagesize(), len;
	char *mem;

	len = pthp_node_pages(node) * psize() / share;
	if (!len || pthp_prefer_node(node))
		return NULL;
	len = (len + 2 * pmd) & ~(pmd - 1);
	mem = mmap(NULL, len + pmd, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return NULL;
	*end = mem + len + pmd;
	mem = (char *)(((uintptr_t)mem + pmd - 1) & ~(pmd - 1));
	return madvise(mem, *end - mem, MADV_HUGEPAGE) ? NULL : mem;
}

/*
 * CPUs keep some of the THPs that they freed, and let go of them at any time: larger free
 * blocks where there should be none.  Each time they are asked to, they let go of 1/8 of
 * what they may keep.
 */
static bool shrink_pcplists(void)
{
	unsigned int i;

	for (i = 0; i < 64; i++)
		if (!pthp_put("/proc/sys/vm/stat_refresh", "1"))
			return false;
	return true;
}

/**
 * pthp_fill_node - Fill a node with memory of this process.
 * @node: The node.
 * @step: 0, or the size in bytes of blocks.  Every other one, by PFN, is given back.
 *
 * With @step the rest is locked, so that compaction leaves it where it is.  The
 * memory stays until the process ends, and this task prefers the node from now on.
 *
 * Return: true, or false if something fails.  Without @step it is also false if the
 * node did not get full.
 */
bool pthp_fill_node(int node, size_t step)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	char *mem, *at, *end;

	mem = map_for_node(node, 1, &end);
	if (fd < 0 || !mem)
		return false;
	if (!step) {
		size_t pmd = read_pmd_pagesize();

		at = fill(mem, end, pmd, node, 1);
		return !madvise(at, end - at, MADV_NOHUGEPAGE) &&
		       fill(at, end, psize(), node, 512) < end;
	}
	if (!shrink_pcplists() || mlock2(mem, end - mem, MLOCK_ONFAULT))
		return false;
	end = fill(mem, end, step, node, 64);
	for (at = mem; at < end; at += step) {
		unsigned long pfn = pagemap_get_pfn(fd, at);

		if (pfn / (step / psize()) % 2 && pthp_node_of(at) == node &&
		    madvise(at, step, MADV_DONTNEED_LOCKED))
			return false;
	}
	return true;
}

/**
 * pthp_fill_share - Take a share of what a node has.
 * @node: The node.
 * @share: 1 for all of it, 2 for one half, and so on.
 *
 * It stops early if the node has no more.  The memory stays until the process ends,
 * and this task prefers the node from now on.
 *
 * Return: true, or false if it cannot begin.
 */
bool pthp_fill_share(int node, unsigned int share)
{
	char *mem, *end;

	mem = map_for_node(node, share, &end);
	if (!mem)
		return false;
	fill(mem, end, read_pmd_pagesize(), node, 1);
	return true;
}

/**
 * pthp_can_have - Do some folios of an order get to a node in one piece?
 * @from: The node to make them on.
 * @to: The node to migrate them to.
 * @order: Their order.
 *
 * Return: true if all of them are of @order when they are there.
 */
bool pthp_can_have(int from, int to, unsigned int order)
{
	struct pthp_census c = { 0 };
	unsigned int nr = 8;
	struct pthp r;
	bool ok;

	ok = !pthp_alloc(&r, nr, order, from, 1) &&
	     !pthp_mbind_run(r.mem, pthp_len(&r), to) &&
	     pthp_census_take(&r, &c) && c.orders[order] == nr;
	pthp_census_drop(&c);
	pthp_free(&r);
	return ok;
}

/**
 * pthp_split_in_vain - How many folios were split, and none of their pages migrated?
 * @r: The region.  Its folios were of its order, and all of their pages are mapped.
 * @c: Its census.
 * @node: Where its pages were to go.
 *
 * Return: how many.
 */
unsigned int pthp_split_in_vain(const struct pthp *r, const struct pthp_census *c, int node)
{
	bool *fine = calloc(r->nr_folios, sizeof(*fine));
	unsigned int i, n = 0;

	for (i = 0; i < c->nr; i++) {
		if (c->folios[i].order == r->order)
			fine[c->folios[i].page >> r->order] = true;
	}
	if (pthp_on_node(r, node)) {
		for (i = 0; i < r->nr; i++) {
			if (r->status[i] == node)
				fine[i >> r->order] = true;
		}
	}
	for (i = 0; i < r->nr_folios; i++)
		n += !fine[i];
	free(fine);
	return n;
}
