/*
 * Traffic on loopback that has nothing to do with connecting: one connection, so many
 * sends of so many bytes, each answered (ping) or none (bulk). Prints the seconds it took.
 * Usage: traffic bulk|ping BYTES TIMES
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void exactly(int fd, char *buffer, long bytes)
{
	while (bytes > 0) {
		long got = read(fd, buffer, bytes);

		if (got <= 0)
			exit(1);
		bytes -= got;
	}
}

static int serve(int listener, char *buffer, long bytes, long times, int ping)
{
	int fd = accept(listener, NULL, NULL), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (long i = 0; i < times; i++) {
		exactly(fd, buffer, bytes);
		if (ping && write(fd, buffer, bytes) != bytes)
			return 1;
	}
	return write(fd, "x", 1) != 1;
}

int main(int argc, char **argv)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int ping, listener = socket(AF_INET, SOCK_STREAM, 0), fd, one = 1;
	socklen_t size = sizeof(sa);
	long bytes, times;
	char *buffer;
	double start;

	if (argc != 4)
		return 2;
	ping = !strcmp(argv[1], "ping");
	bytes = atol(argv[2]);
	times = atol(argv[3]);
	buffer = calloc(1, bytes);
	if (!buffer || bind(listener, (struct sockaddr *)&sa, size) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&sa, &size))
		return 1;
	if (!fork())
		_exit(serve(listener, buffer, bytes, times, ping));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(fd, (struct sockaddr *)&sa, size))
		return 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	start = now_s();
	for (long i = 0; i < times; i++) {
		if (write(fd, buffer, bytes) != bytes)
			return 1;
		if (ping)
			exactly(fd, buffer, bytes);
	}
	exactly(fd, buffer, 1);
	printf("%.4f\n", now_s() - start);
	wait(NULL);
	return 0;
}
