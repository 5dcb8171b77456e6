// SPDX-License-Identifier: GPL-2.0
/*
 * Does it concern this machine that migrate_pages() treats partially mapped huge
 * pages badly?  A kprobe looks at the list of each call, the kernel's own tracepoint
 * at its end tells what became of it.  Nothing is changed.
 *
 * A call can begin another one, when it gets memory for its destinations.  Those that
 * are open are kept by task; the last one that a task began is the first to end.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/ptrace.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/tracepoint.h>
#include <linux/uaccess.h>
#include <trace/events/migrate.h>

#include "watch.h"
#include "migrate_watch.h"

#define PROBED		"migrate_pages"
#define RESULT		"mm_migrate_pages"
#define FIX		"mm_migrate_split_deferred"

/* Calls at a time that have something on their list to be followed */
#define MAX_OPEN	64

/* The stack pointer tells calls of one task apart: one within another has a lower one. */
struct open_call {
	struct task_struct *task;	/* NULL: not used */
	u64 started;			/* when that did: it can have died on the way */
	unsigned long sp;
	struct list_head *list;
	int reason;
	unsigned int inner;		/* calls within it that are not followed */
	unsigned long given;
	bool fixed;
	struct watch_look look;
};

static struct open_call open_calls[MAX_OPEN];
static atomic_t nr_open;
static atomic_long_t nr_missed;

static struct tracepoint *result_tp;
static struct tracepoint *fix_tp;	/* of the kernel itself */

/* The fix as a livepatch, while that is loaded; NULL if it is not */
#define LIVEPATCH	"partial_thp_migration"
/* scripts/module/klp.py has its functions begin with that */
#define LIVEPATCH_PREFIX "ptm_"
bool partial_thp_migration_enabled(void);
static DEFINE_MUTEX(livepatch_mutex);
static bool leaving;
static struct tracepoint *livepatch_tp;
static bool (*livepatch_enabled)(void);

static struct open_call *innermost(void)
{
	struct open_call *c, *last = NULL;

	if (!atomic_read(&nr_open))
		return NULL;
	/* Entries of this task do not change meanwhile, and others do not match. */
	for (c = open_calls; c < open_calls + MAX_OPEN; c++) {
		if (READ_ONCE(c->task) == current &&
		    c->started == current->start_boottime &&
		    (!last || c->sp < last->sp))
			last = c;
	}
	return last;
}

static void close_call(struct open_call *c)
{
	/* The next one to take the entry sees all that was written to it. */
	smp_store_release(&c->task, NULL);
	atomic_dec(&nr_open);
}

static struct open_call *open_call(void)
{
	struct open_call *c;

	for (c = open_calls; c < open_calls + MAX_OPEN; c++) {
		if (!READ_ONCE(c->task) && !cmpxchg(&c->task, NULL, current)) {
			c->started = current->start_boottime;
			atomic_inc(&nr_open);
			return c;
		}
	}
	atomic_long_inc(&nr_missed);
	return NULL;
}

/* A call with nothing on its list that has to be followed */
static void pass_by(unsigned long sp)
{
	struct open_call *outer = innermost();

	if (outer && outer->sp > sp)
		outer->inner++;
}

static noinline void look_at_list(struct list_head *list, int reason, unsigned long sp)
{
	struct open_call *c, *outer;
	struct watch_look look;

	watch_list(list, &look, NULL, trace_mm_migrate_split_deferred_enabled());
	watch_seen(reason, &look);
	if (!look.total.queued && !look.cut) {
		pass_by(sp);
		return;
	}
	/* A call that is not above this one on the stack has ended, though unseen. */
	while ((outer = innermost()) && outer->sp <= sp)
		close_call(outer);
	c = open_call();
	if (!c) {
		pass_by(sp);
		return;
	}
	c->sp = sp;
	c->list = list;
	c->reason = reason;
	c->inner = 0;
	c->given = 0;
	c->fixed = false;
	c->look = look;
}

/* Do calls get to the migrate_pages() of the livepatch? */
static bool livepatch_is_used(void)
{
	bool (*enabled)(void), used;

	rcu_read_lock();
	enabled = READ_ONCE(livepatch_enabled);
	used = enabled && enabled();
	rcu_read_unlock();
	return used;
}

NOKPROBE_SYMBOL(livepatch_is_used);

static struct kprobe probe, livepatch_probe;

static int enter_migrate_pages(struct kprobe *p, struct pt_regs *regs)
{
	struct list_head *list = (void *)regs_get_kernel_argument(regs, 0);
	int reason = watch_reason(regs_get_kernel_argument(regs, 5));
	unsigned long sp = kernel_stack_pointer(regs);
	unsigned int folios;
	int nid;

	/*
	 * A call can pass by both probes, and one within the livepatch only by the
	 * second.  While tasks change from one to the other some go by unseen.
	 */
	if (livepatch_is_used() ? p == &probe : p == &livepatch_probe)
		return 0;

	folios = watch_small(list, &nid);
	if (folios) {
		watch_seen_small(reason, nid, folios);
		pass_by(sp);
	} else {
		look_at_list(list, reason, sp);
	}
	return 0;
}

