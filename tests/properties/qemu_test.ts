import "./support/shared_arenas.ts";
import type { NetGuest } from "../../devices/net/driver/mod.ts";
import { assert, assertEquals, assertGreater } from "@std/assert";
import fc from "fast-check";
import { newRegistry } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { FeatureSet } from "../../core/features.ts";
import { buildMachine } from "../../machine/build.ts";
import type { CablePort } from "../../transports/loopback.ts";
import type { LoopbackDriver } from "../../transports/loopback_driver/mod.ts";
import { anyMachine, anyStream, NASTY } from "./support/arbitraries.ts";
import { snapshot } from "./support/epoch.ts";
import { offloadMask } from "./support/guest_state.ts";
import { configOf } from "./support/machine.ts";
import {
  type FrameKind,
  type MachineChoice,
  PLAIN_MACHINE,
  possible,
  type Step,
  waitNs,
} from "./support/scenario.ts";
import { SEED } from "./support/settings.ts";
import { Traffic } from "./support/traffic.ts";
import { framePool } from "../../pipeline/kinds.ts";

/**
 * Whole devices under the reference's rules: whatever comes in, nothing throws, and every frame is accounted
 * for.
 */

/** Runs a stream and says what does not add up. @param posted buffers posted at first; 0 for all, refilled */
async function problems(
  written: MachineChoice,
  steps: readonly Step[],
): Promise<{ found: string[]; frames: number }> {
  const choice = possible({ ...written, legacy: false });
  const text = JSON.stringify(configOf(choice, "qemu"));
  const machine = buildMachine(await parseConfig(text, import.meta.url, newRegistry()));
  const { reactor, scope } = machine.parts;
  const pool = framePool(scope);
  const [{ device, driver, parts: { network } }] = machine.devices;
  const { guest } = driver as LoopbackDriver<NetGuest>;
  const port = network as CablePort;
  machine.start();
  reactor.settle();
  const traffic = new Traffic();
  const nowNs = () => reactor.clock.nowNs();
  const intervalNs = Math.round(choice.intervalUs * 1000);
  for (const [kind, flow, size, time, detail] of steps) {
    const byNs = waitNs(time, intervalNs);
    if (byNs >= 0) reactor.advanceTo(nowNs() + byNs);
    if (kind === "offloads") guest.setGuestOffloads(FeatureSet.of(...offloadMask(detail)));
    else if (kind === "post") guest.postReceiveBuffers(1 + detail % 40);
    else if (kind === "reset") {
      reactor.settle();
      guest.detach();
      guest.attach(device);
    } else {
      for (const frame of traffic.frames(kind as FrameKind, flow, size, detail)) {
        port.inject(frame.bytes, frame.header);
      }
    }
    reactor.settle();
  }
  for (let tries = 0; tries < 1000; tries++) {
    reactor.advanceTo(nowNs() + intervalNs + 1000);
    if (choice.posted === 0 || port.waiting + pool.inUse === 0) break;
    for (let pair = 0; pair < choice.pairs; pair++) guest.postReceiveBuffers(32_768, pair);
  }
  const counters = snapshot(machine.counters);
  const count = (name: string) => counters.get(`net0.${name}`)!;
  const swallowed = ["rsc-v4 coalesced", "rsc-v6 coalesced", "rsc-v4 win_update", "rsc-v6 win_update"];
  const gone = [
    "toGuest packets",
    "toGuest dropped_buffer_too_small",
    "toGuest dropped_no_queue",
    ...swallowed,
  ];
  const accounted = gone.reduce((sum, name) => sum + count(name), counters.get("net0 discarded_at_reset")!);
  const found = [...guest.errors, ...Object.keys(guest.session.faults)];
  if (port.waiting > 0) found.push(`${port.waiting} frames still wait for the device`);
  const received = port.counters.received;
  if (accounted !== received) found.push(`${received} frames came in, ${accounted} are accounted for`);
  if (pool.inUse !== 0) found.push(`${pool.inUse} frames are not back before the end`);
  await machine.close();
  if (pool.inUse !== 0) found.push(`${pool.inUse} frames are not back after the end`);
  return { found, frames: received };
}

for (const posted of [0, 3]) {
  const what = posted === 0 ? "has all the buffers it wants" : "posts too few buffers";
  Deno.test(`NetDevice under qemu rules accounts for every frame if the guest ${what} (seed ${SEED})`, async () => {
    // The reference delivers whatever it has, so the guest must take everything for its own checks to hold.
    const machine = anyMachine.map((choice) => ({ ...choice, posted, mergeable: true }));
    const steps = anyStream({ ...NASTY, reset: 2, post: posted });
    let frames = 0;
    const property = fc.asyncProperty(machine, steps, async (choice, stream) => {
      const result = await problems(choice, stream);
      frames += result.frames;
      assertEquals(result.found, []);
    });
    await fc.assert(property, { seed: SEED, numRuns: 500 });
    assertGreater(frames, 5000);
  });
}

for (const rules of ["strict", "qemu"] as const) {
  Deno.test(`NetDevice under ${rules} rules survives any bytes (seed ${SEED})`, async () => {
    const text = JSON.stringify(configOf(PLAIN_MACHINE, rules));
    const config = await parseConfig(text, import.meta.url, newRegistry());
    await using machine = buildMachine(config);
    const port = machine.devices[0].parts.network as CablePort;
    const { guest } = machine.devices[0].driver as LoopbackDriver<NetGuest>;
    machine.start();
    const type = fc.constantFrom([8, 0, 0x45], [0x86, 0xdd, 0x60], [0x81, 0, 0], [8, 0, 0x4f], [8, 6, 0]);
    const header = fc.record({
      flags: fc.nat(255),
      gsoType: fc.nat(255),
      hdrLen: fc.nat(65_535),
      gsoSize: fc.nat(65_535),
      csumStart: fc.nat(65_535),
      csumOffset: fc.nat(65_535),
    });
    const bytes = fc.uint8Array({ maxLength: 200, size: "max" });
    fc.assert(
      fc.property(bytes, type, header, fc.boolean(), (frame, [a, b, c], facts, whole) => {
        if (whole && frame.length > 24) {
          frame.set([a, b, c], 12);
          // A protocol that is looked at, half of the time.
          frame[23] = frame[20] = 6;
        }
        assert(port.inject(frame, facts));
        machine.parts.reactor.settle();
      }),
      { seed: SEED, numRuns: 3000 },
    );
    machine.drain();
    assertEquals([guest.errors, framePool(machine.parts.scope).inUse], [[], 0]);
    assertEquals(port.counters.received, 3000);
  });
}
