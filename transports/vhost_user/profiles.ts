/**
 * Front-ends, and what to offer to each of them.
 *
 * Front-ends differ in what they make of an offer. Some take every bit that they have heard of, served or not; some warn
 * of one that they do not want; some end the control queue in themselves, so that what is set by command never gets here.
 * A profile names the front-end; `auto` is right for all of them and best for none.
 *
 * Never offered to anybody, because they are not served: CROSS_ENDIAN, CRYPTO_SESSION, PAGEFAULT, BACKEND_SEND_FD,
 * HOST_NOTIFIER, INFLIGHT_SHMFD, XEN_MMAP, SHARED_OBJECT, GET_VRING_BASE_INFLIGHT, GPA_ADDRESSES, SHMEM_MAP. In-flight
 * tracking is not needed for buffers, none of which stays with the device over a round. Where a packed ring stood could
 * be kept in such memory if this program is killed, but no front-end of a network device asks for it.
 * @module
 */
import type { Device } from "../../core/device.ts";
import { FeatureSet, VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import {
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_RSC_EXT,
  VIRTIO_NET_F_RSS,
} from "../../wire/net_features.ts";
import { ProtocolFeature, VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES } from "./messages.ts";

/** The front-ends that have a profile. */
export const PROFILES = ["auto", "qemu", "virtio-user", "cloud-hypervisor", "crosvm", "sim"] as const;

/** A front-end by name; `sim` is one that kicks by messages, such as a simulator with a time of its own. */
export type ProfileName = typeof PROFILES[number];

const { MQ, LOG_SHMFD, RARP, REPLY_ACK, MTU, BACKEND_REQ, CONFIG, RESET_DEVICE } = ProtocolFeature;
const { INBAND_NOTIFICATIONS, CONFIGURE_MEM_SLOTS, STATUS, DEVICE_STATE } = ProtocolFeature;

/** All that is served, but for kicks by message, of which a front-end may take the bit without the meaning. */
const SERVED = FeatureSet.of(
  MQ,
  LOG_SHMFD,
  RARP,
  REPLY_ACK,
  MTU,
  BACKEND_REQ,
  CONFIG,
  RESET_DEVICE,
  CONFIGURE_MEM_SLOTS,
  STATUS,
  DEVICE_STATE,
);

/** Set by commands of a control queue that ends in the front-end: accepting them would promise what never comes. */
const COMMANDED = [VIRTIO_NET_F_RSS, VIRTIO_NET_F_HASH_REPORT];

interface Profile {
  readonly protocol: FeatureSet;
  /** Bits of the device not to offer. */
  readonly withheld: readonly number[];
}

const TABLE: Readonly<Record<ProfileName, Profile>> = {
  "auto": { protocol: SERVED, withheld: COMMANDED },
  // Takes configuration from its own command line, and warns of a back-end that offers it.
  "qemu": { protocol: SERVED.without(CONFIG), withheld: COMMANDED },
  "virtio-user": { protocol: FeatureSet.of(MQ, REPLY_ACK, STATUS), withheld: COMMANDED },
  "cloud-hypervisor": {
    protocol: FeatureSet.of(MQ, LOG_SHMFD, REPLY_ACK, CONFIG, CONFIGURE_MEM_SLOTS, DEVICE_STATE),
    withheld: [...COMMANDED, VIRTIO_F_RING_PACKED, VIRTIO_NET_F_RSC_EXT],
  },
  // Forwards the control queue, and strips the packed layout with a warning.
  "crosvm": {
    protocol: FeatureSet.of(MQ, REPLY_ACK, BACKEND_REQ, CONFIG, DEVICE_STATE),
    withheld: [VIRTIO_F_RING_PACKED],
  },
  "sim": { protocol: SERVED.with(INBAND_NOTIFICATIONS), withheld: [] },
};

/** What is offered to one front-end. */
export interface Offer {
  /** Virtio features, with the bits of the protocol itself. */
  readonly features: FeatureSet;
  /** Protocol features. */
  readonly protocol: FeatureSet;
}

/** What to offer of this device to this front-end: never a bit that cannot be served. */
export function offerFor(device: Device, profile: ProfileName): Offer {
  const { protocol, withheld } = TABLE[profile];
  const unserved: number[] = [];
  if (device.saveState === undefined || device.restoreState === undefined) unserved.push(DEVICE_STATE);
  if (device.guestMoved === undefined) unserved.push(RARP);
  if (device.acceptsMtu === undefined) unserved.push(MTU);
  const served = protocol.without(...unserved);
  const bits = served.has(LOG_SHMFD)
    ? [VHOST_USER_F_PROTOCOL_FEATURES, VHOST_F_LOG_ALL]
    : [VHOST_USER_F_PROTOCOL_FEATURES];
  // 64 bits fit into a message.
  const features = FeatureSet.fromWords(device.features.word(0), device.features.word(1));
  return { features: features.without(...withheld).with(...bits), protocol: served };
}

/** The device's own features among those that a front-end accepts: without the bits of the protocol. */
export function deviceFeatures(accepted: FeatureSet): FeatureSet {
  return accepted.without(VHOST_USER_F_PROTOCOL_FEATURES, VHOST_F_LOG_ALL);
}

/**
 * The features to be judged in place of `features`. A front-end that ends the control queue in itself accepts MQ or
 * GUEST_ANNOUNCE without CTRL_VQ, on which they depend: its driver has CTRL_VQ all the same.
 */
export function featuresToJudge(device: Device, features: FeatureSet): FeatureSet {
  const isNet = device.id === 1;
  return isNet && device.features.has(VIRTIO_NET_F_CTRL_VQ) ? features.with(VIRTIO_NET_F_CTRL_VQ) : features;
}
