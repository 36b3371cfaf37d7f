/**
 * Every event at every point of an asynchronous request's life, with a front-end. What was given back is
 * filled with a pattern, and looked at byte by byte after every late answer; mappings are counted.
 */
import { assert, assertEquals } from "@std/assert";
import { Request } from "../../../transports/vhost_user/messages.ts";
import { LateDevice } from "../../core/support/late_device.ts";
import { LateBench, LateGuest } from "./support/late_bench.ts";
import { concat, pair, region, table, u64 } from "../../../rigs/vhost_user/payload.ts";

const LIMIT_NS = 1_000_000;
const POINTS = ["posted", "taken", "completed", "some returned", "all returned"] as const;
const ANSWERS = ["in time", "too late", "never"] as const;

/** What takes memory or rings away: a message, or the end of the connection. */
const EVENTS: Record<string, ((bench: LateBench) => void) | "disconnect"> = {
  "status 0": (bench) => bench.say(Request.SET_STATUS, u64(0)),
  "RESET_DEVICE": (bench) => bench.say(Request.RESET_DEVICE),
  "GET_VRING_BASE": (bench) => bench.say(Request.GET_VRING_BASE, pair(0, 0)),
  "ring disabled": (bench) => bench.say(Request.SET_VRING_ENABLE, pair(0, 0)),
  "new memory table": (bench) => {
    const buffer = new ArrayBuffer(bench.guest.buffer.byteLength);
    bench.say(Request.SET_MEM_TABLE, table(region()), [bench.host.descriptor({ kind: "memory", buffer })]);
  },
  "region removed": (bench) => bench.say(Request.REM_MEM_REG, concat(u64(0), region())),
  "other features": (bench) =>
    bench.say(
      Request.SET_FEATURES,
      u64(1n << 32n | 1n << 30n | 1n << 28n | (bench.guest.packed ? 1n << 34n : 0n)),
    ),
  "disconnect": "disconnect",
};

function bringTo(bench: LateBench, point: typeof POINTS[number]): number {
  bench.guest.post(1, 2, 3, 4);
  if (point === "posted") return 0;
  bench.poll(1);
  assertEquals(bench.held, [1, 2, 3, 4]);
  if (point === "taken") return 4;
  bench.answer(4);
  bench.answer(2);
  if (point === "completed") return 4;
  bench.connection.poll(bench.nowNs);
  assertEquals(bench.guest.returned(), [[4, 4], [2, 2]]);
  if (point === "some returned") return 2;
  bench.answer(3);
  bench.answer(1);
  bench.connection.poll(bench.nowNs);
  assertEquals(bench.guest.returned(), [[3, 3], [1, 1]]);
  return 0;
}

for (const packed of [false, true]) {
  for (const [event, happen] of Object.entries(EVENTS)) {
    const layout = packed ? "packed" : "split";
    Deno.test(`${event}: waits for requests in flight, and nothing that was given back is touched (${layout})`, () => {
      for (const point of POINTS) {
        for (const answers of ANSWERS) {
          if (happen === "disconnect") checkDisconnect(packed, point, answers);
          else checkMessage(packed, event, happen, point, answers);
        }
      }
    });
  }
}

function checkMessage(
  packed: boolean,
  event: string,
  happen: (bench: LateBench) => void,
  point: typeof POINTS[number],
  answers: typeof ANSWERS[number],
): void {
  const name = `${event} when ${point}, answers ${answers}`;
  const bench = new LateBench(new LateGuest(packed));
  const { device, guest, host, wire } = bench;
  bench.start();
  const busy = bringTo(bench, point);
  assertEquals(device.inflight.count, busy, name);
  const before = wire.answers.length;
  happen(bench);
  const late = device.held.length;
  if (busy > 0 && late > 0) {
    // Messages behind it wait for it.
    bench.say(Request.GET_FEATURES);
    assertEquals(wire.answers.length, before, `${name}: carried out before ${late} requests are over`);
    assertEquals(host.mappings, 1, name);
    assertEquals(device.pauses, 1, name);
    guest.post(7);
    bench.poll();
    assertEquals(device.held.length, late, `${name}: a paused device takes nothing`);
    if (answers === "in time") {
      const names = bench.held.reverse();
      for (const one of names) assertEquals(bench.answer(one), { written: 1, taken: true }, name);
      bench.poll();
      assertEquals(
        guest.returned().filter(([one]) => names.includes(one)),
        names.map((one) => [one, one]),
        `${name}: answers get to the guest before the ring is taken away`,
      );
    } else {
      bench.nowNs = LIMIT_NS - 1;
      bench.poll();
      assertEquals(wire.answers.length, before, name);
      bench.nowNs = LIMIT_NS + 1;
      bench.poll();
      assertEquals(bench.faults.counts, { "quiesce-timeout": 1 }, name);
    }
    assert(wire.answers.length >= before + 2, `${name}: answered, and what came behind it`);
  } else assert(wire.answers.length > before, `${name}: nothing to wait for`);
  if (event === "other features" && bench.faults.last === null) {
    // Memory and ring are the same: what was posted meanwhile is served now.
    const names = bench.held;
    assertEquals(names, point === "posted" ? [1, 2, 3, 4] : late > 0 && busy > 0 ? [7] : [], name);
    guest.returned();
    for (const one of names) assert(bench.answer(one).taken, name);
    bench.poll();
    assertEquals(guest.returned(), names.map((one) => [one, one]), name);
  }
  // What is still held may be written by the host: its memory stays.
  const stuck = device.inflight.count;
  if (answers === "in time") assertEquals(stuck, 0, name);
  const rest = event === "new memory table" ? 1 : event === "region removed" ? 0 : 1;
  const old = rest === 1 && event !== "new memory table" ? 0 : 1;
  assertEquals(host.mappings, rest + (stuck > 0 ? old : 0), `${name}: mappings`);
  assertEquals(bench.refused, [], name);
  if (event === "other features" && bench.faults.last === null) return;
  guest.giveBack();
  bench.nowNs += 10 * LIMIT_NS;
  bench.poll();
  assert(guest.isUntouched, `${name}: memory that was given back was written`);
  if (answers === "never") {
    assertEquals(device.inflight.count, stuck, name);
    assertEquals(host.mappings, rest + (stuck > 0 ? old : 0), name);
    return;
  }
  for (const request of [...device.held]) {
    if (!request.isLive) assertEquals(device.answer(request, 0x77), { written: 0, taken: false }, name);
  }
  bench.poll();
  assert(guest.isUntouched, `${name}: a late answer has written to memory that was given back`);
  assertEquals([device.inflight.count, host.mappings], [0, rest], name);
  bench.disconnect();
  assertEquals([host.mappings, host.openDescriptors], [0, 0], name);
}

