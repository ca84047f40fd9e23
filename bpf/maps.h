/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/* Every map of the program, with who inserts, deletes and reads it. */
#pragma once
#include "event.h"

#ifndef MAX_ATTEMPTS
#define MAX_ATTEMPTS 65536
#endif
#ifndef MAX_THREADS
#define MAX_THREADS 65536
#endif
#define MAX_FDS 16384
/* From here on the numbers of stacks are user space's own. */
#define OWN_STACKS (1 << 24)

/* A connect(2) in progress, or a connect of the kernel's own that no connect(2) asked for. */
struct call {
	u64 call_ns;
	u64 gate_ns;
	u64 sleep_ns;
	u64 sock;
	u64 start_ns;
	s32 fd;
	s32 gate_stack;
	s32 connect_stack;
	u16 family;
	u16 dport;
	u8 daddr[ADDR_LEN];
	u32 flags;
	s32 origin_stack; /* of a call that is not connect(2): where it came from */
	u64 kernel_ns;
	u64 kernel_return_ns;
	u64 kernel_sock; /* what the kernel's own connect was called for */
};

#ifdef WIRE
/* The two ends of a SYN as they are on the wire, seen from the host that sends it. */
struct flow_key {
	u8 laddr[ADDR_LEN];
	u8 raddr[ADDR_LEN];
	u16 lport;
	u16 rport;
	u32 pad;
};
#endif

/* A socket in SYN_SENT, and who owns it: END and RETRANSMIT run as strangers. */
struct attempt {
	u64 start_ns;
	u64 returned_ns; /* of a withheld RETURN, 0 for none */
	u64 call_ns;
	u64 gate_ns;
	u64 sleep_ns;
	u64 kernel_ns;
	u64 cgroup;
	u32 pid;
	u32 tid;
	u32 uid;
	s32 fd;
	s32 gate_stack;
	s32 connect_stack;
	s32 origin_stack; /* where it came from, for one that no connect(2) asked for */
	s32 result;       /* of a withheld RETURN */
	s32 error;        /* ECONNREFUSED once a RST came in */
	u32 drop_reason;  /* why its first SYN was freed, 0 for not seen */
	u16 family;
	u16 dport;
	u16 silent; /* START is withheld until the local port is known */
	u8 flags;
	u8 origin;
	u8 saddr[ADDR_LEN];
	u8 daddr[ADDR_LEN];
	char comm[COMM_LEN];
#ifdef WIRE
	struct flow_key wire; /* of its SYN, all zero until that left in its caller's context */
#endif
};

/* What the tracepoints of a socket say of its two ends. */
struct ends {
	u16 family;
	u16 sport;
	u16 dport;
	u16 pad; /* keeps the addresses aligned */
	u8 saddr[ADDR_LEN];
	u8 daddr[ADDR_LEN];
};

/* A connection that came in, and waits for accept(2). */
struct arrival {
	u64 time_ns;
	struct ends ends;
};

/* What a thread last did off the CPU; gate_ns != 0 while it stands at the gate. */
struct thread {
	u64 off_ns;
	u64 on_ns;
	u64 gate_ns;
	u32 pid;
	s32 gate_stack;
	s32 fd;
	u16 family;
	u16 dport;
	u8 daddr[ADDR_LEN];
};

struct fd_key {
	u32 pid;
	s32 fd;
};

/* A socket by descriptor; sock != 0 while an attempt outlives its call. */
struct fd_state {
	u64 sock;
	u64 start_ns;
	u16 port; /* that bind(2) gave it, as asked for */
	u16 family;
	u8 protocol; /* IPPROTO_TCP, IPPROTO_UDP, or PROTOCOL_OTHER */
	u8 stream;
	u8 options; /* enum event_option */
	u8 pad;
	u8 saddr[ADDR_LEN]; /* that bind(2) gave it */
};

/* bind(2) or listen(2) in progress. */
struct bind_call {
	u64 call_ns;
	u64 sock; /* of listen(2): told by its state change */
	s32 fd;
	s32 backlog;
	u16 family;
	u16 port;
	u8 listens;
	u8 changed; /* the socket entered LISTEN */
	u8 pad[2];
	u8 saddr[ADDR_LEN];
};

