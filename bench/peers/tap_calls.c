/*
 * What the kernel itself takes to read and to write frames of a TAP: bare calls in a loop, into and out of one buffer. A
 * library, so that it works on the same descriptor as its rivals (see bench/support/tap_contestants.ts).
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

/* ns for `count` frames, each of `bytes` with its header; -1 if one was not there, or of another length. */
double read_frames(int fd, uint8_t *buffer, uint32_t room, int count, int bytes)
{
	double start = now_ns();
	for (int i = 0; i < count; i++)
		if (read(fd, buffer, room) != bytes)
			return -1;
	return now_ns() - start;
}

/* ns for `count` times the same frame; -1 if the kernel refused one. */
double write_frames(int fd, const uint8_t *frame, uint32_t bytes, int count)
{
	double start = now_ns();
	for (int i = 0; i < count; i++)
		if (write(fd, frame, bytes) != (ssize_t)bytes)
			return -1;
	return now_ns() - start;
}
