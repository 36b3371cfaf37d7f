/**
 * What a unit says of its segments under strict rules, beyond what every chain keeps.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import { TCP_PSH } from "../../wire/tcp.ts";
import type { Segment } from "./segment.ts";
import type { Unit } from "./unit.ts";

/** A unit that the segment in `frame` opens. */
export function openStrict(unit: Unit, frame: Frame, segment: Segment): void {
  unit.segments = segment.payloadBytes > 0 ? 1 : 0;
  unit.traits = segment.traits;
  unit.macs0 = frame.view.getInt32(frame.start);
  unit.macs1 = frame.view.getInt32(frame.start + 4);
  unit.macs2 = frame.view.getInt32(frame.start + 8);
  unit.outerTag = segment.outerTag;
  unit.innerTag = segment.innerTag;
  unit.queue = frame.queue;
  unit.hopLimit = segment.hopLimit;
  unit.largestSegmentBytes = segment.payloadBytes;
  unit.hasTimestamp = segment.hasTimestamp;
  unit.tsValue = segment.tsValue;
  unit.tsEcho = segment.tsEcho;
}

/** The unit takes over what the latest segment says. PSH once said stays said. */
export function takeOver(unit: Unit, segment: Segment): void {
  unit.ack = segment.ack;
  unit.window = segment.window;
  unit.offsetFlags = segment.offsetFlags | unit.offsetFlags & TCP_PSH;
  if (segment.hopLimit < unit.hopLimit) unit.hopLimit = segment.hopLimit;
  unit.tsValue = segment.tsValue;
  unit.tsEcho = segment.tsEcho;
}
