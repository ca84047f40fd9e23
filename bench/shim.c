/*
 * Faults for one process alone, by LD_PRELOAD and the environment; the machine stays as it is.
 *
 * SHIM_DELAY_MS=N: each write to a recording takes so long. SHIM_ERROR=ERRNO, SHIM_AFTER=BYTES:
 * so much can be written to recordings, and then each write fails. SHIM_STEP_S=N: the wall clock
 * jumps by so many seconds, forth and back, five times a second.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SUFFIX ".ptrace"

static long setting(const char *name)
{
	const char *value = getenv(name);

	return value ? atol(value) : 0;
}

static int is_recording(int fd)
{
	char link[64], path[4096];
	ssize_t size;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	size = readlink(link, path, sizeof(path) - 1);
	if (size < (ssize_t)strlen(SUFFIX))
		return 0;
	path[size] = 0;
	return !strcmp(path + size - strlen(SUFFIX), SUFFIX);
}

ssize_t write(int fd, const void *data, size_t size)
{
	static ssize_t (*next)(int, const void *, size_t);
	static long written;

	if (!next)
		next = (ssize_t(*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
	if (!is_recording(fd))
		return next(fd, data, size);
	if (setting("SHIM_DELAY_MS"))
		usleep((useconds_t)setting("SHIM_DELAY_MS") * 1000);
	if (setting("SHIM_ERROR") && written >= setting("SHIM_AFTER")) {
		errno = (int)setting("SHIM_ERROR");
		return -1;
	}
	written += (long)size;
	return next(fd, data, size);
}

int clock_gettime(clockid_t clock, struct timespec *t)
{
	static int (*next)(clockid_t, struct timespec *);
	struct timespec now;
	int failed;

	if (!next)
		next = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	failed = next(clock, t);
	if (failed || clock != CLOCK_REALTIME || !setting("SHIM_STEP_S"))
		return failed;
	next(CLOCK_MONOTONIC, &now);
	if (now.tv_nsec / 200000000 % 2)
		t->tv_sec += setting("SHIM_STEP_S");
	return 0;
}
