import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { loopback } from "../../../mod.ts";
import { FrameBatch, HostError } from "../../../plugin.ts";
import { CablePort, FramePool, LoopbackCable, TransportBench } from "../../../testing/mod.ts";

const GROUP = 0x33;

/** A frame from the station `from` to the station `to` (0 is broadcast), told apart by `fill`. */
function frame(to: number, from: number, fill = 0, length = 60): Uint8Array {
  const bytes = new Uint8Array(length).fill(fill);
  bytes.set([0x52, 0x54, 0, 0, 0, to, 0x52, 0x54, 0, 0, 0, from, 0x88, 0xb5]);
  if (to === 0) bytes.fill(255, 0, 6);
  if (to === GROUP) bytes.set([GROUP, GROUP]);
  return bytes;
}

/** Receives up to 64 frames and releases them: the bytes of each. */
function receive(port: CablePort, nowNs: number): Uint8Array[] {
  const batch = new FrameBatch();
  assertEquals(port.receive(batch, 64, 0, nowNs), batch.length);
  const received = Array.from({ length: batch.length }, (_, i) => batch.at(i).toBytes());
  batch.releaseAll();
  return received;
}

/** Sends copies of these frames and returns how many were taken; releases the others. */
function send(port: CablePort, pool: FramePool, nowNs: number, ...frames: Uint8Array[]): number {
  const batch = new FrameBatch();
  for (const bytes of frames) batch.push(pool.takeCopy(bytes)!);
  const taken = port.send(batch, 0, nowNs);
  batch.dropFirst(taken);
  batch.releaseAll();
  return taken;
}

function fills(port: CablePort, nowNs = 0): number[] {
  return receive(port, nowNs).map((bytes) => bytes.at(-1)!);
}

Deno.test("CablePort.send() hands the frame itself to the only other port, in order", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  using left = cable.plug({ pool });
  using right = cable.plug({ pool });
  const batch = new FrameBatch();
  for (let i = 0; i < 3; i++) batch.push(pool.takeCopy(frame(0, 1, i))!);
  const sent = [batch.at(0), batch.at(1), batch.at(2)];
  assertEquals(left.send(batch, 0, 5), 3);
  assertEquals(pool.inUse, 3);
  assertEquals(right.deadlineNs(), 5);
  assertEquals(right.waiting, 3);
  const out = new FrameBatch();
  assertEquals(right.receive(out, 2, 0, 5), 2);
  assertEquals(right.receive(out, 64, 0, 5), 1);
  for (let i = 0; i < 3; i++) {
    assert(out.at(i) === sent[i]);
    assertEquals(out.at(i).number, i + 1);
  }
  out.releaseAll();
  assertEquals(right.deadlineNs(), Infinity);
  assertEquals([left.counters.sent, right.counters.received], [3, 3]);
  assertEquals(pool.inUse, 0);
});

Deno.test("CablePort.send() takes no more when its only receiver is full, and loses nothing", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  using left = cable.plug({ pool });
  using right = cable.plug({ pool, queueFrames: 3 });
  const batch = new FrameBatch();
  for (let i = 0; i < 8; i++) batch.push(pool.takeCopy(frame(0, 1, i))!);
  const seen: number[] = [];
  while (batch.length > 0) {
    const taken = left.send(batch, 0, 0);
    assertEquals(taken, Math.min(3, batch.length));
    batch.dropFirst(taken);
    assertEquals(left.send(batch, 0, 0), 0);
    seen.push(...fills(right));
  }
  assertEquals(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
  assertEquals([left.counters.sent, right.counters.queueFull], [8, 0]);
  assertEquals(pool.inUse, 0);
});

Deno.test("LoopbackCable learns where a station is, and floods what it does not know", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  using a = cable.plug({ pool });
  using b = cable.plug({ pool });
  using c = cable.plug({ pool });
  assertEquals(send(a, pool, 0, frame(2, 1, 10)), 1); // 2 is unknown
  assertEquals([fills(a), fills(b), fills(c)], [[], [10], [10]]);
  send(b, pool, 0, frame(1, 2, 11)); // 1 is known
  assertEquals([fills(a), fills(b), fills(c)], [[11], [], []]);
  send(a, pool, 0, frame(2, 1, 12)); // 2 is known now
  assertEquals([fills(a), fills(b), fills(c)], [[], [12], []]);
  send(c, pool, 0, frame(0, 3, 13), frame(GROUP, 3, 14));
  assertEquals([fills(a), fills(b), fills(c)], [[13, 14], [13, 14], []]);
  send(c, pool, 0, frame(2, 2, 15)); // 2 has moved to c
  send(c, pool, 0, frame(2, 9, 16)); // 9 and 2 are both behind c: the cable has nothing to do
  send(a, pool, 0, frame(2, 1, 17));
  assertEquals([fills(a), fills(b), fills(c)], [[], [], [17]]);
  assertEquals(c.counters.ownAddress, 2);
  assertEquals(pool.inUse, 0);
});

