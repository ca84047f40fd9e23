/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/* socket(2) and connect(2) of wanted tasks: the marks gate, call and return. */
#pragma once
#include "thread.h"
#include "wire.h"

#define SOCK_STREAM 1
#define SOL_SOCKET 1
#define SO_ERROR 4
#define SOCK_TYPE_MASK 0xf
#define EINTR 4
#define EALREADY 114
#define EINPROGRESS 115
#define ERESTARTSYS 512
#define ERESTART_RESTARTBLOCK 516
/* Kept in struct call only: its attempt turned out not to pass the filter on local ports. */
#define CALL_UNWANTED 0x100
/* Kept in struct call only: no connect(2), the kernel's own connect was called by other ways. */
#define CALL_BY_KERNEL 0x200
/* A sleep counts as ended "just before" the call within this time. */
#define JUST_BEFORE_NS 1000000ULL

/*
 * connect(2) may fail before any state change (no route, denied by a hook), and
 * so may a UDP connect: only socket(2) tells which it was.
 */
static __always_inline void socket_enter(int family, int type)
{
	u32 tid = bpf_get_current_pid_tgid();
	u32 stream = (type & SOCK_TYPE_MASK) == SOCK_STREAM;

	if ((family == AF_INET || family == AF_INET6) && wanted_task())
		socket_calls.update(&tid, &stream);
}

static __always_inline void socket_exit(long fd)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	u32 *stream = socket_calls.lookup(&tid);
	struct fd_key key = {.pid = id >> 32, .fd = fd};
	struct fd_state state = {};

	if (!stream)
		return;
	if (fd >= 0 && *stream)
		fds.update(&key, &state);
	else if (fd >= 0)
		fds.delete(&key);
	socket_calls.delete(&tid);
}

/*
 * A program on another CPU may take the error (getsockopt clears sk_err) before
 * inet_sk_error_report, which wakes it first, can say which it was: sk_error_report
 * in net/core/sock.c. So what the program is told counts too.
 */
static __always_inline void getsockopt_enter(int fd, int level, int name, const void *optval)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	struct fd_key key = {.pid = id >> 32, .fd = fd};
	struct asked_error asked = {.optval = (u64)optval};
	struct fd_state *state;

	if (level != SOL_SOCKET || name != SO_ERROR)
		return;
	state = fds.lookup(&key);
	if (!state || !state->sock)
		return;
	asked.sock = state->sock;
	asked.start_ns = state->start_ns;
	asked_errors.update(&tid, &asked);
}

static __always_inline void getsockopt_exit(void *ctx, long ret)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct asked_error *asked = asked_errors.lookup(&tid);
	struct event *e;
	s32 error = 0;

	if (!asked)
		return;
	if (!ret && !bpf_probe_read_user(&error, sizeof(error), (void *)asked->optval) &&
	    error > 0) {
		e = new_event(EVENT_ERROR);
		if (e) {
			set_caller(e);
			e->sock = asked->sock;
			e->start_ns = asked->start_ns;
			e->error = error;
			emit(ctx, e);
		}
	}
	asked_errors.delete(&tid);
}

/* Moves what the thread did before the call into the call. */
static __always_inline void take_gate(struct call *c, u32 tid)
{
	struct thread *t = threads.lookup(&tid);

	if (!t)
		return;
	if (t->gate_ns) {
		c->gate_ns = t->gate_ns;
		c->gate_stack = t->gate_stack;
		t->gate_ns = 0;
	} else if (t->off_ns && c->call_ns - t->on_ns < JUST_BEFORE_NS) {
		c->sleep_ns = t->off_ns;
		t->off_ns = 0; /* the next call was not preceded by it */
	}
}

static __always_inline void connect_enter(int fd, const void *sockaddr)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	struct call c = {.fd = fd, .gate_stack = -1, .connect_stack = -1, .origin_stack = -1};
	struct fd_key key = {.pid = id >> 32, .fd = fd};
	struct fd_state *state;

	if (!wanted_task())
		return;
	c.call_ns = bpf_ktime_get_ns();
	if (!read_sockaddr(sockaddr, &c.family, &c.dport, c.daddr) && c.family)
		return;
	if (c.family && !wanted_peer(c.daddr, c.dport))
		return;
	take_gate(&c, tid);
	state = fds.lookup(&key);
	if (state) {
		c.flags |= FLAG_STREAM;
		if (state->sock) {
			c.sock = state->sock;
			c.start_ns = state->start_ns;
			c.flags |= FLAG_AGAIN;
		}
	}
	if (calls.update(&tid, &c))
		count(COUNT_CALLS_FULL, 1);
}

