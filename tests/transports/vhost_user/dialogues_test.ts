import { assert, assertEquals } from "@std/assert";
import type { ProfileName } from "../../../transports/vhost_user/front_ends.ts";
import { Bench } from "./support/bench.ts";
import { dialogues } from "./support/dialogues.ts";
import { type FakeDescriptor, FakeSocket } from "./support/fake_host.ts";
import { frame, numbersOf } from "./support/fake_network.ts";

const TAKES_PACKED = new Set(["QEMU 7.2", "QEMU 10", "virtio-user"]);
const DIALOGUES = Object.entries(dialogues<FakeDescriptor>());

for (const [name, dialogue] of DIALOGUES) {
  for (const profile of [dialogue.profile, "auto"] as ProfileName[]) {
    for (const packed of TAKES_PACKED.has(name) ? [false, true] : [false]) {
      for (const eventIndex of [false, true]) {
        const facts = [
          `profile ${profile}`,
          packed ? "packed" : "split",
          ...eventIndex ? ["event index"] : [],
        ];
        // virtio-user never asks for an event index.
        if (eventIndex && name === "virtio-user") continue;
        Deno.test(`Backend serves ${name}: frames both ways, stop, start again (${facts.join(", ")})`, () => {
          using bench = new Bench({ profile, guest: { packed, eventIndex } });
          const settings = { pairs: 1, socket: () => bench.host.descriptor(new FakeSocket()) };
          dialogue.start(bench.front, settings);
          bench.guest.post(0, 8);
          bench.settle();
          bench.assertWorks();
          assertEquals(bench.refused, {});
          assertEquals(bench.faults.counts, {});

          const [receive, transmit] = dialogue.stop(bench.front, settings);
          // One receive buffer was used, and one frame sent, out of a ring of sixteen.
          assertEquals(receive & 0x7fff, 1);
          assertEquals(transmit & 0x7fff, 1);
          if (packed) assertEquals([receive, transmit], [0x8001_8001, 0x8001_8001]);
          bench.rig.network.inbox.push(frame(3));
          bench.settle();
          assertEquals(bench.rig.network.inbox.length, 1, "a stopped device leaves frames in the network");
          assertEquals(bench.guest.received(0), []);

          // The same driver goes on where it was.
          bench.front.setFeatures(bench.front.features() & bitsInUse(bench, packed, eventIndex));
          for (const [ring, base] of [receive, transmit].entries()) bench.front.describe(ring, base);
          for (const ring of [0, 1]) bench.front.enable(ring, true);
          bench.settle();
          assertEquals(numbersOf(bench.guest.received(0)), [3]);
          bench.guest.post(0, 1);
          bench.assertWorks();
          assertEquals(bench.refused, {});
          assertEquals(bench.faults.counts, {});
        });
      }
    }
  }

  Deno.test(`Backend serves ${name} with two queue pairs`, () => {
    using bench = new Bench({ profile: dialogue.profile as ProfileName, device: { queuePairs: 2 } });
    const settings = { pairs: 2, socket: () => bench.host.descriptor(new FakeSocket()) };
    dialogue.start(bench.front, settings);
    for (const ring of [0, 2]) bench.guest.post(ring, 8);
    bench.settle();
    for (const pair of [0, 1]) {
      bench.guest.send(2 * pair + 1, frame(20 + pair));
      bench.kicks[2 * pair + 1].kick();
    }
    bench.settle();
    assertEquals(numbersOf(bench.rig.network.sent), [20, 21]);
    for (let i = 0; i < 4; i++) bench.rig.network.inbox.push(frame(i));
    bench.settle();
    const received = numbersOf([...bench.guest.received(0), ...bench.guest.received(2)]);
    assertEquals(received, [0, 1, 2, 3]);
    assertEquals(bench.faults.counts, {});
    assertEquals(bench.refused, {});
  });
}

Deno.test("Backend serves the same front-end twice on one connection without a reset in between", () => {
  using bench = new Bench({ profile: "virtio-user" });
  const settings = { pairs: 1, socket: () => bench.host.descriptor(new FakeSocket()) };
  const dialogue = dialogues<FakeDescriptor>()["virtio-user"];
  dialogue.start(bench.front, settings);
  bench.guest.post(0, 8);
  bench.settle();
  bench.assertWorks();
  const before = bench.rig.counters[""].activations;
  // Other offloads: everything is told anew, with fewer features, on rings that never were stopped.
  for (const ring of [0, 1]) bench.guest.forget(ring);
  bench.front.setFeatures(1n << 30n | 1n << 32n | 1n << 15n);
  bench.front.setMemoryTable();
  for (const ring of [0, 1]) bench.front.describe(ring);
  for (const ring of [0, 1]) bench.front.enable(ring, true);
  bench.guest.post(0, 8);
  bench.settle();
  bench.assertWorks();
  assert(bench.rig.counters[""].activations > before);
  assertEquals(bench.refused, {});
});

function bitsInUse(bench: Bench, packed: boolean, eventIndex: boolean): bigint {
  const features = bench.backend.features;
  const usual = [0, 1, 7, 8, 9, 15, 21, 28, 30, 32, ...packed ? [34] : [], ...eventIndex ? [29] : []];
  return features?.toBigInt() ?? usual.reduce((bits, bit) => bits | 1n << BigInt(bit), 0n);
}
