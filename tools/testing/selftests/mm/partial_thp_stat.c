// SPDX-License-Identifier: GPL-2.0
/*
 * Files of the kernel: knobs, its log, and what statistics say of migration and splits.
 * See partial_thp.h.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include "partial_thp.h"

/* ---- files, and knobs that are set back ---- */

/**
 * pthp_write - Write to a file that exists.
 * @path: The file.
 * @value: A string.
 *
 * Return: 0, or a negative error; -EIO if not all was taken.
 */
long pthp_write(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	ssize_t len = strlen(value);
	long ret = 0;

	if (fd < 0)
		return -errno;
	errno = EIO;
	if (write(fd, value, len) != len)
		ret = -errno;
	close(fd);
	return ret;
}

/**
 * pthp_get - Read a file from its beginning, by one read(2).
 * @path: The file.
 * @buf: Gets a string; what does not fit is left out.
 * @size: Size of @buf in bytes.
 *
 * Return: true, or false if the file cannot be opened or read.
 */
bool pthp_get(const char *path, char *buf, size_t size)
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

/**
 * pthp_get_number - Read the number that a file begins with.
 * @path: The file.
 *
 * Return: the number, or -1 if there is none.
 */
long pthp_get_number(const char *path)
{
	char buf[64], *end;
	long value;

	if (!pthp_get(path, buf, sizeof(buf)))
		return -1;
	value = strtol(buf, &end, 10);
	return end == buf ? -1 : value;
}

/**
 * pthp_get_named - Read a number from a file that has one in each line.
 * @path: The file.
 * @name: The word before the number.  There are blanks between them.
 *
 * Return: the first such number, or -1 if there is none.
 */
long pthp_get_named(const char *path, const char *name)
{
	char line[256], *at;
	long value = -1;
	FILE *f;

	f = fopen(path, "r");
	if (!f)
		return -1;
	while (value < 0 && fgets(line, sizeof(line), f)) {
		at = strstr(line, name);
		if (at && (at == line || isblank(at[-1])) &&
		    isblank(at[strlen(name)]))
			value = atol(at + strlen(name));
	}
	fclose(f);
	return value;
}

#define MAX_KNOBS 32

static struct {
	char path[128];
	char value[128];
} knobs[MAX_KNOBS];
static unsigned int nr_knobs;

/**
 * pthp_set - Set a knob until pthp_restore().
 * @path: The knob, a file.
 * @value: What it is set to.
 *
 * Of "always [madvise] never" the word in brackets is what it was set to.
 *
 * Return: true, or false if there is no such knob, it cannot be set, or MAX_KNOBS
 * are set already.
 */
bool pthp_set(const char *path, const char *value)
{
	char old[sizeof(knobs->value)], *word;

	if (nr_knobs == MAX_KNOBS || !pthp_get(path, old, sizeof(old)))
		return false;
	word = strchr(old, '[');
	word = word ? word + 1 : old;
	word[strcspn(word, "]\n")] = '\0';
	if (!pthp_put(path, value))
		return false;
	snprintf(knobs[nr_knobs].path, sizeof(knobs->path), "%s", path);
	snprintf(knobs[nr_knobs].value, sizeof(knobs->value), "%s", word);
	nr_knobs++;
	return true;
}

/**
 * pthp_restore - Set all knobs of pthp_set() back, the last one first.
 *
 * Those that cannot be set back are written to stderr.
 */
void pthp_restore(void)
{
	while (nr_knobs) {
		nr_knobs--;
		if (!pthp_put(knobs[nr_knobs].path, knobs[nr_knobs].value))
			fprintf(stderr, "# cannot set %s back to %s\n",
				knobs[nr_knobs].path, knobs[nr_knobs].value);
	}
}

/**
 * pthp_keep_out - Turn off NUMA balancing and proactive compaction until pthp_restore().
 *
 * Both would move pages.  A kernel may not have them: that is no error.
 */
void pthp_keep_out(void)
{
	pthp_set("/proc/sys/kernel/numa_balancing", "0");
	pthp_set("/proc/sys/vm/compaction_proactiveness", "0");
}

/**
 * pthp_shrink - Have the shrinkers called.
 *
 * The kernel does not write to the console about it from now on.
 *
 * Return: true, or false if the kernel cannot be told to.
 */
bool pthp_shrink(void)
{
	/* 4: it does not write to the console from now on */
	return pthp_put(PTHP_DROP_CACHES, "4") && pthp_put(PTHP_DROP_CACHES, "2");
}

/**
 * pthp_drop_cgroups - Have each CPU let go of cgroups that were removed.
 * @dir: Path of a cgroup that does not exist; it is made for this, and removed.
 *
 * A CPU keeps the cgroup that it charged last, and the removal has only those CPUs
 * let go that have charged in advance.  They have, for @dir: a child joins it, and
 * charges a page on each CPU.
 *
 * Return: true, or false if any of this fails.
 */
