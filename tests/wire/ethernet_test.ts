import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  formatMac,
  isBroadcast,
  isMulticast,
  isVlanTag,
  macEquals,
  parseMac,
  vlanId,
} from "../../wire/ethernet.ts";

/** A frame of zeros with these 16-bit words from byte 12 on, `before` bytes into its array. */
function frame(words: number[], before = 0): Uint8Array {
  const bytes = new Uint8Array(before + 12 + 2 * words.length);
  words.forEach((word, i) => {
    bytes[before + 12 + 2 * i] = word >>> 8;
    bytes[before + 13 + 2 * i] = word;
  });
  return bytes;
}

Deno.test("isMulticast() looks at the group bit, isBroadcast() at all bits", () => {
  const bytes = Uint8Array.of(0, 1, 0, 0x5e, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe);
  assert(isMulticast(bytes, 1));
  assert(!isBroadcast(bytes, 1));
  assert(isMulticast(bytes, 7));
  assert(isBroadcast(bytes, 7));
  assert(!isBroadcast(bytes, 8));
  assert(!isMulticast(bytes, 0));
});

Deno.test("macEquals() compares six bytes at an offset", () => {
  const mac = parseMac("52:54:00:12:34:56");
  const bytes = Uint8Array.of(9, ...mac, 9);
  assert(macEquals(bytes, 1, mac));
  assert(!macEquals(bytes, 2, mac));
  for (let i = 1; i <= 6; i++) {
    const changed = bytes.slice();
    changed[i] ^= 0x80;
    assert(!macEquals(changed, 1, mac), `byte ${i}`);
  }
});

Deno.test("parseMac() reads colons, hyphens and capitals, and formatMac() writes small letters", () => {
  assertEquals(Array.from(parseMac("52:54:00:ab:CD:ef")), [0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
  assertEquals(Array.from(parseMac("00-01-02-03-04-05")), [0, 1, 2, 3, 4, 5]);
  assertEquals(formatMac(parseMac("52-54-00-AB-CD-EF")), "52:54:00:ab:cd:ef");
  assertEquals(formatMac(Uint8Array.of(9, 0, 1, 2, 3, 4, 255), 1), "00:01:02:03:04:ff");
});

Deno.test("parseMac() refuses anything else and says what it wants", () => {
  for (
    const text of [
      "",
      "52:54:00:12:34",
      "52:54:00:12:34:56:78",
      "52:54-00:12:34:56",
      "525400123456",
      "52:54:00:12:34:5g",
      " 52:54:00:12:34:56",
      "52:54:00:12:34:56\n",
      "5:54:00:12:34:567",
    ]
  ) {
    const error = assertThrows(() => parseMac(text), RangeError, "six pairs of hexadecimal digits");
    assert((error as Error).message.includes(`"${text}"`));
  }
});

Deno.test("vlanId() reads the first customer tag only", () => {
  assertEquals(vlanId(frame([0x8100, 0xe123, 0x0800]), 0, 18), 0x123);
  assertEquals(vlanId(frame([0x8100, 0x2000, 0x0800], 5), 5, 18), 0);
  assertEquals(vlanId(frame([0x88a8, 0x0123, 0x8100, 7]), 0, 20), -1);
  assertEquals(vlanId(frame([0x0800, 0x0123]), 0, 16), -1);
  assertEquals(vlanId(frame([0x8100, 0x0123]), 0, 15), -1);
  assertEquals(vlanId(frame([0x8100, 0x0123]), 0, 16), 0x123);
});

Deno.test("vlanId() looks behind priority tags if told to", () => {
  assertEquals(vlanId(frame([0x8100, 0xe000, 0x8100, 7, 0x0800]), 0, 22, true), 7);
  assertEquals(vlanId(frame([0x8100, 0xe000, 0x0800], 3), 3, 18, true), -1);
  assertEquals(vlanId(frame([0x8100, 0, 0x8100, 0, 0x8100]), 0, 22, true), -1);
  assertEquals(vlanId(frame([0x8100, 0, 0x88a8, 7, 0x0800]), 0, 22, true), -1);
});

Deno.test("isVlanTag() knows customer and service tags", () => {
  assertEquals([0x8100, 0x88a8, 0x9100, 0x0800].map(isVlanTag), [true, true, false, false]);
});
