/**
 * Front-ends that say anything over a real socket, with descriptors of every kind: a running machine outlives
 * them, holds nothing of theirs, and serves the next one.
 * @module
 */
import { assert } from "@std/assert";
import fc from "fast-check";
import { FLAG_NEED_REPLY, Request } from "../../../transports/vhost_user/messages.ts";
import { assertNothingKept, footprint } from "../../peers/support/footprint.ts";
import { hostTest, linux } from "../../../rigs/require.ts";
import { GUEST_BASE, GUEST_BYTES, USER_OFFSET } from "../../../rigs/vhost_user/guest.ts";
import { OddDescriptors } from "./support/odd_descriptors.ts";
import { concat, message, pair, region, table, u64, words } from "../../../rigs/vhost_user/payload.ts";
import type { SocketFrontEnd } from "../../../rigs/vhost_user/socket_front_end.ts";
import { Target } from "./support/target.ts";

const DIALOGUES = 300;
/** Always the same dialogues: a failure is to be seen again. */
const SEED = 20_261_122;
const WARM_UP = 150;
const MAX_DEEDS = 12;
/** What some of them must be refused for, or the test does not get to where it should. */
const REACHED = [
  "descriptors-invalid",
  "host-cannot",
  "memory-table-invalid",
  "message-unknown",
  "payload-size-invalid",
  "ring-index-invalid",
  "state-transfer-invalid",
];
/** More than the kernel passes with one message is refused where it is sent. */
const MAX_DESCRIPTORS = 253;

/** What is done to the back-end over one connection. */
type Deed = (front: SocketFrontEnd, target: Target) => void;

/** Sends bytes as they are, with descriptors by name. What the back-end does not take any more is lost. */
function send(bytes: Uint8Array<ArrayBuffer>, names: readonly string[] = []): Deed {
  return ({ stream }, { odd }) => {
    const numbers = names.map((name) => name === OWN_END ? stream.fd.number : odd.number(name));
    stream.send(bytes, 0, bytes.length, numbers);
  };
}

const turn: Deed = (_front, target) => target.turn();

/**
 * The front-end's own end of the connection, which is gone when the front-end is, also if another has got it.
 */
const OWN_END = "own end";
const kind = fc.constantFrom(...OddDescriptors.names, OWN_END);
const few = fc.array(kind, { maxLength: 3 });
const many = fc.tuple(kind, fc.integer({ min: 9, max: MAX_DESCRIPTORS })).map(([name, count]) =>
  new Array<string>(count).fill(name)
);
const ring = fc.integer({ min: 0, max: 3 });
const number = fc.oneof(
  fc.constantFrom(0, 1, 16, 4096, GUEST_BYTES, 2 ** 31, 2 ** 40, 2 ** 52),
  fc.nat(),
);
const place = fc.oneof(
  fc.constant({}),
  fc.record({ guestAddress: number, size: number, mapOffset: number }, { requiredKeys: [] }),
);
const userAddress = fc.nat(GUEST_BYTES).map((offset) => u64(GUEST_BASE + USER_OFFSET + offset));

/** A message, and how many descriptors belong to it. */
type Said = readonly [bytes: Uint8Array<ArrayBuffer>, descriptors: number];

/** Messages that mean something, right or wrong. */
const meant: fc.Arbitrary<Said> = fc.oneof(
  fc.array(place, { minLength: 1, maxLength: 3 }).map((all): Said => [
    message(Request.SET_MEM_TABLE, table(...all.map(region)), FLAG_NEED_REPLY),
    all.length,
  ]),
  place.map((where): Said => [message(Request.ADD_MEM_REG, concat(u64(0), region(where))), 1]),
  place.map((where): Said => [message(Request.REM_MEM_REG, concat(u64(0), region(where))), 0]),
  fc.tuple(fc.constantFrom(12, 13, 14), ring).map(([id, index]): Said => [message(id, u64(index)), 1]),
  fc.tuple(number, number).map(([sizeBytes, offset]): Said => [
    message(Request.SET_LOG_BASE, concat(u64(sizeBytes), u64(offset))),
    1,
  ]),
  fc.constantFrom(Request.SET_LOG_FD, Request.SET_BACKEND_REQ_FD).map((id): Said => [message(id), 1]),
  fc.constantFrom(0, 1).map((way): Said => [message(Request.SET_DEVICE_STATE_FD, pair(way, 0)), 1]),
  fc.tuple(ring, userAddress, userAddress, userAddress).map(([index, ...addresses]): Said => [
    message(Request.SET_VRING_ADDR, concat(words(index, 0), ...addresses, u64(0))),
    0,
  ]),
  fc.tuple(fc.constantFrom(8, 10, 11, 18), ring, fc.nat(0xffff)).map(([id, index, num]): Said => [
    message(id, pair(index, num)),
    0,
  ]),
  fc.constantFrom(1, 15, 17, 36, 40, 43).map((id): Said => [message(id), 0]),
  fc.constantFrom(1n << 26n, 1n << 30n, 1n << 34n, 1n << 60n).map((bit): Said => [
    message(Request.SET_FEATURES, u64(1n << 32n | bit)),
    0,
  ]),
);

