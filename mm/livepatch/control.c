// SPDX-License-Identifier: GPL-2.0
/*
 * A livepatch that has nothing to do with the series: what happens to it in a test
 * is not the series' fault.  With RIVAL defined, it replaces that function, which the
 * series' livepatch replaces or has a copy of.  That livepatch has to notice.
 */
#include <linux/errno.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>

#ifdef RIVAL
static int control_rival(void)
{
	return -EOPNOTSUPP;
}

#define CONTROL_NAME	RIVAL
#define CONTROL_FUNC	control_rival
#else
static int control_cmdline(struct seq_file *m, void *v)
{
	seq_puts(m, "livepatched\n");
	return 0;
}

#define CONTROL_NAME	"cmdline_proc_show"
#define CONTROL_FUNC	control_cmdline
#endif

static struct klp_func funcs[] = {
	{
		.old_name = CONTROL_NAME,
		.new_func = CONTROL_FUNC,
	},
	{ }
};

static struct klp_object objs[] = {
	{
		.funcs = funcs,
	},
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

static int __init control_init(void)
{
	return klp_enable_patch(&patch);
}

static void __exit control_exit(void)
{
}

module_init(control_init);
module_exit(control_exit);
MODULE_DESCRIPTION("Livepatch for tests: replaces something unrelated");
MODULE_LICENSE("GPL");
MODULE_INFO(livepatch, "Y");
