/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * The kernel's own functions, where they can be hooked: tcp_v4_connect and
 * tcp_v6_connect, which every attempt passes whoever asked for it (io_uring,
 * MSG_FASTOPEN, 32-bit programs), and inet_csk_accept. Pointers are keys only.
 */
#pragma once
#include "state.h"

#ifdef KERNEL_FUNCTIONS

/* The address given to the kernel's own connect: it stands in kernel memory by now. */
static __always_inline void read_peer(struct call *c, const void *sockaddr)
{
	struct sockaddr_head sa = {};

	if (bpf_probe_read_kernel(&sa, 24, sockaddr) && bpf_probe_read_kernel(&sa, 8, sockaddr))
		return;
	c->family = sa.family;
	c->dport = __builtin_bswap16(sa.port_be);
	if (sa.family == AF_INET6) {
		__builtin_memcpy(c->daddr, sa.addr6, ADDR_LEN);
	} else {
		c->daddr[10] = c->daddr[11] = 0xff;
		__builtin_memcpy(c->daddr + 12, &sa.addr4, 4);
	}
}

static __always_inline void kernel_connect_enter(void *ctx, u64 sock, const void *sockaddr)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct call *c = calls.lookup(&tid);
	struct call new = {.fd = -1, .gate_stack = -1, .connect_stack = -1};

	if (c && (c->flags & CALL_BY_KERNEL) && c->kernel_sock != sock) {
		count(COUNT_RETURNS_MISSED, 1); /* its return would have deleted it */
		c = NULL;
	}
	if (c) { /* in connect(2), or tcp_v6_connect calls tcp_v4_connect for a mapped address */
		if (!c->kernel_ns)
			c->kernel_ns = bpf_ktime_get_ns();
		c->kernel_sock = sock;
		c->flags |= FLAG_STREAM;
		return;
	}
	if (!wanted_task())
		return;
	new.call_ns = new.kernel_ns = bpf_ktime_get_ns();
	new.kernel_sock = sock;
	new.flags = FLAG_STREAM | CALL_BY_KERNEL;
	read_peer(&new, sockaddr);
	if (!wanted_peer(new.daddr, new.dport))
		return;
	/* Here, not later: under a kretprobe, older kernels see no further than its trampoline. */
	new.origin_stack = kernel_stack(ctx);
	if (calls.update(&tid, &new))
		count(COUNT_CALLS_FULL, 1);
}

/* What connect(2) returns is told at its exit; here only failures that it never sees. */
static __always_inline void kernel_connect_return(void *ctx, int ret)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct call *c = calls.lookup(&tid);
	struct event *e;

	if (!c || !c->kernel_ns)
		return;
	c->kernel_return_ns = bpf_ktime_get_ns();
	if (!(c->flags & CALL_BY_KERNEL))
		return;
	if (ret && !withheld(c, ret)) {
		e = new_event(EVENT_RETURN);
		if (e) {
			set_caller(e);
			fill_return(e, c);
			e->connect_stack = c->origin_stack;
			e->error = ret;
			emit(ctx, e);
		}
	}
	calls.delete(&tid);
}

/* The passive side: a connection is there, and nobody has taken it yet. */
static __always_inline void arrived(u64 sock, struct ends *ends)
{
	struct arrival a = {.time_ns = bpf_ktime_get_ns(), .ends = *ends};

	arrivals.update(&sock, &a);
}

static __always_inline void accept_enter(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 now = bpf_ktime_get_ns();

	if (!wanted_task())
		return;
	if (accepting.lookup(&tid))
		count(COUNT_RETURNS_MISSED, 1);
	accepting.update(&tid, &now);
}

static __always_inline void fill_arrival(struct event *e, struct arrival *a)
{
	e->start_ns = a->time_ns;
	e->family = a->ends.family;
	e->sport = a->ends.sport;
	e->dport = a->ends.dport;
	__builtin_memcpy(e->saddr, a->ends.saddr, ADDR_LEN);
	__builtin_memcpy(e->daddr, a->ends.daddr, ADDR_LEN);
}

/* The arguments of inet_csk_accept changed in Linux 6.10: only what it returns is used. */
static __always_inline void accept_return(void *ctx, u64 sock)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 *since = accepting.lookup(&tid);
	struct arrival *a;
	struct event *e;

	if (!since)
		return;
	e = sock ? new_event(EVENT_ACCEPT) : NULL;
	if (e) {
		set_caller(e);
		e->sock = sock;
		e->call_ns = *since;
		a = arrivals.lookup(&sock);
		if (a)
			fill_arrival(e, a);
		if (wanted_peer(e->daddr, e->dport) && wanted_local(e->sport))
			emit(ctx, e);
		arrivals.delete(&sock);
	}
	accepting.delete(&tid);
}

#endif
