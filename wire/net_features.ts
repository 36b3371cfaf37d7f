/**
 * The feature bits of virtio-net (virtio 1.2, section 5.1.3), their names, and which bit needs which
 * (section 5.1.3.1).
 * @module
 */

/** Device handles frames with a partial checksum (virtio 1.2, section 5.1.3). */
export const VIRTIO_NET_F_CSUM = 0;
/** Driver handles frames with a partial checksum. */
export const VIRTIO_NET_F_GUEST_CSUM = 1;
/** The driver can switch its offloads by command (section 5.1.6.5.8). */
export const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS = 2;
/** Device reports the largest MTU (section 5.1.4). */
export const VIRTIO_NET_F_MTU = 3;
/** Device has given a MAC address (section 5.1.4). */
export const VIRTIO_NET_F_MAC = 5;
/** Legacy: device handles any GSO type (section 5.1.3.2). */
export const VIRTIO_NET_F_GSO = 6;
/** Driver can receive large TCP over IPv4. */
export const VIRTIO_NET_F_GUEST_TSO4 = 7;
/** Driver can receive large TCP over IPv6. */
export const VIRTIO_NET_F_GUEST_TSO6 = 8;
/** Driver can receive large TCP with ECN. */
export const VIRTIO_NET_F_GUEST_ECN = 9;
/** Driver can receive UDP to be fragmented. */
export const VIRTIO_NET_F_GUEST_UFO = 10;
/** Device can take large TCP over IPv4. */
export const VIRTIO_NET_F_HOST_TSO4 = 11;
/** Device can take large TCP over IPv6. */
export const VIRTIO_NET_F_HOST_TSO6 = 12;
/** Device can take large TCP with ECN. */
export const VIRTIO_NET_F_HOST_ECN = 13;
/** Device can take UDP to be fragmented. */
export const VIRTIO_NET_F_HOST_UFO = 14;
/** A received frame may be spread over several buffers (section 5.1.6.3). */
export const VIRTIO_NET_F_MRG_RXBUF = 15;
/** The configuration field `status` is there (section 5.1.4). */
export const VIRTIO_NET_F_STATUS = 16;
/** The control queue is there (section 5.1.6.5). */
export const VIRTIO_NET_F_CTRL_VQ = 17;
/** Commands for promiscuous and all-multicast modes and the MAC table (section 5.1.6.5.1). */
export const VIRTIO_NET_F_CTRL_RX = 18;
/** Commands for the VLAN table (section 5.1.6.5.3). */
export const VIRTIO_NET_F_CTRL_VLAN = 19;
/** Commands for the other receive modes (section 5.1.6.5.1). */
export const VIRTIO_NET_F_CTRL_RX_EXTRA = 20;
/** Driver can announce itself after a move (section 5.1.6.5.4). */
export const VIRTIO_NET_F_GUEST_ANNOUNCE = 21;
/** Several queue pairs with automatic steering (section 5.1.6.5.6). */
export const VIRTIO_NET_F_MQ = 22;
/** A command sets the MAC address (section 5.1.6.5.2). */
export const VIRTIO_NET_F_CTRL_MAC_ADDR = 23;
/** Reserved: an early private patch for coalescing used it; never offered (section 5.1.3.2). */
export const VIRTIO_NET_F_GUEST_RSC4 = 41;
/** Reserved: an early private patch for coalescing used it; never offered (section 5.1.3.2). */
export const VIRTIO_NET_F_GUEST_RSC6 = 42;
/** Statistics by command (virtio 1.4, section 5.1.3). */
export const VIRTIO_NET_F_DEVICE_STATS = 50;
/** Hash over the inner header of tunnelled frames (virtio 1.3, section 5.1.3). */
export const VIRTIO_NET_F_HASH_TUNNEL = 51;
/** Notification coalescing for each queue (virtio 1.3, section 5.1.3). */
export const VIRTIO_NET_F_VQ_NOTF_COAL = 52;
/** Notification coalescing (section 5.1.6.5.9). */
export const VIRTIO_NET_F_NOTF_COAL = 53;
/** Driver can receive large UDP over IPv4. */
export const VIRTIO_NET_F_GUEST_USO4 = 54;
/** Driver can receive large UDP over IPv6. */
export const VIRTIO_NET_F_GUEST_USO6 = 55;
/** Device can take large UDP. */
export const VIRTIO_NET_F_HOST_USO = 56;
/** Device reports a hash with each frame (section 5.1.6.4.4). */
export const VIRTIO_NET_F_HASH_REPORT = 57;
/** Driver gives the exact `hdr_len`. */
export const VIRTIO_NET_F_GUEST_HDRLEN = 59;
/** Receive-side scaling (section 5.1.6.5.7). */
export const VIRTIO_NET_F_RSS = 60;
/** Device coalesces TCP segments and says how many (section 5.1.6.4). */
export const VIRTIO_NET_F_RSC_EXT = 61;
/** Device may stand by for a primary device with the same MAC address. */
export const VIRTIO_NET_F_STANDBY = 62;
/** Device reports speed and duplex (section 5.1.4). */
export const VIRTIO_NET_F_SPEED_DUPLEX = 63;
/** Several RSS contexts (virtio 1.4, section 5.1.3). */
export const VIRTIO_NET_F_RSS_CONTEXT = 64;