static __always_inline bool still_connecting(long ret)
{
	return ret == -EINPROGRESS || ret == -EALREADY || ret == -EINTR ||
	       (ret <= -ERESTARTSYS && ret >= -ERESTART_RESTARTBLOCK);
}

/* Keeps or forgets which attempt the descriptor carries on after this call. */
static __always_inline void remember_fd(struct call *c, u32 pid, long ret)
{
	struct fd_key key = {.pid = pid, .fd = c->fd};
	struct fd_state state = {};

	if (!c->sock)
		return;
	if (still_connecting(ret)) {
		if (c->flags & FLAG_AGAIN)
			return;
		state.sock = c->sock;
		state.start_ns = c->start_ns;
		fds.update(&key, &state);
	} else if (c->flags & FLAG_AGAIN) {
		fds.update(&key, &state);
	}
}

static __always_inline void fill_return(struct event *e, struct call *c)
{
	e->sock = c->sock;
	e->start_ns = c->start_ns;
	e->call_ns = c->call_ns;
	e->gate_ns = c->gate_ns;
	e->sleep_ns = c->sleep_ns;
	e->fd = c->fd;
	e->gate_stack = c->gate_stack;
	e->connect_stack = c->connect_stack;
	e->family = c->family;
	e->dport = c->dport;
#ifdef GATE
	e->flags = c->flags | FLAG_WATCHED;
#else
	e->flags = c->flags;
#endif
	e->kernel_ns = c->kernel_ns;
	e->kernel_return_ns = c->kernel_return_ns;
	__builtin_memcpy(e->daddr, c->daddr, ADDR_LEN);
}

/* sys_exit without sys_enter: seccomp or ptrace answered in the kernel's place. */
static __always_inline void answered_at_gate(void *ctx, u32 tid, long ret)
{
	struct thread *t = threads.lookup(&tid);
	struct event *e;

	if (!t || !t->gate_ns)
		return;
	e = new_event(EVENT_RETURN);
	if (e && t->fd >= 0 && wanted_peer(t->daddr, t->dport)) {
		set_caller(e);
		e->gate_ns = t->gate_ns;
		e->gate_stack = t->gate_stack;
		e->fd = t->fd;
		e->family = t->family;
		e->dport = t->dport;
		e->error = ret;
		e->flags = FLAG_AT_GATE;
		e->origin = ORIGIN_CONNECT;
		__builtin_memcpy(e->daddr, t->daddr, ADDR_LEN);
		emit(ctx, e);
	}
	t->gate_ns = 0;
}

/*
 * Whether an attempt passes the filter on local ports shows only later: until then
 * what its call returned waits in the attempt.
 */
static __always_inline bool withheld(struct call *c, long ret)
{
#ifdef FILTER_LPORT
	struct attempt *a = attempts.lookup(&c->sock);

	if (!c->sock || (c->flags & CALL_UNWANTED))
		return true;
	if (!a || !a->silent || a->start_ns != c->start_ns)
		return false;
	a->returned_ns = bpf_ktime_get_ns();
	a->result = ret;
	return true;
#else
	return false;
#endif
}

static __always_inline void connect_exit(void *ctx, long ret)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	struct call *c = calls.lookup(&tid);
	struct event *e;

	if (!c) {
		answered_at_gate(ctx, tid, ret);
		return;
	}
	wire_expects_none();
	if (c->kernel_ns && !c->kernel_return_ns)
		count(COUNT_RETURNS_MISSED, 1);
	/* no attempt, and none failed: a datagram socket, or a result asked again */
	if (!c->sock && (ret == 0 || still_connecting(ret) || !(c->flags & FLAG_STREAM)))
		goto out;
	remember_fd(c, id >> 32, ret);
	if (withheld(c, ret))
		goto out;
	e = new_event(EVENT_RETURN);
	if (!e)
		goto out;
	set_caller(e);
	fill_return(e, c);
	e->origin = ORIGIN_CONNECT;
	e->error = ret;
	emit(ctx, e);
out:
	calls.delete(&tid);
}
