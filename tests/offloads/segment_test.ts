import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { FeatureSet } from "../../core/features.ts";
import { segment } from "../../offloads/segment.ts";
import { FrameBatch } from "../../pipeline/frame.ts";
import { FramePool } from "../../pipeline/frame_pool.ts";
import { OffloadCapabilities } from "../../pipeline/offload_capabilities.ts";
import {
  type Delivered,
  type HeaderFields,
  internetSum,
  pseudoHeaderSum,
  StageBench,
  type StageBenchSettings,
  streamBytes,
  tcp,
  type TcpFields,
  type TcpFlag,
  type TransportFields,
  udp,
  type VlanTag,
} from "../../testing/mod.ts";
import { ipBytes } from "../../testing/packets.ts";
import {
  VIRTIO_F_VERSION_1,
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

const NEEDS_CSUM = 1;
const DATA_VALID = 2;
const RSC_INFO = 4;
const TCPV4 = 1;
const TCPV6 = 4;
const UDP_L4 = 5;
const ECN = 0x80;
const V6 = { source: "fd00::1" } as const;
const PLAIN: HeaderFields = { flags: 0, gsoType: 0, hdrLen: 0, gsoSize: 0, csumStart: 0, csumOffset: 0 };
const PLAIN_GUEST = FeatureSet.of(VIRTIO_F_VERSION_1);
const CSUM_GUEST = PLAIN_GUEST.with(VIRTIO_NET_F_GUEST_CSUM);
const TO_PLAIN_GUEST: StageBenchSettings = { features: PLAIN_GUEST };
const TO_PLAIN_NETWORK: StageBenchSettings = { direction: "fromGuest" };

function bench(settings: StageBenchSettings = TO_PLAIN_GUEST, options: object = {}): StageBench {
  return new StageBench({ plugin: segment, options }, settings);
}

function countersOf(stage: StageBench): Record<string, number> {
  return Object.fromEntries(Object.entries(stage.counters.segment).filter(([, count]) => count !== 0));
}

function isV6(fields: TransportFields): boolean {
  return fields.source?.includes(":") === true;
}

/** Where the transport header of a frame with these fields begins. */
function transportAt(fields: TransportFields): number {
  const link = 14 + 4 * (fields.vlans?.length ?? 0);
  return link +
    (isV6(fields) ? 40 + (fields.extension?.bytes.length ?? 0) : 20 + (fields.ipOptions?.length ?? 0));
}

interface Large {
  readonly frame: Uint8Array<ArrayBuffer>;
  readonly header: HeaderFields;
}

/** A large TCP frame as a sender hands it over. */
function largeTcp(fields: TcpFields, gsoSize: number, changes: Partial<HeaderFields> = {}): Large {
  const frame = tcp({ checksum: "partial", ...fields });
  const csumStart = transportAt(fields);
  const gsoType = isV6(fields) ? TCPV6 : TCPV4;
  return {
    frame,
    header: { flags: NEEDS_CSUM, gsoType, hdrLen: 0, gsoSize, csumStart, csumOffset: 16, ...changes },
  };
}

function largeUdp(fields: TransportFields, gsoSize: number, changes: Partial<HeaderFields> = {}): Large {
  const frame = udp({ checksum: "partial", ...fields });
  const csumStart = transportAt(fields);
  return {
    frame,
    header: { flags: NEEDS_CSUM, gsoType: UDP_L4, hdrLen: 0, gsoSize, csumStart, csumOffset: 6, ...changes },
  };
}

/** The payload in parts of `size` bytes; one empty part if there is none. */
function parts(payload: Uint8Array, size: number): Uint8Array[] {
  const list: Uint8Array[] = [];
  for (let at = 0; at === 0 || at < payload.length; at += size) list.push(payload.slice(at, at + size));
  return list;
}

/** The ordinary frames that a sender without offloads would have sent instead: made anew, not cut. */
function expectedTcp(fields: TcpFields, gsoSize: number, checksum: "right" | "partial"): Uint8Array[] {
  const { seq = 1000, id = 1, flags = ["ACK"], urgentPointer = 0 } = fields;
  const list = parts(fields.payload as Uint8Array, gsoSize);
  return list.map((payload, i) => {
    const urgent = urgentPointer - i * gsoSize;
    const kept = flags.filter((flag) =>
      !((flag === "CWR" && i > 0) || ((flag === "FIN" || flag === "PSH") && i < list.length - 1) ||
        (flag === "URG" && i > 0 && urgent <= 0))
    );
    return tcp({
      ...fields,
      payload,
      checksum,
      flags: kept,
      seq: (seq + i * gsoSize) % 2 ** 32,
      id: (id + i) % 65536,
      urgentPointer: flags.includes("URG") ? Math.max(0, urgent) : urgentPointer,
    });
  });
}

function expectedUdp(fields: TransportFields, gsoSize: number, partial: boolean): Uint8Array[] {
  const { id = 1 } = fields;
  return parts(fields.payload as Uint8Array, gsoSize).map((payload, i) => {
    const own = { ...fields, payload, id: (id + i) % 65536 };
    return udp(partial ? { ...own, checksum: "partial" } : own);
  });
}

/** Feeds a large frame, if wanted in pieces that are cut at these places, none of them in the headers. */
function feedInPieces(stage: StageBench, { frame, header }: Large, cuts: readonly number[] = []): void {
  const places = [...new Set(cuts)].sort((a, b) => a - b);
  const whole = stage.frame(frame.slice(0, places[0] ?? frame.length), { header });
  places.forEach((place, i) => {
    whole.append(stage.frame(frame.slice(place, places[i + 1] ?? frame.length)));
  });
  stage.feedFrame(whole);
}

function hexOf(bytes: Uint8Array): string {
  return bytes.toHex();
}

function assertFrames(
  out: readonly Delivered[],
  expected: readonly Uint8Array[],
  header: HeaderFields,
): void {
  assertEquals(out.map(({ bytes }) => hexOf(bytes)), expected.map(hexOf));
  for (const one of out) assertEquals(one.header, header);
}

const flagSets: fc.Arbitrary<TcpFlag[]> = fc.subarray(["FIN", "PSH", "ACK", "URG", "ECE", "CWR", "AE"]);
const vlanLists: fc.Arbitrary<VlanTag[]> = fc.array(fc.record({ id: fc.nat(4095) }), { maxLength: 2 });

function words(most: number): fc.Arbitrary<Uint8Array<ArrayBuffer>> {
  return fc.nat(most).chain((count) =>
    fc.uint8Array({ minLength: 4 * count, maxLength: 4 * count })
  ) as fc.Arbitrary<
    Uint8Array<ArrayBuffer>
  >;
}

/** Hop-by-hop or destination options of 8 or 16 bytes. */
const extensions = fc.option(
  fc.record({ type: fc.constantFrom(0, 60), units: fc.nat(1) }).map(({ type, units }) => {
    const bytes = new Uint8Array(8 + 8 * units);
    bytes[1] = units;
    return { type, bytes };
  }),
  { nil: undefined },
);

const ipFields = fc.oneof(
  fc.record({
    tos: fc.nat(255),
    ttl: fc.integer({ min: 1, max: 255 }),
    id: fc.nat(65535),
    dontFragment: fc.boolean(),
    ipOptions: words(10),
    vlans: vlanLists,
  }),
  fc.record({ tos: fc.nat(255), flowLabel: fc.nat(0xfffff), extension: extensions, vlans: vlanLists })
    .map(({ extension, ...rest }) => ({ ...rest, ...V6, ...(extension === undefined ? {} : { extension }) })),
);

const payloads = fc.oneof(fc.nat(20), fc.nat(3000), fc.nat(30_000)).map((length) =>
  streamBytes(length, length)
);
const segmentSizes = fc.oneof(fc.integer({ min: 120, max: 1500 }), fc.integer({ min: 120, max: 65535 }));

const tcpLarge = fc.record({
  ip: ipFields,
  tcp: fc.record({
    seq: fc.nat(0xffffffff),
    ack: fc.nat(0xffffffff),
    flags: flagSets,
    window: fc.nat(65535),
    urgentPointer: fc.nat(65535),
    options: words(10),
  }),
  payload: payloads,
  gsoSize: segmentSizes,
  cuts: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 4 }),
}).map(({ ip, tcp: fields, ...rest }) => ({
  fields: { ...ip, ...fields, payload: rest.payload } as TcpFields,
  ...rest,
}));

