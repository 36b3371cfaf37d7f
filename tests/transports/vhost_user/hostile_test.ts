/**
 * Front-ends that say anything in any order, over guests that write anything.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { decodeHeader } from "../../../transports/vhost_user/messages.ts";
import {
  FLAG_NEED_REPLY,
  HEADER_BYTES,
  ProtocolError,
  Request,
} from "../../../transports/vhost_user/messages.ts";
import { PROFILES } from "../../../transports/vhost_user/front_ends.ts";
import { Bench } from "./support/bench.ts";
import { FakeEvent, type FakeFile, FakePipe, FakeSocket } from "./support/fake_host.ts";
import { frame } from "./support/fake_network.ts";
import { usualFeatures } from "../../../rigs/vhost_user/front_end.ts";
import { concat, message, pair, region, table, u64, words } from "../../../rigs/vhost_user/payload.ts";

/** One thing that a front-end, or the guest behind it, may do. */
type Deed = (bench: Bench) => void;

const ring = fc.integer({ min: 0, max: 4 });
const word = fc.oneof(fc.constantFrom(0, 1, 2, 16, 0x8000, 0x8000_8000, 0xffff_ffff), fc.nat());

function say(
  bench: Bench,
  id: number,
  payload: Uint8Array,
  files: readonly FakeFile[] = [],
  flags = 0,
): void {
  const bytes = message(id, payload, flags);
  const descriptors = files.map((file) => bench.host.descriptor(file));
  try {
    bench.backend.receive(decodeHeader(bytes), bytes.subarray(HEADER_BYTES), descriptors);
  } catch (error) {
    assert(error instanceof ProtocolError && error.fatal, String(error));
    bench.backend[Symbol.dispose]();
    bench.backend = bench.newBackend(bench.rig.device);
  }
}

const sensible: fc.Arbitrary<Deed> = fc.oneof(
  ring.map((index): Deed => (bench) => bench.front.describe(index % 3)),
  fc.tuple(ring, fc.boolean()).map(([index, on]): Deed => (bench) => bench.front.enable(index % 3, on)),
  ring.map((index): Deed => (bench) => void bench.front.base(index % 3)),
  fc.constant<Deed>((bench) => bench.front.setMemoryTable()),
  fc.constant<Deed>((bench) => bench.front.removeMemory()),
  fc.constant<Deed>((bench) => bench.front.setFeatures(usualFeatures(bench.front.features(), 17))),
  fc.constant<Deed>((bench) =>
    bench.front.setFeatures(usualFeatures(bench.front.features(), 34) | 1n << 26n)
  ),
  fc.constant<Deed>((bench) => bench.front.setFeatures(1n << 32n)),
  fc.constant<Deed>((bench) => bench.front.setStatus(0)),
  fc.nat(30).map((number): Deed => (bench) => bench.rig.network.inbox.push(frame(number))),
  fc.integer({ min: 0, max: 2 }).map((index): Deed => (bench) => bench.kicks[index]?.kick()),
);

const absurd: fc.Arbitrary<Deed> = fc.oneof(
  fc.tuple(fc.nat(45), fc.uint8Array({ maxLength: 80 }), fc.boolean()).map(
    ([id, payload, asks]): Deed => (bench) => say(bench, id, payload, [], asks ? FLAG_NEED_REPLY : 0),
  ),
  fc.tuple(fc.constantFrom(8, 10, 18, 35), ring, word).map(([id, index, num]): Deed => (bench) =>
    say(bench, id, pair(index, num))
  ),
  fc.tuple(ring, fc.array(word, { minLength: 10, maxLength: 10 })).map(([index, rest]): Deed => (bench) =>
    say(bench, Request.SET_VRING_ADDR, concat(words(index, rest[0] & 1), words(...rest.slice(0, 8))))
  ),
  fc.tuple(fc.constantFrom(12, 13, 14), ring, fc.constantFrom("event", "memory", "none")).map(
    ([id, index, kind]): Deed => (bench) => {
      const file: FakeFile[] = kind === "none"
        ? []
        : [kind === "event" ? new FakeEvent() : { kind: "memory", buffer: new ArrayBuffer(8) }];
      say(bench, id, u64(index | (kind === "none" ? 0x100 : 0)), file);
    },
  ),
  fc.tuple(word, word, word).map(([guestAddress, size, mapOffset]): Deed => (bench) =>
    say(bench, Request.SET_MEM_TABLE, table(region({ guestAddress, size, mapOffset })), [
      { kind: "memory", buffer: bench.buffer },
    ])
  ),
  fc.tuple(word, word).map(([size, offset]): Deed => (bench) =>
    say(bench, Request.SET_LOG_BASE, concat(u64(size), u64(offset)), [
      { kind: "memory", buffer: new ArrayBuffer(4096) },
    ])
  ),
  fc.constantFrom(0, 1, 2).map((direction): Deed => (bench) =>
    say(bench, Request.SET_DEVICE_STATE_FD, pair(direction, 0), [new FakePipe()])
  ),
  fc.constant<Deed>((bench) => say(bench, Request.SET_BACKEND_REQ_FD, new Uint8Array(0), [new FakeSocket()])),
  // The guest scribbles over its rings.
  fc.tuple(fc.nat(0x2fff0), fc.uint8Array({ minLength: 1, maxLength: 16 })).map(
    ([at, bytes]): Deed => (bench) => new Uint8Array(bench.buffer).set(bytes, at),
  ),
  fc.tuple(ring, fc.nat(0xffff)).map(([index, available]): Deed => (bench) =>
    new DataView(bench.buffer).setUint16((index % 3) * 0x10000 + 0x402, available, true)
  ),
);

Deno.test("no order of messages and no contents of rings crash, hang or leak", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...PROFILES),
      fc.array(fc.oneof({ weight: 3, arbitrary: sensible }, { weight: 2, arbitrary: absurd }), {
        maxLength: 40,
      }),
      (profile, deeds) => {
        const bench = new Bench({ profile });
        bench.start({ protocol: false });
        for (const deed of deeds) {
          deed(bench);
          bench.nowNs += 1_000_000;
          // A guest whose index runs ahead can keep the device busy for some rounds, each of bounded work.
          for (let rounds = 0; rounds < 20; rounds++) bench.backend.poll(bench.nowNs);
        }
        bench[Symbol.dispose]();
      },
    ),
    { numRuns: 400 },
  );
});

Deno.test("whatever happened before, the next front-end is served", () => {
  fc.assert(
    fc.property(fc.array(absurd, { minLength: 5, maxLength: 20 }), (deeds) => {
      using bench = new Bench();
      bench.start();
      for (const deed of deeds) {
        deed(bench);
        for (let rounds = 0; rounds < 5; rounds++) bench.backend.poll(bench.nowNs);
      }
      bench.backend[Symbol.dispose]();
      bench.backend = bench.newBackend(bench.rig.device);
      new Uint8Array(bench.buffer).fill(0);
      for (const index of [0, 1, 2]) bench.guest.forget(index);
      bench.rig.network.inbox.length = 0;
      bench.start();
      assertEquals(bench.guest.received(0), []);
      bench.assertWorks();
    }),
    { numRuns: 100 },
  );
});
