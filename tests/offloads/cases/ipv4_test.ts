/** Cases 41 to 51: the IPv4 header. */
import { BENCH_FEATURES, udp } from "../../../testing/mod.ts";
import { VIRTIO_NET_F_GUEST_ECN } from "../../../wire/net_features.ts";
import { testCase } from "./case.ts";
import { A, C, K, merged, packet, stale } from "./packets.ts";

const ROUTER_ALERT = Uint8Array.of(0x94, 4, 0, 0);
const optioned = packet({ seq: 1100, ipOptions: ROUTER_ALERT });
testCase(41, { arrive: [[0, A], [1, optioned]] }, {
  Q: {
    says: "IP options overtake A",
    out: [[1, "[0,0,-]", optioned], [300_000, "[0,0,-]", A]],
    counters: { ip_option: 1 },
  },
  S: {
    says: "IP options let A go first",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", optioned]],
    counters: { ip_options: 1 },
  },
});

const clearA = packet({ dontFragment: false });
const clearB = packet({ seq: 1100, dontFragment: false });
testCase(42, { arrive: [[0, A], [1, clearB]] }, {
  Q: {
    says: "B without DF overtakes A",
    out: [[1, "[0,0,-]", clearB], [300_000, "[0,0,-]", A]],
    counters: { ip_frag: 1 },
  },
  S: {
    says: "B without DF opens a packet of its own",
    out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", clearB]],
    counters: { traits_differ: 1 },
  },
});

testCase(42, { arrive: [[0, clearA], [1, clearB]] }, {
  Q: {
    says: "two without DF are not merged",
    out: [[0, "[0,0,-]", clearA], [1, "[0,0,-]", clearB]],
    counters: { ip_frag: 2 },
  },
  S: {
    says: "two without DF are merged",
    out: [[300_000, "[5,1,2]", merged({ payload: 200, dontFragment: false }), { gsoSize: 100 }]],
  },
});

for (
  const [what, fields] of [["MF", { moreFragments: true }], ["an offset", { fragmentOffset: 1 }]] as const
) {
  const fragment = packet({ seq: 1100, ...fields });
  testCase(43, { arrive: [[0, A], [1, fragment]] }, {
    Q: {
      says: `DF with ${what} is merged as if it were whole`,
      out: [[300_000, "[4,1,2]", stale(A, { payload: 200 })]],
      counters: { coalesced: 1 },
    },
    S: {
      says: `DF with ${what} flushes A first and passes`,
      out: [[1, "[0,0,-]", A], [1, "[0,0,-]", fragment]],
      counters: { fragment: 1 },
    },
  });
}

const elsewhere = packet({ source: "10.0.0.9" });
const lateFragment = packet({ seq: 1100, dontFragment: false, fragmentOffset: 1 });
const secondPort = packet({ sourcePort: 2222 });
testCase(43, { arrive: [[0, A], [1, elsewhere], [2, secondPort], [3, lateFragment]] }, {
  S: {
    says: "a fragment flushes all flows between its addresses, and no other",
    out: [
      [3, "[0,0,-]", A],
      [3, "[0,0,-]", secondPort],
      [3, "[0,0,-]", lateFragment],
      [300_000, "[0,0,-]", elsewhere],
    ],
    counters: { fragment: 1 },
  },
});

const ectA = packet({ tos: 2 });
const ectB = packet({ seq: 1100, tos: 2 });
testCase(44, { arrive: [[0, A], [1, ectB]] }, {
  Q: {
    says: "B with ECT(0) overtakes A",
    out: [[1, "[0,0,-]", ectB], [300_000, "[0,0,-]", A]],
    counters: { ip_ecn: 1 },
  },
  S: {
    says: "B with ECT(0) opens a packet of its own",
    out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", ectB]],
    counters: { traits_differ: 1 },
  },
});

testCase(44, { arrive: [[0, ectA], [1, ectB]] }, {
  Q: {
    says: "two with ECT(0) pass at once",
    out: [[0, "[0,0,-]", ectA], [1, "[0,0,-]", ectB]],
    counters: { ip_ecn: 2 },
  },
  S: {
    says: "two with ECT(0) do not merge without GUEST_ECN",
    out: [[1, "[0,0,-]", ectA], [300_001, "[0,0,-]", ectB]],
    counters: { ecn_not_negotiated: 1 },
  },
});

const withEcn = BENCH_FEATURES.with(VIRTIO_NET_F_GUEST_ECN);
testCase(44, { arrive: [[0, ectA], [1, ectB]], features: withEcn }, {
  S: {
    says: "two with ECT(0) merge with GUEST_ECN",
    out: [[300_000, "[5,1,2]", merged({ payload: 200, tos: 2 }), { gsoSize: 100 }]],
  },
});

