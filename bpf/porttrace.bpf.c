/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * The roof: hooks only, each one line that calls a handler. User space attaches
 * them by name, each by trying. Flags (-D):
 *   FILTER_PID, FOLLOW_CHILDREN, FILTER_UID, FILTER_COMM, FILTER_RPORT,
 *   FILTER_LPORT        the map of that name decides
 *   FILTER_CGROUP=n     n entries of wanted_cgroups decide
 *   FILTER_FAMILY=f     AF_INET or AF_INET6 only
 *   HAVE_TASK_REGS      the kernel lets us read a sleeping task's registers
 *   HAVE_GROUP_DEAD     sched_process_exit says whether the process ended
 *   HAVE_SOCK           SOCK_..._AT: where a socket keeps what its tracepoints tell, so that raw
 *                       ones will do
 *   HAVE_ERROR_REPORT   sock:inet_sk_error_report exists
 *   WIRE                watch the wire for SYNs and their answers
 *   HAVE_DROP_REASON    skb:kfree_skb tells why
 *   HAVE_NETNS          NSPROXY_AT, NET_AT, NS_AT, INUM_AT: where the fields stand that lead from
 *                       a task to the number of its network namespace
 *   GATE                watch the scheduler for holds
 *   BINDS               tell of bind(2) and listen(2)
 *   BINDS_FIXED         of bind(2) that got what it wanted, only with a port that was named
 *   BINDS_FAILED        only of those that failed
 *   MOVES               BINDS without HAVE_NETNS: note which threads change their namespaces
 *   V6ONLY_BY_DEFAULT   sockets of IPv6 begin with IPV6_V6ONLY (net.ipv6.bindv6only)
 *   FENTRY, KPROBE      hook the kernel's own connect and accept, in this way
 *   FENTRY_RESULT_AT=n  FENTRY: the result of inet_csk_accept follows n arguments, on
 *                       kernels that have no helper to ask for it
 */
#include <asm/ptrace.h>
/* A field of skb:kfree_skb has this type; its names are read off the running kernel. */
enum skb_drop_reason { SKB_DROP_REASON_UNKNOWN };
#if defined(FENTRY) || defined(KPROBE)
#define KERNEL_FUNCTIONS
#endif
#include "event.h"
#include "maps.h"
#include "common.h"
#include "thread.h"
#include "connect.h"
#include "state.h"
#include "kernel.h"
#include "process.h"
#include "bind.h"
#include "raw.h"

/* The record of tcp_retransmit_skb has no family before Linux 5.12: set_state says it. */
#define ENDS_OF(args)                                                        \
	struct ends ends = {.sport = (args)->sport, .dport = (args)->dport}; \
	__builtin_memcpy(ends.saddr, (args)->saddr_v6, ADDR_LEN);            \
	__builtin_memcpy(ends.daddr, (args)->daddr_v6, ADDR_LEN)

int on_socket_enter(struct tracepoint__syscalls__sys_enter_socket *args)
{
	socket_enter(args->family, args->type, args->protocol);
	return 0;
}

int on_socket_exit(struct tracepoint__syscalls__sys_exit_socket *args)
{
	socket_exit(args->ret);
	return 0;
}

int on_connect_enter(struct tracepoint__syscalls__sys_enter_connect *args)
{
	connect_enter(args->fd, (const void *)args->uservaddr);
	return 0;
}

int on_connect_exit(struct tracepoint__syscalls__sys_exit_connect *args)
{
	connect_exit(args, args->ret);
	return 0;
}

int on_getsockopt_enter(struct tracepoint__syscalls__sys_enter_getsockopt *args)
{
	getsockopt_enter(args->fd, args->level, args->optname, (const void *)args->optval);
	return 0;
}

int on_getsockopt_exit(struct tracepoint__syscalls__sys_exit_getsockopt *args)
{
	getsockopt_exit(args, args->ret);
	return 0;
}

