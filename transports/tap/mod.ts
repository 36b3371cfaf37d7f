/**
 * The `tap` network: a TAP interface of this host (Linux), by its name or by descriptors that another program
 * passes.
 * @module
 */
import {
  type BuiltSite,
  type HostNeed,
  type PartIssue,
  partsOfKind,
  type ResolvedPart,
} from "../../plugins/plugin.ts";
import {
  defineNetwork,
  type NetworkFacts,
  type NetworkPlugin,
  NetworkPreview,
  type OffloadPlugin,
  stageOffers,
} from "../../pipeline/plugin.ts";
import { FileDescriptor, mayAdministerNetwork } from "../../host/descriptors.ts";
import { VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_RSC_EXT } from "../../wire/net_features.ts";
import { openTap, TUN_FILE, TUN_PATH } from "./open_tap.ts";
import { type TapOptions, tapOptions } from "./options.ts";
import { newTapCounters } from "./tap_queue.ts";
import { type GivenQueue, tapCapabilities, TapTransport } from "./tap_transport.ts";
export { newTapCounters, type TapCounters } from "./tap_queue.ts";
export { type OpenTap, openTap } from "./open_tap.ts";
export type { TapOptions } from "./options.ts";
export { type GivenQueue, type TapSettings, TapTransport } from "./tap_transport.ts";

/** The MTU of an interface for which none was set. */
const USUAL_MTU = 1500;

/** The `tap` network plugin. */
export const tap: NetworkPlugin<TapOptions> = defineNetwork({
  name: "tap",
  summary: "A TAP interface of this host.",
  options: tapOptions,
  waitsForHost: true,
  permissions: () => ({ ffi: true }),
  conflicts: ({ mtu: carried }, { path, device, facts }) => {
    const { mtu } = facts as NetworkFacts ?? {};
    return carried === undefined || mtu === undefined || mtu <= carried ? [] : [{
      path: `${device.path}.mtu`,
      problem: `the guest is told that packets may have ${mtu} bytes, and ${path} carries ${carried}`,
      remedy: "make both equal",
    }];
  },
  claims: ({ fd, fds = [], interface: name }, { path }) => {
    const descriptors = fd === undefined
      ? fds.map((number, i) => [number, `${path}.fds[${i}]`] as const)
      : [[fd, `${path}.fd`] as const];
    return [
      ...descriptors.map(([number, at]) => ({
        thing: `descriptor ${number}`,
        path: at,
        remedy: "pass a descriptor for each",
      })),
      // With %d the kernel chooses a free number.
      ...(name === undefined || name.includes("%d") ? [] : [{
        thing: `the interface ${name}`,
        path: `${path}.interface`,
        remedy: "give each device an interface of its own",
      }]),
    ];
  },
  hints: tapHints,
  describe: (options, { path }) => ({ needs: options.interface === undefined ? [] : [tunNeed(path)] }),
  preview(context, options) {
    const isUnfinished = exchangesUnfinished(options);
    return new NetworkPreview(
      queuesOf(options, context.queuePairs),
      tapCapabilities(isUnfinished, false),
      isUnfinished
        ? { capabilities: tapCapabilities(true, true), condition: "the kernel is Linux 6.2 or newer" }
        : undefined,
    );
  },
  create(context, options) {
    return new TapTransport(openTap(options, context.queuePairs, context.path), {
      pool: context.pool,
      counters: context.publish(newTapCounters()),
      offloads: options.offloads === "auto",
      watch: (number) => context.watch(number),
    });
  },
  createInWorker({ pool, publish, watch }, given) {
    const { descriptor, name, headerBytes, mtu, largeUdp, offloads } = given as GivenQueue;
    // A duplicate: the thread that ends first closes nothing of the other.
    const queues = [FileDescriptor.duplicate(descriptor, `queue of ${name}`)];
    return new TapTransport({ name, queues, headerBytes, mtu, largeUdp }, {
      pool,
      counters: publish(newTapCounters()),
      offloads,
      watch: (number) => watch(number),
    });
  },
});

export default tap;

/** How many queues a TAP has for a device with so many queue pairs. */
function queuesOf(options: TapOptions, queuePairs: number): number {
  if (options.interface === undefined) return options.fds?.length ?? 1;
  return options.multiQueue ?? queuePairs > 1 ? queuePairs : 1;
}

/** May a TAP exchange unfinished frames? */
function exchangesUnfinished({ offloads, vnetHeader }: TapOptions): boolean {
  return offloads === "auto" && vnetHeader;
}

/** The file of which interfaces are made must be there and usable; making one needs CAP_NET_ADMIN. */
function tunNeed(path: string): HostNeed {
  return {
    path,
    file: TUN_PATH,
    use: "open",
    missing: TUN_FILE.ENOENT,
    refused: TUN_FILE.EACCES,
    unseen: () =>
      mayAdministerNetwork()
        ? null
        : `whether the interface of ${path} was prepared for this user, who lacks CAP_NET_ADMIN and cannot make it: run as ` +
          'root, or prepare it ("ip tuntap add dev NAME mode tap user USER vnet_hdr", "ip link set NAME up")',
  };
}

function tapHints(options: TapOptions, { path, device, facts, built, frontEnds }: BuiltSite): PartIssue[] {
  if (facts === undefined) return [];
  const hints: PartIssue[] = [];
  const { mtu, queuePairs } = facts as NetworkFacts;
  const queues = queuesOf(options, queuePairs);
  if (queues > 1 && queues < queuePairs) {
    hints.push({
      path,
      problem: `the TAP has ${queues} queues for ${queuePairs} queue pairs: the other pairs receive nothing`,
      remedy: "pass a descriptor for each pair, or one alone, whose frames the device spreads itself",
    });
  }
  if (
    mtu !== undefined && mtu > USUAL_MTU && options.mtu === undefined && options.interface !== undefined
  ) {
    hints.push({
      path,
      problem: `a new interface carries packets of ${USUAL_MTU} bytes, and the guest is told ${mtu}`,
      remedy: `write "mtu": ${mtu} here as well`,
    });
  }
  if (exchangesUnfinished(options)) {
    const offers = stageOffers(partsOfKind(device, "offload") as ResolvedPart<OffloadPlugin>[]);
    if (offers.includes(VIRTIO_NET_F_RSC_EXT)) {
      hints.push({
        path,
        problem:
          "what this host sends itself comes large already and is not merged again; RSC merges what comes " +
          "from elsewhere in packets of MTU size",
        remedy: 'write "offloads": "off" to have all packets cut first',
      });
    }
  } else if (frontEnds.length > 0 && !built.features.has(VIRTIO_NET_F_HOST_TSO4)) {
    hints.push({
      path,
      problem: "the guest has to segment and checksum what it sends: nothing here takes large packets",
      remedy: 'add the offload "segment"',
    });
  }
  return hints;
}
