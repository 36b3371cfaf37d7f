/** Cases 63 to 69: IPv6. */
import { assertEquals } from "@std/assert";
import { parseTcp, type TcpFields } from "../../../testing/mod.ts";
import { testCase } from "./case.ts";
import { merged, packet6, pureAck, stale } from "./packets.ts";

const source = "fd00::1";
const A = packet6();
const B = packet6({ seq: 1100 });
const both = { source, payload: 200 };

testCase(63, { arrive: [[0, A], [1, B]], family: "v6" }, {
  Q: {
    says: "two in order leave as one, payload length 220",
    out: [[300_000, "[4,4,2]", stale(A, { ...both, ipLength: 220 })]],
    counters: { received: 2, coalesced: 1 },
  },
  S: {
    says: "two in order leave as one, payload length 220, with gso_size and partial checksum",
    out: [[300_000, "[5,4,2]", merged({ ...both, ipLength: 220 }), { gsoSize: 100, hdrLen: 74 }]],
    counters: { received: 2, merged: 1 },
  },
});

/** What the reference merges, losing the field, and strict rules do not. */
const lost: readonly (readonly [number, string, TcpFields])[] = [
  [64, "traffic class 2 (ECT(0))", { tos: 2 }],
  [64, "traffic class 3 (CE)", { tos: 3 }],
  [66, "traffic class 0x10", { tos: 0x10 }],
  [67, "another flow label", { flowLabel: 0x12345 }],
];
for (const [number, what, fields] of lost) {
  const changed = packet6({ seq: 1100, ...fields });
  testCase(number, { arrive: [[0, A], [1, changed]], family: "v6" }, {
    Q: { says: `B with ${what} merges, and it is lost`, out: [[300_000, "[4,4,2]", stale(A, both)]] },
    S: {
      says: `B with ${what} opens a packet of its own`,
      out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", changed]],
      counters: { traits_differ: 1 },
    },
  });
}

const dscp = packet6({ seq: 1100, tos: 4 });
testCase(65, { arrive: [[0, A], [1, dscp]], family: "v6" }, {
  Q: {
    says: "B with traffic class 4 overtakes A",
    out: [[1, "[0,0,-]", dscp], [300_000, "[0,0,-]", A]],
    counters: { ip_ecn: 1 },
  },
  S: {
    says: "B with traffic class 4 opens a packet of its own, in order",
    out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", dscp]],
    counters: { traits_differ: 1 },
  },
});

const hops = packet6({ seq: 1100, ttl: 3 });
testCase(66, { arrive: [[0, A], [1, hops]], family: "v6" }, {
  Q: { says: "the hop limit stays that of A", out: [[300_000, "[4,4,2]", stale(A, both)]] },
  S: {
    says: "the hop limit is the smallest",
    out: [[300_000, "[5,4,2]", merged({ ...both, ttl: 3 }), { gsoSize: 100 }]],
  },
});

const EXTENSION = { type: 0, bytes: new Uint8Array(8) };
const hopByHop = packet6({ seq: 1100, extension: EXTENSION });
const strangers = packet6({ source: "fd00::9" });
testCase(68, { arrive: [[0, A], [1, strangers], [2, hopByHop]], family: "v6" }, {
  Q: {
    says: "a hop-by-hop header overtakes A",
    out: [[2, "[0,0,-]", hopByHop], [300_000, "[0,0,-]", A], [300_000, "[0,0,-]", strangers]],
    counters: { bypass_not_tcp: 1 },
  },
  S: {
    says: "a hop-by-hop header lets all between its addresses go first, and no other",
    out: [[2, "[0,0,-]", A], [2, "[0,0,-]", hopByHop], [300_000, "[0,0,-]", strangers]],
    counters: { extension_header: 1 },
  },
});

for (const ipLength of [0, 19, 121]) {
  const hacked = packet6({ seq: 1100, ipLength });
  testCase(69, { arrive: [[0, A], [1, hacked]], family: "v6" }, {
    Q: {
      says: `payload length ${ipLength} of 120 overtakes A`,
      out: [[1, "[0,0,-]", hacked], [300_000, "[0,0,-]", A]],
      counters: { ip_hacked: 1 },
    },
    S: {
      says: `payload length ${ipLength} of 120 flushes A first and passes`,
      out: [[1, "[0,0,-]", A], [1, "[0,0,-]", hacked]],
      counters: { bad_length: 1 },
    },
  });
}

const version4 = packet6({ seq: 1100, ipVersion: 4 });
testCase(69, { arrive: [[0, A], [1, version4]], family: "v6" }, {
  QS: {
    says: "version 4 under the EtherType of IPv6 passes at once",
    out: [[1, "[0,0,-]", version4], [300_000, "[0,0,-]", A]],
    Q: { received: 2 },
    S: { received: 2, bad_version: 1 },
  },
});

const short = pureAck({ source, seq: 1100 }).slice(0, 73);
testCase(69, { arrive: [[0, A], [1, short]], family: "v6" }, {
  Q: {
    says: "73 bytes pass at once and are counted as received only",
    out: [[1, "[0,0,-]", short], [300_000, "[0,0,-]", A]],
    counters: { received: 2 },
  },
  S: {
    says: "73 bytes let A go first and pass",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", short]],
    counters: { received: 2, bad_length: 1 },
  },
});

Deno.test("case 63: the packets of these cases are IPv6", () => {
  const { version, source: from, payload } = parseTcp(A);
  assertEquals([version, from, payload.length], [6, source, 100]);
});
