/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * bind(2) and listen(2): what was asked for, with the socket's options as they
 * stood, and what was answered. Addresses and ports are copied at the entry:
 * nothing of the kernel keeps them when it says no.
 */
#pragma once
#include "connect.h"

#ifdef BINDS

#define EINVAL 22
#define BELL_SPAN_NS 100000000ULL
#define BELLS_A_SPAN 32
#define SOL_IP 0
#define SOL_IPV6 41
#define SO_REUSEADDR 2
#define SO_REUSEPORT 15
#define IP_FREEBIND 15
#define IP_TRANSPARENT 19
#define IP_BIND_ADDRESS_NO_PORT 24
#define IPV6_V6ONLY 26
#define IPV6_TRANSPARENT 75
#define IPV6_FREEBIND 78

/* The option of enum event_option that a setsockopt(2) is about, 0 for none. */
static __always_inline u8 option_of(int level, int name)
{
	if (level == SOL_SOCKET)
		return name == SO_REUSEADDR   ? OPTION_REUSEADDR
		       : name == SO_REUSEPORT ? OPTION_REUSEPORT
					      : 0;
	if (level == SOL_IP)
		return name == IP_FREEBIND || name == IP_TRANSPARENT ? OPTION_FREEBIND
		       : name == IP_BIND_ADDRESS_NO_PORT             ? OPTION_LATE_PORT
								     : 0;
	if (level != SOL_IPV6)
		return 0;
	return name == IPV6_V6ONLY                                 ? OPTION_V6ONLY
	       : name == IPV6_FREEBIND || name == IPV6_TRANSPARENT ? OPTION_FREEBIND
								   : 0;
}

static __always_inline void setsockopt_enter(int fd, int level, int name, const void *optval)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct option_call o = {.fd = fd, .option = option_of(level, name)};
	u32 value = 0;

	if (!o.option || !wanted_task())
		return;
	/* IP_* take a single byte as well (do_ip_setsockopt): the lowest comes first here */
	if (bpf_probe_read_user(&value, sizeof(value), optval) &&
	    bpf_probe_read_user(&value, 1, optval))
		return;
	o.on = !!value;
	option_calls.update(&tid, &o);
}

static __always_inline void setsockopt_exit(long ret)
{
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id;
	struct option_call *o = option_calls.lookup(&tid);
	struct fd_key key = {.pid = id >> 32};
	struct fd_state *state;

	if (!o)
		return;
	key.fd = o->fd;
	state = ret ? NULL : fds.lookup(&key);
	if (state && o->on)
		state->options |= o->option;
	else if (state)
		state->options &= ~o->option;
	option_calls.delete(&tid);
}

/* What socket(2) said of the descriptor; of one from elsewhere nothing is known. */
static __always_inline struct fd_state *state_of(s32 fd)
{
	struct fd_key key = {.pid = bpf_get_current_pid_tgid() >> 32, .fd = fd};
	struct fd_state *state = fds.lookup(&key);

	return state && state->family ? state : NULL;
}

/* False for calls that are nobody's business; `state` is what is known of the socket, NULL nothing. */
static __always_inline bool begin_bind(struct bind_call *b, struct fd_state **state)
{
	if (!wanted_task())
		return false;
	b->call_ns = bpf_ktime_get_ns();
	*state = state_of(b->fd);
	return !*state || (*state)->protocol != PROTOCOL_OTHER;
}

static __always_inline void keep_bind(struct bind_call *b)
{
	u32 tid = bpf_get_current_pid_tgid();

	if (bind_calls.update(&tid, b))
		count(COUNT_CALLS_FULL, 1);
}

static __always_inline void bind_enter(int fd, const void *sockaddr)
{
	struct bind_call b = {.fd = fd};
	struct fd_state *state;

	if (!begin_bind(&b, &state))
		return;
	/* AF_UNSPEC does for AF_INET (__inet_bind), and is what is left of a pointer into nowhere */
	if (!read_sockaddr(sockaddr, &b.family, &b.port, b.saddr)) {
		if (b.family || !state)
			return;
		b.family = AF_INET;
		b.saddr[10] = b.saddr[11] = 0xff;
	}
	keep_bind(&b);
}

static __always_inline void listen_enter(int fd, int backlog)
{
	struct bind_call b = {.fd = fd, .backlog = backlog, .listens = 1};
	struct fd_state *state;

	if (!begin_bind(&b, &state))
		return;
	if (state) {
		b.family = state->family;
		b.port = state->port;
		__builtin_memcpy(b.saddr, state->saddr, ADDR_LEN);
	}
	keep_bind(&b);
}

/*
 * The socket enters LISTEN before the kernel looks at its port once more, and finds
 * one for it if it has none (inet_csk_listen_start): port 0 here means "none yet".
 */
