import { assert, assertEquals, assertThrows } from "@std/assert";
import { DescriptorChain } from "../../rings/descriptor_chain.ts";
import {
  type Device,
  type Session,
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
} from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../core/features.ts";
import { PackedVirtqueue } from "../../rings/packed_virtqueue.ts";
import { DriverSession } from "../../core/session.ts";
import { SplitVirtqueue } from "../../rings/split_virtqueue.ts";
import { setupAt } from "./support/drivers.ts";
import { TestGuest } from "./support/guest.ts";

const RING = 0x1_0000_0000;
const OFFERED = FeatureSet.of(
  0,
  5,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_VERSION_1,
  VIRTIO_F_RING_PACKED,
);
const MODERN = FeatureSet.of(5, VIRTIO_F_VERSION_1);
const READY = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;

/** A device that writes down what happens to it. It dislikes feature 0 without feature 5. */
class LoggingDevice implements Device {
  readonly type = 42;
  readonly featureNames = new Map<number, string>();
  readonly name = "logging";
  readonly features = OFFERED;
  readonly queueSizes = [16, 8];
  readonly log: string[];
  session: Session | null = null;
  onPoll: () => boolean = () => true;
  onActivate: () => void = () => {};
  wake: () => void = () => {};

  constructor(log: string[]) {
    this.log = log;
  }

  queuesChanged(): void {}

  readConfig(offset: number, target: Uint8Array): void {
    for (let i = 0; i < target.length; i++) target[i] = offset + i < 4 ? offset + i + 1 : 0;
  }

  writeConfig(offset: number, source: Uint8Array): void {
    if (offset !== 0) throw new GuestError("config-write-invalid", `Offset ${offset} is read-only`);
    this.log.push(`config ${source}`);
  }

  acceptFeatures(features: FeatureSet): void {
    this.log.push(`accept ${features}`);
    if (features.has(0) && !features.has(5)) throw new GuestError("features-dependency-missing", "0 needs 5");
  }

  activate(session: Session): void {
    this.log.push("activate");
    this.session = session;
    this.onActivate();
  }

  reset(): void {
    this.log.push("reset");
    this.session = null;
  }

  drain(nowNs: number): void {
    this.log.push(`drain ${nowNs}`);
  }

  poll(): boolean {
    return this.onPoll();
  }

  deadlineNs(): number {
    return 77;
  }
}

