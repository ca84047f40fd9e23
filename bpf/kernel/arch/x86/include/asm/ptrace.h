/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * User registers at kernel entry, x86_64. The order is that of struct pt_regs
 * in arch/x86/include/uapi/asm/ptrace.h: part of the kernel's ABI.
 */
#pragma once
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;
	unsigned long r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
/* A call inside the kernel: its arguments and its result. */
#define CALL_ARG1(regs) ((regs)->di)
#define CALL_ARG2(regs) ((regs)->si)
#define CALL_RESULT(regs) ((regs)->ax)
#define NR_CONNECT 42
#define REGS_SYSCALL(regs) ((regs)->orig_ax)
#define REGS_ARG1(regs) ((regs)->di)
#define REGS_ARG2(regs) ((regs)->si)
/* entry_SYSCALL_64 stores -ENOSYS here; it stays until the call has a result. */
#define REGS_AT_ENTRY(regs) ((long)(regs)->ax == -38)
