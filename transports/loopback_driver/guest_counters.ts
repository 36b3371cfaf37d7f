/**
 * What a software guest counts, and whom it tells.
 * @module
 */
import type { DeviceEvent } from "../../core/events.ts";
import type { ControlCommand } from "./control_queue.ts";
import type { ReceivedPacket } from "./received_packet.ts";

/** What the guest tells the world. */
export interface GuestHooks {
  /** A packet has come. With option `reuse` the object and its bytes are only valid during the call. */
  onPacket?(packet: ReceivedPacket): void;
  /** The device has used a transmitted frame of this queue pair. */
  onUsedTransmit?(queue: number): void;
  /** The device has answered a command. */
  onControl?(command: ControlCommand): void;
  /** Something has happened between guest and device. */
  onEvent?(event: DeviceEvent): void;
  /** The configuration has changed. The device is in the middle of its work: the guest must not be detached here. */
  onConfigChanged?(): void;
}

/** What the guest counts. */
export type GuestCounters = {
  /** Packets received. */
  received: number;
  /** Bytes of these, without headers. */
  receivedBytes: number;
  /** Frames given to the device, echoes included. */
  sent: number;
  /** Bytes of these, without headers. */
  sentBytes: number;
  /** Frames that the device has used. */
  transmitted: number;
  /** Packets returned to their sender. */
  echoed: number;
  /** Packets not returned since the device takes no such frames, or no ring of this size can hold them. */
  echoRefused: number;
  /** Packets not returned since the ring was full. */
  echoDropped: number;
  /** Interrupts. */
  interrupts: number;
  /** Interrupts of a queue on which they were refused: allowed, but a waste. */
  unwantedInterrupts: number;
  /** Kicks. */
  kicks: number;
  /** Configuration changes that the device told. */
  configChanges: number;
  /** Times that the device needed a reset. */
  needsReset: number;
  /** Things that a device must not do; see `errors`. */
  malformed: number;
};

const MAX_ERRORS = 100;

/** What a guest keeps for the world to look at: counters, and what went wrong in words. */
export class GuestRecord {
  /** All counters, live. */
  readonly counters: GuestCounters = {
    received: 0,
    receivedBytes: 0,
    sent: 0,
    sentBytes: 0,
    transmitted: 0,
    echoed: 0,
    echoRefused: 0,
    echoDropped: 0,
    interrupts: 0,
    unwantedInterrupts: 0,
    kicks: 0,
    configChanges: 0,
    needsReset: 0,
    malformed: 0,
  };
  /** What the device has done wrong: the first hundred. */
  readonly errors: string[] = [];

  /** Counts something that a device must not do. */
  malformed(problem: string): void {
    this.counters.malformed++;
    this.note(problem);
  }

  /** Keeps a problem in words, if there is room. */
  note(problem: string): void {
    if (this.errors.length < MAX_ERRORS) this.errors.push(problem);
  }
}
