import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { FeatureSet } from "../../../core/features.ts";
import {
  decodeHeader,
  decodeMessage,
  encodeBackendRequest,
  encodeBitsReply,
  encodeConfigReply,
  encodeNumberReply,
  encodeRingReply,
} from "../../../transports/vhost_user/messages.ts";
import {
  BackendRequest,
  FLAG_NEED_REPLY,
  HEADER_BYTES,
  type Message,
  ProtocolError,
  ProtocolFeature,
  protocolFeatureName,
  Request,
  requestName,
} from "../../../transports/vhost_user/messages.ts";
import { concat, message, pair, region, table, u64, words } from "../../../rigs/vhost_user/payload.ts";

function decode(bytes: Uint8Array, descriptors = 0): Message {
  const header = decodeHeader(bytes);
  return decodeMessage(header, bytes.subarray(HEADER_BYTES, HEADER_BYTES + header.sizeBytes), descriptors);
}

function refusal(bytes: Uint8Array, descriptors = 0): ProtocolError {
  return assertThrows(() => decode(bytes, descriptors), ProtocolError);
}

Deno.test("decodeMessage() reads every kind of payload", () => {
  const { payload, needReply, name } = decode(
    message(Request.SET_FEATURES, u64(1n << 61n | 5n), FLAG_NEED_REPLY),
  );
  assertEquals([name, needReply], ["SET_FEATURES", true]);
  assert(payload.kind === "bits" && payload.bits.equals(FeatureSet.of(0, 2, 61)));
  assertEquals(decode(message(Request.GET_FEATURES)).payload, { kind: "none" });
  assertEquals(decode(message(Request.SET_VRING_NUM, pair(3, 256))).payload, {
    kind: "ring",
    index: 3,
    num: 256,
  });
  assertEquals(decode(message(Request.SET_VRING_KICK, u64(0x102))).payload, {
    kind: "ringEvent",
    index: 2,
    hasDescriptor: false,
  });
  assertEquals(decode(message(Request.SET_VRING_CALL, u64(2)), 1).payload, {
    kind: "ringEvent",
    index: 2,
    hasDescriptor: true,
  });
  const place = concat(
    words(1, 1),
    u64(0x7f0000001000n),
    u64(0x7f0000002000n),
    u64(0x7f0000003000n),
    u64(0x5000),
  );
  assertEquals(decode(message(Request.SET_VRING_ADDR, place)).payload, {
    kind: "ringAddress",
    index: 1,
    flags: 1,
    descriptors: 0x7f0000001000,
    used: 0x7f0000002000,
    available: 0x7f0000003000,
    log: 0x5000,
  });
  const one = { guestAddress: 0x1000, size: 0x2000, userAddress: 0x7f0000000000, mapOffset: 0x3000 };
  assertEquals(decode(message(Request.SET_MEM_TABLE, table(region(one), region(one))), 2).payload, {
    kind: "regions",
    regions: [one, one],
  });
  assertEquals(decode(message(Request.ADD_MEM_REG, concat(u64(0), region(one))), 1).payload, {
    kind: "region",
    region: one,
  });
  assertEquals(decode(message(Request.SET_LOG_BASE, concat(u64(4096), u64(64))), 1).payload, {
    kind: "log",
    sizeBytes: 4096,
    offsetBytes: 64,
  });
  assertEquals(decode(message(Request.SET_CONFIG, concat(words(6, 2, 1), Uint8Array.of(7, 8)))).payload, {
    kind: "config",
    offset: 6,
    size: 2,
    flags: 1,
    bytes: Uint8Array.of(7, 8),
  });
  assertEquals(decode(message(Request.SET_DEVICE_STATE_FD, pair(1, 0)), 1).payload, {
    kind: "transfer",
    direction: 1,
    phase: 0,
  });
});

Deno.test("decodeMessage() leaves the log address alone unless the flag asks for it", () => {
  const place = concat(words(0, 0), u64(0), u64(0), u64(0), u64(0xffff_ffff_ffff_ffffn));
  const { payload } = decode(message(Request.SET_VRING_ADDR, place));
  assert(payload.kind === "ringAddress");
  assertEquals(payload.log, null);
});

