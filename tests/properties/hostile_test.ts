import "./support/shared_arenas.ts";
import type { NetGuest } from "../../devices/net/driver/mod.ts";
import { assert, assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { newRegistry } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { DriverSession } from "../../core/session.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import type { CablePort } from "../../transports/loopback.ts";
import type { LoopbackDriver } from "../../transports/loopback_driver/mod.ts";
import { anyMachine, NASTY, steps } from "./support/arbitraries.ts";
import { configOf } from "./support/machine.ts";
import { Packet } from "./support/packet.ts";
import { type FrameKind, type MachineChoice, possible, type Step, waitNs } from "./support/scenario.ts";
import { SEED } from "./support/settings.ts";
import { Traffic } from "./support/traffic.ts";
import { framePool } from "../../pipeline/kinds.ts";

/**
 * Guests that break the rules: rings and descriptors overwritten while frames flow, commands of any kind, and
 * any bytes from the network. The program lives, every fault has a name, and the next driver finds a device
 * that works.
 */

/** Turns at one moment after which a machine is taken to be spinning. */
const MAX_TURNS = 20_000;

/** Where a guest has put its queues, as the device is told. */
interface Place {
  readonly size: number;
  readonly descriptors: number;
  readonly driver: number;
  readonly device: number;
}

/** A machine whose guest's rings can be found. */
class Victim implements AsyncDisposable {
  readonly machine: Machine;
  readonly guest: NetGuest;
  readonly port: CablePort;
  readonly places: Place[] = [];
  readonly received: Uint8Array[] = [];

  private constructor(machine: Machine) {
    this.machine = machine;
    const driver = machine.devices[0].driver as LoopbackDriver<NetGuest>;
    this.guest = driver.guest;
    this.port = machine.devices[0].parts.network as CablePort;
    driver.hooks.onPacket = ({ bytes }) => this.received.push(bytes);
    this.#spy(() => machine.start());
    this.rest();
  }

  static async open(choice: MachineChoice): Promise<Victim> {
    const config = await parseConfig(JSON.stringify(configOf(choice)), import.meta.url, newRegistry());
    return new Victim(buildMachine(config));
  }

  /** Turns until no part does anything. */
  rest(): void {
    let turns = 0;
    while (this.machine.parts.reactor.turn()) assert(++turns < MAX_TURNS, "the machine comes to no rest");
  }

  advance(byNs: number): void {
    const { reactor } = this.machine.parts;
    const end = reactor.clock.nowNs() + byNs;
    for (let stops = 0;; stops++) {
      assert(stops < MAX_TURNS, "the machine does not get on in time");
      const due = reactor.deadlineNs();
      if (due > end) break;
      this.machine.parts.manualClock!.advanceTo(Math.max(due, reactor.clock.nowNs()));
      this.rest();
    }
    this.machine.parts.manualClock!.advanceTo(end);
  }

  attachAnew(): void {
    this.guest.detach();
    this.places.length = 0;
    this.#spy(() => this.guest.attach(this.machine.devices[0].device));
    this.rest();
  }

  /** Does the device work, both ways? */
  assertWorks(): void {
    this.received.length = 0;
    const carried: Uint8Array[] = [];
    const stop = this.port.tap((frame) => carried.push(frame.toBytes()));
    const packet = new Packet();
    packet.protocol = 17;
    const frames = [1, 2, 3, 4, 5].map((salt) => {
      packet.salt = salt;
      return packet.write();
    });
    for (const frame of frames) assert(this.port.inject(frame));
    this.rest();
    this.advance(20_000_000);
    // As text, so that a difference can be read.
    assertEquals(this.received.slice(-5).map(String), frames.map(String));
    for (const frame of frames.slice(0, 1)) assert(this.guest.send(frame));
    this.rest();
    assertEquals(String(carried.at(-1)), String(frames[0]));
    stop();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.machine.close();
    assertEquals(framePool(this.machine.parts.scope).inUse, 0, "frames are not back at the end");
  }

  /** Listens to what the guest tells the device about its queues. */
  #spy(action: () => void): void {
    const original = DriverSession.prototype.setupQueue;
    const { places } = this;
    DriverSession.prototype.setupQueue = function (index, setup, base): void {
      places.push(setup);
      original.call(this, index, setup, base);
    };
    try {
      action();
    } finally {
      DriverSession.prototype.setupQueue = original;
    }
  }
}

