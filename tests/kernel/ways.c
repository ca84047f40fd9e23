/*
 * Connects in ways that do not pass connect(2), three times each: to a port that
 * listens, to one that does not, and to a net that cannot be reached.
 * Usage: ways io_uring|io_uring_async|fastopen|mptcp LIVE_PORT CLOSED_PORT
 * Prints the result of each, 0 or a negative errno, one a line.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

static struct sockaddr_in address(const char *ip, int port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(port)};

	inet_pton(AF_INET, ip, &sa.sin_addr);
	return sa;
}

static int by_io_uring(struct sockaddr_in *sa, unsigned flags)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct io_uring_sqe *sqe;
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	int result = io_uring_queue_init(4, &ring, 0);

	if (result)
		return result;
	sqe = io_uring_get_sqe(&ring);
	io_uring_prep_connect(sqe, fd, (struct sockaddr *)sa, sizeof(*sa));
	sqe->flags |= flags;
	io_uring_submit(&ring);
	if (!io_uring_wait_cqe(&ring, &cqe))
		result = cqe->res;
	io_uring_queue_exit(&ring);
	close(fd);
	return result;
}

static int by_fastopen(struct sockaddr_in *sa)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	int sent = sendto(fd, "x", 1, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)sa,
			  sizeof(*sa));
	int result = sent < 0 ? -errno : 0;

	close(fd);
	return result;
}

static int by_mptcp(struct sockaddr_in *sa)
{
	int fd = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
	int result;

	if (fd < 0)
		return -errno;
	result = connect(fd, (struct sockaddr *)sa, sizeof(*sa)) ? -errno : 0;
	close(fd);
	return result;
}

static int go(const char *way, struct sockaddr_in sa)
{
	if (!strcmp(way, "io_uring"))
		return by_io_uring(&sa, 0);
	if (!strcmp(way, "io_uring_async"))
		return by_io_uring(&sa, IOSQE_ASYNC);
	if (!strcmp(way, "fastopen"))
		return by_fastopen(&sa);
	return by_mptcp(&sa);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	printf("%d\n", go(argv[1], address("127.0.0.1", atoi(argv[2]))));
	printf("%d\n", go(argv[1], address("127.0.0.1", atoi(argv[3]))));
	printf("%d\n", go(argv[1], address("203.0.113.1", 80)));
	return 0;
}
