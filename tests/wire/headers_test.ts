import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { arp, tcp, udp } from "../../testing/mod.ts";
import { HeaderLocator } from "../../wire/headers.ts";
import { mpls, pppoe, snap, tagged, withExtension, withOptions } from "./forms.ts";

const V4 = tcp({ payload: 10 });
const V6 = tcp({ source: "fd00::1", payload: 10 });

function located(frame: Uint8Array, before = 0, length = frame.length): HeaderLocator {
  const headers = new HeaderLocator();
  headers.locate(Uint8Array.from([...new Array(before).fill(0xee), ...frame]), before, length);
  return headers;
}

/** Version, protocol, and where IP header, transport header and ports are. */
function places(frame: Uint8Array, before = 0, length = frame.length): number[] {
  const { version, protocol, ipAt, transportAt, portsAt } = located(frame, before, length);
  return version === 0 ? [0] : [version, protocol, ipAt, transportAt, portsAt];
}

Deno.test("HeaderLocator finds the headers of plain packets, wherever the frame lies", () => {
  assertEquals(places(V4), [4, 6, 14, 34, 34]);
  assertEquals(places(V4, 7), [4, 6, 21, 41, 41]);
  assertEquals(places(V6, 3), [6, 6, 17, 57, 57]);
  assertEquals(places(udp({ payload: 9 })), [4, 17, 14, 34, 34]);
  assertEquals(places(arp()), [0]);
  const { addressesAt, sourceAt, destinationAt, packetEnd, etherTypeAt, vlanTags, vlan } = located(V4);
  assertEquals([addressesAt, sourceAt, destinationAt, packetEnd], [26, 26, 30, V4.length]);
  assertEquals([etherTypeAt, vlanTags, vlan], [12, 0, 0]);
});

Deno.test("HeaderLocator looks behind VLAN tags and tells the VLAN; id 0 is the untagged network", () => {
  const cases: [readonly (readonly [number, number])[], number][] = [
    [[[0x8100, 0]], 0],
    [[[0x88a8, 0xe000]], 0],
    [[[0x8100, 0xb005]], 5],
    [[[0x88a8, 0x0005]], 0x1005],
    [[[0x8100, 0], [0x8100, 7]], 7],
    [[[0x88a8, 6], [0x8100, 7]], 0x1006 << 13 | 7],
    [[[0x88a8, 6], [0x8100, 0], [0x8100, 7]], 0x1006 << 13 | 7],
    [[[0x8100, 1], [0x8100, 2], [0x8100, 3]], -1],
    [new Array(9).fill([0x8100, 0x2000]), 0],
  ];
  for (const [tags, vlan] of cases) {
    for (const frame of [V4, V6]) {
      const found = located(tagged(frame, ...tags));
      const at = 14 + 4 * tags.length;
      const version = frame === V4 ? 4 : 6;
      assertEquals([found.vlan, found.vlanTags, found.version, found.ipAt], [vlan, tags.length, version, at]);
      assertEquals([found.portsAt, found.isEncapsulated], [at + (version === 4 ? 20 : 40), false]);
    }
  }
});

Deno.test("HeaderLocator looks behind LLC/SNAP, PPPoE, MPLS and old stacked tags", () => {
  for (const frame of [V4, V6]) {
    const [version, ipBytes] = frame === V4 ? [4, 20] : [6, 40];
    for (
      const [form, at] of [[snap(frame), 22], [pppoe(frame), 22], [mpls(frame), 22]] as const
    ) {
      const found = located(form);
      assertEquals([found.isEncapsulated, found.version, found.ipAt], [true, version, at]);
      assertEquals(found.portsAt, at + ipBytes);
    }
    assertEquals(located(tagged(snap(frame), [0x8100, 5])).vlan, 5);
    assertEquals(places(tagged(frame, [0x9100, 5]))[2], 18);
  }
});

Deno.test("HeaderLocator skips IPv4 options and finds where a source route ends", () => {
  const plain = located(withOptions(V4, [1, 1, 1, 1]));
  assertEquals([plain.transportAt, plain.destinationAt], [38, 30]);
  const route = [131, 11, 4, 9, 9, 9, 9, 10, 0, 0, 2, 0];
  const routed = located(withOptions(V4, route));
  assertEquals([routed.portsAt, routed.destinationAt, routed.addressesAt], [46, 41, 26]);
  const done = located(withOptions(V4, [137, 11, 12, ...route.slice(3)]));
  assertEquals(done.destinationAt, 30);
});

