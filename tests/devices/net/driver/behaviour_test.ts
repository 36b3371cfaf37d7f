import { assert, assertEquals } from "@std/assert";
import { FeatureSet } from "../../../../core/features.ts";
import { echoHeader, FrameMaker, swapMacs } from "../../../../devices/net/driver/behaviour.ts";
import { ReceivedPacket } from "../../../../devices/net/driver/mod.ts";
import { tcp } from "../../../../testing/mod.ts";
import { FakeNetDevice } from "./support/fake_net_device.ts";
import { frameOf, makeRig, OFFERED } from "./support/rig.ts";

const ALL = FeatureSet.of(0, 11, 12, 13, 14, 56);

function packetOf(fields: Partial<ReceivedPacket>): ReceivedPacket {
  return Object.assign(new ReceivedPacket(), { bytes: new Uint8Array(1000).fill(0x45, 14, 15) }, fields);
}

function headerOf(fields: Partial<ReceivedPacket>, features: FeatureSet): number[] | null {
  const header = { flags: 9, gsoType: 9, hdrLen: 9, gsoSize: 9, csumStart: 9, csumOffset: 9 };
  if (!echoHeader(packetOf(fields), features, header)) return null;
  return [header.flags, header.gsoType, header.hdrLen, header.gsoSize, header.csumStart, header.csumOffset];
}

Deno.test("echoHeader() sends a finished packet back plainly", () => {
  assertEquals(headerOf({}, FeatureSet.none), [0, 0, 0, 0, 0, 0]);
  const valid = { flags: 2, hdrLen: 54, csumStart: 34, csumOffset: 16 };
  assertEquals(
    headerOf(valid, FeatureSet.none),
    [0, 0, 0, 0, 0, 0],
    "DATA_VALID is not for the driver to set",
  );
});

Deno.test("echoHeader() sends an unfinished checksum back only with feature CSUM", () => {
  const unfinished = { flags: 1, csumStart: 34, csumOffset: 6 };
  assertEquals(headerOf(unfinished, FeatureSet.none), null);
  assertEquals(headerOf(unfinished, ALL), [1, 0, 0, 0, 34, 6]);
});

Deno.test("echoHeader() sends a large packet back only with the feature for its kind", () => {
  const large = { flags: 1, hdrLen: 54, gsoSize: 1448, csumStart: 34, csumOffset: 16 };
  for (const [gsoType, bit] of [[1, 11], [4, 12], [3, 14], [5, 56]]) {
    assertEquals(headerOf({ ...large, gsoType }, ALL), [1, gsoType, 54, 1448, 34, 16]);
    assertEquals(headerOf({ ...large, gsoType }, ALL.without(bit)), null);
    assertEquals(headerOf({ ...large, gsoType }, ALL.without(0)), null);
    assertEquals(headerOf({ ...large, gsoType, flags: 0 }, ALL), null, "a large packet must be unfinished");
  }
  assertEquals(headerOf({ ...large, gsoType: 0x81 }, ALL), [1, 0x81, 54, 1448, 34, 16]);
  assertEquals(headerOf({ ...large, gsoType: 0x81 }, ALL.without(13)), null);
  assertEquals(headerOf({ ...large, gsoType: 7 }, ALL), null);
});

Deno.test("echoHeader() finds the TCP header of a coalesced packet, whose fields count segments", () => {
  const coalesced = { flags: 5, hdrLen: 54, gsoSize: 1448, csumStart: 9, csumOffset: 0 };
  const [v4, v6] = [tcp({ payload: 900 }), tcp({ source: "fd00::1", payload: 900 })];
  assertEquals(headerOf({ ...coalesced, gsoType: 1, bytes: v4 }, ALL), [1, 1, 54, 1448, 34, 16]);
  assertEquals(headerOf({ ...coalesced, gsoType: 4, bytes: v6 }, ALL), [1, 4, 54, 1448, 54, 16]);
  const tagged = tcp({ payload: 900, vlans: [{ id: 5 }] });
  assertEquals(headerOf({ ...coalesced, gsoType: 1, bytes: tagged }, ALL), [1, 1, 54, 1448, 38, 16]);
  assertEquals(headerOf({ ...coalesced, gsoType: 1, bytes: v4.subarray(0, 14) }, ALL), null);
  assertEquals(headerOf({ ...coalesced, gsoType: 4, bytes: v6.subarray(0, 71) }, ALL), null);
});

Deno.test("swapMacs() exchanges the addresses and nothing else", () => {
  const frame = Uint8Array.of(1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16, 8, 0, 99);
  swapMacs(frame);
  assertEquals([...frame], [11, 12, 13, 14, 15, 16, 1, 2, 3, 4, 5, 6, 8, 0, 99]);
  const short = Uint8Array.of(1, 2, 3);
  swapMacs(short);
  assertEquals([...short], [1, 2, 3]);
});

