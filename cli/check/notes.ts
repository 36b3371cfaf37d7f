/**
 * What works otherwise than one may think, with a real guest: features that a front-end keeps, a network that carries less.
 * @module
 */
import { dirname } from "node:path";
import type { ConfigIssue } from "../../config/errors.ts";
import type { ResolvedConfig, ResolvedDevice, ResolvedPart } from "../../config/types.ts";
import { partsOfKind } from "../../plugins/plugin.ts";
import type { OffloadPlugin } from "../../pipeline/plugin.ts";
import type { Device } from "../../core/device.ts";
import { type FeatureSet, VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import { stageOffers } from "../../devices/net/device.ts";
import type { NetOptions } from "../../devices/net/options.ts";
import { net } from "../../devices/net/mod.ts";
import { mayAccess, mayAdministerNetwork } from "../../host/descriptors.ts";
import { hintsIn } from "../../machine/conflicts.ts";
import { absolutePath } from "../../machine/paths.ts";
import { CaptureReader } from "../../transports/pcap/capture_reader.ts";
import { pcap, type PcapOptions } from "../../transports/pcap/mod.ts";
import { TUN_FILE } from "../../transports/tap/open_tap.ts";
import { formatMac, isMulticast, MAC_BYTES, parseMac } from "../../wire/ethernet.ts";
import * as bits from "../../wire/net_features.ts";
import { networksOf, tapEnds, tapIsUnfinished, tapQueues, vhostUserEnds } from "./build.ts";
import type { FrontEndDescription } from "./report.ts";

/** The MTU of an interface for which none was set. */
const USUAL_MTU = 1500;

/** Notes on a device, as issues that are none: where, what, and what to write to have it otherwise. */
export function notesOn(
  config: ResolvedConfig,
  resolved: ResolvedDevice,
  device: Device,
  { frontEnds, agreed }: {
    readonly frontEnds: readonly FrontEndDescription[];
    readonly agreed: FeatureSet | null;
  },
): ConfigIssue[] {
  const hints = hintsIn(config, resolved);
  if (resolved.plugin !== net) return hints;
  return [
    ...hints,
    ...idleOffloads(resolved, frontEnds, agreed),
    ...captureNotes(config, resolved),
    ...networkNotes(config, resolved, device, frontEnds.length > 0),
    ...(frontEnds.length > 0 ? guestNotes(resolved, device, frontEnds) : []),
  ];
}

/** Offloads that wait for a feature which no driver that may come accepts: they never do anything. */
function idleOffloads(
  resolved: ResolvedDevice,
  frontEnds: readonly FrontEndDescription[],
  agreed: FeatureSet | null,
): ConfigIssue[] {
  const notes: ConfigIssue[] = [];
  const isHad = (bit: number) =>
    agreed === null
      ? frontEnds.length === 0 || frontEnds.some((end) => !end.lost.includes(bits.featureName(bit)))
      : agreed.has(bit);
  for (const { plugin, options, path } of partsOfKind(resolved, "offload") as ResolvedPart<OffloadPlugin>[]) {
    const { rules = (resolved.options as NetOptions).rules } = options as { rules?: string };
    // Under the rules of QEMU a driver that does not know RSC_EXT gets nothing merged.
    const offers = typeof plugin.offers === "function" ? plugin.offers(options) : plugin.offers ?? [];
    const needs = [...plugin.needs ?? [], ...(rules === "qemu" ? offers : [])];
    const missing = needs.filter((bit) => !isHad(bit)).map(bits.featureName).join(", ");
    if (missing === "") continue;
    notes.push({
      path,
      value: plugin.name,
      problem: `never has anything to do: the driver does not accept ${missing}`,
      remedy: agreed === null
        ? "use a front-end that passes it on, or leave the offload out"
        : `let ${resolved.driver.path} accept ${missing}, or leave the offload out`,
    });
  }
  return notes;
}

/** How much of a capture is looked at: enough to know whom it is for. */
const MAX_PACKETS_LOOKED_AT = 200_000;

/** A capture that has nothing for this guest: the network is silent. */
function captureNotes(config: ResolvedConfig, resolved: ResolvedDevice): ConfigIssue[] {
  const notes: ConfigIssue[] = [];
  for (const { plugin, options, path } of networksOf(config, resolved)) {
    if (plugin !== pcap) continue;
    const { read, take, guestMac } = options as PcapOptions;
    if (read === undefined || take === "all") continue;
    const mac = guestMac === undefined ? (resolved.options as NetOptions).mac : parseMac(guestMac);
    // As when it runs: of packets without addresses, those to the host that captured are for the guest.
    const seen = stationsOf(
      absolutePath(read, config.baseUrl) ?? read,
      guestMac === undefined ? mac : undefined,
    );
    if (seen === null || seen.stations.has(formatMac(mac))) continue;
    const [busiest] = [...seen.stations].sort((a, b) => b[1] - a[1]);
    notes.push({
      path: guestMac === undefined ? path : `${path}.guestMac`,
      value: formatMac(mac),
      problem:
        `is the guest's address, and no packet of ${seen.isWhole ? "" : "the beginning of "}the capture is ` +
        "sent to it",
      remedy: busiest === undefined
        ? 'write "take": "all" to deliver every packet'
        : `write "guestMac": "${busiest[0]}", to which most are sent, or "take": "all"`,
    });
  }
  return notes;
}

/** To which stations packets of a capture are sent, and how many; null if it cannot be read a second time. */
function stationsOf(
  file: string,
  hostMac: Uint8Array | undefined,
): { stations: Map<string, number>; isWhole: boolean } | null {
  const stations = new Map<string, number>();
  try {
    if (!Deno.statSync(file).isFile) return null;
    using reader = CaptureReader.open(file, hostMac);
    for (let packets = 0; packets < MAX_PACKETS_LOOKED_AT; packets++) {
      if (!reader.next()) return { stations, isWhole: true };
      const { bytes, at, length } = reader.packet;
      if (length < MAC_BYTES || isMulticast(bytes, at)) continue;
      const mac = formatMac(bytes, at);
      // A capture of a flood has as many addresses as packets; a few thousand tell as much.
      if (stations.has(mac) || stations.size < 4096) stations.set(mac, (stations.get(mac) ?? 0) + 1);
    }
    return { stations, isWhole: false };
  } catch {
    // What is damaged is told where it is replayed.
    return null;
  }
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
          ? 'write "profile": "crosvm" or "uml" if that is the one, for it passes them on'
          : undefined,
      );
    }
  }
  return notes;
}

