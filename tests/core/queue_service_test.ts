import { assert, assertEquals, assertThrows } from "@std/assert";
import { GuestError } from "../../rings/guest_error.ts";
import type { Session } from "../../core/device.ts";
import { FeatureSet } from "../../core/features.ts";
import { KEEP, type QueueRequest, QueueService } from "../../core/queue_service.ts";
import type { Virtqueue } from "../../rings/virtqueue.ts";
import { buildQueue } from "../../core/session.ts";
import { PackedDriver, setupAt, SplitDriver, type TestDriver } from "./support/drivers.ts";
import { TestGuest } from "./support/guest.ts";

const BUFFERS = 0x12000;
const BYTES = 64;

/** A service with real rings, and what it says to its driver. */
class Rig {
  readonly guest = new TestGuest();
  readonly drivers: TestDriver[];
  readonly queues: (Virtqueue | null)[];
  readonly log: string[] = [];
  readonly service: QueueService;
  readonly counters = { interrupts: 0 };
  handler: (request: QueueRequest, nowNs: number) => number = () => KEEP;
  readonly #session: Session;
  #next = 0;

  constructor(
    packed: boolean,
    options:
      & { queues?: number; size?: number; pulled?: boolean }
      & Partial<
        ConstructorParameters<typeof QueueService>[0]
      > = {},
  ) {
    const { queues = 1, size = 16, pulled = false, ...more } = options;
    const features = FeatureSet.from(packed ? [32, 34, 28] : [32, 28]);
    const Driver = packed ? PackedDriver : SplitDriver;
    const setups = Array.from({ length: queues }, (_, i) => setupAt(0x10000 + i * 0x800, size, false));
    this.drivers = setups.map((setup) => new Driver(this.guest, setup));
    this.queues = setups.map((addresses, i) => {
      const queue = buildQueue(this.guest.memory, addresses, features);
      const { log } = this;
      for (const name of ["enableKicks", "disableKicks"] as const) {
        const method = queue[name].bind(queue) as () => boolean;
        Object.defineProperty(queue, name, {
          value: () => {
            log.push(`${name === "enableKicks" ? "+" : "-"}${i}`);
            return method();
          },
        });
      }
      return queue;
    });
    this.service = new QueueService({
      handlers: this.queues.map(() => pulled ? null : (request, nowNs) => this.handler(request, nowNs)),
      wake: () => void this.log.push("wake"),
      counters: this.counters,
      ...more,
    });
    this.#session = {
      memory: this.guest.memory,
      queues: this.queues,
      features,
      interrupt: (index) => void this.log.push(`!${index}`),
      configChanged() {},
    };
    this.service.activate(this.#session);
  }

