/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0) */
/* Processes come, change program and go: children of targets are followed. */
#pragma once
#include "common.h"

#define CLONE_THREAD 0x10000

static __always_inline void new_task(void *ctx, u32 child, u64 clone_flags)
{
#if defined(FILTER_PID) && defined(FOLLOW_CHILDREN)
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	struct event *e;
	u8 one = 1;

	if ((clone_flags & CLONE_THREAD) || !targets.lookup(&pid))
		return;
	if (targets.update(&child, &one))
		count(COUNT_TARGETS_FULL, 1);
	e = new_event(EVENT_FORK);
	if (!e)
		return;
	set_caller(e);
	e->peer_pid = e->pid;
	e->pid = e->tid = child;
	emit(ctx, e);
#endif
}

static __always_inline void new_program(void *ctx)
{
	struct event *e;

	if (!wanted_task())
		return;
	e = new_event(EVENT_EXEC);
	if (!e)
		return;
	set_caller(e);
	emit(ctx, e);
}