/** Places behind the headers, as parts of the payload, in the frame. */
function placesOf(frameBytes: number, payloadBytes: number, cuts: readonly number[]): number[] {
  const headers = frameBytes - payloadBytes;
  return payloadBytes === 0 ? [] : cuts.map((cut) => headers + Math.floor(cut * (payloadBytes - 1)));
}

Deno.test("segment makes of a large TCP frame exactly the frames that its sender would have sent without it", () => {
  fc.assert(
    fc.property(tcpLarge, fc.boolean(), ({ fields, payload, gsoSize, cuts }, toGuest) => {
      using stage = bench(toGuest ? TO_PLAIN_GUEST : TO_PLAIN_NETWORK);
      const large = largeTcp(fields, gsoSize);
      feedInPieces(stage, large, placesOf(large.frame.length, payload.length, cuts));
      assertFrames(stage.out, expectedTcp(fields, gsoSize, "right"), PLAIN);
    }),
    { numRuns: 150 },
  );
});

Deno.test("segment leaves the checksums of a large TCP frame's segments partial, for a receiver that takes that", () => {
  fc.assert(
    fc.property(tcpLarge, fc.boolean(), ({ fields, payload, gsoSize, cuts }, toGuest) => {
      const network = OffloadCapabilities.of("csum");
      using stage = bench(toGuest ? { features: CSUM_GUEST } : { direction: "fromGuest", network });
      const large = largeTcp(fields, gsoSize);
      feedInPieces(stage, large, placesOf(large.frame.length, payload.length, cuts));
      const header = { ...PLAIN, flags: NEEDS_CSUM, csumStart: transportAt(fields), csumOffset: 16 };
      assertFrames(stage.out, expectedTcp(fields, gsoSize, "partial"), header);
    }),
    { numRuns: 100 },
  );
});

