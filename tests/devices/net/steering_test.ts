import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { type RssSettings, Steering } from "../../../devices/net/steering.ts";
import { frame, type FrameParts, type Placed, PUBLISHED_KEY, reversed, TCP, UDP, v4, v6 } from "./frames.ts";

function select(steering: Steering, { bytes, start, length }: Placed): number {
  return steering.select(bytes, start, length);
}

function learn(steering: Steering, { bytes, start, length }: Placed, pair: number): void {
  steering.learn(bytes, start, length, pair);
}

/** Many flows between two hosts, of one family. */
function flows(count: number, six = false): FrameParts[] {
  const source = six ? v6("2001:db8::1") : v4("10.0.0.1");
  const destination = six ? v6("2001:db8::2") : v4("10.0.0.2");
  return Array.from({ length: count }, (_, i) => ({ source, destination, ports: [40_000 + i, 443] }));
}

function rss(table: number[], changes: Partial<RssSettings> = {}): RssSettings {
  const pairs = Math.max(...table) + 1;
  return {
    hashTypes: 3,
    table: Uint16Array.from(table),
    unclassifiedPair: 0,
    pairs,
    key: PUBLISHED_KEY,
    ...changes,
  };
}

Deno.test("Steering.select() uses the first pair only, until the driver asks for more", () => {
  const steering = new Steering(8);
  assertEquals(steering.pairs, 1);
  for (const flow of flows(50)) {
    learn(steering, frame(flow), 3);
    assertEquals(select(steering, frame(reversed(flow))), 0);
  }
});

Deno.test("Steering.select() answers the pair on which the guest transmitted the flow, both families", () => {
  for (const six of [false, true]) {
    const steering = new Steering(8);
    steering.useAutomatic(8);
    for (const [i, flow] of flows(64, six).entries()) {
      const pair = i % 8;
      learn(steering, frame(flow), pair);
      assertEquals(select(steering, frame(reversed(flow))), pair);
      assertEquals(select(steering, frame({ ...reversed(flow), tags: [[0x8100, 7]], before: 3 })), pair);
    }
  }
});

Deno.test("Steering.select() spreads flows that were never seen, and keeps each on its pair", () => {
  for (const six of [false, true]) {
    const steering = new Steering(8);
    steering.useAutomatic(5);
    const seen = new Array<number>(8).fill(0);
    for (const flow of flows(500, six)) {
      const pair = select(steering, frame(flow));
      assertEquals(select(steering, frame(flow)), pair);
      assertEquals(select(steering, frame(reversed(flow))), pair);
      seen[pair]++;
    }
    assertEquals(seen.slice(5), [0, 0, 0]);
    for (const count of seen.slice(0, 5)) assert(count > 60 && count < 140, `uneven: ${seen}`);
  }
});

Deno.test("Steering.select() tells protocols, ports and addresses apart", () => {
  const steering = new Steering(2);
  steering.useAutomatic(2);
  const flow: FrameParts = { source: v4("10.0.0.1"), destination: v4("10.0.0.2"), ports: [1000, 2000] };
  const others: FrameParts[] = [
    { ...flow, protocol: UDP },
    { ...flow, ports: [1000, 2001] },
    { ...flow, ports: [1001, 2001] },
    { ...flow, destination: v4("10.0.0.3") },
    { ...flow, source: v4("10.0.0.5"), destination: v4("10.0.0.6") },
    { ...flow, fragment: 0x2000 },
  ];
  const before = others.map((other) => select(steering, frame(other)));
  learn(steering, frame(flow), 1 - select(steering, frame(flow)));
  assertEquals(others.map((other) => select(steering, frame(other))), before);
});

Deno.test("Steering.select() keeps all fragments of a datagram together", () => {
  const steering = new Steering(8);
  steering.useAutomatic(8);
  const datagram: FrameParts = { source: v4("10.0.0.1"), destination: v4("10.0.0.2"), protocol: UDP };
  learn(steering, frame({ ...datagram, ports: [5, 6], fragment: 0x2000 }), 6);
  assertEquals(select(steering, frame({ ...datagram, ports: [0xdead, 0xbeef], fragment: 0x00b9 })), 6);
});

Deno.test("Steering.select() follows the MAC addresses of what is not IP", () => {
  const steering = new Steering(8);
  steering.useAutomatic(8);
  const arp = Uint8Array.from([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, ...new Array(28).fill(0)]);
  const answer = Uint8Array.from([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6, ...new Array(28).fill(1)]);
  for (const pair of [5, 2]) {
    steering.learn(arp, 0, arp.length, pair);
    assertEquals(steering.select(answer, 0, answer.length), pair);
  }
});

Deno.test("Steering.useAutomatic() forgets pairs that are no longer in use", () => {
  const steering = new Steering(8);
  steering.useAutomatic(8);
  const [flow] = flows(1);
  learn(steering, frame(flow), 7);
  steering.useAutomatic(7);
  assert(select(steering, frame(flow)) < 7);
  steering.useAutomatic(8);
  assertEquals(select(steering, frame(flow)), 7);
});

