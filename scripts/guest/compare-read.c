// SPDX-License-Identifier: GPL-2.0
/*
 * Machine-wide statistics for "compare": /proc/vmstat, meminfo, zoneinfo, nodes,
 * THP sizes, TLB interrupts and the case's memory cgroup.
 */
#include <dirent.h>

#include "compare.h"

#define THP_SYSFS	"/sys/kernel/mm/transparent_hugepage"

void add(struct snap *s, enum metric_kind kind, long value, const char *fmt, ...)
{
	struct metric *m = &s->m[s->nr];
	unsigned int i;
	va_list ap;

	if (s->nr == MAX_METRICS) {
		printf("compare: too many metrics\n");
		exit(1);
	}
	va_start(ap, fmt);
	vsnprintf(m->name, sizeof(m->name), fmt, ap);
	va_end(ap);
	m->kind = kind;
	m->value = value;
	/* What comes in parts is summed up: newest first, as parts come together. */
	for (i = s->nr; i-- > 0; ) {
		if (!strcmp(s->m[i].name, m->name)) {
			s->m[i].value += value;
			return;
		}
	}
	s->nr++;
}

static const struct metric *find(const struct snap *s, const char *name,
				 unsigned int hint)
{
	unsigned int i;

	if (hint < s->nr && !strcmp(s->m[hint].name, name))
		return &s->m[hint];
	for (i = 0; i < s->nr; i++) {
		if (!strcmp(s->m[i].name, name))
			return &s->m[i];
	}
	return NULL;
}

long get(const struct snap *s, const char *name)
{
	const struct metric *m = find(s, name, 0);

	return m ? m->value : 0;
}

/* What is 0 is not printed: a metric that is missing is one that is 0. */
void print_snap(const char *name, const char *stage, const struct snap *s,
		const struct snap *before, const struct snap *start)
{
	const struct metric *m, *old;
	unsigned int i;
	long value;

	for (i = 0; i < s->nr; i++) {
		m = &s->m[i];
		value = m->value;
		if (m->kind != VALUE) {
			old = find(m->kind == EVENT ? before : start, m->name, i);
			value -= old ? old->value : 0;
		}
		if (value)
			printf("%s %s.%s %ld\n", name, stage, m->name, value);
	}
}

static bool has_prefix(const char *name, const char * const *prefixes)
{
	for (; *prefixes; prefixes++) {
		if (!strncmp(name, *prefixes, strlen(*prefixes)))
			return true;
	}
	return false;
}

/*
 * Have everything on the LRU lists and in the counters: a move_pages(2) of no
 * pages drains the one, stat_refresh folds the other.
 */
static void settle(void)
{
	int node = 0;

	syscall(__NR_move_pages, 0, 0, NULL, &node, NULL, MPOL_MF_MOVE);
	pthp_put("/proc/sys/vm/stat_refresh", "1");
}

static void read_vmstat(struct snap *s)
{
	static const char * const wanted[] = {
		"nr_anon", "nr_mlock", "nr_unevictable", "nr_isolated_anon",
		"nr_swapcached", "pgmigrate_", "thp_", "oom_kill", "compact_",
		"pgdemote_", "allocstall", "pgscan_direct", "pgsteal_direct",
		"pgscan_kswapd", "pgsteal_kswapd", "pswp", "unevictable_pgs",
		"numa_pages_migrated", "ksm_", "pgrefill", "pgactivate",
		"pgdeactivate", "pglazyfree", "nr_tlb_", "kswapd_", "pageoutrun",
		NULL
	};
	char name[64];
	long value;
	FILE *f;

	f = fopen("/proc/vmstat", "r");
	while (f && fscanf(f, "%63s %ld", name, &value) == 2) {
		if (!strncmp(name, "pgalloc_", 8))
			add(s, EVENT, value, "vm.pgalloc");
		else if (!strcmp(name, "nr_active_anon") ||
			 !strcmp(name, "nr_inactive_anon"))
			add(s, LEVEL, value, "vm.nr_lru_anon");
		else if (has_prefix(name, wanted))
			add(s, strncmp(name, "nr_", 3) || !strncmp(name, "nr_tlb", 6) ?
			    EVENT : LEVEL, value, "vm.%s", name);
	}
	if (f)
		fclose(f);
}

static void read_meminfo(struct snap *s)
{
	static const char * const wanted[] = {
		"AnonPages", "AnonHugePages", "Mlocked", "Unevictable",
		"SwapCached", "PageTables", NULL
	};
	char line[128], name[64];
	long value;
	int node;
	FILE *f;

	f = fopen("/proc/meminfo", "r");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63[^:]: %ld", name, &value) == 2 &&
		    has_prefix(name, wanted))
			add(s, LEVEL, value, "mem.%s", name);
	}
	if (f)
		fclose(f);
	for (node = 0; node < 2; node++) {
		snprintf(line, sizeof(line), "/sys/devices/system/node/node%d/meminfo",
			 node);
		f = fopen(line, "r");
		while (f && fgets(line, sizeof(line), f)) {
			if (sscanf(line, "Node %*d %63[^:]: %ld", name, &value) == 2 &&
			    has_prefix(name, wanted))
				add(s, LEVEL, value, "node%d.%s", node, name);
		}
		if (f)
			fclose(f);
	}
}

