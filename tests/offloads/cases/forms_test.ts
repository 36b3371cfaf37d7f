/** Cases 96 to 99: the forms that a connection's frames can take, VLAN tags and encapsulations. */
import { snap, tagged as withTags } from "../../wire/forms.ts";
import { testCase } from "./case.ts";
import { A, B, C, merged, packet, packet6 } from "./packets.ts";

const FIVE = { vlans: [{ id: 5, priority: 3 }] };
const inVlan = [0, 1, 2, 3].map((i) => packet({ ...FIVE, seq: 1000 + 100 * i }));
testCase(96, { arrive: inVlan.map((frame, i) => [i, frame]) }, {
  Q: {
    says: "tagged frames pass at once, unseen",
    out: inVlan.map((frame, i) => [i, "[0,0,-]", frame]),
    counters: { received: 0 },
  },
  S: {
    says: "segments in a VLAN are merged, and the tag stays",
    out: [[300_000, "[5,1,4]", merged({ ...FIVE, payload: 400 }), { gsoSize: 100 }]],
    counters: { held: 1, merged: 3 },
  },
});

const prioritised = packet({ seq: 1100, vlans: [{ id: 0, priority: 5 }] });
const service = packet({ seq: 1200, vlans: [{ id: 0, type: 0x88a8 }], flags: ["ACK", "FIN"] });
testCase(97, { arrive: [[0, A], [1, prioritised], [2, service]] }, {
  Q: {
    says: "frames with a priority tag overtake their connection",
    out: [[1, "[0,0,-]", prioritised], [2, "[0,0,-]", service], [300_000, "[0,0,-]", A]],
  },
  S: {
    says: "a priority tag makes no other connection, but another packet",
    out: [[1, "[0,0,-]", A], [2, "[0,0,-]", prioritised], [2, "[0,0,-]", service]],
    counters: { vlan_tag_differs: 1, fin: 1 },
  },
});

const wrapped = snap(B);
testCase(98, { arrive: [[0, A], [1, wrapped], [2, C]] }, {
  Q: {
    says: "a segment in LLC/SNAP overtakes its connection, and the next one finds a gap",
    out: [[1, "[0,0,-]", wrapped], [2, "[0,0,-]", A], [2, "[0,0,-]", C]],
    counters: { data_out_of_order: 1 },
  },
  S: {
    says: "a segment in LLC/SNAP flushes its flow and passes",
    out: [[1, "[0,0,-]", A], [1, "[0,0,-]", wrapped], [300_002, "[0,0,-]", C]],
    counters: { encapsulated: 1 },
  },
});

const A6 = packet6();
const deep = withTags(packet6({ seq: 1100 }), [0x8100, 0], [0x8100, 0], [0x8100, 0]);
const others = withTags(packet6({ seq: 1100 }), [0x88a8, 1], [0x8100, 2], [0x8100, 3]);
testCase(99, { arrive: [[0, A6], [1, others], [2, deep]], family: "v6" }, {
  Q: {
    says: "frames behind three tags pass at once",
    out: [[1, "[0,0,-]", others], [2, "[0,0,-]", deep], [300_000, "[0,0,-]", A6]],
  },
  S: {
    says: "frames behind three tags are not merged, and keep their order where the tags name no VLAN",
    out: [[1, "[0,0,-]", others], [2, "[0,0,-]", A6], [2, "[0,0,-]", deep]],
    counters: { encapsulated: 2 },
  },
});