Deno.test("Steering.reset() forgets all", () => {
  const steering = new Steering(8);
  steering.useAutomatic(8);
  const [flow] = flows(1);
  const fallback = select(steering, frame(flow));
  learn(steering, frame(flow), (fallback + 1) % 8);
  steering.useRss(rss([1, 2]));
  steering.reset();
  assertEquals([steering.pairs, steering.usesRss, steering.packetHash.types], [1, false, 0]);
  assertEquals(select(steering, frame(flow)), 0);
  steering.useAutomatic(8);
  assertEquals(select(steering, frame(flow)), fallback);
});

Deno.test("Steering.select() under RSS answers the table's entry for the hash", () => {
  const steering = new Steering(8);
  const table = [3, 1, 4, 1, 5, 2, 6, 7];
  steering.useRss(rss(table));
  assertEquals([steering.pairs, steering.usesRss], [8, true]);
  const seen = new Set<number>();
  for (const flow of flows(100)) {
    const placed = frame(flow);
    learn(steering, placed, 0);
    const pair = select(steering, placed);
    assertEquals(steering.packetHash.compute(placed.bytes, placed.start, placed.length), 2);
    assertEquals(pair, table[steering.packetHash.value % 8]);
    seen.add(pair);
  }
  assertEquals([...seen].sort(), [1, 2, 3, 4, 5, 6, 7]);
});

Deno.test("Steering.select() under RSS sends what is not hashed to the unclassified queue", () => {
  const steering = new Steering(8);
  steering.useRss(rss([0, 1], { unclassifiedPair: 5, pairs: 6 }));
  assertEquals(select(steering, frame(flows(1, true)[0])), 5);
  assertEquals(steering.select(new Uint8Array(3), 0, 3), 5);
  steering.useAutomatic(1);
  assertEquals([steering.usesRss, select(steering, frame(flows(1, true)[0]))], [false, 0]);
});

Deno.test("Steering.learn() learns nothing while the driver's table chooses", () => {
  const steering = new Steering(8);
  const [flow] = flows(1);
  steering.useAutomatic(8);
  const fallback = select(steering, frame(flow));
  steering.useRss(rss([0, 1, 2, 3, 4, 5, 6, 7]));
  learn(steering, frame(flow), (fallback + 1) % 8);
  steering.useAutomatic(8);
  assertEquals(select(steering, frame(flow)), fallback);
});

Deno.test("Steering refuses numbers of pairs that the device does not have", () => {
  for (const pairs of [0, -1, 1.5, 0x8001, NaN]) {
    assertThrows(() => new Steering(pairs), RangeError, "1 to 32768");
  }
  const steering = new Steering(4);
  for (const pairs of [0, 5, 2.5]) assertThrows(() => steering.useAutomatic(pairs), RangeError, "1 to 4");
  assertThrows(() => steering.useRss(rss([0, 1, 2])), RangeError, "power of two");
  assertThrows(() => steering.useRss(rss([0], { table: new Uint16Array(0) })), RangeError, "power of two");
  assertThrows(() => steering.useRss(rss([0, 4])), RangeError, "4 queue pairs");
  assertThrows(() => steering.useRss(rss([0, 3], { pairs: 3 })), RangeError, "beyond 3");
  assertThrows(() => steering.useRss(rss([0], { unclassifiedPair: 1 })), RangeError, "beyond 1");
  assertEquals([steering.pairs, steering.usesRss], [1, false]);
});

Deno.test("Steering.select() answers a pair in use for any bytes, whatever was learned", () => {
  const bytes = fc.uint8Array({ maxLength: 80 });
  fc.assert(
    fc.property(
      fc.array(fc.tuple(bytes, fc.nat(7))),
      fc.array(bytes),
      fc.integer({ min: 1, max: 8 }),
      (sent, got, n) => {
        const steering = new Steering(8);
        steering.useAutomatic(8);
        for (const [frame, pair] of sent) steering.learn(frame, 0, frame.length, pair);
        steering.useAutomatic(n);
        for (const frame of [...got, ...sent.map(([frame]) => frame)]) {
          const pair = steering.select(frame, 0, frame.length);
          assert(Number.isInteger(pair) && pair >= 0 && pair < n);
        }
      },
    ),
  );
});

Deno.test("Steering.learn() of a million flows still knows the last one", () => {
  const steering = new Steering(4);
  steering.useAutomatic(4);
  const { bytes, start, length } = frame({
    source: v4("10.0.0.1"),
    destination: v4("10.0.0.2"),
    protocol: TCP,
    ports: [1, 2],
  });
  for (let i = 0; i < 1_000_000; i++) {
    bytes[34] = i;
    bytes[35] = i >>> 8;
    bytes[36] = i >>> 16;
    steering.learn(bytes, start, length, i & 3);
  }
  assertEquals(steering.select(bytes, start, length), 999_999 & 3);
});