Deno.test("segment makes of a large UDP frame exactly the datagrams that its sender would have sent without it", () => {
  fc.assert(
    fc.property(ipFields, payloads, segmentSizes, fc.boolean(), (ip, payload, gsoSize, partial) => {
      using stage = bench({ features: partial ? CSUM_GUEST : PLAIN_GUEST });
      const fields = { ...ip, payload } as TransportFields;
      feedInPieces(stage, largeUdp(fields, gsoSize));
      const header = partial
        ? { ...PLAIN, flags: NEEDS_CSUM, csumStart: transportAt(fields), csumOffset: 6 }
        : PLAIN;
      assertFrames(stage.out, expectedUdp(fields, gsoSize, partial), header);
    }),
    { numRuns: 150 },
  );
});

Deno.test("segment sends a UDP checksum of 0 as 0xffff, and that of a whole frame too", () => {
  for (const source of ["10.0.0.1", "fd00::1"]) {
    const checksum = (payload: Uint8Array) => {
      const frame = udp({ source, payload, checksum: "right" });
      return frame[frame.length - payload.length - 2] << 8 | frame[frame.length - payload.length - 1];
    };
    const last = new Uint8Array(2);
    const wanted = checksum(last);
    last.set([wanted >> 8, wanted & 255]);
    assertEquals(checksum(last), 0);
    const fields = { source, payload: Uint8Array.of(...last, ...last) };
    using stage = bench();
    // The identification is not part of the pseudo header, so both datagrams have the same checksum.
    feedInPieces(stage, largeUdp(fields, 2));
    feedInPieces(stage, largeUdp({ source, payload: last }, 2));
    feedInPieces(stage, largeUdp({ source, payload: last }, 0, { gsoType: 0 }));
    assertEquals(stage.out.map(({ bytes }) => bytes.subarray(-4, -2).toHex()), [
      "ffff",
      "ffff",
      "ffff",
      "ffff",
    ]);
    assertEquals(countersOf(stage), { cut: 1, segments: 2, finished_whole: 1, completed: 1 });
  }
});

Deno.test("segment keeps a UDP datagram over IPv4 without checksum without one", () => {
  using stage = bench();
  const fields = { payload: streamBytes(0, 500), checksum: 0 };
  feedInPieces(stage, largeUdp(fields, 200, { flags: 0, csumStart: 0, csumOffset: 0 }));
  const expected = parts(fields.payload, 200).map((payload, i) => udp({ payload, id: 1 + i, checksum: 0 }));
  assertFrames(stage.out, expected, PLAIN);
});

Deno.test("segment finishes a large frame of one segment where it lies", () => {
  for (const length of [0, 1, 200]) {
    for (const features of [PLAIN_GUEST, CSUM_GUEST]) {
      using stage = bench({ features });
      const fields = { payload: streamBytes(0, length), flags: ["ACK", "PSH", "CWR"] as const };
      feedInPieces(stage, largeTcp(fields, 200, { gsoType: TCPV4 | ECN }), length > 1 ? [120] : []);
      const partial = features === CSUM_GUEST;
      const header = partial ? { ...PLAIN, flags: NEEDS_CSUM, csumStart: 34, csumOffset: 16 } : PLAIN;
      assertFrames(stage.out, [tcp({ ...fields, checksum: partial ? "partial" : "right" })], header);
      assertEquals(countersOf(stage), { finished_whole: 1 });
    }
  }
});

