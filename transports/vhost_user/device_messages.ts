/**
 * The messages that are about the device itself: configuration space, MTU, RARP, and its state, which goes
 * through a pipe (SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE).
 *
 * Theory of operation. To save, everything is written at once and the pipe closed: the state is far smaller
 * than a pipe's buffer, and one that does not fit is an error that CHECK_DEVICE_STATE tells. To load, what
 * has come is read with every round, so that a long state does not block the front-end. CHECK_DEVICE_STATE,
 * which the front-end sends after it has closed its end, reads the rest and hands it to the device. The state
 * is JSON: a kind, a version, and what the device itself has to say. There is one transfer at a time.
 * @module
 */
import type { Device } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import type { FeatureSet } from "../../core/features.ts";
import { networkCapability } from "../../pipeline/plugin.ts";
import type { DescriptorBag, Host, Transfer } from "./host.ts";
import { FLAG_NO_DESCRIPTOR, type Payload, ProtocolError } from "./messages.ts";

/** Most bytes of a state: no front-end can make this program keep more. */
export const MAX_STATE_BYTES = 1024 * 1024;

const STATE_KIND = "virtio-device-state";
const STATE_VERSION = 1;
const DIRECTION_SAVE = 0;
const DIRECTION_LOAD = 1;
const PHASE_STOPPED = 0;
const MAC_BYTES = 6;

type ConfigPayload = Extract<Payload, { kind: "config" }>;

/** A state that is being read. */
interface Loading {
  readonly transfer: Transfer;
  readonly parts: Uint8Array[];
  bytes: number;
  ended: boolean;
}

/** Carries out messages about one device. */
export class DeviceMessages implements Disposable {
  readonly #device: Device;
  readonly #host: Host;
  #loading: Loading | null = null;
  /** What CHECK_DEVICE_STATE has to tell. */
  #failure: Error | null = null;

  /** Nothing is under way. @param device which the messages are about */
  constructor(device: Device, host: Host) {
    this.#device = device;
    this.#host = host;
  }

  /** Bytes of configuration space. */
  readConfig({ offset, size }: ConfigPayload): Uint8Array {
    const bytes = new Uint8Array(size);
    this.#device.readConfig(offset, bytes);
    return bytes;
  }

  /**
   * Writes to configuration space. GuestError `config-write-invalid` for what must not be written; in a
   * migration (flags 1) the front-end may write what is there already, and nothing else, since the
   * configuration is this side's.
   */
  writeConfig(payload: ConfigPayload): void {
    const { offset, size, flags, bytes } = payload;
    if (flags !== 1) return this.#device.writeConfig(offset, bytes);
    if (this.readConfig(payload).every((byte, i) => byte === bytes[i])) return;
    throw new GuestError(
      "config-write-invalid",
      `The ${size} bytes at ${offset} of the source's configuration differ; give this device the same configuration`,
    );
  }

  /** The guest with the MAC address in the first six bytes runs here now. */
  announce(bits: FeatureSet, nowNs: number): void {
    const mac = Uint8Array.from({ length: MAC_BYTES }, (_, i) => bits.word(i >>> 2) >>> 8 * (i & 3));
    if ((mac[0] & 1) !== 0) {
      throw new ProtocolError(
        "value-invalid",
        "The MAC address to announce is a group's; it must be the guest's",
      );
    }
    networkCapability(this.#device)?.guestMoved(mac, nowNs);
  }

  /** Judges the MTU that the guest is told. ProtocolError `value-invalid` if the device cannot serve it. */
  checkMtu(bits: FeatureSet): void {
    const mtu = bits.word(0);
    if (bits.word(1) === 0 && networkCapability(this.#device)?.acceptsMtu(mtu) === true) return;
    throw new ProtocolError(
      "value-invalid",
      `MTU ${mtu} does not fit this device and its network; lower it, or raise theirs`,
    );
  }

  /**
   * Begins a transfer of the device's state and returns the value to answer: success, and no descriptor of
   * ours.
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
    this[Symbol.dispose]();
    if (direction === DIRECTION_SAVE) this.#save(transfer);
    else this.#loading = { transfer, parts: [], bytes: 0, ended: false };
    return FLAG_NO_DESCRIPTOR;
  }

  /** Reads what has come of a state. True if there was anything. */
  poll(): boolean {
    const loading = this.#loading;
    if (loading === null || loading.ended) return false;
    const part = loading.transfer.read();
    if (part === null) return false;
    loading.ended = part.length === 0;
    loading.bytes += part.length;
    loading.parts.push(part);
    if (loading.bytes > MAX_STATE_BYTES) {
      this[Symbol.dispose]();
      this.#failure = broken(`it has more than ${MAX_STATE_BYTES} bytes`);
    }
    return true;
  }

  /**
   * Completes a transfer. ProtocolError or GuestError if the state did not get across, or cannot be taken
   * over.
   */
  checkTransfer(): void {
    while (this.poll());
    const loading = this.#loading;
    const failure = this.#failure;
    this[Symbol.dispose]();
    if (failure !== null) throw failure;
    if (loading === null) return;
    if (!loading.ended) throw broken("its end has not come; the front-end must close its end of the pipe");
    const { kind, version, id, state } = parse(loading.parts);
    const { type, migration } = this.#device;
    if (kind !== STATE_KIND || version !== STATE_VERSION || id !== type) {
      throw new GuestError(
        "device-state-invalid",
        `The state is of kind ${kind}, version ${version}, device ${id}; ` +
          `it must be ${STATE_KIND}, ${STATE_VERSION}, ${type}`,
      );
    }
    migration?.restore(state);
  }

  /** Breaks off a transfer. */
  [Symbol.dispose](): void {
    this.#loading?.transfer[Symbol.dispose]();
    this.#loading = null;
    this.#failure = null;
  }

  #save(transfer: Transfer): void {
    const { type: id, migration } = this.#device;
    const text = JSON.stringify({ kind: STATE_KIND, version: STATE_VERSION, id, state: migration?.save() });
    const bytes = new TextEncoder().encode(text);
    const written = transfer.write(bytes);
    transfer[Symbol.dispose]();
    if (!written) this.#failure = broken(`its ${bytes.length} bytes must fit into the pipe at once`);
  }
}

function parse(parts: readonly Uint8Array[]): Record<string, unknown> {
  const decoder = new TextDecoder();
  const text = parts.map((part) => decoder.decode(part, { stream: true })).join("") + decoder.decode();
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === "object" && parsed !== null) return parsed as Record<string, unknown>;
  } catch {
    // Told below, as for other values that are no object.
  }
  throw broken("it must be a JSON object");
}

function broken(remedy: string): ProtocolError {
  return new ProtocolError("state-transfer-invalid", `The state of the device did not get across: ${remedy}`);
}
