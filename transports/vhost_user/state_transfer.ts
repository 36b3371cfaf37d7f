/**
 * The state of a device through a pipe: SET_DEVICE_STATE_FD and CHECK_DEVICE_STATE.
 *
 * Theory of operation. To save, everything is written at once and the pipe closed: the state is far smaller than a pipe's
 * buffer, and one that does not fit is an error that CHECK_DEVICE_STATE tells. To load, whatever has come is read with
 * every round, so that a long state does not block the front-end, and CHECK_DEVICE_STATE, which the front-end sends after it
 * has closed its end, reads the rest and hands it to the device. The state is JSON: a kind, a version, and what the
 * device itself has to say.
 * @module
 */
import type { Device } from "../../core/device.ts";
import { GuestError } from "../../core/errors.ts";
import type { Transfer } from "./host.ts";
import { ProtocolError } from "./protocol_error.ts";

/** Most bytes of a state: no front-end can make this program keep more. */
export const MAX_STATE_BYTES = 1024 * 1024;

const KIND = "virtio-device-state";
const VERSION = 1;

/** One transfer at a time. */
export class StateTransfer implements Disposable {
  readonly #device: Device;
  #loading:
    | { readonly transfer: Transfer; readonly parts: Uint8Array[]; bytes: number; ended: boolean }
    | null = null;
  #failure: Error | null = null;

  /** Nothing is transferred yet. */
  constructor(device: Device) {
    this.#device = device;
  }

  /** Is there something to read? */
  get isLoading(): boolean {
    return this.#loading !== null && !this.#loading.ended;
  }

  /** Writes the device's state and closes the pipe. */
  save(transfer: Transfer): void {
    this[Symbol.dispose]();
    const state = this.#device.saveState?.();
    const text = JSON.stringify({ kind: KIND, version: VERSION, id: this.#device.id, state });
    const bytes = new TextEncoder().encode(text);
    const written = transfer.write(bytes);
    transfer[Symbol.dispose]();
    if (!written) this.#failure = broken(`its ${bytes.length} bytes must fit into the pipe at once`);
  }

  /** Begins to read a state. */
  load(transfer: Transfer): void {
    this[Symbol.dispose]();
    this.#loading = { transfer, parts: [], bytes: 0, ended: false };
  }

  /** Reads what has come. True if there was anything. */
  poll(): boolean {
    const loading = this.#loading;
    if (loading === null || loading.ended) return false;
    const part = loading.transfer.read();
    if (part === null) return false;
    loading.ended = part.length === 0;
    loading.bytes += part.length;
    if (loading.bytes > MAX_STATE_BYTES) {
      this[Symbol.dispose]();
      this.#failure = broken(`it has more than ${MAX_STATE_BYTES} bytes`);
    } else loading.parts.push(part);
    return true;
  }

  /** Completes a transfer. ProtocolError or GuestError if the state did not get across, or cannot be taken over. */
  check(): void {
    while (this.poll());
    const loading = this.#loading;
    const failure = this.#failure;
    this[Symbol.dispose]();
    if (failure !== null) throw failure;
    if (loading === null) return;
    if (!loading.ended) throw broken("its end has not come; the front-end must close its end of the pipe");
    const state = parse(loading.parts);
    if (state.kind !== KIND || state.version !== VERSION || state.id !== this.#device.id) {
      throw new GuestError(
        "device-state-invalid",
        `The state is of kind ${state.kind}, version ${state.version}, device ${state.id}; ` +
          `it must be ${KIND}, ${VERSION}, ${this.#device.id}`,
      );
    }
    this.#device.restoreState?.(state.state);
  }

  /** Breaks off what is under way. */
  [Symbol.dispose](): void {
    this.#loading?.transfer[Symbol.dispose]();
    this.#loading = null;
    this.#failure = null;
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