/**
 * The device follows virtio 1.0 or later (virtio 1.2, section 6); here because the header's length depends on
 * it.
 */
export const VIRTIO_F_VERSION_1 = 32;

/** Something that knows which feature bits are set, such as a feature set. */
export interface FeatureBits {
  /** Is this bit set? */
  has(bit: number): boolean;
}

/** A row of the dependency table: `bit` makes no sense without one of `anyOf`. */
export interface FeatureDependency {
  /** The bit that depends. */
  readonly bit: number;
  /** The bits of which it needs at least one. */
  readonly anyOf: readonly number[];
}

/** A dependency that a set of features breaks. */
export interface MissingDependency {
  /** The bit that is set. */
  readonly bit: number;
  /** The bits of which none is set. */
  readonly needsAnyOf: readonly number[];
}

/** The names of the bits of a network device, without prefix; those of rings among them. */
export const NET_FEATURE_NAMES: ReadonlyMap<number, string> = new Map([
  [VIRTIO_NET_F_CSUM, "CSUM"],
  [VIRTIO_NET_F_GUEST_CSUM, "GUEST_CSUM"],
  [VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, "CTRL_GUEST_OFFLOADS"],
  [VIRTIO_NET_F_MTU, "MTU"],
  [VIRTIO_NET_F_MAC, "MAC"],
  [VIRTIO_NET_F_GSO, "GSO"],
  [VIRTIO_NET_F_GUEST_TSO4, "GUEST_TSO4"],
  [VIRTIO_NET_F_GUEST_TSO6, "GUEST_TSO6"],
  [VIRTIO_NET_F_GUEST_ECN, "GUEST_ECN"],
  [VIRTIO_NET_F_GUEST_UFO, "GUEST_UFO"],
  [VIRTIO_NET_F_HOST_TSO4, "HOST_TSO4"],
  [VIRTIO_NET_F_HOST_TSO6, "HOST_TSO6"],
  [VIRTIO_NET_F_HOST_ECN, "HOST_ECN"],
  [VIRTIO_NET_F_HOST_UFO, "HOST_UFO"],
  [VIRTIO_NET_F_MRG_RXBUF, "MRG_RXBUF"],
  [VIRTIO_NET_F_STATUS, "STATUS"],
  [VIRTIO_NET_F_CTRL_VQ, "CTRL_VQ"],
  [VIRTIO_NET_F_CTRL_RX, "CTRL_RX"],
  [VIRTIO_NET_F_CTRL_VLAN, "CTRL_VLAN"],
  [VIRTIO_NET_F_CTRL_RX_EXTRA, "CTRL_RX_EXTRA"],
  [VIRTIO_NET_F_GUEST_ANNOUNCE, "GUEST_ANNOUNCE"],
  [VIRTIO_NET_F_MQ, "MQ"],
  [VIRTIO_NET_F_CTRL_MAC_ADDR, "CTRL_MAC_ADDR"],
  [24, "NOTIFY_ON_EMPTY"],
  [27, "ANY_LAYOUT"],
  [28, "INDIRECT_DESC"],
  [29, "EVENT_IDX"],
  [VIRTIO_F_VERSION_1, "VERSION_1"],
  [33, "ACCESS_PLATFORM"],
  [34, "RING_PACKED"],
  [35, "IN_ORDER"],
  [36, "ORDER_PLATFORM"],
  [37, "SR_IOV"],
  [38, "NOTIFICATION_DATA"],
  [39, "NOTIF_CONFIG_DATA"],
  [40, "RING_RESET"],
  [VIRTIO_NET_F_GUEST_RSC4, "GUEST_RSC4"],
  [VIRTIO_NET_F_GUEST_RSC6, "GUEST_RSC6"],
  [VIRTIO_NET_F_DEVICE_STATS, "DEVICE_STATS"],
  [VIRTIO_NET_F_HASH_TUNNEL, "HASH_TUNNEL"],
  [VIRTIO_NET_F_VQ_NOTF_COAL, "VQ_NOTF_COAL"],
  [VIRTIO_NET_F_NOTF_COAL, "NOTF_COAL"],
  [VIRTIO_NET_F_GUEST_USO4, "GUEST_USO4"],
  [VIRTIO_NET_F_GUEST_USO6, "GUEST_USO6"],
  [VIRTIO_NET_F_HOST_USO, "HOST_USO"],
  [VIRTIO_NET_F_HASH_REPORT, "HASH_REPORT"],
  [VIRTIO_NET_F_GUEST_HDRLEN, "GUEST_HDRLEN"],
  [VIRTIO_NET_F_RSS, "RSS"],
  [VIRTIO_NET_F_RSC_EXT, "RSC_EXT"],
  [VIRTIO_NET_F_STANDBY, "STANDBY"],
  [VIRTIO_NET_F_SPEED_DUPLEX, "SPEED_DUPLEX"],
  [VIRTIO_NET_F_RSS_CONTEXT, "RSS_CONTEXT"],
  [65, "GUEST_UDP_TUNNEL_GSO"],
  [66, "GUEST_UDP_TUNNEL_GSO_CSUM"],
  [67, "HOST_UDP_TUNNEL_GSO"],
  [68, "HOST_UDP_TUNNEL_GSO_CSUM"],
  [69, "OUT_NET_HEADER"],
]);