function rig() {
  const log: string[] = [];
  const guest = new TestGuest();
  const device = new LoggingDevice(log);
  const session = new DriverSession(device, guest.memory, {
    interrupt: (queue) => log.push(`interrupt ${queue}`),
    configChanged: () => log.push("config changed"),
  });
  return {
    guest,
    device,
    session,
    log,
    /** Writes each status; the last one that is read back. */
    write(...values: number[]): number {
      for (const value of values) session.writeStatus(value);
      return session.status;
    },
    /** Goes the whole way as a modern driver. */
    start(features: FeatureSet = MODERN): void {
      session.writeStatus(STATUS_ACKNOWLEDGE);
      session.writeStatus(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
      session.writeDriverFeatures(features);
      session.writeStatus(STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
      session.setupQueue(0, setupAt(RING, 8));
      session.writeStatus(READY);
    },
  };
}

Deno.test("DriverSession leads a modern driver to an active device and back", () => {
  const { session, device, log, start, write } = rig();
  assertEquals([session.status, session.poll(0), session.deadlineNs()], [0, false, Infinity]);
  start();
  assertEquals(session.status, READY);
  assertEquals(log, [`accept ${MODERN}`, "activate"]);
  assertEquals(device.session === session, true);
  assertEquals([session.active, session.poll(0), session.deadlineNs()], [true, true, 77]);
  assert(session.queues[0] instanceof SplitVirtqueue);
  assertEquals([session.queues[0].size, session.queues[1]], [8, null]);
  assertEquals(session.features.equals(MODERN), true);
  session.interrupt(1);
  session.drain(5);
  assertEquals(log.slice(2), ["interrupt 1", "drain 5"]);
  assertEquals(write(0), 0);
  assertEquals(log.slice(4), ["reset"]);
  assertEquals([session.active, session.poll(0), session.deadlineNs()], [false, false, Infinity]);
  assertEquals([session.queues, session.features.isEmpty], [[null, null], true]);
  session.interrupt(1);
  session.drain(5);
  write(0);
  assertEquals(log.slice(5), []);
  assertEquals(session.faults, {});
  start();
  assertEquals([session.status, session.active], [READY, true]);
});

Deno.test("DriverSession forgets queues and features at a reset", () => {
  const { session, start, write } = rig();
  start();
  write(0, STATUS_ACKNOWLEDGE, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
  // Nothing accepted: a legacy driver, with no queues.
  assertEquals(write(STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK), 7);
  assertEquals([session.features.isEmpty, session.queues], [true, [null, null]]);
});

Deno.test("DriverSession takes several status bits at once, in their order", () => {
  const { session, log, write } = rig();
  session.writeDriverFeatures(MODERN);
  assertEquals(write(READY), READY);
  assertEquals(log, [`accept ${MODERN}`, "activate"]);
});

Deno.test("DriverSession refuses status writes against the rules, counts them, and stays as it was", () => {
  const cases: [before: number[], value: number][] = [
    [[], STATUS_DRIVER],
    [[], STATUS_FEATURES_OK],
    [[], STATUS_ACKNOWLEDGE | STATUS_FEATURES_OK],
    [[1], STATUS_DRIVER_OK | STATUS_ACKNOWLEDGE],
    [[1, 3], STATUS_ACKNOWLEDGE],
    [[1, 3], STATUS_DRIVER],
    [[1, 3], STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_DRIVER_OK],
    [[1, 3, 11], 3],
    [[1, 3, 11, 15], 11],
    [[1], 1 | 16],
    [[1], 1 | 32],
    [[1], 1 | STATUS_NEEDS_RESET],
    [[1], 256],
    [[1], -1],
    [[1], 1.5],
    [[1], NaN],
    [[1, 129], 131],
    [[1], 131],
  ];
  for (const [before, value] of cases) {
    const { session, log, write } = rig();
    session.writeDriverFeatures(MODERN);
    const status = write(...before);
    const logged = log.length;
    assertEquals(session.faults, {});
    assertEquals(write(value), status, `${before} then ${value}`);
    assertEquals(session.faults, { "status-transition-invalid": 1 }, `${before} then ${value}`);
    assertEquals(session.lastFault?.fault, "status-transition-invalid");
    assertEquals(log.length, logged);
  }
});

Deno.test("DriverSession does not mind a status that is written twice", () => {
  const { session, log, start, write } = rig();
  start();
  assertEquals(write(READY), READY);
  assertEquals(log, [`accept ${MODERN}`, "activate"]);
  assertEquals(session.faults, {});
});

Deno.test("DriverSession leaves FEATURES_OK off for features that were not offered, or that the device refuses", () => {
  for (
    const [features, fault] of [
      [MODERN.with(7), "features-unknown"],
      [FeatureSet.of(0, VIRTIO_F_VERSION_1), "features-dependency-missing"],
      [FeatureSet.of(5, VIRTIO_F_RING_PACKED), "features-dependency-missing"],
    ] as const
  ) {
    const { session, write } = rig();
    write(1, 3);
    session.writeDriverFeatures(features);
    assertEquals(write(11), 3);
    assertEquals(session.faults, { [fault]: 1 });
    // All at once: DRIVER_OK does not stick either.
    assertEquals(write(READY), 3);
    assertEquals([session.faults[fault], session.active], [2, false]);
    // The driver may try others.
    session.writeDriverFeatures(MODERN);
    assertEquals(write(11, 15), 15);
  }
});

Deno.test("DriverSession refuses features once they are settled", () => {
  const { session, write } = rig();
  write(1, 3);
  session.writeDriverFeatures(MODERN);
  write(11);
  session.writeDriverFeatures(MODERN.with(0));
  write(15);
  session.writeDriverFeatures(FeatureSet.none);
  assertEquals(session.faults, { "features-after-ok": 2 });
  assertEquals(session.features.equals(MODERN), true);
});

Deno.test("DriverSession takes a legacy driver without FEATURES_OK", () => {
  const { session, log, write } = rig();
  write(1, 3);
  session.setupQueue(1, setupAt(RING, 4));
  session.writeDriverFeatures(FeatureSet.of(5, VIRTIO_F_INDIRECT_DESC));
  assertEquals(write(7), 7);
  assertEquals([session.active, session.features.has(5), session.queues[1]?.size], [true, true, 4]);
  assertEquals(log, [`accept ${FeatureSet.of(5, 28)}`, "activate"]);
  // Features are settled, by whatever name.
  session.writeDriverFeatures(FeatureSet.none);
  assertEquals(write(15), 7);
  assertEquals(session.faults, { "features-after-ok": 1, "status-transition-invalid": 1 });
});

Deno.test("DriverSession answers a legacy driver's bad features with NEEDS_RESET", () => {
  const { session, log, write } = rig();
  write(1, 3);
  session.writeDriverFeatures(FeatureSet.of(9));
  assertEquals(write(7), 7 | STATUS_NEEDS_RESET);
  assertEquals([session.faults, session.active, log], [{ "features-unknown": 1 }, false, ["config changed"]]);
});

Deno.test("DriverSession builds queues as the features say", () => {
  const buffer = (guest: TestGuest, first: number, second: number) => {
    guest.setDescriptor(0x10400, 0x10000, 6, 0, 0);
    guest.setDescriptor(RING, 0x10400, 16, first, second);
    guest.setNumber(setupAt(RING, 8).driver + 2, 2, 1);
  };
  const chain = new DescriptorChain();
  const split = rig();
  buffer(split.guest, 4, 0);
  split.start(MODERN.with(VIRTIO_F_INDIRECT_DESC));
  assertEquals(split.session.queues[0]?.pop(chain), true);
  assertEquals(chain.readableBytes, 6);
  const direct = rig();
  buffer(direct.guest, 4, 0);
  direct.start(MODERN);
  assertThrows(() => direct.session.queues[0]?.pop(chain), GuestError, "indirect-not-negotiated");
  const packed = rig();
  buffer(packed.guest, 0, 0x0084);
  packed.start(MODERN.with(VIRTIO_F_INDIRECT_DESC, VIRTIO_F_RING_PACKED, VIRTIO_F_EVENT_IDX));
  assert(packed.session.queues[0] instanceof PackedVirtqueue);
  assertEquals(packed.session.queues[0].enableKicks(), true);
  // The event word says DESC, which only EVENT_IDX allows.
  assertEquals(packed.guest.number(setupAt(RING, 8).device + 2, 2), 2);
  assertEquals(packed.session.queues[0].pop(chain), true);
});

Deno.test("DriverSession.setupQueue() refuses what the device does not have, and what comes too late", () => {
  const { session, start } = rig();
  for (const index of [2, -1, 0.5, NaN]) session.setupQueue(index, setupAt(RING, 4));
  assertEquals(session.faults, { "queue-index-invalid": 4 });
  for (const [index, size] of [[0, 17], [1, 16], [0, 0], [0, -4], [0, NaN], [0, 32768]]) {
    session.setupQueue(index, setupAt(RING, size));
  }
  assertEquals(session.faults, { "queue-index-invalid": 4, "queue-size-invalid": 6 });
  start();
  session.setupQueue(1, setupAt(RING, 4));
  assertEquals(session.faults["queue-setup-too-late"], 1);
  assertEquals(session.queues[1], null);
});

Deno.test("DriverSession.setupQueue() keeps what it was told, not the object", () => {
  const { session, start } = rig();
  const setup = { ...setupAt(RING + 0x1000, 4) };
  session.setupQueue(1, setup);
  (setup as { size: number }).size = 3;
  start();
  assertEquals([session.queues[1]?.size, session.faults], [4, {}]);
});

Deno.test("DriverSession answers impossible rings with NEEDS_RESET, and never activates the device", () => {
  for (
    const [change, fault] of [
      [{ size: 6 }, "queue-size-invalid"],
      [{ descriptors: RING + 8 }, "ring-misaligned"],
      [{ device: 0x20000 }, "address-out-of-range"],
    ] as const
  ) {
    const { session, log, start, write } = rig();
    session.setupQueue(1, { ...setupAt(RING, 8), ...change });
    start();
    assertEquals(session.status, READY | STATUS_NEEDS_RESET);
    assertEquals(session.faults, { [fault]: 1 });
    assertEquals(log, [`accept ${MODERN}`, "config changed"]);
    assertEquals(session.poll(0), false);
    assertEquals(write(0), 0);
  }
});

Deno.test("DriverSession goes on with a ring at a given position and tells where it stands", () => {
  const { guest, session, write } = rig();
  const setup = setupAt(RING, 8);
  for (let i = 0; i < 8; i++) guest.setDescriptor(RING + 16 * i, 0x10000, 1, 0, 0);
  guest.setNumber(setup.driver + 2, 2, 105);
  guest.setNumber(setup.device + 2, 2, 100);
  assertEquals(session.queueBase(0), null);
  session.setupQueue(0, setup, 103);
  session.writeDriverFeatures(MODERN);
  write(READY);
  const chain = new DescriptorChain();
  assertEquals(session.queueBase(0), 103);
  assertEquals([session.queues[0]?.pop(chain), session.queueBase(0)], [true, 104]);
  assertEquals([session.queueBase(1), session.queueBase(9)], [null, null]);
});

Deno.test("DriverSession turns a GuestError in poll() into NEEDS_RESET: counted, told, and the device let go", () => {
  const { session, device, log, start, write } = rig();
  start();
  device.onPoll = () => {
    throw new GuestError("descriptor-loop", "around and around");
  };
  assertEquals(session.poll(0), false);
  assertEquals(session.status, READY | STATUS_NEEDS_RESET);
  assertEquals(session.faults, { "descriptor-loop": 1 });
  assertEquals(session.lastFault?.message, "descriptor-loop: around and around");
  assertEquals(log.slice(2), ["reset", "config changed"]);
  device.onPoll = () => true;
  assertEquals([session.poll(1), session.deadlineNs()], [false, Infinity]);
  session.interrupt(0);
  assertEquals(log.slice(4), []);
  // Nothing but a reset leads on; NEEDS_RESET may be repeated by the driver or not.
  assertEquals(write(READY, READY | STATUS_NEEDS_RESET), READY | STATUS_NEEDS_RESET);
  assertEquals(session.faults, { "descriptor-loop": 1 });
  write(0);
  assertEquals(log.slice(4), []);
  start();
  assertEquals([session.status, session.poll(2)], [READY, true]);
  assertEquals(session.faults, { "descriptor-loop": 1 });
});

Deno.test("DriverSession.fail() while NEEDS_RESET is set only counts", () => {
  const { session, log, start } = rig();
  start();
  const error = new GuestError("chain-empty", "nothing in it");
  session.fail(error);
  session.fail(error);
  assertEquals(session.faults, { "chain-empty": 2 });
  assertEquals(log.slice(2), ["reset", "config changed"]);
});

Deno.test("DriverSession.fail() before DRIVER_OK does not notify (section 2.1.2)", () => {
  const { session, log, write } = rig();
  write(1);
  session.fail(new GuestError("address-out-of-range", "far away"));
  assertEquals([session.status, log], [1 | STATUS_NEEDS_RESET, []]);
  assertEquals(write(3, 3 | STATUS_NEEDS_RESET), 1 | STATUS_NEEDS_RESET);
  assertEquals(session.faults["status-transition-invalid"], 2);
});

Deno.test("DriverSession lets a driver reset from within the notification of a failure", () => {
  const guest = new TestGuest();
  const log: string[] = [];
  const device = new LoggingDevice(log);
  const session: DriverSession = new DriverSession(device, guest.memory, {
    interrupt: () => {},
    configChanged: () => session.writeStatus(0),
  });
  session.writeDriverFeatures(MODERN);
  session.writeStatus(READY);
  device.onPoll = () => {
    throw new GuestError("descriptor-loop", "around and around");
  };
  assertEquals(session.poll(0), false);
  assertEquals([session.status, session.active], [0, false]);
  assertEquals(log.filter((entry) => entry === "reset").length, 1);
});

Deno.test("DriverSession passes errors on that are not the guest's", () => {
  const { session, device, log, start } = rig();
  start();
  device.onPoll = () => {
    throw new RangeError("a mistake of our own");
  };
  assertThrows(() => session.poll(0), RangeError, "a mistake of our own");
  assertEquals([session.status, session.faults, log.length], [READY, {}, 2]);
});

Deno.test("DriverSession takes a GuestError from activate() and drain() as from poll()", () => {
  const early = rig();
  early.device.onActivate = () => {
    throw new GuestError("queue-not-configured", "queue 1 is needed");
  };
  early.start();
  assertEquals(early.session.status, READY | STATUS_NEEDS_RESET);
  assertEquals(early.log.slice(1), ["activate", "reset", "config changed"]);
  const late = rig();
  late.start();
  late.device.drain = () => {
    throw new GuestError("descriptor-loop", "at the last moment");
  };
  late.session.drain(9);
  assertEquals(late.session.status, READY | STATUS_NEEDS_RESET);
  assertEquals(late.log.slice(2), ["reset", "config changed"]);
});

Deno.test("DriverSession lets the device go when the driver sets FAILED", () => {
  const { session, log, start, write } = rig();
  start();
  assertEquals(write(READY | STATUS_FAILED), READY | STATUS_FAILED);
  assertEquals([session.active, session.poll(0), log.slice(2)], [false, false, ["reset"]]);
  write(0);
  assertEquals([session.status, session.faults, log.slice(2)], [0, {}, ["reset"]]);
});

Deno.test("DriverSession.readConfig() and writeConfig() reach the device, and no bad offset does", () => {
  const { session, log } = rig();
  const target = new Uint8Array(6).fill(9);
  session.readConfig(2, target);
  assertEquals(target, Uint8Array.of(3, 4, 0, 0, 0, 0));
  for (const offset of [-1, 0.5, NaN, 2 ** 53]) {
    target.fill(9);
    session.readConfig(offset, target);
    assertEquals(target, new Uint8Array(6));
    session.writeConfig(offset, target);
  }
  assertEquals(session.faults, { "config-write-invalid": 4 });
  session.writeConfig(0, Uint8Array.of(1, 2));
  session.writeConfig(1, Uint8Array.of(1, 2));
  assertEquals([log, session.faults], [["config 1,2"], { "config-write-invalid": 5 }]);
  assertEquals(session.status, 0);
});

Deno.test("DriverSession.configChanged() counts a generation and tells a driver that is ready", () => {
  const { session, log, start } = rig();
  session.configChanged();
  assertEquals([session.configGeneration, log], [1, []]);
  start();
  session.configChanged();
  assertEquals([session.configGeneration, log.at(-1)], [2, "config changed"]);
});