#ifdef BINDS
int on_setsockopt_enter(struct tracepoint__syscalls__sys_enter_setsockopt *args)
{
	setsockopt_enter(args->fd, args->level, args->optname, (const void *)args->optval);
	return 0;
}

int on_setsockopt_exit(struct tracepoint__syscalls__sys_exit_setsockopt *args)
{
	setsockopt_exit(args->ret);
	return 0;
}

int on_bind_enter(struct tracepoint__syscalls__sys_enter_bind *args)
{
	bind_enter(args->fd, (const void *)args->umyaddr);
	return 0;
}

int on_bind_exit(struct tracepoint__syscalls__sys_exit_bind *args)
{
	bind_exit(args, args->ret);
	return 0;
}

int on_listen_enter(struct tracepoint__syscalls__sys_enter_listen *args)
{
	listen_enter(args->fd, args->backlog);
	return 0;
}

int on_listen_exit(struct tracepoint__syscalls__sys_exit_listen *args)
{
	bind_exit(args, args->ret);
	return 0;
}
#endif

#ifdef MOVES
int on_setns_enter(struct tracepoint__syscalls__sys_enter_setns *args)
{
	thread_moves();
	return 0;
}

int on_unshare_enter(struct tracepoint__syscalls__sys_enter_unshare *args)
{
	thread_moves();
	return 0;
}
#endif

int on_receive_reset(struct tracepoint__tcp__tcp_receive_reset *args)
{
	receive_reset((u64)args->skaddr);
	return 0;
}

static __always_inline bool state_tells(int from, int to)
{
#ifdef KERNEL_FUNCTIONS
	if (from == TCP_SYN_RECV && to == TCP_ESTABLISHED)
		return true;
#endif
#ifdef BINDS
	if (to == TCP_LISTEN)
		return true;
#endif
	return to == TCP_SYN_SENT || from == TCP_SYN_SENT;
}

static __always_inline void set_state(void *ctx, u64 sock, struct ends *ends, int from, int to)
{
	if (to == TCP_SYN_SENT)
		state_syn_sent(ctx, sock, ends);
	else if (from == TCP_SYN_SENT)
		state_left_syn_sent(ctx, sock, ends, to);
#ifdef KERNEL_FUNCTIONS
	else if (from == TCP_SYN_RECV && to == TCP_ESTABLISHED)
		arrived(sock, ends);
#endif
#ifdef BINDS
	else if (to == TCP_LISTEN)
		listening(sock, ends);
#endif
}

int on_set_state(struct tracepoint__sock__inet_sock_set_state *args)
{
	ENDS_OF(args);

	ends.family = args->family;
	if (args->protocol == IPPROTO_TCP && state_tells(args->oldstate, args->newstate))
		set_state(args, (u64)args->skaddr, &ends, args->oldstate, args->newstate);
	return 0;
}

int on_retransmit(struct tracepoint__tcp__tcp_retransmit_skb *args)
{
	ENDS_OF(args);

	if (args->state == TCP_SYN_SENT)
		retransmit(args, (u64)args->skaddr, &ends);
	return 0;
}

#ifdef HAVE_ERROR_REPORT
int on_error_report(struct tracepoint__sock__inet_sk_error_report *args)
{
	ENDS_OF(args);

	if (args->protocol == IPPROTO_TCP)
		error_report(args, &ends, args->error);
	return 0;
}
#endif

#ifdef HAVE_SOCK
/* The same, where the kernel describes its sockets: cheaper, and never stepped over. */
int on_receive_reset_raw(struct raw_args *args)
{
	receive_reset(args->of[0]);
	return 0;
}

int on_set_state_raw(struct raw_args *args)
{
	u64 sock = args->of[0];
	int from = args->of[1], to = args->of[2];
	struct ends ends = {};

	if (!state_tells(from, to) || sock_protocol(sock) != IPPROTO_TCP)
		return 0;
	read_ends(&ends, sock);
	set_state(args, sock, &ends, from, to);
	return 0;
}