/** Something that is overwritten: which part of which queue, where in it, and by what. */
type Hit = readonly [
  queue: number,
  part: "descriptors" | "driver" | "device" | "table",
  at: number,
  value: number,
];

const hit: fc.Arbitrary<Hit> = fc.tuple(
  fc.nat(20),
  fc.constantFrom("descriptors", "driver", "device", "table"),
  fc.nat(0xffff),
  fc.oneof(
    fc.nat(40),
    fc.constantFrom(0xffff, 0xffff_ffff, 0x8000_0000, 0x0004_0001, 0x0002_ffff, 0x1_0000, 0x7fff, 0x8000),
    fc.nat(0xffff_ffff),
  ),
);

function strike(victim: Victim, [queue, part, at, value]: Hit): void {
  const { places, guest: { memory } } = victim;
  const place = places[queue % places.length];
  if (part === "table") {
    // The table that a descriptor points to, if it does.
    const descriptor = place.descriptors + 16 * (at % place.size);
    const address = memory.readU32(descriptor) + memory.readU32(descriptor + 4) * 2 ** 32;
    const flags = memory.readU32(descriptor + 12);
    if ((flags & 0x4_0004) !== 0) writeIfThere(victim, address + (at & 0x3c), value);
    return;
  }
  const length =
    { descriptors: 16 * place.size, driver: 4 + 2 * place.size, device: 4 + 8 * place.size }[part];
  // The first words of a ring are flags and index: half of all hits go there.
  const offset = (value & 1) === 0 && part !== "descriptors" ? at & 3 : at % length;
  writeIfThere(victim, place[part] + (offset & ~3), value);
}

function writeIfThere({ guest: { memory } }: Victim, address: number, value: number): void {
  const inside = memory.regions.some(({ guestAddress, size }) =>
    address >= guestAddress && address + 4 <= guestAddress + size
  );
  if (inside) memory.writeU32(address, value);
}

function play(victim: Victim, traffic: Traffic, [kind, flow, size, time, detail]: Step): void {
  const byNs = waitNs(time, 300_000);
  if (byNs > 0) victim.advance(byNs);
  for (const { bytes, header } of traffic.frames(kind as FrameKind, flow, size, detail)) {
    victim.port.inject(bytes, header);
  }
  if ((detail & 3) === 0 && victim.guest.attached) {
    const packet = new Packet();
    packet.payloadBytes = detail % 1400;
    victim.guest.send(packet.write());
  }
  if (byNs >= 0) victim.rest();
}

Deno.test(`NetDevice outlives a guest that scribbles over its rings (seed ${SEED})`, async () => {
  const seen = new Map<string, number>();
  let survived = 0;
  const round = fc.tuple(steps(NASTY, 8, 12), fc.array(hit, { minLength: 1, maxLength: 4 }));
  const property = fc.asyncProperty(
    anyMachine,
    fc.array(round, { minLength: 1, maxLength: 6 }),
    async (machine, rounds) => {
      await using victim = await Victim.open(
        possible({ ...machine, bufferBytes: machine.bufferBytes | 1024 }),
      );
      const traffic = new Traffic();
      for (const [stream, hits] of rounds) {
        for (const step of stream) play(victim, traffic, step);
        for (const each of hits) strike(victim, each);
        victim.rest();
        victim.advance(1_000_000);
        const { faults } = victim.guest.session;
        for (const fault of Object.keys(faults)) seen.set(fault, (seen.get(fault) ?? 0) + 1);
        if (Object.keys(faults).length === 0) survived++;
        else victim.attachAnew();
      }
      victim.attachAnew();
      // What was held up in the cable comes first, and may be held for the longest interval.
      victim.advance(20_000_000);
      assertEquals(victim.guest.session.faults, {});
      victim.assertWorks();
      assertEquals(victim.guest.session.faults, {});
    },
  );
  await fc.assert(property, { seed: SEED, numRuns: 500 });
  // What is hit is hit by chance; if only two or three faults came up, the hits would go astray.
  assertGreater(seen.size, 7, `only these faults came up: ${[...seen.keys()].join(", ")}`);
  assertGreater(survived, 20);
});