const deeds: fc.Arbitrary<readonly Deed[]> = fc.oneof(
  // Whole messages with as many descriptors as they should have.
  {
    weight: 9,
    arbitrary: fc.tuple(meant, kind, kind, kind).map(([[bytes, count], ...names]) => [
      send(bytes, names.slice(0, count)),
      turn,
    ]),
  },
  // With others, or with more than may be.
  {
    weight: 1,
    arbitrary: fc.tuple(meant, fc.oneof(few, many)).map(([[bytes], names]) => [send(bytes, names), turn]),
  },
  // In two parts, with descriptors in both of them; the second may never come.
  {
    weight: 1,
    arbitrary: fc.tuple(meant, few, few, fc.integer({ min: 1, max: 99 }), fc.boolean()).map(
      ([[bytes], first, second, percent, isWhole]) => {
        const cut = Math.max(1, Math.floor(bytes.length * percent / 100));
        const rest = isWhole ? [send(bytes.slice(cut), second), turn] : [];
        return [send(bytes.slice(0, cut), first), turn, ...rest];
      },
    ),
  },
  // Unknown ones, and nonsense.
  {
    weight: 1,
    arbitrary: fc.tuple(fc.nat(45), fc.uint8Array({ maxLength: 300 }), fc.nat(15), few).map(
      ([id, payload, flags, names]) => [send(message(id, payload, flags), names), turn],
    ),
  },
  {
    weight: 1,
    arbitrary: fc.uint8Array({ minLength: 1, maxLength: 300 }).map((bytes) => [send(bytes.slice()), turn]),
  },
  // A header that announces more than comes.
  {
    weight: 1,
    arbitrary: fc.tuple(fc.nat(45), number).map(([id, size]) => [send(words(id, 1, size).slice()), turn]),
  },
  // The guest scribbles over its rings, and kicks.
  {
    weight: 2,
    arbitrary: fc.tuple(fc.nat(0x11000), fc.uint8Array({ minLength: 1, maxLength: 16 }), fc.nat(1)).map(
      ([at, bytes, index]) => [(front: SocketFrontEnd) => {
        front.guest.memory.copyIn(GUEST_BASE + at, bytes, 0, bytes.length);
        front.kicks[index]?.signal();
      }, turn],
    ),
  },
);

hostTest(
  `${DIALOGUES} front-ends that send anything, with descriptors of any kind, do no harm to the next one`,
  [linux],
  async () => {
    await using target = await Target.start();
    const dialogue = fc.tuple(fc.boolean(), fc.array(deeds, { minLength: 1, maxLength: MAX_DEEDS }));
    const property = fc.asyncProperty(dialogue, async ([starts, all]) => {
      {
        using front = target.connect();
        if (starts) front.start();
        for (const deed of all.flat()) deed(front, target);
      }
      await target.alone();
      await target.assertServes();
    });
    // First some others, after which everything has been made that is made once: counters of faults, for
    // example.
    await fc.assert(property, { seed: SEED - 1, numRuns: WARM_UP });
    const before = footprint();
    await fc.assert(property, { seed: SEED, numRuns: DIALOGUES });
    await assertNothingKept(before);
    const faults = Object.keys(target.machine.driver(0).counters);
    for (const fault of REACHED) assert(faults.includes(`fault_${fault}`), `${fault} was not told`);
  },
);
