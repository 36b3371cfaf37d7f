import { assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { FeatureSet } from "../../core/features.ts";
import { NetHeader } from "../../pipeline/frame.ts";
import {
  headerBytes,
  readNetHeader,
  VIRTIO_NET_HASH_REPORT_TCPV6,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_TCPV4,
  writeHashReport,
  writeNetHeader,
} from "../../wire/virtio_net_header.ts";

function header(): NetHeader {
  const fields = new NetHeader();
  fields.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_RSC_INFO;
  fields.gsoType = VIRTIO_NET_HDR_GSO_TCPV4;
  fields.hdrLen = 54;
  fields.gsoSize = 1448;
  fields.csumStart = 0x1234;
  fields.csumOffset = 0xabcd;
  return fields;
}

const WRITTEN = [5, 1, 54, 0, 0xa8, 0x05, 0x34, 0x12, 0xcd, 0xab];

Deno.test("headerBytes() is 10 for a legacy driver, 12 with num_buffers, 20 with the hash", () => {
  assertEquals(headerBytes(FeatureSet.none), 10);
  assertEquals(headerBytes(FeatureSet.of(0, 1, 7)), 10);
  assertEquals(headerBytes(FeatureSet.of(15)), 12);
  assertEquals(headerBytes(FeatureSet.of(32)), 12);
  assertEquals(headerBytes(FeatureSet.of(15, 32, 57)), 20);
});

Deno.test("writeNetHeader() writes little-endian fields and touches no other byte", () => {
  for (
    const [size, tail] of [[10, []], [12, [0x34, 0x12]], [20, [0x34, 0x12, 0, 0, 0, 0, 0, 0, 0, 0]]] as const
  ) {
    const bytes = new Uint8Array(30).fill(0xee);
    writeNetHeader(new DataView(bytes.buffer), 3, header(), 0x1234, size);
    const rest = new Array(27 - size).fill(0xee);
    assertEquals(Array.from(bytes), [0xee, 0xee, 0xee, ...WRITTEN, ...tail, ...rest]);
  }
});

Deno.test("writeHashReport() fills the hash of a 20-byte header only", () => {
  const bytes = new Uint8Array(24).fill(0xee);
  writeNetHeader(new DataView(bytes.buffer), 2, header(), 1, 20);
  writeHashReport(new DataView(bytes.buffer), 2, 0xdde51bbf, VIRTIO_NET_HASH_REPORT_TCPV6);
  assertEquals(Array.from(bytes), [
    ...[0xee, 0xee, ...WRITTEN, 1, 0],
    ...[0xbf, 0x1b, 0xe5, 0xdd, 5, 0, 0, 0, 0xee, 0xee],
  ]);
});

Deno.test("readNetHeader() reads back what writeNetHeader() wrote, at any offset", () => {
  const u8 = fc.integer({ min: 0, max: 0xff });
  const u16 = fc.integer({ min: 0, max: 0xffff });
  fc.assert(
    fc.property(
      u8,
      u8,
      u16,
      u16,
      u16,
      u16,
      fc.nat(8),
      (flags, gsoType, hdrLen, gsoSize, start, offset, at) => {
        const from = { flags, gsoType, hdrLen, gsoSize, csumStart: start, csumOffset: offset };
        const bytes = new Uint8Array(at + 10);
        writeNetHeader(new DataView(bytes.buffer), at, from, 7, 10);
        const into = new NetHeader();
        readNetHeader(new DataView(bytes.buffer), at, into);
        assertEquals({ ...into }, from);
      },
    ),
  );
});
