/**
 * Which frames from the network the guest gets to see (virtio 1.2, sections 5.1.6.5.1 to 5.1.6.5.3).
 *
 * Theory of operation. The order of the tests is: promiscuous mode, which lets everything through; the VLAN
 * table, if VLAN filtering was negotiated; then by kind of destination. Suppression (`nobcast`, `nomulti`,
 * `nouni`) beats admission (`allmulti`, `alluni`, a table that overflowed), which beats the tables. Broadcast
 * is let through unless suppressed.
 *
 * A device that has just been reset is promiscuous: a driver without CTRL_RX has no means to ask for
 * anything, and a guest that bridges would lose frames. A driver with CTRL_RX says at once what it wants.
 *
 * The VLAN table applies to frames that a customer tag (802.1Q) puts into a VLAN. A priority tag (id 0) does
 * not: such a frame is of the untagged network, unless another tag follows. The reference looks id 0 up in
 * the table like any other, where a driver seldom puts it.
 *
 * A list that is longer than the MAC table (`MacTable`) is not refused: the specification lets a device be
 * generous, so all frames of the kind that did not fit are let through.
 *
 * @module
 */
import type { FeatureSet } from "../../core/features.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import {
  ETHERNET_HEADER_BYTES,
  isBroadcast,
  isMulticast,
  MAC_BYTES,
  macEquals,
  vlanId,
} from "../../wire/ethernet.ts";
import { VIRTIO_NET_F_CTRL_VLAN } from "../../wire/net_features.ts";

/** VLAN ids: 0 to 4095. */
export const VLAN_IDS = 4096;

/** The receive modes, named as the commands that switch them (virtio 1.2, section 5.1.6.5.1). */
export type ReceiveMode = "promisc" | "allmulti" | "alluni" | "nomulti" | "nouni" | "nobcast";

/** What became of a frame: let through, or the reason why not. */
export type FilterVerdict =
  | "accepted"
  | "too_short"
  | "vlan_unknown"
  | "broadcast_off"
  | "multicast_off"
  | "multicast_unknown"
  | "unicast_off"
  | "unicast_unknown";

/** How many frames were refused, by reason. */
export type FilterCounters = Record<Exclude<FilterVerdict, "accepted">, number>;

/** What a driver has programmed of a filter, for a migration. */
export interface FilterState {
  /** The guest's own address, six bytes. */
  readonly mac: Uint8Array;
  /** The modes that are on. */
  readonly modes: readonly ReceiveMode[];
  /** The unicast table, addresses of six bytes one after the other. */
  readonly unicast: Uint8Array;
  /** The multicast table likewise. */
  readonly multicast: Uint8Array;
  /** Was the list of unicast addresses too long for the table? */
  readonly unicastOverflow: boolean;
  /** Was that of multicast addresses? */
  readonly multicastOverflow: boolean;
  /** The VLANs that were added. */
  readonly vlans: readonly number[];
}

