/**
 * How a front-end attaches to the devices of a machine: what to type at the other end.
 * @module
 */
import type { Machine } from "../../machine/machine.ts";
import type { ResolvedConfig } from "../../config/types.ts";
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import { entropy } from "../../devices/entropy/mod.ts";
import { net } from "../../devices/net/mod.ts";
import type { NetOptions } from "../../devices/net/options.ts";
import { type FrontEndFacts, libvirtXml, qemuOptions } from "../../transports/vhost_user/mod.ts";
import { formatMac } from "../../wire/ethernet.ts";
import { VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_RSC_EXT } from "../../wire/net_features.ts";
import { type VhostUserEnd, vhostUserEnds } from "../check/ends.ts";
import { shellQuoted } from "../console/text.ts";

/** What to type at the other end. */
export interface Attachment {
  /** QEMU and its options, less the guest's own disk. */
  readonly qemu: readonly string[];
  /** The same for people: a command line, an option to a line. */
  readonly qemuText: string;
  /** The parts of a libvirt domain. */
  readonly libvirt: string;
}

const MEMORY_MIB = 1024;
/** Profiles of front-ends that are no QEMU. */
const OTHERS: readonly string[] = ["virtio-user", "cloud-hypervisor", "crosvm", "sim"];

/** How QEMU attaches to the devices that wait for it at a socket; null if there are none. */
export function attachment(config: ResolvedConfig, machine: Machine): Attachment | null {
  const facts = vhostUserEnds(config).flatMap((end) => factsOf(end, machine) ?? []);
  if (facts.length === 0) return null;
  const arm = Deno.build.arch === "aarch64";
  const program = `qemu-system-${arm ? "aarch64" : "x86_64"}`;
  const options = [
    // The first that there is: without help of the processor a guest runs as well, slowly.
    ["-accel", "kvm"],
    ["-accel", "tcg"],
    ...qemuOptions(facts, { memoryMiB: MEMORY_MIB, machine: arm ? "virt" : "q35" }),
  ];
  return {
    qemu: [program, ...options.flat()],
    qemuText: [program, ...options.map((option) => `  ${option.map(shellQuoted).join(" ")}`)].join(" \\\n"),
    libvirt: libvirtXml(facts),
  };
}

function factsOf(
  { device: resolved, index, options, socket }: VhostUserEnd,
  machine: Machine,
): FrontEndFacts | null {
  if (socket === null || OTHERS.includes(options.profile)) return null;
  const { features } = machine.devices[index].device;
  const common = { socket, mode: options.mode, packedRing: features.has(VIRTIO_F_RING_PACKED) };
  if (resolved.plugin === entropy) return { type: "rng", ...common };
  if (resolved.plugin !== net) return null;
  const { mac, queuePairs, queueSize, mtu } = resolved.options as NetOptions;
  return {
    type: "net",
    ...common,
    mac: formatMac(mac),
    queuePairs,
    queueSize,
    mergeableBuffers: features.has(VIRTIO_NET_F_MRG_RXBUF),
    coalescing: features.has(VIRTIO_NET_F_RSC_EXT),
    mtu: mtu ?? null,
  };
}
