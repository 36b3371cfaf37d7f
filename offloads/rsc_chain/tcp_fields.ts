/**
 * Reading the TCP header of a located segment: the same for both families.
 * @module
 */
import type { Frame } from "../../core/frame.ts";
import {
  TCP_ACK_NUMBER,
  TCP_OFFSET_FLAGS,
  TCP_SEQ,
  TCP_TIMESTAMP_BLOCK,
  TCP_TIMESTAMP_ECHO,
  TCP_TIMESTAMP_HEADER_BYTES,
  TCP_TIMESTAMP_VALUE,
  TCP_WINDOW,
  tcpHeaderBytes,
} from "../../wire/tcp.ts";
import type { Segment } from "./segment.ts";

/** Reads the fixed TCP header at `segment.tcpAt`, whose 20 bytes are there; `tcpBytes` is what the IP length leaves for TCP. */
export function readTcp(view: DataView, segment: Segment, tcpBytes: number): void {
  const at = segment.tcpAt;
  const offsetFlags = view.getUint16(at + TCP_OFFSET_FLAGS);
  const headerBytes = tcpHeaderBytes(offsetFlags);
  segment.seq = view.getInt32(at + TCP_SEQ);
  segment.ack = view.getInt32(at + TCP_ACK_NUMBER);
  segment.offsetFlags = offsetFlags;
  segment.window = view.getUint16(at + TCP_WINDOW);
  segment.tcpHeaderBytes = headerBytes;
  segment.payloadAt = at + headerBytes;
  segment.payloadBytes = tcpBytes - headerBytes;
}

/** Reads the timestamp block, if the options are that block and nothing else; all header bytes are there. */
export function readTimestamp(view: DataView, segment: Segment): void {
  const at = segment.tcpAt;
  segment.hasTimestamp = segment.tcpHeaderBytes === TCP_TIMESTAMP_HEADER_BYTES &&
    view.getInt32(at + 20) === TCP_TIMESTAMP_BLOCK;
  if (segment.hasTimestamp) {
    segment.tsValue = view.getInt32(at + TCP_TIMESTAMP_VALUE);
    segment.tsEcho = view.getInt32(at + TCP_TIMESTAMP_ECHO);
  }
}

/** Where the bytes of a frame in one piece end, in its storage. */
export function endOf(frame: Frame): number {
  return frame.start + frame.length;
}