bool pthp_drop_cgroups(const char *dir)
{
	char path[128];
	int cpu, status;
	pid_t pid;
	char *mem;

	if (mkdir(dir, 0755))
		return false;
	snprintf(path, sizeof(path), "%s/cgroup.procs", dir);
	pid = fork();
	if (!pid) {
		mem = mmap(NULL, psize(), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (mem == MAP_FAILED || !pthp_put(path, "0"))
			_exit(1);
		for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
			if (!pthp_run_on(cpu))
				continue;
			if (madvise(mem, psize(), MADV_DONTNEED))
				_exit(1);
			*mem = 1;
		}
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		status = -1;
	return !rmdir(dir) && !status;
}

/* ---- swap ---- */

#define ZRAM		"/dev/zram0"
#define ZRAM_SYSFS	"/sys/block/zram0/"

/* What mkswap(8) does to a device of @bytes that is full of zeroes */
static bool make_swap(const char *path, unsigned long bytes)
{
	const uint32_t info[] = { 1, bytes / psize() - 1 };	/* version, last page */
	int fd = open(path, O_WRONLY);
	bool ok;

	ok = pwrite(fd, info, sizeof(info), 1024) == sizeof(info) &&
	     pwrite(fd, "SWAPSPACE2", 10, psize() - 10) == 10;
	close(fd);
	return ok;
}

/**
 * pthp_swap_on - Swap to a zram device that nobody uses.
 * @bytes: Its size.
 *
 * Return: NULL, or why that cannot be.
 */
const char *pthp_swap_on(unsigned long bytes)
{
	char value[32];

	if (!pthp_get(ZRAM_SYSFS "disksize", value, sizeof(value)) || atol(value))
		return "no unused zram0";
	snprintf(value, sizeof(value), "%lu", bytes);
	if (!pthp_put(ZRAM_SYSFS "disksize", value))
		return "zram0 cannot be set up";
	if (make_swap(ZRAM, bytes) && !swapon(ZRAM, 0))
		return NULL;
	pthp_put(ZRAM_SYSFS "reset", "1");
	return "swapon on " ZRAM " failed";
}

/**
 * pthp_swap_off - Take back what pthp_swap_on() did.
 *
 * Return: true, or false if that fails.
 */
bool pthp_swap_off(void)
{
	return !swapoff(ZRAM) && pthp_put(ZRAM_SYSFS "reset", "1");
}

/* ---- the kernel's log ---- */

/**
 * pthp_log_open - Open the kernel's log, for what it says from now on.
 *
 * Return: a file descriptor for pthp_log_next() and close(2), or -1.
 */
int pthp_log_open(void)
{
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	if (log >= 0)
		lseek(log, 0, SEEK_END);
	return log;
}

/**
 * pthp_log_next - Read the next record of the kernel's log.
 * @log: What pthp_log_open() returned.
 * @record: Gets a string; it has PTHP_LOG_RECORD bytes.
 *
 * Return: true, or false if there is none yet.
 */
bool pthp_log_next(int log, char *record)
{
	ssize_t len;

	do {
		len = read(log, record, PTHP_LOG_RECORD - 1);
	} while (len < 0 && errno == EPIPE);	/* overwritten meanwhile */
	if (len <= 0)
		return false;
	record[len] = '\0';
	return true;
}

/* ---- statistics ---- */

const char * const pthp_event_names[PTHP_NR_EVENTS] = {
	[PTHP_PGMIGRATE_SUCCESS]	= "pgmigrate_success",
	[PTHP_PGMIGRATE_FAIL]		= "pgmigrate_fail",
	[PTHP_THP_MIGRATION_SUCCESS]	= "thp_migration_success",
	[PTHP_THP_MIGRATION_FAIL]	= "thp_migration_fail",
	[PTHP_THP_MIGRATION_SPLIT]	= "thp_migration_split",
	[PTHP_THP_SPLIT_PAGE]		= "thp_split_page",
	[PTHP_THP_DEFERRED_SPLIT_PAGE]	= "thp_deferred_split_page",
	[PTHP_NR_ISOLATED_ANON]		= "nr_isolated_anon",
};

/*
 * Have per-CPU counters added up.  Where one is below zero, all files say 0: only the
 * kernel's log has the number.  It is returned for nr_isolated_anon, or 0.
 */
static long refresh_counters(void)
{
	static const char message[] = "vmstat_refresh: nr_isolated_anon ";
	char record[PTHP_LOG_RECORD], *at;
	int log = pthp_log_open();
	long err, isolated = 0;

	err = pthp_write("/proc/sys/vm/stat_refresh", "1");
	if (err && err != -ENOENT)
		fprintf(stderr, "# stat_refresh: %s\n", strerror(-err));
	while (pthp_log_next(log, record)) {
		at = strstr(record, message);
		if (at)
			isolated = strtol(at + strlen(message), NULL, 10);
	}
	close(log);
	return isolated;
}

/**
 * pthp_vmstat_read - Read the events of migration and splits.
 * @s: What /proc/vmstat has of each; nr_isolated_anon can be below zero.
 *
 * The kernel sums events up over the CPUs.  The rest is exact only after
 * stat_refresh, which is written first.
 *
 * Return: true, or false if the kernel does not have all of them.
 */
bool pthp_vmstat_read(struct pthp_vmstat *s)
{
	long value, below_zero = refresh_counters();
	unsigned int i, found = 0;
	char name[64];
	FILE *f;

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
	if (below_zero)
		s->v[PTHP_NR_ISOLATED_ANON] = below_zero;
	return found == PTHP_NR_EVENTS;
}

/**
 * pthp_folio_stat - Read a statistic of all folios of one order.
 * @order: The order.
 * @name: The statistic.
 *
 * Return: its number, or -1 where the kernel has none.
 */
long pthp_folio_stat(unsigned int order, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), PTHP_THP "hugepages-%ukB/stats/%s",
		 (psize() >> 10) << order, name);
	return pthp_get_number(path);
}

/**
 * pthp_order_knob - Make the path of the knob for anonymous folios of one order.
 * @path: Gets the path.
 * @size: Size of @path in bytes.
 * @order: The order.
 */
void pthp_order_knob(char *path, size_t size, unsigned int order)
{
	snprintf(path, size, PTHP_THP "hugepages-%ukB/enabled", (psize() >> 10) << order);
}
