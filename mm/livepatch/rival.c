// SPDX-License-Identifier: GPL-2.0
#define RIVAL	"kernel_move_pages"
#include "control.c"
