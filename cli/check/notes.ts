/**
 * What works otherwise than one may think, with a real guest: features that a front-end keeps, a network that carries less.
 * @module
 */
import type { ConfigIssue } from "../../config/errors.ts";
import type { ResolvedConfig, ResolvedDevice } from "../../config/types.ts";
import type { Device } from "../../core/device.ts";
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import { net } from "../../devices/net/mod.ts";
import type { NetOptions } from "../../devices/net/options.ts";
import * as bits from "../../wire/net_features.ts";
import { tapEnds, tapIsUnfinished, tapQueues } from "./ends.ts";
import type { FrontEndDescription } from "./front_ends.ts";

/** The MTU of an interface that nobody has set one for. */
const USUAL_MTU = 1500;

/** Notes on a device, as issues that are none: where, what, and what to write to have it otherwise. */
export function notesOn(
  config: ResolvedConfig,
  resolved: ResolvedDevice,
  device: Device,
  frontEnds: readonly FrontEndDescription[],
): ConfigIssue[] {
  if (resolved.plugin !== net) return [];
  return [
    ...networkNotes(config, resolved, device, frontEnds.length > 0),
    ...(frontEnds.length > 0 ? guestNotes(resolved, device, frontEnds) : []),
  ];
}

function networkNotes(
  config: ResolvedConfig,
  resolved: ResolvedDevice,
  device: Device,
  hasFrontEnd: boolean,
): ConfigIssue[] {
  const notes: ConfigIssue[] = [];
  const { mtu, queuePairs } = resolved.options as NetOptions;
  for (const { options, path } of tapEnds(config).filter((end) => end.device === resolved)) {
    const queues = tapQueues(options, queuePairs);
    if (queues > 1 && queues < queuePairs) {
      notes.push({
        path,
        problem:
          `the TAP has ${queues} queues for ${queuePairs} queue pairs: the other pairs receive nothing`,
        remedy: "pass a descriptor for each pair, or one alone, whose frames the device spreads itself",
      });
    }
    if (
      mtu !== undefined && mtu > USUAL_MTU && options.mtu === undefined && options.interface !== undefined
    ) {
      notes.push({
        path,
        problem: `a new interface carries packets of ${USUAL_MTU} bytes, and the guest is told ${mtu}`,
        remedy: `write "mtu": ${mtu} here as well`,
      });
    }
    if (tapIsUnfinished(options)) {
      if (coalesces(resolved)) {
        notes.push({
          path,
          problem:
            "what this host sends itself comes large already and is not merged again; RSC merges what comes " +
            "from elsewhere in packets of MTU size",
          remedy: 'write "offloads": "off" to have all packets cut first',
        });
      }
    } else if (hasFrontEnd && !device.features.has(bits.VIRTIO_NET_F_HOST_TSO4)) {
      notes.push({
        path,
        problem: "the guest has to segment and checksum what it sends: nothing here takes large packets",
        remedy: 'add the offload "segment"',
      });
    }
  }
  return notes;
}

function guestNotes(
  resolved: ResolvedDevice,
  device: Device,
  frontEnds: readonly FrontEndDescription[],
): ConfigIssue[] {
  const notes: ConfigIssue[] = [];
  const { path } = resolved.driver;
  const note = (names: string, problem: string, remedy?: string) =>
    notes.push({ path, problem: `with ${names}, ${problem}`, ...(remedy !== undefined && { remedy }) });
  const losing = (bit: number) => frontEnds.filter((end) => end.lost.includes(bits.featureName(bit)));
  const named = (ends: readonly FrontEndDescription[]) => ends.map(({ name }) => name).join(", ");

  const { features } = device;
  if (coalesces(resolved) && !features.has(bits.VIRTIO_NET_F_MRG_RXBUF)) {
    notes.push({
      path: `${resolved.path}.withhold`,
      problem: "without MRG_RXBUF a driver that takes coalesced packets must post 64 KiB for every packet",
      remedy: 'take MRG_RXBUF out of "withhold"',
    });
  }
  const noRsc = features.has(bits.VIRTIO_NET_F_RSC_EXT) ? losing(bits.VIRTIO_NET_F_RSC_EXT) : [];
  if (noRsc.length > 0) {
    note(named(noRsc), "coalesced packets reach the driver as ordinary large ones, without RSC_INFO");
  }
  if (features.has(bits.VIRTIO_NET_F_RSC_EXT) && frontEnds.some(({ name }) => name === "qemu")) {
    note(
      "qemu",
      "a version that does not know RSC_EXT at vhost-user offers it by guest_rsc_ext=on all the same: the driver then " +
        "gets ordinary large packets",
    );
  }
  const split = features.has(VIRTIO_F_RING_PACKED) ? losing(VIRTIO_F_RING_PACKED) : [];
  if (split.length > 0) note(named(split), "rings are split: it does not pass RING_PACKED on");
  for (const bit of [bits.VIRTIO_NET_F_RSS, bits.VIRTIO_NET_F_HASH_REPORT]) {
    const without = features.has(bit) ? losing(bit) : [];
    if (without.length > 0) {
      note(
        named(without),
        `there is no ${bits.featureName(bit)}: it is set by commands, and most front-ends keep these`,
        without.some(({ name }) => name === "crosvm")
          ? 'write "profile": "crosvm" if that is the one, for it passes them on'
          : undefined,
      );
    }
  }
  return notes;
}

function coalesces(resolved: ResolvedDevice): boolean {
  return resolved.offloads.some(({ plugin }) => plugin.name.startsWith("rsc-"));
}
