/**
 * How front-ends of vhost-user are told of a network device.
 * @module
 */
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import type { FrontEndSite, FrontEndWords, LibvirtElement } from "../../plugins/plugin.ts";
import { formatMac } from "../../wire/ethernet.ts";
import { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_RSC_EXT } from "../../wire/net_features.ts";
import type { NetOptions } from "./options.ts";

/** What of the options front-ends are told. */
export type FrontEndOptions = Pick<NetOptions, "mac" | "queuePairs" | "queueSize" | "mtu">;

const MIN_QEMU_ENTRIES = 256;
const MAX_QEMU_ENTRIES = 1024;

/** The words for a network device, which all front-ends know. */
export const netFrontEnd: FrontEndWords<FrontEndOptions> = {
  type: "net",
  frontEnds: ["qemu", "virtio-user", "cloud-hypervisor", "crosvm", "uml"],
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
    `mrg_rxbuf=${features.has(VIRTIO_NET_F_MRG_RXBUF) ? "on" : "off"}`,
    ...(features.has(VIRTIO_NET_F_RSC_EXT) ? ["guest_rsc_ext=on"] : []),
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
  const coalescing = features.has(VIRTIO_NET_F_RSC_EXT);
  const lines = [
    "<interface type='vhostuser'>",
    `  <mac address='${formatMac(mac)}'/>`,
    ...source.map((line) => `  ${line}`),
    "  <model type='virtio'/>",
    ...(features.has(VIRTIO_NET_F_MRG_RXBUF)
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
