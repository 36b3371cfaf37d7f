/**
 * RSC_EXT from end to end: segments from the network, our coalescer, vhost-user, QEMU's virtio-net device on
 * PCI, and a driver that reads the headers: this test, over QEMU's test socket. No driver of Linux accepts
 * the bit, so that no guest of ours could tell.
 *
 * What QEMU does with the bit, as seen here. Its device offers it if told `guest_rsc_ext=on`. Since release
 * 9.1 it is on the list of bits that a vhost-user back-end must offer as well, and that are passed on to the
 * back-end when the driver accepts them. Before, it was on no list: the driver is offered the bit whatever
 * the back-end can do, and the back-end is not told. Nothing that the back-end says and no property of the
 * device changes that. The driver then gets what one without the bit gets, under strict rules large packets
 * without RSC_INFO.
 *
 * The control queue ends in QEMU, before 9.1 and since: it answers GUEST_OFFLOADS_SET itself, by OK if the
 * offloads were negotiated, and does nothing more, for a vhost-user network has no way to be told.
 * CTRL_GUEST_OFFLOADS is on no list either: only QEMU's property `ctrl_guest_offloads=off` withholds it. A
 * driver is rid of coalescing when it resets the device and accepts less.
 * @module
 */
import { assertEquals } from "@std/assert";
import { FeatureSet } from "../../core/features.ts";
import { tcp, TcpStream } from "../../testing/mod.ts";
import type { VhostUserTransport } from "../../transports/vhost_user/mod.ts";
import * as net from "../../wire/net_features.ts";
import { qemu10, QEMU_10, QEMU_7 } from "../../rigs/qemu_program.ts";
import { burst, FAMILIES, large, MSS, plain, received, reference, rscInfo } from "./support/qtest_packets.ts";
import { QtestRig, type QtestRigOptions } from "./support/qtest_rig.ts";
import { hostTest, linux, program } from "../../rigs/require.ts";
import { until } from "./support/tap_rig.ts";
import { framePool } from "../../pipeline/kinds.ts";

const OLD = [linux, program("qemu-system-x86_64", "qemu-system-x86"), before91];
const NEW = [linux, qemu10];

const RSC = net.VIRTIO_NET_F_RSC_EXT;
const TSO4 = net.VIRTIO_NET_F_GUEST_TSO4;
const TSO6 = net.VIRTIO_NET_F_GUEST_TSO6;
const CONTROL = [net.VIRTIO_NET_F_CTRL_VQ, net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS];
const WANTED = FeatureSet.of(net.VIRTIO_NET_F_GUEST_CSUM, TSO4, TSO6, RSC);

const RULES = ["strict", "qemu"] as const;

const OK = 0;
const REFUSED = 1;

hostTest(
  "QEMU before 9.1 offers RSC_EXT by itself and keeps what the driver accepts to itself",
  OLD,
  async () => {
    for (const device of ["guest_rsc_ext=on", "guest_rsc_ext=on,x-ignore-backend-features=on"]) {
      for (const withhold of [[], ["RSC_EXT"]]) {
        await using rig = await QtestRig.start({ device, withhold });
        const { offered, accepted } = await rig.drive(WANTED);
        assertEquals([offered.has(RSC), accepted.has(RSC), rig.agreed.has(RSC)], [true, true, false]);
        assertEquals(await rig.deliver(burst("IPv4", 10), 1), [large("IPv4", 10)]);
      }
    }
    await using rig = await QtestRig.start({ rules: "qemu" });
    await rig.drive(WANTED);
    const frames = burst("IPv4", 10);
    assertEquals(await rig.deliver(frames, 10), frames.map(plain));
  },
);

hostTest(
  "QEMU offers RSC_EXT if both its device and our back-end do, and passes on what is accepted",
  NEW,
  async () => {
    const cases: [QtestRigOptions, boolean][] = [
      [{}, true],
      [{ offloads: ["rsc-v6"] }, true],
      [{ offloads: [] }, false],
      [{ withhold: ["RSC_EXT"] }, false],
      [{ device: "guest_rsc_ext=off" }, false],
    ];
    for (const [options, expected] of cases) {
      await using rig = await start(options);
      const { offered } = await rig.drive(WANTED);
      assertEquals([offered.has(RSC), rig.agreed.has(RSC)], [expected, expected], JSON.stringify(options));
      await rig.drive(WANTED.without(RSC));
      assertEquals(rig.agreed.has(RSC), false);
    }
  },
);

