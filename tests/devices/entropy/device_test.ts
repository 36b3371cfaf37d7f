import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import { ConfigError, entropy, newRegistry, parseConfig } from "../../../mod.ts";
import {
  completeGuestOptions,
  type Device,
  GuestError,
  type GuestMemory,
  HostError,
  type PlacedQueue,
  type QueuePlan,
  RequestGuest,
  softwareGuestOptions,
  type SoftwareGuestOptionsInput,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../../plugin.ts";
import { DeviceBench, type GuestRequest, NetGuest } from "../../../testing/mod.ts";

const BUFFER_BYTES = 70_000;
const READY = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;

interface Settings extends SoftwareGuestOptionsInput {
  /** Options of the device. */
  readonly options?: Record<string, unknown>;
}

/**
 * A bench whose device and guest are turned by hand: `session.poll` is a round of the device, `take` one of
 * the guest.
 */
class Rig extends DeviceBench {
  #untaken: GuestRequest[] = [];

  constructor({ options = {}, ...guest }: Settings = {}) {
    super({ plugin: entropy, options, guest: { queueSize: 16, memoryRegions: 2, ...guest } });
    assertEquals(this.session.status, READY, this.session.lastFault?.message);
    this.guest.hooks.onReturned = (request) => this.#untaken.push(request);
  }

  /**
   * Posts buffers, each cut into pieces of these lengths; the device sees them. Returns whether it was
   * kicked.
   */
  put(...requests: (number | readonly number[])[]): boolean {
    for (const pieces of requests) this.post(0, [], pieces);
    const { kicks } = this.guest.counters;
    this.guest.kick(0);
    return this.guest.counters.kicks > kicks;
  }

  /** The requests that the device has returned and told of, in their order. */
  takeRequests(): GuestRequest[] {
    this.guest.poll(0);
    return this.#untaken.splice(0);
  }

  /** What they say has been written. */
  take(): Uint8Array[] {
    return this.takeRequests().map(({ written }) => written);
  }

  /** The lengths of what the device has used, whether it still works and has told of it or not. */
  usedLengths(): number[] {
    const ring = this.guest.rings[0]!;
    const lengths: number[] = [];
    for (let token = ring.takeUsed(); token !== -1; token = ring.takeUsed()) {
      assert(token >= 0, ring.fault);
      lengths.push(ring.usedBytes);
    }
    return lengths;
  }
}

/** A guest whose rings a test writes by itself. */
class RawGuest extends RequestGuest {
  /** Where queue 0 lies. */
  place!: PlacedQueue["place"];
  /** The address of some memory in which nothing lies. */
  areaAddress!: number;
  #area!: { readonly address: number };

  constructor(options: SoftwareGuestOptionsInput) {
    super(completeGuestOptions(softwareGuestOptions({}), options));
  }

  protected override planQueues(plan: QueuePlan, device: Device): void {
    super.planQueues(plan, device);
    this.#area = plan.reserve(8192);
  }

  protected override prepare(queues: readonly PlacedQueue[]): void {
    super.prepare(queues);
    this.place = queues[0].place;
    this.areaAddress = this.#area.address;
  }
}

/** Until it is disposed of, the host's random bytes can be foretold: 1, 2, 3 … 255, 1, 2 … */
function counting(): Disposable & { calls: number[]; drawn: Uint8Array[] } {
  let next = 0;
  const calls: number[] = [];
  const drawn: Uint8Array[] = [];
  Object.defineProperty(crypto, "getRandomValues", {
    configurable: true,
    value: (bytes: Uint8Array) => {
      calls.push(bytes.length);
      drawn.push(bytes);
      for (let i = 0; i < bytes.length; i++) bytes[i] = next++ % 255 + 1;
      return bytes;
    },
  });
  // The generator itself belongs to the prototype.
  return { calls, drawn, [Symbol.dispose]: () => void Reflect.deleteProperty(crypto, "getRandomValues") };
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
    using _bytes = counting();
    using rig = new Rig(settings);
    const lengths = [1, 64, 4096, 8191, 8192, 8193, 30_000];
    let from = 0;
    for (let lap = 0; lap < 8; lap++) {
      rig.put(...lengths);
      assertEquals(rig.session.poll(0), true);
      const taken = rig.take();
      assertEquals(taken.map(({ length }) => length), lengths);
      for (const bytes of taken) {
        assertEquals(bytes, countedFrom(from, bytes.length));
        from += bytes.length;
      }
      assertEquals(rig.guest.counters.interrupts, lap + 1);
    }
    assertEquals(rig.counters.device, {
      requests: 56,
      bytes: from,
      shortened: 0,
      limited: 0,
      interrupts: 8,
    });
    assertEquals(rig.session.faults, {});
  });

  Deno.test(`EntropyDevice writes into the pieces of a buffer and not a byte beside them (${kind})`, () => {
    using _bytes = counting();
    using rig = new Rig(settings);
    rig.put([5, 1, 700], 3);
    rig.session.poll(0);
    assertEquals(rig.take(), [countedFrom(0, 706), countedFrom(706, 3)]);
    rig.guest.checkMemory();
    assertEquals(rig.guest.errors, []);
  });

  Deno.test(`EntropyDevice asks for kicks when it has nothing to do, and for none while it works (${kind})`, () => {
    const rig = new Rig(settings);
    assertEquals(rig.session.poll(0), false);
    assertEquals(rig.put(10), true, "a device that sleeps must be kicked");
    assertEquals(rig.session.poll(0), true);
    assertEquals(rig.put(10), false, "a device that works must not be kicked");
    assertEquals(rig.session.poll(0), true);
    assertEquals(rig.session.poll(0), false);
    assertEquals(rig.put(10), true);
  });
}

