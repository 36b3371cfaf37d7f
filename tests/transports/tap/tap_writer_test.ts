import { assert, assertEquals } from "@std/assert";
import { FrameBatch, MAX_FRAME_BYTES } from "../../../pipeline/frame.ts";
import { bothWays, NO_FACTS, pattern, Rig } from "./support/rig.ts";

bothWays("send() writes frames with their facts, and none that the kernel must not see", () => {
  using rig = new Rig();
  const large = { flags: 1, gsoType: 1, hdrLen: 54, gsoSize: 1448, csumStart: 34, csumOffset: 16 };
  const count = rig.send(
    rig.frame(pattern(60)),
    rig.frame(pattern(4000, 2), large),
    // Valid, and coalesced of 7: the two last fields are no places.
    rig.frame(pattern(100, 3), { flags: 6, csumStart: 7, csumOffset: 1 }),
    rig.frame(pattern(80, 4), { hdrLen: 81 }),
  );
  assertEquals(count, 4);
  assertEquals(rig.taken(), { facts: NO_FACTS, bytes: pattern(60) });
  assertEquals(rig.taken(), { facts: large, bytes: pattern(4000, 2) });
  assertEquals(rig.taken(), { facts: NO_FACTS, bytes: pattern(100, 3) });
  assertEquals(rig.taken(), { facts: NO_FACTS, bytes: pattern(80, 4) });
  assertEquals(rig.taken(), null);
  assertEquals([rig.counters.written, rig.counters.writtenBytes], [4, 60 + 4000 + 100 + 80]);
});

bothWays("send() writes all pieces of a frame at once, however many", () => {
  using rig = new Rig();
  for (const count of [2, 128, 129, 300, 1500]) {
    const whole = rig.frame(pattern(40));
    for (let i = 1; i < count; i++) whole.append(rig.frame(pattern(40, i * 40 + 1)));
    Object.assign(whole.header, { flags: 1, hdrLen: 40 });
    assertEquals(rig.send(whole), 1);
    const { facts, bytes } = rig.taken()!;
    assertEquals(bytes, pattern(40 * count), `${count} pieces`);
    assertEquals([facts.flags, facts.hdrLen], [1, 40]);
    assertEquals(rig.taken(), null);
  }
});

bothWays("send() writes a frame whose headroom others have used up", () => {
  using rig = new Rig();
  const frame = rig.frame(pattern(100));
  const before = frame.start - frame.slot;
  frame.bytes.copyWithin(frame.slot + 11, frame.start, frame.start + 100);
  frame.start = frame.slot + 11;
  const neighbour = frame.bytes.slice(0, frame.slot);
  assert(before > 11, "there was no headroom from the start");
  assertEquals(rig.send(frame), 1);
  assertEquals(rig.taken(), { facts: NO_FACTS, bytes: pattern(100) });
  assertEquals(frame.bytes.slice(0, frame.slot), neighbour);
});

bothWays("send() without headers drops what the kernel would have to finish", () => {
  using rig = new Rig({ headerBytes: 0 });
  const count = rig.send(
    rig.frame(pattern(60), { flags: 1, csumStart: 34, csumOffset: 16 }),
    rig.frame(pattern(61, 2), { gsoType: 1, gsoSize: 10 }),
    rig.frame(pattern(62, 3), { flags: 2 }),
  );
  assertEquals(count, 3);
  assertEquals(rig.taken(), { facts: NO_FACTS, bytes: pattern(62, 3) });
  assertEquals(rig.taken(), null);
  assertEquals([rig.counters.unfinished, rig.counters.written], [2, 1]);
});

bothWays("send() leaves frames with the caller while there is no room, and loses none", () => {
  using rig = new Rig({ sendBufferBytes: 8192 });
  const batch = new FrameBatch();
  for (let i = 0; i < 40; i++) batch.push(rig.frame(pattern(1000, i)));
  let got = 0;
  let refused = 0;
  while (batch.length > 0) {
    const taken = rig.transport.send(batch, 0, 0);
    assertEquals(rig.pool.inUse, batch.length - taken, "frames not taken were released");
    batch.dropFirst(taken);
    if (batch.length > 0) refused++;
    for (let frame = rig.taken(); frame !== null; frame = rig.taken()) {
      assertEquals(frame.bytes, pattern(1000, got++));
    }
  }
  assertEquals(got, 40);
  assert(refused > 0, "there was always room");
  assertEquals(rig.counters.again, refused);
});

bothWays("send() takes 128 frames at once at most", () => {
  using rig = new Rig({ sendBufferBytes: 1_000_000 });
  const batch = new FrameBatch();
  let got = 0;
  for (let i = 0; i < 140; i++) batch.push(rig.frame(pattern(20, i)));
  for (let rounds = 0; batch.length > 0 && rounds < 100; rounds++) {
    const taken = rig.transport.send(batch, 0, 0);
    assert(taken <= 128);
    batch.dropFirst(taken);
    while (rig.taken() !== null) got++;
  }
  assertEquals(got, 140);
});

bothWays("send() drops a frame that the kernel refuses, counted by the error's name, and goes on", () => {
  using rig = new Rig();
  rig.kernel[Symbol.dispose]();
  assertEquals(rig.send(rig.frame(pattern(60)), rig.frame(pattern(60))), 2);
  assertEquals(rig.counters.written, 0);
  const errors = Object.entries(rig.counters).filter(([name]) => name.startsWith("write_"));
  assertEquals(errors.reduce((sum, [, count]) => sum + count, 0), 2, JSON.stringify(errors));
});

bothWays("send() goes on behind a frame that the kernel refuses, in order", () => {
  // A datagram that is longer than the send buffer is refused; TAPs refuse headers.
  using rig = new Rig({ sendBufferBytes: 20_000 });
  const lengths = [60, 61, 60_000, 62, 60_000, 60_000, 63];
  assertEquals(rig.send(...lengths.map((length) => rig.frame(pattern(length)))), lengths.length);
  for (const length of [60, 61, 62, 63]) assertEquals(rig.taken()?.bytes, pattern(length));
  assertEquals(rig.taken(), null);
  assertEquals([rig.counters.written, rig.counters.write_EMSGSIZE, rig.counters.again], [4, 3, 0]);
});

bothWays("send() and receive() keep the order over many bursts of all sizes", () => {
  using rig = new Rig({ sendBufferBytes: 4_000_000 });
  let sent = 0;
  let got = 0;
  for (let burst = 1; burst <= 100; burst++) {
    const first = sent;
    const frames = Array.from({ length: burst }, () => rig.frame(pattern(60, sent++)));
    let taken = 0;
    while (taken < burst) {
      // The kernel has room for ten datagrams or so.
      taken += rig.send(...frames.slice(taken, taken + 8));
      for (let at = rig.taken(); at !== null; at = rig.taken()) assertEquals(at.bytes, pattern(60, got++));
    }
    for (let i = 0; i < Math.min(burst, 8); i++) rig.arrive(pattern(60, first + i));
    const received = rig.receive();
    assertEquals(
      received.map((frame) => frame.toBytes()),
      Array.from({ length: Math.min(burst, 8) }, (_, i) => pattern(60, first + i)),
    );
    for (const frame of received) frame.release();
  }
  assertEquals(got, sent);
});

bothWays("send() drops and counts what is longer than a frame can be", () => {
  using rig = new Rig();
  const frame = rig.frame(new Uint8Array(60_000));
  frame.append(rig.frame(new Uint8Array(MAX_FRAME_BYTES - 60_000 + 1)));
  assertEquals(rig.send(frame), 1);
  assertEquals([rig.counters.tooLong, rig.taken()], [1, null]);
});