  /** The driver is ready once more, with the same rings, in which nothing is available now. */
  renewDriver(): void {
    this.service.activate(this.#session);
  }

  post(count = 1, queue = 0): void {
    for (let i = 0; i < count; i++) {
      const element = { address: BUFFERS + (this.#next++ % 64) * BYTES, length: BYTES, writable: true };
      assert(this.drivers[queue].post({ elements: [element], table: null, direct: 0 }) !== null);
    }
    this.drivers[queue].expose();
  }

  /** A round, and what was said in it. */
  poll(nowNs = 0): [did: boolean, said: string] {
    this.log.length = 0;
    const did = this.service.poll(nowNs);
    return [did, this.log.join(" ")];
  }

  lengths(queue = 0): number[] {
    return this.drivers[queue].collect().map(({ length }) => length);
  }
}

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";

  Deno.test(`QueueService answers at once, publishes a round in one step, interrupts once, and looks once more (${layout})`, () => {
    const rig = new Rig(packed);
    rig.handler = (request) => request.write(Uint8Array.of(1, 2, 3), 0, 3);
    assertEquals(rig.poll(), [false, "+0"]);
    rig.post(5);
    assertEquals(rig.poll(), [true, "!0 -0"]);
    assertEquals(rig.lengths(), [3, 3, 3, 3, 3]);
    assertEquals([rig.service.count, rig.counters.interrupts], [0, 1]);
    assertEquals(rig.poll(), [false, "+0"]);
    assertEquals(rig.poll(), [false, ""]);
  });

  Deno.test(`QueueService gives kept requests back in any order, in the round after they were completed (${layout})`, () => {
    const rig = new Rig(packed);
    const held: QueueRequest[] = [];
    rig.handler = (request) => {
      held.push(request);
      return KEEP;
    };
    rig.post(4);
    assertEquals(rig.poll(), [true, ""]);
    assertEquals([held.length, rig.service.count], [4, 4]);
    assert(rig.service.complete(held[2], 12));
    assert(rig.service.complete(held[0], 10));
    assertEquals(rig.lengths(), [], "nothing before the next round");
    assertEquals(rig.log, ["wake", "wake"]);
    assertEquals(rig.poll(), [true, "!0"]);
    assertEquals([rig.lengths(), rig.service.count], [[12, 10], 2]);
    assertThrows(() => rig.service.complete(held[2], 1), Error, "completed once");
    assert(rig.service.complete(held[3], 13) && rig.service.complete(held[1], 11));
    rig.poll();
    assertEquals([rig.lengths(), rig.service.count], [[13, 11], 0]);
  });

  Deno.test(`QueueService takes a completion from within the handler, and no second answer (${layout})`, () => {
    const rig = new Rig(packed);
    rig.handler = (request) => {
      rig.service.complete(request, 7);
      return KEEP;
    };
    rig.post(2);
    rig.poll();
    assertEquals([rig.lengths(), rig.service.count], [[7, 7], 0]);
    rig.handler = (request) => {
      rig.service.complete(request, 7);
      return 7;
    };
    rig.post(1);
    assertThrows(() => rig.poll(), Error, "completed already");
  });

  Deno.test(`QueueService puts a request back until it may be served, with notifications off meanwhile (${layout})`, () => {
    const rig = new Rig(packed);
    rig.handler = (request, nowNs) => nowNs < 100 ? request.putBack(100) : 1;
    rig.poll();
    rig.post(3);
    assertEquals(rig.poll(10), [false, "-0"]);
    assertEquals([rig.service.deadlineNs(), rig.service.count], [100, 0]);
    assertEquals(rig.poll(99), [false, ""]);
    assertEquals(rig.poll(100)[0], true);
    assertEquals(rig.lengths(), [1, 1, 1]);
    assertEquals(rig.service.deadlineNs(), Infinity);
    assertEquals(rig.poll(101), [false, "+0"]);
    let isFull = true;
    rig.handler = (request) => isFull ? request.putBack() : 2;
    rig.post(2);
    assertEquals(rig.poll(102), [false, "-0"]);
    assertEquals(rig.service.deadlineNs(), Infinity);
    isFull = false;
    assertEquals(rig.poll(103), [false, ""], "it is left alone until it is told so");
    rig.service.retry(0);
    assertEquals(rig.poll(104)[0], true);
    assertEquals(rig.lengths(), [2, 2]);
  });

  Deno.test(`QueueService publishes what was done before an error, and leaks no request by it (${layout})`, () => {
    const rig = new Rig(packed);
    let calls = 0;
    rig.handler = () => {
      if (++calls === 3) throw new GuestError("buffer-too-small", "a test");
      return calls;
    };
    rig.post(5);
    assertThrows(() => rig.poll(), GuestError, "a test");
    assertEquals([rig.lengths(), rig.service.count], [[1, 2], 0]);
    rig.service.reset();
    assertEquals([rig.service.count, rig.service.poll(0)], [0, false]);
  });

  Deno.test(`QueueService keeps to its pool, its burst and its bytes (${layout})`, () => {
    const rig = new Rig(packed, { maxInFlight: 3, maxRoundRequests: 2 });
    const held: QueueRequest[] = [];
    rig.handler = (request) => held.push(request) && KEEP;
    rig.post(6);
    rig.poll();
    assertEquals(held.length, 2);
    rig.poll();
    assertEquals(held.length, 3);
    assertEquals(rig.poll(), [false, ""], "a full pool asks for no notification");
    rig.service.complete(held[0], 1);
    rig.poll();
    assertEquals([held.length, rig.lengths().length], [3, 1], "the freed one is used in the round after");
    rig.poll();
    assertEquals([held.length, rig.service.count], [4, 3]);
    assert(held[3] === held[0], "and comes from the pool");
    const bytes = new Rig(packed, { maxRoundBytes: 30 });
    bytes.handler = () => 16;
    bytes.post(5);
    bytes.poll();
    assertEquals(bytes.lengths().length, 2);
  });

  Deno.test(`QueueService gives everything up at a reset, and late answers touch nothing (${layout})`, () => {
    const rig = new Rig(packed);
    const held: QueueRequest[] = [];
    rig.handler = (request) => held.push(request) && KEEP;
    rig.post(4);
    rig.poll();
    rig.service.complete(held[3], 1);
    rig.service.reset();
    assertEquals(rig.service.count, 3, "they may still be written to by the host");
    const before = [...rig.guest.spans()].map((span) => span.slice());
    for (const request of held.slice(0, 3)) {
      assertEquals(request.isLive, false);
      assertEquals(request.write(Uint8Array.of(9), 0, 1), 0);
      assertEquals(request.read(new Uint8Array(1), 0, 1), 0);
      assertEquals(rig.service.complete(request, 1), false);
    }
    assertEquals([rig.service.count, rig.service.poll(0)], [0, false]);
    assertEquals([...rig.guest.spans()].map((span) => span.slice()), before);
  });

  Deno.test(`QueueService asks the next driver for notifications once there is room again for its requests (${layout})`, () => {
    const rig = new Rig(packed, { maxInFlight: 2 });
    const held: QueueRequest[] = [];
    rig.handler = (request) => held.push(request) && KEEP;
    rig.post(2);
    rig.poll();
    rig.service.reset();
    rig.renewDriver();
    assertEquals(rig.poll(), [false, ""], "given-up requests fill the pool");
    assertEquals(rig.service.complete(held[0], 1), false);
    assertEquals(rig.log, ["wake"]);
    assertEquals(rig.poll(), [false, "+0"], "asleep without having asked, it would never hear of a request");
    rig.post(1);
    assertEquals([rig.poll()[0], held.length], [true, 3]);
  });

  Deno.test(`QueueService asks for notifications again once a drain has made room in its pool (${layout})`, () => {
    const rig = new Rig(packed, { maxInFlight: 2 });
    const held: QueueRequest[] = [];
    rig.handler = (request) => held.push(request) && KEEP;
    rig.post(2);
    rig.poll();
    assertEquals(rig.poll(), [false, ""], "the pool is full");
    rig.service.complete(held[0], 1);
    rig.service.drain();
    rig.log.length = 0;
    assertEquals(rig.poll(), [false, "+0"], "asleep without having asked, it would never hear of a request");
    rig.post(1);
    assertEquals([rig.poll()[0], held.length], [true, 3]);
  });

  Deno.test(`QueueService takes nothing while it is paused, but finishes what it has (${layout})`, () => {
    let pauses = 0;
    const rig = new Rig(packed, { onPause: () => void pauses++ });
    const held: QueueRequest[] = [];
    rig.handler = (request) => held.push(request) && KEEP;
    rig.post(1);
    rig.poll();
    rig.service.pause();
    rig.service.pause();
    rig.post(2);
    rig.poll();
    assertEquals([held.length, pauses], [1, 1]);
    rig.service.complete(held[0], 5);
    rig.poll();
    assertEquals([rig.lengths(), rig.service.count, held.length], [[5], 0, 1]);
    rig.service.resume();
    rig.poll();
    assertEquals(held.length, 3);
  });

  Deno.test(`QueueService.take() gives a device buffers, and asks for notifications only where there was none (${layout})`, () => {
    const rig = new Rig(packed, { queues: 2, pulled: true });
    assertEquals(rig.poll(), [false, ""]);
    assertEquals(rig.service.take(1), null);
    assertEquals(rig.poll(), [false, "+1"]);
    assertEquals(rig.poll(), [false, "+1"], "again in every idle round");
    rig.post(2, 1);
    const first = rig.service.take(1)!;
    assertEquals([first.queue, first.write(Uint8Array.of(5), 0, 1)], [1, 1]);
    rig.service.complete(first, 1);
    assertEquals(rig.poll(), [true, "!1 -0 -1"]);
    assertEquals(rig.lengths(1), [1]);
    assertEquals(rig.poll(), [false, ""]);
  });
}