Deno.test("EntropyDevice gives random bytes from the host: all values, and as many ones as zeros", () => {
  const rig = new Rig();
  rig.put(65_536, 65_536, 65_536, 65_536);
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
  using bytes = counting();
  const { calls, drawn } = bytes;
  using rig = new Rig();
  rig.put(60_000, 1);
  rig.session.poll(0);
  assertEquals(calls, [8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192]);
  assertEquals(new Set(drawn).size, 1, "the same array is filled over and over");
  const given = 60_001 - 7 * 8192;
  assertEquals(drawn[0].subarray(0, given), new Uint8Array(given));
  assert(drawn[0].subarray(given).every((byte) => byte !== 0));
});

Deno.test("EntropyDevice uses 64 KiB of a longer buffer and says so", () => {
  using _bytes = counting();
  using rig = new Rig();
  rig.put(BUFFER_BYTES);
  rig.session.poll(0);
  const [{ written, buffer }, ...others] = rig.takeRequests();
  assertEquals([written.length, buffer.length, others], [65_536, BUFFER_BYTES, []]);
  assertEquals(buffer.subarray(65_536), new Uint8Array(BUFFER_BYTES - 65_536));
  assertEquals(rig.counters.device.shortened, 1);
});

Deno.test("EntropyDevice.poll() ends a round after 256 KiB and goes on in the next", () => {
  const rig = new Rig();
  rig.put(...new Array<number>(10).fill(60_000));
  assertEquals(rig.session.poll(0), true);
  assertEquals(rig.take().length, 5);
  assertEquals(rig.session.poll(0), true);
  assertEquals(rig.take().length, 5);
  assertEquals(rig.session.poll(0), false);
});

Deno.test("EntropyDevice keeps to its rate: a burst at once, then each request when it is due", () => {
  const rig = new Rig({ options: { rateLimitBytesPerS: 1000, burstBytes: 100 } });
  rig.put(60, 40, 50, 10, 500);
  assertEquals(rig.session.poll(0), true);
  assertEquals(rig.take().map(({ length }) => length), [60, 40]);
  assertEquals(rig.session.deadlineNs(), 50_000_000);
  assertEquals(rig.session.poll(49_999_999), false);
  assertEquals(rig.take(), []);
  assertEquals(rig.session.poll(50_000_000), true);
  assertEquals(rig.take().map(({ length }) => length), [50]);
  assertEquals(rig.session.deadlineNs(), 60_000_000);
  // Later than it was due: 20 ms more have brought 20 bytes, which count for the last request, of a whole
  // burst.
  assertEquals(rig.session.poll(80_000_000), true);
  assertEquals(rig.take().map(({ length }) => length), [10]);
  assertEquals(rig.session.deadlineNs(), 160_000_000);
  assertEquals(rig.session.poll(160_000_000), true);
  assertEquals(rig.take().map(({ length }) => length), [100]);
  assertEquals(rig.session.poll(160_000_000), false);
  assertEquals(rig.session.deadlineNs(), Infinity);
  assertEquals(rig.counters.device, { requests: 5, bytes: 260, shortened: 1, limited: 3, interrupts: 4 });
});

