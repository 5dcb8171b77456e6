/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What partial_thp.c and its users take from vm_util.h and thp_settings.h and kernels before
 * 6.12 do not have there, as far as it is needed.  Later kernels do not get this
 * file.
 */
#ifndef __PARTIAL_THP_COMPAT_H
#define __PARTIAL_THP_COMPAT_H

#include <linux/userfaultfd.h>
#include <strings.h>
#include <sys/ioctl.h>

#define BIT_ULL(nr)	(1ULL << (nr))
#define PM_SOFT_DIRTY	BIT_ULL(55)
#define PM_UFFD_WP	BIT_ULL(57)
#define PM_SWAP		BIT_ULL(62)
#define PM_PRESENT	BIT_ULL(63)

static inline unsigned int psize(void)
{
	static unsigned int size;

	if (!size)
		size = sysconf(_SC_PAGESIZE);
	return size;
}

static inline unsigned long pagemap_get_pfn(int fd, char *start)
{
	uint64_t entry = pagemap_get_entry(fd, start);

	return entry & PM_PRESENT ? entry & (BIT_ULL(55) - 1) : -1ul;
}

static inline int uffd_register(int uffd, void *addr, uint64_t len, bool miss,
				bool wp, bool minor)
{
	struct uffdio_register reg = {
		.range = { .start = (unsigned long)addr, .len = len },
		.mode = (miss ? UFFDIO_REGISTER_MODE_MISSING : 0) |
			(wp ? UFFDIO_REGISTER_MODE_WP : 0) |
			(minor ? UFFDIO_REGISTER_MODE_MINOR : 0),
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static inline unsigned long read_num(const char *path)
{
	unsigned long num = 0;
	FILE *f = fopen(path, "r");

	if (!f || fscanf(f, "%lu", &num) != 1)
		perror(path);
	if (f)
		fclose(f);
	return num;
}

static inline void write_num(const char *path, unsigned long num)
{
	FILE *f = fopen(path, "w");

	if (!f || fprintf(f, "%lu", num) < 0 || fclose(f)) {
		perror(path);
		exit(EXIT_FAILURE);
	}
}

static inline bool thp_is_enabled(void)
{
	FILE *f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
	char buf[64] = "";

	if (!f)
		return false;
	if (!fgets(buf, sizeof(buf), f))
		buf[0] = '\0';
	fclose(f);
	return strstr(buf, "[always]") || strstr(buf, "[madvise]");
}

/* THPs have the size of a PMD, and no settings of their own. */
static inline unsigned long thp_supported_orders(void)
{
	return 0;
}

#endif /* __PARTIAL_THP_COMPAT_H */
