/**
 * Requests in flight in queue workers: a device of a type of its own, which answers late, out of order or
 * never, and a front-end that stops, resets, replaces memory or goes meanwhile.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { MemoryMapping } from "../../host/memory_mapping.ts";
import { GUEST_BASE } from "../../rigs/vhost_user/guest.ts";
import { message, pair, region, table, u64 } from "../../rigs/vhost_user/payload.ts";
import type { SocketFrontEnd } from "../../rigs/vhost_user/socket_front_end.ts";
import { BufferList, NOTHING_USED } from "../../guest/driver_ring.ts";
import { FLAG_NEED_REPLY, HEADER_BYTES, Request } from "../../transports/vhost_user/messages.ts";
import { mappingsOf } from "../host/support/counts.ts";
import { NEVER } from "./support/late_queues.ts";
import { hostTest, linux } from "../../rigs/require.ts";
import { after, until } from "./support/tap_rig.ts";
import { ThreadsRig } from "./support/threads_rig.ts";

const LATE_QUEUES = new URL("./support/late_queues.ts", import.meta.url).href;
const PACKED = 34;
/** Time units of the device, in ms. */
const TICK_MS = 10;
const MARK = 0xa5;
/** Rings and requests of both queues that answer late. */
const LATE_BYTES = 0x20000;
const list = new BufferList(2);

/** Where the request of a slot lies: two bytes to read, and two to write 32 bytes further on. */
function place(front: SocketFrontEnd, queue: number, slot: number): number {
  return front.guest.place(queue).descriptors + 0x2000 + 64 * slot;
}

/** Makes a request that is answered by `value`, after a number of ticks. */
function request(front: SocketFrontEnd, queue: number, slot: number, value: number, ticks: number): void {
  const at = place(front, queue, slot);
  front.guest.memory.copyIn(at, Uint8Array.of(value, ticks), 0, 2);
  list.clear();
  list.addReadable(at, 2);
  list.addWritable(at + 32, 2);
  const ring = front.guest.ring(queue);
  ring.add(list, slot);
  if (ring.publish()) front.kicks[queue].signal();
}

/** The slots and values that were answered since the last time; each says by which queue. */
function answers(front: SocketFrontEnd, queue: number): [slot: number, value: number][] {
  const ring = front.guest.ring(queue);
  const taken: [number, number][] = [];
  for (let slot = ring.takeUsed(); slot !== NOTHING_USED; slot = ring.takeUsed()) {
    assert(slot >= 0, `the device used ${ring.fault}`);
    assertEquals(ring.usedBytes, 2);
    const bytes = new Uint8Array(2);
    front.guest.memory.copyOut(place(front, queue, slot) + 32, bytes, 0, 2);
    assertEquals(bytes[1], queue);
    taken.push([slot, bytes[0]]);
  }
  return taken;
}

/** Says something that has to wait, and returns the payload of its answer. The machine goes on meanwhile. */
async function say(
  front: SocketFrontEnd,
  id: number,
  payload: Uint8Array = new Uint8Array(0),
  descriptors: number[] = [],
): Promise<Uint8Array> {
  const bytes = message(id, payload, FLAG_NEED_REPLY);
  assertEquals(front.stream.send(bytes, 0, bytes.length, descriptors), bytes.length);
  const answer = new Uint8Array(HEADER_BYTES + 512);
  let received = 0;
  await until(`message ${id} is answered`, () => {
    const count = front.stream.receive(answer, received, answer.length - received, []);
    assert(count >= 0, "the back-end has closed the connection");
    received += count;
    return received >= HEADER_BYTES;
  });
  return answer.subarray(HEADER_BYTES, received);
}

const features = (packed: boolean) => 1n << 32n | 1n << 30n | (packed ? 1n << BigInt(PACKED) : 0n);