/**
 * Writes a descriptor: address, length, and the two numbers behind them, whose meaning depends on the ring.
 */
function describe(
  memory: GuestMemory,
  at: number,
  address: number,
  length: number,
  ...last: [number, number]
) {
  const bytes = new DataView(new ArrayBuffer(16));
  bytes.setBigUint64(0, BigInt(address), true);
  bytes.setUint32(8, length, true);
  bytes.setUint16(12, last[0], true);
  bytes.setUint16(14, last[1], true);
  memory.copyIn(at, new Uint8Array(bytes.buffer), 0, 16);
}

Deno.test("EntropyDevice takes a request in a table longer than its ring of four", () => {
  for (const packed of [false, true]) {
    using _bytes = counting();
    using bench = new DeviceBench({ plugin: entropy, options: { queueSize: 4 } });
    bench.reset();
    const guest = new RawGuest({ ring: packed ? "packed" : "split", queueSize: 4 });
    const session = guest.attach(bench.device);
    const { memory, areaAddress: table, place: { size, descriptors, driver } } = guest;
    assertEquals([size, guest.features.has(VIRTIO_F_RING_PACKED)], [4, packed]);
    const [write, next] = [2, 1];
    const data = table + 4096;
    for (let i = 0; i < 100; i++) {
      const last: [number, number] = packed ? [0, write] : [write | (i < 99 ? next : 0), i + 1];
      describe(memory, table + 16 * i, data + i, 1, ...last);
    }
    describe(memory, descriptors, table, 1600, packed ? 0 : 4, packed ? 4 | 0x80 : 0);
    if (!packed) memory.copyIn(driver + 2, Uint8Array.of(1, 0), 0, 2);
    assertEquals(session.poll(0), true, session.lastFault?.message);
    const given = new Uint8Array(101);
    memory.copyOut(data, given, 0, 101);
    assertEquals(given, Uint8Array.of(...countedFrom(0, 100), 0));
    guest.detach();
  }
});

Deno.test("EntropyDevice answers a request that has waited, though its driver makes it longer each time", () => {
  const options = { rateLimitBytesPerS: 1000, burstBytes: 100 };
  using bench = new DeviceBench({ plugin: entropy, options });
  bench.reset();
  const guest = new RawGuest({ queueSize: 16, indirect: false });
  const session = guest.attach(bench.device);
  for (const length of [100, 1]) assert(guest.post(0, [], length) !== null);
  guest.kick(0);
  session.poll(0);
  const counters = bench.counters.device;
  assertEquals(counters.requests, 1);
  let rounds = 0;
  for (let length = 2; counters.requests < 2; length++) {
    guest.memory.writeU32(guest.place.descriptors + 16 + 8, length);
    session.poll(session.deadlineNs());
    assert(++rounds < 10, "it waits for ever");
  }
  assertEquals([rounds, counters.bytes], [1, 101]);
  guest.detach();
});

Deno.test("EntropyDevice does not fill its bucket anew when a driver resets it", () => {
  using rig = new Rig({ options: { rateLimitBytesPerS: 1000, burstBytes: 100 } });
  rig.put(100);
  assertEquals(rig.session.poll(0), true);
  rig.reset();
  const next = new RawGuest({ ring: "packed" });
  const session = next.attach(rig.device);
  const request = next.post(0, [], 100)!;
  next.kick(0);
  assertEquals(session.poll(0), false);
  assertEquals(session.deadlineNs(), 100_000_000);
  assertEquals(session.poll(100_000_000), true);
  next.poll(100_000_000);
  assertEquals([request.isDone, request.written.length], [true, 100]);
  next.detach();
});

