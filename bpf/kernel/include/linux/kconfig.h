/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/* bcc refuses to compile unless the kernel is said to have BPF. */
#pragma once
#define CONFIG_BPF_SYSCALL 1