static __always_inline void listening(u64 sock, struct ends *ends)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct bind_call *b = bind_calls.lookup(&tid);

	if (!b || !b->listens)
		return;
	b->changed = 1;
	b->sock = sock;
	b->family = ends->family;
	b->port = ends->sport;
	__builtin_memcpy(b->saddr, ends->saddr, ADDR_LEN);
}

static __always_inline bool wanted_bind(struct bind_call *b, long ret)
{
#ifdef FILTER_FAMILY
	if (is_v4(b->saddr) != (FILTER_FAMILY == AF_INET))
		return false;
#endif
#ifdef BINDS_FAILED
	if (!ret)
		return false;
#endif
#ifdef BINDS_FIXED
	if (!ret && !b->listens && !b->port)
		return false;
#endif
	/* which port the kernel chose, user space asks, and looks again if it is wanted */
	return wanted_local(b->port) || !b->port;
}

/*
 * The number of the network namespace the caller is in, 0 where it cannot be told: a server that
 * fails is often gone before anybody could ask. The fields stand where the kernel's BTF says.
 */
static __always_inline u32 caller_netns(void)
{
	u32 inum = 0;
#ifdef HAVE_NETNS
	u64 at = bpf_get_current_task();

	if (bpf_probe_read_kernel(&at, sizeof(at), (void *)(at + NSPROXY_AT)) || !at)
		return 0;
	if (bpf_probe_read_kernel(&at, sizeof(at), (void *)(at + NET_AT)) || !at)
		return 0;
	if (bpf_probe_read_kernel(&inum, sizeof(inum), (void *)(at + NS_AT + INUM_AT)))
		return 0;
#endif
	return inum;
}

#ifdef MOVES
/* Before it goes: whoever reads then where the thread is, and finds no move, reads what was so. */
static __always_inline void thread_moves(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	u64 now_ns = bpf_ktime_get_ns();

	moves.update(&tid, &now_ns);
}
#endif

static __always_inline void fill_bind(struct event *e, struct bind_call *b, struct fd_state *state,
				      long ret)
{
	set_caller(e);
	e->call_ns = b->call_ns;
	e->sock = b->sock;
	e->fd = b->fd;
	e->error = ret;
	e->in_flight = b->backlog;
	e->peer_pid = caller_netns();
	e->family = b->family;
	e->sport = b->port;
	e->dport = ret ? 0 : b->port;
	__builtin_memcpy(e->saddr, b->saddr, ADDR_LEN);
	if (b->changed)
		e->newstate = IPPROTO_TCP;
	if (!state)
		return;
	if (ret == -EINVAL)
		e->dport = state->port;
	e->newstate = state->protocol;
	e->answer = state->options;
	e->answers = EVERY_OPTION;
}

/* May others have the port as well? Then who they are is of interest, too. */
static __always_inline bool shares(struct bind_call *b, struct fd_state *state)
{
	if (!state || !b->port)
		return false;
	if (state->protocol == IPPROTO_UDP)
		return state->options & (OPTION_REUSEADDR | OPTION_REUSEPORT);
	return b->listens && (state->options & OPTION_REUSEPORT);
}

/*
 * Waking somebody interrupts this CPU in the middle of a program, and what happens in that
 * interrupt is not seen: so often as a look-up can follow, and no more.
 */
static __always_inline void ring_bell(void *ctx, struct event *e)
{
	int zero = 0;
	struct bell *b = bells.lookup(&zero);

	if (!b)
		return;
	if (e->time_ns - b->since_ns > BELL_SPAN_NS) {
		b->since_ns = e->time_ns;
		b->count = 0;
	}
	if (b->count++ < BELLS_A_SPAN)
		failed_binds.perf_submit(ctx, e, sizeof(*e));
}

static __always_inline void bind_exit(void *ctx, long ret)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct bind_call *b = bind_calls.lookup(&tid);
	struct fd_state *state;
	struct event *e;

	if (!b)
		return;
	state = state_of(b->fd);
	/* listen(2) on what is no socket of TCP: nobody can tell what it was about */
	if (b->listens && !state && !b->changed)
		goto out;
	/* a second listen(2), for another backlog, changes no state that would tell the port */
	if (state && !ret && (!b->listens || b->changed)) {
		state->port = b->port;
		__builtin_memcpy(state->saddr, b->saddr, ADDR_LEN);
	}
	e = wanted_bind(b, ret) ? new_event(b->listens ? EVENT_LISTEN : EVENT_BIND) : NULL;
	if (e) {
		fill_bind(e, b, state, ret);
		emit(ctx, e);
		if (ret || shares(b, state))
			ring_bell(ctx, e);
	}
out:
	bind_calls.delete(&tid);
}

#endif
