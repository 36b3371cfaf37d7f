/**
 * Which features the network device offers, which sets of them a driver may accept, and which of them are
 * guest offloads.
 * @module
 */
import { GuestError } from "../../rings/guest_error.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../core/features.ts";
import type { RuleBook } from "../../pipeline/qemu_compat.ts";
import type { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import {
  featureName,
  missingDependencies,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_RSC4,
  VIRTIO_NET_F_GUEST_RSC6,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_UFO,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_RSC_EXT,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_F_SPEED_DUPLEX,
  VIRTIO_NET_F_STATUS,
} from "../../wire/net_features.ts";

/** What the offer depends on. */
export interface OfferInputs {
  /** Queue pairs; MQ is offered for more than one. */
  readonly queuePairs: number;
  /** What the network takes unfinished: the device offers to take no more than that from the guest. */
  readonly network: OffloadCapabilities;
  /** Bits that the offloads make possible, such as RSC_EXT, or CSUM by a stage that completes checksums. */
  readonly fromStages?: Iterable<number>;
  /** Optional features to offer as well: MTU, SPEED_DUPLEX, RSS, HASH_REPORT, RING_PACKED. */
  readonly extra?: Iterable<number>;
  /** Bits not to offer, whatever speaks for them. */
  readonly withheld?: Iterable<number>;
  /** The rule book; `qemu` leaves a bit offered whose dependencies are not. */
  readonly rules: RuleBook;
}

/** Bits that may be named in `extra`: the device knows them, but needs to be told more to serve them well. */
export const EXTRA_FEATURES: FeatureSet = FeatureSet.of(
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_SPEED_DUPLEX,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_F_RING_PACKED,
);

/**
 * Bits that the driver switches by GUEST_OFFLOADS_SET; RSC_EXT among them by convention of its only user, not
 * by text.
 */
export const GUEST_OFFLOADS: FeatureSet = FeatureSet.of(
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_UFO,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_RSC_EXT,
);

const ALWAYS = FeatureSet.of(
  VIRTIO_F_VERSION_1,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_EVENT_IDX,
  // No buffer overtakes another: what is popped is pushed in the same order, or put back.
  VIRTIO_F_IN_ORDER,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  // An offer of these is a permission for the device, which need not make use of it.
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_ECN,
);

/** Old Windows drivers fail on a device that offers these (virtio 1.2, section 5.1.3.2). */
const NEVER = FeatureSet.of(VIRTIO_NET_F_GUEST_RSC4, VIRTIO_NET_F_GUEST_RSC6);

/** Work only by command, although the dependency table does not say so, or only recommends it. */
const COMMANDED = FeatureSet.of(
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_HASH_REPORT,
);

/**
 * The features to offer. Under strict rules no bit is left whose dependencies (virtio 1.2, section 5.1.3.1)
 * are not offered too; a bit that was configured and is missing from the result lacks one that was withheld.
 */
export function offeredFeatures(inputs: OfferInputs): FeatureSet {
  const { network } = inputs;
  const bits: number[] = [];
  if (inputs.queuePairs > 1) bits.push(VIRTIO_NET_F_MQ);
  if (network.csum) bits.push(VIRTIO_NET_F_CSUM);
  if (network.tso4) bits.push(VIRTIO_NET_F_HOST_TSO4);
  if (network.tso6) bits.push(VIRTIO_NET_F_HOST_TSO6);
  if (network.ecn) bits.push(VIRTIO_NET_F_HOST_ECN);
  if (network.uso4 && network.uso6) {
    bits.push(VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6);
  }
  const wanted = ALWAYS.with(...bits)
    .union(FeatureSet.from(inputs.fromStages ?? []))
    .union(FeatureSet.from(inputs.extra ?? []).intersect(EXTRA_FEATURES))
    .minus(FeatureSet.from(inputs.withheld ?? []))
    .minus(NEVER);
  return inputs.rules === "qemu" ? wanted : withoutOrphans(wanted);
}

/**
 * Judges what a driver wants to accept. GuestError `features-unknown` for a bit that was not offered; under
 * strict rules `features-dependency-missing` for one without what it needs (virtio 1.2, sections 2.2.1 and
 * 5.1.3.1).
 */
export function checkAcceptable(features: FeatureSet, offered: FeatureSet, rules: RuleBook): void {
  const unknown = features.minus(offered);
  if (!unknown.isEmpty) {
    throw new GuestError(
      "features-unknown",
      `The driver accepts ${namesOf(unknown)}, which was not offered; it must accept a subset of ${offered}`,
    );
  }
  if (rules === "qemu") return;
  const [first] = missingDependencies((bit) => features.has(bit));
  if (first !== undefined) {
    throw new GuestError(
      "features-dependency-missing",
      `The driver accepts ${featureName(first.bit)} without ${
        first.needsAnyOf.map(featureName).join(" or ")
      }; ` +
        "it must accept that too, or neither",
    );
  }
}

/** The guest offloads among these features: those that are on once the driver has accepted them. */
export function guestOffloads(features: FeatureSet): FeatureSet {
  return features.intersect(GUEST_OFFLOADS);
}

/** Names of the bits, such as `CSUM, MQ`, for messages and listings. */
export function namesOf(features: FeatureSet): string {
  return Array.from(features, featureName).join(", ");
}

function withoutOrphans(wanted: FeatureSet): FeatureSet {
  let kept = wanted.has(VIRTIO_NET_F_CTRL_VQ) ? wanted : wanted.minus(COMMANDED);
  for (;;) {
    const orphans = missingDependencies((bit) => kept.has(bit));
    if (orphans.length === 0) return kept;
    kept = kept.without(...orphans.map(({ bit }) => bit));
  }
}
