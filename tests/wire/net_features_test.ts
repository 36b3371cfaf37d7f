import { assert, assertEquals } from "@std/assert";
import * as fc from "fast-check";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1 as CORE_VERSION_1,
} from "../../core/features.ts";
import * as bits from "../../wire/net_features.ts";
import {
  featureBit,
  featureName,
  missingDependencies,
  NET_FEATURE_DEPENDENCIES,
} from "../../wire/net_features.ts";

const set = (...members: number[]) => (bit: number) => members.includes(bit);

Deno.test("featureName() knows every exported bit under the name of its constant", () => {
  let seen = 0;
  for (const [name, value] of Object.entries(bits)) {
    const match = /^VIRTIO_(?:NET_)?F_(.+)$/.exec(name);
    if (match === null) continue;
    assertEquals(featureName(value as number), match[1]);
    assertEquals(featureBit(match[1]), value);
    seen++;
  }
  assertEquals(seen, 40);
});

Deno.test("featureBit() knows the bits of the ring", () => {
  assertEquals(featureBit("INDIRECT_DESC"), VIRTIO_F_INDIRECT_DESC);
  assertEquals(featureBit("EVENT_IDX"), VIRTIO_F_EVENT_IDX);
  assertEquals(featureBit("VERSION_1"), CORE_VERSION_1);
  assertEquals(featureBit("RING_PACKED"), VIRTIO_F_RING_PACKED);
  assertEquals(bits.VIRTIO_F_VERSION_1, CORE_VERSION_1);
});

Deno.test("featureName() and featureBit() are each other's inverse, and honest about what they do not know", () => {
  for (let bit = 0; bit < 128; bit++) {
    const name = featureName(bit);
    assertEquals(featureBit(name), name === `bit ${bit}` ? undefined : bit);
  }
  assertEquals(featureName(43), "bit 43");
  assertEquals(featureBit("VIRTIO_NET_F_CSUM"), undefined);
  assertEquals(featureBit("toString"), undefined);
});

Deno.test("missingDependencies() finds nothing wrong with no bits and with all bits", () => {
  assertEquals(missingDependencies(() => false), []);
  assertEquals(missingDependencies(() => true), []);
});

Deno.test("missingDependencies() asks RSC_EXT for a GUEST_TSO bit, not for a HOST_TSO bit", () => {
  const { VIRTIO_NET_F_RSC_EXT: RSC } = bits;
  assertEquals(missingDependencies(set(RSC)), [{ bit: 61, needsAnyOf: [7, 8] }]);
  assertEquals(missingDependencies(set(RSC, 0, 11, 12)), [{ bit: 61, needsAnyOf: [7, 8] }]);
  assertEquals(missingDependencies(set(RSC, 1, 7)), []);
  assertEquals(missingDependencies(set(RSC, 1, 8)), []);
  assertEquals(missingDependencies(set(RSC, 7)), [{ bit: 7, needsAnyOf: [1] }]);
});

Deno.test("missingDependencies() takes either of two alternatives, and wants both of two rows", () => {
  assertEquals(missingDependencies(set(0, 12, 13)), []);
  assertEquals(missingDependencies(set(0, 13)), [{ bit: 13, needsAnyOf: [11, 12] }]);
  assertEquals(missingDependencies(set(64, 17)), [{ bit: 64, needsAnyOf: [60] }]);
  assertEquals(missingDependencies(set(51)), [
    { bit: 51, needsAnyOf: [17] },
    { bit: 51, needsAnyOf: [60, 57] },
  ]);
});

Deno.test("missingDependencies() is empty exactly if every row of the table is kept", () => {
  fc.assert(fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 64 })), (members) => {
    const has = set(...members);
    const broken = NET_FEATURE_DEPENDENCIES.filter(({ bit, anyOf }) => has(bit) && !anyOf.some(has));
    assertEquals(missingDependencies(has), broken.map(({ bit, anyOf }) => ({ bit, needsAnyOf: anyOf })));
    // Taking away what has been complained about ends, and ends well.
    let left = members;
    for (let round = 0; round < 4; round++) {
      const complaints = missingDependencies(set(...left)).map(({ bit }) => bit);
      left = left.filter((bit) => !complaints.includes(bit));
    }
    assert(missingDependencies(set(...left)).length === 0);
  }));
});
