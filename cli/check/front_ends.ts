/**
 * What each front-end would make of a device.
 * @module
 */
import type { Device } from "../../core/device.ts";
import { frontEndsOf, type Passage, passagesTo, type ProfileName } from "../../transports/vhost_user/mod.ts";
import { featureName } from "../../wire/net_features.ts";

/** What becomes of the features of a device at one front-end, by name. */
export interface FrontEndDescription extends Readonly<Record<Passage, readonly string[]>> {
  /** The front-end, by the name of its profile. */
  readonly name: string;
}

/** Every front-end that can be expected at this device. */
export function describeFrontEnds(device: Device, profile: ProfileName): FrontEndDescription[] {
  return frontEndsOf(device, profile).map((name) => {
    const passages = [...passagesTo(name, device, profile)];
    const names = (wanted: Passage) =>
      passages.filter(([, passage]) => passage === wanted).map(([bit]) => featureName(bit));
    return { name, agreed: names("agreed"), newer: names("newer"), own: names("own"), lost: names("lost") };
  });
}
