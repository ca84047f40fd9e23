/*
 * The throttle "preload": a connect() in front of libc's that lets a limited number of blocking TCP
 * connects of one process through at once, as monitoring and security agents do that load
 * themselves into a program with LD_PRELOAD.
 *
 * Environment: PORTTRACE_LAB_SLOTS   how many (default 1)
 *              PORTTRACE_LAB_SCOPE   "process" (default) or "thread"
 *
 * The wait is a futex in user space: the kernel sees no connect until the shim calls the real one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

typedef int connect_fn(int, const struct sockaddr *, socklen_t);

static connect_fn *real_connect;
static sem_t process_slots;
/* A thread makes one blocking call at a time, so its own slots never fill: this scope is a control. */
static __thread sem_t thread_slots;
static __thread bool thread_ready;
static bool by_thread;

static unsigned int wanted_slots(void)
{
	const char *text = getenv("PORTTRACE_LAB_SLOTS");
	int slots = text ? atoi(text) : 1;

	return slots > 0 ? (unsigned int)slots : 1;
}

/* A forked child inherits the counter, but not the threads that would give their slots back. */
static void reset_slots(void)
{
	sem_init(&process_slots, 0, wanted_slots());
}

__attribute__((constructor)) static void load(void)
{
	const char *scope = getenv("PORTTRACE_LAB_SCOPE");

	by_thread = scope && strcmp(scope, "thread") == 0;
	real_connect = (connect_fn *)dlsym(RTLD_NEXT, "connect");
	reset_slots();
	pthread_atfork(NULL, NULL, reset_slots);
}

static sem_t *slots_of_caller(void)
{
	if (!by_thread)
		return &process_slots;
	if (!thread_ready) {
		sem_init(&thread_slots, 0, wanted_slots());
		thread_ready = true;
	}
	return &thread_slots;
}

static bool is_tcp(int fd, const struct sockaddr *address, socklen_t length)
{
	int type = 0;
	socklen_t size = sizeof(type);

	if (!address || length < sizeof(address->sa_family))
		return false;
	if (address->sa_family != AF_INET && address->sa_family != AF_INET6)
		return false;
	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_STREAM;
}

static void give_back(void *slots)
{
	sem_post(slots);
}

/*
 * A non-blocking connect returns at once and gives its slot back at once: like the real shims, this
 * one knows nothing of what the socket does afterwards.
 */
int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	int result, error;
	sem_t *slots;

	if (!is_tcp(fd, address, length))
		return real_connect(fd, address, length);
	slots = slots_of_caller();
	while (sem_wait(slots) == -1 && errno == EINTR)
		;
	pthread_cleanup_push(give_back, slots);
	result = real_connect(fd, address, length);
	error = errno;
	pthread_cleanup_pop(1);
	errno = error;
	return result;
}
