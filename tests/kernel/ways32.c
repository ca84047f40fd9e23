/*
 * A 32-bit program without any library: socket(2) and connect(2) by int 0x80, three
 * times: to a port that listens, to one that does not, and to a net that cannot be
 * reached. Exits with 0 when the three results were 0, ECONNREFUSED, ENETUNREACH.
 * Build: gcc -m32 -static -nostdlib -ffreestanding -fno-pie -fno-stack-protector \
 *            -DLIVE_PORT=n -DCLOSED_PORT=n
 */
#define NR_EXIT 1
#define NR_SOCKET 359
#define NR_CONNECT 362
#define AF_INET 2
#define SOCK_STREAM 1
#define ECONNREFUSED 111
#define ENETUNREACH 101
#define SWAPPED(port) ((unsigned short)((port) >> 8 | (port) << 8))

struct sockaddr_in {
	unsigned short family, port;
	unsigned char address[4];
	char zero[8];
};

static long call(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("int $0x80"
			 : "=a"(result)
			 : "a"(number), "b"(a), "c"(b), "d"(c)
			 : "memory");
	return result;
}

static long go(struct sockaddr_in *sa)
{
	long fd = call(NR_SOCKET, AF_INET, SOCK_STREAM, 0);

	return call(NR_CONNECT, fd, (long)sa, sizeof(*sa));
}

void _start(void)
{
	struct sockaddr_in live = {AF_INET, SWAPPED(LIVE_PORT), {127, 0, 0, 1}, {0}};
	struct sockaddr_in closed = {AF_INET, SWAPPED(CLOSED_PORT), {127, 0, 0, 1}, {0}};
	struct sockaddr_in nowhere = {AF_INET, SWAPPED(80), {203, 0, 113, 1}, {0}};
	int wrong = go(&live) != 0;

	wrong |= (go(&closed) != -ECONNREFUSED) << 1;
	wrong |= (go(&nowhere) != -ENETUNREACH) << 2;
	call(NR_EXIT, wrong, 0, 0);
}
