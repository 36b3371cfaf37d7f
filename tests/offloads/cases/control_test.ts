/** Cases 32 to 40: TCP flags, options and data offset. */
import { BENCH_FEATURES, tcp, type TcpFlag } from "../../../testing/mod.ts";
import { VIRTIO_NET_F_GUEST_ECN } from "../../../wire/net_features.ts";
import { testCase } from "./case.ts";
import { A, B, join, merged, packet, patch16, stale } from "./packets.ts";

for (const flags of [["SYN"], ["SYN", "FIN"]] as const) {
  const syn = tcp({ seq: 1100, flags });
  testCase(32, { arrive: [[0, A], [1, syn]] }, {
    Q: {
      says: `${flags.join("|")} overtakes A`,
      out: [[1, "[0,0,-]", syn], [300_000, "[0,0,-]", A]],
      counters: { tcp_syn: 1 },
    },
    S: {
      says: `${flags.join("|")} flushes A first`,
      out: [[1, "[0,0,-]", A], [1, "[0,0,-]", syn]],
      counters: { syn: 1 },
    },
  });
}

const fin = packet({ seq: 1100, flags: ["FIN", "ACK"] });
testCase(33, { arrive: [[0, A], [1, fin]] }, {
  QS: {
    says: "FIN with data flushes A and passes, unmerged",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", fin]],
    Q: { tcp_ctrl_drain: 1 },
    S: { fin: 1 },
  },
});

const other = packet({ sourcePort: 2222 });
const rst = tcp({ sourcePort: 2222, seq: 1100, flags: ["RST"] });
testCase(34, { arrive: [[0, A], [1, other], [2, rst]] }, {
  QS: {
    says: "RST lets its own flow go and no other",
    out: [[2, "[0,0,-]", other], [2, "[0,0,-]", rst], [300_000, "[0,0,-]", A]],
    Q: { tcp_ctrl_drain: 1, no_match: 1 },
    S: { rst: 1 },
  },
});

const urg = packet({ seq: 1100, flags: ["URG", "ACK"], urgentPointer: 5 });
testCase(35, { arrive: [[0, A], [1, urg]] }, {
  QS: {
    says: "URG flushes A and passes",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", urg]],
    Q: { tcp_ctrl_drain: 1 },
    S: { urg: 1 },
  },
});

const ece: readonly TcpFlag[] = ["ACK", "ECE"];
const echoed = packet({ seq: 1100, flags: ece });
testCase(36, { arrive: [[0, A], [1, echoed]] }, {
  Q: {
    says: "ECE of B is taken over",
    out: [[300_000, "[4,1,2]", stale(A, { payload: 200, flags: ece })]],
  },
  S: {
    says: "B with ECE opens a packet of its own",
    out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", echoed]],
    counters: { tcp_ecn_differs: 1 },
  },
});

const reduced = packet({ flags: ["ACK", "CWR"] });
testCase(36, { arrive: [[0, reduced], [1, B]] }, {
  Q: {
    says: "CWR of A is gone",
    out: [[300_000, "[4,1,2]", stale(reduced, { payload: 200 })]],
  },
  S: {
    says: "B without CWR opens a packet of its own",
    out: [[1, "[0,0,-]", reduced], [300_001, "[0,0,-]", B]],
    counters: { tcp_ecn_differs: 1 },
  },
});

const withEcn = BENCH_FEATURES.with(VIRTIO_NET_F_GUEST_ECN);
testCase(36, { arrive: [[0, packet({ flags: ece })], [1, echoed]], features: withEcn }, {
  S: {
    says: "two with ECE merge if GUEST_ECN was accepted, and the gso type says so",
    out: [[300_000, "[5,129,2]", merged({ payload: 200, flags: ece }), { gsoSize: 100 }]],
  },
});

const accurate = packet({ seq: 1100, flags: ["ACK", "AE"] });
testCase(37, { arrive: [[0, A], [1, accurate]] }, {
  Q: {
    says: "AE of B is taken over",
    out: [[300_000, "[4,1,2]", stale(A, { payload: 200, flags: ["ACK", "AE"] })]],
  },
  S: {
    says: "B with AE opens a packet of its own",
    out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", accurate]],
    counters: { tcp_ecn_differs: 1 },
  },
});

