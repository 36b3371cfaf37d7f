import { OFFLOAD_CAPABILITIES, OffloadCapabilities } from "../../../pipeline/offload_capabilities.ts";
import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { GuestError } from "../../../rings/guest_error.ts";
import { FeatureSet } from "../../../core/features.ts";
import {
  checkAcceptable,
  EXTRA_FEATURES,
  guestOffloads,
  namesOf,
  offeredFeatures,
  type OfferInputs,
} from "../../../devices/net/features.ts";
import { featureBit, missingDependencies } from "../../../wire/net_features.ts";

const NOTHING = OffloadCapabilities.none;
const EVERYTHING = OffloadCapabilities.all;

function offer(changes: Partial<OfferInputs> = {}): FeatureSet {
  return offeredFeatures({ queuePairs: 1, network: NOTHING, rules: "strict", ...changes });
}

function named(...names: string[]): FeatureSet {
  return FeatureSet.from(names.map((name) => featureBit(name)!));
}

function fault(act: () => void): string {
  const error = assertThrows(act, GuestError) as GuestError;
  assert(error.message.startsWith(`${error.fault}: `));
  return error.message;
}

Deno.test("offeredFeatures() with nothing special is the least a good device offers", () => {
  assertEquals(
    namesOf(offer()),
    "GUEST_CSUM, CTRL_GUEST_OFFLOADS, MAC, GUEST_TSO4, GUEST_TSO6, GUEST_ECN, MRG_RXBUF, STATUS, CTRL_VQ, CTRL_RX, " +
      "CTRL_VLAN, CTRL_RX_EXTRA, GUEST_ANNOUNCE, CTRL_MAC_ADDR, INDIRECT_DESC, EVENT_IDX, VERSION_1, IN_ORDER",
  );
});

Deno.test("offeredFeatures() takes no more from the guest than the network does", () => {
  const base = offer();
  const added = (network: OfferInputs["network"]) => namesOf(offer({ network }).minus(base));
  assertEquals(added(OffloadCapabilities.of("csum")), "CSUM");
  assertEquals(
    added(OffloadCapabilities.of("csum", "tso4", "tso6", "ecn")),
    "CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN",
  );
  assertEquals(added(EVERYTHING), "CSUM, HOST_TSO4, HOST_TSO6, HOST_ECN, GUEST_USO4, GUEST_USO6, HOST_USO");
  assertEquals(
    added(OffloadCapabilities.of("tso4", "tso6", "ecn")),
    "",
    "large frames without partial checksums are no offer",
  );
  assertEquals(added(OffloadCapabilities.of("csum", "tso6", "ecn")), "CSUM, HOST_TSO6, HOST_ECN");
  assertEquals(
    added(OffloadCapabilities.of("csum", "uso4")),
    "CSUM",
    "a frame does not tell which UDP it is",
  );
});

Deno.test("offeredFeatures() adds what queue pairs, stages and options bring", () => {
  const base = offer();
  assertEquals(namesOf(offer({ queuePairs: 2 }).minus(base)), "MQ");
  assertEquals(namesOf(offer({ fromStages: [61, 0] }).minus(base)), "CSUM, RSC_EXT");
  assertEquals(
    namesOf(offer({ extra: EXTRA_FEATURES }).minus(base)),
    "MTU, RING_PACKED, HASH_REPORT, RSS, SPEED_DUPLEX",
  );
  assertEquals(offer({ extra: [50, 62, 0] }), base, "what the device cannot do is no extra");
});

Deno.test("offeredFeatures() never offers the two bits that break old drivers", () => {
  for (const rules of ["strict", "qemu"] as const) {
    const set = offer({ fromStages: [41, 42, 61], rules });
    assertEquals([set.has(41), set.has(42), set.has(61)], [false, false, true]);
  }
});

Deno.test("offeredFeatures() under strict rules withdraws what depends on a withheld bit", () => {
  const all = { queuePairs: 4, network: EVERYTHING, fromStages: [61], extra: EXTRA_FEATURES };
  const withheld = offer({ ...all, withheld: named("GUEST_CSUM", "CSUM", "CTRL_VQ") });
  assertEquals(
    namesOf(withheld),
    "MTU, MAC, MRG_RXBUF, STATUS, INDIRECT_DESC, EVENT_IDX, VERSION_1, RING_PACKED, IN_ORDER, SPEED_DUPLEX",
  );
  assert(!offer({ ...all, withheld: named("GUEST_TSO4", "GUEST_TSO6") }).has(61));
  assert(offer({ ...all, withheld: named("GUEST_TSO4") }).has(61));
});

Deno.test("offeredFeatures() under qemu rules leaves RSC_EXT offered without what it needs", () => {
  const set = offer({
    fromStages: [61],
    withheld: named("GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6"),
    rules: "qemu",
  });
  assertEquals([set.has(61), set.has(9), set.has(1)], [true, true, false]);
});

Deno.test("offeredFeatures() under strict rules is always acceptable as a whole", () => {
  const bits = fc.array(fc.integer({ min: 0, max: 64 }));
  fc.assert(
    fc.property(bits, bits, fc.subarray([...OFFLOAD_CAPABILITIES]), (fromStages, withheld, names) => {
      const network = OffloadCapabilities.of(...names);
      const set = offer({ queuePairs: 2, network, fromStages, withheld, extra: EXTRA_FEATURES });
      assertEquals(missingDependencies((bit) => set.has(bit)), []);
      checkAcceptable(set, set, "strict");
      assertEquals(withheld.filter((bit) => set.has(bit)), []);
    }),
  );
});

Deno.test("checkAcceptable() refuses a bit that was not offered, under both rule books", () => {
  for (const rules of ["strict", "qemu"] as const) {
    const message = fault(() =>
      checkAcceptable(named("VERSION_1", "RSC_EXT", "CSUM"), named("VERSION_1"), rules)
    );
    assertEquals(
      message,
      "features-unknown: The driver accepts CSUM, RSC_EXT, which was not offered; " +
        "it must accept a subset of 0x100000000",
    );
  }
});

Deno.test("checkAcceptable() refuses a bit without what it needs, but only under strict rules", () => {
  const offered = named("VERSION_1", "GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6", "RSC_EXT");
  const wanted = named("VERSION_1", "GUEST_CSUM", "RSC_EXT");
  assertEquals(
    fault(() => checkAcceptable(wanted, offered, "strict")),
    "features-dependency-missing: The driver accepts RSC_EXT without GUEST_TSO4 or GUEST_TSO6; " +
      "it must accept that too, or neither",
  );
  checkAcceptable(wanted, offered, "qemu");
  checkAcceptable(wanted.with(8), offered, "strict");
  checkAcceptable(FeatureSet.none, offered, "strict");
});

Deno.test("guestOffloads() are the eight bits that GUEST_OFFLOADS_SET switches", () => {
  const every = FeatureSet.from(Array.from({ length: 128 }, (_, bit) => bit));
  assertEquals([...guestOffloads(every)], [1, 7, 8, 9, 10, 54, 55, 61]);
  assertEquals([...guestOffloads(FeatureSet.of(0, 1, 32, 61))], [1, 61]);
});
