import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { newRegistry } from "../../../config/builtins.ts";
import { ConfigError } from "../../../config/errors.ts";
import { parseConfig } from "../../../config/load.ts";
import {
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
} from "../../../core/device.ts";
import { GuestError, HostError } from "../../../core/errors.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../../core/features.ts";
import type { GuestMemory } from "../../../core/memory.ts";
import { DriverSession } from "../../../core/session.ts";
import { RateLimit } from "../../../devices/entropy/device.ts";
import { entropy, EntropyDevice, type RandomSource } from "../../../devices/entropy/mod.ts";
import {
  BufferList,
  type DriverRing,
  PackedDriverRing,
  splitAvailableBytes,
  SplitDriverRing,
  splitUsedBytes,
} from "../../../guest/driver_ring.ts";
import { GuestMemoryAllocator } from "../../../guest/guest_queues.ts";
import { NetGuest } from "../../../devices/net/driver/mod.ts";
import { setupAt } from "../../core/support/drivers.ts";
import { TestGuest } from "../../core/support/guest.ts";

const SIZE = 16;
const BUFFER_BYTES = 70_000;
const READY = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;

interface Settings {
  readonly ring?: "split" | "packed";
  readonly eventIndex?: boolean;
  readonly indirect?: boolean;
  readonly options?: Record<string, unknown>;
  readonly source?: RandomSource;
  /** A device that had another driver before. */
  readonly device?: EntropyDevice;
}

/** A guest with one entropy device: a driver's ring, and buffers of its own for each slot of the ring. */
class Rig {
  readonly counters: Record<string, number> = {};
  readonly device: EntropyDevice;
  readonly memory: GuestMemory;
  readonly session: DriverSession;
  readonly ring: DriverRing;
  readonly features: FeatureSet;
  interrupts = 0;
  configChanges = 0;
  readonly #list = new BufferList(8);
  readonly #buffers: number;
  readonly #place: { descriptors: number; driver: number; device: number };

  constructor(settings: Settings = {}) {
    const { ring = "split", eventIndex = true, indirect = true, options = {}, source } = settings;
    const context = {
      name: "rng0",
      publish: <T extends Record<string, number>>(counters: T): T =>
        Object.assign(this, { counters }) && counters,
    };
    const result = entropy.options["~standard"].validate(options);
    assert(!(result instanceof Promise) && result.issues === undefined);
    this.device = settings.device ?? new EntropyDevice(context, result.value, source);
    const allocator = new GuestMemoryAllocator(2);
    const descriptors = allocator.reserve(16 * SIZE, 16, true);
    const driver = allocator.reserve(splitAvailableBytes(SIZE), 4, true);
    const used = allocator.reserve(splitUsedBytes(SIZE), 4, true);
    const tables = allocator.reserve(16 * 8 * SIZE, 16, true);
    const buffers = allocator.reserve(BUFFER_BYTES * SIZE, 1, false);
    this.memory = allocator.build();
    this.#buffers = buffers.address;
    const bits = [VIRTIO_F_VERSION_1];
    if (ring === "packed") bits.push(VIRTIO_F_RING_PACKED);
    if (eventIndex) bits.push(VIRTIO_F_EVENT_IDX);
    if (indirect) bits.push(VIRTIO_F_INDIRECT_DESC);
    this.features = FeatureSet.from(bits);
    this.#place = { descriptors: descriptors.address, driver: driver.address, device: used.address };
    const placement = {
      ...this.#place,
      size: SIZE,
      eventIndex,
      indirect,
      tables: tables.address,
      tableEntries: 8,
      indirectUse: indirect ? "chains" as const : "never" as const,
    };
    this.ring = ring === "packed"
      ? new PackedDriverRing(this.memory, placement)
      : new SplitDriverRing(this.memory, placement);
    this.session = new DriverSession(this.device, this.memory, {
      interrupt: () => this.interrupts++,
      configChanged: () => this.configChanges++,
    });
    this.start();
  }

