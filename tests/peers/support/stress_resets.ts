/**
 * A front-end that resets a device whose queue pairs are worked by threads, in the midst of traffic and
 * without waiting for anything, as often as is wanted. For a long run beside other work:
 *
 *     deno run -A tests/peers/support/stress_resets.ts 100000
 *
 * @module
 */
import { usualFeatures } from "../../../rigs/vhost_user/front_end.ts";
import { delayWaits } from "./late_notify_offload.ts";
import { numbered, ThreadsRig, write } from "./threads_rig.ts";

const RINGS = [0, 1];

/**
 * Resets the device `resets` times, or for `limitMs`. Returns how often it did. Rejects with what the machine
 * ended with.
 */
export async function stressResets(resets: number, limitMs = Infinity): Promise<number> {
  const module = new URL("./late_notify_offload.ts", import.meta.url).href;
  const offloads = [{ use: module, oneIn: 200 }, "rsc-v4"];
  await using rig = await ThreadsRig.start({ offloads });
  using front = rig.connect();
  using _late = delayWaits(20);
  const { front: says, guest, kicks } = front;
  says.setProtocolFeatures(says.protocolFeatures());
  says.addMemory();
  const features = usualFeatures(says.features());
  const began = performance.now();
  let count = 0;
  for (; count < resets && performance.now() - began < limitMs; count++) {
    // Mostly all starts at once, now and then ring by ring.
    if (count % 8 === 0) says.setFeatures(features);
    for (const ring of RINGS) says.describe(ring);
    for (const ring of RINGS) says.enable(ring, true);
    if (count % 8 !== 0) says.setFeatures(features);
    if (guest.post(0, 4)) kicks[0].signal();
    if (guest.send(1, numbered(count & 0xffff))) kicks[1].signal();
    while (rig.ends[0].read() !== null);
    if (count % 5 === 0) write(rig.ends[0], count & 0xffff);
    // A ring that is broken now and then: the thread finds it, or the reset comes first.
    if (count % 11 === 0) guest.memory.writeU16(guest.place(1).driver + 2, 300);
    says.setStatus(0);
    for (const ring of RINGS) guest.forget(ring);
    if (count % 100 === 0) await new Promise((resolve) => setTimeout(resolve));
  }
  const { failure } = rig.machine.devices[0].workers!;
  if (failure !== null) throw failure;
  return count;
}

if (import.meta.main) {
  const wanted = Number(Deno.args[0] ?? 100_000);
  const from = performance.now();
  const count = await stressResets(wanted);
  console.log(`${count} resets in ${((performance.now() - from) / 1000).toFixed(1)} s`);
  // What a guest broke is counted and ends nothing.
  Deno.exit(0);
}
