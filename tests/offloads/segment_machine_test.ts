/**
 * `segment` in whole machines: two guests on one cable, in every combination of what the receiver has agreed
 * to and what the cable carries. Whatever the way, the receiver must get the bytes that were sent, in frames
 * that it has agreed to take.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { newRegistry } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import type { FeatureSet } from "../../core/features.ts";
import { buildMachine } from "../../machine/build.ts";
import type { Machine } from "../../machine/machine.ts";
import {
  assertPoolWhole,
  type Delivered,
  type GuestOptionsInput,
  type HeaderFields,
  headerFields,
  internetSum,
  type NetGuest,
  parseTcp,
  pseudoHeaderSum,
  streamBytes,
  tcp,
  type TcpFields,
  udp,
} from "../../testing/mod.ts";
import type { LoopbackDriver } from "../../transports/loopback_driver/mod.ts";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_RSC_EXT,
} from "../../wire/net_features.ts";
import { framePool } from "../../pipeline/kinds.ts";

const LEFT = "52:54:00:00:00:01";
const RIGHT = "52:54:00:00:00:02";
const NEEDS_CSUM = 1;
const RSC_INFO = 4;
const TCPV4 = 1;
const TCPV6 = 4;
const UDP_L4 = 5;
const ECN = 0x80;
/**
 * What fits into 1500 bytes behind IP and TCP headers with timestamps: over IPv4 there would be room for 20
 * more.
 */
const SEGMENT_BYTES = 1428;

interface Pair {
  readonly machine: Machine;
  readonly sender: NetGuest;
  readonly receiver: NetGuest;
  readonly received: Delivered[];
}

interface PairSettings {
  readonly largeFrames: boolean;
  readonly offloads: readonly unknown[];
  readonly accept: GuestOptionsInput["accept"];
  readonly receiver?: GuestOptionsInput;
  readonly sender?: GuestOptionsInput;
  readonly frameMemoryMiB?: number;
}

async function startPair(settings: PairSettings): Promise<Pair> {
  const { largeFrames, offloads, accept, receiver = {}, sender = {}, frameMemoryMiB = 32 } = settings;
  const network = { use: "loopback", largeFrames };
  const config = {
    clock: "virtual",
    frameMemoryMiB,
    devices: [
      { use: "net", name: "left", mac: LEFT, driver: { use: "loopback", ...sender }, network, offloads },
      {
        use: "net",
        name: "right",
        mac: RIGHT,
        driver: { use: "loopback", accept, ...receiver },
        network,
        offloads,
      },
    ],
  };
  const machine = buildMachine(await parseConfig(JSON.stringify(config), import.meta.url, newRegistry()));
  const [left, right] = machine.devices.map(({ driver }) => driver as LoopbackDriver<NetGuest>);
  const received: Delivered[] = [];
  right.hooks.onPacket = (packet) => {
    const { queuePair, bytes } = packet;
    received.push({ atNs: 0, header: headerFields(packet), bytes: bytes.slice(), queuePair, number: 0 });
  };
  machine.start();
  assert(left.guest.attached && right.guest.attached);
  machine.parts.reactor.settle();
  return { machine, sender: left.guest, receiver: right.guest, received };
}

/** Nothing was dropped, anywhere, and nothing was found wrong. */
async function closeWhole({ machine, sender, receiver }: Pair): Promise<void> {
  const { counters } = machine;
  await machine.close();
  for (const [group, values] of Object.entries(counters)) {
    for (const [name, value] of Object.entries(values)) {
      const loss = /^dropped|^unfinished|^discarded|^malformed|^bad_|^wrong$|^incomplete$|queueFull|poolEmpty/
        .test(name);
      if (loss) assertEquals(value, 0, `${group}.${name}`);
    }
  }
  assertEquals([...sender.errors, ...receiver.errors], []);
  assertPoolWhole(framePool(machine.parts.scope));
}

/**
 * What the sender's stack makes of a write, with the offloads that its device has: one large frame, or many
 * ordinary ones.
 */
