/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * The gate: a thread that sleeps between its syscall instruction and the
 * sys_enter tracepoint. seccomp's user notification and ptrace stop it there
 * (kernel/entry/common.c, syscall_trace_enter: ptrace, then seccomp, then the
 * tracepoint). The user registers tell that the call is connect(2) and has no
 * result yet; the kernel stack names what holds it.
 */
#pragma once
#include "common.h"
#include "wire.h"

/* Bits of prev_state in the record of sched_switch (include/linux/sched.h). */
#define EXIT_DEAD 0x10
#define EXIT_ZOMBIE 0x20
/* What lies above is TASK_REPORT_MAX: the thread was preempted and would run on. */
#define TASK_ASLEEP 0xff

struct sockaddr_head {
	u16 family;
	u16 port_be;
	u32 addr4;
	u8 addr6[ADDR_LEN];
};

/* Reads a sockaddr of the caller; false when it is not IPv4 or IPv6. */
static __always_inline bool read_sockaddr(const void *from, u16 *family, u16 *port, u8 *addr)
{
	struct sockaddr_head sa = {};

	/* sockaddr_in6 is 28 bytes, sockaddr_in 16: the longer read may cross a page end */
	if (bpf_probe_read_user(&sa, 24, from) && bpf_probe_read_user(&sa, 8, from))
		return false;
	*family = sa.family;
	*port = __builtin_bswap16(sa.port_be);
	if (sa.family == AF_INET6) {
		__builtin_memcpy(addr, sa.addr6, ADDR_LEN);
		return true;
	}
	if (sa.family != AF_INET)
		return false;
	addr[10] = addr[11] = 0xff;
	__builtin_memcpy(addr + 12, &sa.addr4, 4);
	return true;
}

#ifdef HAVE_TASK_REGS
/* Helpers by number (include/uapi/linux/bpf.h): bcc 0.18 has no names for them. */
static struct task_struct *(*current_task_btf)(void) = (void *)158;
static long (*task_regs)(struct task_struct *) = (void *)175;

/* The thread was at the gate when it last slept, and no connect(2) began since. */
#define SAME_HOLD(old) ((old) && (old)->gate_ns)

/* True when the current task stands between its syscall instruction and connect(2). */
static __always_inline bool at_connect_entry(struct thread *t)
{
	struct pt_regs *regs = (struct pt_regs *)task_regs(current_task_btf());
	struct pt_regs copy = {};

	if (bpf_probe_read_kernel(&copy, sizeof(copy), regs))
		return false;
	if (REGS_SYSCALL(&copy) != NR_CONNECT || !REGS_AT_ENTRY(&copy))
		return false;
	t->fd = REGS_ARG1(&copy);
	return read_sockaddr((void *)REGS_ARG2(&copy), &t->family, &t->dport, t->daddr);
}
#else
/* Without the registers every sleep is a candidate: its stack decides, in user space. */
#define SAME_HOLD(old) false
static __always_inline bool at_connect_entry(struct thread *t)
{
	t->fd = -1;
	return true;
}
#endif

static __always_inline s32 kernel_stack(void *ctx)
{
	s32 id = stacks.get_stackid(ctx, 0);

	if (id < 0)
		count(COUNT_STACKS_LOST, 1);
	return id;
}

/* The current thread goes to sleep (preemption is no hold: it does not count). */
static __always_inline void thread_off(void *ctx, long prev_state)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	struct thread *old, t = {.pid = id >> 32, .gate_stack = -1};
	struct call *c;

	/* Its very last switch: after sched_process_exit a thread may still sleep. */
	if (prev_state & (EXIT_DEAD | EXIT_ZOMBIE)) {
		threads.delete(&tid);
		return;
	}
	if (!(prev_state & TASK_ASLEEP) || !wanted_task())
		return;
	c = calls.lookup(&tid);
	if (c && c->sock)
		c->flags |= FLAG_SLEPT;
	else if (c && c->connect_stack < 0)
		c->connect_stack = kernel_stack(ctx);
	old = threads.lookup(&tid);
	t.off_ns = bpf_ktime_get_ns();
	if (!c && at_connect_entry(&t)) {
		t.gate_ns = t.off_ns;
		if (SAME_HOLD(old)) { /* a spurious wake-up */
			t.gate_ns = old->gate_ns;
			t.gate_stack = old->gate_stack;
		} else {
			t.gate_stack = kernel_stack(ctx);
		}
	}
	if (threads.update(&tid, &t))
		count(COUNT_THREADS_FULL, 1);
}

static __always_inline void thread_on(u32 tid)
{
	struct thread *t = threads.lookup(&tid);

	if (t)
		t->on_ns = bpf_ktime_get_ns();
}

static __always_inline void thread_exit(void *ctx, bool last)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id, pid = id >> 32;
	struct event *e;

	calls.delete(&tid);
	socket_calls.delete(&tid);
	asked_errors.delete(&tid);
#ifdef BINDS
	bind_calls.delete(&tid);
	option_calls.delete(&tid);
#endif
#ifdef KERNEL_FUNCTIONS
	accepting.delete(&tid);
#endif
	wire_expects_none();
	if (last) {
		u64 *n = in_flight.lookup(&pid);

		if (n && !*n)
			in_flight.delete(&pid);
	}
	if (!wanted_task())
		return;
	e = new_event(EVENT_EXIT);
	if (!e)
		return;
	set_caller(e);
	e->flags = last ? FLAG_LAST_THREAD : 0;
	/* only a thread that ends its process is news */
	if (last || pid == tid)
		emit(ctx, e);
	if (last)
		targets.delete(&pid);
}
