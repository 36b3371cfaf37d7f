/**
 * What a driver of a network device says by command and reads from configuration space (virtio 1.2, sections
 * 5.1.4 and 5.1.6.5): the control queue with its commands on their way, and the commands by name.
 * @module
 */
import type { FeatureSet } from "../../../core/features.ts";
import type { GuestMemory } from "../../../rings/memory.ts";
import { BAD_USED, BufferList, type DriverRing, NOTHING_USED } from "../../../guest/driver_ring.ts";
import { SoftwareGuest } from "../../../guest/software_guest.ts";
import {
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_F_STATUS,
} from "../../../wire/net_features.ts";

/** `ack` of a command that the device has carried out. */
export const VIRTIO_NET_OK = 0;
/** `ack` of a command that the device has refused. */
export const VIRTIO_NET_ERR = 1;

/** Commands that may wait for the device at the same time. */
export const CONTROL_SLOTS = 16;
/** The longest command data, in bytes. */
export const MAX_CONTROL_DATA_BYTES = 8192;
/** Bytes of guest memory that a control queue needs. */
export const CONTROL_MEMORY_BYTES: number = CONTROL_SLOTS * (MAX_CONTROL_DATA_BYTES + 4);

const HEADER_BYTES = 2;
const SLOT_BYTES = MAX_CONTROL_DATA_BYTES + 4;
const ACK_AT = SLOT_BYTES - 1;
const PRESET_ACK = 0xa5;
/** Descriptors of a whole command: header, data, ack. */
export const CONTROL_DESCRIPTORS = 3;

/** A command on its way, or answered. */
export interface ControlCommand {
  /** What kind of command: `class` of the specification. */
  readonly commandClass: number;
  /** Which command of that kind. */
  readonly command: number;
  /** The device's answer: VIRTIO_NET_OK, VIRTIO_NET_ERR, or null as long as there is none. */
  ack: number | null;
}

/** The control queue, driven. */
export class ControlQueue {
  /** Its ring. */
  readonly ring: DriverRing;
  readonly #memory: GuestMemory;
  readonly #address: number;
  readonly #legacy: boolean;
  readonly #report: (problem: string) => void;
  readonly #list = new BufferList(CONTROL_DESCRIPTORS);
  readonly #waiting: (ControlCommand | null)[] = new Array<ControlCommand | null>(CONTROL_SLOTS).fill(null);
  readonly #header = new Uint8Array(HEADER_BYTES);
  readonly #preset = Uint8Array.of(PRESET_ACK);

  /**
   * Begins with no command on its way.
   * @param address where its `CONTROL_MEMORY_BYTES` lie
   * @param legacy do not trust the used length, as old devices got it wrong
   * @param report told about everything that a device must not do
   */
  constructor(
    ring: DriverRing,
    memory: GuestMemory,
    address: number,
    legacy: boolean,
    report: (problem: string) => void,
  ) {
    this.ring = ring;
    this.#memory = memory;
    this.#address = address;
    this.#legacy = legacy;
    this.#report = report;
  }

  /**
   * Adds a command, which the device sees after `ring.publish()`. RangeError for data of more than
   * `MAX_CONTROL_DATA_BYTES`; Error if too many commands are waiting.
   */
  add(commandClass: number, command: number, data: Uint8Array): ControlCommand {
    if (data.length > MAX_CONTROL_DATA_BYTES) {
      throw new RangeError(
        `Cannot send ${data.length} bytes of command data, the limit is ${MAX_CONTROL_DATA_BYTES}`,
      );
    }
    const slot = this.#waiting.indexOf(null);
    const at = this.#address + slot * SLOT_BYTES;
    if (slot < 0 || !this.#addChain(slot, at, data.length)) {
      throw new Error(
        `Cannot send command ${commandClass}/${command}: ${this.ring.inFlight} are waiting for the device and the ` +
          `control queue of ${this.ring.size} entries has no room; poll until they are answered`,
      );
    }
    this.#header[0] = commandClass;
    this.#header[1] = command;
    this.#memory.copyIn(at, this.#header, 0, HEADER_BYTES);
    this.#memory.copyIn(at + HEADER_BYTES, data, 0, data.length);
    this.#memory.copyIn(at + ACK_AT, this.#preset, 0, 1);
    const waiting: ControlCommand = { commandClass, command, ack: null };
    this.#waiting[slot] = waiting;
    return waiting;
  }

