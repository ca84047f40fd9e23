/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/*
 * Raw tracepoints hand over the kernel's own pointers, no record. What the record would
 * say stands in the socket, at places that the running kernel's BTF names.
 */
#pragma once
#include "common.h"

#ifdef HAVE_SOCK

/* struct bpf_raw_tracepoint_args of the kernel: the arguments of the tracepoint. */
struct raw_args {
	u64 of[3];
};

static __always_inline u16 sock_u16(u64 sock, int at)
{
	u16 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)(sock + at));
	return value;
}

static __always_inline u16 sock_protocol(u64 sock)
{
	return sock_u16(sock, SOCK_PROTOCOL_AT);
}

static __always_inline u8 sock_state(u64 sock)
{
	u8 state = 0;

	bpf_probe_read_kernel(&state, sizeof(state), (void *)(sock + SOCK_STATE_AT));
	return state;
}

static __always_inline int sock_error(u64 sock)
{
	int error = 0;

	bpf_probe_read_kernel(&error, sizeof(error), (void *)(sock + SOCK_ERROR_AT));
	return error;
}

/* Each read costs more than what it copies: fields that stand together come together. */
#define SOCK_HEAD 24
#define TOGETHER                                                              \
	(SOCK_FAMILY_AT + 2 <= SOCK_HEAD && SOCK_DADDR_AT + 4 <= SOCK_HEAD && \
	 SOCK_DPORT_AT + 2 <= SOCK_HEAD && SOCK_SPORT_AT >= SOCK_SADDR_AT &&  \
	 SOCK_SPORT_AT + 2 <= SOCK_SADDR_AT + 8)

static __always_inline void read_shared(struct ends *ends, u64 sock, u16 *ports)
{
#if TOGETHER
	u8 head[SOCK_HEAD] = {}, local[8] = {};

	bpf_probe_read_kernel(head, sizeof(head), (void *)sock);
	bpf_probe_read_kernel(local, sizeof(local), (void *)(sock + SOCK_SADDR_AT));
	__builtin_memcpy(&ends->family, head + SOCK_FAMILY_AT, 2);
	__builtin_memcpy(ends->daddr + 12, head + SOCK_DADDR_AT, 4);
	__builtin_memcpy(&ports[1], head + SOCK_DPORT_AT, 2);
	__builtin_memcpy(ends->saddr + 12, local, 4);
	__builtin_memcpy(&ports[0], local + SOCK_SPORT_AT - SOCK_SADDR_AT, 2);
#else
	ends->family = sock_u16(sock, SOCK_FAMILY_AT);
	ports[0] = sock_u16(sock, SOCK_SPORT_AT);
	ports[1] = sock_u16(sock, SOCK_DPORT_AT);
	bpf_probe_read_kernel(ends->saddr + 12, 4, (void *)(sock + SOCK_SADDR_AT));
	bpf_probe_read_kernel(ends->daddr + 12, 4, (void *)(sock + SOCK_DADDR_AT));
#endif
}

/* As TP_STORE_ADDRS does (include/trace/events/net_probe_common.h): IPv4 is mapped. */
static __always_inline void read_ends(struct ends *ends, u64 sock)
{
	u16 ports[2] = {};

	read_shared(ends, sock, ports);
	ends->sport = __builtin_bswap16(ports[0]);
	ends->dport = __builtin_bswap16(ports[1]);
	if (ends->family == AF_INET6) {
		bpf_probe_read_kernel(ends->saddr, ADDR_LEN, (void *)(sock + SOCK_V6_SADDR_AT));
		bpf_probe_read_kernel(ends->daddr, ADDR_LEN, (void *)(sock + SOCK_V6_DADDR_AT));
		return;
	}
	ends->saddr[10] = ends->saddr[11] = ends->daddr[10] = ends->daddr[11] = 0xff;
}

#endif
