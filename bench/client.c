/*
 * A client and its server on loopback, as fast as they can or at a pace, one connect after
 * another. Usage: client CONNECTS established|refused A_SECOND CLIENT_CPU SERVER_CPU
 *
 * A_SECOND 0: unpaced. A CPU below 0: any. Prints "PID PORT", waits for a byte on its standard
 * input, and prints: elapsed_ns client_cpu_ns connected p50_ns p99_ns, the last two of
 * connect(2) alone. Connections end with a RST, so that no port waits in TIME_WAIT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How far the client may be ahead: a full accept queue would drop its SYNs for a second. */
#define MOST_AHEAD 1000

static volatile long *accepted; /* shared with the server */

static uint64_t now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void stay_on(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	if (cpu < 0)
		return;
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		perror("client: the CPU");
}

/* Takes connections until it is killed; returns the process, and its address in `here`. */
static pid_t serve(struct sockaddr_in *here, int cpu, int listens)
{
	socklen_t size = sizeof(*here);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	pid_t child = 0;

	here->sin_family = AF_INET;
	here->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *)here, size) ||
	    getsockname(listener, (struct sockaddr *)here, &size))
		exit(1);
	if (!listens) /* a port that is bound and does not listen refuses, and stays ours */
		return 0;
	listen(listener, 4096);
	child = fork();
	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	stay_on(cpu);
	for (;; ++*accepted)
		close(accept(listener, NULL, NULL));
}

static void wait_for(uint64_t due)
{
	while (now(CLOCK_MONOTONIC) < due)
		;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static long storm(struct sockaddr_in *there, long connects, long a_second, uint32_t *took)
{
	struct linger reset = {.l_onoff = 1};
	uint64_t begun = now(CLOCK_MONOTONIC);
	long connected = 0;

	for (long i = 0; i < connects; i++) {
		uint64_t called;
		int fd;

		if (a_second)
			wait_for(begun + (uint64_t)i * 1000000000 / (uint64_t)a_second);
		fd = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		called = now(CLOCK_MONOTONIC);
		connected += !connect(fd, (struct sockaddr *)there, sizeof(*there));
		took[i] = (uint32_t)(now(CLOCK_MONOTONIC) - called);
		close(fd);
		while (connected - *accepted > MOST_AHEAD)
			usleep(50);
	}
	return connected;
}

int main(int argc, char **argv)
{
	long connects = argc == 6 ? atol(argv[1]) : 0, connected;
	struct sockaddr_in there = {0};
	uint64_t begun, cpu;
	uint32_t *took;
	pid_t server;
	char go;

	if (connects < 1 || !(took = calloc((size_t)connects, sizeof(*took))))
		return 2;
	accepted = mmap(NULL, sizeof(*accepted), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	if (accepted == MAP_FAILED)
		return 1;
	memset(took, 1, (size_t)connects * sizeof(*took)); /* no page fault in the storm */
	server = serve(&there, atoi(argv[5]), strcmp(argv[2], "refused"));
	stay_on(atoi(argv[4]));
	printf("%d %d\n", getpid(), ntohs(there.sin_port));
	fflush(stdout);
	if (read(0, &go, 1) == 1) {
		begun = now(CLOCK_MONOTONIC);
		cpu = now(CLOCK_PROCESS_CPUTIME_ID);
		connected = storm(&there, connects, atol(argv[3]), took);
		begun = now(CLOCK_MONOTONIC) - begun;
		cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
		qsort(took, (size_t)connects, sizeof(*took), by_value);
		printf("%lu %lu %ld %u %u\n", begun, cpu, connected, took[connects / 2],
		       took[connects * 99 / 100]);
		fflush(stdout);
	}
	if (server) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	return 0;
}