/** Starts all three queues. */
function start(front: SocketFrontEnd): void {
  const { front: says, guest } = front;
  says.setProtocolFeatures(says.protocolFeatures());
  says.setFeatures(features(guest.layout.packed));
  says.setMemoryTable();
  for (const ring of [0, 1, 2]) says.describe(ring);
  for (const ring of [0, 1, 2]) says.enable(ring, true);
  says.features();
}

/** The guest gives the memory of both late queues to something else. */
function mark(front: SocketFrontEnd): void {
  front.guest.memory.copyIn(GUEST_BASE, new Uint8Array(LATE_BYTES).fill(MARK), 0, LATE_BYTES);
}

function assertUntouched(front: SocketFrontEnd, what: string): void {
  const bytes = new Uint8Array(LATE_BYTES);
  front.guest.memory.copyOut(GUEST_BASE, bytes, 0, LATE_BYTES);
  assertEquals(
    bytes.findIndex((byte) => byte !== MARK),
    -1,
    `${what}: memory was touched that was given back`,
  );
}

for (const packed of [false, true]) {
  const name = packed ? "packed" : "split";
  hostTest(
    `workers answer late and out of order, while messages detach their rings (${name})`,
    [linux],
    async () => {
      await using rig = await ThreadsRig.startDevice({ use: LATE_QUEUES });
      using front = rig.connect({ packed });
      start(front);
      const order: number[][] = [[], []];
      for (let round = 0; round < 6; round++) {
        for (const queue of [0, 1]) {
          for (let slot = 0; slot < 8; slot++) request(front, queue, slot, 16 * round + slot, (7 * slot) % 5);
        }
        const got: [number, number][][] = [[], []];
        const isAll = () => {
          for (const queue of [0, 1]) got[queue].push(...answers(front, queue));
          return got.every((one) => one.length === 8);
        };
        for (let messages = 0; messages < round; messages++) {
          const answer = await say(front, Request.GET_FEATURES);
          assertEquals(answer.length, 8);
        }
        await until("all requests are answered", isAll);
        for (const queue of [0, 1]) {
          for (const [slot, value] of got[queue]) assertEquals(value, 16 * round + slot);
          order[queue].push(...got[queue].map(([slot]) => slot));
        }
      }
      for (const one of order) {
        assert(one.some((slot, i) => i > 0 && slot < one[i - 1] && slot > 0), "in order");
      }
      const { requests, answered, given_up } = rig.counters("net0");
      assertEquals([requests, answered, given_up], [96, 96, 0]);
      rig.assertNoFault();
    },
  );

  /** What takes rings or memory away. */
  const events: Record<string, (front: SocketFrontEnd) => Promise<unknown>> = {
    "both rings are stopped": async (front) => {
      for (const ring of [0, 1]) await say(front, Request.GET_VRING_BASE, pair(ring, 0));
    },
    "both rings are disabled": async (front) => {
      for (const ring of [0, 1]) await say(front, Request.SET_VRING_ENABLE, pair(ring, 0));
    },
    "the device is reset": (front) => say(front, Request.SET_STATUS, u64(0)),
    "memory is replaced by none": (front) => say(front, Request.SET_MEM_TABLE, new Uint8Array(8)),
  };
  for (const [event, act] of Object.entries(events)) {
    hostTest(
      `${event}: nothing that was given back is touched, at any point (${name})`,
      [linux],
      async () => {
        // Threads of earlier tests that are stuck keep their memory mapped.
        const before = [MemoryMapping.live, mappingsOf("memfd:guest")];
        await using rig = await ThreadsRig.startDevice({ use: LATE_QUEUES });
        for (const waitMs of [0, 1, 15, 35, 60]) {
          using front = rig.connect({ packed });
          start(front);
          for (const [slot, ticks] of [3, 0, 5, 1].entries()) {
            for (const queue of [0, 1]) request(front, queue, slot, slot, ticks);
          }
          if (waitMs > 0) await after(waitMs);
          await act(front);
          // What was taken is answered now, and what was not stays in the ring.
          const taken = [0, 1].map((queue) => answers(front, queue));
          if (waitMs >= 15) {
            assertEquals(taken.map((one) => one.length), [4, 4], `${event} after ${waitMs} ms`);
          }
          for (const one of taken) {
            for (const [slot, value] of one) {
              assertEquals(value, slot);
            }
          }
          mark(front);
          await after(6 * TICK_MS);
          assertUntouched(front, `${event} after ${waitMs} ms`);
        }
        await until("the last front-end is gone", () => !rig.driver.connected);
        assertEquals([MemoryMapping.live, mappingsOf("memfd:guest")], before);
        assertEquals(rig.counters("net0").given_up, 0);
        rig.assertNoFault();
      },
    );
  }
}