function checkDisconnect(
  packed: boolean,
  point: typeof POINTS[number],
  answers: typeof ANSWERS[number],
): void {
  const name = `disconnect when ${point}, answers ${answers}`;
  const bench = new LateBench(new LateGuest(packed));
  const { device, guest, host } = bench;
  bench.start();
  bringTo(bench, point);
  bench.wire.closed = true;
  bench.poll();
  assert(bench.connection.endedBecause !== null, name);
  bench.connection[Symbol.dispose]();
  const stuck = device.inflight.count;
  assertEquals(stuck, device.held.length, `${name}: what was completed is over, what was not is in flight`);
  assertEquals([host.mappings, host.openDescriptors], [stuck > 0 ? 1 : 0, 0], name);
  guest.giveBack();
  assertEquals(bench.backend.release(), stuck === 0, name);
  if (answers === "never") {
    assert(guest.isUntouched, name);
    return;
  }
  for (const request of [...device.held]) {
    assertEquals(host.mappings, 1, name);
    assertEquals(device.answer(request, 0x77), { written: 0, taken: false }, name);
  }
  assert(bench.backend.release() && host.mappings === 0, name);
  assert(guest.isUntouched, name);
  // And the device serves the next front-end.
  guest.start();
  const next = new LateBench(guest, device, host);
  next.start();
  guest.post(5);
  next.poll(2);
  next.answer(5, 6);
  next.poll(2);
  assertEquals(guest.returned(), [[5, 6]], name);
  next.disconnect();
}

Deno.test("messages that take nothing away are answered while requests are in flight", () => {
  const bench = new LateBench(new LateGuest(false));
  bench.start();
  bringTo(bench, "taken");
  bench.ask(Request.GET_FEATURES);
  bench.ask(Request.SET_VRING_ENABLE, pair(0, 1));
  bench.ask(Request.SET_FEATURES, u64(1n << 32n | 1n << 30n));
  bench.ask(Request.GET_STATUS);
  bench.ask(Request.SET_STATUS, u64(15));
  assertEquals([bench.device.inflight.count, bench.device.pauses, bench.refused], [4, 0, []]);
});

Deno.test("a fault gives requests up, and a ring described anew waits until they are over", () => {
  for (const packed of [false, true]) {
    const bench = new LateBench(new LateGuest(packed));
    const { device, guest } = bench;
    bench.start();
    bringTo(bench, "some returned");
    guest.postBroken();
    bench.poll();
    assertEquals(bench.faults.counts, { "descriptor-zero-length": 1 });
    assertEquals([device.inflight.count, device.held.length], [2, 2]);
    const old = [...device.held];
    bench.say(Request.RESET_DEVICE);
    assertEquals(bench.wire.answers.length > 0 && bench.lastAnswer()[0], 0);
    guest.start();
    bench.say(Request.SET_FEATURES, u64(1n << 32n | 1n << 30n | (packed ? 1n << 34n : 0n)));
    bench.describe(packed ? 0x8000 : 0);
    bench.say(Request.SET_VRING_ENABLE, pair(0, 1));
    guest.post(5);
    bench.poll();
    assertEquals(device.held.length, 2, "the old requests first");
    for (const request of old) assertEquals(device.answer(request, 1).taken, false);
    bench.poll();
    assertEquals(bench.held, [5]);
    bench.answer(5);
    bench.poll();
    assertEquals(guest.returned(), [[5, 5]]);
  }
});

Deno.test("a device that answers at once is asked nothing", () => {
  const device = new LateDevice({ queueSize: 16 });
  const bench = new LateBench(new LateGuest(false), device);
  bench.start();
  device.atOnce = (request) => request.write(Uint8Array.of(9), 0, 1);
  bench.guest.post(1, 2);
  bench.poll();
  assertEquals(bench.guest.returned(), [[1, 9], [2, 9]]);
  bench.ask(Request.GET_VRING_BASE, pair(0, 0));
  assertEquals(device.pauses, 0);
});
