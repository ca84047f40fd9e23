/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * The one record that leaves the kernel. tracer/event.py reads this declaration
 * into a numpy dtype, so keep to: one field a line, a comment on each.
 *
 * Clock: CLOCK_MONOTONIC (bpf_ktime_get_ns) for every *_ns. TCP's timers stand
 * still in suspend as it does, so waits keep the lengths of the SYN ladder; and
 * every kernel that has BPF has it.
 * Ports are in host order. Addresses are 16 bytes, IPv4 mapped (::ffff:a.b.c.d).
 */
#pragma once

#define COMM_LEN 16
#define ADDR_LEN 16

enum event_type {
	EVENT_START = 1,	/* the socket entered SYN_SENT */
	EVENT_END = 2,		/* the socket left SYN_SENT */
	EVENT_RETURN = 3,	/* connect(2) returned */
	EVENT_RETRANSMIT = 4,	/* the SYN was sent again */
	EVENT_ERROR = 5,	/* the socket was told an error; 0 when the program had taken it already */
	EVENT_EXEC = 6,		/* the process runs another program now */
	EVENT_EXIT = 7,		/* a thread ended; the last one ends the process */
	EVENT_FORK = 8,		/* a followed process made another; parent is in peer_pid */
	EVENT_SEED = 9,		/* made in user space: already in SYN_SENT when tracing began */
	EVENT_LOSS = 10,	/* made in user space: in_flight events lost in [start_ns, time_ns] */
	EVENT_ACCEPT = 11,	/* accept(2) took a connection; start_ns: when that was established */
	EVENT_WIRE = 12,	/* the SYN is on the wire under these addresses, not the socket's */
	EVENT_WATCH = 13,	/* made in user space: the wire of network namespace `cgroup` is watched */
	EVENT_BIND = 14,	/* bind(2) returned */
	EVENT_LISTEN = 15,	/* listen(2) returned */
	EVENT_AUTOBIND = 16,	/* connect(2) to daddr wanted a local port from the kernel, and got none */
};

enum event_flag {
	FLAG_IN_CONNECT = 1,	/* the current thread is inside connect(2) on this socket */
	FLAG_UNTRACKED = 2,	/* the attempts map was full: no END will be matched */
	FLAG_SLEPT = 4,		/* the caller slept inside connect(2) after the SYN: blocking */
	FLAG_STREAM = 8,	/* the descriptor was made by socket(2) with SOCK_STREAM */
	FLAG_AGAIN = 16,	/* a later connect(2) on a socket already connecting */
	FLAG_AT_GATE = 32,	/* connect(2) was answered before it entered the kernel proper */
	FLAG_LAST_THREAD = 64,	/* EXIT: it was the last thread of its process */
	FLAG_WATCHED = 128,	/* RETURN: without FLAG_SLEPT the caller did not sleep in connect(2) */
};

enum event_origin {
	ORIGIN_UNKNOWN = 0,	/* not connect(2); connect_stack tells, until user space has read it */
	ORIGIN_CONNECT = 1,	/* connect(2) */
	ORIGIN_IO_URING = 2,	/* io_uring */
	ORIGIN_FASTOPEN = 3,	/* a send with MSG_FASTOPEN */
	ORIGIN_KERNEL = 4,	/* the kernel on its own: a subflow of MPTCP, a network file system */
};

/* What BIND and LISTEN say of the socket as it stood at the call. */
enum event_option {
	OPTION_REUSEADDR = 1,	/* SO_REUSEADDR */
	OPTION_REUSEPORT = 2,	/* SO_REUSEPORT */
	OPTION_V6ONLY = 4,	/* IPV6_V6ONLY */
	OPTION_FREEBIND = 8,	/* IP_FREEBIND, IPV6_FREEBIND, IP_TRANSPARENT or IPV6_TRANSPARENT */
	OPTION_LATE_PORT = 16,	/* IP_BIND_ADDRESS_NO_PORT: connect(2) chooses the port */
};

enum event_answer {
	ANSWER_NONE = 0,	/* nothing came in */
	ANSWER_SYN_ACK = 1,	/* the peer takes the connection */
	ANSWER_RST = 2,		/* the peer, or somebody in its name, refuses */
	ANSWER_ICMP = 3,	/* an ICMP error; see icmp_type and icmp_code */
};

struct event {
	u64 time_ns;		/* when it happened */
	u64 sock;		/* address of the struct sock: a key, with start_ns; 0 when unknown */
	u64 start_ns;		/* when the attempt entered SYN_SENT */
	u64 call_ns;		/* when connect(2), or the kernel's own, was entered; ACCEPT: inet_csk_accept; BIND, LISTEN: themselves */
	u64 gate_ns;		/* START, RETURN: when the hold at syscall entry began, 0 for none */
	u64 sleep_ns;		/* START, RETURN: when the sleep began that ended just before the call */
	u64 kernel_ns;		/* START, RETURN: when the kernel's own connect was entered, 0 not seen */
	u64 kernel_return_ns;	/* RETURN: when the kernel's own connect returned, 0 not seen */
	u64 wire_ns;		/* END, RETRANSMIT: when the first SYN left, 0 not seen */
	u64 wire_last_ns;	/* END, RETRANSMIT: when the latest SYN left */
	u64 answer_ns;		/* END, RETRANSMIT: when the answer came in, 0 not seen */
	u64 cgroup;		/* id of the cgroup v2 of the caller */
	u32 pid;		/* process (tgid) of the attempt's owner */
	u32 tid;		/* thread of the attempt's owner */
	u32 uid;		/* user of the attempt's owner */
	u32 peer_pid;		/* FORK: the parent; END: the process that was running; BIND, LISTEN: number of the caller's network namespace, 0 not known */
	u32 in_flight;		/* sockets of the process in SYN_SENT after this event; LISTEN: the backlog */
	s32 error;		/* END, ERROR: errno the socket was told; RETURN, BIND, LISTEN: the return value */
	s32 fd;			/* descriptor given to connect(2), bind(2), listen(2), -1 when unknown */
	s32 gate_stack;		/* stack of the hold at the gate, negative for none */
	s32 connect_stack;	/* stack of the first sleep between call and SYN, negative for none */
	u16 cpu;		/* where it was recorded */
	u16 family;		/* AF_INET or AF_INET6 of the socket */
	u16 sport;		/* local port, 0 when not known yet; BIND: as asked for, 0: any */
	u16 dport;		/* remote port; BIND, LISTEN: local port as got (EINVAL: before), 0 when not known */
	u16 wire_count;		/* END, RETRANSMIT: SYNs that left */
	u16 drop_reason;	/* END, RETRANSMIT: why the kernel freed the first SYN, 0 not seen */
	u8 type;		/* enum event_type */
	u8 flags;		/* enum event_flag, or-ed */
	u8 newstate;		/* END: the TCP state entered; BIND, LISTEN: IPPROTO_TCP or _UDP, 0 not known */
	u8 origin;		/* START, RETURN: enum event_origin */
	u8 answer;		/* END, RETRANSMIT: enum event_answer; BIND, LISTEN: enum event_option, or-ed */
	u8 answers;		/* END, RETRANSMIT: how often it came in; BIND, LISTEN: the options that are known */
	u8 icmp_type;		/* END, RETRANSMIT: of an ICMP error */
	u8 icmp_code;		/* END, RETRANSMIT: of an ICMP error */
	u8 saddr[ADDR_LEN];	/* local address; BIND: as asked for */
	u8 daddr[ADDR_LEN];	/* remote address */
	char comm[COMM_LEN];	/* name of the owner's thread */
};