function sendTcp(guest: NetGuest, fields: TcpFields & { readonly payload: Uint8Array }): void {
  const { features } = guest;
  const isV6 = fields.source!.includes(":");
  const { payload, seq = 0, id = 1, flags = ["ACK"] } = fields;
  const hasCwr = flags.includes("CWR");
  const tso = features.has(isV6 ? VIRTIO_NET_F_HOST_TSO6 : VIRTIO_NET_F_HOST_TSO4);
  const csum = features.has(VIRTIO_NET_F_CSUM);
  const header = {
    flags: csum ? NEEDS_CSUM : 0,
    csumStart: csum ? (isV6 ? 54 : 34) : 0,
    csumOffset: csum ? 16 : 0,
  };
  const checksum = csum ? "partial" : "right";
  if (tso && (!hasCwr || features.has(VIRTIO_NET_F_HOST_ECN)) && payload.length > SEGMENT_BYTES) {
    const gsoType = (isV6 ? TCPV6 : TCPV4) | (hasCwr ? ECN : 0);
    assert(
      guest.send(tcp({ ...fields, checksum }), { ...header, gsoType, gsoSize: SEGMENT_BYTES, hdrLen: 66 }),
    );
    return;
  }
  for (let at = 0, n = 0; at === 0 || at < payload.length; at += SEGMENT_BYTES, n++) {
    const isLast = at + SEGMENT_BYTES >= payload.length;
    const own = flags.filter((flag) =>
      (flag !== "CWR" || n === 0) && (flag !== "PSH" && flag !== "FIN" || isLast)
    );
    const part = payload.slice(at, at + SEGMENT_BYTES);
    const frame = tcp({ ...fields, payload: part, seq: seq + at, id: id + n, flags: own, checksum });
    assert(guest.send(frame, header));
  }
}

/**
 * Has the receiver agreed to take this frame as it is, and is what stands in it right? Read without the code
 * under test.
 */
function assertTakes(features: FeatureSet, { header, bytes }: Delivered): void {
  const read = parseTcp(bytes);
  const { flags, gsoType, gsoSize, csumStart, csumOffset } = header;
  const isV6 = read.version === 6;
  assert(read.ipChecksumRight, "IPv4 header checksum");
  assertEquals(read.padding.length, 0);
  const hasInfo = (flags & RSC_INFO) !== 0;
  if (hasInfo) assert(features.has(VIRTIO_NET_F_RSC_EXT), "RSC_INFO without RSC_EXT");
  if ((flags & NEEDS_CSUM) !== 0) {
    assert(features.has(VIRTIO_NET_F_GUEST_CSUM), "NEEDS_CSUM without GUEST_CSUM");
    assert(read.checksumPartial, "partial checksum");
    if (!hasInfo) assertEquals([csumStart, csumOffset], [read.tcpAt, 16]);
  } else assert(read.checksumRight, "TCP checksum");
  if (gsoType === 0) {
    assertEquals([gsoSize, hasInfo], [0, false]);
    assert(bytes.length <= 14 + 1500, `an ordinary frame of ${bytes.length} bytes`);
    return;
  }
  assertEquals(gsoType & ~ECN, isV6 ? TCPV6 : TCPV4);
  assert(features.has(isV6 ? VIRTIO_NET_F_GUEST_TSO6 : VIRTIO_NET_F_GUEST_TSO4), "a large frame without TSO");
  if ((gsoType & ECN) !== 0) assert(features.has(VIRTIO_NET_F_GUEST_ECN), "ECN without GUEST_ECN");
  if (read.flags.includes("CWR")) assert((gsoType & ECN) !== 0, "CWR in a large frame that does not say ECN");
  assertEquals(gsoSize, SEGMENT_BYTES);
  assert((flags & NEEDS_CSUM) !== 0, "a large frame without partial checksum");
  assert(read.payload.length > gsoSize, "a large frame of one segment");
}

const FLOWS: readonly TcpFields[] = [
  { source: "10.0.0.1", destination: "10.0.0.2", sourcePort: 1001 },
  { source: "10.0.0.1", destination: "10.0.0.2", sourcePort: 1002, tos: 2 },
  { source: "fd00::1", destination: "fd00::2", sourcePort: 1003 },
  { source: "fd00::1", destination: "fd00::2", sourcePort: 1004, tos: 2, flowLabel: 77 },
];
const START_SEQ = 0xffff_f000;
/** Bytes of each write: large ones, one that ends with a whole segment, small ones. */
const WRITES = [9000, 4 * SEGMENT_BYTES, 700, 30_000, SEGMENT_BYTES + 1, 1];

