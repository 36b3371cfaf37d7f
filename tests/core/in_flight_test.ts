/**
 * Every event at every point of an asynchronous request's life, with a driver that programs the device
 * directly. What was given back is filled with a pattern, and looked at byte by byte after every late answer.
 */
import { assert, assertEquals } from "@std/assert";
import {
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
} from "../../core/device.ts";
import { FeatureSet } from "../../core/features.ts";
import { DriverSession } from "../../core/session.ts";
import { PackedDriver, setupAt, SplitDriver, type TestDriver } from "./support/drivers.ts";
import { TestGuest } from "./support/guest.ts";
import { LateDevice } from "./support/late_device.ts";

const READY = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;
const SIZE = 16;
const RING = 0x10000;
const BUFFERS = 0x12000;
const LIMIT_NS = 1_000_000;

/** How far requests have come when something happens. */
const POINTS = ["posted", "taken", "completed", "some returned", "all returned"] as const;
/** What happens. */
const EVENTS = ["reset", "fault", "failed"] as const;
/** When the answers come. */
const ANSWERS = ["in time", "too late", "never"] as const;

class Rig {
  readonly guest = new TestGuest();
  readonly device: LateDevice;
  readonly session: DriverSession;
  driver!: TestDriver;
  readonly #packed: boolean;
  nowNs = 0;
  configChanges = 0;

  constructor(packed: boolean, device = new LateDevice({ queueSize: SIZE })) {
    this.#packed = packed;
    this.device = device;
    this.session = new DriverSession(device, this.guest.memory, {
      interrupt() {},
      configChanged: () => void this.configChanges++,
    });
    this.start();
  }