Deno.test("segment does not care for padding", () => {
  using stage = bench();
  const fields = { payload: streamBytes(0, 400) };
  const { frame, header } = largeTcp(fields, 150);
  const padded = new Uint8Array(frame.length + 9).fill(0xee);
  padded.set(frame);
  stage.feed(padded, { header });
  assertFrames(stage.out, expectedTcp(fields, 150, "right"), PLAIN);
});

/**
 * Headers that hide whose addresses are in the pseudo header: the final destination, or the source, in 4 or
 * 16 bytes.
 */
const HIDING: [string, string, string, TcpFields][] = [
  ["LSRR", "10.0.0.1", "10.0.0.77", {
    ipOptions: Uint8Array.of(1, 131, 11, 4, 10, 0, 0, 9, 10, 0, 0, 77),
  }],
  ["SSRR", "10.0.0.1", "10.0.0.77", { ipOptions: Uint8Array.of(137, 7, 4, 10, 0, 0, 77, 0) }],
  ["routing type 0", "fd00::1", "fd00::b", { ...V6, extension: routing(0, 1, ["fd00::a", "fd00::b"]) }],
  ["routing type 2", "fd00::1", "fd00::a", { ...V6, extension: routing(2, 1, ["fd00::a"]) }],
  ["routing type 4", "fd00::1", "fd00::a", { ...V6, extension: routing(4, 1, ["fd00::a", "fd00::b"]) }],
  ["a home address", "fd00::a", "fd00::2", {
    ...V6,
    extension: { type: 60, bytes: Uint8Array.of(0, 2, 1, 2, 0, 0, 201, 16, ...ipBytes("fd00::a")) },
  }],
];

function routing(type: number, segmentsLeft: number, addresses: readonly string[]) {
  const list = addresses.flatMap((address) => [...ipBytes(address)]);
  return {
    type: 43,
    bytes: Uint8Array.of(0, list.length / 8, type, segmentsLeft, 0, 0, 0, 0, ...list),
  };
}

for (const [what, source, destination, fields] of HIDING) {
  Deno.test(`segment builds on the pseudo-header sum that the sender left: ${what}`, () => {
    const payload = streamBytes(0, 700);
    const seed = (bytes: number) => pseudoHeaderSum(ipBytes(source), ipBytes(destination), 6, 20 + bytes);
    for (const features of [PLAIN_GUEST, CSUM_GUEST]) {
      using stage = bench({ features });
      feedInPieces(stage, largeTcp({ ...fields, payload, checksum: seed(700) }, 300));
      assertEquals(stage.out.length, 3);
      for (const { bytes, header } of stage.out) {
        const transport = bytes.subarray(transportAt(fields));
        const data = transport.length - 20;
        if (features === CSUM_GUEST) {
          assertEquals([header.flags, (transport[16] << 8 | transport[17]) % 0xffff], [
            1,
            seed(data) % 0xffff,
          ]);
        } else {
          // The receiver computes with the final destination, which is in the IP header by then.
          assertEquals(internetSum(transport, 0, transport.length, seed(data)) % 0xffff, 0);
        }
      }
    }
    // Without a partial checksum the addresses are found in the headers.
    using other = bench();
    const sum = internetSum(
      tcp({ ...fields, payload, checksum: 0 }).subarray(transportAt(fields)),
      0,
      720,
      seed(700),
    );
    feedInPieces(other, largeTcp({ ...fields, payload, checksum: 0xffff - sum }, 300, { flags: 0 }));
    assertEquals([other.out.length, countersOf(other)], [3, { cut: 1, segments: 3 }]);
    const { bytes } = other.out[0];
    const transport = bytes.subarray(transportAt(fields));
    assertEquals(internetSum(transport, 0, transport.length, seed(300)) % 0xffff, 0);
  });
}

Deno.test("segment takes an IP length of 0 for that of the frame, as senders that leave it to TSO mean it", () => {
  for (const family of [{}, V6, { vlans: [{ id: 7 }] }]) {
    for (const gsoSize of [300, 5000]) {
      const fields = { ...family, payload: streamBytes(0, 900) };
      for (const cuts of [[], [200, 500]]) {
        using stage = bench();
        feedInPieces(stage, largeTcp({ ...fields, ipLength: 0 }, gsoSize), cuts);
        assertFrames(stage.out, expectedTcp(fields, gsoSize, "right"), PLAIN);
      }
    }
  }
});