/** Every flow writes in turn; those with ECT in their IP header also say CWR once. */
function sendAll({ sender, machine }: Pair): void {
  let sent = 0;
  WRITES.forEach((bytes, i) => {
    for (const flow of FLOWS) {
      const seq = (START_SEQ + sent) % 2 ** 32;
      const flags: TcpFields["flags"] = i === 3 && flow.tos === 2 ? ["ACK", "PSH", "CWR"] : ["ACK", "PSH"];
      sendTcp(sender, {
        ...flow,
        sourceMac: LEFT,
        destinationMac: RIGHT,
        seq,
        id: 1000 * (i + 1),
        flags,
        timestamp: [100 + i, 7],
        payload: streamBytes(seq, bytes),
      });
      machine.parts.reactor.settle();
    }
    sent += bytes;
  });
}

/** Where each write ends, in bytes from the first. */
const ENDS = WRITES.map((_, i) => WRITES.slice(0, i + 1).reduce((sum, bytes) => sum + bytes, 0));

function assertStreams(received: readonly Delivered[], coalesced: boolean): void {
  for (const flow of FLOWS) {
    const what = `flow ${flow.sourcePort}`;
    let next = START_SEQ;
    let done = 0;
    let cwr = 0;
    for (const { bytes } of received) {
      const read = parseTcp(bytes);
      if (read.sourcePort !== flow.sourcePort) continue;
      assertEquals(read.seq, next, `${what}: what follows`);
      const expected = streamBytes(next, read.payload.length);
      assert(read.payload.every((byte, i) => byte === expected[i]), `${what}: bytes from ${done} on`);
      assertEquals([read.tos, read.flowLabel, read.ttl], [flow.tos ?? 0, flow.flowLabel ?? 0, 64]);
      const start = done;
      done += read.payload.length;
      next = (START_SEQ + done) % 2 ** 32;
      if (read.flags.includes("CWR")) cwr++;
      // The last segment of a write is pushed, and so is a coalesced packet that holds one.
      const ended = ENDS.filter((end) => end > start && end <= done);
      assertEquals(read.flags.includes("PSH"), ended.length > 0, `${what}: PSH from ${start} to ${done}`);
      if (!coalesced) {
        assertEquals(ended.filter((end) => end !== done), [], `${what}: a frame over two writes`);
      }
    }
    assertEquals(done, ENDS.at(-1), `${what}: bytes in all`);
    assertEquals(cwr, flow.tos === 2 ? 1 : 0, `${what}: CWR`);
  }
}

const TSO = ["GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6"];
const RECEIVERS: Record<string, string[]> = {
  nothing: [],
  "CSUM": ["GUEST_CSUM"],
  "TSO4": ["GUEST_CSUM", "GUEST_TSO4"],
  "TSO6": ["GUEST_CSUM", "GUEST_TSO6"],
  "TSO4 and TSO6": TSO,
  "TSO and ECN": [...TSO, "GUEST_ECN"],
};
const LINES: Record<string, unknown[]> = {
  "segment": ["segment"],
  "checksum, segment": ["checksum", "segment"],
  "segment, verifying checksum": ["segment", { use: "checksum", verify: true }],
  "rsc, segment": ["rsc-v4", "rsc-v6", "segment"],
  "segment, rsc": ["segment", "rsc-v4", "rsc-v6"],
  "checksum, segment, rsc": ["checksum", "segment", "rsc-v4", "rsc-v6"],
};

for (const [line, offloads] of Object.entries(LINES)) {
  for (const largeFrames of [false, true]) {
    const cable = largeFrames ? "that carries large frames" : "that carries none";
    Deno.test(`two guests on a cable ${cable}, by ${line}: what is sent arrives, as the receiver takes it`, async () => {
      const receivers = Object.entries(RECEIVERS);
      if (line.includes("rsc")) {
        receivers.push(["RSC", [...TSO, "RSC_EXT"]], ["RSC and ECN", [...TSO, "GUEST_ECN", "RSC_EXT"]]);
      }
      for (const [i, [name, accept]] of receivers.entries()) {
        const ring = i % 2 === 0 ? "split" : "packed";
        const pair = await startPair({
          largeFrames,
          offloads,
          accept,
          receiver: { ring, mergeable: i % 3 !== 0 },
        });
        try {
          const { sender, receiver, machine, received } = pair;
          const offered = [
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_HOST_TSO6,
            VIRTIO_NET_F_HOST_ECN,
          ];
          assert(sender.features.hasAll(offered), "segment offers what the sender needs");
          sendAll(pair);
          machine.parts.reactor.advanceTo(2_000_000);
          for (const one of received) assertTakes(receiver.features, one);
          assertStreams(received, line.includes("rsc"));
          const large = received.filter(({ header }) => header.gsoType !== 0).length;
          const mayBeLarge = name !== "nothing" && name !== "CSUM" && (largeFrames || line.includes("rsc"));
          assertEquals(large > 0, mayBeLarge, `${large} of ${received.length} frames are large`);
          await closeWhole(pair);
        } catch (cause) {
          throw new Error(`receiver with ${name}`, { cause });
        } finally {
          await pair.machine.close();
        }
      }
    });
  }
}

