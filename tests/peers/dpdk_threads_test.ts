/**
 * DPDK's virtio-user with two queue pairs, each of which a thread works: no frame is lost, and the sums
 * agree.
 * @module
 */
import { assertEquals } from "@std/assert";
import { parseMac } from "../../wire/ethernet.ts";
import { hostTest, linux, program } from "../../rigs/require.ts";
import type { FarEnd } from "./support/socket_network.ts";
import { after, until } from "./support/tap_rig.ts";
import { GUEST_MAC, Testpmd } from "./support/testpmd.ts";
import { ThreadsRig } from "./support/threads_rig.ts";

const NEEDS = [linux, program("dpdk-testpmd", "dpdk-dev"), program("stdbuf", "coreutils")];
const FRAMES = 5000;
const FRAME_BYTES = 1000;

/** Writes frames as fast as they are taken. */
async function deliver(end: FarEnd): Promise<void> {
  const frame = new Uint8Array(FRAME_BYTES);
  frame.set(parseMac(GUEST_MAC), 0);
  frame.set(parseMac("52:54:00:00:00:77"), 6);
  frame.set([0x88, 0xb5], 12);
  for (let sent = 0; sent < FRAMES;) {
    if (end.write(frame)) sent++;
    else await after(1);
  }
}

/**
 * Reads what is there and returns how many frames of the right length that are; asserts that there are no
 * others.
 */
function take(end: FarEnd): number {
  let count = 0;
  for (; count < 256; count++) {
    const frame = end.read();
    if (frame === null) break;
    assertEquals(frame.length, FRAME_BYTES);
  }
  return count;
}

for (const packed of [false, true]) {
  const name = packed ? "packed" : "split";
  hostTest(`testpmd with two queue pairs and two threads lose no frame, ${name}`, NEEDS, async () => {
    await using rig = await ThreadsRig.start({ queuePairs: 2, mac: GUEST_MAC, packedRing: packed });
    await using testpmd = Testpmd.start({
      socket: rig.socket,
      server: false,
      pairs: 2,
      packed,
      mergeable: true,
      hugePages: false,
      maxFrameBytes: 1518,
      portParameters: "cq=1",
    });
    await testpmd.ready();

    await testpmd.forward("rxonly");
    await Promise.all([deliver(rig.ends[0]), deliver(rig.ends[1])]);
    await until("all frames are delivered", () => rig.counters("net0.toGuest").packets === 2 * FRAMES);
    const received = await testpmd.stats(2);
    assertEquals(received.receivedPerQueue, [FRAMES, FRAMES]);
    await testpmd.stopForwarding();

    const taken = [0, 0];
    const takeAll = () => rig.ends.forEach((end, queue) => taken[queue] += take(end));
    await testpmd.forward("txonly", `set txpkts ${FRAME_BYTES}`);
    await until("frames have come from both pairs", () => {
      takeAll();
      return Math.min(...taken) > FRAMES;
    });
    await testpmd.stopForwarding();
    const { sent } = await testpmd.stats(2);
    await until("all frames have come", () => {
      takeAll();
      return taken[0] + taken[1] >= sent;
    });
    assertEquals(taken[0] + taken[1], sent);
    const { packets, bytes, sent: passedOn } = rig.counters("net0.fromGuest");
    assertEquals([packets, bytes, passedOn], [sent, sent * FRAME_BYTES, sent]);
    rig.assertNoFault();
  });
}
