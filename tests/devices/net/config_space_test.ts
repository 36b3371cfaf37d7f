import { assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { GuestError } from "../../../rings/guest_error.ts";
import { FeatureSet } from "../../../core/features.ts";
import { NET_CONFIG_BYTES, NetConfigSpace, type NetConfigValues } from "../../../devices/net/config_space.ts";
import { featureBit } from "../../../wire/net_features.ts";

const MAC = Uint8Array.of(0x52, 0x54, 0, 1, 2, 3);
const ZEROS = (count: number) => new Array<number>(count).fill(0);

function named(...names: string[]): FeatureSet {
  return FeatureSet.from(names.map((name) => featureBit(name)!));
}

function space(offered: FeatureSet, changes: Partial<NetConfigValues> = {}): NetConfigSpace {
  return new NetConfigSpace(offered, { mac: MAC, queuePairs: 4, mtu: 9000, ...changes });
}

function bytes(from: NetConfigSpace, offset = 0, length = NET_CONFIG_BYTES): number[] {
  const target = new Uint8Array(length).fill(0xee);
  from.read(offset, target);
  return Array.from(target);
}

function refused(act: () => void): void {
  assertEquals((assertThrows(act, GuestError) as GuestError).fault, "config-write-invalid");
}

Deno.test("NetConfigSpace shows the MAC address and nothing else if nothing else is offered", () => {
  assertEquals(bytes(space(named("MAC"))), [...MAC, ...ZEROS(18)]);
});

Deno.test("NetConfigSpace has every field at its place, little-endian", () => {
  const all = named("MAC", "STATUS", "MQ", "MTU", "SPEED_DUPLEX", "RSS");
  assertEquals(bytes(space(all, { queuePairs: 0x8000, mtu: 0x2328, speedMbps: 0x01020304, duplex: 1 })), [
    ...MAC,
    ...[1, 0],
    ...[0x00, 0x80],
    ...[0x28, 0x23],
    ...[4, 3, 2, 1],
    1,
    40,
    ...[128, 0],
    ...[0x3f, 0, 0, 0],
  ]);
});

Deno.test("NetConfigSpace shows each field exactly if its feature is offered", () => {
  const fields: [string, number, number[]][] = [
    ["STATUS", 6, [1, 0]],
    ["MQ", 8, [4, 0]],
    ["MTU", 10, [0x28, 0x23]],
    ["SPEED_DUPLEX", 12, [0xff, 0xff, 0xff, 0xff, 0xff]],
    ["HASH_REPORT", 17, [40, 0, 0, 0x3f, 0, 0, 0]],
  ];
  for (const [feature, at, shown] of fields) {
    const expected = [...MAC, ...ZEROS(18)];
    expected.splice(at, shown.length, ...shown);
    assertEquals(bytes(space(named("MAC", feature))), expected, feature);
  }
  assertEquals(bytes(space(named("RSS")), 8, 2), [4, 0], "RSS brings max_virtqueue_pairs too");
});

Deno.test("NetConfigSpace.read() answers zeros beyond the end", () => {
  const config = space(named("MAC", "HASH_REPORT"));
  assertEquals(bytes(config, 18, 10), [0, 0, 0x3f, 0, 0, 0, ...ZEROS(4)]);
  assertEquals(bytes(config, 4096, 3), [0, 0, 0]);
  assertEquals(bytes(config, 2 ** 40, 3), [0, 0, 0]);
});

Deno.test("NetConfigSpace refuses values out of range", () => {
  const cases: [string, Partial<NetConfigValues>, string][] = [
    ["MQ", { queuePairs: 0 }, "queuePairs 0: it must be an integer from 1 to 32768"],
    ["MQ", { queuePairs: 0x8001 }, "queuePairs"],
    ["MTU", { mtu: 67 }, "mtu 67"],
    ["MTU", { mtu: undefined }, "mtu undefined"],
    ["SPEED_DUPLEX", { speedMbps: 0x80000000 }, "speedMbps"],
    ["SPEED_DUPLEX", { duplex: 256 }, "duplex"],
    ["MAC", { mac: new Uint8Array(5) }, "MAC address of 5 bytes"],
  ];
  for (const [feature, changes, text] of cases) {
    assertThrows(() => space(named(feature), changes), RangeError, text);
  }
});

Deno.test("NetConfigSpace.write() lets a legacy driver write its MAC address, byte by byte", () => {
  const config = space(named("MAC", "STATUS"));
  config.negotiated(named("MAC"));
  for (let i = 0; i < 6; i++) config.write(i, Uint8Array.of(0x10 + i));
  assertEquals(Array.from(config.mac), [0x10, 0x11, 0x12, 0x13, 0x14, 0x15]);
  config.write(0, Uint8Array.of(2, 4, 6, 8, 10, 12));
  assertEquals(bytes(config, 0, 8), [2, 4, 6, 8, 10, 12, 1, 0]);
  config.reset();
  assertEquals(config.mac, MAC);
});

Deno.test("NetConfigSpace.write() refuses a legacy driver any byte behind its MAC address", () => {
  const config = space(named("MAC", "STATUS"));
  config.negotiated(named("MAC"));
  for (const [offset, length] of [[6, 1], [5, 2], [0, 7], [-1, 2], [24, 1], [NaN, 1]]) {
    refused(() => config.write(offset, new Uint8Array(length)));
  }
  assertEquals(bytes(config, 0, 8), [...MAC, 1, 0]);
});

Deno.test("NetConfigSpace.write() refuses everybody else", () => {
  const config = space(named("MAC", "STATUS"));
  const one = Uint8Array.of(1);
  refused(() => config.write(0, one));
  config.negotiated(named("VERSION_1"));
  refused(() => config.write(0, one));
  config.negotiated(named("CTRL_MAC_ADDR", "CTRL_VQ"));
  refused(() => config.write(0, one));
  config.negotiated(named("MAC"));
  config.reset();
  refused(() => config.write(0, one));
  assertEquals(config.mac, MAC);
});

Deno.test("NetConfigSpace.setLink() says whether that is news", () => {
  const config = space(named("MAC", "STATUS"));
  assertEquals([config.linkUp, config.setLink(true)], [true, false]);
  assertEquals([config.setLink(false), config.linkUp, bytes(config, 6, 2)], [true, false, [0, 0]]);
  assertEquals([config.setLink(false), config.setLink(true), config.linkUp], [false, true, true]);
  config.setLink(false);
  config.reset();
  assertEquals(config.linkUp, false, "a reset does not plug the cable in");
});

Deno.test("NetConfigSpace without STATUS has a link that is always up", () => {
  const config = space(named("MAC"));
  assertEquals([config.setLink(false), config.linkUp, bytes(config, 6, 2)], [false, true, [0, 0]]);
});

Deno.test("NetConfigSpace.requestAnnounce() works exactly if the driver knows the request", () => {
  const config = space(named("MAC", "STATUS"));
  assertEquals(config.requestAnnounce(), false);
  config.negotiated(named("STATUS"));
  assertEquals([config.requestAnnounce(), config.announcing], [false, false]);
  config.negotiated(named("STATUS", "GUEST_ANNOUNCE", "CTRL_VQ"));
  assertEquals([config.requestAnnounce(), config.announcing, bytes(config, 6, 2)], [true, true, [3, 0]]);
  config.announceAcked();
  assertEquals([config.announcing, bytes(config, 6, 2)], [false, [1, 0]]);
  config.requestAnnounce();
  config.reset();
  assertEquals([config.announcing, config.requestAnnounce()], [false, false]);
  const blind = space(named("MAC"));
  blind.negotiated(named("GUEST_ANNOUNCE", "CTRL_VQ"));
  assertEquals([blind.requestAnnounce(), blind.announcing], [false, false]);
});

Deno.test("NetConfigSpace.mac is a copy, and setMac() takes one", () => {
  const config = space(named("MAC"));
  config.mac.fill(0);
  const mac = Uint8Array.of(2, 2, 2, 2, 2, 2);
  config.setMac(mac);
  mac.fill(9);
  assertEquals(bytes(config, 0, 8), [2, 2, 2, 2, 2, 2, 0, 0]);
});

Deno.test("NetConfigSpace.write() of anything is taken, or refused without a trace", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: -4, max: 40 }),
      fc.uint8Array({ maxLength: 30 }),
      fc.boolean(),
      (at, source, legacy) => {
        const config = space(named("MAC", "STATUS"));
        config.negotiated(legacy ? FeatureSet.none : named("VERSION_1"));
        const before = bytes(config);
        try {
          config.write(at, source);
          before.splice(at, source.length, ...source);
          assertEquals(legacy && at >= 0 && at + source.length <= 6, true);
        } catch (error) {
          assertEquals((error as GuestError).fault, "config-write-invalid");
        }
        assertEquals(bytes(config), before);
      },
    ),
  );
});