  /** The next command that the device has answered, or null. */
  take(): ControlCommand | null {
    for (;;) {
      const token = this.ring.takeUsed();
      if (token === NOTHING_USED) return null;
      if (token === BAD_USED) {
        this.#report(this.ring.fault);
        continue;
      }
      const answered = this.#waiting[token]!;
      this.#waiting[token] = null;
      const used = this.ring.usedBytes;
      if (used !== 1 && !this.#legacy) {
        this.#report(
          `used length ${used} of command ${answered.commandClass}/${answered.command}, its ack is 1 byte`,
        );
      }
      answered.ack = this.#memory.readU8(this.#address + token * SLOT_BYTES + ACK_AT);
      return answered;
    }
  }

  /** No chain may be longer than the ring, so a small one gets header and data in one descriptor. */
  #addChain(slot: number, at: number, dataBytes: number): boolean {
    this.#list.clear();
    const joined = this.ring.size < CONTROL_DESCRIPTORS;
    this.#list.addReadable(at, joined ? HEADER_BYTES + dataBytes : HEADER_BYTES);
    if (!joined && dataBytes > 0) this.#list.addReadable(at + HEADER_BYTES, dataBytes);
    this.#list.addWritable(at + ACK_AT, 1);
    return this.ring.add(this.#list, slot);
  }
}

/** The receive modes in the order of their commands (virtio 1.2, section 5.1.6.5.1). */
export type ReceiveMode = "promisc" | "allmulti" | "alluni" | "nomulti" | "nouni" | "nobcast";
const RECEIVE_MODES: readonly ReceiveMode[] = [
  "promisc",
  "allmulti",
  "alluni",
  "nomulti",
  "nouni",
  "nobcast",
];

const CTRL_RX = 0;
const CTRL_MAC = 1;
const CTRL_MAC_TABLE_SET = 0;
const CTRL_MAC_ADDR_SET = 1;
const CTRL_VLAN = 2;
const CTRL_VLAN_ADD = 0;
const CTRL_VLAN_DEL = 1;
const CTRL_ANNOUNCE = 3;
const CTRL_ANNOUNCE_ACK = 0;
const CTRL_MQ = 4;
const CTRL_MQ_VQ_PAIRS_SET = 0;
const CTRL_GUEST_OFFLOADS = 5;
const CTRL_GUEST_OFFLOADS_SET = 0;

const CONFIG_MAC = 0;
const CONFIG_STATUS = 6;
const CONFIG_MAX_QUEUE_PAIRS = 8;
const CONFIG_MTU = 10;
const STATUS_LINK_UP = 1;
/**
 * A driver that reads while the device changes its configuration again and again gives up after so many
 * tries.
 */
const MAX_CONFIG_TRIES = 100;

/** How many queue pairs the device has: 1 if it has no field for it. */
export function readMaxQueuePairs(
  features: FeatureSet,
  source: { readConfig(offset: number, target: Uint8Array): void },
): number {
  if (!features.has(VIRTIO_NET_F_MQ) && !features.has(VIRTIO_NET_F_RSS)) return 1;
  const field = new Uint8Array(2);
  source.readConfig(CONFIG_MAX_QUEUE_PAIRS, field);
  return field[0] | field[1] << 8;
}

/** The commands and configuration fields of a network device, as a software guest sends and reads them. */
export abstract class NetControl extends SoftwareGuest {
  /** Sends a command; its `ack` is there once the device has answered and the guest was polled. */
  abstract control(commandClass: number, command: number, data: Uint8Array): ControlCommand;