Deno.test("HeaderLocator skips IPv6 extension headers and finds the pseudo header's addresses", () => {
  assertEquals(places(withExtension(V6, 0, [0, 0, 1, 4, 0, 0, 0, 0])), [6, 6, 14, 62, 62]);
  assertEquals(places(withExtension(V6, 51, [0, 1, ...new Array(10).fill(0)])), [6, 6, 14, 66, 66]);
  const route = (type: number, left: number) =>
    withExtension(V6, 43, [0, 4, type, left, 0, 0, 0, 0, ...new Array(32).fill(1)]);
  assertEquals(located(route(0, 0)).destinationAt, 38);
  assertEquals(located(route(0, 2)).destinationAt, 78);
  assertEquals(located(route(4, 1)).destinationAt, 62);
  const home = withExtension(V6, 60, [0, 2, 1, 2, 0, 0, 0xc9, 16, ...new Array(16).fill(2)]);
  const { sourceAt, addressesAt, portsAt } = located(home);
  assertEquals([sourceAt, addressesAt, portsAt], [62, 22, 78]);
});

Deno.test("HeaderLocator says where the transport header cannot be found, and knows the addresses all the same", () => {
  const fragment = (word: number) => withExtension(V6, 44, [0, 0, word >>> 8, word & 0xff, 0, 0, 0, 1]);
  const cases: [Uint8Array, number, boolean][] = [
    [fragment(1), 44, true],
    [fragment(0x100), 44, true],
    [withExtension(V6, 50, [0, 0, 0, 0, 0, 0, 0, 0]), 50, false],
    [tcp({ payload: 8, moreFragments: true }), 6, true],
    [tcp({ payload: 8, fragmentOffset: 3 }), 6, true],
  ];
  for (const [frame, protocol, isFragment] of cases) {
    const found = located(frame);
    assertEquals([found.protocol, found.isFragment], [protocol, isFragment]);
    assertEquals([found.transportAt, found.portsAt], [-1, -1]);
    assertEquals(found.addressesAt > 0, true);
  }
  assertEquals(places(fragment(0)), [6, 6, 14, 62, 62], "a packet in one fragment is whole");
  let many: Uint8Array = V6;
  for (let i = 0; i < 8; i++) many = withExtension(many, 0, [0, 0, 1, 4, 0, 0, 0, 0]);
  assertEquals(places(many).slice(1), [6, 14, 54 + 64, 54 + 64]);
  assertEquals(places(withExtension(many, 0, [0, 0, 1, 4, 0, 0, 0, 0])).slice(1), [0, 14, -1, -1]);
});

Deno.test("HeaderLocator counts ports only inside the frame and inside the packet", () => {
  assertEquals(places(V4, 0, 37)[4], -1);
  assertEquals(places(V4, 0, 38)[4], 34);
  assertEquals(places(tcp({ ipLength: 23, payload: 10 }))[4], -1);
  assertEquals(located(tcp({ ipLength: 0, payload: 10 })).packetEnd, V4.length, "0: it ends with the frame");
  assertEquals(places(tcp({ ipLength: 0, payload: 10 }))[4], 34);
  assertEquals(places(V4, 0, 33), [0]);
  assertEquals(places(tcp({ ipHeaderWords: 4 })), [0]);
  assertEquals(places(tcp({ ipVersion: 6 })), [0]);
});

Deno.test("HeaderLocator stays inside the frame, whatever its bytes", () => {
  const headers = new HeaderLocator();
  const heads = fc.constantFrom(
    ...[
      [0x08, 0x00, 0x45],
      [0x08, 0x00, 0x4f],
      [0x86, 0xdd, 0x60],
      [0x81, 0x00, 0x00, 0x00],
      [0x88, 0xa8, 0x00, 0x05, 0x81, 0x00, 0x00, 0x05],
      [0x88, 0x64, 0x11, 0, 0, 0, 0, 0, 0],
      [0x88, 0x47],
      [0x00, 0x40, 0xaa, 0xaa, 3, 0, 0, 0],
    ],
  );
  fc.assert(
    fc.property(heads, fc.uint8Array({ maxLength: 160 }), fc.nat(9), (head, tail, before) => {
      const bytes = Uint8Array.from([...new Array(before + 12).fill(0xff), ...head, ...tail]);
      const length = bytes.length - before;
      headers.locate(bytes, before, length);
      const found = { ...headers };
      const amid = Uint8Array.from([...bytes.fill(0x11, 0, before), ...new Array(300).fill(6)]);
      headers.locate(amid, before, length);
      assertEquals({ ...headers }, found, "what is around the frame in memory does not count");
      if (headers.version === 0) return assertEquals(headers.portsAt, -1);
      const { addressBytes } = headers;
      const end = before + length;
      for (const at of [headers.addressesAt, headers.sourceAt, headers.destinationAt]) {
        assertEquals(at > before && at + addressBytes <= end, true);
      }
      assertEquals(headers.portsAt < 0 || headers.portsAt + 4 <= end, true);
      assertEquals(headers.transportAt <= end, true);
    }),
    { numRuns: 1000 },
  );
});
