/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * The socket's own story: SYN_SENT entered (in the caller's context, and only
 * there are pid, tid and comm right), sent again, left (often in softirq).
 */
#pragma once
#include "connect.h"

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define ECONNREFUSED 111

enum { HALF_END = 0, HALF_ERROR = 1 };

static __always_inline u32 change_in_flight(u32 pid, int by)
{
	u64 one = 1, *n = in_flight.lookup(&pid);

	if (!n) {
		if (by > 0)
			in_flight.update(&pid, &one);
		return by > 0;
	}
	/* Atomic, but without its result, which only Linux 5.12 and newer can give. */
	__sync_fetch_and_add(n, by > 0 ? 1 : -1ULL);
	if ((s64)*n < 0) /* its SYN_SENT was counted, and forgotten at an exit in between */
		*n = 0;
	return *n;
}

static __always_inline void fill_start(struct event *e, struct attempt *a, u64 sock)
{
	fill_owner(e, a, sock);
	e->flags = a->flags;
	e->origin = a->origin;
	if (a->origin_stack >= 0)
		e->connect_stack = a->origin_stack;
}

/* Withheld events, sent now that the local port turned out to be wanted. */
static __always_inline void emit_withheld(void *ctx, int room, struct attempt *a, u64 sock)
{
	struct event *e = new_event_in(room, EVENT_START);

	if (!e)
		return;
	fill_start(e, a, sock);
	e->time_ns = a->start_ns;
	emit(ctx, e);
	if (!a->returned_ns)
		return;
	e->type = EVENT_RETURN;
	e->connect_stack = a->connect_stack;
	e->time_ns = a->returned_ns;
	e->error = a->result;
	emit(ctx, e);
}

/* Tells the call in progress, if there is one, that nobody wants its attempt. */
static __always_inline void forget_call(struct attempt *a, u64 sock)
{
	u32 tid = a->tid;
	struct call *c = calls.lookup(&tid);

	if (c && c->sock == sock)
		c->flags |= CALL_UNWANTED;
}

static __always_inline void join_call(struct attempt *a, struct call *c, u64 sock)
{
	c->sock = sock;
	c->start_ns = a->start_ns;
	c->flags &= ~FLAG_AGAIN;
	a->call_ns = c->call_ns;
	a->gate_ns = c->gate_ns;
	a->sleep_ns = c->sleep_ns;
	a->fd = c->fd;
	a->gate_stack = c->gate_stack;
	a->connect_stack = c->connect_stack;
	a->kernel_ns = c->kernel_ns;
	a->flags = FLAG_IN_CONNECT;
	if (c->flags & CALL_BY_KERNEL)
		a->origin_stack = c->origin_stack;
	else
		a->origin = ORIGIN_CONNECT;
}

/*
 * A thread that had stood at the gate before sys_enter was traced is not told of there any more
 * (the kernel asks once, as the call begins), but at sys_exit. User space has found it. NULL for any
 * other thread.
 */
static __always_inline struct call *call_from_gate(u32 tid)
{
	struct thread *t = threads.lookup(&tid);
	int first = 0;
	struct call *c = late_calls.lookup(&first);

	/* without the registers any sleep is noted as one at the gate */
	if (!t || !t->gate_ns || t->gate_stack < OWN_STACKS || !c)
		return NULL;
	__builtin_memset(c, 0, sizeof(*c));
	c->connect_stack = c->origin_stack = -1;
	c->flags = FLAG_STREAM;
	c->call_ns = t->on_ns > t->gate_ns ? t->on_ns : bpf_ktime_get_ns();
	c->gate_ns = t->gate_ns;
	c->gate_stack = t->gate_stack;
	c->fd = t->fd;
	c->family = t->family;
	c->dport = t->dport;
	__builtin_memcpy(c->daddr, t->daddr, ADDR_LEN);
	t->gate_ns = 0;
	calls.update(&tid, c);
	return calls.lookup(&tid);
}

/*
 * An attempt whose END was missed: its address is another socket's by now, whose END shall not be
 * told as its own, whoever that socket belongs to.
 */
static __always_inline void drop_stale(u64 sock)
{
	struct attempt *old = attempts.lookup(&sock);

	if (!old)
		return;
	change_in_flight(old->pid, -1);
	count_attempts(-1);
	attempts.delete(&sock);
}

