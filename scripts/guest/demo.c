// SPDX-License-Identifier: GPL-2.0
/*
 * What migration does to partially unmapped THPs, by shape: one line for each,
 * in the form that scripts/judge/demo-table reads.  "copied" is what the folios that
 * hold the mapped pages take on the target node, "freed" what they no longer
 * take altogether; the rest is the difference in /proc/vmstat.
 */
#include "partial_thp.h"

#define NR_THPS 8

static const struct scene {
	enum pthp_shape shape;
	const char *name;	/* if it is not just the shape */
	bool again;	/* whole, mapped by PTEs, and back from the other node */
	bool sparse;	/* one page has data, one is unmapped, the rest are zeroes */
} scenes[] = {
	{ PTHP_ALL }, { PTHP_FIRST_HALF }, { PTHP_THREE_QUARTERS }, { PTHP_CB64K },
	{ PTHP_ALTERNATE }, { PTHP_ALL_BUT_ONE }, { PTHP_ONE_PAGE },
#ifdef HAVE_SPLIT_FREES_ZEROES
	{ PTHP_ONE_PAGE, "sparse", .sparse = true },
#endif
	{ PTHP_ALL, "all_by_PTEs,_again", .again = true },
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

static int zero_run(void *addr, size_t len, long arg)
{
	memset(addr, 0, len);
	return 0;
}

/* What holds no data counts as unmapped: it takes no memory afterwards. */
static int make_sparse(struct pthp *r)
{
	unsigned int n = 1u << r->order, page;

	r->hole = PTHP_DONTNEED;
	r->nr_mapped = 0;
	for (page = 0; page < r->nr; page++) {
		r->mapped[page] = pthp_shape_maps(PTHP_ONE_PAGE, page % n, n,
						  page / n, r->seed);
		r->nr_mapped += r->mapped[page];
	}
	if (pthp_walk_runs(r, false, zero_run, 0))
		return -1;
	for (page = n - 1; page < r->nr; page += n) {
		if (pthp_punch_run(pthp_addr(r, page - r->mapped[page]), psize(),
				   r->hole))
			return -1;
	}
	return 0;
}

static int show(const struct scene *scene, enum pthp_call call, int src, int dst)
{
	enum pthp_shape shape = scene->shape;
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
	if (scene->sparse ? make_sparse(&r) : pthp_punch(&r, shape, PTHP_DONTNEED))
		return fail("cannot unmap");
	if (scene->again) {
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

	printf("DEMO shape=%s call=%s", scene->name ? scene->name :
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
	/* What has no data there is still mapped, by the shared zero page or not. */
	if (!pthp_intact(&r) || (!scene->sparse && !pthp_holes_empty(&r)))
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
	pthp_keep_out();

	printf("# %u THPs of %lu KiB from node %d to node %d\n", NR_THPS,
	       (unsigned long)read_pmd_pagesize() >> 10, src, dst);
	for (i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		for (j = 0; j < sizeof(scenes) / sizeof(*scenes); j++) {
			if (show(&scenes[j], calls[i], src, dst))
				return 1;
		}
	}
	return 0;
}
