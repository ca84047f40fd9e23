// SPDX-License-Identifier: Apache-2.0
// Listens on a port of loopback with a socket that only its io_uring has; prints the port, waits.
#include <arpa/inet.h>
#include <liburing.h>
#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof(address);
	struct io_uring ring;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(fd, (struct sockaddr *)&address, length) || listen(fd, 1) ||
	    getsockname(fd, (struct sockaddr *)&address, &length) ||
	    io_uring_queue_init(4, &ring, 0) || io_uring_register_files(&ring, &fd, 1))
		return 1;
	close(fd);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	alarm(60);
	pause();
	return 0;
}