hostTest("memory that is replaced is mapped until what was in flight is answered", [linux], async () => {
  await using rig = await ThreadsRig.startDevice({ use: LATE_QUEUES });
  using front = rig.connect();
  start(front);
  for (let i = 0; i < 20; i++) {
    for (const queue of [0, 1]) request(front, queue, 0, i, i % 4);
    await say(front, Request.SET_MEM_TABLE, table(region()), [front.memory()]);
    for (const queue of [0, 1]) {
      const got = answers(front, queue);
      await until("it is answered", () => got.push(...answers(front, queue)) > 0);
      assertEquals(got, [[0, i]]);
    }
  }
  rig.assertNoFault();
});

hostTest(
  "a front-end that goes leaves its memory mapped until nothing is in flight, and the next is served",
  [
    linux,
  ],
  async () => {
    const before = mappingsOf("memfd:guest");
    await using rig = await ThreadsRig.startDevice({ use: LATE_QUEUES });
    for (let i = 0; i < 3; i++) {
      using front = rig.connect();
      start(front);
      for (const queue of [0, 1]) request(front, queue, 0, 1, 30);
      await until("they are taken", () => rig.counters("net0").requests === 2 * (i + 1));
      front.stream[Symbol.dispose]();
      await until("it is gone", () => !rig.driver.connected);
      mark(front);
      // The test has it mapped as well.
      assertEquals(mappingsOf("memfd:guest"), before + 2);
      await until("they are over", () => rig.counters("net0").given_up === 2 * (i + 1));
      await until("it is unmapped", () => mappingsOf("memfd:guest") === before + 1);
      assertUntouched(front, "a disconnect");
    }
    using front = rig.connect();
    start(front);
    request(front, 1, 5, 7, 0);
    const got: unknown[] = [];
    await until("the next one is served", () => got.push(...answers(front, 1)) > 0);
    assertEquals(got, [[5, 7]]);
    rig.assertNoFault();
  },
);

hostTest(
  "a kick of a disabled ring gives workers nothing to do while a message waits for them",
  [linux],
  async () => {
    await using rig = await ThreadsRig.startDevice({ use: LATE_QUEUES });
    using front = rig.connect();
    const { front: says, guest } = front;
    says.setProtocolFeatures(says.protocolFeatures());
    says.setFeatures(features(guest.layout.packed));
    says.setMemoryTable();
    for (const ring of [0, 1]) says.describe(ring);
    says.enable(0, true);
    request(front, 0, 0, 7, 30);
    await until("it is taken", () => rig.counters("net0").requests === 1);
    const began = performance.now();
    const answer = say(front, Request.GET_FEATURES);
    rig.machine.parts.reactor.settle();
    assertEquals(rig.counters("net0").answered, 0, "nothing was waited for");
    front.kicks[1].signal();
    assertEquals((await answer).length, 8);
    assert(performance.now() - began < 5000, "workers that took requests again were waited for");
    assertEquals(answers(front, 0), [[0, 7]]);
    rig.assertNoFault();
  },
);

