/*
 * Connects of several kinds for so many seconds, at a rate that rises from next to nothing to the
 * top and falls again in each period. Usage: pulse SECONDS TOP_A_SECOND PERIOD_S NOBODY
 *
 * Of 100: 80 are refused on loopback, 9 by IPv6 there, 10 are established, and one, to the address
 * NOBODY, is given up later in SYN_SENT. One of 500 is made by a child that ends at once.
 * Prints: refused established cancelled most_in_a_second
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TICK_NS 10000000 /* so often a few are made */
#define WAITING 64       /* sockets in SYN_SENT at a time */
/* How far the client may be ahead: a full accept queue would drop its SYNs for a second. */
#define MOST_AHEAD 1000

static struct sockaddr_in closed = {.sin_family = AF_INET}, open_port, nobody;
static struct sockaddr_in6 closed6 = {.sin6_family = AF_INET6};
static long refused, established, cancelled;
static volatile long *accepted; /* shared with the server */

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void must(int holds, const char *what)
{
	if (holds)
		return;
	perror(what);
	exit(1);
}

/* Takes connections until this process ends. */
static void serve(void)
{
	socklen_t size = sizeof(open_port);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	open_port.sin_family = AF_INET;
	open_port.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(!bind(listener, (struct sockaddr *)&open_port, size), "bind");
	must(!getsockname(listener, (struct sockaddr *)&open_port, &size), "getsockname");
	must(!listen(listener, 4096), "listen");
	if (fork()) {
		close(listener);
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;; ++*accepted)
		close(accept(listener, NULL, NULL));
}

static int refuse(int family, const void *there, socklen_t size)
{
	int fd = socket(family, SOCK_STREAM, 0);
	int as_wanted = connect(fd, there, size) && errno == ECONNREFUSED;

	close(fd);
	return as_wanted;
}

static void establish(void)
{
	struct linger reset = {.l_onoff = 1};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)); /* no TIME_WAIT */
	must(!connect(fd, (struct sockaddr *)&open_port, sizeof(open_port)), "established");
	close(fd);
	established++;
	while (established - *accepted > MOST_AHEAD)
		usleep(50);
}

static void give_up_later(void)
{
	static int waiting[WAITING];
	int *fd = &waiting[cancelled % WAITING];

	if (cancelled++ >= WAITING)
		close(*fd);
	*fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	must(connect(*fd, (struct sockaddr *)&nobody, sizeof(nobody)) && errno == EINPROGRESS,
	     "nobody");
}

static void by_child(void)
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(!refuse(AF_INET, &closed, sizeof(closed)));
	must(child > 0 && waitpid(child, &status, 0) == child && !status, "child");
	refused++;
}

static void make(long number)
{
	if (number % 100 == 99)
		give_up_later();
	else if (number % 10 == 5)
		establish();
	else if (number % 500 == 250)
		by_child();
	else if (number % 10 == 7)
		must(refuse(AF_INET6, &closed6, sizeof(closed6)), "by IPv6"), refused++;
	else
		must(refuse(AF_INET, &closed, sizeof(closed)), "refused"), refused++;
}

int main(int argc, char **argv)
{
	struct timespec tick = {.tv_nsec = TICK_NS};
	double begun = seconds(), now = begun, top, period, due = 0, second = begun;
	long number = 0, before = 0, most = 0;

	if (argc != 5)
		return 2;
	top = atof(argv[2]);
	period = atof(argv[3]);
	nobody.sin_family = AF_INET;
	closed.sin_port = closed6.sin6_port = nobody.sin_port = htons(9);
	closed.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	closed6.sin6_addr = in6addr_loopback;
	nobody.sin_addr.s_addr = inet_addr(argv[4]);
	accepted = mmap(NULL, sizeof(*accepted), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	must(accepted != MAP_FAILED, "mmap");
	serve();
	while (now - begun < atof(argv[1])) {
		double wave = sin(M_PI * (now - begun) / period), last = now;

		nanosleep(&tick, NULL);
		now = seconds();
		due += top * (0.02 + 0.98 * wave * wave) * (now - last);
		if (due - (double)number > top) /* it was stopped: that is not made up for */
			due = (double)number + top;
		for (; (double)number < due; number++)
			make(number);
		if (now - second < 1)
			continue;
		most = number - before > most ? number - before : most;
		before = number;
		second = now;
	}
	printf("%ld %ld %ld %ld\n", refused, established, cancelled, most);
	return 0;
}
