/**
 * What the guest's features and offloads mean for strict coalescing.
 * @module
 */
import type { Negotiated } from "../../core/stage.ts";
import {
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_RSC_EXT,
} from "../../wire/net_features.ts";
import type { RscFamily } from "./family.ts";

const ETHERNET_BYTES = 14;
/**
 * The largest merged packet for a guest without MRG_RXBUF: the 65562 bytes that virtio 1.0 to 1.2 tell it to post (section
 * 5.1.6.3.1), less 12 of header. IPv6 packets can be longer, and would be lost.
 */
const MOST_BYTES_IN_ONE_BUFFER = 65_550;

/** The terms under which one family's segments are merged. */
export interface StrictTerms {
  /** Are they merged at all? */
  readonly on: boolean;
  /** Does the guest look at RSC_INFO? */
  readonly rscInfo: boolean;
  /** Does it take merged packets with ECN? */
  readonly guestEcn: boolean;
  /** Largest value of a merged packet's IP length field, in bytes. */
  readonly mostIpLength: number;
}

/** Nothing is merged. */
export const NO_TERMS: StrictTerms = { on: false, rscInfo: false, guestEcn: false, mostIpLength: 0 };

/**
 * The terms of a guest. It is on with GUEST_CSUM and the family's GUEST_TSO. A guest that knows RSC_EXT must have it on too,
 * one that does not gets ordinary large packets.
 */
export function strictTerms({ features, offloads }: Negotiated, family: RscFamily): StrictTerms {
  const wanted = !features.has(VIRTIO_NET_F_RSC_EXT) || offloads.has(VIRTIO_NET_F_RSC_EXT);
  const { mostIpLength, ipHeaderUncounted } = family;
  return {
    on: wanted && offloads.has(VIRTIO_NET_F_GUEST_CSUM) && offloads.has(family.guestTso),
    rscInfo: offloads.has(VIRTIO_NET_F_RSC_EXT),
    guestEcn: offloads.has(VIRTIO_NET_F_GUEST_ECN),
    mostIpLength: features.has(VIRTIO_NET_F_MRG_RXBUF)
      ? mostIpLength
      : Math.min(mostIpLength, MOST_BYTES_IN_ONE_BUFFER - ETHERNET_BYTES - ipHeaderUncounted),
  };
}
