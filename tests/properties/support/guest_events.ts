/**
 * What happens to a machine under test besides frames: what its guest does, and its link.
 * @module
 */
import { FeatureSet } from "../../../core/features.ts";
import { offloadMask } from "./guest_state.ts";
import { guestOptionsOf } from "./machine.ts";
import { Packet } from "./packet.ts";
import type { Rig } from "./rig.ts";
import { type EventKind, successor } from "./scenario.ts";

const CTRL_VQ = 17;
const CTRL_RX = 18;
const MQ = 22;

/** Has an event happen, if it can, with all that follows from it at that moment. */
export function happen(rig: Rig, kind: EventKind, detail: number): void {
  const { guest } = rig.driver;
  const { state } = rig.judge.epoch;
  switch (kind) {
    case "offloads":
      if (state.has(CTRL_VQ)) setOffloads(rig, offloadMask(detail));
      return;
    case "post":
      guest.postReceiveBuffers(1 + detail % 40, (detail >>> 8) % rig.choice.pairs);
      rig.witness?.post(rig.nowNs, 1 + detail % 40);
      return rig.settle();
    case "reset":
      return reset(rig, detail);
    case "link":
      return rig.setLink((detail & 1) === 1);
    case "promiscuous": {
      if (!state.has(CTRL_RX)) return;
      const on = (detail & 1) === 1;
      rig.obeyed(guest.setReceiveMode("promisc", on), true);
      state.promiscuous = on;
      return;
    }
    case "pairs":
      // Between queues there is no order, and what waits for buffers stays where it is.
      if (rig.choice.pairs === 1 || !state.has(MQ) || rig.starved) return;
      rig.judge.epoch.queuesChange = true;
      return rig.obeyed(guest.setQueuePairs(1 + detail % rig.choice.pairs), true);
    case "send":
      return send(rig, detail);
  }
}

function setOffloads(rig: Rig, mask: readonly number[]): void {
  rig.witness?.offloads(rig.nowNs, mask);
  const command = rig.driver.guest.setGuestOffloads(FeatureSet.of(...mask));
  rig.obeyed(command, rig.judge.epoch.state.setOffloads(mask));
}

/** The guest sends a frame of its own, to an address that is not in the traffic. */
function send(rig: Rig, detail: number): void {
  const packet = new Packet();
  packet.protocol = 17;
  packet.source = 200;
  packet.destination = 201;
  packet.payloadBytes = detail % 1400;
  packet.seq = detail >>> 0;
  const frame = packet.write();
  const counters = rig.machine.counters["net0.fromGuest"];
  const before = counters.dropped_link_down;
  const sent = rig.driver.guest.send(frame, {}, 0);
  if (sent && rig.linkUp) rig.judge.sent(frame);
  rig.settle();
  const dropped = counters.dropped_link_down - before;
  if (dropped !== (sent && !rig.linkUp ? 1 : 0)) {
    rig.judge.violations.push(`${dropped} frames sent were dropped`);
  }
}

/** Another driver takes the device over, perhaps with other features and rings. */
function reset(rig: Rig, detail: number): void {
  const { guest } = rig.driver;
  rig.settle();
  guest.detach();
  rig.judge.endEpoch(rig.choice, rig.starved, true);
  const choice = successor(rig.choice, detail);
  Object.assign(guest.options, guestOptionsOf(choice));
  guest.attach(rig.device);
  rig.attached(choice);
}