Deno.test("decodeMessage() takes a table with room for eight regions, of which some are used", () => {
  const padded = concat(table(region()), new Uint8Array(7 * 32));
  const { payload } = decode(message(Request.SET_MEM_TABLE, padded), 1);
  assert(payload.kind === "regions");
  assertEquals(payload.regions.length, 1);
});

Deno.test("decodeHeader() refuses another version and a payload that is too long, fatally", () => {
  const version = message(Request.GET_FEATURES);
  version[4] = 2;
  for (const [bytes, fault] of [[version, "header-invalid"], [withSize(4097), "payload-too-long"]] as const) {
    const error = refusal(bytes);
    assertEquals([error.fault, error.fatal], [fault, true]);
  }
  assertEquals(refusal(withSize(0xffff_ffff)).fault, "payload-too-long");
});

Deno.test("decodeMessage() refuses payloads of any other length, and goes on", () => {
  const sizes: [number, number[]][] = [
    [Request.SET_FEATURES, [0, 4, 7, 9, 16]],
    [Request.SET_VRING_NUM, [0, 4, 9]],
    [Request.SET_VRING_ADDR, [0, 39, 41]],
    [Request.SET_VRING_KICK, [0, 4]],
    [Request.SET_MEM_TABLE, [0, 4, 7]],
    [Request.SET_LOG_BASE, [0, 12, 24]],
    [Request.SET_CONFIG, [0, 11, 13]],
  ];
  for (const [id, lengths] of sizes) {
    for (const length of lengths) {
      const error = refusal(message(id, new Uint8Array(length)));
      assertEquals(
        [error.fault, error.fatal],
        ["payload-size-invalid", false],
        `${requestName(id)}, ${length}`,
      );
    }
  }
  assertEquals(refusal(message(Request.SET_MEM_TABLE, words(1, 0)), 1).fault, "payload-size-invalid");
});

Deno.test("decodeMessage() refuses more regions than fit, whatever the count says", () => {
  for (const count of [9, 0x10000, 0xffff_ffff]) {
    assertEquals(refusal(message(Request.SET_MEM_TABLE, words(count, 0))).fault, "memory-table-invalid");
  }
});

Deno.test("decodeMessage() refuses addresses from 2^53 on", () => {
  const high = table(concat(u64(1n << 53n), u64(4096), u64(0), u64(0)));
  assertEquals(refusal(message(Request.SET_MEM_TABLE, high), 1).fault, "address-too-large");
  const highest = table(concat(u64((1n << 53n) - 1n), u64(1), u64(0), u64(0)));
  const { payload } = decode(message(Request.SET_MEM_TABLE, highest), 1);
  assert(payload.kind === "regions");
  assertEquals(payload.regions[0].guestAddress, Number.MAX_SAFE_INTEGER);
});

Deno.test("decodeMessage() refuses a wrong number of descriptors", () => {
  const cases: [number, Uint8Array, number][] = [
    [Request.GET_FEATURES, u64(0), 1],
    [Request.SET_MEM_TABLE, table(region(), region()), 1],
    [Request.SET_MEM_TABLE, table(region()), 2],
    [Request.ADD_MEM_REG, concat(u64(0), region()), 0],
    [Request.SET_VRING_KICK, u64(0), 0],
    [Request.SET_VRING_KICK, u64(0x100), 1],
    [Request.SET_BACKEND_REQ_FD, new Uint8Array(0), 0],
    [Request.SET_DEVICE_STATE_FD, pair(0, 0), 2],
  ];
  for (const [id, payload, count] of cases) {
    assertEquals(refusal(message(id, payload), count).fault, "descriptors-invalid", requestName(id));
  }
});

Deno.test("decodeMessage() refuses configuration space beyond its 256 bytes, also where numbers wrap", () => {
  for (const [offset, size] of [[0, 257], [256, 1], [0xffff_ffff, 2], [2, 0xffff_ffff]]) {
    assertEquals(refusal(message(Request.GET_CONFIG, words(offset, size, 0))).fault, "value-invalid");
  }
});

Deno.test("decodeMessage() names unknown requests and those of features that are never offered", () => {
  assertEquals(
    refusal(message(77)).message,
    "message-unknown: Request 77 (message 77) is not one that this device serves",
  );
  const error = refusal(message(26, new Uint8Array(24)));
  assertEquals([error.fault, error.fatal], ["message-unknown", false]);
  assertEquals(requestName(26), "CREATE_CRYPTO_SESSION");
});

