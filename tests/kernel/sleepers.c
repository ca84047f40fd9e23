// SPDX-License-Identifier: Apache-2.0
// Starts so many processes that only sleep, says so, and ends them with its input or after 120 s.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int wanted = argc > 1 ? atoi(argv[1]) : 0, made;
	char byte;

	signal(SIGCHLD, SIG_IGN);
	for (made = 0; made < wanted; made++) {
		pid_t child = fork();

		if (child < 0)
			break;
		if (!child) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			alarm(120);
			pause();
			_exit(0);
		}
	}
	printf("%d\n", made);
	fflush(stdout);
	alarm(120);
	return read(0, &byte, 1) < 0;
}