Deno.test("NetGuest that echoes returns packets with the addresses exchanged, and keeps what it has told", () => {
  for (const reuse of [false, true]) {
    const kept: Uint8Array[] = [];
    const rig = makeRig({ behaviour: "echo", queuePairs: 2, reuse }, new FakeNetDevice(OFFERED, 64, 2), {
      onPacket: (packet) => kept.push(reuse ? packet.bytes.slice() : packet.bytes),
    });
    rig.guest.attach(rig.device);
    const frame = frameOf(200, 3);
    const back = frame.slice();
    swapMacs(back);
    for (let i = 0; i < 100; i++) rig.device.deliver(frame, new Uint8Array(20), i % 2);
    rig.run();
    assertEquals(rig.device.sent.length, 100);
    assert(rig.device.sent.every((sent) => sent.bytes.every((byte, at) => byte === back[at])));
    assertEquals(rig.device.sent.filter((sent) => sent.queue === 1).length, 50);
    assert(kept.every((bytes) => bytes.every((byte, at) => byte === frame[at])));
    const { received, echoed, echoDropped, echoRefused, sent, transmitted } = rig.guest.counters;
    assertEquals([received, echoed, sent, transmitted, echoDropped, echoRefused], [100, 100, 100, 100, 0, 0]);
  }
});

Deno.test("NetGuest that echoes counts what it cannot return", () => {
  const rig = makeRig({ behaviour: "echo", accept: ["GUEST_CSUM", "GUEST_TSO4"], queueSize: 16 });
  rig.guest.attach(rig.device);
  rig.device.deliver(frameOf(200, 1), Uint8Array.of(1, 1, 54, 0, 100, 0, 34, 0, 16, 0, 0, 0));
  rig.run();
  assertEquals([rig.guest.counters.echoRefused, rig.guest.counters.echoed], [1, 0]);
  rig.device.pausesTransmit = true;
  for (let i = 0; i < 20; i++) rig.device.deliver(frameOf(200, 1));
  rig.run();
  assertEquals([rig.guest.counters.echoed, rig.guest.counters.echoDropped], [16, 4]);
  const small = makeRig({
    behaviour: "echo",
    queueSize: 4,
    transmitBufferBytes: 64,
    receiveBufferBytes: 2048,
  });
  small.guest.attach(small.device);
  small.device.deliver(frameOf(1000, 1));
  small.run();
  assertEquals([small.guest.counters.echoRefused, small.guest.counters.malformed], [1, 0]);
});

Deno.test("FrameMaker numbers its frames and spaces them in time", () => {
  const maker = new FrameMaker(
    { count: 3, frameBytes: 60, intervalUs: 250, destination: "0a:0b:0c:0d:0e:0f" },
    Uint8Array.of(2, 0, 0, 0, 0, 1),
  );
  assertEquals(maker.deadlineNs, 0);
  const due = [];
  for (let nowNs = 1_000_000; nowNs < 3_000_000; nowNs += 50_000) {
    const frame = maker.due(nowNs);
    if (frame === null) continue;
    assertEquals(maker.due(nowNs), frame, "the same until it is sent");
    due.push([nowNs, frame[17], frame[18], frame[59]]);
    maker.sent();
  }
  assertEquals(due, [[1_000_000, 1, 19, 60], [1_250_000, 2, 20, 61], [1_500_000, 3, 21, 62]]);
  assert(maker.finished);
  assertEquals(maker.deadlineNs, Infinity);
});

Deno.test("NetGuest that sends is as fast as told, and waits for a full ring", () => {
  const rig = makeRig({ behaviour: { send: { count: 5, intervalUs: 100, frameBytes: 100 } } });
  rig.guest.attach(rig.device);
  assertEquals(rig.guest.deadlineNs(), 0);
  rig.run(5000);
  assertEquals(rig.device.sent.length, 1);
  assertEquals(rig.guest.deadlineNs(), 105_000);
  rig.run(104_999);
  assertEquals(rig.device.sent.length, 1);
  rig.run(305_000);
  assertEquals(rig.device.sent.length, 4);
  rig.run(1e9);
  assertEquals(rig.device.sent.length, 5);
  assertEquals(rig.guest.deadlineNs(), Infinity);
  assertEquals([...rig.device.sent[4].bytes.subarray(0, 18)], [
    ...[255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0, 0, 0x77],
    ...[0x88, 0xb5, 0, 0, 0, 5],
  ]);

  const flood = makeRig({ behaviour: { send: { count: 0, intervalUs: 0 } }, queueSize: 16 });
  flood.guest.attach(flood.device);
  flood.device.pausesTransmit = true;
  flood.run();
  assertEquals(flood.guest.counters.sent, 16);
  assertEquals(flood.guest.deadlineNs(), Infinity, "only an interrupt helps");
  flood.device.pausesTransmit = false;
  flood.device.wake();
  flood.guest.session.poll(0);
  flood.guest.poll(0);
  assertEquals(flood.guest.counters.sent, 32);
});