const reserved = packet({ seq: 1100, reserved: 1 });
testCase(37, { arrive: [[0, A], [1, reserved]] }, {
  Q: {
    says: "a reserved bit of B is taken over",
    out: [[300_000, "[4,1,2]", stale(A, { payload: 200, reserved: 1 })]],
  },
  S: {
    says: "B with a reserved bit opens a packet of its own",
    out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", reserved]],
    counters: { tcp_ecn_differs: 1 },
  },
});

const [silentA, silentB] = [packet({ flags: [] }), packet({ seq: 1100, flags: [] })];
testCase(38, { arrive: [[0, silentA], [1, silentB]] }, {
  Q: {
    says: "segments without any flag merge",
    out: [[300_000, "[4,1,2]", stale(silentA, { payload: 200, flags: [] })]],
  },
  S: {
    says: "segments without any flag pass, each alone",
    out: [[0, "[0,0,-]", silentA], [1, "[0,0,-]", silentB]],
    counters: { no_ack: 2 },
  },
});

const stampedA = packet({ timestamp: [7, 3] });
const stampedB = packet({ seq: 1100, timestamp: [9, 4] });
testCase(39, { arrive: [[0, A], [1, stampedB]] }, {
  Q: {
    says: "an option flushes A and passes",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", stampedB]],
    counters: { tcp_all_opt: 1 },
  },
  S: {
    says: "with another option layout B opens a packet of its own",
    out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", stampedB]],
    counters: { timestamp_option_differs: 1 },
  },
});

testCase(39, { arrive: [[0, stampedA], [1, stampedB]] }, {
  Q: {
    says: "segments with timestamps are never merged",
    out: [[0, "[0,0,-]", stampedA], [1, "[0,0,-]", stampedB]],
    counters: { tcp_all_opt: 2 },
  },
  S: {
    says: "segments with timestamps merge and take over the latest",
    out: [[300_000, "[5,1,2]", merged({ payload: 200, timestamp: [9, 4] }), { gsoSize: 100, hdrLen: 66 }]],
  },
});

testCase(39, { arrive: [[0, stampedA], [1, stampedB]], options: { timestamps: false } }, {
  S: {
    says: "segments with timestamps pass with timestamps: false",
    out: [[0, "[0,0,-]", stampedA], [1, "[0,0,-]", stampedB]],
    counters: { tcp_options: 2 },
  },
});

for (const [what, timestamp] of [["TSval", [6, 3]], ["TSecr", [7, 2]]] as const) {
  const older = packet({ seq: 1100, timestamp });
  testCase(39, { arrive: [[0, stampedA], [1, older]] }, {
    S: {
      says: `a ${what} that goes back lets both go`,
      out: [[1, "[0,0,-]", stampedA], [1, "[0,0,-]", older]],
      counters: { timestamp_older: 1 },
    },
  });
}

const short = packet({ dataOffset: 4 });
testCase(40, { arrive: [[0, short]] }, {
  Q: {
    says: "data offset 4 is held and leaves unchanged",
    out: [[300_000, "[0,0,-]", short]],
    counters: { cache: 1 },
  },
  S: { says: "data offset 4 passes", out: [[0, "[0,0,-]", short]], counters: { bad_data_offset: 1 } },
});

const none = packet({ dataOffset: 0 });
const noneNext = packet({ seq: 1120, dataOffset: 0 });
testCase(40, { arrive: [[0, none], [1, noneNext]] }, {
  Q: {
    says: "with data offset 0 the TCP header is merged as data",
    out: [[300_000, "[4,1,2]", patch16(join(none, noneNext.subarray(34)), 16, 260)]],
    counters: { coalesced: 1 },
  },
  S: {
    says: "data offset 0 passes",
    out: [[0, "[0,0,-]", none], [1, "[0,0,-]", noneNext]],
    counters: { bad_data_offset: 2 },
  },
});

testCase(40, { arrive: [[0, A], [1, packet({ seq: 1100, dataOffset: 4 })]] }, {
  S: {
    says: "data offset 4 flushes its flow first",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", packet({ seq: 1100, dataOffset: 4 })]],
    counters: { bad_data_offset: 1 },
  },
});
