/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/* socket(2) and connect(2) of wanted tasks: the marks gate, call and return. */
#pragma once
#include "thread.h"
#include "wire.h"

#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define IPPROTO_MPTCP 262
#define EVERY_OPTION \
	(OPTION_REUSEADDR | OPTION_REUSEPORT | OPTION_V6ONLY | OPTION_FREEBIND | OPTION_LATE_PORT)
/* Neither TCP nor UDP: of no interest to bind. */
#define PROTOCOL_OTHER 255
#define SOL_SOCKET 1
#define SO_ERROR 4
#define SOCK_TYPE_MASK 0xf
#define EINTR 4
#define EAGAIN 11
#define EADDRNOTAVAIL 99
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

static __always_inline u8 protocol_of(u32 type, int protocol)
{
	if (type == SOCK_STREAM)
		return !protocol || protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP
			       ? IPPROTO_TCP
			       : PROTOCOL_OTHER;
	if (type == SOCK_DGRAM && (!protocol || protocol == IPPROTO_UDP))
		return IPPROTO_UDP;
	return PROTOCOL_OTHER;
}

/*
 * connect(2) may fail before any state change (no route, denied by a hook), and
 * so may a UDP connect: only socket(2) tells which it was. What bind(2) is called
 * for is not told by bind(2) either.
 */
static __always_inline void socket_enter(int family, int type, int protocol)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct fd_state state = {.family = family};

	if ((family != AF_INET && family != AF_INET6) || !wanted_task())
		return;
	type &= SOCK_TYPE_MASK;
	state.stream = type == SOCK_STREAM;
	state.protocol = protocol_of(type, protocol);
#ifdef V6ONLY_BY_DEFAULT
	if (family == AF_INET6)
		state.options = OPTION_V6ONLY;
#endif
	socket_calls.update(&tid, &state);
}

static __always_inline void socket_exit(long fd)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	struct fd_state *state = socket_calls.lookup(&tid);
	struct fd_key key = {.pid = id >> 32, .fd = fd};
	struct fd_state *known;

	if (!state)
		return;
	known = fd >= 0 ? fds.lookup(&key) : NULL;
	if (known) /* a descriptor that was closed: in place, which costs half as much */
		*known = *state;
	else if (fd >= 0)
		fds.update(&key, state);
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
	if (state && state->stream) {
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
	struct fd_state *state, new = {.stream = 1};
	bool goes_on = still_connecting(ret), again = c->flags & FLAG_AGAIN;

	if (!c->sock || goes_on == again)
		return;
	state = fds.lookup(&key);
	if (state) {
		state->sock = goes_on ? c->sock : 0;
		state->start_ns = goes_on ? c->start_ns : 0;
	} else if (goes_on) {
		new.sock = c->sock;
		new.start_ns = c->start_ns;
		fds.update(&key, &new);
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

/* The kernel had no local port to give: EAGAIN is what inet_autobind says (UDP). */
static __always_inline void no_port(void *ctx, struct call *c, long ret)
{
#ifdef BINDS
	bool stream = c->flags & FLAG_STREAM;
	struct fd_key key = {.pid = bpf_get_current_pid_tgid() >> 32, .fd = c->fd};
	struct fd_state *state;
	struct event *e;

	if (ret != (stream ? -EADDRNOTAVAIL : -EAGAIN))
		return;
	e = new_event(EVENT_AUTOBIND);
	if (!e)
		return;
	set_caller(e);
	e->call_ns = c->call_ns;
	e->fd = c->fd;
	e->error = ret;
	e->family = c->family;
	e->dport = c->dport;
	__builtin_memcpy(e->daddr, c->daddr, ADDR_LEN);
	state = fds.lookup(&key);
	if (state) {
		e->newstate = state->protocol;
		e->answer = state->options;
		e->answers = EVERY_OPTION;
		e->sport = state->port;
		__builtin_memcpy(e->saddr, state->saddr, ADDR_LEN);
	}
	if (wanted_local(e->sport))
		emit(ctx, e);
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
	if (ret)
		no_port(ctx, c, ret);
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