Deno.test("segment gives each segment the queue and the number of its frame", () => {
  using stage = bench({ ...TO_PLAIN_GUEST, queuePairs: 4 });
  const { frame, header } = largeTcp({ payload: streamBytes(0, 400) }, 150);
  stage.feed(frame, { header, queuePair: 3, number: 77 });
  assertEquals(stage.out.map(({ queuePair, number }) => [queuePair, number]), [[3, 77], [3, 77], [3, 77]]);
});

Deno.test("segment passes to the guest what it has agreed to take, and cuts the rest", () => {
  const kinds: Record<string, Large> = {
    tcp4: largeTcp({ payload: streamBytes(0, 900) }, 300),
    tcp6: largeTcp({ ...V6, payload: streamBytes(0, 900) }, 300),
    ecn4: largeTcp({ payload: streamBytes(0, 900) }, 300, { gsoType: TCPV4 | ECN }),
    ecn6: largeTcp({ ...V6, payload: streamBytes(0, 900) }, 300, { gsoType: TCPV6 | ECN }),
    udp4: largeUdp({ payload: streamBytes(0, 900) }, 300),
    udp6: largeUdp({ ...V6, payload: streamBytes(0, 900) }, 300),
  };
  const agreed: [readonly number[], string[]][] = [
    [[], []],
    [[VIRTIO_NET_F_GUEST_CSUM], []],
    // Without GUEST_CSUM no large frame can be taken, whatever else is on.
    [[VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN], []],
    [[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4], ["tcp4"]],
    [[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6], ["tcp6"]],
    [[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_ECN], ["tcp4", "ecn4"]],
    [[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_ECN], ["tcp6", "ecn6"]],
    [[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_USO4], []],
    [[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6], ["udp4", "udp6"]],
  ];
  for (const [bits, passed] of agreed) {
    for (const [name, large] of Object.entries(kinds)) {
      using stage = bench({ features: PLAIN_GUEST.with(...bits) });
      feedInPieces(stage, large);
      const wanted = passed.includes(name) ? 1 : 3;
      assertEquals(stage.out.length, wanted, `${name} with ${bits}`);
      if (wanted === 1) assertFrames(stage.out, [large.frame], large.header);
    }
  }
});

Deno.test("segment passes to the network what it is able to take, and cuts the rest", () => {
  const tcpLarge = largeTcp({ payload: streamBytes(0, 900) }, 300, { gsoType: TCPV4 | ECN });
  const udpLarge = largeUdp({ payload: streamBytes(0, 900) }, 300);
  for (const largeTcp of [false, true]) {
    for (const largeUdp of [false, true]) {
      const network = OffloadCapabilities.from({
        csum: true,
        tso4: largeTcp,
        tso6: largeTcp,
        ecn: largeTcp,
        uso4: largeUdp,
        uso6: largeUdp,
      });
      using stage = bench({ direction: "fromGuest", network });
      feedInPieces(stage, tcpLarge);
      assertEquals(stage.out.length, largeTcp ? 1 : 3);
      stage.out.length = 0;
      feedInPieces(stage, udpLarge);
      assertEquals(stage.out.length, largeUdp ? 1 : 3);
    }
  }
});

Deno.test("segment follows the guest when it switches its offloads", () => {
  const features = CSUM_GUEST.with(VIRTIO_NET_F_GUEST_TSO4);
  using stage = bench({ features });
  const large = largeTcp({ payload: streamBytes(0, 900) }, 300);
  feedInPieces(stage, large);
  stage.setOffloads(FeatureSet.of(VIRTIO_NET_F_GUEST_CSUM));
  feedInPieces(stage, large);
  stage.setOffloads(FeatureSet.none);
  feedInPieces(stage, large);
  stage.setOffloads(FeatureSet.of(VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4));
  feedInPieces(stage, large);
  assertEquals(
    stage.out.map(({ header }) => `${header.gsoType}/${header.flags}`),
    ["1/1", "0/1", "0/1", "0/1", "0/0", "0/0", "0/0", "1/1"],
  );
});

Deno.test("segment passes a packet that was coalesced for the guest, and cuts one that was for another", () => {
  const { frame } = largeTcp({ payload: streamBytes(0, 900) }, 300);
  // As the reference makes them: no segment size, and counts in place of the checksum's place.
  const coalesced = { ...PLAIN, flags: RSC_INFO, gsoType: TCPV4, csumStart: 3, csumOffset: 1 };
  using stage = bench({ features: PLAIN_GUEST.with(VIRTIO_NET_F_RSC_EXT) });
  stage.feed(frame, { header: coalesced });
  assertFrames(stage.out, [frame], coalesced);
  using other = bench();
  other.feed(frame, { header: { ...coalesced, flags: RSC_INFO | NEEDS_CSUM, gsoSize: 300 } });
  assertFrames(other.out, expectedTcp({ payload: streamBytes(0, 900) }, 300, "right"), PLAIN);
});

