/**
 * The messages that are about the device itself: configuration space, MTU, RARP, device state.
 * @module
 */
import type { Device } from "../../core/device.ts";
import { GuestError } from "../../core/errors.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { DescriptorBag, Host } from "./host.ts";
import { FLAG_NO_DESCRIPTOR, type Payload } from "./messages.ts";
import { ProtocolError } from "./protocol_error.ts";
import { StateTransfer } from "./state_transfer.ts";

const DIRECTION_SAVE = 0;
const DIRECTION_LOAD = 1;
const PHASE_STOPPED = 0;
const MAC_BYTES = 6;

/** Carries out messages about one device. */
export class DeviceMessages implements Disposable {
  readonly #device: Device;
  readonly #host: Host;
  readonly #transfer: StateTransfer;

  /** Nothing is under way. @param device whom the messages are about */
  constructor(device: Device, host: Host) {
    this.#device = device;
    this.#host = host;
    this.#transfer = new StateTransfer(device);
  }

  /** Bytes of configuration space. */
  readConfig({ offset, size }: Extract<Payload, { kind: "config" }>): Uint8Array {
    const bytes = new Uint8Array(size);
    this.#device.readConfig(offset, bytes);
    return bytes;
  }

  /**
   * Writes to configuration space. GuestError `config-write-invalid` for what must not be written; in a migration the
   * front-end may write what is there already, and nothing else, since the configuration is this side's.
   */
  writeConfig({ offset, size, flags, bytes }: Extract<Payload, { kind: "config" }>): void {
    const migrating = flags === 1;
    if (!migrating) {
      this.#device.writeConfig(offset, bytes);
      return;
    }
    const present = new Uint8Array(size);
    this.#device.readConfig(offset, present);
    if (present.every((byte, i) => byte === bytes[i])) return;
    throw new GuestError(
      "config-write-invalid",
      `The ${size} bytes at ${offset} of the source's configuration differ; give this device the same configuration`,
    );
  }

  /** The guest with the MAC address in the first six bytes runs here now. */
  announce(bits: FeatureSet, nowNs: number): void {
    const mac = new Uint8Array(MAC_BYTES);
    for (let i = 0; i < MAC_BYTES; i++) mac[i] = bits.word(i >>> 2) >>> 8 * (i & 3);
    if ((mac[0] & 1) !== 0) {
      throw new ProtocolError(
        "value-invalid",
        "The MAC address to announce is a group's; it must be the guest's",
      );
    }
    this.#device.guestMoved?.(mac, nowNs);
  }

  /** Judges the MTU that the guest is told. ProtocolError `value-invalid` if the device cannot serve it. */
  checkMtu(bits: FeatureSet): void {
    const mtu = bits.word(0);
    if (bits.word(1) === 0 && this.#device.acceptsMtu?.(mtu) === true) return;
    throw new ProtocolError(
      "value-invalid",
      `MTU ${mtu} does not fit this device and its network; lower it, or raise theirs`,
    );
  }

  /**
   * Begins a transfer of the device's state and returns the value to answer: success, and no descriptor of ours.
   * @param suspended no ring runs
   */
  transfer(
    { direction, phase }: Extract<Payload, { kind: "transfer" }>,
    suspended: boolean,
    bag: DescriptorBag,
  ): number {
    if (direction > DIRECTION_LOAD || phase !== PHASE_STOPPED) {
      throw new ProtocolError(
        "value-invalid",
        `Direction ${direction} and phase ${phase} of a transfer must be 0 or 1, and 0`,
      );
    }
    if (!suspended) {
      throw new ProtocolError(
        "state-transfer-invalid",
        "The state can only be transferred while every ring is stopped: GET_VRING_BASE must come first",
      );
    }
    const transfer = this.#host.transfer(bag.take());
    if (direction === DIRECTION_SAVE) this.#transfer.save(transfer);
    else this.#transfer.load(transfer);
    return FLAG_NO_DESCRIPTOR;
  }

  /** Completes a transfer. ProtocolError or GuestError if it failed. */
  checkTransfer(): void {
    this.#transfer.check();
  }

  /** Goes on with a transfer. True if something came. */
  poll(): boolean {
    return this.#transfer.poll();
  }

  /** Breaks off a transfer. */
  [Symbol.dispose](): void {
    this.#transfer[Symbol.dispose]();
  }
}
