/** Cases 15 to 22: pure ACKs and window updates. */
import { testCase } from "./case.ts";
import { K, pureAck, stale } from "./packets.ts";

const K2 = pureAck({ ack: 2 });
testCase(15, { arrive: [[0, K], [1, K2]] }, {
  QS: {
    says: "an advancing pure ACK lets both go",
    out: [[1, "[0,0,-]", K], [1, "[0,0,-]", K2]],
    Q: { pure_ack: 1 },
    S: { pure_ack: 1 },
  },
});

testCase(16, { arrive: [[0, K], [1, K]] }, {
  QS: {
    says: "a duplicate ACK lets both go",
    out: [[1, "[0,0,-]", K], [1, "[0,0,-]", K]],
    Q: { dup_ack: 1 },
    S: { duplicate_ack: 1 },
  },
});

testCase(16, { arrive: [[0, K], [1, K], [2, K], [3, K]] }, {
  QS: {
    says: "four of them leave in pairs",
    out: [[1, "[0,0,-]", K], [1, "[0,0,-]", K], [3, "[0,0,-]", K], [3, "[0,0,-]", K]],
    Q: { dup_ack: 2, cache: 2 },
    S: { duplicate_ack: 2, held: 2 },
  },
});

const wider = pureAck({ window: 501 });
testCase(17, { arrive: [[0, K], [1, wider]] }, {
  Q: {
    says: "a window update is taken, the IPv4 checksum is still right, the TCP checksum is stale",
    out: [[300_000, "[4,1,1]", stale(K, { window: 501 })]],
    counters: { win_update: 1, coalesced: 0 },
  },
  S: {
    says: "a window update is taken, an ordinary packet with right checksums leaves",
    out: [[300_000, "[0,0,-]", wider]],
    counters: { window_update: 1, packets_single: 1, packets_coalesced: 0 },
  },
});

const widest = pureAck({ window: 502 });
testCase(18, { arrive: [[0, K], [1, wider], [2, widest]] }, {
  Q: {
    says: "of two window updates the last one counts",
    out: [[300_000, "[4,1,1]", stale(K, { window: 502 })]],
    counters: { win_update: 2 },
  },
  S: {
    says: "of two window updates the last one counts",
    out: [[300_000, "[0,0,-]", widest]],
    counters: { window_update: 2 },
  },
});

const closed = pureAck({ window: 0 });
testCase(19, { arrive: [[0, K], [1, closed]] }, {
  Q: {
    says: "a window that closes is a window update",
    out: [[300_000, "[4,1,1]", stale(K, { window: 0 })]],
    counters: { win_update: 1 },
  },
  S: {
    says: "a window that closes is a window update",
    out: [[300_000, "[0,0,-]", closed]],
    counters: { window_update: 1 },
  },
});

const far = pureAck({ ack: 65_535 });
testCase(20, { arrive: [[0, K], [1, far]] }, {
  QS: {
    says: "an ACK 65534 ahead is a pure ACK",
    out: [[1, "[0,0,-]", K], [1, "[0,0,-]", far]],
    Q: { pure_ack: 1 },
    S: { pure_ack: 1 },
  },
});

const tooFar = pureAck({ ack: 65_536 });
testCase(20, { arrive: [[0, K], [1, tooFar]] }, {
  QS: {
    says: "an ACK 65535 ahead is out of the window",
    out: [[1, "[0,0,-]", K], [1, "[0,0,-]", tooFar]],
    Q: { ack_out_of_win: 1 },
    S: { pure_ack: 1 },
  },
});

const [ten, nine] = [pureAck({ ack: 10 }), pureAck({ ack: 9 })];
testCase(21, { arrive: [[0, ten], [1, nine]] }, {
  QS: {
    says: "an older ACK lets both go",
    out: [[1, "[0,0,-]", ten], [1, "[0,0,-]", nine]],
    Q: { ack_out_of_win: 1 },
    S: { ack_older: 1 },
  },
});

const [high, low] = [pureAck({ ack: 0xfffffff0 }), pureAck({ ack: 5 })];
testCase(22, { arrive: [[0, high], [1, low]] }, {
  QS: {
    says: "acknowledgment numbers wrap",
    out: [[1, "[0,0,-]", high], [1, "[0,0,-]", low]],
    Q: { pure_ack: 1 },
    S: { pure_ack: 1 },
  },
});