/** Is the checksum of a UDP datagram in an ordinary frame right, or the partial one? */
function udpSum(
  bytes: Uint8Array,
  isV6: boolean,
): { payload: Uint8Array; sum: number; field: number; pseudo: number } {
  const ip = 14;
  const at = ip + (isV6 ? 40 : 20);
  const addresses = isV6 ? [ip + 8, ip + 24, ip + 40] : [ip + 12, ip + 16, ip + 20];
  const source = bytes.slice(addresses[0], addresses[1]);
  const destination = bytes.slice(addresses[1], addresses[2]);
  const length = bytes[at + 4] << 8 | bytes[at + 5];
  assertEquals(length, bytes.length - at);
  const pseudo = pseudoHeaderSum(source, destination, 17, length);
  return {
    payload: bytes.slice(at + 8),
    sum: internetSum(bytes, at, bytes.length, pseudo),
    field: bytes[at + 6] << 8 | bytes[at + 7],
    pseudo,
  };
}

Deno.test("large UDP frames reach every receiver as datagrams of the size that was asked for", async () => {
  const uso = ["GUEST_CSUM", "GUEST_USO4", "GUEST_USO6"];
  const cases: [boolean, string[]][] = [
    [false, []],
    [false, ["GUEST_CSUM"]],
    [true, []],
    [true, ["GUEST_CSUM"]],
    [true, ["GUEST_CSUM", "GUEST_USO4"]],
    [true, uso],
  ];
  for (const [largeFrames, accept] of cases) {
    const pair = await startPair({ largeFrames, offloads: ["segment"], accept });
    const { sender, receiver, received, machine } = pair;
    assert(sender.features.has(VIRTIO_NET_F_HOST_USO));
    const takesLarge = largeFrames && receiver.features.has(VIRTIO_NET_F_GUEST_USO4) &&
      receiver.features.has(VIRTIO_NET_F_GUEST_USO6);
    for (const source of ["10.0.0.1", "fd00::1"]) {
      const isV6 = source.includes(":");
      received.length = 0;
      const payload = streamBytes(3, 10_000);
      const frame = udp({ source, sourceMac: LEFT, destinationMac: RIGHT, payload, checksum: "partial" });
      const csumStart = isV6 ? 54 : 34;
      const header: HeaderFields = {
        flags: 1,
        gsoType: UDP_L4,
        hdrLen: 0,
        gsoSize: 1200,
        csumStart,
        csumOffset: 6,
      };
      assert(sender.send(frame, header));
      machine.parts.reactor.settle();
      assertEquals(received.length, takesLarge ? 1 : 9);
      const datagrams = received.map(({ bytes }) => udpSum(bytes, isV6));
      assertEquals(datagrams.map((one) => one.payload.toHex()).join(""), payload.toHex());
      if (takesLarge) {
        assertEquals(received[0].header, header);
        continue;
      }
      assertEquals(datagrams.map((one) => one.payload.length), [...new Array<number>(8).fill(1200), 400]);
      const partial = receiver.features.has(VIRTIO_NET_F_GUEST_CSUM) && largeFrames;
      received.forEach(({ header: { flags, gsoType } }, i) => {
        assertEquals([flags, gsoType], [partial ? NEEDS_CSUM : 0, 0]);
        if (partial) assertEquals(datagrams[i].field, datagrams[i].pseudo);
        else assertEquals(datagrams[i].sum, 0xffff);
      });
    }
    await closeWhole(pair);
  }
});

