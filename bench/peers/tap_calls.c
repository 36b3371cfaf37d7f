/*
 * What the kernel itself takes to read and to write frames of a TAP: bare calls in a loop, each frame with a place of
 * its own. A library, so that it works on the same descriptor as its peers (see bench/support/tap_peers.ts).
 */
#include <stdint.h>
#include <time.h>
#include <unistd.h>

static double now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

/* ns to read `count` frames of `bytes`, header included, `stride` apart; -1 if one was not there, or of another length. */
double read_frames(int fd, uint8_t *places, uint32_t stride, int count, int bytes)
{
	double start = now_ns();
	for (int i = 0; i < count; i++)
		if (read(fd, places + (size_t)i * stride, stride) != bytes)
			return -1;
	return now_ns() - start;
}

/* ns to write `count` such frames; -1 if the kernel refused one. */
double write_frames(int fd, const uint8_t *places, uint32_t stride, int count, int bytes)
{
	double start = now_ns();
	for (int i = 0; i < count; i++)
		if (write(fd, places + (size_t)i * stride, (size_t)bytes) != bytes)
			return -1;
	return now_ns() - start;
}
