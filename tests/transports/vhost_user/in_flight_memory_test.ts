/**
 * A back-end that is killed between any two steps, and the one that comes after it: it repeats exactly what
 * was not answered, in the order in which it was posted. Every request is answered once.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Request } from "../../../transports/vhost_user/messages.ts";
import { InFlightMemory } from "../../../transports/vhost_user/in_flight_memory.ts";
import { GUEST_BASE } from "../../../rigs/vhost_user/guest.ts";
import { concat, pair, u64, words } from "../../../rigs/vhost_user/payload.ts";
import { LateDevice } from "../../core/support/late_device.ts";
import { LateBench, LateGuest, SIZE } from "./support/late_bench.ts";

class Killed extends Error {}

/** Calls of records that are let through before the program is killed: before each call and after it. */
let stepsLeft = Infinity;

function step(): void {
  if (stepsLeft-- <= 0) throw new Killed();
}

/** Has every step of every record counted, while `action` runs. */
function withSteps(steps: number, action: () => void): boolean {
  const { record } = InFlightMemory.prototype;
  stepsLeft = steps;
  InFlightMemory.prototype.record = function (...args) {
    const real = record.apply(this, args);
    return real && new Proxy(real, {
      get(target, key) {
        const member = Reflect.get(target, key) as unknown;
        if (typeof member !== "function") return member;
        if (key === "restore") return member.bind(target);
        return (...more: unknown[]) => {
          step();
          const result = (member as (...args: unknown[]) => unknown).apply(target, more);
          step();
          return result;
        };
      },
    });
  };
  try {
    action();
    return false;
  } catch (error) {
    if (error instanceof Killed) return true;
    throw error;
  } finally {
    InFlightMemory.prototype.record = record;
    stepsLeft = Infinity;
  }
}

/**
 * What a front-end says of a ring whose back-end was lost: the used index, or for a packed ring what it last
 * knew.
 */