/** An offload that lets the device offer RSC_EXT coalesces, whatever its name is. */
function coalesces(resolved: ResolvedDevice): boolean {
  const offloads = partsOfKind(resolved, "offload") as ResolvedPart<OffloadPlugin>[];
  return stageOffers(offloads).includes(bits.VIRTIO_NET_F_RSC_EXT);
}

// What keeps this host from running a configuration that is right: folders, files and rights that are missing.
//
// Deno shows with `--allow-read` what is there. What this user may do with it only the C library tells, which needs
// `--allow-ffi`, the right that such a configuration needs anyway when it runs.

const TUN_PATH = "/dev/net/tun";
const RIGHTS_UNSEEN = `${TUN_PATH} and what this user may do: run check with --allow-ffi as well`;

/** What this host lacks. */
export interface HostFindings {
  /** What keeps it from running the configuration. */
  readonly problems: readonly ConfigIssue[];
  /** What could not be looked at, and how to have it looked at. */
  readonly unseen: readonly string[];
}

/** Looks for what the configuration needs of this host. Opens and changes nothing. */
export function hostFindings(config: ResolvedConfig): HostFindings {
  const finder = new Finder(config);
  for (const { device, socket, options } of vhostUserEnds(config)) {
    if (socket === null) continue;
    const path = `${device.driver.path}.socket`;
    // In client mode the front-end makes the socket, and may still do so; its folder must be there all the same.
    finder.folder(dirname(socket), path, options.mode === "server" ? "w" : "x");
    finder.socket(socket, path);
  }
  const taps = tapEnds(config).filter(({ options }) => options.interface !== undefined);
  if (taps.length > 0) finder.tun(taps.map(({ path }) => path));
  for (const device of config.devices) {
    for (const { plugin, options, path } of networksOf(config, device)) {
      const { write } = plugin === pcap ? options as PcapOptions : { write: undefined };
      if (write !== undefined) finder.written(absolutePath(write, config.baseUrl) ?? write, `${path}.write`);
    }
  }
  return finder.findings();
}

