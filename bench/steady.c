/*
 * Connects on loopback at a steady rate, from one thread that sleeps in between: so many every
 * millisecond. Usage: steady SECONDS A_SECOND established|refused. Prints how many connected,
 * were refused, and did neither. Connections end with a RST, so that no port waits in TIME_WAIT.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static pid_t serve(struct sockaddr_in *here, int listens)
{
	socklen_t size = sizeof(*here);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	pid_t child;

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
	for (;;)
		close(accept(listener, NULL, NULL));
}

static void once(struct sockaddr_in *there, long counts[3])
{
	struct linger reset = {.l_onoff = 1};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (!connect(fd, (struct sockaddr *)there, sizeof(*there)))
		counts[0]++;
	else
		counts[errno == ECONNREFUSED ? 1 : 2]++;
	close(fd);
}

int main(int argc, char **argv)
{
	long ticks = argc == 4 ? atol(argv[1]) * 1000 : 0, rate = argc == 4 ? atol(argv[2]) : 0;
	long counts[3] = {0}, made = 0;
	struct sockaddr_in there = {0};
	struct timespec due;
	pid_t server;

	if (ticks < 1 || rate < 1)
		return 2;
	server = serve(&there, strcmp(argv[3], "refused"));
	prctl(PR_SET_NAME, "steady");
	clock_gettime(CLOCK_MONOTONIC, &due);
	for (long tick = 1; tick <= ticks; tick++) {
		for (; made < rate * tick / 1000; made++)
			once(&there, counts);
		due.tv_nsec += 1000000;
		if (due.tv_nsec >= 1000000000) {
			due.tv_nsec -= 1000000000;
			due.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
	}
	if (server) {
		kill(server, SIGKILL);
		waitpid(server, NULL, 0);
	}
	printf("%ld %ld %ld\n", counts[0], counts[1], counts[2]);
	return 0;
}
