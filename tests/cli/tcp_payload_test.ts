import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { NO_TCP, tcpPayloadBytes } from "../../cli/replay/capture_input.ts";

/** A TCP frame with this many bytes of payload; `edit` breaks it. */
function frame(version: 4 | 6, payload: number, edit: (bytes: Uint8Array, ip: number) => void = () => {}) {
  const ipHeader = version === 4 ? 20 : 40;
  const bytes = new Uint8Array(14 + ipHeader + 32 + payload);
  const view = new DataView(bytes.buffer);
  view.setUint16(12, version === 4 ? 0x0800 : 0x86dd);
  bytes[14] = version === 4 ? 0x45 : 0x60;
  if (version === 4) {
    view.setUint16(16, bytes.length - 14);
    view.setUint16(20, 0x4000);
    bytes[23] = 6;
  } else {
    view.setUint16(18, bytes.length - 54);
    bytes[20] = 6;
  }
  bytes[14 + ipHeader + 12] = 8 << 4;
  edit(bytes, 14);
  return bytes;
}

Deno.test("tcpPayloadBytes() counts what is behind the TCP header, not the padding", () => {
  for (const version of [4, 6] as const) {
    assertEquals(tcpPayloadBytes(frame(version, 0), 0, frame(version, 0).length), 0);
    assertEquals(tcpPayloadBytes(frame(version, 1448), 0, frame(version, 1448).length), 1448);
    const padded = new Uint8Array(3 + frame(version, 5).length + 20);
    padded.set(frame(version, 5), 3);
    assertEquals(tcpPayloadBytes(padded, 3, padded.length - 3), 5);
  }
});

Deno.test("tcpPayloadBytes() finds no TCP where there is none, or not all of it", () => {
  const cases: Record<string, Uint8Array> = {
    "another EtherType": frame(4, 9, (bytes) => bytes[13] = 6),
    UDP: frame(4, 9, (bytes) => bytes[23] = 17),
    "a later fragment": frame(4, 9, (bytes) => bytes[21] = 1),
    "a first fragment": frame(4, 9, (bytes) => bytes[20] = 0x20),
    "a header length of 4": frame(4, 9, (bytes) => bytes[14] = 0x44),
    "an IP length beyond the frame": frame(4, 9, (bytes) => bytes[16] = 9),
    "an IP length below its headers": frame(4, 9, (bytes) => bytes.set([0, 30], 16)),
    "a data offset of 4": frame(4, 9, (bytes) => bytes[14 + 20 + 12] = 4 << 4),
    "a data offset beyond the segment": frame(4, 9, (bytes) => bytes[14 + 20 + 12] = 15 << 4),
    "an extension header": frame(6, 9, (bytes) => bytes[20] = 0),
    "an IPv6 length beyond the frame": frame(6, 9, (bytes) => bytes[18] = 9),
  };
  for (const [what, bytes] of Object.entries(cases)) {
    assertEquals(tcpPayloadBytes(bytes, 0, bytes.length), NO_TCP, what);
  }
  assertEquals(tcpPayloadBytes(frame(4, 9), 0, 53), NO_TCP);
});

Deno.test("tcpPayloadBytes() of anything is NO_TCP or fits into the frame", () => {
  const seeds = fc.record({
    version: fc.constantFrom(4, 6) as fc.Arbitrary<4 | 6>,
    payload: fc.integer({ min: 0, max: 200 }),
    edits: fc.array(fc.tuple(fc.nat(120), fc.nat(255)), { maxLength: 6 }),
    cut: fc.nat(120),
  });
  fc.assert(
    fc.property(seeds, ({ version, payload, edits, cut }) => {
      const bytes = frame(version, payload, (all) => {
        for (const [at, value] of edits) if (at < all.length) all[at] = value;
      });
      const length = Math.max(0, bytes.length - cut);
      const found = tcpPayloadBytes(bytes, 0, length);
      assert(found === NO_TCP || (found >= 0 && found <= length - 54), `${found} of ${length}`);
    }),
    { numRuns: 500 },
  );
});
