/*
 * What the peers share: TCP/IPv4 segments in order, round robin over flows, as bench/support/coalescing.ts makes them; the
 * clock; and the dialogue with bench/support/peer.ts.
 *
 * A peer reads lines "FAMILY FLOWS HELD PAYLOAD SEGMENTS COPY" and answers each with "NS UNITS BYTES": ns per segment, the median
 * of all cycles of filling and emptying the table, and the units and bytes of payload that came out of a first cycle, which
 * is not timed. The end of input ends it.
 */
#ifndef PEER_H
#define PEER_H

#include <arpa/inet.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 64
#define HEADERS 54

struct order {
	unsigned family, flows, held, payload, segments, copy;
};

/* Who sends, and the buffers that the segments of the next batch lie in. */
struct sender {
	unsigned flows, payload, next;
	uint32_t *seq;
	uint8_t *buffers[BATCH];
};

static inline void put16(uint8_t *at, uint16_t value) { value = htons(value); memcpy(at, &value, 2); }
static inline void put32(uint8_t *at, uint32_t value) { value = htonl(value); memcpy(at, &value, 4); }
static inline uint16_t get16(const uint8_t *at) { uint16_t value; memcpy(&value, at, 2); return ntohs(value); }
static inline uint32_t get32(const uint8_t *at) { uint32_t value; memcpy(&value, at, 4); return ntohl(value); }

static inline uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* What a reading of the clock costs: the least of many. */
static inline uint64_t clock_cost_ns(void)
{
	uint64_t least = UINT64_MAX;
	for (int i = 0; i < 2000; i++) {
		uint64_t start = now_ns(), cost = now_ns() - start;
		if (cost < least)
			least = cost;
	}
	return least;
}

static inline void sender_open(struct sender *s, const struct order *o)
{
	s->flows = o->flows;
	s->payload = o->payload;
	s->next = 0;
	s->seq = malloc(o->flows * sizeof *s->seq);
	for (unsigned i = 0; i < o->flows; i++)
		s->seq[i] = 1000;
	for (unsigned i = 0; i < BATCH; i++) {
		uint8_t *b = s->buffers[i] = calloc(1, HEADERS + o->payload);
		memcpy(b, "\x52\x54\0\x12\x34\x56\x02\xaa\xbb\xcc\xdd\xee\x08\0\x45", 15);
		put16(b + 16, (uint16_t)(40 + o->payload));
		put16(b + 20, 0x4000);
		b[22] = 64;
		b[23] = 6;
		put32(b + 30, 0x0a000002);
		put16(b + 36, 80);
		put32(b + 42, 1);
		put16(b + 46, 0x5010);
		put16(b + 48, 512);
		for (unsigned j = 0; j < o->payload; j++)
			b[HEADERS + j] = (uint8_t)(j * 7);
	}
}

/* The headers of the next batch; the payload stays. Checksums are not looked at here. */
static inline void sender_prepare(struct sender *s)
{
	for (unsigned i = 0; i < BATCH; i++) {
		unsigned flow = s->next;
		uint8_t *b = s->buffers[i];
		s->next = flow + 1 == s->flows ? 0 : flow + 1;
		put32(b + 26, 0x0a000001 + (flow << 8));
		put16(b + 34, (uint16_t)(1024 + flow));
		put32(b + 38, s->seq[flow]);
		s->seq[flow] += s->payload;
	}
}

static inline void sender_close(struct sender *s)
{
	free(s->seq);
	for (unsigned i = 0; i < BATCH; i++)
		free(s->buffers[i]);
}

/* What came out. */
struct outcome {
	uint64_t units, bytes;
};

/* What a peer has to do: once at first, for every batch before (not timed) and after the clock starts, and at the end. */
static void peer_open(const struct order *o);
static void peer_prepare(struct sender *s, const struct order *o);
static void peer_batch(struct sender *s, const struct order *o, int purge, struct outcome *out);
static void peer_close(void);

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static inline int peer_serve(void)
{
	struct order o;
	while (scanf("%u %u %u %u %u %u", &o.family, &o.flows, &o.held, &o.payload, &o.segments, &o.copy) == 6) {
		if (o.family != 4)
			return 1;
		struct sender s;
		struct outcome first = { 0, 0 }, later = { 0, 0 };
		unsigned batches = o.flows * o.held / BATCH > 0 ? o.flows * o.held / BATCH : 1;
		unsigned cycles = (o.segments + batches * BATCH - 1) / (batches * BATCH);
		uint64_t cost = clock_cost_ns();
		double *laps = calloc(cycles, sizeof *laps);
		sender_open(&s, &o);
		peer_open(&o);
		for (unsigned cycle = 0; cycle <= cycles; cycle++) {
			uint64_t total = 0;
			for (unsigned batch = 1; batch <= batches; batch++) {
				sender_prepare(&s);
				peer_prepare(&s, &o);
				uint64_t start = now_ns();
				peer_batch(&s, &o, batch == batches, cycle == 0 ? &first : &later);
				total += now_ns() - start - cost;
			}
			if (cycle > 0)
				laps[cycle - 1] = (double)total / (batches * BATCH);
		}
		qsort(laps, cycles, sizeof *laps, by_size);
		printf("%f %lu %lu\n", laps[cycles / 2], first.units, first.bytes);
		fflush(stdout);
		free(laps);
		peer_close();
		sender_close(&s);
	}
	return 0;
}

#endif