Deno.test("segment leaves ordinary frames alone, but for partial checksums that the receiver does not take", () => {
  const partial = tcp({ payload: 100, checksum: "partial" });
  const header = { ...PLAIN, flags: NEEDS_CSUM, csumStart: 34, csumOffset: 16 };
  for (const settings of [TO_PLAIN_GUEST, TO_PLAIN_NETWORK]) {
    using stage = bench(settings);
    const wrong = tcp({ payload: 100, checksum: "wrong" });
    stage.feed(wrong, { header: { flags: DATA_VALID } });
    stage.feed(partial, { header });
    assertFrames([stage.out[0]], [wrong], { ...PLAIN, flags: DATA_VALID });
    assertFrames([stage.out[1]], [tcp({ payload: 100 })], PLAIN);
    assertEquals(countersOf(stage), { completed: 1 });
  }
  using taking = bench({ features: CSUM_GUEST });
  taking.feed(partial, { header });
  assertFrames(taking.out, [partial], header);
  // UFO is of no kind that can be cut; it is not offered, and the device refuses it.
  using unknown = bench();
  unknown.feed(partial, { header: { ...header, gsoType: 3, gsoSize: 50 } });
  assertFrames(unknown.out, [partial], { ...header, gsoType: 3, gsoSize: 50 });
});

Deno.test("segment drops a large frame that contradicts itself, and counts it by name", () => {
  const payload = streamBytes(0, 900);
  const bytes = (
    change: (frame: Uint8Array<ArrayBuffer>) => void,
    large = largeTcp({ payload }, 300),
  ): Large => {
    const frame = large.frame.slice();
    change(frame);
    return { frame, header: large.header };
  };
  const v6 = largeTcp({ ...V6, payload }, 300);
  const datagram = largeUdp({ payload }, 300);
  const cases: [string, Large, (readonly number[])?][] = [
    ["dropped_no_segment_size", largeTcp({ payload }, 0)],
    ["dropped_cut_headers", { ...largeTcp({ payload }, 300), frame: new Uint8Array(13) }],
    ["dropped_cut_headers", {
      ...largeTcp({ payload }, 300),
      frame: largeTcp({ payload }, 1).frame.slice(0, 33),
    }],
    ["dropped_cut_headers", { ...v6, frame: v6.frame.slice(0, 53) }],
    ["dropped_cut_headers", largeTcp({ payload }, 300), [40]],
    ["dropped_cut_headers", largeTcp({ payload, timestamp: [1, 2] }, 300), [60]],
    ["dropped_cut_headers", datagram, [40]],
    [
      "dropped_cut_headers",
      largeTcp({ ...V6, payload, extension: { type: 0, bytes: new Uint8Array(8) } }, 300),
      [56],
    ],
    ["dropped_wrong_kind", largeTcp({ payload }, 300, { gsoType: TCPV6 })],
    ["dropped_wrong_kind", largeTcp({ ...V6, payload }, 300, { gsoType: TCPV4 })],
    ["dropped_wrong_kind", largeTcp({ payload }, 300, { gsoType: UDP_L4 })],
    ["dropped_wrong_kind", largeUdp({ payload }, 300, { gsoType: TCPV4 })],
    ["dropped_wrong_kind", largeTcp({ payload, etherType: 0x0806 }, 300)],
    ["dropped_wrong_kind", largeTcp({ payload, ipVersion: 5 }, 300)],
    ["dropped_wrong_kind", largeTcp({ payload, ipHeaderWords: 4 }, 300)],
    ["dropped_wrong_kind", largeTcp({ ...V6, payload, ipVersion: 4 }, 300)],
    [
      "dropped_wrong_kind",
      largeTcp({ ...V6, payload, extension: { type: 50, bytes: new Uint8Array(8) } }, 300),
    ],
    // A jumbogram: its segments must not have the option with its length.
    [
      "dropped_bad_length",
      largeTcp({ ...V6, payload, ipLength: 0, extension: { type: 0, bytes: new Uint8Array(8) } }, 300),
    ],
    ["dropped_fragment", largeTcp({ payload, moreFragments: true }, 300)],
    ["dropped_fragment", largeTcp({ payload, fragmentOffset: 5 }, 300)],
    [
      "dropped_fragment",
      largeTcp(
        { ...V6, payload, extension: { type: 44, bytes: Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 0) } },
        300,
      ),
    ],
    ["dropped_bad_length", largeTcp({ payload, ipLength: 941 }, 300)],
    ["dropped_bad_length", largeTcp({ payload, ipLength: 39 }, 300)],
    ["dropped_bad_length", largeTcp({ payload, ipLength: 900 }, 300), [500]],
    ["dropped_bad_length", largeTcp({ ...V6, payload, ipLength: 19 }, 300)],
    ["dropped_bad_length", largeTcp({ payload, dataOffset: 4 }, 300)],
    ["dropped_bad_length", largeTcp({ payload: streamBytes(0, 10), dataOffset: 15 }, 300)],
    ["dropped_bad_length", bytes((frame) => frame[39]++, datagram)],
    ["dropped_bad_flags", largeTcp({ payload, flags: ["SYN"] }, 300)],
    ["dropped_bad_flags", largeTcp({ payload, flags: ["RST", "ACK"] }, 300)],
    ["dropped_too_many", largeTcp({ payload }, 3)],
    ["dropped_odd_checksum", largeTcp({ payload }, 300, { csumStart: 33 })],
    ["dropped_odd_checksum", largeTcp({ payload }, 300, { csumOffset: 6 })],
    ["dropped_odd_checksum", largeTcp({ payload }, 0, { gsoType: 0, csumStart: 937 })],
    ["dropped_odd_checksum", largeTcp({ payload }, 0, { gsoType: 0, csumStart: 65535, csumOffset: 65535 })],
    ["dropped_bad_checksum", largeTcp({ payload, checksum: "wrong" }, 300, { flags: 0 })],
    ["dropped_bad_checksum", largeTcp({ payload, checksum: "wrong" }, 300, { flags: 0 }), [123, 500]],
    ["dropped_bad_checksum", largeUdp({ ...V6, payload, checksum: 0 }, 300, { flags: 0 })],
  ];
  for (const [name, large, cuts] of cases) {
    using stage = bench(TO_PLAIN_GUEST, { maxSegments: 299 });
    feedInPieces(stage, large, cuts);
    assertEquals(stage.out.length, 0, `${name}: ${JSON.stringify(large.header)}`);
    assertEquals(countersOf(stage), { [name]: 1 }, JSON.stringify(large.header));
  }
  // Just within what is allowed, and vouched for.
  using stage = bench(TO_PLAIN_GUEST, { maxSegments: 300 });
  feedInPieces(stage, largeTcp({ payload }, 3));
  feedInPieces(stage, largeTcp({ payload, checksum: "right" }, 300, { flags: 0 }), [123, 500]);
  feedInPieces(stage, largeTcp({ payload, checksum: "wrong" }, 300, { flags: DATA_VALID }));
  assertEquals(countersOf(stage), { cut: 3, segments: 306 });
});