Deno.test("replies carry version and reply flag, exactly", () => {
  const number = encodeNumberReply(Request.GET_QUEUE_NUM, 3);
  assertEquals([...number], [17, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
  const bits = encodeBitsReply(Request.GET_FEATURES, FeatureSet.of(0, 61));
  assertEquals([...bits.subarray(12)], [1, 0, 0, 0, 0, 0, 0, 0x20]);
  const base = encodeRingReply(Request.GET_VRING_BASE, 1, 0x8002_8002);
  assertEquals([...base.subarray(4)], [5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2, 0x80, 2, 0x80]);
  const config = encodeConfigReply(6, Uint8Array.of(1, 0));
  assertEquals([...config.subarray(8)], [14, 0, 0, 0, 6, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
});

Deno.test("requests of the back-end carry the version, and need_reply where it is wanted", () => {
  const change = encodeBackendRequest(BackendRequest.CONFIG_CHANGE_MSG, null, false);
  assertEquals([...change], [2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
  const call = encodeBackendRequest(BackendRequest.VRING_CALL, 5, true);
  assertEquals([...call], [4, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
});

Deno.test("protocol features have the numbers of the specification", () => {
  const names = Array.from({ length: 21 }, (_, bit) => protocolFeatureName(bit));
  assertEquals(names, [
    ...[
      "MQ",
      "LOG_SHMFD",
      "RARP",
      "REPLY_ACK",
      "MTU",
      "BACKEND_REQ",
      "CROSS_ENDIAN",
      "CRYPTO_SESSION",
      "PAGEFAULT",
    ],
    ...[
      "CONFIG",
      "BACKEND_SEND_FD",
      "HOST_NOTIFIER",
      "INFLIGHT_SHMFD",
      "RESET_DEVICE",
      "INBAND_NOTIFICATIONS",
    ],
    ...[
      "CONFIGURE_MEM_SLOTS",
      "STATUS",
      "XEN_MMAP",
      "SHARED_OBJECT",
      "DEVICE_STATE",
      "GET_VRING_BASE_INFLIGHT",
    ],
  ]);
  assertEquals(Object.keys(ProtocolFeature).length, 21);
});

Deno.test("decoding random bytes throws nothing but ProtocolError, and keeps no more than it was given", () => {
  const ids = fc.oneof(fc.integer({ min: 0, max: 50 }), fc.nat());
  fc.assert(
    fc.property(
      ids,
      fc.uint8Array({ maxLength: 300 }),
      fc.integer({ min: 0, max: 8 }),
      fc.integer({ min: 0, max: 15 }),
      (id, payload, descriptors, flags) => {
        const bytes = message(id, payload, flags & ~3);
        bytes[4] = flags;
        try {
          const { payload: decoded } = decode(bytes, descriptors);
          const kept = JSON.stringify(decoded).length;
          assert(kept < 8192, `${kept} characters were kept`);
        } catch (error) {
          assert(error instanceof ProtocolError, String(error));
        }
      },
    ),
    { numRuns: 3000 },
  );
});

Deno.test("decoding well-formed messages with random values throws nothing but ProtocolError", () => {
  const word = fc.oneof(fc.nat(), fc.constantFrom(0, 1, 0xff, 0x100, 0x8000, 0x7fff_ffff, 0xffff_ffff));
  const lengths = new Map([
    ...[2, 8, 10, 11, 12, 13, 14, 16, 18, 19, 20, 35, 39, 42].map((id): [number, number] => [id, 2]),
    ...([[9, 10], [5, 10], [37, 10], [38, 10], [6, 4], [24, 5], [25, 5]] as [number, number][]),
  ]);
  fc.assert(
    fc.property(
      fc.constantFrom(...lengths.keys()),
      fc.array(word, { minLength: 10, maxLength: 10 }),
      fc.integer({ min: 0, max: 2 }),
      (id, values, descriptors) => {
        try {
          decode(message(id, words(...values.slice(0, lengths.get(id)))), descriptors);
        } catch (error) {
          assert(error instanceof ProtocolError, String(error));
        }
      },
    ),
    { numRuns: 3000 },
  );
});

function withSize(size: number): Uint8Array {
  const bytes = message(Request.GET_FEATURES);
  new DataView(bytes.buffer).setUint32(8, size, true);
  return bytes;
}