  start(): void {
    const { session } = this;
    session.writeStatus(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    session.writeDriverFeatures(this.features);
    session.writeStatus(READY & ~STATUS_DRIVER_OK);
    session.setupQueue(0, { size: SIZE, ...this.#place });
    session.writeStatus(READY);
    assertEquals(session.status, READY, session.lastFault?.message);
  }

  get descriptors(): number {
    return this.#place.descriptors;
  }

  /** Posts buffers, each cut into pieces of these lengths; the device sees them. Returns whether it wants a kick. */
  post(...requests: (number | readonly number[])[]): boolean {
    for (const request of requests) this.add(typeof request === "number" ? [request] : request);
    return this.ring.publish();
  }

  add(pieces: readonly number[], readable: readonly number[] = []): void {
    this.#list.clear();
    const token = this.#tokens++ % SIZE;
    let at = this.#buffers + token * BUFFER_BYTES;
    for (const length of readable) {
      this.#list.addReadable(at, length);
      at += length;
    }
    for (const length of pieces) {
      this.#list.addWritable(at, length);
      at += length;
    }
    assert(this.ring.add(this.#list, token));
  }
  #tokens = 0;

  /** Takes back what the device has used: the bytes that it says it has written, checked to be written and no more. */
  take(): Uint8Array[] {
    const taken: Uint8Array[] = [];
    for (let token = this.ring.takeUsed(); token !== -1; token = this.ring.takeUsed()) {
      assert(token >= 0, this.ring.fault);
      const bytes = new Uint8Array(this.ring.usedBytes);
      this.memory.copyOut(this.#buffers + token * BUFFER_BYTES, bytes, 0, bytes.length);
      taken.push(bytes);
    }
    assert(!this.ring.enableInterrupts());
    return taken;
  }

  /** What stands in the whole buffer of a request, by order of posting. */
  bufferOf(request: number): Uint8Array {
    const bytes = new Uint8Array(BUFFER_BYTES);
    this.memory.copyOut(this.#buffers + request * BUFFER_BYTES, bytes, 0, BUFFER_BYTES);
    return bytes;
  }
}

/** A source of bytes that can be foretold: 1, 2, 3 … 255, 1, 2 … */
function counting(): { source: RandomSource; calls: number[] } {
  let next = 0;
  const calls: number[] = [];
  return {
    calls,
    source: (bytes) => {
      calls.push(bytes.length);
      for (let i = 0; i < bytes.length; i++) bytes[i] = next++ % 255 + 1;
    },
  };
}

function countedFrom(from: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (from + i) % 255 + 1);
}

const RINGS: readonly Settings[] = [
  { ring: "split" },
  { ring: "split", eventIndex: false, indirect: false },
  { ring: "packed" },
  { ring: "packed", eventIndex: false, indirect: false },
];

for (const settings of RINGS) {
  const kind = `${settings.ring}${settings.eventIndex === false ? ", plain" : ", events and tables"}`;

  Deno.test(`EntropyDevice fills every request to its end, in order, giving no byte twice (${kind})`, () => {
    const { source } = counting();
    const rig = new Rig({ ...settings, source });
    const lengths = [1, 64, 4096, 8191, 8192, 8193, 30_000];
    let from = 0;
    for (let lap = 0; lap < 8; lap++) {
      rig.post(...lengths);
      assertEquals(rig.session.poll(0), true);
      const taken = rig.take();
      assertEquals(taken.map(({ length }) => length), lengths);
      for (const bytes of taken) {
        assertEquals(bytes, countedFrom(from, bytes.length));
        from += bytes.length;
      }
      assertEquals(rig.interrupts, lap + 1);
    }
    assertEquals(rig.counters, {
      requests: 56,
      bytes: from,
      shortened: 0,
      limited: 0,
      interrupts: 8,
    });
    assertEquals(rig.session.faults, {});
  });

  Deno.test(`EntropyDevice writes into the pieces of a buffer and not a byte beside them (${kind})`, () => {
    const rig = new Rig({ ...settings, source: counting().source });
    rig.post([5, 1, 700], 3);
    rig.session.poll(0);
    assertEquals(rig.take().map(({ length }) => length), [706, 3]);
    assertEquals(rig.bufferOf(0).subarray(0, 706), countedFrom(0, 706));
    assertEquals(rig.bufferOf(0).subarray(706), new Uint8Array(BUFFER_BYTES - 706));
    assertEquals(rig.bufferOf(1).subarray(0, 4), Uint8Array.of(...countedFrom(706, 3), 0));
  });

  Deno.test(`EntropyDevice asks for kicks when it has nothing to do, and for none while it works (${kind})`, () => {
    const rig = new Rig(settings);
    assertEquals(rig.session.poll(0), false);
    assertEquals(rig.post(10), true, "a device that sleeps must be kicked");
    assertEquals(rig.session.poll(0), true);
    assertEquals(rig.post(10), false, "a device that works must not be kicked");
    assertEquals(rig.session.poll(0), true);
    assertEquals(rig.session.poll(0), false);
    assertEquals(rig.post(10), true);
  });
}

Deno.test("EntropyDevice gives random bytes from the host: all values, and as many ones as zeros", () => {
  const rig = new Rig();
  rig.post(65_536, 65_536, 65_536, 65_536);
  while (rig.session.poll(0));
  const taken = rig.take();
  assertEquals(taken.map(({ length }) => length), [65_536, 65_536, 65_536, 65_536]);
  const seen = new Array<number>(256).fill(0);
  let ones = 0;
  for (const bytes of taken) {
    for (const byte of bytes) {
      seen[byte]++;
      for (let bit = byte; bit !== 0; bit &= bit - 1) ones++;
    }
  }
  // Six standard deviations and more: 1024 ± 32 for a value, 1048576 ± 724 for the ones.
  assert(Math.min(...seen) > 800 && Math.max(...seen) < 1250, `values appear ${Math.min(...seen)} times`);
  assert(Math.abs(ones - 1_048_576) < 5000, `${ones} ones`);
});

Deno.test("EntropyDevice asks the host for bounded amounts and wipes what it has given out", () => {
  const drawn: Uint8Array[] = [];
  const { source, calls } = counting();
  const rig = new Rig({
    source: (bytes) => {
      source(bytes);
      drawn.push(bytes);
    },
  });
  rig.post(60_000, 1);
  rig.session.poll(0);
  assertEquals(calls, [8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192]);
  assertEquals(new Set(drawn).size, 1, "the same array is filled over and over");
  const given = 60_001 - 7 * 8192;
  assertEquals(drawn[0].subarray(0, given), new Uint8Array(given));
  assert(drawn[0].subarray(given).every((byte) => byte !== 0));
});

Deno.test("EntropyDevice uses 64 KiB of a longer buffer and says so", () => {
  const rig = new Rig({ source: counting().source });
  rig.post(BUFFER_BYTES);
  rig.session.poll(0);
  assertEquals(rig.take().map(({ length }) => length), [65_536]);
  assertEquals(rig.bufferOf(0).subarray(65_536), new Uint8Array(BUFFER_BYTES - 65_536));
  assertEquals(rig.counters.shortened, 1);
});

Deno.test("EntropyDevice.poll() ends a round after 256 KiB and goes on in the next", () => {
  const rig = new Rig();
  rig.post(...new Array<number>(10).fill(60_000));
  assertEquals(rig.session.poll(0), true);
  assertEquals(rig.take().length, 5);
  assertEquals(rig.session.poll(0), true);
  assertEquals(rig.take().length, 5);
  assertEquals(rig.session.poll(0), false);
});

Deno.test("EntropyDevice keeps to its rate: a burst at once, then each request when it is due", () => {
  const rig = new Rig({ options: { rateLimitBytesPerS: 1000, burstBytes: 100 } });
  rig.post(60, 40, 50, 10, 500);
  assertEquals(rig.session.poll(0), true);
  assertEquals(rig.take().map(({ length }) => length), [60, 40]);
  assertEquals(rig.session.deadlineNs(), 50_000_000);
  assertEquals(rig.session.poll(49_999_999), false);
  assertEquals(rig.take(), []);
  assertEquals(rig.session.poll(50_000_000), true);
  assertEquals(rig.take().map(({ length }) => length), [50]);
  assertEquals(rig.session.deadlineNs(), 60_000_000);
  // Later than it was due: 20 ms more have brought 20 bytes, which count for the last request, of a whole burst.
  assertEquals(rig.session.poll(80_000_000), true);
  assertEquals(rig.take().map(({ length }) => length), [10]);
  assertEquals(rig.session.deadlineNs(), 160_000_000);
  assertEquals(rig.session.poll(160_000_000), true);
  assertEquals(rig.take().map(({ length }) => length), [100]);
  assertEquals(rig.session.poll(160_000_000), false);
  assertEquals(rig.session.deadlineNs(), Infinity);
  assertEquals(rig.counters, { requests: 5, bytes: 260, shortened: 1, limited: 3, interrupts: 4 });
});

Deno.test("EntropyDevice takes a request in a table longer than its ring of four", () => {
  for (const packed of [false, true]) {
    const guest = new TestGuest();
    const { descriptors, driver, device: used } = setupAt(0x1_0000_0000, 4);
    const [write, next] = [2, 1];
    for (let i = 0; i < 100; i++) {
      guest.setDescriptor(
        0x10000 + 16 * i,
        0x14000 + i,
        1,
        packed ? 0 : write | (i < 99 ? next : 0),
        packed ? write : i + 1,
      );
    }
    guest.setDescriptor(descriptors, 0x10000, 1600, packed ? 0 : 4, packed ? 4 | 0x80 : 0);
    if (!packed) guest.setNumber(driver + 2, 2, 1);
    const counters: Record<string, number> = {};
    const options = { queueSize: 4, packedRing: true, rateLimitBytesPerS: undefined, burstBytes: 65_536 };
    const made = new EntropyDevice(
      {
        name: "rng0",
        publish: (group) => Object.assign(counters, group) && group,
      },
      options,
      counting().source,
    );
    const session = new DriverSession(made, guest.memory, { interrupt() {}, configChanged() {} });
    session.writeStatus(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    session.writeDriverFeatures(
      packed ? made.features : made.features.without(VIRTIO_F_RING_PACKED),
    );
    session.writeStatus(READY & ~STATUS_DRIVER_OK);
    session.setupQueue(0, { size: 4, descriptors, driver, device: used });
    session.writeStatus(READY);
    assertEquals(session.poll(0), true, session.lastFault?.message);
    assertEquals(guest.bytes(0x14000, 100), countedFrom(0, 100));
  }
});

Deno.test("EntropyDevice answers a request that has waited, though its driver makes it longer each time", () => {
  const rig = new Rig({ indirect: false, options: { rateLimitBytesPerS: 1000, burstBytes: 100 } });
  rig.post(100, 1);
  rig.session.poll(0);
  let rounds = 0;
  for (let length = 2; rig.counters.requests < 2; length++) {
    rig.memory.writeU32(rig.descriptors + 16 + 8, length);
    rig.session.poll(rig.session.deadlineNs());
    assert(++rounds < 10, "it waits for ever");
  }
  assertEquals([rounds, rig.counters.bytes], [1, 101]);
});

Deno.test("EntropyDevice does not fill its bucket anew when a driver resets it", () => {
  const rig = new Rig({ options: { rateLimitBytesPerS: 1000, burstBytes: 100 } });
  rig.post(100);
  assertEquals(rig.session.poll(0), true);
  rig.session.writeStatus(0);
  const next = new Rig({ ring: "packed", device: rig.device });
  next.post(100);
  assertEquals(next.session.poll(0), false);
  assertEquals(next.session.deadlineNs(), 100_000_000);
  assertEquals(next.session.poll(100_000_000), true);
  assertEquals(next.take().map(({ length }) => length), [100]);
});

Deno.test("RateLimit never lets more through than a burst and what flows in, and never waits longer than it must", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 1_000_000_000 }),
    fc.integer({ min: 1, max: 65_536 }),
    fc.array(fc.record({ bytes: fc.nat(65_536), pauseNs: fc.nat(2_000_000_000) }), { maxLength: 60 }),
    (bytesPerS, burstBytes, steps) => {
      const limit = new RateLimit(bytesPerS, burstBytes);
      let nowNs = 0;
      let taken = 0;
      for (const { bytes, pauseNs } of steps) {
        nowNs += pauseNs;
        const wanted = Math.min(bytes, burstBytes);
        const earliestNs = limit.earliestNs(wanted, nowNs);
        assert(earliestNs >= nowNs);
        assert(earliestNs <= nowNs + Math.ceil(burstBytes * 1e9 / bytesPerS) + 1);
        // At the moment it names it must let through, or a device would ask for ever.
        assertEquals(limit.earliestNs(wanted, earliestNs), earliestNs);
        nowNs = earliestNs;
        limit.take(wanted, nowNs);
        taken += wanted;
        const most = burstBytes + nowNs * bytesPerS / 1e9;
        assert(taken <= most * (1 + 1e-9) + 1e-3, `${taken} bytes by ${nowNs} ns, at most ${most}`);
      }
    },
  ));
});

Deno.test("EntropyDevice needs a reset after a request with bytes to read, and returns what came before it", () => {
  for (const ring of ["split", "packed"] as const) {
    for (const [readable, writable] of [[[8], []], [[8], [8]]]) {
      const rig = new Rig({ ring });
      rig.post(32);
      rig.add(writable, readable);
      rig.post(32);
      assertEquals(rig.session.poll(0), false);
      assertEquals(rig.session.status, READY | STATUS_NEEDS_RESET);
      assertEquals(rig.session.faults, { "buffers-wrong-direction": 1 });
      assertEquals([rig.configChanges, rig.interrupts], [1, 1]);
      assertEquals(rig.take().map(({ length }) => length), [32]);
      assertEquals([rig.counters.requests, rig.counters.bytes], [1, 32]);
      assertEquals(rig.session.poll(1), false);
      assertEquals(rig.session.deadlineNs(), Infinity);
      assertEquals(rig.take(), []);
    }
  }
});

Deno.test("EntropyDevice touches nothing after a reset", () => {
  const rig = new Rig({ options: { rateLimitBytesPerS: 10, burstBytes: 10 } });
  rig.post(10, 10);
  rig.session.poll(0);
  assert(rig.session.deadlineNs() < Infinity);
  rig.session.writeStatus(0);
  assertEquals(rig.device.deadlineNs(), Infinity);
  assertEquals(rig.device.poll(10_000_000_000), false);
  assertEquals(rig.take().length, 1);
  assertEquals(rig.bufferOf(1), new Uint8Array(BUFFER_BYTES));
});

Deno.test("EntropyDevice has no queue until the driver starts one, and serves it from then on", () => {
  const rig = new Rig();
  const queues = [...rig.session.queues];
  const lent: (typeof queues[0])[] = [null];
  rig.session.writeStatus(0);
  rig.device.activate({ ...sessionOf(rig), queues: lent });
  rig.post(16);
  assertEquals(rig.device.poll(0), false);
  lent[0] = queues[0];
  rig.device.queuesChanged();
  assertEquals(rig.device.poll(0), true);
  assertEquals(rig.take().map(({ length }) => length), [16]);
  lent[0] = null;
  assertEquals(rig.device.poll(0), false);
});

function sessionOf(rig: Rig) {
  return { memory: rig.memory, features: rig.features, interrupt: () => {}, configChanged: () => {} };
}

Deno.test("EntropyDevice has no configuration space", () => {
  const rig = new Rig();
  const read = Uint8Array.of(1, 2, 3);
  rig.session.readConfig(0, read);
  assertEquals(read, new Uint8Array(3));
  rig.session.writeConfig(0, Uint8Array.of(1));
  assertEquals(rig.session.faults, { "config-write-invalid": 1 });
  assertInstanceOf(rig.session.lastFault, GuestError);
  assertEquals(rig.session.status, READY);
});

Deno.test("EntropyDevice offers no feature of its own, and RING_PACKED only if it is to", () => {
  const common = [VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1];
  assertEquals([...new Rig().device.features], [...common, VIRTIO_F_RING_PACKED]);
  assertEquals([...new Rig({ options: { packedRing: false } }).device.features], common);
  assertEquals(new Rig({ options: { queueSize: 512 } }).device.queueSizes, [512]);
  assertEquals(new Rig().device.type, 4);
});

Deno.test("EntropyDevice refuses a net driver by its number of queues", () => {
  const { device } = new Rig();
  assertThrows(() => new NetGuest().attach(device), HostError, "queue");
});

Deno.test("the options of entropy: a burst needs a rate, and is what a second brings by default", () => {
  const burst = (options: unknown) => {
    const result = entropy.options["~standard"].validate(options);
    assert(!(result instanceof Promise));
    return result.issues === undefined ? result.value.burstBytes : result.issues[0].message;
  };
  assertEquals(burst({ rateLimitBytesPerS: 500 }), 500);
  assertEquals(burst({ rateLimitBytesPerS: 1_000_000 }), 65_536);
  assertEquals(burst({ rateLimitBytesPerS: 1000, burstBytes: 7 }), 7);
  assertEquals(burst({}), 65_536);
  assertEquals(
    burst({ burstBytes: 7 }),
    'Has no effect without "rateLimitBytesPerS": write that too, or leave it out',
  );
});

Deno.test("a configuration with an entropy device may have no network and no offloads", async () => {
  const refused = { network: "loopback", offloads: ["checksum"] };
  for (const [key, value] of Object.entries(refused)) {
    const text = JSON.stringify({ devices: [{ use: "entropy", driver: "loopback", [key]: value }] });
    const attempt = () => parseConfig(text, import.meta.url, newRegistry());
    await assertRejects(
      attempt,
      ConfigError,
      `$.devices[0].${key}: "entropy" is a device without "${key}"; leave`,
    );
  }
});
