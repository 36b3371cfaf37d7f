import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { FeatureSet } from "../../../core/features.ts";
import {
  type FilterVerdict,
  MAC_TABLE_ENTRIES,
  ReceiveFilter,
  type ReceiveMode,
} from "../../../devices/net/receive_filter.ts";
import { VIRTIO_NET_F_CTRL_VLAN } from "../../../wire/net_features.ts";

const OWN = [0x52, 0x54, 0, 0, 0, 1];
const OTHER = [0x52, 0x54, 0, 0, 0, 2];
const GROUP = [1, 0, 0x5e, 0, 0, 1];
const OTHER_GROUP = [1, 0, 0x5e, 0, 0, 2];
const BROADCAST = [255, 255, 255, 255, 255, 255];
const MODES: ReceiveMode[] = ["promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast"];

/** A filter whose driver has turned promiscuous mode off. */
function filter(): ReceiveFilter {
  const made = new ReceiveFilter(Uint8Array.from(OWN));
  made.setMode("promisc", false);
  return made;
}

function to(destination: number[], ...words: number[]): Uint8Array {
  const type = (words.length === 0 ? [0x0800] : words).flatMap((word) => [word >>> 8, word & 255]);
  return Uint8Array.from([0xee, 0xee, ...destination, 2, 0, 0, 0, 0, 9, ...type, 0, 0, 0, 0]);
}

function verdict(made: ReceiveFilter, destination: number[], ...words: number[]): FilterVerdict {
  const bytes = to(destination, ...words);
  return made.accepts(bytes, 2, bytes.length - 2);
}

function verdicts(made: ReceiveFilter): FilterVerdict[] {
  return [OWN, OTHER, GROUP, BROADCAST].map((destination) => verdict(made, destination));
}

function setTables(made: ReceiveFilter, unicast: number[][], multicast: number[][]): void {
  const bytes = Uint8Array.from([9, ...unicast.flat(), 9, 9, ...multicast.flat()]);
  made.setTables(bytes, 1, unicast.length, 3 + 6 * unicast.length, multicast.length);
}

function addresses(first: number, count: number): number[][] {
  return Array.from({ length: count }, (_, i) => [first, 0, 0, 0, 7, i]);
}

Deno.test("ReceiveFilter is promiscuous until the driver says otherwise", () => {
  const made = new ReceiveFilter(Uint8Array.from(OWN));
  assertEquals(MODES.map((mode) => made.mode(mode)), [true, false, false, false, false, false]);
  assertEquals(verdicts(made), ["accepted", "accepted", "accepted", "accepted"]);
});

Deno.test("ReceiveFilter.accepts() without modes lets own address and broadcast through", () => {
  assertEquals(verdicts(filter()), ["accepted", "unicast_unknown", "multicast_unknown", "accepted"]);
});

Deno.test("ReceiveFilter.setMode() admits and suppresses by kind, and suppression wins", () => {
  const cases: [ReceiveMode[], FilterVerdict[]][] = [
    [["allmulti"], ["accepted", "unicast_unknown", "accepted", "accepted"]],
    [["alluni"], ["accepted", "accepted", "multicast_unknown", "accepted"]],
    [["nobcast"], ["accepted", "unicast_unknown", "multicast_unknown", "broadcast_off"]],
    [["nomulti"], ["accepted", "unicast_unknown", "multicast_off", "accepted"]],
    [["nouni"], ["unicast_off", "unicast_off", "multicast_unknown", "accepted"]],
    [["allmulti", "nomulti"], ["accepted", "unicast_unknown", "multicast_off", "accepted"]],
    [["allmulti", "nobcast"], ["accepted", "unicast_unknown", "accepted", "broadcast_off"]],
    [["alluni", "nouni"], ["unicast_off", "unicast_off", "multicast_unknown", "accepted"]],
    [["promisc", "nouni", "nomulti", "nobcast"], ["accepted", "accepted", "accepted", "accepted"]],
  ];
  for (const [modes, expected] of cases) {
    const made = filter();
    for (const mode of modes) made.setMode(mode, true);
    assertEquals(verdicts(made), expected, modes.join());
    for (const mode of modes) made.setMode(mode, false);
    assertEquals(verdicts(made), verdicts(filter()), `not ${modes.join()}`);
  }
});

