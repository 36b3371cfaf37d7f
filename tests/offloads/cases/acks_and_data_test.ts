/** Cases 23 to 31: acknowledgments and data. */
import { testCase } from "./case.ts";
import { A, B, K, merged, packet, pureAck, stale } from "./packets.ts";

const wider = pureAck({ window: 501 });

testCase(23, { arrive: [[0, K], [1, A]] }, {
  Q: {
    says: "data behind a pure ACK merges as two segments",
    out: [[300_000, "[4,1,2]", stale(K, { payload: 100 })]],
    counters: { data_after_pure_ack: 1, coalesced: 1 },
  },
  S: {
    says: "data behind a pure ACK merges, and one data segment is an ordinary packet",
    out: [[300_000, "[0,0,-]", A]],
    counters: { merged: 1, packets_single: 1, packets_coalesced: 0 },
  },
});

const K100 = pureAck({ ack: 100 });
const A50 = packet({ ack: 50 });
testCase(24, { arrive: [[0, K100], [1, A50]] }, {
  Q: {
    says: "K(ack 100), then A(ack 50) are merged, ack 50",
    out: [[300_000, "[4,1,2]", stale(K100, { ack: 50, payload: 100 })]],
    counters: { data_after_pure_ack: 1 },
  },
  S: {
    says: "K(ack 100), then A(ack 50) both leave alone",
    out: [[1, "[0,0,-]", K100], [1, "[0,0,-]", A50]],
    counters: { ack_older: 1 },
  },
});

const K7 = pureAck({ seq: 1100, ack: 7 });
testCase(25, { arrive: [[0, A], [1, K7]] }, {
  Q: {
    says: "a pure ACK behind data is swallowed and counted as a segment",
    out: [[300_000, "[4,1,2]", stale(A, { ack: 7, payload: 100 })]],
    counters: { coalesced: 1 },
  },
  S: {
    says: "a pure ACK behind data flushes A and passes",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", K7]],
    counters: { pure_ack: 1 },
  },
});

const D = pureAck({ seq: 1100 });
testCase(26, { arrive: [[0, A], [1, D], [2, D], [3, D]] }, {
  Q: {
    says: "three duplicate ACKs behind data vanish",
    out: [[300_000, "[4,1,4]", stale(A, { payload: 100 })]],
    counters: { coalesced: 3 },
  },
  S: {
    says: "three duplicate ACKs behind data are all delivered, each by itself and at once",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", D], [2, "[0,0,-]", D], [3, "[0,0,-]", D]],
    counters: { duplicate_ack: 3, held: 1 },
  },
});

const longer = packet({ payload: 200, window: 900 });
testCase(27, { arrive: [[0, A], [1, longer]] }, {
  Q: {
    says: "a longer retransmission gives its window and loses its data",
    out: [[300_000, "[4,1,1]", stale(A, { payload: 100, window: 900 })]],
    counters: { win_update: 1 },
  },
  S: {
    says: "a longer retransmission flushes A and passes whole",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", longer]],
    counters: { out_of_order: 1 },
  },
});

testCase(28, { arrive: [[0, A], [1, A50]] }, {
  QS: {
    says: "a retransmission with a newer ACK lets both go",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", A50]],
    Q: { pure_ack: 1 },
    S: { out_of_order: 1 },
  },
});

const A100 = packet({ ack: 100 });
testCase(28, { arrive: [[0, A100], [1, A50]] }, {
  QS: {
    says: "a retransmission with an older ACK lets both go",
    out: [[1, "[0,0,-]", A100], [1, "[0,0,-]", A50]],
    Q: { ack_out_of_win: 1 },
    S: { out_of_order: 1 },
  },
});

const B50 = packet({ seq: 1100, ack: 50 });
testCase(29, { arrive: [[0, A100], [1, B50]] }, {
  Q: {
    says: "the acknowledgment of merged data goes back to 50",
    out: [[300_000, "[4,1,2]", stale(A100, { ack: 50, payload: 200 })]],
  },
  S: {
    says: "data that takes an acknowledgment back lets both go",
    out: [[1, "[0,0,-]", A100], [1, "[0,0,-]", B50]],
    counters: { ack_older: 1 },
  },
});

testCase(30, { arrive: [[0, K], [1, wider], [2, wider]] }, {
  Q: {
    says: "a duplicate behind a window update lets both go",
    out: [[2, "[4,1,1]", stale(K, { window: 501 })], [2, "[0,0,-]", wider]],
    counters: { win_update: 1, dup_ack: 1 },
  },
  S: {
    says: "a duplicate behind a window update lets both go",
    out: [[2, "[0,0,-]", wider], [2, "[0,0,-]", wider]],
    counters: { window_update: 1, duplicate_ack: 1 },
  },
});

const A501 = packet({ window: 501 });
testCase(31, { arrive: [[0, K], [1, wider], [2, A501]] }, {
  Q: {
    says: "data behind a window update merges",
    out: [[300_000, "[4,1,2]", stale(K, { window: 501, payload: 100 })]],
    counters: { win_update: 1, data_after_pure_ack: 1 },
  },
  S: {
    says: "data behind a window update merges, and is one data segment",
    out: [[300_000, "[0,0,-]", A501]],
    counters: { window_update: 1, merged: 1, packets_single: 1 },
  },
});

testCase(31, { arrive: [[0, A], [1, pureAck({ seq: 1100, window: 501 })], [2, B]] }, {
  S: {
    says: "a window update between data is merged and not counted as a segment",
    out: [[300_000, "[5,1,2]", merged({ payload: 200 }), { gsoSize: 100 }]],
    counters: { window_update: 1, merged: 1 },
  },
});

testCase(25, { arrive: [[0, A], [1, B], [2, pureAck({ seq: 1200 })]] }, {
  S: {
    says: "a pure ACK behind merged data flushes the flow and passes",
    out: [
      [2, "[5,1,2]", merged({ payload: 200 }), { gsoSize: 100 }],
      [2, "[0,0,-]", pureAck({ seq: 1200 })],
    ],
    counters: { duplicate_ack: 1 },
  },
});
