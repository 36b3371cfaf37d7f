/**
 * A scenario: what a machine is and what happens to it, as plain data. It can be shrunk, printed, kept in a
 * file and run again; nothing else decides what a run does.
 * @module
 */

/**
 * What can come from the network, most ordinary first: a counterexample shrinks towards the beginning of the
 * list.
 */
export const FRAME_KINDS = [
  "next",
  "burst",
  "padded",
  "push",
  "acking",
  "pureAck",
  "windowUpdate",
  "dupAck",
  "olderAck",
  "gap",
  "duplicate",
  "retransmit",
  "swapped",
  "keepAlive",
  "control",
  "tcpEcn",
  "ipEcn",
  "trait",
  "timestamp",
  "tcpOptions",
  "dataOffset",
  "badTcp",
  "badIp",
  "badLength",
  "truncated",
  "version",
  "ipOptions",
  "fragment",
  "vlan",
  "form",
  "dataValid",
  "partial",
  "large",
  "other",
  "garbage",
] as const;

/** What can happen besides. */
export const EVENT_KINDS = ["offloads", "post", "reset", "link", "promiscuous", "pairs", "send"] as const;

/** A kind of frame. */
export type FrameKind = (typeof FRAME_KINDS)[number];
/** A kind of event. */
export type EventKind = (typeof EVENT_KINDS)[number];

/**
 * One step: a kind, and four numbers that mean something different for each: which flow, which size, how long
 * after the step before, and everything else. What a step makes depends on those before it, so that a stream
 * still makes sense when steps are taken out.
 */
export type Step = readonly [
  kind: FrameKind | EventKind,
  flow: number,
  size: number,
  time: number,
  detail: number,
];

/** Which features the guest accepts. */
export const ACCEPTED = {
  everything: "all",
  rsc: [
    "MAC",
    "STATUS",
    "CTRL_VQ",
    "CTRL_RX",
    "MQ",
    "CTRL_GUEST_OFFLOADS",
    "GUEST_CSUM",
    "GUEST_TSO4",
    "GUEST_TSO6",
    "RSC_EXT",
  ],
  rscWithEcn: [
    "CTRL_VQ",
    "MQ",
    "CTRL_GUEST_OFFLOADS",
    "GUEST_CSUM",
    "GUEST_TSO4",
    "GUEST_TSO6",
    "GUEST_ECN",
    "RSC_EXT",
  ],
  onlyV4: ["CTRL_VQ", "MQ", "STATUS", "CTRL_GUEST_OFFLOADS", "GUEST_CSUM", "GUEST_TSO4", "RSC_EXT"],
  onlyV6: ["CTRL_VQ", "MQ", "GUEST_CSUM", "GUEST_TSO6", "RSC_EXT"],
  gso: ["CTRL_VQ", "MQ", "CTRL_GUEST_OFFLOADS", "GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6"],
  gsoWithEcn: ["CTRL_VQ", "MQ", "GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6", "GUEST_ECN"],
  checksumOnly: ["CTRL_VQ", "MQ", "GUEST_CSUM"],
  nothing: ["CTRL_VQ", "MQ"],
} as const;

/** A name of {@linkcode ACCEPTED}. */
export type Accepted = keyof typeof ACCEPTED;

/** How the machine is built and how the guest drives it. */
export interface MachineChoice {
  /** Layout of the rings. */
  readonly ring: "split" | "packed";
  /** Indirect descriptors. */
  readonly indirect: boolean | "always";
  /** EVENT_IDX. */
  readonly eventIndex: boolean;
  /** MRG_RXBUF. */
  readonly mergeable: boolean;
  /** Bytes of a receive buffer. */
  readonly bufferBytes: number;
  /** Entries of each queue. */
  readonly queueSize: number;
  /** Descriptors of each buffer. */
  readonly pieces: number;
  /** Queue pairs of device and guest. */
  readonly pairs: number;
  /** Regions of guest memory. */
  readonly regions: number;
  /** The guest looks instead of waiting for interrupts. */
  readonly polling: boolean;
  /** A driver from before virtio 1.0. */
  readonly legacy: boolean;
  /** Buffers that the guest posts at first on each queue, never refilled; 0 for all, always refilled. */
  readonly posted: number;
  /** What the guest accepts. */
  readonly accepted: Accepted;
  /** RSS by a table of the guest's, if there is more than one pair. */
  readonly rss: boolean;
  /** Longest time a segment is held, in µs. */
  readonly intervalUs: number;
  /** Most flows held. */
  readonly maxFlows: number;
  /** Most segments in a packet. */
  readonly maxSegments: number;
  /** Flush flows at PSH. */
  readonly flushOnPush: boolean;
  /** Flush finished flows when the network has no more; strict rules only. */
  readonly flushOnIdle: boolean;
  /** Merge segments with timestamps. */
  readonly timestamps: boolean;
  /** Does IPv6 stand before IPv4 in the line? */
  readonly v6First: boolean;
  /** Frame memory, in MiB. */
  readonly memoryMiB: number;
}