Deno.test("EntropyDevice never lets more through than a burst and what flows in, and never waits longer than it must", () => {
  fc.assert(fc.property(
    fc.integer({ min: 1, max: 1_000_000_000 }),
    fc.integer({ min: 1, max: 65_536 }),
    fc.array(fc.record({ bytes: fc.integer({ min: 1, max: 65_536 }), pauseNs: fc.nat(2_000_000_000) }), {
      maxLength: 60,
    }),
    (rateLimitBytesPerS, burstBytes, steps) => {
      using bench = new DeviceBench({
        plugin: entropy,
        options: { rateLimitBytesPerS, burstBytes },
        heapBytes: BUFFER_BYTES,
      });
      const { session, guest } = bench;
      let nowNs = 0;
      let taken = 0;
      for (const { bytes, pauseNs } of steps) {
        nowNs += pauseNs;
        const wanted = Math.min(bytes, burstBytes);
        const request = bench.post(0, [], wanted);
        guest.kick(0);
        if (!session.poll(nowNs)) {
          const earliestNs = session.deadlineNs();
          assert(earliestNs > nowNs);
          assert(earliestNs <= nowNs + Math.ceil(burstBytes * 1e9 / rateLimitBytesPerS) + 1);
          nowNs = earliestNs;
          // At the moment it names it must let through, or a driver would wait for ever.
          assertEquals(session.poll(nowNs), true);
        }
        guest.poll(nowNs);
        assertEquals([request.isDone, request.written.length], [true, wanted]);
        taken += wanted;
        const most = burstBytes + nowNs * rateLimitBytesPerS / 1e9;
        assert(taken <= most * (1 + 1e-9) + 1e-3, `${taken} bytes by ${nowNs} ns, at most ${most}`);
      }
    },
  ));
});

Deno.test("EntropyDevice needs a reset after a request with bytes to read, and returns what came before it", () => {
  for (const ring of ["split", "packed"] as const) {
    for (const writable of [0, 8]) {
      const rig = new Rig({ ring });
      rig.put(32);
      rig.post(0, new Uint8Array(8), writable);
      rig.put(32);
      assertEquals(rig.session.poll(0), false);
      assertEquals(rig.session.status, READY | STATUS_NEEDS_RESET);
      assertEquals(rig.session.faults, { "buffers-wrong-direction": 1 });
      assertEquals([rig.guest.counters.configChanges, rig.guest.counters.interrupts], [1, 1]);
      assertEquals(rig.usedLengths(), [32]);
      assertEquals([rig.counters.device.requests, rig.counters.device.bytes], [1, 32]);
      assertEquals(rig.session.poll(1), false);
      assertEquals(rig.session.deadlineNs(), Infinity);
      assertEquals(rig.usedLengths(), []);
    }
  }
});

Deno.test("EntropyDevice touches nothing after a reset", () => {
  const rig = new Rig({ options: { rateLimitBytesPerS: 10, burstBytes: 10 } });
  rig.put(10, 10);
  rig.session.poll(0);
  assert(rig.session.deadlineNs() < Infinity);
  assertEquals(rig.take().length, 1);
  rig.reset();
  assertEquals(rig.device.deadlineNs(), Infinity);
  assertEquals(rig.device.poll(10_000_000_000), false);
  assertEquals(rig.usedLengths(), []);
  // Looks at the second buffer as well: no byte of memory may change after a reset.
  rig.guest.checkMemory();
  assertEquals(rig.guest.errors, []);
});

Deno.test("EntropyDevice has no queue until the driver starts one, and serves it from then on", () => {
  const rig = new Rig();
  const queues = [...rig.session.queues];
  const lent: (typeof queues[0])[] = [null];
  rig.session.writeStatus(0);
  const { memory, features } = rig.guest;
  rig.device.activate({ memory, features, interrupt() {}, configChanged() {}, queues: lent });
  rig.put(16);
  assertEquals(rig.device.poll(0), false);
  lent[0] = queues[0];
  rig.device.queuesChanged();
  assertEquals(rig.device.poll(0), true);
  assertEquals(rig.usedLengths(), [16]);
  lent[0] = null;
  assertEquals(rig.device.poll(0), false);
});

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