static __always_inline void state_syn_sent(void *ctx, u64 sock, struct ends *ends)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	struct attempt a = {.fd = -1, .gate_stack = -1, .connect_stack = -1, .origin_stack = -1};
	struct call *c;
	struct event *e;

	drop_stale(sock);
	if (!wanted_task() || !wanted_peer(ends->daddr, ends->dport))
		return;
	e = new_event_in(ROOM_STATE, EVENT_START);
	if (!e)
		return;
	a.start_ns = e->time_ns;
	a.pid = id >> 32;
	a.tid = tid;
	a.uid = bpf_get_current_uid_gid();
	a.cgroup = bpf_get_current_cgroup_id();
	a.family = ends->family;
	a.dport = ends->dport;
	__builtin_memcpy(a.saddr, ends->saddr, ADDR_LEN);
	__builtin_memcpy(a.daddr, ends->daddr, ADDR_LEN);
	bpf_get_current_comm(&a.comm, sizeof(a.comm));
	c = calls.lookup(&tid);
	if (!c)
		c = call_from_gate(tid);
	if (c)
		join_call(&a, c, sock);
	/* the port is chosen after this point (inet_hash_connect), unless bound */
	a.silent = !wanted_local(ends->sport);
	if (a.silent && ends->sport) {
		forget_call(&a, sock);
		return;
	}
	if (!a.origin && a.origin_stack < 0)
		a.origin_stack = kernel_stack(ctx);
	if (attempts.update(&sock, &a)) {
		count(COUNT_ATTEMPTS_FULL, 1);
		a.flags |= FLAG_UNTRACKED;
	} else {
		count_attempts(1);
		e->in_flight = change_in_flight(a.pid, 1);
	}
	wire_expects(sock, a.start_ns);
	if (a.silent)
		return;
	fill_start(e, &a, sock);
	e->sport = ends->sport;
	emit(ctx, e);
}

static __always_inline void fill_tuple(struct tuple *t, struct ends *ends, u16 dport)
{
	__builtin_memset(t, 0, sizeof(*t));
	__builtin_memcpy(t->daddr, ends->daddr, ADDR_LEN);
	t->sport = ends->sport;
	t->dport = dport;
}

static __always_inline bool same_tuple(struct tuple *a, struct tuple *b)
{
	u64 *x = (u64 *)a, *y = (u64 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2];
}

/*
 * Is the current thread inside connect(2) on this very socket, to reach somebody? With AF_UNSPEC,
 * which is 0, the program takes its attempt back.
 */
static __always_inline bool in_connect_on(u64 sock)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct call *c = calls.lookup(&tid);

	return c && c->sock == sock && c->family;
}

/* tcp_reset tells a socket in SYN_SENT ECONNREFUSED (net/ipv4/tcp_input.c). */
static __always_inline void receive_reset(u64 sock)
{
	struct attempt *a = attempts.lookup(&sock);

	if (a)
		a->error = ECONNREFUSED;
}

/* Fills an attempt for a socket that was in SYN_SENT before tracing began. */
static __always_inline bool seeded(struct attempt *a, struct ends *ends)
{
	struct tuple t;
	struct seed *s;

	fill_tuple(&t, ends, ends->dport);
	s = seeds.lookup(&t);
	if (!s)
		return false;
	a->fd = a->gate_stack = a->connect_stack = a->origin_stack = -1;
	a->start_ns = s->start_ns;
	a->pid = s->pid;
	a->uid = s->uid;
	a->family = ends->family;
	a->dport = ends->dport;
	__builtin_memcpy(a->saddr, ends->saddr, ADDR_LEN);
	__builtin_memcpy(a->daddr, ends->daddr, ADDR_LEN);
	__builtin_memcpy(a->comm, s->comm, COMM_LEN);
	return true;
}

/*
 * The errno comes through inet_sk_error_report, which has no socket pointer:
 * tcp_reset and tcp_done_with_error report after the state change, the older
 * tcp_write_err before it. Either half waits here for the other, on its CPU.
 */