Deno.test("LoopbackCable lets a starved port miss what is for several, and stops no other port", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  using a = cable.plug({ pool });
  using b = cable.plug({ pool, queueFrames: 1 });
  using c = cable.plug({ pool });
  const three = [frame(0, 1, 1), frame(0, 1, 2), frame(0, 1, 3)];
  assertEquals(send(a, pool, 0, ...three), 3);
  assertEquals([fills(b), fills(c)], [[1], [1, 2, 3]]);
  assertEquals(b.counters.queueFull, 2);
  // A frame for the full port alone waits for it.
  send(b, pool, 0, frame(1, 2));
  fills(a);
  assertEquals(send(a, pool, 0, frame(2, 1, 4), frame(2, 1, 5)), 1);
  assertEquals([fills(b), fills(c)], [[4], []]);
  assertEquals(pool.inUse, 0);
});

Deno.test("LoopbackCable copies for all receivers but the last, from their pools, with the header", () => {
  const pool = new FramePool();
  const small = new FramePool({ maxBytes: 0 });
  const cable = new LoopbackCable();
  using a = cable.plug({ pool, largeFrames: true });
  using b = cable.plug({ pool: small, largeFrames: true });
  using c = cable.plug({ pool: new FramePool(), largeFrames: true });
  using d = cable.plug({ pool: small, largeFrames: true });
  const batch = new FrameBatch();
  const original = pool.takeCopy(frame(0, 1, 7))!;
  original.header.gsoType = 1;
  original.header.gsoSize = 1448;
  original.queuePair = 3;
  batch.push(original);
  assertEquals(a.send(batch, 0, 0), 1);
  batch.clear();
  assertEquals(b.receive(batch, 64, 0, 0), 0);
  assertEquals(b.counters.poolEmpty, 1);
  assertEquals(c.receive(batch, 64, 0, 0), 1);
  assertEquals(d.receive(batch, 64, 0, 0), 1);
  assert(batch.at(0) !== original && batch.at(1) === original);
  for (let i = 0; i < 2; i++) {
    assertEquals(batch.at(i).toBytes(), frame(0, 1, 7));
    assertEquals([batch.at(i).header.gsoType, batch.at(i).header.gsoSize, batch.at(i).queuePair], [
      1,
      1448,
      0,
    ]);
  }
  batch.releaseAll();
  assertEquals([pool.inUse, c.pool.inUse], [0, 0]);
});

Deno.test("LoopbackCable delivers frames in one piece, also those sent in several", () => {
  for (const ports of [2, 3]) {
    const pool = new FramePool();
    const cable = new LoopbackCable();
    const [a, ...others] = Array.from({ length: ports }, () => cable.plug({ pool }));
    const batch = new FrameBatch();
    const merged = pool.takeCopy(frame(0, 1, 1))!;
    merged.append(pool.takeCopy(new Uint8Array(1000).fill(2))!);
    batch.push(merged);
    assertEquals(a.send(batch, 0, 0), 1);
    batch.clear();
    for (const port of others) assertEquals(port.receive(batch, 64, 0, 0), 1);
    for (let i = 0; i < batch.length; i++) {
      assert(batch.at(i).next === null);
      assertEquals(batch.at(i).toBytes().slice(0, 60), frame(0, 1, 1));
      assertEquals(batch.at(i).toBytes().slice(60), new Uint8Array(1000).fill(2));
    }
    batch.releaseAll();
    assertEquals(pool.inUse, 0);
  }
});

Deno.test("LoopbackCable waits when no frame is left to make one piece for a single receiver", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  using a = cable.plug({ pool });
  using _b = cable.plug({ pool: new FramePool({ maxBytes: 0 }) });
  const batch = new FrameBatch();
  const merged = pool.takeCopy(frame(0, 1))!;
  merged.append(pool.takeCopy(frame(0, 1))!);
  batch.push(merged);
  assertEquals(a.send(batch, 0, 0), 0);
  assertEquals(a.counters.sent, 0);
  batch.releaseAll();
  assertEquals(pool.inUse, 0);
});

