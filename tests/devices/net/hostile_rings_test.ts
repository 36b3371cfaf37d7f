import { assert, assertEquals } from "@std/assert";
import type { Session } from "../../../core/device.ts";
import { GuestError } from "../../../rings/guest_error.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../../core/features.ts";
import { buildQueue } from "../../../core/session.ts";
import type { Virtqueue } from "../../../rings/virtqueue.ts";
import { net } from "../../../devices/net/mod.ts";
import type { Frame, FrameBatch } from "../../../pipeline/frame.ts";
import { FramePool } from "../../../pipeline/frame_pool.ts";
import type { FrameTransport } from "../../../pipeline/frame_transport.ts";
import { OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import { VIRTIO_NET_F_MRG_RXBUF } from "../../../wire/net_features.ts";
import { setupAt } from "../../core/support/drivers.ts";
import { TestGuest } from "../../core/support/guest.ts";
import { numbered } from "./support/rig.ts";

/**
 * Drivers that change their rings between two looks of the device: it must come to rest, and be idle then.
 */

const SIZE = 16;
const RING = 0x1_0000_0000;
const BUFFER = 0x10000;
const BUFFER_BYTES = 256;
const WRITE = 2;

/** One frame that needs four buffers, and no second one. */
class OneFrame implements FrameTransport {
  readonly maxFrameBytes = 65_549;
  readonly capabilities = OffloadCapabilities.all;
  readonly queuePairs = 1;
  readonly #pool: FramePool;
  #frames = 1;

  constructor(pool: FramePool) {
    this.#pool = pool;
  }

  receive(out: FrameBatch): number {
    if (this.#frames === 0) return 0;
    this.#frames = 0;
    const frame: Frame = this.#pool.take(1000)!;
    frame.bytes.set(numbered(1, 1000), frame.start);
    out.push(frame);
    return 1;
  }

  send(batch: FrameBatch): number {
    const { length } = batch;
    for (let i = 0; i < length; i++) batch.at(i).release();
    return length;
  }

  [Symbol.dispose](): void {}
}

/** What a driver does before a look of the device at its receive queue. */
type Mischief = (look: "pop" | "enableKicks", driver: HandWrittenDriver) => void;

/** Writes receive buffers into a ring by hand, and takes them back. */
class HandWrittenDriver {
  readonly guest = new TestGuest();
  readonly setup = setupAt(RING, SIZE);
  readonly packed: boolean;

  constructor(packed: boolean) {
    this.packed = packed;
    for (let slot = 0; slot < SIZE; slot++) {
      this.guest.setDescriptor(
        this.setup.descriptors + 16 * slot,
        BUFFER,
        BUFFER_BYTES,
        packed ? slot : WRITE,
        0,
      );
      if (!packed) this.guest.setNumber(this.setup.driver + 4 + 2 * slot, 2, slot);
    }
  }

  /** Of a packed ring: is the buffer of this slot there? */
  mark(slot: number, there: boolean): void {
    this.guest.setNumber(this.setup.descriptors + 16 * slot + 14, 2, WRITE | (there ? 0x80 : 0));
  }

  /** The first `count` buffers are there, and no others. */
  count(count: number): void {
    if (!this.packed) this.guest.setNumber(this.setup.driver + 2, 2, count);
    else for (let slot = 0; slot < SIZE; slot++) this.mark(slot, slot < count);
  }
}

/** A device with this driver, and how it takes it. */
class Bench {
  readonly driver: HandWrittenDriver;
  readonly pool = new FramePool();
  readonly #device;
  readonly counters: Record<string, Record<string, number>> = {};
  fault: GuestError | null = null;

  constructor(packed: boolean, mischief: Mischief) {
    const driver = new HandWrittenDriver(packed);
    this.driver = driver;
    const bits = [VIRTIO_F_VERSION_1, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC, VIRTIO_NET_F_MRG_RXBUF];
    const features = FeatureSet.from(packed ? [...bits, VIRTIO_F_RING_PACKED] : bits);
    const { size, descriptors, driver: available, device: used } = driver.setup;
    const addresses = { size, descriptors, driver: available, device: used };
    const queue = buildQueue(driver.guest.memory, addresses, features);
    const watched: Virtqueue = {
      size,
      pop: (chain) => (mischief("pop", driver), queue.pop(chain)),
      unpop: (count) => queue.unpop(count),
      push: (head, bytes) => queue.push(head, bytes),
      publish: () => queue.publish(),
      enableKicks: () => (mischief("enableKicks", driver), queue.enableKicks()),
      disableKicks: () => queue.disableKicks(),
    };
    const session: Session = {
      memory: driver.guest.memory,
      queues: [watched, null, null],
      features,
      interrupt() {},
      configChanged() {},
    };
    const options = net.options["~standard"].validate({});
    assert(!(options instanceof Promise) && options.issues === undefined);
    this.#device = net.create({
      name: "net0",
      pool: this.pool,
      parts: { network: new OneFrame(this.pool), offloads: [] },
      verdicts: null,
      newBuffer: (bytes) => new Uint8Array(bytes),
      publish: (counters, part = "") => (this.counters[part] = counters, counters),
    }, options.value);
    this.#device.activate(session);
  }

  /** Rounds until the device rests, or `limit`. */
  rounds(limit = 1000): number {
    let rounds = 0;
    try {
      while (rounds < limit && this.#device.poll(0)) rounds++;
    } catch (error) {
      if (!(error instanceof GuestError)) throw error;
      this.fault = error;
    }
    return rounds;
  }

  get deadlineNs(): number {
    return this.#device.deadlineNs();
  }

  get delivered(): number {
    return this.counters.toGuest.packets;
  }

  end(): void {
    this.#device.reset();
    assertEquals(this.pool.inUse, 0);
  }
}

Deno.test("a device rests if a driver takes back the buffer that was put back, and posts the next", () => {
  const bench = new Bench(true, () => {});
  bench.driver.count(1);
  assertEquals(bench.rounds(), 1, "the frame is received, and waits for three more buffers");
  bench.driver.mark(0, false);
  bench.driver.mark(1, true);
  assertEquals([bench.rounds(), bench.deadlineNs], [0, Infinity]);
  assertEquals([bench.rounds(), bench.rounds(), bench.fault], [0, 0, null]);
  bench.driver.count(4);
  assertEquals([bench.rounds(), bench.delivered, bench.fault], [1, 1, null], "and goes on when it is kicked");
  bench.end();
});

for (const packed of [false, true]) {
  const layout = packed ? "packed" : "split";

  Deno.test(`a device looks again as often as buffers come, however they come (${layout})`, () => {
    for (let step = 1; step <= 4; step++) {
      const bench = new Bench(packed, () => {});
      let rounds = bench.rounds();
      for (let there = step; there < 4 + step; there += step) {
        bench.driver.count(there);
        rounds += bench.rounds();
      }
      assertEquals([bench.delivered, bench.fault], [1, null]);
      assert(rounds <= 3, `${rounds} rounds`);
      bench.end();
    }
  });

  Deno.test(`a device rests within a lap, whatever a driver does between two looks (${layout})`, () => {
    // Every sequence of three states that a driver may show in turn, before looks of the one kind or the
    // other.
    const states: readonly ((driver: HandWrittenDriver) => void)[] = [
      (driver) => driver.count(0),
      (driver) => driver.count(1),
      (driver) => driver.count(2),
      (driver) => driver.count(3),
      (driver) => {
        driver.count(packed ? 3 : 65_535);
        if (packed) driver.mark(0, false);
      },
      (driver) => {
        driver.count(packed ? 3 : 1);
        if (packed) driver.mark(1, false);
      },
    ];
    let maxRounds = 0;
    const count = states.length ** 4;
    for (let which = 0; which < count; which++) {
      const picks = [0, 1, 2, 3].map((k) => states[Math.floor(which / states.length ** k) % states.length]);
      const turns = { pop: 0, enableKicks: 0 };
      const bench = new Bench(packed, (look, driver) => {
        const turn = turns[look]++ % 2;
        picks[(look === "pop" ? 0 : 2) + turn](driver);
      });
      const rounds = bench.rounds();
      maxRounds = Math.max(maxRounds, rounds);
      // Left alone, or woken by nothing that the driver did, it does no more than look.
      if (bench.fault === null) assertEquals(bench.deadlineNs, Infinity);
      bench.end();
    }
    assert(maxRounds <= SIZE + 1, `${maxRounds} rounds`);
  });
}
