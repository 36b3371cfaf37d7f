/** Cases 52 to 62: bytes behind the IP packet, and sizes. */
import { BENCH_FEATURES, tcp, TcpStream } from "../../../testing/mod.ts";
import { VIRTIO_NET_F_MRG_RXBUF } from "../../../wire/net_features.ts";
import { type Arrival, testCase } from "./case.ts";
import { A, B, join, merged, packet, packet6, patch16, pureAck, stale } from "./packets.ts";

const paddedK = pureAck({ padding: 6 });
testCase(52, { arrive: [[0, paddedK]] }, {
  Q: { says: "a padded pure ACK keeps its 60 bytes", out: [[300_000, "[0,0,-]", paddedK]] },
  S: { says: "what is held loses its padding", out: [[300_000, "[0,0,-]", pureAck()]] },
});

const dataA = A.subarray(54);
testCase(53, { arrive: [[0, paddedK], [1, A]] }, {
  Q: {
    says: "data behind a padded pure ACK begins with the padding",
    out: [[300_000, "[4,1,2]", patch16(join(paddedK, dataA), 16, 140)]],
    counters: { data_after_pure_ack: 1 },
  },
  S: { says: "data behind a padded pure ACK is clean", out: [[300_000, "[0,0,-]", A]] },
});

const paddedByte = tcp({ payload: 1, padding: 5 });
const next = packet({ seq: 1001 });
testCase(54, { arrive: [[0, paddedByte], [1, next]] }, {
  Q: {
    says: "data behind a padded byte has the padding in it",
    out: [[300_000, "[4,1,2]", patch16(join(paddedByte, next.subarray(54)), 16, 141)]],
    counters: { coalesced: 1 },
  },
  S: {
    says: "data behind a padded byte is clean",
    out: [[300_000, "[5,1,2]", merged({ payload: 101 }), { gsoSize: 100 }]],
  },
});

testCase(55, { arrive: [[0, A], [1, packet({ seq: 1100, padding: 6 })]] }, {
  Q: {
    says: "padding of B is not copied",
    out: [[300_000, "[4,1,2]", stale(A, { payload: 200 })]],
  },
  S: {
    says: "padding of B is not copied",
    out: [[300_000, "[5,1,2]", merged({ payload: 200 }), { gsoSize: 100 }]],
  },
});

const FULL = 1448;
for (const [number, source, gso] of [[56, "10.0.0.1", 1], [57, "fd00::1", 4]] as const) {
  const stream = new TcpStream({ source });
  const arrive: Arrival[] = Array.from({ length: 47 }, (_, i) => [i, stream.next(FULL)]);
  const tail = 1000 + 45 * FULL;
  testCase(number, { arrive, family: gso === 1 ? "v4" : "v6" }, {
    Q: {
      says: "45 full segments leave as one, the 46th alone, the 47th is held",
      out: [
        [45, `[4,${gso},45]`, stale(arrive[0][1], { source, payload: 45 * FULL })],
        [45, "[0,0,-]", arrive[45][1]],
        [300_046, "[0,0,-]", arrive[46][1]],
      ],
      counters: { over_size: 1, coalesced: 44 },
    },
    S: {
      says: "45 full segments leave as one, the 46th opens the next packet",
      out: [
        [45, `[5,${gso},45]`, merged({ source, payload: 45 * FULL }), { gsoSize: FULL }],
        [300_045, `[5,${gso},2]`, merged({ source, seq: tail, payload: 2 * FULL }), { gsoSize: FULL }],
      ],
      counters: { over_size: 1, merged: 45 },
    },
  });
}

const three: Arrival[] = [[0, A], [1, B], [2, packet({ seq: 1200 })]];
testCase(56, { arrive: three, options: { maxSegments: 2 } }, {
  S: {
    says: "with maxSegments 2 the third opens the next packet",
    out: [
      [2, "[5,1,2]", merged({ payload: 200 }), { gsoSize: 100 }],
      [300_002, "[0,0,-]", packet({ seq: 1200 })],
    ],
    counters: { max_segments: 1 },
  },
});

const half = packet({ payload: 32_000 });
const behindHalf = (payload: number) => packet({ seq: 33_000, payload });
testCase(58, { arrive: [[0, half], [1, behindHalf(33_475)]] }, {
  Q: {
    says: "IP length 65515 is merged",
    out: [[300_000, "[4,1,2]", stale(half, { payload: 65_475 })]],
  },
  S: {
    says: "IP length 65515 is merged",
    out: [[300_000, "[5,1,2]", merged({ payload: 65_475 }), { gsoSize: 33_475 }]],
  },
});

testCase(58, { arrive: [[0, half], [1, behindHalf(33_476)]] }, {
  Q: {
    says: "IP length 65516 is too large",
    out: [[1, "[0,0,-]", half], [1, "[0,0,-]", behindHalf(33_476)]],
    counters: { over_size: 1 },
  },
});

testCase(58, { arrive: [[0, half], [1, behindHalf(33_495)]] }, {
  S: {
    says: "IP length 65535 is merged",
    out: [[300_000, "[5,1,2]", merged({ payload: 65_495 }), { gsoSize: 33_495 }]],
  },
});

