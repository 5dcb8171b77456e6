// SPDX-License-Identifier: GPL-2.0
/*
 * The frame of a livepatch that splits partially mapped THPs when they are
 * migrated.  The functions beside it are made from the series, for one kernel;
 * roots.h names those that are replaced, copies.h what these have copies of, and
 * kernel.h says which kernel it is.
 *
 * The livepatch core enables and disables it, in
 * /sys/kernel/livepatch/partial_thp_migration/.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/string.h>
#include <linux/tracepoint-defs.h>
#include <linux/utsname.h>

#include "kernel.h"
#include "unexported.h"

/* Their types do not matter here, and roots that are static have no header */
#define ROOT(name) extern char new_##name[] asm(#name);
#include "roots.h"
#undef ROOT

/* There is one of each, says the build; without a position all symbols are searched. */
static struct klp_func funcs[] = {
#define ROOT(name) { .old_name = #name, .new_func = new_##name, .old_sympos = 1 },
#include "roots.h"
#undef ROOT
	{ }
};

static struct klp_object objs[] = {
	{
		/* the kernel itself */
		.funcs = funcs,
	},
	{ }
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objs,
};

/* For mm/watch, which asks by symbol_get() */
bool partial_thp_migration_enabled(void);
extern struct tracepoint __tracepoint_mm_migrate_split_deferred;

/**
 * partial_thp_migration_enabled - Is the livepatch to be used?
 *
 * Context: Any.
 * Return: true unless it is disabled; tasks may still be on their way there.
 */
bool partial_thp_migration_enabled(void)
{
	return READ_ONCE(patch.enabled);
}
EXPORT_SYMBOL_GPL(partial_thp_migration_enabled);
EXPORT_SYMBOL_GPL(__tracepoint_mm_migrate_split_deferred);

/* Functions can have changed without a change of the release (uname -r). */
static int __init check_kernel(void)
{
	struct new_utsname *uts = init_utsname();

	if (!strcmp(uts->release, KERNEL_RELEASE) &&
	    !strcmp(uts->version, KERNEL_VERSION))
		return 0;

	pr_err("built for \"%s %s\", this kernel is \"%s %s\": build it again for this one\n",
	       KERNEL_RELEASE, KERNEL_VERSION, uts->release, uts->version);
	return -EINVAL;
}

static int __init check_ftrace(void)
{
	if (READ_ONCE(ftrace_enabled))
		return 0;

	pr_err("functions cannot be replaced: set kernel.ftrace_enabled to 1 (sysctl), and load it again\n");
	return -EBUSY;
}

/* Functions of the kernel that what is replaced calls a copy of */
static const char * const copies[] __initconst = {
#define COPY(name) #name,
#include "copies.h"
#undef COPY
	NULL
};

static bool __init is_here(const char *name)
{
	const char * const *copy;
	struct klp_func *func;

	for (func = funcs; func->old_name; func++) {
		if (!strcmp(func->old_name, name))
			return true;
	}
	for (copy = copies; *copy; copy++) {
		if (!strcmp(*copy, name))
			return true;
	}
	return false;
}

/*
 * The last livepatch of a function is the one that counts, and a copy knows of none:
 * this one would undo what the other has fixed.
 */
static int __init check_others(void)
{
	struct klp_patch *other;
	struct klp_object *obj;
	struct klp_func *func;
	int err = 0;

	mutex_lock(&klp_mutex);
	if (klp_transition_patch) {
		pr_err("livepatch %s is being enabled or disabled: load this one when that is done\n",
		       klp_transition_patch->mod->name);
		err = -EBUSY;
	}
	list_for_each_entry(other, &klp_patches, list) {
		list_for_each_entry(obj, &other->obj_list, node) {
			if (obj->name)
				continue;
			list_for_each_entry(func, &obj->func_list, node) {
				if (err || !is_here(func->old_name))
					continue;
				pr_err("livepatch %s replaces %s() already: disable and remove that one, or do without this one\n",
				       other->mod->name, func->old_name);
				err = -EBUSY;
			}
		}
	}
	mutex_unlock(&klp_mutex);

	return err;
}

static int __init partial_thp_init(void)
{
	int err;

	err = check_kernel();
	if (!err)
		err = check_ftrace();
	if (!err)
		err = check_others();
	if (!err)
		err = klp_enable_patch(&patch);
	return err;
}

/* The livepatch core lets it go only when nothing runs in it any more. */
static void __exit partial_thp_exit(void)
{
}

module_init(partial_thp_init);
module_exit(partial_thp_exit);

MODULE_DESCRIPTION("Livepatch: split partially mapped THPs when they are migrated");
MODULE_AUTHOR("The partial THP migration series");
MODULE_LICENSE("GPL");
MODULE_VERSION(LIVEPATCH_VERSION);
MODULE_INFO(livepatch, "Y");
MODULE_INFO(kernel, KERNEL_RELEASE " " KERNEL_VERSION);

/* For who is about to load another livepatch */
#define ROOT(name) MODULE_INFO(replaces, #name);
#include "roots.h"
#undef ROOT
#define COPY(name) MODULE_INFO(copies, #name);
#include "copies.h"
#undef COPY
