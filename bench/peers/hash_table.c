/*
 * A coalescer for TCP/IPv4 in plain C: what the same task costs without a managed language. Flows are found in a hash table
 * with chains; a unit is one buffer of 64 KiB into which payload is copied. Rules are about those of the reference: no
 * checksums, no options, the next bytes of the flow or else the unit leaves.
 */
#include "peer.h"

#define UNIT_BYTES (1033 * 64)

struct unit {
	struct unit *in_bucket, *older, *newer;
	uint64_t addresses;
	uint32_t ports, bucket, next_seq, ack, length;
	uint16_t window, segments;
	uint8_t *frame;
};

static struct unit *units, *free_units, *oldest, *newest, **buckets;
static uint8_t *memory;
static uint32_t bucket_mask;

static uint32_t hash(uint64_t addresses, uint32_t ports)
{
	uint64_t h = (addresses ^ (uint64_t)ports << 16) * 0x9e3779b97f4a7c15u;
	return (uint32_t)(h >> 32 ^ h >> 47);
}

static void drain(struct unit *u, struct outcome *out)
{
	struct unit **link = &buckets[u->bucket];
	while (*link != u)
		link = &(*link)->in_bucket;
	*link = u->in_bucket;
	*(u->older ? &u->older->newer : &oldest) = u->newer;
	*(u->newer ? &u->newer->older : &newest) = u->older;
	put16(u->frame + 16, (uint16_t)(u->length - 14));
	put32(u->frame + 42, u->ack);
	put16(u->frame + 48, u->window);
	out->units++;
	out->bytes += u->length - HEADERS;
	u->in_bucket = free_units;
	free_units = u;
}

static void take(const uint8_t *f, uint32_t length, struct outcome *out)
{
	if (length < HEADERS || get16(f + 12) != 0x0800 || f[14] != 0x45 || f[23] != 6 || (get16(f + 20) & 0xbfff) != 0)
		return;
	uint32_t ip = get16(f + 16), offset_flags = get16(f + 46);
	if (ip < 40 || ip > length - 14 || (f[15] & 3) != 0 || (offset_flags & 0xf1e7) != 0x5000)
		return;
	uint64_t addresses;
	uint32_t ports, seq = get32(f + 38), payload = ip - 40;
	memcpy(&addresses, f + 26, 8);
	memcpy(&ports, f + 34, 4);
	uint32_t bucket = hash(addresses, ports) & bucket_mask;
	struct unit *u = buckets[bucket];
	while (u && (u->addresses != addresses || u->ports != ports))
		u = u->in_bucket;
	if (u && seq == u->next_seq && (int32_t)(get32(f + 42) - u->ack) >= 0 && u->length + payload <= 65535 + 14) {
		memcpy(u->frame + u->length, f + HEADERS, payload);
		u->length += payload;
		u->next_seq += payload;
		u->ack = get32(f + 42);
		u->window = get16(f + 48);
		u->segments++;
		return;
	}
	if (u)
		drain(u, out);
	u = free_units;
	free_units = u->in_bucket;
	u->addresses = addresses;
	u->ports = ports;
	u->bucket = bucket;
	u->next_seq = seq + payload;
	u->ack = get32(f + 42);
	u->window = get16(f + 48);
	u->segments = 1;
	u->length = 14 + ip;
	memcpy(u->frame, f, u->length);
	u->in_bucket = buckets[bucket];
	buckets[bucket] = u;
	u->newer = NULL;
	u->older = newest;
	*(newest ? &newest->newer : &oldest) = u;
	newest = u;
}

static void peer_open(const struct order *o)
{
	bucket_mask = 15;
	while (bucket_mask + 1 < 2 * o->flows)
		bucket_mask = bucket_mask * 2 + 1;
	buckets = calloc(bucket_mask + 1, sizeof *buckets);
	units = calloc(o->flows, sizeof *units);
	memory = malloc((size_t)o->flows * UNIT_BYTES);
	oldest = newest = free_units = NULL;
	for (unsigned i = o->flows; i-- > 0;) {
		units[i].frame = memory + (size_t)i * UNIT_BYTES;
		units[i].in_bucket = free_units;
		free_units = &units[i];
	}
}

static void peer_prepare(struct sender *s, const struct order *o)
{
	(void)s, (void)o;
}

static void peer_batch(struct sender *s, const struct order *o, int purge, struct outcome *out)
{
	for (unsigned i = 0; i < BATCH; i++)
		take(s->buffers[i], HEADERS + o->payload, out);
	while (purge && oldest)
		drain(oldest, out);
}

static void peer_close(void)
{
	free(buckets);
	free(units);
	free(memory);
}

int main(void)
{
	return peer_serve();
}