/* The next line of /proc/zoneinfo about a zone of @node, which the first of them names */
static bool zone_line(FILE *f, char *line, int size, int *node)
{
	while (f && fgets(line, size, f)) {
		if (sscanf(line, "Node %d", node) != 1)
			return true;
	}
	return false;
}

/* Free memory of each node in kB, with what waits on the lists of the CPUs */
static void read_free(struct snap *s)
{
	unsigned int kb = psize() >> 10;
	char line[128];
	int node = -1;
	long value;
	FILE *f;

	f = fopen("/proc/zoneinfo", "r");
	while (zone_line(f, line, sizeof(line), &node)) {
		if (sscanf(line, " pages free %ld", &value) == 1 ||
		    sscanf(line, " count: %ld", &value) == 1) {
			add(s, LEVEL, value * kb, "free.node%d", node);
			add(s, LEVEL, value * kb, "free.all");
		}
	}
	if (f)
		fclose(f);
}

int node_of_pfn(unsigned long pfn)
{
	static unsigned long second;
	unsigned long start;
	char line[128];
	int node = -1;
	FILE *f;

	if (!second) {
		f = fopen("/proc/zoneinfo", "r");
		while (zone_line(f, line, sizeof(line), &node)) {
			if (node == 1 && sscanf(line, " start_pfn: %lu", &start) == 1 &&
			    start && (!second || start < second))
				second = start;
		}
		if (f)
			fclose(f);
	}
	return pfn >= second;
}

static long read_number(const char *path)
{
	long value = 0;
	FILE *f;

	f = fopen(path, "r");
	if (!f)
		return 0;
	if (fscanf(f, "%ld", &value) != 1)
		value = 0;
	fclose(f);
	return value;
}

static void read_sizes(struct snap *s)
{
	struct dirent *d, *e;
	char path[1024];
	long value;
	DIR *sizes, *stats;

	sizes = opendir(THP_SYSFS);
	while (sizes && (d = readdir(sizes))) {
		if (strncmp(d->d_name, "hugepages-", 10))
			continue;
		snprintf(path, sizeof(path), THP_SYSFS "/%s/stats", d->d_name);
		stats = opendir(path);
		while (stats && (e = readdir(stats))) {
			if (e->d_name[0] == '.')
				continue;
			snprintf(path, sizeof(path), THP_SYSFS "/%s/stats/%s", d->d_name,
				 e->d_name);
			value = read_number(path);
			add(s, strncmp(e->d_name, "nr_", 3) ? EVENT : LEVEL, value,
			    "size.%s.%.24s", d->d_name + 10, e->d_name);
		}
		if (stats)
			closedir(stats);
	}
	if (sizes)
		closedir(sizes);
}

static void read_interrupts(struct snap *s)
{
	char line[512], *p;
	long value;
	int len;
	FILE *f;

	f = fopen("/proc/interrupts", "r");
	while (f && fgets(line, sizeof(line), f)) {
		p = strstr(line, "TLB:");
		if (!p)
			continue;
		for (p += 4; sscanf(p, "%ld%n", &value, &len) == 1; p += len)
			add(s, EVENT, value, "irq.tlb");
	}
	if (f)
		fclose(f);
}

static void read_cgroup(struct snap *s, const char *dir)
{
	static const char * const wanted[] = {
		"anon", "inactive_anon", "active_anon", "unevictable", "swapcached",
		"thp_", "pgscan", "pgsteal", "pgmigrate", NULL
	};
	char path[256], name[64];
	long value;
	FILE *f;

	snprintf(path, sizeof(path), "%s/memory.stat", dir);
	f = fopen(path, "r");
	while (f && fscanf(f, "%63s %ld", name, &value) == 2) {
		bool event = !strncmp(name, "pg", 2) || !strncmp(name, "thp_", 4);

		if (has_prefix(name, wanted))
			add(s, event ? EVENT : LEVEL, value, "cgroup.%s",
			    strstr(name, "active_anon") ? "lru_anon" : name);
	}
	if (f)
		fclose(f);
	snprintf(path, sizeof(path), "%s/memory.current", dir);
	add(s, LEVEL, read_number(path), "cgroup.current");
	snprintf(path, sizeof(path), "%s/memory.swap.current", dir);
	add(s, LEVEL, read_number(path), "cgroup.swap");
	snprintf(path, sizeof(path), "%s/memory.events", dir);
	value = pthp_get_named(path, "oom_kill");
	add(s, EVENT, value > 0 ? value : 0, "cgroup.oom_kill");
}

void read_machine(struct snap *s, const struct subject *sub)
{
	long dying;

	s->nr = 0;
	settle();
	read_vmstat(s);
	read_meminfo(s);
	read_free(s);
	read_sizes(s);
	read_interrupts(s);
	dying = pthp_get_named("/sys/fs/cgroup/cgroup.stat", "nr_dying_descendants");
	add(s, LEVEL, dying > 0 ? dying : 0, "cgroups.dying");
	if (sub->cgroup)
		read_cgroup(s, sub->cgroup);
}