/* How often somebody was woken for a bind, since when. */
struct bell {
	u64 since_ns;
	u64 count;
};

/* setsockopt(2) of an option that matters to bind(2), in progress. */
struct option_call {
	s32 fd;
	u8 option;
	u8 on;
	u8 pad[2];
};

/* getsockopt(SO_ERROR) in progress: the program takes the error before we can see it. */
struct asked_error {
	u64 optval;
	u64 sock;
	u64 start_ns;
};

struct tuple {
	u8 daddr[ADDR_LEN];
	u16 sport;
	u16 dport;
	u32 pad;
};

struct seed {
	u64 start_ns;
	u32 pid;
	u32 uid;
	char comm[COMM_LEN];
};

/* An END to CLOSE, or an ERROR, waiting for its other half on the same CPU. */
struct half {
	struct tuple tuple;
	u64 time_ns;
	u64 sock;
	u64 start_ns;
	struct attempt owner;
	s32 error;
	u32 pad;
};

#ifdef WIRE
/* What the wire probe saw of one SYN and of what came back. */
struct flow {
	u64 sock; /* whose it is, with start_ns; 0 when its caller was not seen */
	u64 start_ns;
	u64 first_ns;
	u64 last_ns;
	u64 answer_ns;
	u32 seq;
	u16 count;
	u16 pad;
	u8 answer;
	u8 answers;
	u8 icmp_type;
	u8 icmp_code;
	u32 pad2;
};

/* A task that is about to send the first SYN of a socket. */
struct sender {
	u64 sock;
	u64 start_ns;
};
#endif

struct loss {
	u64 count;
	u64 first_ns;
	u64 last_ns;
};

struct comm_key {
	char comm[COMM_LEN];
};

enum counter {
	COUNT_EVENTS = 0,        /* events handed to the perf buffer, lost ones included */
	COUNT_ATTEMPTS_FULL = 1, /* attempts that found the attempts map full */
	COUNT_CALLS_FULL = 2,    /* connect(2) calls that found the calls map full */
	COUNT_THREADS_FULL = 3,  /* sleeps of threads that found the threads map full */
	COUNT_TARGETS_FULL = 4,  /* children that could not be followed */
	COUNT_STACKS_LOST = 5,   /* stacks that could not be stored */
	COUNT_ATTEMPTS_NOW = 6,  /* entries of the attempts map at this moment */
	COUNT_ATTEMPTS_PEAK = 7, /* the most there ever were */
	COUNT_RETURNS_MISSED =
		8, /* functions of the kernel that were entered and never seen to return */
	COUNTERS = 9,
};

BPF_PERF_OUTPUT(events);
#ifdef BINDS
/* What failed or may share its port, once more: who looks into them is woken at once. */
BPF_PERF_OUTPUT(failed_binds);
/* inserts, reads: ring_bell(). */
BPF_PERCPU_ARRAY(bells, struct bell, 1);
#endif
/* inserts: emit() on a failed submit; reads: user space, each round. Never deleted. */
BPF_PERCPU_ARRAY(losses, struct loss, 1);
/* inserts: everywhere; reads: user space, each round. */
BPF_ARRAY(counters, u64, COUNTERS);
/*
 * inserts: sys_enter_connect, entry of the kernel's own connect; deletes: the exit of the
 * same, thread exit; one a thread.
 */
BPF_HASH(calls, u32, struct call, MAX_THREADS);
/* Room for one that is made of a thread at the gate: call_from_gate(). */
BPF_PERCPU_ARRAY(late_calls, struct call, 1);
/* inserts: SYN_SENT; deletes: leaving SYN_SENT, which every socket does. */
BPF_HASH(attempts, u64, struct attempt, MAX_ATTEMPTS);
/*
 * in flight by process. inserts: first SYN_SENT; deletes: exit of the process. Least recently
 * used go first: those whose exit was not seen.
 */
