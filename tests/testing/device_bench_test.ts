import { assert, assertEquals, assertThrows } from "@std/assert";
import { z } from "zod";
import { entropy } from "../../mod.ts";
import {
  defineDevice,
  type Device,
  type DevicePlugin,
  FeatureSet,
  HostError,
  KEEP,
  type QueueRequest,
  QueueService,
  type Session,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../plugin.ts";
import { DeviceBench, type DeviceBenchSettings } from "../../testing/mod.ts";

interface Misdeeds {
  /** Answers instead of the handler. */
  answer?(request: QueueRequest): number;
  /** What happens after a round. */
  after?(session: Session): void;
  /** Goes on after the reset. */
  afterReset?(session: Session): void;
}

/**
 * A device of two queues: on queue 0 it answers with what it was sent, on queue 1 it answers when it is told
 * to.
 */
function echo(
  misdeeds: Misdeeds = {},
): { plugin: DevicePlugin; kept: QueueRequest[]; service(): QueueService } {
  const kept: QueueRequest[] = [];
  let service: QueueService;
  const plugin = defineDevice({
    name: "echo",
    options: z.strictObject({}),
    create({ name, publish }): Device {
      const counters = publish({ interrupts: 0 });
      const bytes = new Uint8Array(4096);
      const answer = (request: QueueRequest) =>
        request.write(bytes, 0, request.read(bytes, 0, Math.min(bytes.length, request.writableBytes)));
      service = new QueueService({
        handlers: [misdeeds.answer ?? answer, (request) => {
          kept.push(request);
          return KEEP;
        }],
        wake: () => device.wake(),
        counters,
      });
      let session: Session | null = null;
      const features = [VIRTIO_F_VERSION_1, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC, VIRTIO_F_RING_PACKED];
      const device: Device = {
        type: 42,
        name,
        features: FeatureSet.of(3, ...features),
        featureNames: new Map([[3, "LOUD"]]),
        queueSizes: [16, 8],
        inflight: service,
        wake: () => {},
        readConfig: (offset, target) => target.forEach((_, i) => target[i] = offset + i),
        writeConfig() {},
        acceptFeatures() {},
        activate(given) {
          session = given;
          service.activate(given);
        },
        queuesChanged: () => service.queuesChanged(),
        reset() {
          service.reset();
          misdeeds.afterReset?.(session!);
        },
        drain: () => service.drain(),
        deadlineNs: () => service.deadlineNs(),
        poll(nowNs) {
          const did = service.poll(nowNs);
          misdeeds.after?.(session!);
          return did;
        },
      };
      return device;
    },
  });
  return { plugin, kept, service: () => service };
}

const RINGS: DeviceBenchSettings["guest"][] = [
  { ring: "split" },
  { ring: "split", eventIndex: false, indirect: false, memoryRegions: 4 },
  { ring: "packed", queueSize: 7, indirect: "always" },
  { ring: "packed", eventIndex: false, polling: true },
];

for (const guest of RINGS) {
  Deno.test(`DeviceBench drives a device through any ring: ${JSON.stringify(guest)}`, () => {
    using bench = new DeviceBench({ plugin: echo().plugin, guest: guest! });
    assertEquals([bench.features.has(3), bench.features.has(VIRTIO_F_RING_PACKED)], [
      true,
      guest!.ring === "packed",
    ]);
    for (let lap = 0; lap < 40; lap++) {
      const sent = Uint8Array.from({ length: 90 + lap }, (_, i) => i + lap);
      const request = bench.request(0, [sent.subarray(0, 10), sent.subarray(10)], [1, 50, 500]);
      assertEquals([request.isDone, request.readableBytes, request.writableBytes], [true, sent.length, 551]);
      assertEquals(request.written, sent);
    }
    assertEquals([...bench.readConfig(5, 3)], [5, 6, 7]);
    assertEquals(bench.guest.counters.returned, 40);
    assertEquals(bench.faults, {});
  });
}

Deno.test("DeviceBench lets a device keep requests, in any order, and waits for them", async () => {
  const { plugin, kept, service } = echo();
  await using bench = new DeviceBench({ plugin });
  const [first, second] = [bench.request(1, [], 4), bench.request(1, [], 4)];
  assertEquals([bench.inFlight, first.isDone, second.isDone], [2, false, false]);
  assert(service().complete(kept[1], kept[1].write(Uint8Array.of(7), 0, 1)));
  bench.settle();
  assertEquals([first.isDone, second.isDone, [...second.written]], [false, true, [7]]);
  setTimeout(() => service().complete(kept[0], 0), 20);
});

Deno.test("DeviceBench tells when requests stay in flight", async () => {
  const { plugin, kept, service } = echo();
  const bench = new DeviceBench({ plugin });
  bench.request(1, [], 4);
  assertThrows(() => bench.close(), Error, "1 requests are in flight");
  service().complete(kept[0], 0);
  await using _other = new DeviceBench({ plugin: entropy });
});

Deno.test("DeviceBench finds what a device writes where it must not, and lengths that cannot be", () => {
  const at = (session: Session, offset: number) =>
    session.memory.regions[0].guestAddress + session.memory.regions[0].size - 4096 - offset;
  const wrong: [Misdeeds, RegExp][] = [
    [{ answer: ({ writableBytes }) => writableBytes + 1 }, /used length 9 is beyond the 8 bytes/],
    [
      { after: (session) => session.memory.writeU8(at(session, 8192), 1) },
      /was written, where no writable buffer/,
    ],
    [
      { afterReset: (session) => session.memory.writeU8(at(session, 8192), 1) },
      /was written after the reset/,
    ],
  ];
  for (const [misdeeds, message] of wrong) {
    const bench = new DeviceBench({ plugin: echo(misdeeds).plugin });
    bench.request(0, Uint8Array.of(1), 8);
    const error = assertThrows(() => bench.close(), Error);
    assert(message.test(error.message), error.message);
  }
});

Deno.test("DeviceBench finds a device that writes into what it must only read, or behind a buffer", () => {
  for (const [offset, message] of [[0, /must only read/], [5, /no writable buffer/]] as const) {
    let address = -1;
    const { plugin } = echo({
      answer: (request) => {
        const bytes = new Uint8Array(1);
        request.read(bytes, 0, 1);
        return 0;
      },
      after: (session) => {
        if (address < 0) return;
        session.memory.writeU8(address + offset, 0xee);
        address = -1;
      },
    });
    const bench = new DeviceBench({ plugin });
    // The mark is searched in memory, as a device that knows no better would write where it has read.
    bench.post(0, Uint8Array.of(0x11, 0x22, 0x33, 0x44, 0x55), 0);
    const [{ guestAddress, bytes }] = bench.session.memory.regions;
    for (let i = 0; i < bytes.length - 5; i++) {
      if ([0x11, 0x22, 0x33, 0x44, 0x55].every((byte, j) => bytes[i + j] === byte)) {
        address = guestAddress + i;
      }
    }
    assert(address >= 0);
    bench.kick(0);
    const error = assertThrows(() => bench.close(), Error);
    assert(message.test(error.message), error.message);
  }
});

Deno.test("DeviceBench counts what a driver does wrong, and restarts", () => {
  using bench = new DeviceBench({ plugin: entropy, options: { rateLimitBytesPerS: 1000, burstBytes: 10 } });
  bench.request(0, Uint8Array.of(1), 8);
  assertEquals(bench.faults, { "buffers-wrong-direction": 1 });
  bench.restart();
  assertEquals(bench.faults, {});
  assertEquals(bench.request(0, [], 10).written.length, 10);
  const late = bench.request(0, [], 5);
  bench.advanceTo(4_999_999);
  assertEquals(late.isDone, false);
  bench.advanceTo(5_000_000);
  assertEquals(late.written.length, 5);
  assertEquals(bench.counters.device, { requests: 2, bytes: 15, shortened: 0, limited: 1, interrupts: 2 });
});

Deno.test("DeviceBench refuses wrong options, wrong objects and requests that cannot be", () => {
  assertThrows(() => new DeviceBench({ plugin: entropy, options: { queueSize: 3 } }), TypeError, "queueSize");
  assertThrows(
    () => new DeviceBench({ plugin: entropy, options: { packedRing: false }, guest: { ring: "packed" } }),
    HostError,
    "RING_PACKED",
  );
  const bad = { ...entropy, create: () => ({}) } as unknown as DevicePlugin;
  assertThrows(() => new DeviceBench({ plugin: bad }), TypeError);
  using bench = new DeviceBench({ plugin: entropy, options: { queueSize: 2 } });
  assertThrows(() => bench.post(1, [], 1), RangeError, "no such queue");
  assertThrows(() => bench.post(0, [], 0), RangeError, "0 pieces");
  bench.post(0, [], 1);
  bench.post(0, [], 1);
  assertThrows(() => bench.post(0, [], 1), RangeError, "full");
  bench.kick(0);
});

Deno.test("DeviceBench gives every request room again: a heap that was used up is whole afterwards", () => {
  using bench = new DeviceBench({ plugin: entropy, heapBytes: 100_000 });
  for (let lap = 0; lap < 50; lap++) {
    const sizes = [17_000 + lap, 1, 30_000, 40_000 - lap];
    const all = sizes.map((size) => bench.post(0, [], size));
    bench.kick(0);
    assertEquals(all.map(({ written }) => written.length), sizes);
  }
});
