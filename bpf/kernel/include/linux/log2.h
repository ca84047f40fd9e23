/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
#pragma once
/* bcc sizes its stack maps with it, as a constant expression. */
#define roundup_pow_of_two(n) ((n) <= 1 ? 1UL : 1UL << (64 - __builtin_clzl((n) - 1)))
