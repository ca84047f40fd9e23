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

/* As TP_STORE_ADDRS does (include/trace/events/net_probe_common.h): IPv4 is mapped. */
static __always_inline void read_ends(struct ends *ends, u64 sock)
{
	ends->family = sock_u16(sock, SOCK_FAMILY_AT);
	ends->sport = __builtin_bswap16(sock_u16(sock, SOCK_SPORT_AT));
	ends->dport = __builtin_bswap16(sock_u16(sock, SOCK_DPORT_AT));
	if (ends->family == AF_INET6) {
		bpf_probe_read_kernel(ends->saddr, ADDR_LEN, (void *)(sock + SOCK_V6_SADDR_AT));
		bpf_probe_read_kernel(ends->daddr, ADDR_LEN, (void *)(sock + SOCK_V6_DADDR_AT));
		return;
	}
	ends->saddr[10] = ends->saddr[11] = ends->daddr[10] = ends->daddr[11] = 0xff;
	bpf_probe_read_kernel(ends->saddr + 12, 4, (void *)(sock + SOCK_SADDR_AT));
	bpf_probe_read_kernel(ends->daddr + 12, 4, (void *)(sock + SOCK_DADDR_AT));
}

#endif