Deno.test("segment holds frames while the pool is empty, and goes on in order when it is not", () => {
  const pool = new FramePool({ maxBytes: 400_000 });
  using stage = bench({ ...TO_PLAIN_GUEST, pool });
  const first = { payload: streamBytes(1000, 20_000), id: 1 };
  const second = { payload: streamBytes(5, 5000), id: 500, seq: 21_000 };
  const batch = new FrameBatch();
  const ordinary = tcp({ id: 9999 });
  batch.push(stage.frame(largeTcp(first, 1000).frame, { header: largeTcp(first, 1000).header }));
  batch.push(stage.frame(largeTcp(second, 1000).frame, { header: largeTcp(second, 1000).header }));
  batch.push(stage.frame(ordinary));
  // All but five of the slots are in other hands.
  const others = [];
  for (let frame = pool.take(1000); frame !== null; frame = pool.take(1000)) others.push(frame);
  for (let i = 0; i < 5; i++) others.pop()!.release();
  stage.pipeline.push(batch, 0);
  assertEquals(stage.out.length, 5);
  assertEquals(stage.pipeline.deadlineNs(), 100_000);
  // More is drained and flushed, but memory is as short as it was: the pool must not be asked again.
  const { refusals } = pool;
  for (let i = 0; i < 5; i++) others.push(pool.take(1000)!);
  stage.drain();
  stage.pipeline.flushDue(99_999);
  assertEquals([stage.out.length, pool.refusals], [5, refusals]);
  // Frames have come back: it goes on at once, whatever time it is.
  for (let i = 0; i < 5; i++) others.pop()!.release();
  stage.drain();
  assertEquals([stage.out.length, pool.refusals], [10, refusals + 1]);
  const expected = [...expectedTcp(first, 1000, "right"), ...expectedTcp(second, 1000, "right"), ordinary];
  for (let round = 1; stage.out.length < expected.length; round++) {
    assert(round < 20);
    stage.advanceTo(100_000 * round);
  }
  assertFrames(stage.out, expected, PLAIN);
  assertEquals(stage.pipeline.deadlineNs(), Infinity);
  assertEquals(stage.counters.segment.dropped_no_memory, 0);
  for (const frame of others) frame.release();
});

