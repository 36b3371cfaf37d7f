/**
 * Which features a driver may accept.
 * @module
 */
import type { Device } from "./device.ts";
import { GuestError } from "./errors.ts";
import { type FeatureSet, VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from "./features.ts";

/**
 * Judges what a driver accepts of a device's features (virtio 1.2, sections 2.2 and 6). GuestError `features-unknown`
 * for what was not offered, `features-dependency-missing` for the packed layout in a legacy driver's hands, and what the
 * device itself objects to.
 */
export function judgeFeatures(device: Device, features: FeatureSet): void {
  const unknown = features.minus(device.features);
  if (!unknown.isEmpty) {
    throw new GuestError("features-unknown", `Features ${unknown} were accepted, but must be offered first`);
  }
  if (features.has(VIRTIO_F_RING_PACKED) && !features.has(VIRTIO_F_VERSION_1)) {
    throw new GuestError(
      "features-dependency-missing",
      "VIRTIO_F_RING_PACKED must come with VIRTIO_F_VERSION_1",
    );
  }
  device.acceptFeatures(features);
}