/** How many ways there are to wait before a step. */
export const TIME_COUNT = 16;

/**
 * How long to wait before a step, in ns; -1 for not at all, so that it comes in one batch with the step
 * before.
 * @param time a number below {@linkcode TIME_COUNT}; @param intervalNs how long a segment is held
 */
export function waitNs(time: number, intervalNs: number): number {
  const waits = [-1, 0, -1, -1, -1, -1, -1, 0, 1, 1000, 20_000, intervalNs >> 3, intervalNs >> 1];
  return waits[time] ?? Math.max(0, intervalNs + time - 14);
}

/** A machine, and streams that run through it one after the other. */
export interface Scenario {
  /** The machine. */
  readonly machine: MachineChoice;
  /** The streams. */
  readonly streams: readonly (readonly Step[])[];
}

/** The plainest machine. */
export const PLAIN_MACHINE: MachineChoice = {
  ring: "split",
  indirect: false,
  eventIndex: true,
  mergeable: true,
  bufferBytes: 2048,
  queueSize: 64,
  pieces: 1,
  pairs: 1,
  regions: 1,
  polling: false,
  legacy: false,
  posted: 0,
  accepted: "rsc",
  rss: false,
  intervalUs: 300,
  maxFlows: 4096,
  maxSegments: 1024,
  flushOnPush: false,
  flushOnIdle: false,
  timestamps: true,
  v6First: false,
  memoryMiB: 128,
};

/** Bytes of the largest packet with the longest header. */
const LARGEST_WITH_HEADER = 65_589 + 12;

/**
 * The choice made possible: rings that hold the largest packet, buffers that the specification asks for
 * (virtio 1.2, section 5.1.6.3.1), and nothing that contradicts itself.
 */
export function possible(choice: MachineChoice): MachineChoice {
  const { legacy, pieces } = choice;
  const accepted = choice.pairs > 1 && legacy ? "everything" : choice.accepted;
  const large = accepted !== "nothing" && accepted !== "checksumOnly";
  let bufferBytes = choice.mergeable ? choice.bufferBytes : large ? 65_562 : choice.bufferBytes | 2048;
  // A packet is spread over 1024 pieces of buffers at most, which is what Linux and QEMU take.
  while (Math.ceil(LARGEST_WITH_HEADER / bufferBytes) * pieces > 1000) bufferBytes *= 2;
  let { queueSize } = choice;
  const perBuffer = choice.indirect === false ? pieces : 1;
  if (choice.mergeable) {
    while (Math.floor(queueSize / perBuffer) * bufferBytes < LARGEST_WITH_HEADER) queueSize *= 2;
  } else if (large) queueSize = Math.min(queueSize, 16);
  while (queueSize < pieces) queueSize *= 2;
  return { ...choice, ring: legacy ? "split" : choice.ring, accepted, bufferBytes, queueSize };
}

/** What the next driver of the machine is like, who takes it over: perhaps with other features and rings. */
export function successor(choice: MachineChoice, detail: number): MachineChoice {
  const names = Object.keys(ACCEPTED) as Accepted[];
  return possible({
    ...choice,
    accepted: (detail & 1) === 0 ? choice.accepted : names[(detail >>> 4) % names.length],
    ring: (detail & 2) === 0 ? choice.ring : "packed",
    mergeable: choice.mergeable && (detail & 4) === 0,
  });
}
