/** Cases 1 to 14: merging by sequence number. */
import { testCase } from "./case.ts";
import { A, B, C, merged, packet, pureAck, stale } from "./packets.ts";

testCase(1, { arrive: [[0, A]] }, {
  QS: {
    says: "A leaves at 300000 as it came",
    out: [[300_000, "[0,0,-]", A]],
    Q: { received: 1, cache: 1, empty_cache: 1, timer: 1 },
    S: { received: 1, held: 1, packets_single: 1, drained_by_timer: 1 },
  },
});

testCase(2, { arrive: [[0, A], [1, B]] }, {
  Q: {
    says: "A, B leave at 300000 as one, both checksums stale",
    out: [[300_000, "[4,1,2]", stale(A, { payload: 200 })]],
    counters: { received: 2, coalesced: 1, cache: 1 },
  },
  S: {
    says: "A, B leave at 300000 as one, with gso_size and right checksums",
    out: [[300_000, "[5,1,2]", merged({ payload: 200 }), { gsoSize: 100 }]],
    counters: { received: 2, held: 1, merged: 1, packets_coalesced: 1, segments_coalesced: 2 },
  },
});

const latest = { payload: 300, ack: 9, window: 700, flags: ["ACK", "PSH"] } as const;
testCase(3, {
  arrive: [
    [0, A],
    [1, packet({ seq: 1100, ack: 5, window: 600 })],
    [2, packet({ seq: 1200, ack: 9, window: 700, flags: ["ACK", "PSH"] })],
  ],
}, {
  Q: {
    says: "the packet takes over ack, window and PSH of the latest",
    out: [[300_000, "[4,1,3]", stale(A, latest)]],
  },
  S: {
    says: "the packet takes over ack, window and PSH of the latest",
    out: [[300_000, "[5,1,3]", merged(latest), { gsoSize: 100 }]],
  },
});

const pushed = packet({ seq: 1100, flags: ["ACK", "PSH"] });
testCase(4, { arrive: [[0, A], [1, pushed], [2, C]] }, {
  Q: {
    says: "PSH of a segment in the middle is lost",
    out: [[300_000, "[4,1,3]", stale(A, { payload: 300 })]],
  },
  S: {
    says: "PSH of a segment in the middle stays",
    out: [[300_000, "[5,1,3]", merged({ payload: 300, flags: ["ACK", "PSH"] }), { gsoSize: 100 }]],
  },
});

testCase(5, { arrive: [[0, A], [1, pushed]] }, {
  Q: {
    says: "PSH does not flush the flow",
    out: [[300_000, "[4,1,2]", stale(A, { payload: 200, flags: ["ACK", "PSH"] })]],
  },
  S: {
    says: "PSH does not flush the flow",
    out: [[300_000, "[5,1,2]", merged({ payload: 200, flags: ["ACK", "PSH"] }), { gsoSize: 100 }]],
  },
});

testCase(5, { arrive: [[0, A], [1, pushed], [2, C]], options: { flushOnIdle: true } }, {
  S: {
    says: "with flushOnIdle PSH flushes the flow when the network has no more; without PSH it waits",
    out: [
      [1, "[5,1,2]", merged({ payload: 200, flags: ["ACK", "PSH"] }), { gsoSize: 100 }],
      [300_002, "[0,0,-]", C],
    ],
    counters: { drained_by_idle: 1 },
  },
});

const others = packet({ sourcePort: 9, flags: ["ACK", "PSH"] });
const otherAck = pureAck({ sourcePort: 8 });
testCase(5, {
  arrive: [[0, A], [10, others], [10, otherAck], [20, pushed]],
  options: { flushOnIdle: true },
}, {
  S: {
    says: "with flushOnIdle finished flows leave, a pure ACK among them, and others stay and go on merging",
    out: [
      [10, "[0,0,-]", others],
      [10, "[0,0,-]", otherAck],
      [20, "[5,1,2]", merged({ payload: 200, flags: ["ACK", "PSH"] }), { gsoSize: 100 }],
    ],
    counters: { drained_by_idle: 3 },
  },
});

