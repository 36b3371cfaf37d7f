/*
 * What it costs to bring one cache line from one core to another: two threads, pinned, take turns to write it.
 *
 * "cache_line CORE CORE MS" prints the ns of one transfer, the median of laps of a thousand within so many ms.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "pinned.h"

#define TURNS 1000
#define MIN_LAPS 50
#define MAX_LAPS 100000

static _Alignas(128) atomic_uint turn;
static _Alignas(128) atomic_int over;

static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Answers every even number by the odd one behind it. */
static void *answer(void *core)
{
	pin((int)(intptr_t)core);
	while (!atomic_load_explicit(&over, memory_order_relaxed)) {
		unsigned seen = atomic_load_explicit(&turn, memory_order_acquire);
		if (seen & 1)
			atomic_store_explicit(&turn, seen + 1, memory_order_release);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	static double laps[MAX_LAPS];
	int count = 0;
	pthread_t other;

	if (argc != 4)
		return 2;
	if (pthread_create(&other, NULL, answer, (void *)(intptr_t)atoi(argv[2])) != 0)
		return 1;
	pin(atoi(argv[1]));
	uint64_t end = now_ns() + (uint64_t)atoi(argv[3]) * 1000000u;
	while (count < MAX_LAPS && (now_ns() < end || count < MIN_LAPS)) {
		uint64_t start = now_ns();
		for (int i = 0; i < TURNS; i++) {
			unsigned next = atomic_load_explicit(&turn, memory_order_relaxed) + 1;
			atomic_store_explicit(&turn, next, memory_order_release);
			while (atomic_load_explicit(&turn, memory_order_acquire) == next)
				;
		}
		/* There and back. */
		laps[count++] = (double)(now_ns() - start) / TURNS / 2;
	}
	atomic_store(&over, 1);
	pthread_join(other, NULL);
	qsort(laps, (size_t)count, sizeof *laps, by_size);
	printf("%.1f\n", laps[count / 2]);
	return 0;
}