Deno.test("segment gives a frame up for which there is no memory for 10 ms, and goes on with its room", () => {
  const pool = new FramePool({ maxBytes: 70_000 });
  using stage = bench({ ...TO_PLAIN_GUEST, pool });
  // The only slot holds the frame that is to be cut: no other frame can ever give memory back.
  const { frame, header } = largeTcp({ payload: streamBytes(0, 50_000) }, 1000);
  stage.feed(frame, { header });
  assertEquals(pool.take(0), null);
  stage.advanceTo(9_999_999);
  assertEquals(countersOf(stage), { waited: 100 });
  stage.advanceTo(10_000_000);
  assertEquals(countersOf(stage), { waited: 101, dropped_no_memory: 1 });
  assertEquals([stage.out.length, pool.inUse, stage.pipeline.deadlineNs()], [0, 0, Infinity]);
  // With a slot to cut into, one after the other, all of it gets through.
  const roomy = new FramePool({ maxBytes: 70_000 + 2112 });
  using patient = bench({ ...TO_PLAIN_GUEST, pool: roomy });
  patient.feed(frame, { header });
  patient.advanceTo(10_000_000);
  assertEquals([patient.out.length, patient.counters.segment.dropped_no_memory], [50, 0]);
});

Deno.test("segment hands what it holds over for release when the guest is gone, and starts anew", () => {
  const pool = new FramePool({ maxBytes: 70_000 });
  using stage = bench({ ...TO_PLAIN_GUEST, pool });
  const { frame, header } = largeTcp({ payload: streamBytes(0, 50_000) }, 1000);
  stage.feed(frame, { header });
  assertEquals([pool.inUse, stage.reset()], [1, 1]);
  assertEquals([pool.inUse, stage.pipeline.deadlineNs()], [0, Infinity]);
  assertEquals(stage.reset(), 0);
});

Deno.test("segment lets the guest send large frames on any network", () => {
  assertEquals(segment.direction, "both");
  assertEquals(segment.offers, [
    VIRTIO_NET_F_CSUM,
    VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_ECN,
    VIRTIO_NET_F_HOST_USO,
  ]);
});

Deno.test("segment survives any frame under any header: what goes in comes out, in bounded number, or is counted", () => {
  const frames = fc.oneof(
    fc.uint8Array({ maxLength: 120 }),
    tcpLarge.map(({ fields }) => tcp({ ...fields, payload: streamBytes(0, 500) })),
    ipFields.map((ip) => udp({ ...ip, payload: streamBytes(0, 500) } as TransportFields)),
  );
  const headers = fc.record({
    flags: fc.nat(7),
    gsoType: fc.constantFrom(0, 1, 3, 4, 5, 0x81, 0x84, 0x85, 255),
    gsoSize: fc.constantFrom(0, 1, 2, 100, 499, 500, 65535),
    hdrLen: fc.nat(65535),
    csumStart: fc.oneof(fc.constantFrom(34, 38, 54), fc.nat(65535)),
    csumOffset: fc.constantFrom(6, 16, 17, 65535),
  });
  const mutations = fc.array(fc.record({ at: fc.nat(120), value: fc.nat(255) }), { maxLength: 3 });
  fc.assert(
    fc.property(
      frames,
      headers,
      mutations,
      fc.boolean(),
      fc.nat(600),
      (bytes, header, changes, toGuest, cut) => {
        const source = Uint8Array.from(bytes);
        for (const { at, value } of changes) if (at < source.length) source[at] = value;
        using stage = bench(toGuest ? TO_PLAIN_GUEST : TO_PLAIN_NETWORK);
        feedInPieces(stage, { frame: source, header }, cut > 0 && cut < source.length ? [cut] : []);
        const { cut: large, segments, ...counts } = stage.counters.segment;
        const dropped = Object.entries(counts).reduce(
          (n, [key, n2]) => key.startsWith("dropped") ? n + n2 : n,
          0,
        );
        assertEquals(stage.out.length, large === 1 ? segments : 1 - dropped);
        assert(stage.out.length <= 256);
      },
    ),
    { numRuns: 2000 },
  );
});