for (const family of ["IPv4", "IPv6"] as const) {
  const { source, group } = FAMILIES[family];

  hostTest(`a driver is told how many segments of ${family} one packet was made of`, NEW, async () => {
    await using rig = await start();
    await rig.drive(WANTED);
    for (const count of [2, 10, 45]) {
      const frames = burst(family, count);
      assertEquals(await rig.deliver(frames, 1), [large(family, count, rscInfo(count))]);
    }
    assertEquals(rig.machine.counters[group].segments_coalesced, 57);
  });

  hostTest(
    `the last segment of ${family} decides what the packet acknowledges, and none is lost`,
    NEW,
    async () => {
      await using rig = await start();
      await rig.drive(WANTED);
      const stream = new TcpStream({ source, seq: 0xffff_ff00, timestamp: [100, 7] });
      const frames = [
        stream.next(MSS),
        stream.next(MSS, { ack: 5, window: 600, flags: ["ACK", "PSH"], timestamp: [101, 8] }),
        stream.next(3, { ack: 9, window: 700, timestamp: [102, 9] }),
      ];
      const packet = {
        source,
        seq: 0xffff_ff00,
        payload: 2 * MSS + 3,
        ack: 9,
        window: 700,
        flags: ["ACK", "PSH"],
        timestamp: [102, 9],
        checksum: "partial",
      } as const;
      const { ipBytes, gsoType } = FAMILIES[family];
      const header = { flags: 5, gsoType, hdrLen: 14 + ipBytes + 32, gsoSize: MSS, csumStart: 3 };
      assertEquals(await rig.deliver(frames, 1), [received(tcp(packet), header)]);
    },
  );

  hostTest(`a connection over ${family} that fills a packet begins the next one`, NEW, async () => {
    const frames = burst(family, 47);
    const rest = { source, seq: 1000 + 45 * MSS };
    {
      await using rig = await start();
      await rig.drive(WANTED);
      assertEquals(await rig.deliver(frames, 2), [
        large(family, 45, rscInfo(45)),
        large(family, 2, rscInfo(2), rest),
      ]);
    }
    await using rig = await start({ rules: "qemu" });
    await rig.drive(WANTED);
    assertEquals(await rig.deliver(frames, 3), [
      reference(family, frames[0], { payload: 45 * MSS }, 45),
      plain(frames[45]),
      plain(frames[46]),
    ]);
  });

  for (const rules of RULES) {
    const name = `duplicate ACKs behind data over ${family} are never counted in the header, ${rules} rules`;
    hostTest(name, NEW, async () => {
      await using rig = await start({ rules });
      await rig.drive(WANTED);
      const data = tcp({ source, payload: 100 });
      const ack = tcp({ source, seq: 1100 });
      const frames = [data, ack, ack, ack];
      if (rules === "strict") {
        // Each of them by itself: a sender waits for three before it retransmits.
        assertEquals(await rig.deliver(frames, 4), frames.map(plain));
        assertEquals(rig.machine.counters[group].duplicate_ack, 3);
      } else {
        // The reference takes them for segments without data.
        assertEquals(await rig.deliver(frames, 1), [reference(family, data, { payload: 100 }, 4)]);
        assertEquals(rig.machine.counters[group].coalesced, 3);
      }
    });

    hostTest(
      `pure ACKs over ${family} arrive one by one, whether they repeat or not, ${rules} rules`,
      NEW,
      async () => {
        await using rig = await start({ rules });
        await rig.drive(WANTED);
        const frames = [1, 1, 1, 1, 2, 3].map((ack) => tcp({ source, ack }));
        assertEquals(await rig.deliver(frames, 6), frames.map(plain));
        const { duplicate_ack, dup_ack } = rig.machine.counters[group];
        assertEquals(rules === "strict" ? duplicate_ack : dup_ack, 2);
      },
    );

    hostTest(`a window update over ${family} replaces the ACK before it, ${rules} rules`, NEW, async () => {
      await using rig = await start({ rules });
      await rig.drive(WANTED);
      const frames = [tcp({ source }), tcp({ source, window: 501 })];
      const expected = rules === "strict"
        ? plain(frames[1])
        : reference(family, frames[0], { window: 501 }, 1);
      assertEquals(await rig.deliver(frames, 1), [expected]);
    });

    const off =
      `a driver that does not accept RSC_EXT is never told of segments of ${family}, ${rules} rules`;
    hostTest(off, NEW, async () => {
      await using rig = await start({ rules });
      const { offered } = await rig.drive(WANTED.without(RSC));
      assertEquals(offered.has(RSC), true);
      const frames = burst(family, 10);
      if (rules === "strict") assertEquals(await rig.deliver(frames, 1), [large(family, 10)]);
      else assertEquals(await rig.deliver(frames, 10), frames.map(plain));
    });
  }

  hostTest(
    `a driver that takes large packets of the other family only gets ${family} as it came`,
    NEW,
    async () => {
      for (const rules of RULES) {
        await using rig = await start({ rules });
        await rig.drive(WANTED.without(family === "IPv4" ? TSO4 : TSO6));
        const frames = burst(family, 10);
        assertEquals(await rig.deliver(frames, 10), frames.map(plain));
        const other = family === "IPv4" ? "IPv6" : "IPv4";
        const [packet] = await rig.deliver(burst(other, 10), 1);
        assertEquals([packet.header.flags, packet.header.csumStart], [rules === "strict" ? 5 : 4, 10]);
      }
    },
  );
}

