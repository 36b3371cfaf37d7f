import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { z } from "zod";
import { loopback } from "../../mod.ts";
import {
  defineNetwork,
  FrameBatch,
  type FrameTransport,
  type NetworkPlugin,
  OffloadCapabilities,
  PluginError,
} from "../../plugin.ts";
import { FramePool, tcp, TransportBench } from "../../testing/mod.ts";

/** Sends everything back after a while, as many frames at once as it has room for; with faults on request. */
function mirror(faults: Partial<FrameTransport> = {}): NetworkPlugin {
  return defineNetwork({
    name: "mirror",
    options: z.strictObject({ room: z.int().default(3), delayNs: z.int().default(0) }),
    create({ publish }, { room, delayNs }): FrameTransport {
      const counters = publish({ dropped: 0 });
      const waiting = new FrameBatch();
      let hasGuest = false;
      let dueNs = Infinity;
      const network: FrameTransport = {
        maxFrameBytes: 1514,
        capabilities: OffloadCapabilities.none,
        queuePairs: 1,
        receive(out, limit, _queue, nowNs) {
          const count = nowNs < dueNs ? 0 : Math.min(limit, waiting.length);
          for (let i = 0; i < count; i++) out.push(waiting.at(i));
          waiting.dropFirst(count);
          return count;
        },
        send(batch, _queue, nowNs) {
          const count = Math.min(batch.length, room - waiting.length);
          for (let i = 0; i < count; i++) waiting.push(batch.at(i));
          if (count > 0) dueNs = nowNs + delayNs;
          return count;
        },
        hasGuest(present) {
          if (hasGuest && !present) {
            counters.dropped += waiting.length;
            waiting.releaseAll();
          }
          hasGuest = present;
        },
        deadlineNs: () => waiting.length > 0 ? dueNs : Infinity,
        [Symbol.dispose]: () => waiting.releaseAll(),
      };
      return Object.assign(network, faults);
    },
  });
}

Deno.test("TransportBench sends until the network takes no more, and receives what has come", async () => {
  await using bench = new TransportBench({ plugin: mirror(), options: { delayNs: 1000 } });
  const frames = Array.from({ length: 5 }, (_, id) => tcp({ id }));
  assertEquals(bench.send(frames), 3);
  assertEquals([bench.send(frames), bench.receive().length, bench.pool.inUse], [0, 0, 3]);
  bench.advanceTo(1000);
  assertEquals(bench.receive(2).map(({ number, bytes }) => [number, bytes]), [[1, frames[0]], [
    2,
    frames[1],
  ]]);
  assertEquals(bench.send(frames[4]), 1);
  bench.advanceTo(2000);
  assertEquals(bench.receive().map(({ bytes, atNs }) => [bytes, atNs]), [[frames[2], 2000], [
    frames[4],
    2000,
  ]]);
});

Deno.test("TransportBench shows that a guest's frames do not reach the next one", async () => {
  await using bench = new TransportBench({ plugin: mirror() });
  bench.send(tcp());
  bench.guest(false);
  bench.guest(true);
  assertEquals([bench.receive(), bench.counters.mirror.dropped], [[], 1]);
});

Deno.test("TransportBench tells of frames that a network keeps, and of counts that are not true", async () => {
  const keeping = new TransportBench({ plugin: mirror({ [Symbol.dispose]: () => {}, hasGuest: () => {} }) });
  keeping.send(tcp());
  await assertRejects(() => keeping.close(), Error, "1");
  const lying = new TransportBench({ plugin: mirror({ receive: () => 1 }) });
  assertThrows(() => lying.receive(), PluginError, "receive");
  const greedy = new TransportBench({ plugin: mirror({ send: (batch) => batch.length + 1 }) });
  assertThrows(() => greedy.send(tcp()), PluginError, "send");
  assertThrows(() => new TransportBench({ plugin: mirror({ queuePairs: 0 }) }), TypeError, "queuePairs");
});

Deno.test("TransportBench moves frames of the loopback network, and tells what it is without a peer", async () => {
  await using bench = new TransportBench({ plugin: loopback });
  assert(bench.transport.maxFrameBytes >= 1514);
  bench.accept(OffloadCapabilities.of("csum", "tso4"));
  assertEquals(bench.send([tcp(), tcp()]), 2);
  assertEquals([bench.receive(), bench.pool.inUse], [[], 0]);
});

Deno.test("send() for which the pool has too few frames offers none and keeps none", async () => {
  const pool = new FramePool({ maxBytes: 2 * 33 * 64 });
  await using bench = new TransportBench({ plugin: mirror(), pool });
  assertThrows(() => bench.send([tcp(), tcp(), tcp()]), RangeError, "the pool is at its limit");
  assertEquals(pool.inUse, 0);
  assertEquals(bench.send(tcp()), 1);
  assertEquals(bench.receive().length, 1);
});