Deno.test("LoopbackCable counts and releases what it cannot carry", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  using a = cable.plug({ pool });
  assertEquals(send(a, pool, 0, frame(2, 1)), 1);
  assertEquals(a.counters.noReceiver, 1);
  using b = cable.plug({ pool });
  assertEquals(send(a, pool, 0, new Uint8Array(13)), 1);
  const batch = new FrameBatch();
  for (const [flags, gsoType] of [[1, 0], [0, 1], [2, 0]]) {
    const each = pool.takeCopy(frame(2, 1))!;
    each.header.flags = flags;
    each.header.gsoType = gsoType;
    batch.push(each);
  }
  const long = pool.take(69_632)!;
  long.bytes.set(frame(2, 1), long.start);
  long.append(pool.takeCopy(frame(2, 1))!);
  batch.push(long);
  assertEquals(a.send(batch, 0, 0), 4);
  assertEquals([a.counters.tooShort, a.counters.unfinished, a.counters.tooLong], [1, 2, 1]);
  batch.clear();
  assertEquals(b.receive(batch, 64, 0, 0), 1); // DATA_VALID is not carried, and not in the way
  assertEquals(batch.at(0).header.flags, 0);
  batch.releaseAll();
  assertEquals(pool.inUse, 0);
});

Deno.test("CablePort.inject() delivers at the given time, with the header; tap() sees what was taken", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  using port = cable.plug({ pool, queueFrames: 2, largeFrames: true });
  const seen: [Uint8Array, number, number][] = [];
  const untap = port.tap((sent, nowNs) => seen.push([sent.toBytes(), sent.header.gsoSize, nowNs]));
  assert(port.inject(frame(1, 2, 1), { gsoType: 1, gsoSize: 100, flags: 1 }, 1000));
  assert(port.inject(frame(1, 2, 2)));
  assert(!port.inject(frame(1, 2, 3)));
  assertEquals(port.deadlineNs(), 1000);
  assertEquals(receive(port, 999), []);
  const batch = new FrameBatch();
  assertEquals(port.receive(batch, 64, 0, 1000), 2);
  const { flags, gsoType, gsoSize } = batch.at(0).header;
  assertEquals([flags, gsoType, gsoSize, batch.at(0).number], [1, 1, 100, 1]);
  assertEquals(port.send(batch, 0, 1500), 2);
  assertEquals(seen, [[frame(1, 2, 1), 100, 1500], [frame(1, 2, 2), 0, 1500]]);
  untap();
  untap();
  send(port, pool, 0, frame(1, 2, 1));
  assertEquals(seen.length, 2);
  using other = cable.plug({ pool, queueFrames: 1, largeFrames: true });
  port.tap((sent, nowNs) => seen.push([sent.toBytes(), 0, nowNs]));
  assertEquals(send(port, pool, 7, frame(0, 1, 5), frame(0, 1, 6)), 1);
  assertEquals(seen.length, 3);
  assertEquals(fills(other, 7), [5]);
  assertThrows(() => port.inject(new Uint8Array(70_000)), RangeError);
  assertEquals([port.counters.injected, pool.inUse], [2, 0]);
});

Deno.test("CablePort leaves the cable when it is disposed of, with all that waits for it", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  using a = cable.plug({ pool });
  const b = cable.plug({ pool, queueFrames: 4 });
  send(b, pool, 0, frame(1, 2));
  fills(a);
  send(a, pool, 0, frame(2, 1), frame(2, 1), frame(2, 1));
  fills(b);
  send(a, pool, 0, frame(2, 1), frame(2, 1), frame(2, 1));
  assertEquals(pool.inUse, 3);
  b[Symbol.dispose]();
  b[Symbol.dispose]();
  assertEquals(pool.inUse, 0);
  assertEquals([receive(b, 0), send(b, pool, 0, frame(1, 2)), b.inject(frame(2, 1))], [[], 0, false]);
  using c = cable.plug({ pool }); // in b's old place, and not where 2 was
  using d = cable.plug({ pool });
  send(a, pool, 0, frame(2, 1, 9));
  assertEquals([fills(c), fills(d)], [[9], [9]]);
});

Deno.test("LoopbackCable refuses more ports than it has, ports that disagree, and queues of no size", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  for (let i = 0; i < 256; i++) cable.plug({ pool, queueFrames: 1 });
  assertThrows(() => cable.plug({ pool }), HostError, "the cable has 256 ports already");
  assertThrows(
    () => cable.plug({ pool, largeFrames: true }, "x"),
    HostError,
    "x: largeFrames is true, and another port",
  );
  for (const queueFrames of [0, 1.5, 65_537, NaN]) {
    assertThrows(
      () => new LoopbackCable().plug({ pool, queueFrames }),
      RangeError,
      `a queue of ${queueFrames} frames`,
    );
  }
});

