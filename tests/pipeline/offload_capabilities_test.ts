import { assertEquals } from "@std/assert";
import * as fc from "fast-check";
import { FeatureSet } from "../../core/features.ts";
import { NetHeader } from "../../pipeline/frame.ts";
import {
  OFFLOAD_CAPABILITIES,
  OffloadCapabilities,
  type OffloadCapability,
} from "../../pipeline/offload_capabilities.ts";

/**
 * What a frame of this GSO type needs, ECN aside (virtio 1.2, section 5.1.6.4); null if no receiver takes it.
 */
function needed(gsoType: number): OffloadCapability[] | null {
  switch (gsoType) {
    case 0:
      return [];
    case 1:
      return ["tso4"];
    case 4:
      return ["tso6"];
    case 5:
      return ["uso4", "uso6"];
    default:
      return null;
  }
}

const subsets = fc.subarray([...OFFLOAD_CAPABILITIES]);

Deno.test("OffloadCapabilities admits a header exactly if the receiver takes all that it asks for", () => {
  for (const names of fc.sample(subsets, 100).concat([[], [...OFFLOAD_CAPABILITIES]])) {
    const capabilities = OffloadCapabilities.of(...names);
    const has = (name: OffloadCapability) => names.includes(name);
    for (let gsoType = 0; gsoType < 256; gsoType++) {
      const kind = gsoType & 0x7f;
      const kinds = needed(kind);
      const ecnFits = gsoType < 0x80 || kind === 0 || ((kind === 1 || kind === 4) && has("ecn"));
      const wanted = kinds !== null && kinds.every(has) && ecnFits;
      assertEquals(capabilities.admitsGso(gsoType), wanted, `gso ${gsoType}, ${names}`);
      for (let flags = 0; flags < 8; flags++) {
        const header = new NetHeader();
        header.flags = flags;
        header.gsoType = gsoType;
        assertEquals(capabilities.admits(header), wanted && ((flags & 1) === 0 || has("csum")));
      }
    }
  }
});

Deno.test("OffloadCapabilities of a guest and of a host are those of their feature bits", () => {
  const guest = { csum: 1, tso4: 7, tso6: 8, ecn: 9, uso4: 54, uso6: 55 };
  const host = { csum: 0, tso4: 11, tso6: 12, ecn: 13 };
  fc.assert(
    fc.property(subsets, (names) => {
      const features = FeatureSet.from(names.map((name) => guest[name]));
      assertEquals(OffloadCapabilities.ofGuest(features), OffloadCapabilities.of(...names));
    }),
  );
  for (const [name, bit] of Object.entries(host)) {
    const capabilities = OffloadCapabilities.ofHost(FeatureSet.of(bit));
    assertEquals(capabilities, OffloadCapabilities.of(name as OffloadCapability));
  }
  assertEquals(OffloadCapabilities.ofHost(FeatureSet.of(56)), OffloadCapabilities.of("uso4", "uso6"));
  assertEquals(OffloadCapabilities.ofHost(FeatureSet.from(Object.values(guest))), OffloadCapabilities.none);
});

Deno.test("OffloadCapabilities.from() copies a plain object", () => {
  const flags = { csum: true, tso4: false, tso6: true, ecn: false, uso4: true, uso6: false };
  const capabilities = OffloadCapabilities.from(flags);
  flags.csum = false;
  assertEquals(capabilities, OffloadCapabilities.of("csum", "tso6", "uso4"));
});
