/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * User registers at kernel entry, aarch64: struct user_pt_regs of the UAPI,
 * then orig_x0 and syscallno (arch/arm64/include/asm/ptrace.h, Linux 4.14 on).
 */
#pragma once
struct pt_regs {
	unsigned long regs[31], sp, pc, pstate;
	unsigned long orig_x0;
	int syscallno;
	unsigned int unused;
};
/* A call inside the kernel: its arguments and its result. */
#define CALL_ARG1(regs) ((regs)->regs[0])
#define CALL_ARG2(regs) ((regs)->regs[1])
#define CALL_RESULT(regs) ((regs)->regs[0])
#define NR_CONNECT 203
#define REGS_SYSCALL(regs) ((unsigned long)(regs)->syscallno)
#define REGS_ARG1(regs) ((regs)->orig_x0)
#define REGS_ARG2(regs) ((regs)->regs[1])
/* syscall entry and exit look alike here: the stack tells them apart. */
#define REGS_AT_ENTRY(regs) 1