  start(): void {
    const { session, guest } = this;
    for (const span of guest.spans()) span.fill(0);
    const setup = setupAt(RING, SIZE);
    this.driver = new (this.#packed ? PackedDriver : SplitDriver)(guest, setup);
    session.writeStatus(STATUS_ACKNOWLEDGE | STATUS_DRIVER);
    session.writeDriverFeatures(FeatureSet.from(this.#packed ? [28, 29, 32, 34] : [28, 29, 32]));
    session.writeStatus(READY & ~STATUS_DRIVER_OK);
    session.setupQueue(0, setup);
    session.writeStatus(READY);
  }

  post(count: number): void {
    for (let i = 0; i < count; i++) {
      const element = { address: BUFFERS + i * 256, length: 256, writable: true };
      this.driver.post({ elements: [element], table: null, direct: 0 });
    }
    this.driver.expose();
  }

  poll(rounds = 1): void {
    for (let i = 0; i < rounds; i++) this.session.poll(this.nowNs);
  }

  /** Brings four requests to a point of their lives. Returns how many are in flight. */
  bringTo(point: typeof POINTS[number]): number {
    this.post(4);
    if (point === "posted") return 0;
    this.poll();
    const [a, b, c, d] = this.device.held;
    if (point === "taken") return 4;
    this.device.answer(d, 4);
    this.device.answer(b, 2);
    if (point === "completed") return 4;
    this.poll();
    if (point === "some returned") return 2;
    this.device.answer(c, 3);
    this.device.answer(a, 1);
    this.poll();
    return 0;
  }

  /** The driver posts what breaks a rule. */
  breakRing(): void {
    this.driver.post({ elements: [{ address: BUFFERS, length: 0, writable: true }], table: null, direct: 0 });
    this.driver.expose();
  }

  /** Fills all memory: it is the driver's again, and used for something else. */
  giveBack(): void {
    for (const span of this.guest.spans()) span.fill(0xa5);
  }

  assertUntouched(message: string): void {
    for (const span of this.guest.spans()) {
      assert(span.every((byte) => byte === 0xa5), `${message}: memory that was given back was written`);
    }
  }

  answerAll(): { written: number; taken: boolean }[] {
    return [...this.device.held].reverse().map((request, i) => this.device.answer(request, 0x40 + i));
  }
}

for (const packed of [false, true]) {
  Deno.test(`DriverSession waits for requests in flight, and nothing that was given back is touched (${packed ? "packed" : "split"})`, () => {
    for (const point of POINTS) {
      for (const event of EVENTS) {
        for (const answers of ANSWERS) check(packed, point, event, answers);
      }
    }
  });
}

function check(
  packed: boolean,
  point: typeof POINTS[number],
  event: typeof EVENTS[number],
  answers: typeof ANSWERS[number],
): void {
  const name = `${event} when ${point}, answers ${answers}`;
  const rig = new Rig(packed);
  const { session, device } = rig;
  let busy = rig.bringTo(point);
  if (event === "fault") {
    rig.breakRing();
    rig.poll(2);
    assertEquals(session.status & STATUS_NEEDS_RESET, STATUS_NEEDS_RESET, name);
    busy = device.held.length;
  } else if (event === "failed") {
    session.writeStatus(session.status | STATUS_FAILED);
    // What was completed and not published is given up with the rest, and is over.
    busy = device.held.length;
  }
  assertEquals(device.inflight.count, busy, name);
  // A fault and FAILED give everything up at once; memory is the driver's when it has read 0.
  const isGivenUp = event !== "reset";
  session.writeStatus(0);
  if (busy === 0) {
    assertEquals(session.status, 0, name);
  } else {
    assert(session.status !== 0, `${name}: the reset is done before ${busy} requests are over`);
    session.writeStatus(0);
    session.writeStatus(READY);
    rig.poll(3);
    const rest = device.held.length;
    if (rest > 0) {
      assert(session.status !== 0, `${name}: the reset is done before ${rest} requests are over`);
      assertEquals(device.pauses, 1, name);
    }
    if (answers === "in time") {
      for (const { taken } of rig.answerAll()) assertEquals(taken, !isGivenUp, name);
      rig.poll();
      if (!isGivenUp) {
        const ids = rig.driver.collect().map(({ length }) => length);
        assert(
          ids.length >= rest && ids.every((length) => length === 1),
          `${name}: what was answered is returned`,
        );
      }
    } else if (rest > 0) {
      rig.nowNs = LIMIT_NS - 1;
      rig.poll();
      assertEquals(session.faults["quiesce-timeout"] ?? 0, 0, name);
      rig.nowNs = LIMIT_NS + 1;
      rig.poll(3);
      assertEquals(session.faults["quiesce-timeout"], 1, name);
      assertEquals(session.status & STATUS_NEEDS_RESET, STATUS_NEEDS_RESET, name);
      // The device has failed: it works no ring any more, though the requests are not over.
      rig.giveBack();
      rig.poll(3);
      rig.assertUntouched(name);
      if (answers === "never") {
        assert(session.status !== 0 && device.inflight.count === rest, name);
        return;
      }
      for (const { written, taken } of rig.answerAll()) assertEquals([written, taken], [0, false], name);
      rig.poll();
    }
    rig.poll();
    assertEquals([session.status, device.inflight.count], [0, 0], name);
  }
  rig.giveBack();
  rig.nowNs += 10 * LIMIT_NS;
  for (const { taken } of rig.answerAll()) assertEquals(taken, false, name);
  rig.poll(5);
  session.drain(rig.nowNs);
  rig.assertUntouched(name);
  // And the device serves the next driver.
  rig.start();
  rig.post(2);
  rig.poll(2);
  assertEquals(device.held.length, 2, name);
  rig.answerAll();
  rig.poll();
  assertEquals(rig.driver.collect().map(({ length }) => length), [1, 1], name);
}

Deno.test("DriverSession refuses a device whose requests of an earlier driver are in flight", () => {
  const first = new Rig(false);
  first.bringTo("taken");
  first.device.reset();
  const second = new Rig(false, first.device);
  assertEquals(second.session.status & STATUS_NEEDS_RESET, STATUS_NEEDS_RESET);
  assertEquals(second.session.faults["quiesce-timeout"], 1);
  first.answerAll();
  second.session.writeStatus(0);
  second.start();
  assertEquals(second.session.status, READY);
});

Deno.test("DriverSession.giveUp() ends a driver that does not wait, and late answers touch nothing", () => {
  for (const packed of [false, true]) {
    const rig = new Rig(packed);
    rig.bringTo("completed");
    rig.session.giveUp();
    assertEquals([rig.session.status, rig.device.resets], [READY, 0], "there is no reset to give up");
    rig.session.writeStatus(0);
    rig.session.giveUp();
    assertEquals([rig.device.resets, rig.device.inflight.count], [1, 2]);
    rig.giveBack();
    for (const { written, taken } of rig.answerAll()) assertEquals([written, taken], [0, false]);
    rig.assertUntouched("a driver that went");
    const next = new Rig(packed, rig.device);
    assertEquals(next.session.status, READY);
    next.post(1);
    next.poll();
    assertEquals(rig.device.held.length, 1);
  }
});

Deno.test("DriverSession tells when the time of a reset is over, and wakes for a late answer", () => {
  const rig = new Rig(true);
  rig.bringTo("taken");
  rig.session.writeStatus(0);
  assertEquals(rig.session.deadlineNs(), Infinity);
  rig.nowNs = 5;
  rig.poll();
  assertEquals(rig.session.deadlineNs(), LIMIT_NS + 5);
  const { wakes } = rig.device;
  rig.answerAll();
  assertEquals(rig.device.wakes, wakes + 4);
  assertEquals([rig.session.poll(6), rig.session.status, rig.session.deadlineNs()], [true, 0, Infinity]);
});
