/*
 * So many connects to a port of loopback that nobody has, one after another in each of
 * so many threads: each is refused at once. Usage: storm CONNECTS THREADS
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static long connects;

static void *run(void *wrong)
{
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(9)};

	there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (long i = 0; i < connects; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		if (fd < 0 || !connect(fd, (struct sockaddr *)&there, sizeof(there)) ||
		    errno != ECONNREFUSED)
			++*(long *)wrong;
		close(fd);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	int threads = argc == 3 ? atoi(argv[2]) : 0;
	pthread_t each[64];
	long wrong[64] = {0}, all = 0;

	if (threads < 1 || threads > 64)
		return 2;
	connects = atol(argv[1]) / threads;
	for (int i = 0; i < threads; i++)
		pthread_create(&each[i], NULL, run, &wrong[i]);
	for (int i = 0; i < threads; i++) {
		pthread_join(each[i], NULL);
		all += wrong[i];
	}
	return all != 0;
}