Deno.test("LoopbackCable: a spoofed source address draws no frames of a neighbour to itself, nor into nothing", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  const mac = (n: number) => frame(0, n).subarray(6, 12);
  using bad = cable.plug({ pool, mac: mac(1) });
  using victim = cable.plug({ pool, mac: mac(2) });
  using other = cable.plug({ pool, mac: mac(3) });
  send(bad, pool, 0, frame(0, 2, 7));
  assertEquals([fills(victim), fills(other)], [[7], [7]]);
  send(other, pool, 0, frame(2, 3, 8));
  send(bad, pool, 0, frame(2, 1, 9));
  assertEquals([fills(victim), fills(bad)], [[8, 9], []]);
});

Deno.test("LoopbackCable drops what is for a guest that has gone, and makes no sender wait for it", () => {
  const pool = new FramePool();
  const cable = new LoopbackCable();
  using left = cable.plug({ pool });
  using right = cable.plug({ pool, queueFrames: 2 });
  send(right, pool, 0, frame(0, 2, 0));
  send(left, pool, 0, frame(2, 1, 1));
  right.hasGuest(false);
  for (let i = 0; i < 5; i++) send(left, pool, 0, frame(2, 1, i));
  send(left, pool, 0, frame(0, 1, 6));
  right.hasGuest(true);
  assertEquals([fills(right), right.counters.noGuest, right.waiting], [[], 7, 0]);
  send(left, pool, 0, frame(2, 1, 8));
  assertEquals(fills(right), [8]);
  fills(left);
  assertEquals(pool.inUse, 0);
});

Deno.test("LoopbackCable gives every port what a switch would, whatever happens", () => {
  const action = fc.record({
    port: fc.nat(2),
    to: fc.constantFrom(0, 1, 2, 3, 4, GROUP),
    from: fc.constantFrom(1, 2, 3),
    drain: fc.boolean(),
  });
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const pool = new FramePool();
      const cable = new LoopbackCable();
      const size = 4;
      const ports = [0, 1, 2].map(() => cable.plug({ pool, queueFrames: size }));
      const queues: number[][] = [[], [], []];
      const stations = new Map<number, number>();
      actions.forEach(({ port, to, from, drain }, serial) => {
        stations.set(from, port);
        const known = to === 0 || to === GROUP ? undefined : stations.get(to);
        let taken = 1;
        if (known === undefined) {
          for (const other of [0, 1, 2]) {
            if (other !== port && queues[other].length < size) queues[other].push(serial);
          }
        } else if (known !== port) {
          if (queues[known].length < size) queues[known].push(serial);
          else taken = 0;
        }
        assertEquals(send(ports[port], pool, serial, frame(to, from, serial)), taken);
        if (drain) {
          assertEquals(fills(ports[serial % 3], serial), queues[serial % 3]);
          queues[serial % 3] = [];
        }
      });
      ports.forEach((port, i) => assertEquals(fills(port, Infinity), queues[i]));
      assertEquals(pool.inUse, 0);
    }),
    { numRuns: 300 },
  );
});

Deno.test("loopback joins the devices that name the same cable, and checks its options", async () => {
  assertEquals(await loopback.options["~standard"].validate({}), {
    value: { cable: "default", queueFrames: 1024, largeFrames: false },
  });
  let wakes = 0;
  const plugin: typeof loopback = {
    ...loopback,
    create: (context, options) => loopback.create({ ...context, wake: () => wakes++ }, options),
  };
  const shared = new Map<string, unknown>();
  await using a = new TransportBench({ plugin, shared });
  await using b = new TransportBench({ plugin, shared });
  await using other = new TransportBench({ plugin, shared, options: { cable: "other" } });
  assertEquals(a.send(frame(0, 1, 3)), 1);
  assertEquals(wakes, 1);
  assertEquals(a.counters.loopback.sent, 1);
  assertEquals(b.receive().map(({ bytes }) => bytes), [frame(0, 1, 3)]);
  assertEquals(other.receive(), []);
  assert(b.transport instanceof CablePort && !b.transport.capabilities.csum);
  assertEquals([...shared.keys()], ["cable:default", "cable:other"]);
  assert(shared.get("cable:default") instanceof LoopbackCable);
  assertThrows(
    () => new TransportBench({ plugin, shared, options: { largeFrames: true } }),
    HostError,
    "$.loopback: largeFrames is true",
  );
  for (const wrong of [{ queueFrames: 0 }, { queueFrames: 65_537 }, { cable: "" }, { largeFrame: true }]) {
    assertThrows(() => new TransportBench({ plugin, options: wrong }), TypeError, Object.keys(wrong)[0]);
  }
});
