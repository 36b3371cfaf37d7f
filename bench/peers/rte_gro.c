/*
 * DPDK's rte_gro over TCP/IPv4: the table that lives from call to call, flushed after every cycle. Frames come with packet
 * type and lengths of headers, as a network card gives them: rte_gro is spared the parsing. It looks at no checksum.
 */
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_gro.h>
#include <rte_mbuf.h>

#include "peer.h"

#define SPARE_FRAMES 1023
#define MAX_OUT 65535

static struct rte_mempool *pool;
static struct rte_mbuf *batch[BATCH], *flushed[MAX_OUT];
static void *gro;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, rte_strerror(rte_errno));
	exit(1);
}

/* Copies the sender's batch into frames of the pool. */
static void copy_in(struct sender *s)
{
	uint16_t length = (uint16_t)(HEADERS + s->payload);
	if (rte_pktmbuf_alloc_bulk(pool, batch, BATCH) != 0)
		fail("No frames left");
	for (unsigned i = 0; i < BATCH; i++) {
		struct rte_mbuf *m = batch[i];
		m->pkt_len = m->data_len = length;
		m->packet_type = RTE_PTYPE_L2_ETHER | RTE_PTYPE_L3_IPV4 | RTE_PTYPE_L4_TCP;
		m->l2_len = 14;
		m->l3_len = 20;
		m->l4_len = 20;
		memcpy(rte_pktmbuf_mtod(m, void *), s->buffers[i], length);
	}
}

static void give_back(struct rte_mbuf **frames, unsigned count, struct outcome *out)
{
	for (unsigned i = 0; i < count; i++) {
		out->units++;
		out->bytes += frames[i]->pkt_len - HEADERS;
		rte_pktmbuf_free(frames[i]);
	}
}

static void peer_open(const struct order *o)
{
	struct rte_gro_param param = {
		.gro_types = RTE_GRO_TCP_IPV4,
		.max_flow_num = (uint16_t)o->flows,
		.max_item_per_flow = (uint16_t)o->held,
	};
	unsigned room = RTE_PKTMBUF_HEADROOM + HEADERS + o->payload;
	pool = rte_pktmbuf_pool_create("frames", o->flows * o->held + SPARE_FRAMES, 256, 0,
		(uint16_t)(room < RTE_MBUF_DEFAULT_BUF_SIZE ? RTE_MBUF_DEFAULT_BUF_SIZE : room), SOCKET_ID_ANY);
	if (!pool)
		fail("No pool of frames");
	gro = rte_gro_ctx_create(&param);
	if (!gro)
		fail("No table");
}

static void peer_prepare(struct sender *s, const struct order *o)
{
	if (!o->copy)
		copy_in(s);
}

static void peer_batch(struct sender *s, const struct order *o, int purge, struct outcome *out)
{
	if (o->copy)
		copy_in(s);
	give_back(batch, rte_gro_reassemble(batch, BATCH, gro), out);
	if (purge)
		give_back(flushed, rte_gro_timeout_flush(gro, 0, RTE_GRO_TCP_IPV4, flushed, MAX_OUT), out);
}

static void peer_close(void)
{
	rte_gro_ctx_destroy(gro);
	rte_mempool_free(pool);
}

int main(int argc, char **argv)
{
	if (rte_eal_init(argc, argv) < 0)
		fail("No DPDK");
	return peer_serve();
}
