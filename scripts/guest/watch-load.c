// SPDX-License-Identifier: GPL-2.0
/*
 * Migrate THPs of one shape, for the test of mm/watch, and say what is known of them.
 * usage: watch-load <shape> <call> <THPs> [pinned|again]
 *        watch-load heap <MiB> <seed>: a heap with many small holes, and move_pages(2)
 *        watch-load loop <seconds>: all shapes to and fro, with checked contents
 */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "partial_thp.h"

static int nodes[2];

static int fail(const char *what)
{
	printf("watch-load: %s\n", what);
	return 1;
}

static int find(const char *name, const char * const *names, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!strcmp(name, names[i]))
			return i;
	}
	return -1;
}

static void show(const char *what, const struct pthp *r, unsigned long kept_kb)
{
	unsigned long kb = psize() >> 10;

	printf("LOAD %s thps=%u mapped_kb=%lu unmapped_kb=%lu kept_kb=%lu\n", what,
	       r->nr_folios, r->nr_mapped * kb, (r->nr - r->nr_mapped) * kb, kept_kb);
}

/* References of a pipe on the first mapped page of each folio */
static bool pin(struct pthp *r)
{
	unsigned int i, n = r->nr / r->nr_folios, j;
	int fds[2];

	for (i = 0; i < r->nr_folios; i++) {
		for (j = i * n; !r->mapped[j]; j++)
			;
		if (!pthp_pin(pthp_addr(r, j), fds))
			return false;
	}
	return true;
}

static int one(char **argv, const char *how)
{
	int shape = find(argv[1], pthp_shape_names, PTHP_NR_SHAPES);
	int call = find(argv[2], pthp_call_names, PTHP_NR_CALLS);
	const char *missing;
	struct pthp r;

	if (shape < 0 || call < 0)
		return fail("no such shape or call");
	missing = pthp_alloc(&r, atoi(argv[3]), pthp_pmd_order(), nodes[0], shape);
	if (missing)
		return fail(missing);
	if (pthp_punch(&r, shape, PTHP_DONTNEED))
		return fail("cannot unmap");
	if (!strcmp(how, "pinned") && !pin(&r))
		return fail("cannot pin");
	show(argv[1], &r, 0);
	pthp_migrate(&r, call, nodes[0], nodes[1]);
	if (!strcmp(how, "again"))
		pthp_migrate(&r, call, nodes[1], nodes[0]);
	if (!pthp_intact(&r) || !pthp_holes_empty(&r))
		return fail("contents were lost");
	if (strcmp(how, "pinned") && !strcmp(how, "again") == !pthp_on_node(&r, nodes[0]))
		return fail("not on the target node");
	return 0;
}

/*
 * What an allocator does that frees what it can: runs of pages, of any length and
 * anywhere.  Counted by folio, as a THP of which all or nothing is mapped is not
 * partially mapped.
 */
static int heap(unsigned long mb, unsigned int seed)
{
	unsigned int nr = mb * 256, i, j, n, folio = 1u << pthp_pmd_order();
	unsigned long mapped = 0, unmapped = 0, partial = 0, kb = psize() >> 10;
	const char *missing;
	struct pthp r;

	missing = pthp_alloc(&r, nr / folio, pthp_pmd_order(), nodes[0], PTHP_ALL);
	if (missing)
		return fail(missing);
	r.hole = PTHP_DONTNEED;
	srand(seed);
	for (i = rand() % 64; i < nr; i += 1 + rand() % 64) {
		n = 1 + rand() % 8;
		if (i + n > nr)
			n = nr - i;
		if (madvise(pthp_addr(&r, i), n * psize(), MADV_DONTNEED))
			return fail("cannot unmap");
		for (; n; n--)
			r.mapped[i++] = false;
	}
	for (r.nr_mapped = 0, i = 0; i < nr; i++)
		r.nr_mapped += r.mapped[i];
	for (i = 0; i < nr; i += folio) {
		for (n = 0, j = i; j < i + folio; j++)
			n += r.mapped[j];
		if (!n || n == folio)
			continue;
		partial++;
		mapped += n;
		unmapped += folio - n;
	}
	printf("LOAD heap thps=%lu mapped_kb=%lu unmapped_kb=%lu kept_kb=0\n", partial,
	       mapped * kb, unmapped * kb);
	/* mbind(2) of 6.1 ignores a THP whose first page is not mapped. */
	pthp_migrate(&r, PTHP_MOVE_PAGES, nodes[0], nodes[1]);
	if (!pthp_intact(&r) || !pthp_holes_empty(&r))
		return fail("contents were lost");
	return 0;
}

static int loop(unsigned int seconds)
{
	time_t end = time(NULL) + seconds;
	unsigned long rounds = 0;

	while (time(NULL) < end) {
		enum pthp_shape shape = rounds % PTHP_NR_SHAPES;
		const char *missing;
		struct pthp r;
		int i;

		missing = pthp_alloc(&r, 4, pthp_pmd_order(), nodes[0], shape);
		if (missing)
			return fail(missing);
		if (pthp_punch(&r, shape, PTHP_DONTNEED))
			return fail("cannot unmap");
		for (i = 0; i < 4; i++)
			pthp_migrate(&r, rounds % 2 ? PTHP_MBIND : PTHP_MOVE_PAGES,
				     nodes[i & 1], nodes[!(i & 1)]);
		if (!pthp_intact(&r) || !pthp_holes_empty(&r))
			return fail("contents were lost");
		pthp_free(&r);
		rounds++;
	}
	printf("LOAD loop rounds=%lu\n", rounds);
	return rounds ? 0 : fail("no round");
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!pthp_two_nodes(&nodes[0], &nodes[1]))
		return fail("needs two nodes with memory");
	pthp_balancing(0);
	if (argc == 4 && !strcmp(argv[1], "heap"))
		return heap(atoi(argv[2]), atoi(argv[3]));
	if (argc == 3 && !strcmp(argv[1], "loop"))
		return loop(atoi(argv[2]));
	if (argc == 4 || argc == 5)
		return one(argv, argc == 5 ? argv[4] : "");
	return fail("see the head of its source");
}