Deno.test("ReceiveFilter.setTables() lets listed addresses through, each only as its kind", () => {
  const made = filter();
  setTables(made, [OTHER], [GROUP]);
  assertEquals(verdicts(made), ["accepted", "accepted", "accepted", "accepted"]);
  assertEquals(verdict(made, OTHER_GROUP), "multicast_unknown");
  assertEquals(verdict(made, [0x52, 0x54, 0, 0, 0, 3]), "unicast_unknown");
  setTables(made, [GROUP], [OTHER]);
  assertEquals(verdicts(made), ["accepted", "unicast_unknown", "multicast_unknown", "accepted"]);
  setTables(made, [], []);
  assertEquals(verdicts(made), verdicts(filter()));
});

Deno.test("ReceiveFilter.setTables() compares all 48 bits", () => {
  const address = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54];
  const made = filter();
  setTables(made, [address], []);
  assertEquals(verdict(made, address), "accepted");
  for (let bit = 0; bit < 48; bit++) {
    const changed = address.slice();
    changed[bit >>> 3] ^= 1 << (bit & 7);
    assert(verdict(made, changed) !== "accepted", `bit ${bit}`);
  }
});

Deno.test("ReceiveFilter.setTables() lets all of a kind through whose list is too long", () => {
  const made = filter();
  setTables(made, addresses(2, MAC_TABLE_ENTRIES), []);
  assertEquals(verdict(made, [2, 0, 0, 0, 7, MAC_TABLE_ENTRIES - 1]), "accepted");
  assertEquals(verdict(made, OTHER), "unicast_unknown");
  setTables(made, addresses(2, MAC_TABLE_ENTRIES), [GROUP]);
  assertEquals(verdicts(made), ["accepted", "unicast_unknown", "accepted", "accepted"]);
  assertEquals(verdict(made, OTHER_GROUP), "accepted");
  setTables(made, addresses(2, MAC_TABLE_ENTRIES + 1), [GROUP]);
  assertEquals(verdicts(made), ["accepted", "accepted", "accepted", "accepted"]);
  assertEquals(verdict(made, OTHER_GROUP), "multicast_unknown");
  setTables(made, [], addresses(3, MAC_TABLE_ENTRIES));
  assertEquals(verdicts(made), ["accepted", "unicast_unknown", "multicast_unknown", "accepted"]);
  assertEquals(verdict(made, [3, 0, 0, 0, 7, MAC_TABLE_ENTRIES - 1]), "accepted");
});

Deno.test("ReceiveFilter.setMac() replaces the own address, by copy", () => {
  const made = filter();
  const mac = Uint8Array.from(OTHER);
  made.setMac(mac);
  mac.fill(0);
  assertEquals(verdicts(made), ["unicast_unknown", "accepted", "multicast_unknown", "accepted"]);
});

Deno.test("ReceiveFilter.setVlan() counts only if CTRL_VLAN was negotiated", () => {
  const made = filter();
  assertEquals(verdict(made, OWN, 0x8100, 5, 0x0800), "accepted");
  made.negotiated(FeatureSet.of(VIRTIO_NET_F_CTRL_VLAN));
  assertEquals(verdict(made, OWN, 0x8100, 5, 0x0800), "vlan_unknown");
  assertEquals(verdict(made, OWN), "accepted", "untagged");
  assertEquals(
    verdict(made, OWN, 0x88a8, 5, 0x0800),
    "accepted",
    "a service tag is not the driver's to filter",
  );
  for (const id of [0, 5, 31, 32, 4095]) {
    made.setVlan(id, true);
    assertEquals(verdict(made, OWN, 0x8100, 0xf000 | id, 0x0800), "accepted");
    assertEquals(verdict(made, OTHER, 0x8100, id, 0x0800), "unicast_unknown");
    assertEquals(verdict(made, OWN, 0x8100, id ^ 64, 0x0800), "vlan_unknown");
    made.setVlan(id, false);
    assertEquals(verdict(made, OWN, 0x8100, id, 0x0800), id === 0 ? "accepted" : "vlan_unknown");
  }
  made.setMode("promisc", true);
  assertEquals(verdict(made, OWN, 0x8100, 5, 0x0800), "accepted");
});

