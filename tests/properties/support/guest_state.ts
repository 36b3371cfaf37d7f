/**
 * What the guest has agreed to and asked for, kept beside the device: from it follows what must become of
 * each frame. Written from the specification and docs/rules.md, not from the device.
 * @module
 */
import type { FeatureSet } from "../../../core/features.ts";
import type { Injection } from "./traffic.ts";

const GUEST_CSUM = 1;
const GUEST_TSO4 = 7;
const GUEST_TSO6 = 8;
const GUEST_ECN = 9;
const CTRL_GUEST_OFFLOADS = 2;
const MRG_RXBUF = 15;
const CTRL_VLAN = 19;
const VERSION_1 = 32;
const RSC_EXT = 61;
/** Bits that GUEST_OFFLOADS_SET may name. */
const OFFLOADS = [1, 7, 8, 9, 61];
const GUEST_MAC = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/** Why a frame must not reach the guest. */
export type Refusal =
  | "toGuest.dropped_link_down"
  | "filter.too_short"
  | "filter.vlan_unknown"
  | "filter.multicast_unknown"
  | "filter.unicast_unknown"
  | "toGuest.dropped_large"
  | "toGuest.dropped_partial_checksum"
  | "toGuest.dropped_buffer_too_small";

/** The state of one attachment. */
export class GuestState {
  /** Is everything let through? */
  promiscuous = true;
  /** Is the link up? */
  linkUp = true;
  readonly #features: FeatureSet;
  readonly #bufferBytes: number;
  #offloads: ReadonlySet<number>;

  /** As after the attachment. */
  constructor(features: FeatureSet, bufferBytes: number) {
    this.#features = features;
    this.#bufferBytes = bufferBytes;
    this.#offloads = new Set(OFFLOADS.filter((bit) => features.has(bit)));
  }

  /** Does RSC_INFO go with merged packets? */
  get rscInfo(): boolean {
    return this.#features.has(RSC_EXT);
  }

  /** Are packets spread over buffers? */
  get mergeable(): boolean {
    return this.#features.has(MRG_RXBUF);
  }

  /** Bytes of the virtio header. */
  get headerBytes(): number {
    return this.#features.has(VERSION_1) || this.mergeable ? 12 : 10;
  }

  /** Has the guest said anything about this? */
  has(feature: number): boolean {
    return this.#features.has(feature);
  }

  /** Does the guest take segments with ECN marks merged? */
  get takesEcn(): boolean {
    return this.#offloads.has(GUEST_ECN);
  }

  /** Does the guest look at checksum flags? */
  get takesChecksums(): boolean {
    return this.#offloads.has(GUEST_CSUM);
  }

  /** Must a segment of this family leave alone? */
  mergesNothing(v6: boolean): boolean {
    const offloads = this.#offloads;
    return !offloads.has(GUEST_CSUM) || !offloads.has(v6 ? GUEST_TSO6 : GUEST_TSO4) ||
      (this.rscInfo && !offloads.has(RSC_EXT));
  }

  /** The guest asks for these offloads. Returns whether the device must obey; then it counts from now on. */
  setOffloads(mask: readonly number[]): boolean {
    if (!this.#features.has(CTRL_GUEST_OFFLOADS)) return false;
    if (mask.some((bit) => !OFFLOADS.includes(bit) || !this.#features.has(bit))) return false;
    this.#offloads = new Set(mask);
    return true;
  }

  /** Why this frame must not reach the guest; null if it must. */
  refusal({ bytes, header }: Injection): Refusal | null {
    if (!this.linkUp) return "toGuest.dropped_link_down";
    return this.#filtered(bytes) ?? this.#unwelcome(bytes, header);
  }

  #filtered(bytes: Uint8Array): Refusal | null {
    if (this.promiscuous) return null;
    if (bytes.length < 14) return "filter.too_short";
    if (this.#features.has(CTRL_VLAN) && namesVlan(bytes)) return "filter.vlan_unknown";
    if ((bytes[0] & 1) === 1) {
      return bytes.subarray(0, 6).every((byte) => byte === 255) ? null : "filter.multicast_unknown";
    }
    return GUEST_MAC.every((byte, i) => bytes[i] === byte) ? null : "filter.unicast_unknown";
  }

  #unwelcome(bytes: Uint8Array, header: Injection["header"]): Refusal | null {
    if (header.gsoType !== 0) {
      const v6 = (header.gsoType & 0x7f) === 4;
      const welcome = this.#offloads.has(v6 ? GUEST_TSO6 : GUEST_TSO4) &&
        (header.gsoType < 0x80 || this.takesEcn);
      if (!welcome) return "toGuest.dropped_large";
    }
    if ((header.flags & 1) !== 0 && !this.takesChecksums) return "toGuest.dropped_partial_checksum";
    const tooLong = !this.mergeable && this.headerBytes + bytes.length > this.#bufferBytes;
    return tooLong ? "toGuest.dropped_buffer_too_small" : null;
  }
}

/** Does a customer tag in front have an id other than 0? */
function namesVlan(bytes: Uint8Array): boolean {
  for (let at = 12; at + 4 <= bytes.length && bytes[at] === 0x81 && bytes[at + 1] === 0; at += 4) {
    if (((bytes[at + 2] & 15) << 8 | bytes[at + 3]) !== 0) return true;
  }
  return false;
}

/** The bits of a mask that a number chooses among the offloads, and now and then one that was not offered. */
export function offloadMask(detail: number): number[] {
  const mask = OFFLOADS.filter((_, i) => (detail >>> i & 1) === 1);
  if ((detail & 0x3e0) === 0x3e0) mask.push(54);
  return mask;
}