for (const [qemu, needs, header] of [[QEMU_7, OLD, {}], [QEMU_10, NEW, rscInfo(10)]] as const) {
  const name = `GUEST_OFFLOADS_SET ends in ${qemu.name}: it is obeyed in word, and nothing changes`;
  hostTest(name, needs, async () => {
    await using rig = await start({ qemu });
    const driver = await rig.drive(WANTED.with(...CONTROL));
    assertEquals(driver.accepted.hasAll(CONTROL), true);
    assertEquals(rig.agreed.hasAll(CONTROL), false);
    const messages = () => (rig.machine.devices[0].driver as VhostUserTransport).counters.messages;
    const before = messages();
    assertEquals(await setOffloads(rig), OK);
    assertEquals(await rig.deliver(burst("IPv4", 10), 1), [large("IPv4", 10, header)]);
    assertEquals(await setOffloads(rig, net.VIRTIO_NET_F_GUEST_CSUM, TSO4, RSC), OK);
    // What was not negotiated QEMU refuses.
    assertEquals(await setOffloads(rig, net.VIRTIO_NET_F_GUEST_UFO), REFUSED);
    assertEquals(messages(), before);
  });
}

hostTest("CTRL_GUEST_OFFLOADS is withheld by QEMU's property, not by our back-end", NEW, async () => {
  const offers = async (options: QtestRigOptions) => {
    await using rig = await start(options);
    return (await rig.drive(WANTED)).offered.has(net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
  };
  assertEquals(await offers({ withhold: ["CTRL_GUEST_OFFLOADS"] }), true);
  assertEquals(await offers({ device: "guest_rsc_ext=on,ctrl_guest_offloads=off" }), false);
});

for (const rules of RULES) {
  const name =
    `a driver that resets the device and accepts less gets each segment, and coalescing back later, ${rules} rules`;
  hostTest(name, NEW, async () => {
    await using rig = await start({ rules });
    const frames = burst("IPv4", 10);
    const packet = rules === "strict"
      ? large("IPv4", 10, rscInfo(10))
      : reference("IPv4", frames[0], { payload: 10 * MSS }, 10);
    for (let times = 0; times < 3; times++) {
      await rig.drive(WANTED);
      assertEquals(await rig.deliver(frames, 1), [packet]);
      await rig.drive(WANTED.without(TSO4, TSO6, RSC));
      assertEquals(await rig.deliver(frames, 10), frames.map(plain));
    }
  });
}

hostTest(
  "what is held when a driver resets the device still goes to it, not to the next one",
  NEW,
  async () => {
    // Long enough for QEMU to get a driver's reset through to us.
    await using rig = await start({ offloads: [{ use: "rsc-v4", intervalUs: 5_000_000 }] });
    await rig.drive(WANTED);
    rig.inject(burst("IPv4", 10));
    await until("the segments are held", () => rig.machine.counters["net0.rsc-v4"].merged === 9);
    await rig.drive(WANTED);
    assertEquals([rig.machine.counters["net0.toGuest"].packets, framePool(rig.machine.parts.scope).inUse], [
      1,
      0,
    ]);
    const end = tcp({ seq: 1000 + 10 * MSS, flags: ["ACK", "FIN"] });
    assertEquals(await rig.deliver([end], 1), [plain(end)]);
  },
);

hostTest("RSC_INFO in what a driver sends means nothing: the frame goes out as it is", NEW, async () => {
  await using rig = await start();
  const driver = await rig.drive(WANTED);
  const sent: { bytes: Uint8Array; flags: number }[] = [];
  rig.port.tap((frame) => sent.push({ bytes: frame.toBytes(), flags: frame.header.flags }));
  const frame = tcp({ payload: 100 });
  for (const flags of [0, 4]) await driver.send(frame, flags);
  assertEquals(sent, [{ bytes: frame, flags: 0 }, { bytes: frame, flags: 0 }]);
});

/** A QEMU that knows no list with RSC_EXT. */
function before91(): string | null {
  const { stdout } = new Deno.Command("sh", { args: ["-c", "qemu-system-x86_64 --version"] }).outputSync();
  const version = /version (\d+)\.(\d+)/.exec(new TextDecoder().decode(stdout)) ?? [];
  const [major, minor] = version.slice(1).map(Number);
  return major < 9 || (major === 9 && minor < 1)
    ? null
    : `QEMU before 9.1 is needed, this is ${major}.${minor}: install that of Debian 12`;
}

/** A rig with the QEMU that passes the bit on. */
function start(options: QtestRigOptions = {}): Promise<QtestRig> {
  return QtestRig.start({ qemu: QEMU_10, ...options });
}

/** Has the driver command which offloads are on from now on, and returns the answer. */
function setOffloads({ driver }: QtestRig, ...bits: number[]): Promise<number> {
  const mask = FeatureSet.of(...bits);
  const data = new Uint8Array(8);
  const view = new DataView(data.buffer);
  for (const word of [0, 1]) view.setUint32(4 * word, mask.word(word), true);
  return driver.command(5, 0, data);
}