const BITS: ReadonlyMap<string, number> = new Map(
  Array.from(NET_FEATURE_NAMES, ([bit, name]) => [name, bit]),
);

/**
 * The name of a bit of a network device without its prefix, such as `RSC_EXT`; `bit 43` for one that has
 * none.
 */
export function featureName(bit: number): string {
  return NET_FEATURE_NAMES.get(bit) ?? `bit ${bit}`;
}

/**
 * The bit of a network device of this name, such as `RSC_EXT`, without prefix; undefined if there is none.
 */
export function featureBit(name: string): number | undefined {
  return BITS.get(name);
}

/**
 * Which bit needs which (virtio 1.2, section 5.1.3.1). A bit with two rows needs both. RSC_EXT is printed
 * there as needing HOST_TSO4 or HOST_TSO6; the text on receiving (section 5.1.6.4) shows that GUEST_TSO4 or
 * GUEST_TSO6 is meant, for a device cannot hand a coalesced segment to a driver that takes no large ones.
 */
export const NET_FEATURE_DEPENDENCIES: readonly FeatureDependency[] = [
  { bit: VIRTIO_NET_F_GUEST_TSO4, anyOf: [VIRTIO_NET_F_GUEST_CSUM] },
  { bit: VIRTIO_NET_F_GUEST_TSO6, anyOf: [VIRTIO_NET_F_GUEST_CSUM] },
  { bit: VIRTIO_NET_F_GUEST_ECN, anyOf: [VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6] },
  { bit: VIRTIO_NET_F_GUEST_UFO, anyOf: [VIRTIO_NET_F_GUEST_CSUM] },
  { bit: VIRTIO_NET_F_GUEST_USO4, anyOf: [VIRTIO_NET_F_GUEST_CSUM] },
  { bit: VIRTIO_NET_F_GUEST_USO6, anyOf: [VIRTIO_NET_F_GUEST_CSUM] },
  { bit: VIRTIO_NET_F_HOST_TSO4, anyOf: [VIRTIO_NET_F_CSUM] },
  { bit: VIRTIO_NET_F_HOST_TSO6, anyOf: [VIRTIO_NET_F_CSUM] },
  { bit: VIRTIO_NET_F_HOST_ECN, anyOf: [VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6] },
  { bit: VIRTIO_NET_F_HOST_UFO, anyOf: [VIRTIO_NET_F_CSUM] },
  { bit: VIRTIO_NET_F_HOST_USO, anyOf: [VIRTIO_NET_F_CSUM] },
  { bit: VIRTIO_NET_F_CTRL_RX, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_CTRL_VLAN, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_GUEST_ANNOUNCE, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_MQ, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_CTRL_MAC_ADDR, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_NOTF_COAL, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_RSC_EXT, anyOf: [VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6] },
  { bit: VIRTIO_NET_F_RSS, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_VQ_NOTF_COAL, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_HASH_TUNNEL, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_HASH_TUNNEL, anyOf: [VIRTIO_NET_F_RSS, VIRTIO_NET_F_HASH_REPORT] },
  { bit: VIRTIO_NET_F_RSS_CONTEXT, anyOf: [VIRTIO_NET_F_CTRL_VQ] },
  { bit: VIRTIO_NET_F_RSS_CONTEXT, anyOf: [VIRTIO_NET_F_RSS] },
];

/**
 * Every dependency that the bits for which `has` answers true break, in the order of the table. Empty if all
 * is well.
 */
export function missingDependencies(has: (bit: number) => boolean): MissingDependency[] {
  const missing: MissingDependency[] = [];
  for (const { bit, anyOf } of NET_FEATURE_DEPENDENCIES) {
    if (has(bit) && !anyOf.some(has)) missing.push({ bit, needsAnyOf: anyOf });
  }
  return missing;
}
