/**
 * The driver's side of the control queue: commands sent and their answers (virtio 1.2, section 5.1.6.5).
 * @module
 */
import type { GuestMemory } from "../../core/memory.ts";
import { BAD_USED, BufferList, type DriverRing, NOTHING_USED } from "./driver_ring.ts";

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