static __always_inline void keep_end(struct event *e, struct attempt *a, struct ends *ends)
{
	int end = HALF_END, error = HALF_ERROR;
	struct half *h = halves.lookup(&end), *told = halves.lookup(&error);

	if (!h || !told)
		return;
	h->time_ns = 0; /* an error that comes in between is no half of what is half written */
	fill_tuple(&h->tuple, ends, a->dport);
	h->sock = e->sock;
	h->start_ns = a->start_ns;
	h->owner = *a;
	barrier();
	h->time_ns = e->time_ns;
	if (same_tuple(&h->tuple, &told->tuple) && e->time_ns - told->time_ns < 1000000) {
		e->error = told->error;
		told->time_ns = 0;
	}
}

/* An empty attempt, which has no place on the stack; NULL never. */
static __always_inline struct attempt *room_for_copy(int room)
{
	struct attempt *copy = copies.lookup(&room);

	if (copy)
		__builtin_memset(copy, 0, sizeof(*copy));
	return copy;
}

static __always_inline void state_left_syn_sent(void *ctx, u64 sock, struct ends *ends, int state)
{
	struct attempt *copy = room_for_copy(ROOM_STATE), *a = attempts.lookup(&sock);
	struct event *e;
	u64 key = sock;
	struct flow *f;

	if (!copy)
		return;
	if (a) {
		*copy = *a;
		attempts.delete(&sock);
		count_attempts(-1);
	} else if (seeded(copy, ends)) {
		struct tuple t;

		fill_tuple(&t, ends, ends->dport);
		seeds.delete(&t);
		key = 0;
	} else {
		return;
	}
	if (copy->silent) {
		change_in_flight(copy->pid, -1);
		if (!wanted_local(ends->sport)) {
			forget_call(copy, sock);
			forget_wire(copy);
			return;
		}
		emit_withheld(ctx, ROOM_STATE, copy, sock);
	}
	f = wire_of(ctx, ROOM_STATE, copy, sock, ends);
	e = new_event_in(ROOM_STATE, EVENT_END);
	if (!e)
		return;
	fill_owner(e, copy, key);
	fill_wire(e, f, copy);
	forget_wire(copy);
	__builtin_memcpy(e->saddr, ends->saddr, ADDR_LEN);
	e->sport = ends->sport;
	e->newstate = state;
	e->peer_pid = bpf_get_current_pid_tgid() >> 32;
	e->flags = in_connect_on(sock) ? FLAG_IN_CONNECT : 0;
	if (key && !copy->silent)
		e->in_flight = change_in_flight(copy->pid, -1);
	e->error = copy->error;
	if (state == TCP_CLOSE)
		keep_end(e, copy, ends);
	emit(ctx, e);
}

static __always_inline void error_report(void *ctx, struct ends *ends, int error)
{
	int end = HALF_END, slot = HALF_ERROR;
	struct half *h = halves.lookup(&end), *told = halves.lookup(&slot);
	struct tuple t;
	struct event *e;

	if (!h || !told)
		return;
	fill_tuple(&t, ends, ends->dport);
	if (h->time_ns && same_tuple(&t, &h->tuple)) {
		if (h->owner.error) /* END has said it already */
			return;
		e = new_event_in(ROOM_ERROR, EVENT_ERROR);
		if (!e)
			return;
		fill_owner(e, &h->owner, h->sock);
		e->sport = ends->sport;
		e->error = error;
		h->time_ns = 0;
		emit(ctx, e);
		return;
	}
	told->tuple = t;
	told->error = error;
	told->time_ns = bpf_ktime_get_ns();
}

static __always_inline void retransmit(void *ctx, u64 sock, struct ends *ends)
{
	struct attempt *copy = room_for_copy(ROOM_RETRANSMIT), *a = attempts.lookup(&sock);
	struct event *e;
	struct flow *f;

	if (!copy || (!a && !seeded(copy, ends)))
		return;
	if (a)
		*copy = *a;
	if (a && a->silent) {
		if (!wanted_local(ends->sport))
			return;
		a->silent = 0;
		emit_withheld(ctx, ROOM_RETRANSMIT, copy, sock);
	}
	f = wire_of(ctx, ROOM_RETRANSMIT, copy, sock, ends);
	e = new_event_in(ROOM_RETRANSMIT, EVENT_RETRANSMIT);
	if (!e)
		return;
	fill_owner(e, copy, a ? sock : 0);
	fill_wire(e, f, copy);
	__builtin_memcpy(e->saddr, ends->saddr, ADDR_LEN);
	e->sport = ends->sport;
	emit(ctx, e);
}
