/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/* Counting, emitting and filtering: what every handler needs. */
#pragma once
#include "maps.h"

#define AF_INET 2
#define AF_INET6 10

#ifndef barrier
#define barrier() asm volatile("" ::: "memory")
#endif

static __always_inline void count(int which, u64 by)
{
	u64 *n = counters.lookup(&which);

	if (n)
		__sync_fetch_and_add(n, by);
}

/* The attempts map's fill: kept by hand, since a map does not know its own. */
static __always_inline void count_attempts(s64 by)
{
	int now = COUNT_ATTEMPTS_NOW, peak = COUNT_ATTEMPTS_PEAK;
	u64 *n = counters.lookup(&now), *most = counters.lookup(&peak);

	if (!n || !most)
		return;
	__sync_fetch_and_add(n, by);
	if (*n > *most && (s64)*n > 0)
		*most = *n;
}

static __always_inline struct event *new_event_in(int room, u8 type)
{
	struct event *e = scratch.lookup(&room);

	if (!e)
		return NULL;
	__builtin_memset(e, 0, sizeof(*e));
	e->type = type;
	e->time_ns = bpf_ktime_get_ns();
	e->cpu = bpf_get_smp_processor_id();
	e->fd = e->gate_stack = e->connect_stack = -1;
	return e;
}

/* For what runs in the context of the task that it is about. */
static __always_inline struct event *new_event(u8 type)
{
	return new_event_in(ROOM_TASK, type);
}

/*
 * The result of the submit is the only exact count of losses: the reader's own
 * notice stays silent about a tail that was lost. A new burst begins after
 * 100 ms without loss, so that its time span stays narrow.
 */
static __always_inline void emit(void *ctx, struct event *e)
{
	int zero = 0;
	struct loss *l;

	count(COUNT_EVENTS, 1);
	if (!events.perf_submit(ctx, e, sizeof(*e)))
		return;
	l = losses.lookup(&zero);
	if (!l)
		return;
	if (e->time_ns - l->last_ns > 100000000ULL)
		l->first_ns = e->time_ns;
	l->last_ns = e->time_ns;
	__sync_fetch_and_add(&l->count, 1);
}

static __always_inline void set_caller(struct event *e)
{
	u64 id = bpf_get_current_pid_tgid();

	e->pid = id >> 32;
	e->tid = id;
	e->uid = bpf_get_current_uid_gid();
	e->cgroup = bpf_get_current_cgroup_id();
	bpf_get_current_comm(&e->comm, sizeof(e->comm));
}

/* The owner of an attempt: END and RETRANSMIT run as strangers. */
static __always_inline void fill_owner(struct event *e, struct attempt *a, u64 sock)
{
	e->sock = sock;
	e->start_ns = a->start_ns;
	e->call_ns = a->call_ns;
	e->gate_ns = a->gate_ns;
	e->sleep_ns = a->sleep_ns;
	e->kernel_ns = a->kernel_ns;
	e->cgroup = a->cgroup;
	e->pid = a->pid;
	e->tid = a->tid;
	e->uid = a->uid;
	e->fd = a->fd;
	e->gate_stack = a->gate_stack;
	e->connect_stack = a->connect_stack;
	e->family = a->family;
	e->dport = a->dport;
	__builtin_memcpy(e->saddr, a->saddr, ADDR_LEN);
	__builtin_memcpy(e->daddr, a->daddr, ADDR_LEN);
	__builtin_memcpy(e->comm, a->comm, COMM_LEN);
}

/* Does the current task pass the filters on process, name, user and cgroup? */
static __always_inline bool wanted_task(void)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	int first = 0;
	u32 *own = own_pid.lookup(&first);

	if (own && pid == *own)
		return false;
#ifdef FILTER_PID
	if (!targets.lookup(&pid))
		return false;
#endif
#ifdef FILTER_UID
	{
		u32 uid = bpf_get_current_uid_gid();

		if (!wanted_uids.lookup(&uid))
			return false;
	}
#endif
#ifdef FILTER_COMM
	{
		struct comm_key key = {};

		bpf_get_current_comm(&key.comm, sizeof(key.comm));
		if (!wanted_comms.lookup(&key))
			return false;
	}
#endif
#ifdef FILTER_CGROUP
	{
		bool inside = false;

#pragma unroll
		for (int i = 0; i < FILTER_CGROUP; i++)
			inside = inside || wanted_cgroups.check_current_task(i) > 0;
		if (!inside)
			return false;
	}
#endif
	return true;
}

/* IPv4 in an IPv6 socket counts as IPv4, as it does everywhere in porttrace. */
static __always_inline bool is_v4(const u8 *addr)
{
	const u64 *high = (const u64 *)addr;
	const u32 *third = (const u32 *)(addr + 8);

	return !*high && *third == 0xffff0000U;
}

static __always_inline bool wanted_peer(const u8 *daddr, u16 dport)
{
#ifdef FILTER_FAMILY
	if (is_v4(daddr) != (FILTER_FAMILY == AF_INET))
		return false;
#endif
#ifdef FILTER_RPORT
	if (!wanted_rports.lookup(&dport))
		return false;
#endif
	return true;
}

static __always_inline bool wanted_local(u16 sport)
{
#ifdef FILTER_LPORT
	return wanted_lports.lookup(&sport) != NULL;
#else
	return true;
#endif
}
