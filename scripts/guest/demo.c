// SPDX-License-Identifier: GPL-2.0
/*
 * What migration does to partially unmapped THPs, by shape: one line for each,
 * in the form that scripts/demo-table reads.  "copied" is what the folios that
 * hold the mapped pages take on the target node, "freed" what they no longer
 * take altogether; the rest is the difference in /proc/vmstat.
 */
#include "partial_thp.h"

#define NR_THPS 8

static const enum pthp_shape shapes[] = {
	PTHP_ALL, PTHP_FIRST_HALF, PTHP_THREE_QUARTERS, PTHP_CB64K,
	PTHP_ALTERNATE, PTHP_ALL_BUT_ONE, PTHP_ONE_PAGE,
};

static const enum pthp_call calls[] = { PTHP_MBIND, PTHP_MOVE_PAGES };

static int fail(const char *what)
{
	printf("demo: %s\n", what);
	return 1;
}

/* Folios do not span nodes: the node of one page is that of the folio. */
static unsigned long held_on(struct pthp *r, const struct pthp_census *c,
			     int node)
{
	unsigned long held = 0;
	unsigned int i;

	for (i = 0; i < c->nr; i++)
		r->addrs[i] = pthp_addr(r, c->folios[i].page);
	if (syscall(__NR_move_pages, 0, c->nr, r->addrs, NULL, r->status, 0))
		return 0;
	for (i = 0; i < c->nr; i++) {
		if (r->status[i] == node)
			held += 1ul << c->folios[i].order;
	}
	return held;
}

/* With @again, whole THPs mapped by PTEs that come back from the other node */
static int show(enum pthp_shape shape, bool again, enum pthp_call call, int src,
		int dst)
{
	unsigned long kb = psize() >> 10, copied;
	struct pthp_census before, after;
	struct pthp_vmstat d, start;
	const char *missing;
	char orders[128];
	struct pthp r;
	long ret;

	missing = pthp_alloc(&r, NR_THPS, pthp_pmd_order(), src, shape);
	if (missing)
		return fail(missing);
	if (pthp_punch(&r, shape, PTHP_DONTNEED))
		return fail("cannot unmap");
	if (again) {
		int node = src;

		if (!pthp_map_by_ptes(&r))
			return fail("cannot map by PTEs");
		/* 6.1 says that it failed when it did not; see where they are */
		pthp_migrate(&r, call, src, dst);
		if (pthp_on_node(&r, dst) != r.nr_mapped)
			return fail("cannot migrate the first time");
		src = dst;
		dst = node;
	}
	if (!pthp_census_take(&r, &before) || !pthp_vmstat_read(&start))
		return fail("cannot read the state before migration");
	ret = pthp_migrate(&r, call, src, dst);
	if (!pthp_vmstat_read(&d) || !pthp_census_take(&r, &after))
		return fail("cannot read the state after migration");
	pthp_vmstat_sub(&d, &start);
	copied = held_on(&r, &after, dst);

	printf("DEMO shape=%s call=%s", again ? "all_by_PTEs,_again" :
	       pthp_shape_names[shape], pthp_call_names[call]);
	printf(" mapped_kb=%lu copied_kb=%lu freed_kb=%ld orders=%s",
	       r.nr_mapped * kb, copied * kb,
	       (long)(before.held - after.held) * (long)kb,
	       pthp_orders_str(after.orders, orders, sizeof(orders)));
	printf(" succ=%ld fail=%ld split=%ld thp_ok=%ld thp_fail=%ld\n",
	       d.v[PTHP_PGMIGRATE_SUCCESS], d.v[PTHP_PGMIGRATE_FAIL],
	       d.v[PTHP_THP_MIGRATION_SPLIT], d.v[PTHP_THP_MIGRATION_SUCCESS],
	       d.v[PTHP_THP_MIGRATION_FAIL]);
	if (ret)
		printf("# %s returned %ld\n", pthp_call_names[call], ret);
	if (pthp_on_node(&r, dst) != r.nr_mapped)
		return fail("not every mapped page is on the target node");
	if (!pthp_intact(&r) || !pthp_holes_empty(&r))
		return fail("contents were lost");

	pthp_census_drop(&before);
	pthp_census_drop(&after);
	pthp_free(&r);
	return 0;
}

int main(void)
{
	unsigned int i, j;
	int src, dst;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!thp_is_enabled())
		return fail("transparent huge pages are not enabled");
	if (!pthp_two_nodes(&src, &dst))
		return fail("needs two nodes with memory");
	pthp_balancing(0);

	printf("# %u THPs of %lu KiB from node %d to node %d\n", NR_THPS,
	       (unsigned long)read_pmd_pagesize() >> 10, src, dst);
	for (i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		for (j = 0; j < sizeof(shapes) / sizeof(*shapes); j++) {
			if (show(shapes[j], false, calls[i], src, dst))
				return 1;
		}
		if (show(PTHP_ALL, true, calls[i], src, dst))
			return 1;
	}
	return 0;
}