  /** The MAC address; null without feature MAC. */
  get mac(): Uint8Array<ArrayBuffer> | null {
    return this.features.has(VIRTIO_NET_F_MAC) ? this.#read(CONFIG_MAC, 6) : null;
  }

  /** The link status: LINK_UP 1, ANNOUNCE 2; without feature STATUS the link counts as up. */
  get status(): number {
    return this.features.has(VIRTIO_NET_F_STATUS) ? this.#read16(CONFIG_STATUS) : STATUS_LINK_UP;
  }

  /** The largest MTU in bytes; null without feature MTU. */
  get mtu(): number | null {
    return this.features.has(VIRTIO_NET_F_MTU) ? this.#read16(CONFIG_MTU) : null;
  }

  /** How many queue pairs the device has. */
  get maxQueuePairs(): number {
    return readMaxQueuePairs(this.features, this.session);
  }

  /** Says which guest offloads are to be on, as feature bits below 64. */
  setGuestOffloads(mask: FeatureSet): ControlCommand {
    const data = new DataView(new ArrayBuffer(8));
    data.setUint32(0, mask.word(0), true);
    data.setUint32(4, mask.word(1), true);
    return this.control(CTRL_GUEST_OFFLOADS, CTRL_GUEST_OFFLOADS_SET, new Uint8Array(data.buffer));
  }

  /** Switches a receive mode. */
  setReceiveMode(mode: ReceiveMode, on: boolean): ControlCommand {
    return this.control(CTRL_RX, RECEIVE_MODES.indexOf(mode), Uint8Array.of(on ? 1 : 0));
  }

  /** Says which other addresses the guest listens to, six bytes each. */
  setMacTable(unicast: readonly Uint8Array[], multicast: readonly Uint8Array[]): ControlCommand {
    const data = new Uint8Array(8 + 6 * (unicast.length + multicast.length));
    const view = new DataView(data.buffer);
    let at = 0;
    for (const addresses of [unicast, multicast]) {
      view.setUint32(at, addresses.length, true);
      at += 4;
      for (const address of addresses) {
        data.set(address, at);
        at += 6;
      }
    }
    return this.control(CTRL_MAC, CTRL_MAC_TABLE_SET, data);
  }

  /** Sets the guest's own MAC address, six bytes. */
  setMac(address: Uint8Array): ControlCommand {
    return this.control(CTRL_MAC, CTRL_MAC_ADDR_SET, address);
  }

  /** Adds a VLAN to the filter or takes it out. */
  setVlan(id: number, on: boolean): ControlCommand {
    return this.control(CTRL_VLAN, on ? CTRL_VLAN_ADD : CTRL_VLAN_DEL, Uint8Array.of(id & 0xff, id >>> 8));
  }

  /** Says how many queue pairs the device may use. */
  setQueuePairs(count: number): ControlCommand {
    return this.control(CTRL_MQ, CTRL_MQ_VQ_PAIRS_SET, Uint8Array.of(count & 0xff, count >>> 8));
  }

  /** Tells the device that the guest has announced itself. */
  announceAck(): ControlCommand {
    return this.control(CTRL_ANNOUNCE, CTRL_ANNOUNCE_ACK, new Uint8Array(0));
  }

  #read16(offset: number): number {
    const bytes = this.#read(offset, 2);
    return bytes[0] | bytes[1] << 8;
  }

  /**
   * A field of several bytes may change between two of them: it is read again until the generation has held
   * still.
   */
  #read(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const source = this.session;
    const bytes = new Uint8Array(length);
    for (let tries = 0; tries < MAX_CONFIG_TRIES; tries++) {
      const generation = source.configGeneration;
      source.readConfig(offset, bytes);
      if (source.configGeneration === generation) break;
    }
    return bytes;
  }
}