Deno.test(`NetDevice answers any command, and works behind it (seed ${SEED})`, async () => {
  const answers = [0, 0];
  const anything = fc.tuple(
    fc.oneof(fc.nat(6), fc.nat(255)),
    fc.oneof(fc.nat(3), fc.nat(255)),
    fc.oneof(fc.uint8Array({ maxLength: 12 }), fc.uint8Array({ maxLength: 600, size: "max" })),
  );
  const sound = fc.constantFrom<[commandClass: number, command: number, data: Uint8Array]>(
    [0, 0, Uint8Array.of(0)],
    [0, 0, Uint8Array.of(1)],
    [0, 1, Uint8Array.of(1)],
    [0, 3, Uint8Array.of(1)],
    [1, 0, new Uint8Array(8)],
    [1, 1, Uint8Array.of(2, 0, 0, 0, 0, 7)],
    [2, 0, Uint8Array.of(9, 0)],
    [3, 0, new Uint8Array(0)],
    [4, 0, Uint8Array.of(1, 0)],
    [5, 0, new Uint8Array(8)],
    [5, 0, Uint8Array.of(0x82, 1, 0, 0, 0, 0, 0, 0x20)],
  );
  const command = fc.oneof(anything, sound);
  const property = fc.asyncProperty(
    anyMachine,
    fc.array(fc.tuple(command, steps(NASTY, 4, 4)), { minLength: 1, maxLength: 40 }),
    async (machine, commands) => {
      const choice = possible({ ...machine, accepted: machine.legacy ? "rsc" : "everything" });
      await using victim = await Victim.open(choice);
      const traffic = new Traffic();
      for (const [[commandClass, number, data], stream] of commands) {
        for (const step of stream) play(victim, traffic, step);
        victim.rest();
        const sent = victim.guest.control(commandClass, number, data);
        victim.rest();
        assert(
          sent.ack === 0 || sent.ack === 1,
          `command ${commandClass}/${number} was answered ${sent.ack}`,
        );
        answers[sent.ack]++;
      }
      assertEquals([victim.guest.session.faults, victim.guest.errors], [{}, []]);
      victim.attachAnew();
      victim.advance(20_000_000);
      victim.assertWorks();
    },
  );
  await fc.assert(property, { seed: SEED, numRuns: 150 });
  assertGreater(answers[0], 50);
  assertGreater(answers[1], 50);
});

Deno.test(`NetDevice does not mind resets at any moment (seed ${SEED})`, async () => {
  const stream = steps({ ...NASTY, reset: 8 }, 8, 40);
  const property = fc.asyncProperty(anyMachine, stream, async (machine, all) => {
    await using victim = await Victim.open(possible(machine));
    const traffic = new Traffic();
    for (const step of all) {
      // Without letting anything settle: frames in the cable, used buffers unread, commands unanswered.
      if (step[0] === "reset") {
        victim.guest.detach();
        victim.guest.attach(victim.machine.devices[0].device);
      } else play(victim, traffic, step);
    }
    victim.rest();
    victim.advance(20_000_000);
    assertEquals([victim.guest.session.faults, victim.guest.errors], [{}, []]);
    victim.assertWorks();
  });
  await fc.assert(property, { seed: SEED, numRuns: 150 });
});
