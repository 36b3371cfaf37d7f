/** Cases 81 to 84 and 88: the header that comes with a frame, and checksums that are wrong. */
import type { HeaderFields } from "../../../testing/mod.ts";
import { testCase } from "./case.ts";
import { A, B, C, merged, packet, packet6, stale } from "./packets.ts";

testCase(81, { arrive: [[0, A, { header: { flags: 2 } }]] }, {
  Q: { says: "DATA_VALID is lost", out: [[300_000, "[0,0,-]", A]] },
  S: { says: "DATA_VALID is kept", out: [[300_000, "[2,0,-]", A]] },
});

const unverified = packet({ seq: 1100, checksum: 0 });
testCase(81, { arrive: [[0, A], [1, unverified, { header: { flags: 2 } }]] }, {
  S: {
    says: "what the network vouches for by DATA_VALID is merged without a look at its checksum",
    out: [[300_000, "[5,1,2]", merged({ payload: 200 }), { gsoSize: 100 }]],
  },
});

const partial = packet({ checksum: "partial" });
const partialHeader = { flags: 1, csumStart: 34, csumOffset: 16 };
testCase(82, { arrive: [[0, partial, { header: partialHeader }]] }, {
  Q: {
    says: "NEEDS_CSUM is lost, its two fields stay",
    out: [[300_000, "[0,0,-]", partial, { csumStart: 34, csumOffset: 16 }]],
  },
  S: {
    says: "NEEDS_CSUM is kept with its two fields",
    out: [[300_000, "[1,0,-]", partial, { csumStart: 34, csumOffset: 16 }]],
  },
});

const partialNext = packet({ seq: 1100, checksum: "partial" });
testCase(82, {
  arrive: [[0, partial, { header: partialHeader }], [1, partialNext, { header: partialHeader }]],
}, {
  S: {
    says: "partial TCP checksums merge",
    out: [[300_000, "[5,1,2]", merged({ payload: 200 }), { gsoSize: 100 }]],
  },
});

const odd = { flags: 1, csumStart: 34, csumOffset: 6 };
testCase(82, { arrive: [[0, A], [1, partialNext, { header: odd }]] }, {
  S: {
    says: "a partial checksum that is not TCP's flushes A and passes unchanged",
    out: [[1, "[0,0,-]", A], [1, "[1,0,-]", partialNext, odd]],
    counters: { odd_partial_checksum: 1 },
  },
});

// Completed by the guest, this sum would make a wrong checksum; a merged packet has a new sum, and would make
// it right.
const wrongSeed = packet({ seq: 1100, checksum: 0x1234 });
testCase(82, { arrive: [[0, A], [1, wrongSeed, { header: partialHeader }]] }, {
  S: {
    says: "a partial checksum on top of another pseudo header flushes A and passes unchanged",
    out: [[1, "[0,0,-]", A], [1, "[1,0,-]", wrongSeed, partialHeader]],
    counters: { odd_partial_checksum: 1 },
  },
});

const large = packet({ seq: 1100, payload: 2000, checksum: "partial" });
const gso: Partial<HeaderFields> = {
  flags: 1,
  gsoType: 1,
  gsoSize: 100,
  hdrLen: 54,
  csumStart: 34,
  csumOffset: 16,
};
const kept = { gsoSize: 100, hdrLen: 54, csumStart: 34, csumOffset: 16 };
testCase(83, { arrive: [[0, large, { header: gso }]] }, {
  Q: { says: "a large frame loses its gso type, not its gso_size", out: [[300_000, "[0,0,-]", large, kept]] },
  S: {
    says: "a large frame passes unchanged",
    out: [[0, "[1,1,-]", large, kept]],
    counters: { already_large: 1 },
  },
});

testCase(83, { arrive: [[0, A], [1, large, { header: gso }]] }, {
  S: {
    says: "a large frame flushes its flow first",
    out: [[1, "[0,0,-]", A], [1, "[1,1,-]", large, kept]],
    counters: { already_large: 1 },
  },
});

const largeNext = packet({ seq: 3100, payload: 2000, checksum: "partial" });
testCase(84, { arrive: [[0, large, { header: gso }], [1, largeNext, { header: gso }]] }, {
  Q: {
    says: "two large frames merge as two segments",
    out: [[300_000, "[4,1,2]", stale(large, { seq: 1100, payload: 4000 }), { gsoSize: 100, hdrLen: 54 }]],
  },
  S: {
    says: "two large frames pass unchanged",
    out: [[0, "[1,1,-]", large, kept], [1, "[1,1,-]", largeNext, kept]],
    counters: { already_large: 2 },
  },
});

const bad = packet({ seq: 1100, checksum: "wrong" });
testCase(88, { arrive: [[0, A], [1, bad], [2, C]] }, {
  Q: {
    says: "a segment with a wrong checksum is merged silently",
    out: [[300_000, "[4,1,3]", stale(A, { payload: 300 })]],
    counters: { coalesced: 2 },
  },
  S: {
    says: "a segment with a wrong checksum flushes A and passes alone and unmodified",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", bad], [300_002, "[0,0,-]", C]],
    counters: { bad_tcp_checksum: 1 },
  },
});

const bad6 = packet6({ seq: 1100, checksum: "wrong" });
testCase(88, { arrive: [[0, packet6()], [1, bad6]], family: "v6" }, {
  S: {
    says: "the same over IPv6",
    out: [[1, "[0,0,-]", packet6()], [1, "[0,0,-]", bad6]],
    counters: { bad_tcp_checksum: 1 },
  },
});

testCase(88, { arrive: [[0, bad], [1, B]] }, {
  S: {
    says: "a segment with a wrong checksum is not held: its retransmission is",
    out: [[0, "[0,0,-]", bad], [300_001, "[0,0,-]", B]],
    counters: { bad_tcp_checksum: 1 },
  },
});
