// SPDX-License-Identifier: GPL-2.0
#define RIVAL
#include "control.c"
