// SPDX-License-Identifier: GPL-2.0
/*
 * The region for "compare": where each page is, in what folio, how it is mapped
 * and what it contains.
 */
#include "compare.h"

#define KPF_ZERO_PAGE	BIT_ULL(24)
#define PFN(entry)	((entry) & (BIT_ULL(55) - 1))
#define PM_EXCLUSIVE	BIT_ULL(56)

#define NR_SAME		32

static uint64_t word_of(const struct subject *sub, unsigned int page,
			unsigned int i)
{
	switch (sub->content[page]) {
	case ZEROED:
		return 0;
	case SAME:
		return (uint64_t)(page % NR_SAME + 1) << 32 | i;
	default:
		return pthp_stamp(&sub->r, page) + i;
	}
}

void fill_page(struct subject *sub, unsigned int page)
{
	uint64_t *p = pthp_addr(&sub->r, page);
	unsigned int i;

	for (i = 0; i < PTHP_WORDS; i++)
		p[i] = word_of(sub, page, i);
}

/* How many mapped pages have not the content they were given? */
unsigned int wrong_pages(const struct subject *sub)
{
	unsigned int page, i, bad = 0;

	for (page = 0; page < sub->r.nr; page++) {
		const uint64_t *p = pthp_addr(&sub->r, page);

		if (!sub->r.mapped[page])
			continue;
		for (i = 0; i < PTHP_WORDS && p[i] == word_of(sub, page, i); i++)
			;
		bad += i < PTHP_WORDS;
	}
	return bad;
}

/* How many pages are there where there should be none? */
unsigned int full_holes(const struct subject *sub)
{
	unsigned int page, bad = 0;

	for (page = 0; page < sub->r.nr; page++) {
		if (!sub->r.mapped[page])
			bad += !!(pagemap_get_entry(sub->r.pagemap,
						    pthp_addr(&sub->r, page)) &
				  (PM_PRESENT | PM_SWAP));
	}
	return bad;
}