Deno.test("ReceiveFilter takes a priority tag for no VLAN, and looks behind it; the reference looks it up", () => {
  const rules = (["strict", "qemu"] as const).map((book) => {
    const made = new ReceiveFilter(Uint8Array.from(OWN), book);
    made.setMode("promisc", false);
    made.negotiated(FeatureSet.of(VIRTIO_NET_F_CTRL_VLAN));
    made.setVlan(7, true);
    return made;
  });
  const asked = (...words: number[]) => rules.map((made) => verdict(made, OWN, ...words));
  assertEquals(asked(0x8100, 0xe000, 0x0800), ["accepted", "vlan_unknown"]);
  assertEquals(asked(0x8100, 0, 0x8100, 5, 0x0800), ["vlan_unknown", "vlan_unknown"]);
  assertEquals(asked(0x8100, 0, 0x8100, 7, 0x0800), ["accepted", "vlan_unknown"]);
  assertEquals(asked(0x8100, 7, 0x0800), ["accepted", "accepted"]);
});

Deno.test("ReceiveFilter.setVlan() refuses what is no VLAN id", () => {
  for (const id of [-1, 4096, 1.5, NaN]) {
    assertThrows(() => filter().setVlan(id, true), RangeError, "0 to 4095");
  }
});

Deno.test("ReceiveFilter.reset() is as new but for the counters", () => {
  const made = filter();
  made.negotiated(FeatureSet.of(VIRTIO_NET_F_CTRL_VLAN));
  for (const mode of MODES) made.setMode(mode, true);
  made.setVlan(7, true);
  setTables(made, addresses(2, 100), addresses(3, 100));
  made.reset(Uint8Array.from(OTHER));
  assertEquals(MODES.map((mode) => made.mode(mode)), [true, false, false, false, false, false]);
  made.setMode("promisc", false);
  assertEquals(verdicts(made), ["unicast_unknown", "accepted", "multicast_unknown", "accepted"]);
  assertEquals(verdict(made, OTHER, 0x8100, 5, 0x0800), "accepted");
  made.negotiated(FeatureSet.of(VIRTIO_NET_F_CTRL_VLAN));
  assertEquals(verdict(made, OTHER, 0x8100, 7, 0x0800), "vlan_unknown", "the VLAN table was emptied");
  assertEquals([made.counters.unicast_unknown, made.counters.vlan_unknown], [1, 1]);
});

Deno.test("ReceiveFilter.counters count each refusal under its reason, and nothing else", () => {
  const made = filter();
  verdicts(made);
  verdicts(made);
  made.accepts(new Uint8Array(20), 0, 13);
  made.setMode("nobcast", true);
  verdict(made, BROADCAST);
  assertEquals(made.counters, {
    too_short: 1,
    vlan_unknown: 0,
    broadcast_off: 1,
    multicast_off: 0,
    multicast_unknown: 2,
    unicast_off: 0,
    unicast_unknown: 2,
  });
});

Deno.test("ReceiveFilter.accepts() agrees with the specification's words, for any settings and frames", () => {
  const flags = fc.record(Object.fromEntries(MODES.map((mode) => [mode, fc.boolean()])));
  const address = fc.constantFrom(OWN, OTHER, GROUP, OTHER_GROUP, BROADCAST);
  const tag = fc.option(fc.constantFrom(1, 2));
  fc.assert(
    fc.property(
      flags,
      fc.boolean(),
      fc.subarray([OTHER]),
      fc.subarray([GROUP]),
      address,
      tag,
      (on, vlans, uni, multi, destination, id) => {
        const made = filter();
        if (vlans) made.negotiated(FeatureSet.of(VIRTIO_NET_F_CTRL_VLAN));
        made.setVlan(1, true);
        for (const mode of MODES) made.setMode(mode, on[mode]);
        setTables(made, uni, multi);
        const wanted = () => {
          if (on.promisc) return true;
          if (vlans && id === 2) return false;
          if (destination === BROADCAST) return !on.nobcast;
          if (destination === GROUP || destination === OTHER_GROUP) {
            return !on.nomulti && (on.allmulti || multi.includes(destination));
          }
          return !on.nouni && (on.alluni || destination === OWN || uni.includes(destination));
        };
        const got = id === null ? verdict(made, destination) : verdict(made, destination, 0x8100, id, 0x0800);
        assertEquals(got === "accepted", wanted());
      },
    ),
    { numRuns: 1000 },
  );
});