NOKPROBE_SYMBOL(enter_migrate_pages);

static struct kprobe probe = {
	.symbol_name	= PROBED,
	.pre_handler	= enter_migrate_pages,
};

/* Just before migrate_pages() returns: what it could not migrate is on the list. */
static void see_result(WATCH_RESULT_PROTO)
{
	struct open_call *c = innermost();
	struct watch_look left;

	watch_ended(watch_reason(reason));
	if (!c)
		return;
	if (c->inner) {
		c->inner--;
		return;
	}
	watch_list(c->list, &left, &c->look, false);
	watch_result(c->reason, &c->look, &left,
		     &(struct watch_outcome){
			.succeeded = succeeded,
			.failed = failed,
			.split = WATCH_RESULT_SPLIT,
		     }, c->given, c->fixed);
	close_call(c);
}

/* The event of the fix, in the kernel or in a livepatch: it is at work. */
static void see_fix(void *data, unsigned long pfn, unsigned int order,
		    unsigned int nr_mapped, enum migrate_split_action action, int error)
{
	struct open_call *c = innermost();

	if (!c)
		return;
	c->fixed = true;
	if (action == MIGRATE_SPLIT_SPLIT && nr_mapped < 1u << order)
		c->given += (1ul << order) - nr_mapped;
}

static int take_livepatch_event(struct tracepoint *tp)
{
	int err;

	if (livepatch_tp)
		return 0;
	err = tracepoint_probe_register(tp, (void *)see_fix, NULL);
	if (!err)
		livepatch_tp = tp;
	return err;
}

static void drop_livepatch(void)
{
	if (livepatch_enabled) {
		WRITE_ONCE(livepatch_enabled, NULL);
		unregister_kprobe(&livepatch_probe);
	}
	if (livepatch_tp) {
		tracepoint_probe_unregister(livepatch_tp, (void *)see_fix, NULL);
		livepatch_tp = NULL;
	}
	/* and for those that are in livepatch_is_used() */
	tracepoint_synchronize_unregister();
}

/* Tasks may use it before it has been loaded to the end. */
static void livepatch_comes(struct module *mod)
{
	struct tracepoint *tp;
	unsigned int i;

	for (i = 0; i < mod->num_tracepoints; i++) {
		tp = tracepoint_ptr_deref(&mod->tracepoints_ptrs[i]);
		if (!strcmp(tp->name, FIX))
			take_livepatch_event(tp);
	}
}

static void livepatch_is_there(void)
{
	bool (*enabled)(void);
	struct tracepoint *tp;
	int err;

	if (livepatch_enabled)
		return;
	enabled = symbol_get(partial_thp_migration_enabled);
	if (!enabled)
		return;
	tp = __symbol_get("__tracepoint_" FIX);
	if (!tp)
		goto put;
	livepatch_probe = (struct kprobe) {
		.symbol_name	= LIVEPATCH ":" LIVEPATCH_PREFIX PROBED,
		.pre_handler	= enter_migrate_pages,
	};
	err = take_livepatch_event(tp);
	if (!err)
		err = register_kprobe(&livepatch_probe);
	if (err)
		pr_err("what the livepatch does cannot be seen (%d)\n", err);
	else
		WRITE_ONCE(livepatch_enabled, enabled);
	__symbol_put("__tracepoint_" FIX);
put:
	/* It is told when the livepatch goes: no need to keep that from going. */
	symbol_put(partial_thp_migration_enabled);
}

static int on_modules(struct notifier_block *nb, unsigned long action, void *data)
{
	struct module *mod = data;

	if (strcmp(mod->name, LIVEPATCH))
		return NOTIFY_DONE;
	mutex_lock(&livepatch_mutex);
	if (action == MODULE_STATE_COMING && !leaving)
		livepatch_comes(mod);
	else if (action == MODULE_STATE_LIVE && !leaving)
		livepatch_is_there();
	else if (action == MODULE_STATE_GOING)
		drop_livepatch();
	mutex_unlock(&livepatch_mutex);
	return NOTIFY_OK;
}

/* Before the kernel's own look whether anybody still uses the tracepoints of a module. */
static struct notifier_block modules_nb = {
	.notifier_call	= on_modules,
	.priority	= 1,
};

/* The livepatch may go at the same time: until we have left it, we have to be told. */
static void leave_livepatch(void)
{
	mutex_lock(&livepatch_mutex);
	leaving = true;
	drop_livepatch();
	mutex_unlock(&livepatch_mutex);
	unregister_module_notifier(&modules_nb);
}