class Finder {
  readonly #config: ResolvedConfig;
  readonly #problems: ConfigIssue[] = [];
  readonly #unseen = new Set<string>();
  /** Sockets, and where they are named. */
  readonly #sockets = new Map<string, string>();
  readonly #seesRights: boolean;

  constructor(config: ResolvedConfig) {
    this.#config = config;
    this.#seesRights = Deno.build.os === "linux" &&
      Deno.permissions.querySync({ name: "ffi" }).state === "granted";
  }

  /** The folder must be there, and this user must be able to make files in it (`w`) or to pass through it (`x`). */
  folder(folder: string, path: string, right: "w" | "x"): void {
    const problem = (problem: string, remedy: string) =>
      this.#problems.push({ path, value: folder, problem, remedy });
    try {
      if (!Deno.statSync(folder).isDirectory) return void problem("is no folder", "write a path in a folder");
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) {
        return void problem("is a folder that is not there", `make it: mkdir -p ${folder}`);
      }
      if (error instanceof Deno.errors.NotCapable) {
        return void this.#unseen.add(`whether ${folder} is there: allow --allow-read=${folder}`);
      }
      return void problem(
        `cannot be looked at (${(error as Error).message})`,
        "write a path in a folder of yours",
      );
    }
    if (!this.#seesRights) this.#unseen.add(RIGHTS_UNSEEN);
    else if (!mayAccess(folder, right === "w" ? "wx" : "x")) {
      problem(
        "is a folder in which this user may not make files",
        "run as a user who may, or write another folder",
      );
    }
  }

  /** What lies where a socket is to be must be one: anything else is left alone. */
  socket(socket: string, path: string): void {
    this.#sockets.set(socket, path);
    const facts = factsOf(socket, Deno.lstatSync);
    if (facts === null || facts.isSocket) return;
    this.#problems.push({
      path,
      value: socket,
      problem: "is there already, and is no socket",
      remedy: "remove it, or write another path",
    });
  }

  /** A file that is there must be one that this user may write, or else its folder one in which files may be made. */
  written(file: string, path: string): void {
    const problem = (problem: string, remedy: string) =>
      this.#problems.push({ path, value: file, problem, remedy });
    const socketOf = this.#sockets.get(file);
    if (socketOf !== undefined) problem(`is the socket of ${socketOf}`, "write another path");
    const facts = factsOf(file, Deno.statSync);
    if (facts === null) this.folder(dirname(file), path, "w");
    else if (facts.isDirectory) problem("is a folder", "write the path of a file in it");
    else if (facts.isSocket) problem("is a socket", "write another path");
    else if (!this.#seesRights) this.#unseen.add(RIGHTS_UNSEEN);
    else if (!mayAccess(file, "w")) {
      problem("is a file that this user may not write", "run as a user who may, or write another file");
    }
  }

  /** The file of which interfaces are made must be there and usable; making one needs CAP_NET_ADMIN. */
  tun(paths: readonly string[]): void {
    if (!this.#seesRights) {
      this.#unseen.add(RIGHTS_UNSEEN);
      return;
    }
    const [path] = paths;
    if (!mayAccess(TUN_PATH, "")) {
      this.#problems.push({ path, value: TUN_PATH, problem: "is not there", remedy: TUN_FILE.ENOENT });
    } else if (!mayAccess(TUN_PATH, "rw")) {
      this.#problems.push({ path, value: TUN_PATH, problem: "may not be opened", remedy: TUN_FILE.EACCES });
    } else if (!mayAdministerNetwork()) {
      this.#unseen.add(
        `whether the interface of ${path} was prepared for this user, who lacks CAP_NET_ADMIN and cannot make it: run as ` +
          'root, or prepare it ("ip tuntap add dev NAME mode tap user USER vnet_hdr", "ip link set NAME up")',
      );
    }
  }

  findings(): HostFindings {
    const { source } = this.#config;
    return {
      problems: source === undefined ? this.#problems : source.located(this.#problems),
      unseen: [...this.#unseen],
    };
  }
}

/** What lies at a path; null if nothing does, or if it cannot be looked at. */
function factsOf(path: string, look: (path: string) => Deno.FileInfo): Deno.FileInfo | null {
  try {
    return look(path);
  } catch {
    return null;
  }
}
