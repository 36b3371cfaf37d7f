/*
 * For programs that measure one processor against another: to stay on one, and to sort figures.
 */
#ifndef PINNED_H
#define PINNED_H
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

static void pin(int core)
{
	cpu_set_t set;
	CPU_ZERO(&set);
	CPU_SET(core, &set);
	if (sched_setaffinity(0, sizeof set, &set) != 0) {
		perror("sched_setaffinity");
		exit(1);
	}
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

#endif