/**
 * watch_fix_is_there - Does the kernel have the fix, or a livepatch that is enabled?
 *
 * Return: true if so.
 */
bool watch_fix_is_there(void)
{
	return fix_tp || livepatch_is_used();
}

/**
 * watch_missed - How many calls were not followed to their end?
 *
 * Return: their number.
 */
unsigned long watch_missed(void)
{
	return atomic_long_read(&nr_missed) + probe.nmissed + livepatch_probe.nmissed;
}

static void find_tracepoint(struct tracepoint *tp, void *data)
{
	if (!strcmp(tp->name, RESULT))
		result_tp = tp;
	else if (!strcmp(tp->name, FIX))
		fix_tp = tp;
}

/*
 * With kernel.ftrace_enabled=0 registering succeeds, nothing is ever called, and ftrace
 * is left with a function that it finds in a wrong state later: do not even try.
 */
static bool __init ftrace_is_off(void)
{
	char c = 0;
	struct file *file = filp_open("/proc/sys/kernel/ftrace_enabled", O_RDONLY, 0);
	loff_t pos = 0;

	/* There is no such file without ftrace, and no /proc early at boot. */
	if (IS_ERR(file))
		return false;
	if (kernel_read(file, &c, 1, &pos) != 1)
		c = 0;
	filp_close(file, NULL);
	return c == '0';
}

/* Kprobes can be off, too. */
static bool __init is_armed(void)
{
#ifdef CONFIG_X86
	u8 opcode;

	/* a call of ftrace's, or a breakpoint */
	return copy_from_kernel_nofault(&opcode, probe.addr, sizeof(opcode)) ||
	       opcode == 0xe8 || opcode == 0xcc;
#else
	return true;
#endif
}

static int __init watch_init(void)
{
	int ret;

	/* The compiler compares the arguments. */
	check_trace_callback_type_mm_migrate_pages(see_result);

	for_each_kernel_tracepoint(find_tracepoint, NULL);
	if (!result_tp) {
		pr_err("this kernel has no trace event " RESULT "; it needs CONFIG_TRACEPOINTS and CONFIG_MIGRATION\n");
		return -EOPNOTSUPP;
	}
	ret = watch_results_init();
	if (ret) {
		pr_err("no memory for the counters; try a smaller ring=\n");
		goto free;
	}
	ret = tracepoint_probe_register(result_tp, (void *)see_result, NULL);
	if (ret) {
		pr_err("the trace event " RESULT " cannot be used (%d)\n", ret);
		goto free;
	}
	if (fix_tp && tracepoint_probe_register(fix_tp, (void *)see_fix, NULL))
		fix_tp = NULL;
	ret = register_module_notifier(&modules_nb);
	if (ret)
		goto tracepoints;
	if (ftrace_is_off()) {
		pr_err("the probe of " PROBED "() would not be called; set kernel.ftrace_enabled=1\n");
		ret = -EAGAIN;
		goto notifier;
	}
	ret = register_kprobe(&probe);
	if (ret) {
		pr_err(PROBED "() cannot be probed (%d); this needs a kernel with CONFIG_KPROBES\n",
		       ret);
		goto notifier;
	}
	if (!is_armed()) {
		pr_err("the probe of " PROBED "() is not called; set /sys/kernel/debug/kprobes/enabled to 1\n");
		ret = -EAGAIN;
		goto kprobe;
	}
	mutex_lock(&livepatch_mutex);
	livepatch_is_there();
	mutex_unlock(&livepatch_mutex);
	watch_show_init();
	return 0;

kprobe:
	unregister_kprobe(&probe);
notifier:
	leave_livepatch();
tracepoints:
	if (fix_tp)
		tracepoint_probe_unregister(fix_tp, (void *)see_fix, NULL);
	tracepoint_probe_unregister(result_tp, (void *)see_result, NULL);
	tracepoint_synchronize_unregister();
free:
	watch_results_exit();
	return ret;
}

static void __exit watch_exit(void)
{
	/* Waits for calls of the probe that are under way */
	unregister_kprobe(&probe);
	/* The last verdict still has to know whether the livepatch is there. */
	watch_show_exit();
	leave_livepatch();
	if (fix_tp)
		tracepoint_probe_unregister(fix_tp, (void *)see_fix, NULL);
	tracepoint_probe_unregister(result_tp, (void *)see_result, NULL);
	tracepoint_synchronize_unregister();
	watch_results_exit();
}

module_init(watch_init);
module_exit(watch_exit);
MODULE_DESCRIPTION("Does the migration of partially mapped huge pages concern this machine?");
MODULE_LICENSE("GPL");