testCase(58, { arrive: [[0, half], [1, behindHalf(33_496)]] }, {
  S: {
    says: "IP length 65536 is too large, and the segment opens the next packet",
    out: [[1, "[0,0,-]", half], [300_001, "[0,0,-]", behindHalf(33_496)]],
    counters: { over_size: 1 },
  },
});

const half6 = packet6({ payload: 32_000 });
const behindHalf6 = (payload: number) => packet6({ seq: 33_000, payload });
testCase(59, { arrive: [[0, half6], [1, behindHalf6(33_515)]], family: "v6" }, {
  Q: {
    says: "payload length 65535 is merged, into a frame of 65589 bytes",
    out: [[300_000, "[4,4,2]", stale(half6, { source: "fd00::1", payload: 65_515 })]],
  },
  S: {
    says: "payload length 65535 is merged, into a frame of 65589 bytes",
    out: [[300_000, "[5,4,2]", merged({ source: "fd00::1", payload: 65_515 }), { gsoSize: 33_515 }]],
  },
});

testCase(59, { arrive: [[0, half6], [1, behindHalf6(33_516)]], family: "v6" }, {
  Q: {
    says: "payload length 65536 is too large",
    out: [[1, "[0,0,-]", half6], [1, "[0,0,-]", behindHalf6(33_516)]],
    counters: { over_size: 1 },
  },
  S: {
    says: "payload length 65536 is too large, and the segment opens the next packet",
    out: [[1, "[0,0,-]", half6], [300_001, "[0,0,-]", behindHalf6(33_516)]],
    counters: { over_size: 1 },
  },
});

const oneBuffer = BENCH_FEATURES.without(VIRTIO_NET_F_MRG_RXBUF);
testCase(59, { arrive: [[0, half6], [1, behindHalf6(33_476)]], family: "v6", features: oneBuffer }, {
  S: {
    says: "a frame of 65550 bytes fits into one buffer of a guest without MRG_RXBUF",
    out: [[300_000, "[5,4,2]", merged({ source: "fd00::1", payload: 65_476 }), { gsoSize: 33_476 }]],
  },
});

testCase(59, { arrive: [[0, half6], [1, behindHalf6(33_477)]], family: "v6", features: oneBuffer }, {
  S: {
    says: "a frame of 65551 bytes is too large for a guest without MRG_RXBUF",
    out: [[1, "[0,0,-]", half6], [300_001, "[0,0,-]", behindHalf6(33_477)]],
    counters: { over_size: 1 },
  },
});

const whole = packet({ payload: 65_495 });
const ackBehind = pureAck({ seq: 1000 + 65_495 });
testCase(60, { arrive: [[0, whole], [1, ackBehind]] }, {
  QS: {
    says: "a pure ACK behind IP length 65535 lets it go",
    out: [[1, "[0,0,-]", whole], [1, "[0,0,-]", ackBehind]],
    Q: { over_size: 1 },
    S: { duplicate_ack: 1 },
  },
});

const long = new TcpStream();
const longFirst = long.next(FULL, { padding: 1400 });
const longArrive: Arrival[] = [[0, longFirst]];
for (let i = 1; i < 47; i++) longArrive.push([i, long.next(FULL)]);
const longData = longArrive.slice(1, 44).map(([, frame]) => frame.subarray(54));
testCase(61, { arrive: longArrive }, {
  Q: {
    says: "1400 bytes of padding count against the capacity of a packet: 44 segments instead of 45",
    out: [
      [44, "[4,1,44]", patch16(join(longFirst, ...longData), 16, 40 + 44 * FULL)],
      [44, "[0,0,-]", longArrive[44][1]],
      [300_045, "[4,1,2]", stale(longArrive[45][1], { seq: 1000 + 45 * FULL, payload: 2 * FULL })],
    ],
    counters: { over_size: 1 },
  },
  S: {
    says: "1400 bytes of padding are trimmed: 45 segments",
    out: [
      [45, "[5,1,45]", merged({ payload: 45 * FULL }), { gsoSize: FULL }],
      [300_045, "[5,1,2]", merged({ seq: 1000 + 45 * FULL, payload: 2 * FULL }), { gsoSize: FULL }],
    ],
    counters: { over_size: 1 },
  },
});

const huge = packet({ seq: 1100, padding: 65_546 });
testCase(62, { arrive: [[0, huge]], pipelineOnly: "the software guest takes no packet above 65589 bytes" }, {
  QS: {
    says: "a frame of 65700 bytes with IP length 140 passes at once",
    out: [[0, "[0,0,-]", huge]],
    Q: { received: 1, cache: 0 },
    S: { received: 1, already_large: 1 },
  },
});

const overread = pureAck({ ipHeaderWords: 15 });
testCase(62, { arrive: [[0, A], [1, overread], [2, B]] }, {
  Q: {
    says: "IHL 15 in a frame of 54 bytes passes, and nothing behind the frame is read",
    out: [[1, "[0,0,-]", overread], [300_000, "[4,1,2]", stale(A, { payload: 200 })]],
    counters: { ip_option: 1 },
  },
  S: {
    says: "IHL 15 in a frame of 54 bytes lets all between its addresses go and passes",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", overread], [300_002, "[0,0,-]", B]],
    counters: { ip_options: 1 },
  },
});
