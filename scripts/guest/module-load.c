// SPDX-License-Identifier: GPL-2.0
/*
 * A load for modules to come and go under, and THPs of one shape for the test of
 * mm/watch, which says what is known of them.
 * usage: module-load loop <seconds> [processes]: all shapes back and forth, with checked
 *        contents; ends when there is /tmp/stop, or then
 *        module-load <shape> <call> <THPs> [pinned|again]
 *        module-load heap <MiB> <seed>: a heap with many small holes, and move_pages(2)
 *        module-load cost: instructions of calls that meet no queued folio; needs QEMU's
 *        -icount shift=0, where the TSC counts them
 */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "partial_thp.h"

static int nodes[2];

static int fail(const char *what)
{
	printf("module-load: %s\n", what);
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

/* What the processes of loop() have done */
struct loop {
	unsigned long rounds;
	unsigned long no_thps;
};

/* One round: THPs of one shape, four times to the other node */
static bool loop_round(unsigned int round, struct loop *sum)
{
	enum pthp_shape shape = round % PTHP_NR_SHAPES;
	struct pthp r;
	int i;

	/* For as long as that lasts, there may be none. */
	if (pthp_alloc(&r, 4, pthp_pmd_order(), nodes[0], shape)) {
		pthp_free(&r);
		__atomic_fetch_add(&sum->no_thps, 1, __ATOMIC_RELAXED);
		return true;
	}
	if (pthp_punch(&r, shape, PTHP_DONTNEED))
		return false;
	for (i = 0; i < 4; i++)
		pthp_migrate(&r, round % 2 ? PTHP_MBIND : PTHP_MOVE_PAGES,
			     nodes[i & 1], nodes[!(i & 1)]);
	if (!pthp_intact(&r) || !pthp_holes_empty(&r))
		return false;
	pthp_free(&r);
	__atomic_fetch_add(&sum->rounds, 1, __ATOMIC_RELAXED);
	return true;
}

static int loop(unsigned int seconds, unsigned int processes)
{
	time_t end = time(NULL) + seconds;
	unsigned int i, left;
	int status, bad = 0;
	struct loop *sum;

	sum = mmap(NULL, processes * sizeof(*sum), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (sum == MAP_FAILED)
		return fail("no memory");
	for (i = 0; i < processes; i++) {
		unsigned int round = i;
		pid_t pid = fork();

		if (pid < 0)
			return fail("cannot fork");
		if (pid)
			continue;
		while (time(NULL) < end && access("/tmp/stop", F_OK)) {
			if (!loop_round(round++, &sum[i]))
				_exit(1);
		}
		_exit(!sum[i].rounds);
	}
	for (left = processes; left; left--) {
		if (wait(&status) > 0)
			bad |= status;
	}
	for (i = 1; i < processes; i++) {
		sum[0].rounds += sum[i].rounds;
		sum[0].no_thps += sum[i].no_thps;
	}
	printf("LOAD loop rounds=%lu without_thps=%lu\n", sum[0].rounds, sum[0].no_thps);
	return bad ? fail("contents were lost, or a process did nothing") : 0;
}

static inline uint64_t now(void)
{
	uint32_t lo, hi;

	asm volatile("rdtsc" : "=a" (lo), "=d" (hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

static int by_size(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* @bytes back and forth by mbind(2), or @calls pages by move_pages(2) one by one */
static int cost(const char *what, size_t bytes, int advice, unsigned int calls)
{
	uint64_t t[9];
	unsigned int i, j;
	char *mem;

	mem = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return fail("no memory");
	mem = (char *)(((uintptr_t)mem + bytes - 1) & ~(bytes - 1));
	if (madvise(mem, bytes, advice))
		return fail("madvise");
	pthp_prefer_node(nodes[0]);
	memset(mem, 1, bytes);
	for (i = 0; i < 10; i++) {
		int to = nodes[!(i & 1)], status;
		uint64_t start = now();

		for (j = 0; j < calls; j++) {
			void *addr = mem + j * psize();

			syscall(__NR_move_pages, 0, 1, &addr, &to, &status, MPOL_MF_MOVE);
		}
		if (!calls)
			pthp_mbind(mem, bytes, to, MPOL_MF_MOVE);
		/* the first one warms up */
		if (i)
			t[i - 1] = now() - start;
	}
	qsort(t, 9, sizeof(*t), by_size);
	printf("COST %s instr=%llu\n", what, (unsigned long long)t[4]);
	munmap(mem, bytes);
	return 0;
}

static int costs(void)
{
	return cost("whole_thps", 16 << 20, MADV_HUGEPAGE, 0) ||
	       cost("base_pages", 16 << 20, MADV_NOHUGEPAGE, 0) ||
	       cost("page_by_page", 1 << 20, MADV_NOHUGEPAGE, 256);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!pthp_two_nodes(&nodes[0], &nodes[1]))
		return fail("needs two nodes with memory");
	pthp_keep_out();
	if (argc == 4 && !strcmp(argv[1], "heap"))
		return heap(atoi(argv[2]), atoi(argv[3]));
	if (argc == 2 && !strcmp(argv[1], "cost"))
		return costs();
	if ((argc == 3 || argc == 4) && !strcmp(argv[1], "loop")) {
		int processes = argc == 4 ? atoi(argv[3]) : 1;

		if (processes < 1 || processes > 64)
			return fail("loop takes 1 to 64 processes");
		return loop(atoi(argv[2]), processes);
	}
	if (argc == 4 || argc == 5)
		return one(argv, argc == 5 ? argv[4] : "");
	return fail("see the head of its source");
}
