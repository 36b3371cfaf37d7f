/**
 * Machines for the tests of the network device, from JSON: one or more devices, each with a software guest,
 * on cables.
 * @module
 */
import { assertEquals } from "@std/assert";
import { newRegistry } from "../../../../config/builtins.ts";
import { parseConfig } from "../../../../config/load.ts";
import type { GuestFault } from "../../../../rings/guest_error.ts";
import type { NetDevice } from "../../../../devices/net/mod.ts";
import { buildMachine } from "../../../../machine/build.ts";
import type { Machine } from "../../../../machine/machine.ts";
import { ethernet } from "../../../../testing/mod.ts";
import { cableKey, type CablePort, type LoopbackCable } from "../../../../transports/loopback.ts";
import type { LoopbackDriver } from "../../../../transports/loopback_driver/mod.ts";
import type { NetGuest, ReceivedPacket } from "../../../../devices/net/driver/mod.ts";
import { framePool } from "../../../../pipeline/kinds.ts";

/** One device of a rig, as options of its parts. */
export interface SideSettings {
  /** Options of the device. */
  readonly device?: Readonly<Record<string, unknown>>;
  /** Options of the guest. */
  readonly guest?: Readonly<Record<string, unknown>>;
  /** Options of the cable's port. */
  readonly network?: Readonly<Record<string, unknown>>;
  /** The offloads. */
  readonly offloads?: readonly unknown[];
}

/** The addresses of the devices of a rig. */
export const MACS: readonly string[] = ["52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:03"];

/** Ring layouts and features that must make no difference to what is delivered. */
export const RINGS: readonly { readonly name: string; readonly guest: Record<string, unknown> }[] = [
  "split",
  "packed",
]
  .flatMap((ring) => [false, true].map((indirect) => ({ ring, indirect })))
  .flatMap((one) => [false, true].map((eventIndex) => ({ ...one, eventIndex })))
  .flatMap((one) => [false, true].map((mergeable) => ({ ...one, mergeable })))
  .map((guest) => ({
    name: [
      guest.ring,
      guest.indirect ? "indirect" : "direct",
      guest.eventIndex ? "event index" : "flags",
      guest.mergeable ? "mergeable" : "one buffer",
    ].join(", "),
    guest: { ...guest, descriptorsPerBuffer: 2 },
  }));

/** One device with its two ends. */
export class Side {
  readonly device: NetDevice;
  readonly driver: LoopbackDriver<NetGuest>;
  readonly port: CablePort;
  /** What the guest has received. */
  readonly packets: ReceivedPacket[] = [];
  /** What the cable took from the device. */
  readonly sent: Uint8Array[] = [];
  readonly #machine: Machine;
  readonly #name: string;

  constructor(machine: Machine, index: number) {
    const { device, driver, parts: { network }, name } = machine.devices[index];
    this.#machine = machine;
    this.#name = name;
    this.device = device as NetDevice;
    this.driver = driver as LoopbackDriver<NetGuest>;
    this.port = network as CablePort;
    this.driver.hooks.onPacket = (packet) => void this.packets.push(packet);
    this.port.tap((frame) => void this.sent.push(frame.toBytes()));
  }

  get guest(): NetGuest {
    return this.driver.guest;
  }

  /** The counters of a part of the device, such as `toGuest`; of the device itself without one. */
  counters(part = ""): Readonly<Record<string, number>> {
    return this.#machine.counters[part === "" ? this.#name : `${this.#name}.${part}`];
  }

  /** How often the guest broke this rule. */
  faults(fault: GuestFault): number {
    return this.guest.session.faults[fault] ?? 0;
  }

  /** Numbers of the frames that the guest has received. */
  get numbers(): number[] {
    return this.packets.map(({ bytes }) => numberOf(bytes));
  }
}

/** A machine with its sides. Disposing closes it, and asserts that every frame is back in the pool. */
export class Rig implements AsyncDisposable {
  readonly machine: Machine;
  readonly sides: readonly Side[];

  private constructor(machine: Machine) {
    this.machine = machine;
    this.sides = machine.devices.map((_, index) => new Side(machine, index));
  }

  /** Builds and starts a machine by a virtual clock. */
  static async start(sides: readonly SideSettings[], whole: object = {}): Promise<Rig> {
    const config = {
      clock: "virtual",
      ...whole,
      devices: sides.map(({ device, guest, network, offloads = [] }, index) => ({
        use: "net",
        mac: MACS[index],
        ...device,
        driver: { use: "loopback", ...guest },
        network: { use: "loopback", ...network },
        offloads,
      })),
    };
    const resolved = await parseConfig(JSON.stringify(config), import.meta.url, newRegistry());
    const rig = new Rig(buildMachine(resolved));
    rig.machine.start();
    // A guest that was refused makes the machine fail; this is where a test hears of it.
    if (!rig.sides.every(({ guest }) => guest.attached)) await rig.machine.close();
    rig.settle();
    return rig;
  }

  /** The first side. */
  get one(): Side {
    return this.sides[0];
  }

  /** The second side. */
  get two(): Side {
    return this.sides[1];
  }

  get inUse(): number {
    return framePool(this.machine.parts.scope).inUse;
  }

  settle(): void {
    this.machine.parts.reactor.settle();
  }

  advanceTo(nowNs: number): void {
    this.machine.parts.reactor.advanceTo(nowNs);
  }

  /** Another port of a cable, for a test that is the network. */
  plug(queueFrames: number, cable = "default"): CablePort {
    const shared = this.machine.parts.shared.get(cableKey(cable)) as LoopbackCable;
    return shared.plug({ pool: framePool(this.machine.parts.scope), queueFrames });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.machine.close();
    assertEquals(this.inUse, 0, "every frame is back in the pool");
  }
}

/** A frame of `length` bytes with a number in it. */
export function numbered(
  number: number,
  length = 60,
  destinationMac: string = MACS[0],
): Uint8Array<ArrayBuffer> {
  const payload = Uint8Array.from({ length: length - 14 }, (_, i) => number + i);
  if (payload.length >= 4) new DataView(payload.buffer).setUint32(0, number);
  return ethernet({ destinationMac, sourceMac: "02:00:00:00:00:99", payload });
}

/** The number of such a frame. */
export function numberOf(frame: Uint8Array): number {
  return new DataView(frame.buffer, frame.byteOffset).getUint32(14);
}

/** The numbers from `first` to `last`. */
export function range(first: number, last: number): number[] {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}