hostTest(
  "a device whose requests take too long fails, and serves again when they are over",
  [linux],
  async () => {
    await using rig = await ThreadsRig.startDevice({ use: LATE_QUEUES, limitMs: 100 });
    using front = rig.connect();
    start(front);
    request(front, 0, 0, 1, 80);
    await until("it is taken", () => rig.counters("net0").requests === 1);
    const began = performance.now();
    await say(front, Request.SET_STATUS, u64(0));
    assert(performance.now() - began < 600, "it was waited for too long");
    assertEquals(rig.counters("net0.driver")["fault_quiesce-timeout"], 1);
    mark(front);
    await until("it is over", () => rig.counters("net0").given_up === 1);
    assertUntouched(front, "a reset that came too early");
    for (const ring of [0, 1, 2]) front.guest.forget(ring);
    const { front: says } = front;
    says.setFeatures(features(false));
    for (const ring of [0, 1, 2]) says.describe(ring);
    for (const ring of [0, 1, 2]) says.enable(ring, true);
    request(front, 1, 5, 7, 0);
    const got: unknown[] = [];
    await until("it serves again", () => got.push(...answers(front, 1)) > 0);
    assertEquals(got, [[5, 7]]);
  },
);

hostTest("what would never be answered is cancelled when rings are detached", [linux], async () => {
  await using rig = await ThreadsRig.startDevice({ use: LATE_QUEUES, cancels: true });
  using front = rig.connect();
  start(front);
  for (const queue of [0, 1]) request(front, queue, 3, 1, NEVER);
  await until("they are taken", () => rig.counters("net0").requests === 2);
  await say(front, Request.GET_FEATURES);
  assertEquals([answers(front, 0), answers(front, 1)], [[[3, 0xee]], [[3, 0xee]]]);
  rig.assertNoFault();
});

hostTest(
  "a command waits for requests in flight, and fails the device if they take too long",
  [linux],
  async () => {
    await using rig = await ThreadsRig.startDevice({ use: LATE_QUEUES, threadLimitMs: 400 });
    using front = rig.connect();
    start(front);
    const command = () => {
      list.clear();
      list.addReadable(place(front, 2, 0), 2);
      const ring = front.guest.ring(2);
      ring.add(list, 0);
      if (ring.publish()) front.kicks[2].signal();
    };
    request(front, 0, 0, 9, 5);
    await until("it is taken", () => rig.counters("net0").requests === 1);
    command();
    await until("the command is done", () => front.guest.ring(2).takeUsed() === 0);
    assertEquals(answers(front, 0), [[0, 9]]);
    rig.assertNoFault();
    request(front, 1, 0, 9, 60);
    await until("it is taken", () => rig.counters("net0").requests === 2);
    command();
    await until("it has failed", () => rig.counters("net0.driver")["fault_quiesce-timeout"] === 1);
    assertEquals(rig.machine.failure, null);
    assertEquals(front.front.status() & 64, 64, "the device needs a reset");
  },
);

hostTest("a machine that stops has its workers answer what they have taken", [linux], async () => {
  const rig = await ThreadsRig.startDevice({ use: LATE_QUEUES });
  using front = rig.connect();
  start(front);
  for (const queue of [0, 1]) request(front, queue, 0, 4, 10);
  await until("they are taken", () => rig.counters("net0").requests === 2);
  await rig[Symbol.asyncDispose]();
  assertEquals([answers(front, 0), answers(front, 1)], [[[0, 4]], [[0, 4]]]);
});

hostTest(
  "a machine that stops is not held up by a front-end that says something meanwhile",
  [linux],
  async () => {
    const rig = await ThreadsRig.startDevice({ use: LATE_QUEUES });
    using front = rig.connect();
    start(front);
    request(front, 0, 0, 7, 30);
    await until("it is taken", () => rig.counters("net0").requests === 1);
    const began = performance.now();
    const closing = rig.machine.close();
    const asks = message(Request.GET_FEATURES, new Uint8Array(0));
    assertEquals(front.stream.send(asks, 0, asks.length), asks.length);
    await closing;
    assert(performance.now() - began < 5000, "workers that took requests again were waited for");
    assertEquals(answers(front, 0), [[0, 7]]);
    rig.assertNoFault();
    await rig[Symbol.asyncDispose]();
  },
);
