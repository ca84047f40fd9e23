/*
 * So many processes, one after another at a pace, each of which makes one connect that is
 * refused and ends. Usage: short PROCESSES A_SECOND
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int connect_once(void)
{
	struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(9)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return connect(fd, (struct sockaddr *)&there, sizeof(there)) ? 0 : 1;
}

int main(int argc, char **argv)
{
	long number = argc == 3 ? atol(argv[1]) : 0, rate = argc == 3 ? atol(argv[2]) : 1;
	struct timespec due;
	int status, wrong = 0;

	clock_gettime(CLOCK_MONOTONIC, &due);
	for (long i = 0; i < number; i++) {
		pid_t child = fork();

		if (!child)
			_exit(connect_once());
		if (child < 0 || waitpid(child, &status, 0) != child || status)
			wrong = 1;
		due.tv_nsec += 1000000000 / rate;
		due.tv_sec += due.tv_nsec / 1000000000;
		due.tv_nsec %= 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
	}
	return wrong;
}