const ceB = packet({ seq: 1100, tos: 3 });
testCase(44, { arrive: [[0, ectA], [1, ceB]], features: withEcn }, {
  S: {
    says: "ECT(0) and CE never merge: the mark would be lost or invented",
    out: [[1, "[0,0,-]", ectA], [300_001, "[0,0,-]", ceB]],
    counters: { traits_differ: 1 },
  },
});

const dscp = packet({ seq: 1100, tos: 10 << 2 });
testCase(45, { arrive: [[0, A], [1, dscp]] }, {
  Q: {
    says: "B with another DSCP merges, and A's stays",
    out: [[300_000, "[4,1,2]", stale(A, { payload: 200 })]],
  },
  S: {
    says: "B with another DSCP opens a packet of its own",
    out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", dscp]],
    counters: { traits_differ: 1 },
  },
});

testCase(46, { arrive: [[0, A], [1, packet({ seq: 1100, ttl: 3, id: 77 })]] }, {
  Q: {
    says: "TTL and id stay those of A",
    out: [[300_000, "[4,1,2]", stale(A, { payload: 200, ttl: 64, id: 1 })]],
  },
  S: {
    says: "TTL is the smallest, id that of A",
    out: [[300_000, "[5,1,2]", merged({ payload: 200, ttl: 3, id: 1 }), { gsoSize: 100 }]],
  },
});

for (const macs of [{ destinationMac: "52:54:00:12:34:57" }, { sourceMac: "02:aa:bb:cc:dd:ef" }]) {
  const [[which]] = Object.entries(macs);
  const moved = packet({ seq: 1100, ...macs });
  testCase(47, { arrive: [[0, A], [1, moved]] }, {
    Q: {
      says: `another ${which} merges all the same`,
      out: [[300_000, "[4,1,2]", stale(A, { payload: 200 })]],
    },
    S: {
      says: `another ${which} opens a packet of its own`,
      out: [[1, "[0,0,-]", A], [300_001, "[0,0,-]", moved]],
      counters: { mac_differs: 1 },
    },
  });
}

const datagram = udp({ payload: 40 });
testCase(48, { arrive: [[0, A], [1, datagram]] }, {
  QS: {
    says: "UDP passes at once",
    out: [[1, "[0,0,-]", datagram], [300_000, "[0,0,-]", A]],
    Q: { bypass_not_tcp: 1 },
    S: { not_tcp: 1 },
  },
});

const version6 = packet({ seq: 1100, ipVersion: 6 });
testCase(49, { arrive: [[0, A], [1, version6]] }, {
  QS: {
    says: "version 6 under the EtherType of IPv4 passes at once",
    out: [[1, "[0,0,-]", version6], [300_000, "[0,0,-]", A]],
    Q: { ip_option: 1 },
    S: { bad_version: 1 },
  },
});

for (const ipLength of [39, 141]) {
  const hacked = packet({ seq: 1100, ipLength });
  testCase(50, { arrive: [[0, A], [1, hacked]] }, {
    Q: {
      says: `IP length ${ipLength} of 140 overtakes A`,
      out: [[1, "[0,0,-]", hacked], [300_000, "[0,0,-]", A]],
      counters: { ip_hacked: 1 },
    },
    S: {
      says: `IP length ${ipLength} of 140 flushes A first and passes`,
      out: [[1, "[0,0,-]", A], [1, "[0,0,-]", hacked]],
      counters: { bad_length: 1 },
    },
  });
}

const cut = K.slice(0, 53);
testCase(51, { arrive: [[0, cut]] }, {
  QS: {
    says: "a frame of 53 bytes passes",
    out: [[0, "[0,0,-]", cut]],
    Q: { received: 1, bypass_not_tcp: 1 },
    S: { received: 1, bad_length: 1 },
  },
});

testCase(51, { arrive: [[0, K.slice(0, 14)]] }, {
  QS: {
    says: "14 bytes of type 0x0800 pass",
    out: [[0, "[0,0,-]", K.slice(0, 14)]],
    Q: { received: 1, bypass_not_tcp: 1 },
    S: { received: 1, too_short: 1 },
  },
});

testCase(51, { arrive: [[0, K.slice(0, 13)]], pipelineOnly: "the receive filter drops what has no header" }, {
  QS: {
    says: "13 bytes pass and are not even counted",
    out: [[0, "[0,0,-]", K.slice(0, 13)]],
    Q: { received: 0 },
    S: { received: 0 },
  },
});

const ruined = packet({ seq: 1100, ipChecksum: "wrong" });
testCase(51, { arrive: [[0, A], [1, ruined], [2, C]] }, {
  Q: {
    says: "a wrong IP header checksum is not looked at",
    out: [[300_000, "[4,1,3]", stale(A, { payload: 300 })]],
  },
  S: {
    says: "a wrong IP header checksum flushes A, passes unmodified, and C opens the next packet",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", ruined], [300_002, "[0,0,-]", C]],
    counters: { bad_ip_checksum: 1 },
  },
});