int on_retransmit_raw(struct raw_args *args)
{
	u64 sock = args->of[0];
	struct ends ends = {};

	if (sock_state(sock) != TCP_SYN_SENT)
		return 0;
	read_ends(&ends, sock);
	retransmit(args, sock, &ends);
	return 0;
}

#ifdef HAVE_ERROR_REPORT
int on_error_report_raw(struct raw_args *args)
{
	u64 sock = args->of[0];
	struct ends ends = {};

	if (sock_protocol(sock) != IPPROTO_TCP)
		return 0;
	read_ends(&ends, sock);
	error_report(args, &ends, sock_error(sock));
	return 0;
}
#endif
#endif

#ifdef WIRE
int on_packet(struct __sk_buff *skb)
{
	return packet(skb);
}

#ifdef HAVE_DROP_REASON
int on_free_packet(struct tracepoint__skb__kfree_skb *args)
{
	dropped(args->reason);
	return 0;
}

#ifdef HAVE_SOCK
int on_free_packet_raw(struct raw_args *args)
{
	dropped(args->of[2]);
	return 0;
}
#endif
#endif
#endif

#ifdef GATE
int on_switch(struct tracepoint__sched__sched_switch *args)
{
	thread_off(args, args->prev_state);
	thread_on(args->next_pid);
	return 0;
}
#endif

int on_new_task(struct tracepoint__task__task_newtask *args)
{
	new_task(args, args->pid, args->clone_flags);
	return 0;
}

int on_exec(struct tracepoint__sched__sched_process_exec *args)
{
	new_program(args);
	return 0;
}

int on_exit(struct tracepoint__sched__sched_process_exit *args)
{
#ifdef HAVE_GROUP_DEAD
	thread_exit(args, args->group_dead);
#else
	thread_exit(args, false);
#endif
	return 0;
}

struct sock;

#ifdef FENTRY
KFUNC_PROBE(tcp_v4_connect, struct sock *sk, void *uaddr)
{
	kernel_connect_enter(ctx, (u64)sk, uaddr);
	return 0;
}

KRETFUNC_PROBE(tcp_v4_connect, struct sock *sk, void *uaddr, int addr_len, int ret)
{
	kernel_connect_return(ctx, ret);
	return 0;
}

KFUNC_PROBE(tcp_v6_connect, struct sock *sk, void *uaddr)
{
	kernel_connect_enter(ctx, (u64)sk, uaddr);
	return 0;
}

KRETFUNC_PROBE(tcp_v6_connect, struct sock *sk, void *uaddr, int addr_len, int ret)
{
	kernel_connect_return(ctx, ret);
	return 0;
}

KFUNC_PROBE(inet_csk_accept, struct sock *sk)
{
	accept_enter();
	return 0;
}

static __always_inline u64 returned(unsigned long long *ctx)
{
#ifdef FENTRY_RESULT_AT
	return ctx[FENTRY_RESULT_AT];
#else
	u64 result = 0;

	return bpf_get_func_ret(ctx, &result) ? 0 : result;
#endif
}

KRETFUNC_PROBE(inet_csk_accept, struct sock *sk)
{
	accept_return(ctx, returned(ctx));
	return 0;
}
#endif

#ifdef KPROBE
int on_kernel_connect(struct pt_regs *ctx)
{
	kernel_connect_enter(ctx, CALL_ARG1(ctx), (const void *)CALL_ARG2(ctx));
	return 0;
}

int on_kernel_connect_return(struct pt_regs *ctx)
{
	kernel_connect_return(ctx, CALL_RESULT(ctx));
	return 0;
}

int on_accept(struct pt_regs *ctx)
{
	accept_enter();
	return 0;
}

int on_accept_return(struct pt_regs *ctx)
{
	accept_return(ctx, CALL_RESULT(ctx));
	return 0;
}
#endif