/** The receive filter of one device. */
export class ReceiveFilter {
  /** Frames refused, by reason. */
  readonly counters: FilterCounters = {
    too_short: 0,
    vlan_unknown: 0,
    broadcast_off: 0,
    multicast_off: 0,
    multicast_unknown: 0,
    unicast_off: 0,
    unicast_unknown: 0,
  };
  readonly #modes: Record<ReceiveMode, boolean> = {
    promisc: true,
    allmulti: false,
    alluni: false,
    nomulti: false,
    nouni: false,
    nobcast: false,
  };
  readonly #mac = new Uint8Array(MAC_BYTES);
  readonly #table = new MacTable();
  readonly #vlans = new Uint32Array(VLAN_IDS / 32);
  readonly #skipsPriority: boolean;
  #filtersVlans = false;

  /**
   * A filter as after a reset.
   * @param mac the guest's own address, six bytes;
   * @param rules the device's rule book
   */
  constructor(mac: Uint8Array, rules: RuleBook = "strict") {
    this.#skipsPriority = rules === "strict";
    this.setMac(mac);
  }

  /**
   * What driver and device have agreed on: with CTRL_VLAN, tagged frames pass only if their VLAN is added.
   */
  negotiated(features: FeatureSet): void {
    this.#filtersVlans = features.has(VIRTIO_NET_F_CTRL_VLAN);
    this.#vlans.fill(0);
  }

  /**
   * The driver is gone: promiscuous, tables empty, no VLAN filtering, and this address. The counters go on.
   */
  reset(mac: Uint8Array): void {
    this.#modes.promisc = true;
    this.#modes.allmulti = false;
    this.#modes.alluni = false;
    this.#modes.nomulti = false;
    this.#modes.nouni = false;
    this.#modes.nobcast = false;
    this.#table.clear();
    this.#filtersVlans = false;
    this.#vlans.fill(0);
    this.setMac(mac);
  }

  /** Switches a receive mode. */
  setMode(mode: ReceiveMode, on: boolean): void {
    this.#modes[mode] = on;
  }

  /** Is this receive mode on? */
  mode(mode: ReceiveMode): boolean {
    return this.#modes[mode];
  }

  /** The guest's own address is now this one, six bytes. */
  setMac(mac: Uint8Array): void {
    this.#mac.set(mac.subarray(0, MAC_BYTES));
  }

  /**
   * Replaces the MAC tables by lists of addresses in `bytes`, six bytes each: `unicastCount` from `unicastAt`
   * on and `multicastCount` from `multicastAt` on. They must be there.
   */
  setTables(
    bytes: Uint8Array,
    unicastAt: number,
    unicastCount: number,
    multicastAt: number,
    multicastCount: number,
  ): void {
    this.#table.set(bytes, unicastAt, unicastCount, multicastAt, multicastCount);
  }

  /** Adds a VLAN to the table, or takes it out. Throws RangeError for an id that is not 0 to 4095. */
  setVlan(id: number, on: boolean): void {
    if (!Number.isInteger(id) || id < 0 || id >= VLAN_IDS) {
      throw new RangeError(`Cannot filter VLAN ${id}: it must be an integer from 0 to ${VLAN_IDS - 1}`);
    }
    if (on) this.#vlans[id >>> 5] |= 1 << (id & 31);
    else this.#vlans[id >>> 5] &= ~(1 << (id & 31));
  }

  /** A copy of what the driver has programmed. */
  get state(): FilterState {
    const vlans = Array.from({ length: VLAN_IDS }, (_, id) => id);
    return {
      mac: this.#mac.slice(),
      modes: (Object.keys(this.#modes) as ReceiveMode[]).filter((mode) => this.#modes[mode]),
      unicast: this.#table.unicast,
      multicast: this.#table.multicast,
      unicastOverflow: this.#table.unicastOverflow,
      multicastOverflow: this.#table.multicastOverflow,
      vlans: vlans.filter((id) => (this.#vlans[id >>> 5] >>> (id & 31) & 1) === 1),
    };
  }

  /**
   * Takes over what the driver has programmed elsewhere. Whether VLANs are filtered follows from the
   * features.
   */
  restore(state: FilterState): void {
    const { unicast, multicast } = state;
    this.setMac(state.mac);
    for (const mode of Object.keys(this.#modes) as ReceiveMode[]) {
      this.#modes[mode] = state.modes.includes(mode);
    }
    const both = new Uint8Array(unicast.length + multicast.length);
    both.set(unicast);
    both.set(multicast, unicast.length);
    const counts = [unicast.length, multicast.length].map((bytes) => Math.floor(bytes / MAC_BYTES));
    this.setTables(both, 0, counts[0], unicast.length, counts[1]);
    this.#table.unicastOverflow ||= state.unicastOverflow;
    this.#table.multicastOverflow ||= state.multicastOverflow;
    this.#vlans.fill(0);
    for (const id of state.vlans) this.setVlan(id, true);
  }

  /** Judges the frame of `length` bytes from `start` on, and counts it if it is refused. */
  accepts(bytes: Uint8Array, start: number, length: number): FilterVerdict {
    const verdict = this.#judge(bytes, start, length);
    if (verdict !== "accepted") this.counters[verdict]++;
    return verdict;
  }

  #judge(bytes: Uint8Array, start: number, length: number): FilterVerdict {
    const modes = this.#modes;
    // Everything means everything, runts too: so does the reference.
    if (modes.promisc) return "accepted";
    if (length < ETHERNET_HEADER_BYTES) return "too_short";
    if (this.#filtersVlans) {
      const id = vlanId(bytes, start, length, this.#skipsPriority);
      if (id >= 0 && (this.#vlans[id >>> 5] >>> (id & 31) & 1) === 0) return "vlan_unknown";
    }
    if (isMulticast(bytes, start)) {
      if (isBroadcast(bytes, start)) return modes.nobcast ? "broadcast_off" : "accepted";
      if (modes.nomulti) return "multicast_off";
      if (modes.allmulti || this.#table.multicastOverflow) return "accepted";
      return this.#table.hasMulticast(bytes, start) ? "accepted" : "multicast_unknown";
    }
    if (modes.nouni) return "unicast_off";
    if (modes.alluni || this.#table.unicastOverflow) return "accepted";
    if (macEquals(bytes, start, this.#mac)) return "accepted";
    return this.#table.hasUnicast(bytes, start) ? "accepted" : "unicast_unknown";
  }
}

// The MAC table of a receive filter: a unicast and a multicast list in one table of fixed size (virtio 1.2,
// section 5.1.6.5.2).
//
// Unicast addresses come first, then multicast ones, compared one by one as a 32-bit and a 16-bit word. A
// list that does not fit is not kept at all: it overflows, and the filter lets everything of its kind
// through.

/** Addresses that the unicast and the multicast list hold together. */
export const MAC_TABLE_ENTRIES = 64;

/** The addresses that one driver listens to. */
export class MacTable {
  readonly #high = new Uint32Array(MAC_TABLE_ENTRIES);
  readonly #low = new Uint16Array(MAC_TABLE_ENTRIES);
  #unicastEntries = 0;
  #entries = 0;
  /** Was the list of unicast addresses too long? */
  unicastOverflow = false;
  /** Was that of multicast addresses? */
  multicastOverflow = false;

  /** The unicast addresses, six bytes one after the other; a copy. */
  get unicast(): Uint8Array {
    return this.#addresses(0, this.#unicastEntries);
  }

  /** The multicast addresses likewise. */
  get multicast(): Uint8Array {
    return this.#addresses(this.#unicastEntries, this.#entries);
  }

  /**
   * Replaces both lists by addresses in `bytes`, six bytes each: `unicastCount` from `unicastAt` on and
   * `multicastCount` from `multicastAt` on. They must be there.
   */
  set(
    bytes: Uint8Array,
    unicastAt: number,
    unicastCount: number,
    multicastAt: number,
    multicastCount: number,
  ): void {
    this.#entries = 0;
    this.unicastOverflow = !this.#append(bytes, unicastAt, unicastCount);
    this.#unicastEntries = this.#entries;
    this.multicastOverflow = !this.#append(bytes, multicastAt, multicastCount);
  }

  /** Forgets both lists. */
  clear(): void {
    this.#unicastEntries = 0;
    this.#entries = 0;
    this.unicastOverflow = false;
    this.multicastOverflow = false;
  }

  /** Is the address at `at` among the unicast ones? */
  hasUnicast(bytes: Uint8Array, at: number): boolean {
    return this.#has(bytes, at, 0, this.#unicastEntries);
  }

  /** Is the address at `at` among the multicast ones? */
  hasMulticast(bytes: Uint8Array, at: number): boolean {
    return this.#has(bytes, at, this.#unicastEntries, this.#entries);
  }

  #append(bytes: Uint8Array, at: number, count: number): boolean {
    if (this.#entries + count > MAC_TABLE_ENTRIES) return false;
    for (let i = 0, from = at; i < count; i++, from += MAC_BYTES) {
      this.#high[this.#entries] = highWord(bytes, from);
      this.#low[this.#entries++] = lowWord(bytes, from);
    }
    return true;
  }

  #addresses(first: number, end: number): Uint8Array {
    const bytes = new Uint8Array(MAC_BYTES * (end - first));
    const view = new DataView(bytes.buffer);
    for (let i = first, at = 0; i < end; i++, at += MAC_BYTES) {
      view.setUint32(at, this.#high[i]);
      view.setUint16(at + 4, this.#low[i]);
    }
    return bytes;
  }

  #has(bytes: Uint8Array, at: number, first: number, end: number): boolean {
    const high = highWord(bytes, at);
    const low = lowWord(bytes, at);
    for (let i = first; i < end; i++) if (this.#high[i] === high && this.#low[i] === low) return true;
    return false;
  }
}

function highWord(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24 | bytes[at + 1] << 16 | bytes[at + 2] << 8 | bytes[at + 3]) >>> 0;
}

function lowWord(bytes: Uint8Array, at: number): number {
  return bytes[at + 4] << 8 | bytes[at + 5];
}
