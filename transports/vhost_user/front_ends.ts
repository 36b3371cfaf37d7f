/**
 * What is known of front-ends: what to offer to each, what of it gets to the driver, and what to write at the
 * other end.
 *
 * Front-ends differ in what they make of an offer. Some take every bit that they have heard of, served or
 * not; some warn of one that they do not want; some end the control queue in themselves, so that what is set
 * by command never gets here. A profile names the front-end; `auto` is right for all of them and best for
 * none.
 *
 * Never offered, because they are not served: CROSS_ENDIAN, CRYPTO_SESSION, PAGEFAULT, BACKEND_SEND_FD,
 * HOST_NOTIFIER, XEN_MMAP, SHARED_OBJECT, GET_VRING_BASE_INFLIGHT, GPA_ADDRESSES, SHMEM_MAP. In-flight memory
 * is not needed for devices that answer each request in the round in which they take it.
 * @module
 */
import type { Device } from "../../core/device.ts";
import {
  FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "../../core/features.ts";
import { networkCapability } from "../../pipeline/plugin.ts";
import type {
  FeatureFilter,
  FeaturePassage,
  FrontEndOutlook,
  FrontEndSite,
  FrontEndWords,
} from "../../plugins/plugin.ts";
import * as net from "../../wire/net_features.ts";
import { ProtocolFeature, VHOST_F_LOG_ALL, VHOST_USER_F_PROTOCOL_FEATURES } from "./messages.ts";

/** The front-ends that have a profile. */
export const PROFILES = ["auto", "qemu", "virtio-user", "cloud-hypervisor", "crosvm", "uml", "sim"] as const;

/**
 * A front-end by name. `uml` is User-mode Linux, `sim` one that kicks by messages, such as a simulator with a
 * time of its own.
 */
export type ProfileName = typeof PROFILES[number];

const { MQ, LOG_SHMFD, RARP, REPLY_ACK, MTU, BACKEND_REQ, CONFIG, RESET_DEVICE } = ProtocolFeature;
const { INFLIGHT_SHMFD, INBAND_NOTIFICATIONS, CONFIGURE_MEM_SLOTS, STATUS, DEVICE_STATE } = ProtocolFeature;

/**
 * All that is served, but for kicks by message, of which a front-end may take the bit without the meaning.
 */
const SERVED = FeatureSet.of(
  MQ,
  LOG_SHMFD,
  RARP,
  REPLY_ACK,
  MTU,
  BACKEND_REQ,
  CONFIG,
  INFLIGHT_SHMFD,
  RESET_DEVICE,
  CONFIGURE_MEM_SLOTS,
  STATUS,
  DEVICE_STATE,
);

/**
 * Set by commands of a control queue that ends in the front-end: accepting them would promise what never
 * comes.
 */
const COMMANDED = [net.VIRTIO_NET_F_RSS, net.VIRTIO_NET_F_HASH_REPORT];

interface Profile {
  readonly protocol: FeatureSet;
  /** Bits of network devices not to offer. */
  readonly withheldOfNet: readonly number[];
  /** Bits of rings not to offer. Left out: none. */
  readonly withheldOfRings?: readonly number[];
}

const TABLE: Readonly<Record<ProfileName, Profile>> = {
  "auto": { protocol: SERVED, withheldOfNet: COMMANDED },
  // Takes configuration from its own command line, and warns of a back-end that offers it.
  "qemu": { protocol: SERVED.without(CONFIG), withheldOfNet: COMMANDED },
  "virtio-user": { protocol: FeatureSet.of(MQ, REPLY_ACK, STATUS), withheldOfNet: COMMANDED },
  "cloud-hypervisor": {
    protocol: FeatureSet.of(
      MQ,
      LOG_SHMFD,
      REPLY_ACK,
      CONFIG,
      INFLIGHT_SHMFD,
      CONFIGURE_MEM_SLOTS,
      DEVICE_STATE,
    ),
    withheldOfNet: [...COMMANDED, net.VIRTIO_NET_F_RSC_EXT],
    withheldOfRings: [VIRTIO_F_RING_PACKED],
  },
  // Forwards the control queue, and strips the packed layout with a warning.
  "crosvm": {
    protocol: FeatureSet.of(MQ, REPLY_ACK, BACKEND_REQ, CONFIG, DEVICE_STATE),
    withheldOfNet: [],
    withheldOfRings: [VIRTIO_F_RING_PACKED],
  },
  // Forwards the control queue. Would take kicks by message as well, if they were offered.
  "uml": { protocol: FeatureSet.of(REPLY_ACK, BACKEND_REQ, CONFIG), withheldOfNet: [] },
  "sim": { protocol: SERVED.with(INBAND_NOTIFICATIONS), withheldOfNet: [] },
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
  const { protocol, withheldOfNet, withheldOfRings = [] } = TABLE[profile];
  const isNet = networkCapability(device) !== null;
  const unserved: number[] = [];
  if (device.migration === undefined) unserved.push(DEVICE_STATE);
  if (!isNet) unserved.push(RARP, MTU);
  if (device.inflight === undefined) unserved.push(INFLIGHT_SHMFD);
  const served = protocol.without(...unserved);
  const bits = served.has(LOG_SHMFD)
    ? [VHOST_USER_F_PROTOCOL_FEATURES, VHOST_F_LOG_ALL]
    : [VHOST_USER_F_PROTOCOL_FEATURES];
  // 64 bits fit into a message.
  const features = FeatureSet.fromWords(device.features.word(0), device.features.word(1));
  return {
    features: features.without(...withheldOfRings, ...isNet ? withheldOfNet : []).with(...bits),
    protocol: served,
  };
}

// What becomes of an offer on its way to the driver. A front-end agrees on some features with the back-end,
// in the driver's name; others it answers for itself, whatever the back-end offers; the rest never reaches
// the driver. What follows is what their sources say, or what they did here.

/** The front-ends of which it is known. */
export const FRONT_ENDS = ["qemu", "virtio-user", "cloud-hypervisor", "crosvm", "uml"] as const;

/** A front-end by the name of its profile. */
export type FrontEnd = typeof FRONT_ENDS[number];

/**
 * What becomes of the bits of rings. Those of a device type are said by its plugin (`FrontEndWords.filters`).
 */
const RING_FILTERS: Readonly<Record<FrontEnd, FeatureFilter>> = {
  "qemu": {
    agreed: [VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1, VIRTIO_F_RING_PACKED],
    newer: [VIRTIO_F_IN_ORDER],
  },
  "virtio-user": {
    agreed: [VIRTIO_F_INDIRECT_DESC, VIRTIO_F_VERSION_1, VIRTIO_F_RING_PACKED, VIRTIO_F_IN_ORDER],
  },
  "cloud-hypervisor": {
    agreed: [VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1],
    newer: [VIRTIO_F_INDIRECT_DESC, VIRTIO_F_IN_ORDER],
  },
  "crosvm": { agreed: [VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1] },
  "uml": {
    agreed: [VIRTIO_F_INDIRECT_DESC, VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1, VIRTIO_F_RING_PACKED],
  },
};

/**
 * The bits from here up to {@linkcode LAST_RING_BIT} are the same for all device types (virtio 1.2, section
 * 2.2).
 */
const FIRST_RING_BIT = 24;
const LAST_RING_BIT = 49;

/**
 * The front-ends that can be expected with this profile: all that know the device, or the one that was named.
 */
export function frontEndsOf(words: FrontEndWords | undefined, profile: ProfileName): readonly FrontEnd[] {
  const known = words?.frontEnds ?? USUAL_FRONT_ENDS;
  return FRONT_ENDS.filter((name) => known.includes(name) && (profile === "auto" || profile === name));
}

/** Those that know devices of any type. */
const USUAL_FRONT_ENDS: readonly string[] = ["qemu", "uml"];

/**
 * What becomes of each feature of the device, by bit, at each front-end that can be expected with a profile.
 * @param words how the plugin of the device has front-ends told of it
 */
export function outlooks(
  device: Device,
  words: FrontEndWords | undefined,
  profile: ProfileName,
): (FrontEndOutlook & { readonly name: FrontEnd })[] {
  const { features: offered } = offerFor(device, profile);
  return frontEndsOf(words, profile).map((name) => {
    const own = words?.filters?.[name];
    const passage = (bit: number): FeaturePassage => {
      const isRings = bit >= FIRST_RING_BIT && bit <= LAST_RING_BIT;
      const filter = isRings ? RING_FILTERS[name] : own ?? { agreed: [bit] };
      if (filter.own?.includes(bit)) return "own";
      if (!offered.has(bit)) return "lost";
      return filter.agreed?.includes(bit) ? "agreed" : filter.newer?.includes(bit) ? "newer" : "lost";
    };
    return { name, features: new Map(Array.from(device.features, (bit) => [bit, passage(bit)])) };
  });
}

// What to write at the other end: command lines and XML for front-ends, and what this back-end tells of
// itself.

/** A device that a front-end attaches to. */
export interface FrontEndFacts {
  /** How front-ends are told of it. */
  readonly words: FrontEndWords;
  /** Its options. */
  readonly options: unknown;
  /** What it offers. */
  readonly features: FeatureSet;
  /** Absolute path of the socket. */
  readonly socket: string;
  /** The back-end's own role: the front-end has the other one. */
  readonly mode: "server" | "client";
}

/** The guest around the devices. */
export interface GuestFacts {
  /** Its memory in MiB: all of it must be shared with the back-end. */
  readonly memoryMiB: number;
  /** QEMU's machine, such as `q35`. */
  readonly machine: string;
}

/**
 * What a program that follows the back-end conventions prints for `--print-capabilities`: one line of JSON.
 */
export function capabilities(type: string): string {
  return JSON.stringify({ type });
}

/**
 * The options for QEMU that concern memory and these devices: each an option with its value. There is no
 * `reconnect` among them, for it has had two names: a user who wants it adds it to the `-chardev`.
 */
export function qemuOptions(
  devices: readonly FrontEndFacts[],
  guest: GuestFacts,
): (readonly [option: string, value: string])[] {
  return [
    ["-m", `${guest.memoryMiB}M`],
    ["-object", `memory-backend-memfd,id=mem0,size=${guest.memoryMiB}M,share=on`],
    ["-machine", `${guest.machine},memory-backend=mem0`],
    ...devices.flatMap(qemuDevice),
  ];
}

/** A device that User-mode Linux attaches to. */
export interface UmlFacts {
  /** Absolute path of the socket at which the back-end waits. */
  readonly socket: string;
  /** The device type (virtio 1.2, section 5). */
  readonly type: number;
}

/**
 * The arguments for User-mode Linux that concern these devices. Its kernel cannot read a path that has a
 * colon, a quotation mark or white space in it: such a device is left out.
 */
export function umlArguments(devices: readonly UmlFacts[]): string[] {
  return devices.filter(({ socket }) => !/[:"\s]/.test(socket))
    .map(({ socket, type }) => `virtio_uml.device=${socket}:${type}`);
}

/** The parts of a libvirt domain that concern memory and these devices. */
export function libvirtXml(devices: readonly FrontEndFacts[]): string {
  const elements = devices.filter(({ words }) => words.libvirt !== undefined)
    .map((facts, i) => {
      const alias = `ua-${facts.words.type}${i}`;
      return { alias, ...facts.words.libvirt!(facts.options, site(facts, i, alias)) };
    });
  const lines = [
    "<memoryBacking>",
    "  <source type='memfd'/>",
    "  <access mode='shared'/>",
    "</memoryBacking>",
  ];
  if (elements.length > 0) {
    lines.push("<devices>", ...elements.flatMap((one) => one.lines.map((line) => `  ${line}`)), "</devices>");
  }
  // What libvirt has no element for goes by way of QEMU; <domain> must declare that namespace.
  const others = devices.flatMap((facts, i) => facts.words.libvirt === undefined ? qemuDevice(facts, i) : [])
    .flat();
  if (others.length > 0) {
    const args = others.map((value) => `  <qemu:arg value='${escaped(value)}'/>`);
    lines.push(`<qemu:commandline ${QEMU_NAMESPACE}>`, ...args, "</qemu:commandline>");
  }
  const overrides = elements.flatMap(({ alias, properties = [] }) =>
    properties.length > 0 ? libvirtOverride(alias, properties) : []
  );
  if (overrides.length > 0) lines.push(`<qemu:override ${QEMU_NAMESPACE}>`, ...overrides, "</qemu:override>");
  return lines.join("\n");
}

const QEMU_NAMESPACE = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'";

function qemuDevice(facts: FrontEndFacts, index: number): (readonly [option: string, value: string])[] {
  const { words, options, mode, socket } = facts;
  const role = mode === "server" ? "" : words.startsAlone === true ? ",server=on,wait=off" : ",server=on";
  const told = site(facts, index, "");
  // A comma ends an option's value unless it is doubled.
  const chardev = `socket,id=${told.chardev},path=${socket.replaceAll(",", ",,")}${role}`;
  return [["-chardev", chardev], ...words.qemu?.(options, told) ?? []];
}

/** Names that libvirt lets its user choose begin with `ua-`. */
function site({ features, socket, mode }: FrontEndFacts, index: number, alias: string): FrontEndSite {
  const path = escaped(socket);
  const source = mode === "server"
    ? [
      `<source type='unix' path='${path}' mode='client'>`,
      "  <reconnect enabled='yes' timeout='1'/>",
      "</source>",
    ]
    : [`<source type='unix' path='${path}' mode='server'/>`];
  return { features, index, chardev: `vhost${index}`, source, alias };
}

function libvirtOverride(alias: string, properties: readonly string[]): string[] {
  return [
    `  <qemu:device alias='${alias}'>`,
    "    <qemu:frontend>",
    ...properties.map((name) => `      <qemu:property name='${name}' type='bool' value='true'/>`),
    "    </qemu:frontend>",
    "  </qemu:device>",
  ];
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll("'", "&apos;");
}
