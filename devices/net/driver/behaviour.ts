/**
 * What the software guest does of itself: return frames to their sender, or make frames up and send them.
 * @module
 */
import type { FeatureSet } from "../../../core/features.ts";
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE,
  ETHERNET_TYPE,
  MAC_BYTES,
  parseMac,
} from "../../../wire/ethernet.ts";
import { HeaderLocator } from "../../../wire/headers.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_UFO,
  VIRTIO_NET_F_HOST_USO,
} from "../../../wire/net_features.ts";
import { TCP_CHECKSUM } from "../../../wire/tcp_ip.ts";
import {
  type NetHeaderFields,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../../wire/virtio_net_header.ts";
import type { SendOptions } from "./options.ts";
import type { ReceivedPacket } from "./receive_queue.ts";

/** EtherType for local experiments (IEEE 802, clause 9.2.4): what the made-up frames are. */
export const EXPERIMENTAL_ETHERTYPE = 0x88b5;

const headers = new HeaderLocator();

/** Which feature lets the driver send a large packet of this type; -1 if none does. */
function neededToSend(gsoType: number): number {
  switch (gsoType) {
    case VIRTIO_NET_HDR_GSO_TCPV4:
      return VIRTIO_NET_F_HOST_TSO4;
    case VIRTIO_NET_HDR_GSO_TCPV6:
      return VIRTIO_NET_F_HOST_TSO6;
    case VIRTIO_NET_HDR_GSO_UDP:
      return VIRTIO_NET_F_HOST_UFO;
    case VIRTIO_NET_HDR_GSO_UDP_L4:
      return VIRTIO_NET_F_HOST_USO;
    default:
      return -1;
  }
}

/**
 * The header under which a received packet can be sent back, into `header`. False if the device does not take
 * it: its checksum is incomplete or it is large, and the feature for that was not negotiated (virtio 1.2,
 * section 5.1.6.2.1).
 */
export function echoHeader(packet: ReceivedPacket, features: FeatureSet, header: NetHeaderFields): boolean {
  const type = packet.gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
  const unfinished = (packet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
  const large = type !== VIRTIO_NET_HDR_GSO_NONE;
  if ((unfinished || large) && !features.has(VIRTIO_NET_F_CSUM)) return false;
  if (large) {
    const needed = neededToSend(type);
    if (needed < 0 || !unfinished || !features.has(needed)) return false;
    if (type !== packet.gsoType && !features.has(VIRTIO_NET_F_HOST_ECN)) return false;
  }
  header.flags = unfinished ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0;
  header.gsoType = large ? packet.gsoType : VIRTIO_NET_HDR_GSO_NONE;
  header.hdrLen = large ? packet.hdrLen : 0;
  header.gsoSize = large ? packet.gsoSize : 0;
  header.csumStart = unfinished ? packet.csumStart : 0;
  header.csumOffset = unfinished ? packet.csumOffset : 0;
  if (!unfinished || (packet.flags & VIRTIO_NET_HDR_F_RSC_INFO) === 0) return true;
  // Under RSC_INFO both fields count segments: where the TCP header lies must be found in the packet.
  headers.locate(packet.bytes, 0, packet.bytes.length);
  header.csumStart = headers.transportAt;
  header.csumOffset = TCP_CHECKSUM;
  return headers.transportAt >= 0 && header.csumStart + TCP_CHECKSUM + 2 <= packet.bytes.length;
}

/**
 * Exchanges source and destination MAC address of a frame; one that is too short to have them stays as it is.
 */
export function swapMacs(frame: Uint8Array): void {
  if (frame.length < 2 * MAC_BYTES) return;
  for (let i = 0; i < MAC_BYTES; i++) {
    const byte = frame[i];
    frame[i] = frame[ETHERNET_SOURCE + i];
    frame[ETHERNET_SOURCE + i] = byte;
  }
}

/**
 * Makes frames up in time: destination, the guest's own address, an EtherType for experiments, the number of
 * the frame from 1 as four bytes in network order, and then bytes that count up from the number.
 */
export class FrameMaker {
  readonly #options: SendOptions;
  readonly #frame: Uint8Array<ArrayBuffer>;
  readonly #view: DataView;
  #made = 0;
  #nextNs = -1;

  /**
   * Starts with frame 1.
   * @param source the guest's own MAC address, six bytes
   */
  constructor(options: SendOptions, source: Uint8Array) {
    this.#options = options;
    this.#frame = new Uint8Array(options.frameBytes);
    this.#view = new DataView(this.#frame.buffer);
    this.#frame.set(parseMac(options.destination), 0);
    this.#frame.set(source, ETHERNET_SOURCE);
    this.#view.setUint16(ETHERNET_TYPE, EXPERIMENTAL_ETHERTYPE);
  }

  /** Have all frames been made? */
  get finished(): boolean {
    return this.#options.count !== 0 && this.#made >= this.#options.count;
  }

  /** When the next frame is due, in ns: at once before the first, Infinity behind the last. */
  get deadlineNs(): number {
    return this.finished ? Infinity : Math.max(this.#nextNs, 0);
  }

  /** The frame that is due at `nowNs`, or null. The same frame again until `sent()`; its bytes are reused. */
  due(nowNs: number): Uint8Array<ArrayBuffer> | null {
    if (this.finished || nowNs < this.#nextNs) return null;
    if (this.#nextNs < 0) this.#nextNs = nowNs;
    const number = (this.#made + 1) >>> 0;
    this.#view.setUint32(ETHERNET_HEADER_BYTES, number);
    for (let i = ETHERNET_HEADER_BYTES + 4; i < this.#frame.length; i++) this.#frame[i] = number + i;
    return this.#frame;
  }

  /** The frame that was due is on its way. */
  sent(): void {
    this.#made++;
    this.#nextNs += Math.round(this.#options.intervalUs * 1000);
  }
}