function lostBase(guest: LateGuest): number {
  return guest.packed ? 0x8000 : guest.memory.readU16(GUEST_BASE + 0x800 + 2);
}

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";

  Deno.test(`a back-end killed at any step is followed by one that repeats what was not answered (${layout})`, () => {
    let kills = 0;
    for (let steps = 0;; steps++) {
      const guest = new LateGuest(packed);
      const posted: number[] = [];
      const returned: [number, number][] = [];
      let record: ArrayBuffer | null = null;
      const isKilled = withSteps(steps, () => {
        const bench = new LateBench(guest);
        bench.start({ beforeRing: () => void (record = bench.makeRecord()) });
        let name = 1;
        // More than a lap of the ring, in which some requests stay out for long and others come back in any
        // order.
        for (let round = 0; round < 8; round++) {
          for (let i = 0; i < 3; i++) posted.push(name++);
          guest.post(...posted.slice(-3));
          bench.poll(2);
          const { held } = bench;
          if (round % 3 === 2) { for (const one of held.slice(1).reverse()) bench.answer(one); }
          else bench.answer(held[round % 2 === 0 ? 0 : held.length - 1]);
          bench.poll(2);
          returned.push(...guest.returned());
        }
      });
      returned.push(...guest.returned());
      if (isKilled) kills++;
      const names = returned.map(([one]) => one);
      assertEquals(new Set(names).size, names.length);
      const next = new LateBench(guest);
      next.start({ base: lostBase(guest), beforeRing: () => next.useRecord(record!) });
      next.poll();
      const open = posted.filter((one) => !names.includes(one));
      assertEquals(next.held, open, `killed after ${steps} steps; returned ${names}`);
      assert(open.length <= SIZE / 2);
      // Answered in another order, with new ones between them.
      for (const one of [...open].reverse()) next.answer(one, 0x80 | one);
      next.poll();
      assertEquals(guest.returned(), [...open].reverse().map((one) => [one, 0x80 | one]));
      guest.post(200, 201);
      next.poll();
      assertEquals(next.held, [200, 201]);
      next.answer(201);
      next.poll();
      assertEquals(guest.returned(), [[201, 201]]);
      // And killed once more, without any answer.
      const last = new LateBench(guest);
      last.start({ base: lostBase(guest), beforeRing: () => last.useRecord(record!) });
      assertEquals(last.held, [200]);
      if (!isKilled) break;
    }
    assert(kills > 100, `only ${kills} kills`);
  });

  Deno.test(`a front-end that comes back gets repeated what it has not got, though the host has finished it (${layout})`, () => {
    const guest = new LateGuest(packed);
    const bench = new LateBench(guest);
    let record = new ArrayBuffer(0);
    bench.start({ beforeRing: () => void (record = bench.makeRecord()) });
    guest.post(1, 2, 3);
    bench.poll();
    bench.answer(2);
    bench.poll(2);
    assertEquals(guest.returned(), [[2, 2]]);
    bench.disconnect();
    for (const request of [...bench.device.held]) bench.device.answer(request, 0x77);
    assert(bench.backend.release());
    const next = new LateBench(guest, bench.device, bench.host);
    next.start({ base: lostBase(guest), beforeRing: () => next.useRecord(record) });
    next.poll();
    assertEquals(next.held, [1, 3]);
    next.answer(3);
    next.answer(1);
    next.poll();
    assertEquals(guest.returned(), [[3, 3], [1, 1]]);
    next.disconnect();
    assertEquals(bench.host.mappings, 0);
  });

  Deno.test(`a repeated request may be put back, and waits with the others (${layout})`, () => {
    const guest = new LateGuest(packed);
    const bench = new LateBench(guest);
    let record = new ArrayBuffer(0);
    bench.start({ beforeRing: () => void (record = bench.makeRecord()) });
    guest.post(1, 2);
    bench.poll();
    const device = new LateDevice({ queueSize: SIZE });
    const next = new LateBench(guest, device);
    let isReady = false;
    const name = new Uint8Array(1);
    const seen: number[] = [];
    device.atOnce = (request, nowNs) => {
      if (!isReady) return request.putBack(nowNs + 5);
      request.read(name, 0, 1);
      seen.push(name[0]);
      return 0;
    };
    next.start({ base: lostBase(guest), beforeRing: () => next.useRecord(record) });
    guest.post(3);
    next.poll();
    assertEquals(seen, []);
    isReady = true;
    next.nowNs = 10;
    next.poll();
    assertEquals(seen, [1, 2, 3]);
    assertEquals(guest.returned().map(([one]) => one), [1, 2, 3]);
  });

  Deno.test(`a ring is not taken away before repeated requests were answered (${layout})`, () => {
    const guest = new LateGuest(packed);
    const bench = new LateBench(guest);
    let record = new ArrayBuffer(0);
    bench.start({ beforeRing: () => void (record = bench.makeRecord()) });
    guest.post(1, 2);
    bench.poll();
    const next = new LateBench(guest);
    next.start({ base: lostBase(guest), beforeRing: () => next.useRecord(record) });
    const before = next.wire.answers.length;
    next.say(Request.GET_VRING_BASE, pair(0, 0));
    assertEquals([next.wire.answers.length, next.held], [before, [1, 2]]);
    next.answer(1);
    next.answer(2);
    next.poll();
    assertEquals(next.wire.answers.length, before + 1);
    const answer = next.lastAnswer();
    assertEquals(new DataView(answer.buffer, answer.byteOffset).getUint32(4, true), packed ? 0x80048004 : 2);
    assertEquals(guest.returned(), [[1, 1], [2, 2]]);
  });

  Deno.test(`a driver that resets the device has nothing repeated (${layout})`, () => {
    const guest = new LateGuest(packed);
    const bench = new LateBench(guest);
    let record = new ArrayBuffer(0);
    bench.start({ beforeRing: () => void (record = bench.makeRecord()) });
    guest.post(1, 2);
    bench.poll();
    bench.say(Request.RESET_DEVICE);
    bench.nowNs = 2_000_000;
    bench.poll();
    assertEquals(bench.faults.counts, { "quiesce-timeout": 1 });
    guest.start();
    guest.post(3);
    const next = new LateBench(guest);
    next.start({ beforeRing: () => next.useRecord(record) });
    next.poll();
    assertEquals(next.held, [3]);
  });

  Deno.test(`whatever stands in in-flight memory, a ring starts or is a fault, and nothing hangs (${layout}, property)`, () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(700), fc.integer({ min: 0, max: 255 })), { maxLength: 40 }),
        fc.boolean(),
        (bytes, isBegun) => {
          const guest = new LateGuest(packed);
          const bench = new LateBench(guest);
          const buffer = new ArrayBuffer(4096);
          if (isBegun) {
            const first = new LateBench(guest);
            first.start({ beforeRing: () => first.useRecord(buffer) });
            guest.post(1, 2, 3);
            first.poll();
            first.answer(2);
            first.poll();
          } else guest.post(1, 2, 3);
          const view = new Uint8Array(buffer);
          view[8] = 1;
          view[10] = SIZE;
          for (const [at, value] of bytes) view[at] = value;
          bench.start({ base: lostBase(guest), beforeRing: () => bench.useRecord(buffer) });
          bench.poll();
          // Whatever was read there: at most as many requests as the ring has entries, all of them from its
          // memory.
          assert(bench.held.length <= 2 * SIZE);
          for (const request of [...bench.device.held]) bench.device.answer(request, 1);
          bench.poll();
          bench.disconnect();
          assertEquals([bench.host.mappings, bench.host.openDescriptors], [0, 0]);
        },
      ),
      { numRuns: 300 },
    );
  });
}

Deno.test("in-flight memory is offered for devices that keep requests, and refused where it cannot be", () => {
  const bench = new LateBench(new LateGuest(false));
  assertEquals(bench.offered() >> 12n & 1n, 1n);
  bench.say(
    Request.SET_INFLIGHT_FD,
    concat(u64(64), u64(0), words(1 | 16 << 16)),
    [bench.host.descriptor({ kind: "memory", buffer: new ArrayBuffer(64) })],
  );
  bench.say(
    Request.SET_INFLIGHT_FD,
    concat(u64(1e6), u64(0), words(2 | 16 << 16)),
    [bench.host.descriptor({ kind: "memory", buffer: new ArrayBuffer(64) })],
  );
  assertEquals(bench.refused.map((text) => text.slice(0, 13)), ["value-invalid", "value-invalid"]);
  const device = new LateDevice();
  Object.assign(device, { inflight: undefined });
  const other = new LateBench(new LateGuest(false), device);
  assertEquals(other.offered() >> 12n & 1n, 0n);
  other.say(
    Request.SET_INFLIGHT_FD,
    concat(u64(1e6), u64(0), words(1 | 16 << 16)),
    [other.host.descriptor({ kind: "memory", buffer: new ArrayBuffer(64) })],
  );
  assertEquals(other.refused.map((text) => text.slice(0, 14)), ["not-negotiated"]);
});