BPF_TABLE("lru_hash", u32, u64, in_flight, MAX_THREADS);
/* inserts: sched_switch of a wanted thread; deletes: its last sched_switch; reads: connect, user space. */
BPF_HASH(threads, u32, struct thread, MAX_THREADS);
/*
 * inserts: sys_exit_socket; changes: connect, bind and setsockopt on the descriptor.
 * Least recently used go first: what is not there is not known, and user space may ask.
 */
BPF_TABLE("lru_hash", struct fd_key, struct fd_state, fds, MAX_FDS);
/* inserts: sys_enter_socket; deletes: sys_exit_socket, thread exit. */
BPF_HASH(socket_calls, u32, struct fd_state, MAX_THREADS);
#ifdef BINDS
/* inserts: sys_enter_bind, sys_enter_listen; deletes: their exits, thread exit; one a thread. */
BPF_HASH(bind_calls, u32, struct bind_call, MAX_THREADS);
#ifdef MOVES
/*
 * By thread, when it began to go to other namespaces last. inserts: sys_enter_setns and
 * sys_enter_unshare; reads: user space. Least recently used go first.
 */
BPF_TABLE("lru_hash", u32, u64, moves, 16384);
#endif
/* inserts: sys_enter_setsockopt; deletes: its exit, thread exit; one a thread. */
BPF_HASH(option_calls, u32, struct option_call, MAX_THREADS);
#endif
/* inserts: sys_enter_getsockopt of SO_ERROR; deletes: its exit, thread exit; one a thread. */
BPF_HASH(asked_errors, u32, struct asked_error, MAX_THREADS);
/* inserts: user space at start; deletes: END of the seeded socket. */
BPF_HASH(seeds, struct tuple, struct seed, 4096);
#ifdef KERNEL_FUNCTIONS
/* inserts: entry of inet_csk_accept; deletes: its return, thread exit; one a thread. */
BPF_HASH(accepting, u32, u64, MAX_THREADS);
/* By struct sock. Least recently used go first: such a connection has no time of arrival. */
BPF_TABLE("lru_hash", u64, struct arrival, arrivals, MAX_ATTEMPTS);
#endif
#ifdef WIRE
/* Of each, least recently used go first: what is gone counts as not seen. */
BPF_TABLE("lru_hash", struct flow_key, struct flow, flows, MAX_ATTEMPTS);
/*
 * By task_struct, a key only. inserts: SYN_SENT; deletes: its SYN, the end of its connect,
 * thread exit; one a thread.
 */
BPF_HASH(senders, u64, struct sender, 16384);
#endif
BPF_PERCPU_ARRAY(halves, struct half, 2);
/*
 * Room for one event, and for an attempt that is over, by who may come in between of whom.
 * Programs of classic tracepoints never interrupt each other (bpf_prog_active); those of
 * raw ones, in an interrupt, run in the middle of others, but never of themselves.
 */
enum room { ROOM_TASK = 0, ROOM_STATE = 1, ROOM_RETRANSMIT = 2, ROOM_ERROR = 3, ROOMS = 4 };
BPF_PERCPU_ARRAY(scratch, struct event, ROOMS);
BPF_PERCPU_ARRAY(copies, struct attempt, ROOMS);
#ifdef WIRE
/* As well for a key, which the stack has no room for. */
BPF_PERCPU_ARRAY(wire_keys, struct flow_key, ROOMS);
#endif
BPF_STACK_TRACE(stacks, 8192);

/* Of the tracer itself, which is never traced. inserts: user space before anything is attached. */
BPF_ARRAY(own_pid, u32, 1);
/* Filters. inserts: user space at start, new_task for children; deletes: process exit. */
BPF_HASH(targets, u32, u8, MAX_THREADS);
BPF_HASH(wanted_comms, struct comm_key, u8, 64);
BPF_HASH(wanted_uids, u32, u8, 64);
BPF_HASH(wanted_rports, u16, u8, 1024);
BPF_HASH(wanted_lports, u16, u8, 1024);
#ifdef FILTER_CGROUP
BPF_CGROUP_ARRAY(wanted_cgroups, 16);
#endif