testCase(5, { arrive: [[0, A], [1, pushed], [2, C]], options: { flushOnPush: true } }, {
  S: {
    says: "PSH flushes the flow at once with flushOnPush",
    out: [
      [1, "[5,1,2]", merged({ payload: 200, flags: ["ACK", "PSH"] }), { gsoSize: 100 }],
      [300_002, "[0,0,-]", C],
    ],
    counters: { drained_by_push: 1 },
  },
});

const gap = packet({ seq: 1101 });
testCase(6, { arrive: [[0, A], [1, gap]] }, {
  QS: {
    says: "a gap of one byte lets both go, unmerged",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", gap]],
    Q: { data_out_of_order: 1 },
    S: { out_of_order: 1 },
  },
});

testCase(7, { arrive: [[0, B], [1, A]] }, {
  QS: {
    says: "no merging backwards",
    out: [[1, "[0,0,-]", B], [1, "[0,0,-]", A]],
    Q: { data_out_of_win: 1 },
    S: { out_of_order: 1 },
  },
});

const overlap = packet({ seq: 1050 });
testCase(8, { arrive: [[0, A], [1, overlap]] }, {
  QS: {
    says: "an overlap lets both go",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", overlap]],
    Q: { data_out_of_order: 1 },
    S: { out_of_order: 1 },
  },
});

testCase(9, { arrive: [[0, A], [1, A]] }, {
  QS: {
    says: "a retransmission lets both go",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", A]],
    Q: { dup_ack: 1 },
    S: { out_of_order: 1 },
  },
});

const beforeWrap = packet({ seq: 0xffffffc0 });
const wrapped = { seq: 0xffffffc0, payload: 200 };
testCase(10, { arrive: [[0, beforeWrap], [1, packet({ seq: 0x24 })]] }, {
  Q: {
    says: "sequence numbers wrap",
    out: [[300_000, "[4,1,2]", stale(beforeWrap, wrapped)]],
  },
  S: { says: "sequence numbers wrap", out: [[300_000, "[5,1,2]", merged(wrapped), { gsoSize: 100 }]] },
});

const nearWindow = packet({ seq: 1000 + 65_535 });
testCase(11, { arrive: [[0, A], [1, nearWindow]] }, {
  QS: {
    says: "65535 ahead is out of order",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", nearWindow]],
    Q: { data_out_of_order: 1 },
    S: { out_of_order: 1 },
  },
});

const beyondWindow = packet({ seq: 1000 + 65_536 });
testCase(11, { arrive: [[0, A], [1, beyondWindow]] }, {
  QS: {
    says: "65536 ahead is out of the window",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", beyondWindow]],
    Q: { data_out_of_win: 1 },
    S: { out_of_order: 1 },
  },
});

const older = packet({ seq: 900 });
testCase(12, { arrive: [[0, A], [1, older], [2, B], [3, C]] }, {
  Q: {
    says: "an older segment flushes A, and B, C are merged",
    out: [
      [1, "[0,0,-]", A],
      [1, "[0,0,-]", older],
      [300_002, "[4,1,2]", stale(B, { seq: 1100, payload: 200 })],
    ],
    counters: { data_out_of_win: 1 },
  },
  S: {
    says: "an older segment flushes A, and B, C are merged",
    out: [
      [1, "[0,0,-]", A],
      [1, "[0,0,-]", older],
      [300_002, "[5,1,2]", merged({ seq: 1100, payload: 200 }), { gsoSize: 100 }],
    ],
    counters: { out_of_order: 1 },
  },
});

const probed = [[0, A], [1, packet({ seq: 1100, payload: 1 })], [2, packet({ seq: 1101 })]] as const;
testCase(13, { arrive: probed }, {
  Q: {
    says: "a one-byte segment merges",
    out: [[300_000, "[4,1,3]", stale(A, { payload: 201 })]],
  },
  S: {
    says: "a one-byte segment merges",
    out: [[300_000, "[5,1,3]", merged({ payload: 201 }), { gsoSize: 100 }]],
  },
});

const keepAlive = pureAck({ seq: 999 });
testCase(14, { arrive: [[0, A], [1, keepAlive]] }, {
  QS: {
    says: "a keep-alive probe flushes A and passes",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", keepAlive]],
    Q: { data_out_of_win: 1 },
    S: { out_of_order: 1 },
  },
});
