/**
 * Who wants to know what happens to a machine under test.
 * @module
 */
import type { ReceivedPacket } from "../../../devices/net/driver/mod.ts";
import type { Injection } from "./traffic.ts";

/** Told of everything that goes in and comes out, for a record. */
export interface Witness {
  /** A frame goes in. */
  frame(atNs: number, frame: Injection): void;
  /** The guest asks for offloads. */
  offloads(atNs: number, mask: readonly number[]): void;
  /** The guest posts receive buffers. */
  post(atNs: number, buffers: number): void;
  /** A packet has come out. */
  packet(atNs: number, packet: ReceivedPacket): void;
}
