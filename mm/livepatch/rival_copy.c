// SPDX-License-Identifier: GPL-2.0
/* Which is not replaced, but what is replaced calls a copy of it */
#define RIVAL	"do_pages_stat"
#include "control.c"
