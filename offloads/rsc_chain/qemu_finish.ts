/**
 * Writes into a unit that is about to leave what merging has changed, under the reference's rules.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import { TCP_ACK_NUMBER, TCP_OFFSET_FLAGS, TCP_WINDOW } from "../../wire/tcp.ts";
import { VIRTIO_NET_HDR_F_RSC_INFO, VIRTIO_NET_HDR_GSO_NONE } from "../../wire/virtio_net_header.ts";
import type { RscFamily } from "./family.ts";
import type { Unit } from "./unit.ts";

/** Completes the headers of a unit; its checksums stay as they were. Nothing is left of what the network said of it. */
export function finishQemu(unit: Unit, frame: Frame, family: RscFamily): void {
  const { view, header } = frame;
  header.flags = 0;
  header.gsoType = VIRTIO_NET_HDR_GSO_NONE;
  if (!unit.changed) return;
  view.setUint16(unit.tcpAt + TCP_OFFSET_FLAGS, unit.offsetFlags);
  view.setInt32(unit.tcpAt + TCP_ACK_NUMBER, unit.ack);
  view.setUint16(unit.tcpAt + TCP_WINDOW, unit.window);
  family.finish(view, unit, false);
  header.flags = VIRTIO_NET_HDR_F_RSC_INFO;
  header.gsoType = family.gsoType;
  header.csumStart = unit.segments;
  header.csumOffset = 0;
}
