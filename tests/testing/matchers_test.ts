import { assertEquals, AssertionError, assertThrows } from "@std/assert";
import {
  assertPoolWhole,
  assertTcp,
  FramePool,
  hasAck,
  hasFlags,
  hasIpLength,
  hasPartialChecksum,
  hasPayload,
  hasRightChecksums,
  hasSeq,
  hasWindow,
  streamBytes,
  tcp,
  type TcpMatcher,
} from "../../testing/mod.ts";

const frame = tcp({ seq: 7, ack: 8, window: 9, flags: ["ACK", "PSH"], payload: 30 });

Deno.test("assertTcp() is content where everything holds", () => {
  assertTcp(
    frame,
    hasSeq(7),
    hasAck(8),
    hasWindow(9),
    hasFlags("PSH", "ACK"),
    hasPayload(streamBytes(7, 30)),
    hasIpLength(70),
    hasRightChecksums(),
  );
  assertTcp(tcp({ checksum: "partial" }), hasPartialChecksum());
});

const ruined = streamBytes(7, 30);
ruined[29] ^= 1;
const WRONG: readonly (readonly [TcpMatcher, string, Uint8Array?])[] = [
  [hasSeq(8), "sequence number is 7, not 8"],
  [hasAck(9), "acknowledgment number is 8, not 9"],
  [hasWindow(1), "window is 9, not 1"],
  [hasFlags("ACK"), "flags is ACK PSH, not ACK"],
  [hasFlags("ACK", "PSH", "FIN"), "flags is ACK PSH, not ACK FIN PSH"],
  [hasPayload(streamBytes(7, 29)), "payload length is 30, not 29"],
  [hasPayload(ruined), `payload byte 29 is ${ruined[29] ^ 1}, not ${ruined[29]}`],
  [hasIpLength(71), "IP length is 70, not 71"],
  [hasPartialChecksum(), "is not the sum of the pseudo header"],
  [hasRightChecksums(), "the TCP checksum is wrong", tcp({ checksum: "wrong" })],
  [hasRightChecksums(), "the IP header checksum is wrong", tcp({ ipChecksum: "wrong" })],
  [
    hasPartialChecksum(),
    "the IP header checksum is wrong",
    tcp({ checksum: "partial", ipChecksum: "wrong" }),
  ],
];
for (const [matcher, message, other] of WRONG) {
  Deno.test(`assertTcp() says: ${message}`, () => {
    assertThrows(() => assertTcp(other ?? frame, matcher), AssertionError, message);
  });
}

Deno.test("assertTcp() names everything that is wrong at once", () => {
  const error = assertThrows(() => assertTcp(frame, hasSeq(1), hasAck(8), hasWindow(2)), AssertionError);
  assertEquals(error.message, "The packet is wrong: sequence number is 7, not 1; window is 9, not 2");
});

Deno.test("assertPoolWhole() takes a pool or whatever has one, and counts what is missing", () => {
  const pool = new FramePool();
  assertPoolWhole(pool);
  const held = pool.take(60)!;
  assertThrows(() => assertPoolWhole(pool), AssertionError, "1 frames are not back");
  assertThrows(() => assertPoolWhole({ pool }), AssertionError, "push on, hold or release");
  held.release();
  assertPoolWhole({ pool });
});
