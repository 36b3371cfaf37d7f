/**
 * What is told of a network device: to people who `check` a configuration, and to front-ends of vhost-user.
 * @module
 */
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import {
  type BuiltSite,
  type FrontEndOutlook,
  type FrontEndSite,
  type FrontEndWords,
  type LibvirtElement,
  type PartIssue,
  partsOfKind,
  type PluginDescription,
  type ResolvedPart,
} from "../../plugins/plugin.ts";
import type { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import { NetworkPreview, type OffloadPlugin, stageOffers } from "../../pipeline/plugin.ts";
import { formatMac } from "../../wire/ethernet.ts";
import * as bits from "../../wire/net_features.ts";
import { offeredFeatures } from "./features.ts";
import type { NetOptions } from "./options.ts";

/** What of the options front-ends are told. */
export type FrontEndOptions = Pick<NetOptions, "mac" | "queuePairs" | "queueSize" | "mtu">;

const MIN_QEMU_ENTRIES = 256;
const MAX_QEMU_ENTRIES = 1024;

/** Bits on which drivers agree with the device at all front-ends. */
const OFFLOADS = [
  bits.VIRTIO_NET_F_CSUM,
  bits.VIRTIO_NET_F_GUEST_CSUM,
  bits.VIRTIO_NET_F_GUEST_TSO4,
  bits.VIRTIO_NET_F_GUEST_TSO6,
  bits.VIRTIO_NET_F_HOST_TSO4,
  bits.VIRTIO_NET_F_HOST_TSO6,
  bits.VIRTIO_NET_F_MRG_RXBUF,
  bits.VIRTIO_NET_F_MQ,
];
const ECN = [bits.VIRTIO_NET_F_GUEST_ECN, bits.VIRTIO_NET_F_HOST_ECN];
const USO = [bits.VIRTIO_NET_F_GUEST_USO4, bits.VIRTIO_NET_F_GUEST_USO6, bits.VIRTIO_NET_F_HOST_USO];
const CONTROL = [
  bits.VIRTIO_NET_F_MAC,
  bits.VIRTIO_NET_F_STATUS,
  bits.VIRTIO_NET_F_CTRL_VQ,
  bits.VIRTIO_NET_F_CTRL_RX,
  bits.VIRTIO_NET_F_CTRL_VLAN,
  bits.VIRTIO_NET_F_CTRL_MAC_ADDR,
];

/**
 * What the sources of front-ends say of the bits, or what they did here; crosvm and User-mode Linux pass all
 * on.
 */
const filters: FrontEndWords["filters"] = {
  "qemu": {
    agreed: [
      ...OFFLOADS,
      ...ECN,
      bits.VIRTIO_NET_F_MTU,
      bits.VIRTIO_NET_F_GUEST_ANNOUNCE,
      bits.VIRTIO_NET_F_HASH_REPORT,
      bits.VIRTIO_NET_F_RSS,
    ],
    own: [
      ...CONTROL,
      bits.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
      bits.VIRTIO_NET_F_CTRL_RX_EXTRA,
      bits.VIRTIO_NET_F_SPEED_DUPLEX,
    ],
    newer: [...USO, bits.VIRTIO_NET_F_RSC_EXT],
  },
  "virtio-user": { agreed: OFFLOADS, own: CONTROL },
  "cloud-hypervisor": {
    agreed: [...OFFLOADS, ...ECN, bits.VIRTIO_NET_F_MTU],
    own: [bits.VIRTIO_NET_F_MAC, bits.VIRTIO_NET_F_CTRL_VQ],
    newer: [bits.VIRTIO_NET_F_STATUS, bits.VIRTIO_NET_F_GUEST_ANNOUNCE],
  },
};

/** The words for a network device, which all front-ends know. */
export const netFrontEnd: FrontEndWords<FrontEndOptions> = {
  type: "net",
  frontEnds: ["qemu", "virtio-user", "cloud-hypervisor", "crosvm", "uml"],
  filters,
  startsAlone: true,
  qemu,
  libvirt,
};

function qemu(
  { mac, queuePairs, queueSize, mtu }: FrontEndOptions,
  { features, index, chardev }: FrontEndSite,
): [option: string, value: string][] {
  const multiple = queuePairs > 1;
  const entries = qemuEntries(queueSize);
  const device = [
    `virtio-net-pci,netdev=net${index}`,
    `mac=${formatMac(mac)}`,
    // Two for each pair, one for the control queue, one for the configuration.
    ...(multiple ? ["mq=on", `vectors=${2 * queuePairs + 2}`] : []),
    `rx_queue_size=${entries}`,
    `tx_queue_size=${entries}`,
    `mrg_rxbuf=${features.has(bits.VIRTIO_NET_F_MRG_RXBUF) ? "on" : "off"}`,
    ...(features.has(bits.VIRTIO_NET_F_RSC_EXT) ? ["guest_rsc_ext=on"] : []),
    ...(mtu === undefined ? [] : [`host_mtu=${mtu}`]),
    ...(features.has(VIRTIO_F_RING_PACKED) ? ["packed=on"] : []),
  ];
  return [
    ["-netdev", `vhost-user,id=net${index},chardev=${chardev}${multiple ? `,queues=${queuePairs}` : ""}`],
    ["-device", device.join(",")],
  ];
}

function libvirt(
  { mac, queuePairs, queueSize, mtu }: FrontEndOptions,
  { features, source, alias }: FrontEndSite,
): LibvirtElement {
  const entries = qemuEntries(queueSize);
  const driver = [
    queuePairs > 1 ? ` queues='${queuePairs}'` : "",
    ` rx_queue_size='${entries}' tx_queue_size='${entries}'`,
    features.has(VIRTIO_F_RING_PACKED) ? " packed='on'" : "",
  ].join("");
  const coalescing = features.has(bits.VIRTIO_NET_F_RSC_EXT);
  const lines = [
    "<interface type='vhostuser'>",
    `  <mac address='${formatMac(mac)}'/>`,
    ...source.map((line) => `  ${line}`),
    "  <model type='virtio'/>",
    ...(features.has(bits.VIRTIO_NET_F_MRG_RXBUF)
      ? [`  <driver${driver}/>`]
      : [`  <driver${driver}>`, "    <host mrg_rxbuf='off'/>", "  </driver>"]),
    ...(mtu === undefined ? [] : [`  <mtu size='${mtu}'/>`]),
    ...(coalescing ? [`  <alias name='${alias}'/>`] : []),
    "</interface>",
  ];
  return { lines, properties: coalescing ? ["guest_rsc_ext"] : [] };
}

function qemuEntries(queueSize: number): number {
  return Math.min(MAX_QEMU_ENTRIES, Math.max(MIN_QEMU_ENTRIES, queueSize));
}

/** What the device would offer besides if its network, which was not opened, can do more than is certain. */
export function describeNet(
  { queuePairs, extraFeatures: extra, withheldFeatures: withheld, rules }: NetOptions,
  { made, device }: BuiltSite,
): PluginDescription {
  const { network } = made;
  const offers: string[] = [];
  let kernelFeatures: string[] = [];
  const { perhaps, capabilities } = network instanceof NetworkPreview ? network : {};
  if (perhaps === null) {
    offers.push("and more, if the network takes unfinished frames (it was not opened)");
  } else if (perhaps !== undefined) {
    const fromStages = stageOffers(partsOfKind(device, "offload") as ResolvedPart<OffloadPlugin>[]);
    const offered = (network: OffloadCapabilities) =>
      offeredFeatures({ queuePairs, network, fromStages, extra, withheld, rules });
    const more = offered(perhaps.capabilities).minus(offered(capabilities!));
    kernelFeatures = Array.from(more, bits.featureName);
    if (!more.isEmpty) offers.push(`and ${kernelFeatures.join(", ")}, if ${perhaps.condition}`);
  }
  return { offers, json: { networkClosed: perhaps === null, kernelFeatures } };
}

/** What of coalescing and steering gets lost on the way to the driver. */
export function netHints(_options: NetOptions, { built, device, frontEnds }: BuiltSite): PartIssue[] {
  if (frontEnds.length === 0) return [];
  const hints: PartIssue[] = [];
  const { path } = device.driver;
  const hint = (ends: readonly FrontEndOutlook[], problem: string, remedy?: string) => {
    if (ends.length === 0) return;
    const names = ends.map(({ name }) => name).join(", ");
    hints.push({ path, problem: `with ${names}, ${problem}`, ...(remedy !== undefined && { remedy }) });
  };
  const losing = (bit: number) => frontEnds.filter(({ features }) => features.get(bit) === "lost");
  const offers = stageOffers(partsOfKind(device, "offload") as ResolvedPart<OffloadPlugin>[]);
  // An offload that lets the device offer RSC_EXT coalesces, whatever its name is.
  if (
    offers.includes(bits.VIRTIO_NET_F_RSC_EXT) && !built.features.has(bits.VIRTIO_NET_F_MRG_RXBUF)
  ) {
    hints.push({
      path: `${device.path}.withhold`,
      problem: "without MRG_RXBUF a driver that takes coalesced packets must post 64 KiB for every packet",
      remedy: 'take MRG_RXBUF out of "withhold"',
    });
  }
  hint(
    losing(bits.VIRTIO_NET_F_RSC_EXT),
    "coalesced packets reach the driver as ordinary large ones, without RSC_INFO",
  );
  if (built.features.has(bits.VIRTIO_NET_F_RSC_EXT)) {
    hint(
      frontEnds.filter(({ name }) => name === "qemu"),
      "a version that does not know RSC_EXT at vhost-user offers it by guest_rsc_ext=on all the same: the driver then " +
        "gets ordinary large packets",
    );
  }
  for (const bit of [bits.VIRTIO_NET_F_RSS, bits.VIRTIO_NET_F_HASH_REPORT]) {
    const without = losing(bit);
    hint(
      without,
      `there is no ${bits.featureName(bit)}: it is set by commands, and most front-ends keep these`,
      without.some(({ name }) => name === "crosvm")
        ? 'write "profile": "crosvm" or "uml" if that is the one, for it passes them on'
        : undefined,
    );
  }
  return hints;
}
