// SPDX-License-Identifier: GPL-2.0
/*
 * A load for modules to come and go under: threads map THPs, unmap parts of them,
 * migrate them back and forth, and look whether each page has what was written to it.
 *
 * usage: module-load <threads> <file>
 *
 * Runs until <file> exists, and then prints rounds, wrong pages and calls that failed;
 * fails if a page was wrong, or if a thread has done nothing.
 */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THP_SIZE	(2UL << 20)
#define PAGES		512
#define NR_THPS		4
#define MAX_THREADS	8
#define MPOL_BIND	2
#define MPOL_MF_MOVE	(1 << 0 | 1 << 1)	/* strict, too */

struct thread {
	pthread_t id;
	unsigned int seed;
	long rounds, wrong, failed;
};

static volatile bool stop;

/* Is that page of each THP unmapped? */
static bool unmapped(unsigned int shape, unsigned int page)
{
	switch (shape) {
	case 0: return page >= PAGES / 2;
	case 1: return page / 16 & 1;
	case 2: return page != 37;
	case 3: return page % 7 == 3;
	default: return false;
	}
}

static uint64_t content(unsigned long page, unsigned int seed)
{
	return page << 32 | (seed ^ 0x5a5a0000U);
}

static void one_round(struct thread *t)
{
	unsigned int shape = rand_r(&t->seed) % 5, seed = t->seed, hop;
	unsigned long i, size = NR_THPS * THP_SIZE;
	char *map, *mem;

	map = mmap(NULL, size + THP_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED) {
		t->failed++;
		return;
	}
	mem = (char *)(((uintptr_t)map + THP_SIZE - 1) & ~(THP_SIZE - 1));
	madvise(mem, size, MADV_HUGEPAGE);
	for (i = 0; i < NR_THPS * PAGES; i++)
		*(uint64_t *)(mem + i * 4096) = content(i, seed);
	for (i = 0; i < NR_THPS * PAGES; i++) {
		if (unmapped(shape, i % PAGES))
			madvise(mem + i * 4096, 4096, MADV_DONTNEED);
	}
	/* whole, and mapped by PTEs */
	if (shape == 4) {
		mprotect(mem + 4096, 4096, PROT_READ);
		mprotect(mem + 4096, 4096, PROT_READ | PROT_WRITE);
	}
	for (hop = 0; hop < 3; hop++) {
		unsigned long node = hop & 1 ? 1 : 2;

		if (syscall(SYS_mbind, mem, size, MPOL_BIND, &node, 8, MPOL_MF_MOVE))
			t->failed++;
	}
	for (i = 0; i < NR_THPS * PAGES; i++) {
		uint64_t is = *(uint64_t *)(mem + i * 4096);

		if (is != (unmapped(shape, i % PAGES) ? 0 : content(i, seed)))
			t->wrong++;
	}
	munmap(map, size + THP_SIZE);
	t->rounds++;
}

static void *work(void *arg)
{
	while (!stop)
		one_round(arg);
	return NULL;
}

int main(int argc, char **argv)
{
	static struct thread threads[MAX_THREADS];
	struct thread sum = {};
	bool idle = false;
	int i, nr;

	nr = argc == 3 ? atoi(argv[1]) : 0;
	if (nr < 1 || nr > MAX_THREADS) {
		fprintf(stderr, "usage: module-load <threads, up to %d> <file>\n", MAX_THREADS);
		return 2;
	}
	for (i = 0; i < nr; i++) {
		threads[i].seed = i + 1;
		if (pthread_create(&threads[i].id, NULL, work, &threads[i])) {
			perror("pthread_create");
			return 1;
		}
	}
	/* often: an emulator with one thread goes on to the next CPU when a timer ends */
	while (access(argv[2], F_OK))
		usleep(100);
	stop = true;
	for (i = 0; i < nr; i++) {
		pthread_join(threads[i].id, NULL);
		idle |= !threads[i].rounds;
		sum.rounds += threads[i].rounds;
		sum.wrong += threads[i].wrong;
		sum.failed += threads[i].failed;
	}
	printf("LOAD %ld rounds, %ld pages wrong, %ld calls failed\n", sum.rounds, sum.wrong,
	       sum.failed);
	return sum.wrong || idle;
}
