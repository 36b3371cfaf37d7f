/*
 * What it takes to wake a sleeping process: one process waits for another, which has slept meanwhile.
 *
 * "wake CORE CORE GAP_US COUNT" has a program on the first core write to an eventfd, every so many µs, for which another one on
 * the second core waits. Prints the µs from the write to the moment at which the other one runs: the median, and that which 99
 * of 100 do not exceed.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pinned.h"

static double now_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		return 2;
	int count = atoi(argv[4]);
	int gap_us = atoi(argv[3]);
	int call = eventfd(0, 0), answer = eventfd(0, 0);
	double *woken = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double *late = calloc((size_t)count, sizeof *late);
	uint64_t one = 1, got;

	if (count < 1 || call < 0 || answer < 0 || woken == MAP_FAILED || late == NULL)
		return 1;
	pid_t child = fork();
	if (child < 0)
		return 1;
	if (child == 0) {
		pin(atoi(argv[2]));
		for (int i = 0; i < count && read(call, &got, 8) == 8; i++) {
			*woken = now_us();
			if (write(answer, &one, 8) != 8)
				break;
		}
		_exit(0);
	}
	pin(atoi(argv[1]));
	for (int i = 0; i < count; i++) {
		usleep((useconds_t)gap_us);
		double from = now_us();
		if (write(call, &one, 8) != 8 || read(answer, &got, 8) != 8)
			return 1;
		late[i] = *woken - from;
	}
	waitpid(child, NULL, 0);
	qsort(late, (size_t)count, sizeof *late, by_size);
	printf("%.1f %.1f\n", late[count / 2], late[count * 99 / 100]);
	return 0;
}
