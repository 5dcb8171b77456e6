/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What of the livepatch core and of ftrace no header says.  A livepatch may refer to
 * it as to any function that it needs: by name, and the kernel looks it up.
 */
#ifndef UNEXPORTED_H
#define UNEXPORTED_H

extern struct list_head klp_patches;	/* all that are loaded, under klp_mutex */
extern struct mutex klp_mutex;
extern struct klp_patch *klp_transition_patch;	/* under klp_mutex */
extern int ftrace_enabled;

#endif /* UNEXPORTED_H */