Deno.test("segment cuts large frames for a capture, which holds none", async () => {
  const path = await Deno.makeTempFile({ suffix: ".pcap" });
  try {
    const config = {
      clock: "virtual",
      devices: [{
        use: "net",
        mac: LEFT,
        driver: "loopback",
        network: { use: "pcap", write: path },
        offloads: ["segment"],
      }],
    };
    const machine = buildMachine(await parseConfig(JSON.stringify(config), import.meta.url, newRegistry()));
    machine.start();
    const payload = streamBytes(0, 30_000);
    const { guest } = machine.devices[0].driver as LoopbackDriver<NetGuest>;
    sendTcp(guest, { ...FLOWS[0], sourceMac: LEFT, destinationMac: RIGHT, seq: 0, payload });
    machine.parts.reactor.settle();
    await machine.close();
    const file = await Deno.readFile(path);
    const view = new DataView(file.buffer);
    let text = "";
    for (let at = 24; at < file.length; at += 16 + view.getUint32(at + 8, true)) {
      const read = parseTcp(file.subarray(at + 16, at + 16 + view.getUint32(at + 8, true)));
      assert(read.checksumRight && read.ipChecksumRight);
      assertEquals(read.seq, text.length / 2);
      text += read.payload.toHex();
    }
    assertEquals(text, payload.toHex());
  } finally {
    await Deno.remove(path);
  }
});

Deno.test("a burst of large frames through little memory arrives whole and in order", async () => {
  const pair = await startPair({
    largeFrames: false,
    offloads: ["segment"],
    accept: [],
    frameMemoryMiB: 1,
    sender: { transmitBufferBytes: 4096 },
    receiver: { queueSize: 16, mergeable: false },
  });
  const { sender, machine, received } = pair;
  for (let i = 0; i < 40; i++) {
    const seq = 30_000 * i;
    const payload = streamBytes(seq, 30_000);
    const fields = { ...FLOWS[0], sourceMac: LEFT, destinationMac: RIGHT, seq, payload };
    const header = {
      flags: NEEDS_CSUM,
      gsoType: TCPV4,
      gsoSize: SEGMENT_BYTES,
      csumStart: 34,
      csumOffset: 16,
    };
    // Enqueued, not shown: the device gets as many at once as the ring takes.
    while (!sender.enqueue(tcp({ ...fields, checksum: "partial" }), header)) {
      sender.flush();
      machine.parts.reactor.advanceTo(machine.parts.reactor.clock.nowNs() + 1_000_000);
    }
  }
  sender.flush();
  machine.parts.reactor.advanceTo(machine.parts.reactor.clock.nowNs() + 20_000_000);
  let next = 0;
  for (const { bytes } of received) {
    const { seq, payload, checksumRight } = parseTcp(bytes);
    assertEquals([seq, checksumRight], [next, true]);
    next += payload.length;
  }
  assertEquals(next, 40 * 30_000);
  const counters = machine.counters["left.segment.fromGuest"];
  assertEquals([counters.cut, counters.dropped_no_memory], [40, 0]);
  assert(counters.waited > 0, "memory was never short");
  await closeWhole(pair);
});

Deno.test("two guests that flood each other with large frames through hardly any memory come to an end", async () => {
  const pair = await startPair({
    largeFrames: false,
    offloads: ["segment"],
    accept: "all",
    frameMemoryMiB: 1,
    sender: { transmitBufferBytes: 4096 },
    receiver: { transmitBufferBytes: 4096 },
  });
  const { sender, receiver, machine } = pair;
  let sent = 0;
  for (const [guest, from, to] of [[sender, LEFT, RIGHT], [receiver, RIGHT, LEFT]] as const) {
    const frame = tcp({
      sourceMac: from,
      destinationMac: to,
      payload: streamBytes(0, 60_000),
      checksum: "partial",
    });
    const header = { flags: NEEDS_CSUM, gsoType: TCPV4, gsoSize: 600, csumStart: 34, csumOffset: 16 };
    while (guest.enqueue(frame, header)) sent++;
    guest.flush();
  }
  machine.parts.reactor.advanceTo(1_000_000_000);
  const [left, right] = ["left", "right"].map((name) => machine.counters[`${name}.segment.fromGuest`]);
  assertEquals(left.cut + left.dropped_no_memory + right.cut + right.dropped_no_memory, sent);
  assert(left.cut > 0 && right.cut > 0);
  assert(left.waited + right.waited > 0, "memory was never short");
  await machine.close();
  assertPoolWhole(framePool(machine.parts.scope));
});