static int by_number(const void *a, const void *b)
{
	const unsigned long *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Of an entry that is not present, as a page is being migrated, or a folio is being split */
static bool is_migrating(uint64_t entry)
{
	const uint64_t swap_type = 0x1f;

	/* there is one swap device at most, which is number 0 */
	return entry & PM_SWAP && entry & swap_type;
}

/* If the shrinker, say, is at work on the region, wait for it. */
static unsigned int read_pagemap(int fd, const struct pthp *r, uint64_t *entries)
{
	ssize_t len = r->nr * sizeof(*entries);
	off_t at = (uintptr_t)r->mem / psize() * sizeof(*entries);
	unsigned int tries, i;

	for (tries = 0; tries < 500; tries++) {
		memset(entries, 0, len);
		if (pread(fd, entries, len, at) != len)
			return 0;
		for (i = 0; i < r->nr && !is_migrating(entries[i]); i++)
			;
		if (i == r->nr)
			break;
		usleep(10000);
	}
	return r->nr;
}

/* What one process maps, and how */
static void read_entries(struct snap *s, const struct pthp *r,
			 const uint64_t *entries, const char *who)
{
	long present = 0, swapped = 0, wp = 0, dirty = 0, exclusive = 0;
	long ascending = 0, descending = 0;
	unsigned long last = 0, pfn;
	unsigned int page;

	for (page = 0; page < r->nr; page++) {
		uint64_t e = entries[page];

		pfn = e & PM_PRESENT ? PFN(e) : 0;
		present += !!(e & PM_PRESENT);
		swapped += !!(e & PM_SWAP);
		wp += !!(e & PM_UFFD_WP);
		dirty += pfn && e & PM_SOFT_DIRTY;
		exclusive += pfn && e & PM_EXCLUSIVE;
		ascending += pfn && pfn == last + 1;
		descending += pfn && pfn + 1 == last;
		last = pfn;
	}
	add(s, VALUE, present, "%s.present", who);
	add(s, VALUE, swapped, "%s.swapped", who);
	add(s, VALUE, wp, "%s.uffd_wp", who);
	add(s, VALUE, dirty, "%s.soft_dirty", who);
	add(s, VALUE, exclusive, "%s.exclusive", who);
	add(s, VALUE, ascending, "%s.ascending", who);
	add(s, VALUE, descending, "%s.descending", who);
}

/* The folios that hold what anybody maps */
static void read_folios(struct snap *s, struct subject *sub, unsigned long *pfns,
			unsigned int nr, int target)
{
	long zero = 0, mapped = 0, count = 0, mlocked = 0, on_target = 0;
	long held[2] = { 0 }, orders[PTHP_MAX_ORDER + 1] = { 0 };
	unsigned long last = -1ul, base = -1ul, head = -1ul;
	unsigned int n = 1u << pthp_pmd_order(), i;
	uint64_t *win = calloc(n, sizeof(*win));
	struct pthp_folio f;

	qsort(pfns, nr, sizeof(*pfns), by_number);
	for (i = 0; i < nr; i++) {
		unsigned long pfn = pfns[i];

		if (base != pfn - pfn % n) {
			base = pfn - pfn % n;
			if (!pthp_read_flags(&sub->r, base, win, n))
				memset(win, 0, n * sizeof(*win));
		}
		if (win[pfn % n] & KPF_ZERO_PAGE) {
			zero++;
			continue;
		}
		if (pfn == last)
			continue;
		last = pfn;
		mapped++;
		on_target += node_of_pfn(pfn) == target;
		pthp_folio_of(&f, pfn, win, n);
		if (f.pfn == head)
			continue;
		head = f.pfn;
		count++;
		held[node_of_pfn(f.pfn)] += 1l << f.order;
		orders[f.order] += 1l << f.order;
		if (win[f.pfn % n] & PTHP_KPF_MLOCKED)
			mlocked += 1l << f.order;
	}
	add(s, VALUE, zero, "page.zero");
	add(s, VALUE, mapped, "page.mapped");
	add(s, VALUE, on_target - sub->on_target, "page.moved");
	add(s, VALUE, count, "folio.count");
	add(s, VALUE, held[0] + held[1], "folio.held");
	add(s, VALUE, held[0], "folio.held_node0");
	add(s, VALUE, held[1], "folio.held_node1");
	add(s, VALUE, mlocked, "folio.mlocked");
	for (i = 0; i <= PTHP_MAX_ORDER; i++)
		add(s, VALUE, orders[i], "folio.pages_of_order%u", i);
	sub->on_target = on_target;
	free(win);
}

/* Does each page lie where it was sent?  What is not there is not asked for. */
static void read_placement(struct snap *s, const struct subject *sub,
			   const uint64_t *entries)
{
	const struct pthp *r = &sub->r;
	unsigned int page, n = 0, i;
	long on[2] = { 0 }, misplaced = 0;

	for (page = 0; page < r->nr; page++) {
		if (!(entries[page] & PM_PRESENT))
			continue;
		r->nodes[n] = sub->want[page];
		r->addrs[n++] = pthp_addr(r, page);
	}
	if (!n || syscall(__NR_move_pages, 0, n, r->addrs, NULL, r->status, 0))
		return;
	for (i = 0; i < n; i++) {
		if (r->status[i] != 0 && r->status[i] != 1)
			continue;	/* the zero page */
		on[r->status[i]]++;
		misplaced += r->status[i] != r->nodes[i];
	}
	add(s, VALUE, on[0], "page.on_node0");
	add(s, VALUE, on[1], "page.on_node1");
	add(s, VALUE, misplaced, "page.misplaced");
}

void read_region(struct snap *s, struct subject *sub, int target)
{
	const struct pthp *r = &sub->r;
	uint64_t *entries = malloc(r->nr * sizeof(*entries));
	unsigned long *pfns = malloc(2 * r->nr * sizeof(*pfns));
	unsigned int i, nr = 0, who;

	for (who = 0; who < 2; who++) {
		if (who && !sub->other)
			break;
		if (!read_pagemap(who ? sub->other_pagemap : r->pagemap, r, entries))
			continue;
		read_entries(s, r, entries, who ? "other" : "self");
		for (i = 0; i < r->nr; i++) {
			if (entries[i] & PM_PRESENT && PFN(entries[i]))
				pfns[nr++] = PFN(entries[i]);
		}
		if (!who)
			read_placement(s, sub, entries);
	}
	read_folios(s, sub, pfns, nr, target);
	free(entries);
	free(pfns);
}

/* Sums over the VMAs of the region, of one process */
static void read_smaps(struct snap *s, const struct pthp *r, pid_t pid,
		       const char *who)
{
	unsigned long mem = (uintptr_t)r->mem, end = mem + (size_t)r->nr * psize();
	unsigned long from, to;
	char line[256], name[64];
	bool in = false;
	long value;
	FILE *f;

	snprintf(line, sizeof(line), "/proc/%d/smaps", pid);
	f = fopen(line, "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			if (from >= end)
				break;
			in = to > mem;
			if (in)
				add(s, VALUE, 1, "%s.vmas", who);
		} else if (in && sscanf(line, "%63[^:]: %ld kB", name, &value) == 2 &&
			   strcmp(name, "Size") && !strstr(name, "PageSize")) {
			add(s, VALUE, value, "%s.%s", who, name);
		}
	}
	if (f)
		fclose(f);
}

static void read_rollup(struct snap *s)
{
	static const char * const wanted[] = {
		"Rss", "Anonymous", "AnonHugePages", "Locked", "Swap"
	};
	char line[256], name[64];
	unsigned int i;
	long value;
	FILE *f;

	f = fopen("/proc/self/smaps_rollup", "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63[^:]: %ld kB", name, &value) != 2)
			continue;
		for (i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
			if (!strcmp(name, wanted[i]))
				add(s, LEVEL, value, "rollup.%s", name);
		}
	}
	if (f)
		fclose(f);
}

static void read_numa_maps(struct snap *s, const struct pthp *r)
{
	unsigned long mem = (uintptr_t)r->mem, end = mem + (size_t)r->nr * psize();
	char line[512], *word, *value, *at;
	unsigned long from;
	FILE *f;

	f = fopen("/proc/self/numa_maps", "r");
	while (f && fgets(line, sizeof(line), f)) {
		from = strtoul(line, NULL, 16);
		if (from < mem || from >= end)
			continue;
		for (word = strtok_r(line, " \n", &at); word;
		     word = strtok_r(NULL, " \n", &at)) {
			value = strchr(word, '=');
			if (!value || !strncmp(word, "mapmax", 6) ||
			    !strncmp(word, "kernelpagesize", 14))
				continue;
			*value++ = '\0';
			add(s, VALUE, atol(value), "numa.%s", word);
		}
	}
	if (f)
		fclose(f);
}

void read_maps(struct snap *s, const struct subject *sub)
{
	read_rollup(s);
	if (!sub->r.mem)
		return;
	read_smaps(s, &sub->r, getpid(), "smaps");
	read_numa_maps(s, &sub->r);
	if (sub->other)
		read_smaps(s, &sub->r, sub->other, "other");
}
