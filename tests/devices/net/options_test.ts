import { assertEquals } from "@std/assert";
import { net, type NetOptions } from "../../../devices/net/mod.ts";
import { VIRTIO_F_RING_PACKED } from "../../../core/features.ts";
import * as bits from "../../../wire/net_features.ts";

async function resolved(written: unknown): Promise<NetOptions> {
  const result = await net.options["~standard"].validate(written);
  if (result.issues !== undefined) throw new Error(result.issues.map(({ message }) => message).join("; "));
  return result.value;
}

async function problems(written: unknown): Promise<string[]> {
  const result = await net.options["~standard"].validate(written);
  return (result.issues ?? []).map(({ path = [], message }) => {
    const keys = path.map((step) => typeof step === "object" ? step.key : step);
    return `${keys.join(".")}: ${message}`;
  });
}

Deno.test("the options of net have defaults that make an ordinary device", async () => {
  assertEquals(await resolved({}), {
    mac: Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56),
    rules: "strict",
    queuePairs: 1,
    queueSize: 1024,
    mtu: undefined,
    speedMbps: undefined,
    duplex: 255,
    extraFeatures: [VIRTIO_F_RING_PACKED],
    withheldFeatures: [],
  });
});

Deno.test("the options of net become features to offer and to withhold", async () => {
  const written = {
    mac: "02:00:00:AB:cd:EF",
    mtu: 9000,
    speedMbps: 10_000,
    duplex: "full",
    packedRing: false,
    rss: true,
    hashReport: true,
    withhold: ["MRG_RXBUF", "RSC_EXT"],
  };
  const options = await resolved(written);
  assertEquals(options.mac, Uint8Array.of(2, 0, 0, 0xab, 0xcd, 0xef));
  assertEquals([options.mtu, options.speedMbps, options.duplex], [9000, 10_000, 1]);
  assertEquals(options.extraFeatures, [
    bits.VIRTIO_NET_F_MTU,
    bits.VIRTIO_NET_F_SPEED_DUPLEX,
    bits.VIRTIO_NET_F_RSS,
    bits.VIRTIO_NET_F_HASH_REPORT,
  ]);
  assertEquals(options.withheldFeatures, [bits.VIRTIO_NET_F_MRG_RXBUF, bits.VIRTIO_NET_F_RSC_EXT]);
});

Deno.test("speed or duplex alone is enough to offer SPEED_DUPLEX", async () => {
  for (const written of [{ speedMbps: 0 }, { duplex: "half" }]) {
    const { extraFeatures } = await resolved(written);
    assertEquals(extraFeatures.includes(bits.VIRTIO_NET_F_SPEED_DUPLEX), true);
  }
  assertEquals((await resolved({ duplex: "half" })).duplex, 0);
});

Deno.test("the options of net take what is at the edge", async () => {
  for (const written of [{ queuePairs: 1 }, { queuePairs: 256 }, { queueSize: 1 }, { queueSize: 32_768 }]) {
    assertEquals(await problems(written), []);
  }
  for (const written of [{ mtu: 68 }, { mtu: 65_535 }, { speedMbps: 0 }, { speedMbps: 0x7fff_ffff }]) {
    assertEquals(await problems(written), []);
  }
});

Deno.test("the options of net refuse what is no address of a single station", async () => {
  const wrong = [
    "",
    "52:54:00:00:00",
    "52:54:00:00:00:01:02",
    "52-54-00",
    "zz:54:00:00:00:01",
    "52:54:0:0:0:1",
    7,
  ];
  for (const mac of [...wrong, "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"]) {
    const [problem, ...more] = await problems({ mac });
    assertEquals([problem.startsWith("mac: "), more], [true, []], `${mac}: ${problem}`);
  }
});

Deno.test("the options of net refuse values out of range, by name", async () => {
  const cases: [string, unknown][] = [
    ["queuePairs", 0],
    ["queuePairs", 257],
    ["queuePairs", 1.5],
    ["queueSize", 0],
    ["queueSize", 1000],
    ["queueSize", 65_536],
    ["mtu", 67],
    ["mtu", 65_536],
    ["speedMbps", -1],
    ["speedMbps", 0x8000_0000],
    ["duplex", "both"],
    ["rules", "kernel"],
    ["packedRing", 1],
    ["rss", "yes"],
  ];
  for (const [key, value] of cases) {
    const found = await problems({ [key]: value });
    assertEquals(
      [found.length > 0, found.every((problem) => problem.startsWith(`${key}: `))],
      [true, true],
      key,
    );
  }
  assertEquals((await problems({ queueSize: 1000 }))[0], "queueSize: Write a power of two");
  assertEquals((await problems({ withhold: ["MRG_RXBUF", "MRG_RXBUFF"] })).length, 1);
  assertEquals((await problems({ queues: 2 })).length, 1);
});

Deno.test("net tells transports the address of its guest and how many queue pairs it has", async () => {
  const options = await resolved({ mac: "52:54:00:00:00:07", queuePairs: 4 });
  const facts = { guestMac: Uint8Array.of(0x52, 0x54, 0, 0, 0, 7), queuePairs: 4 };
  assertEquals(net.facts(options), { ...facts, mtu: undefined });
  assertEquals(net.facts(await resolved({ mac: "52:54:00:00:00:07", queuePairs: 4, mtu: 1400 })), {
    ...facts,
    mtu: 1400,
  });
});
