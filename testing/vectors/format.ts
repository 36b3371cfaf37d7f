/**
 * The format of a recorded vector: JSON lines, a head, then events (`in`) and what they were answered with
 * (`out`).
 * @module
 */
import { z } from "zod";
import { NetHeader } from "../../pipeline/frame.ts";
import type { ReceivedPacket } from "../../devices/net/driver/mod.ts";
import { readNetHeader } from "../../wire/virtio_net_header.ts";

const hex = z.string().regex(/^(?:[0-9a-f]{2})*$/i, "write an even number of hexadecimal digits");
const timeNs = z.int().min(0);

const configSchema = z.looseObject({
  features: z.array(z.union([z.string(), z.int().min(0).max(127)])).optional(),
  mrg_rxbuf: z.boolean().default(true),
  rsc_interval_ns: z.int().min(0).default(300_000),
  rx_bufs: z.int().min(1).max(32_768).default(256),
  rx_buf_len: z.int().min(1).max(1 << 20).optional(),
  rx_posted: z.int().min(0).max(32_768).optional(),
});

const headSchema = z.looseObject({
  name: z.string().min(1),
  what: z.string().default(""),
  config: configSchema.prefault({}),
  oracle: z.string().default(""),
  observed: z.array(z.string()).default([]),
});

const headerSchema = z.strictObject({
  flags: z.int(),
  gso_type: z.int(),
  hdr_len: z.int(),
  gso_size: z.int(),
  csum_start: z.int(),
  csum_offset: z.int(),
  num_buffers: z.int().nullable(),
});

const eventSchema = z.union([
  z.strictObject({ t_ns: timeNs, frame: hex, vnet_hdr: hex.optional() }),
  z.strictObject({ t_ns: timeNs, offloads: z.union([z.number().min(0), z.string()]) }),
  z.strictObject({ t_ns: timeNs, post: z.int().min(0).max(32_768) }),
]);

const outputSchema = z.union([
  z.strictObject({ t_ns: timeNs, hdr: headerSchema, frame: hex }),
  z.strictObject({ t_ns: timeNs, ctrl_ack: z.int() }),
  z.looseObject({ error: z.string() }),
]);

/** What a vector says of the guest and the device. */
export type VectorConfig = z.infer<typeof configSchema>;
/** The first line of a vector. */
export type VectorHead = z.infer<typeof headSchema>;
/** A header as recorded; `num_buffers` is null where the device did not write it. */
export type VectorHeader = z.infer<typeof headerSchema>;
/** A packet that the guest received. */
export type VectorPacket = { readonly t_ns: number; readonly hdr: VectorHeader; readonly frame: string };
/** The answer to a control command. */
export type VectorAck = { readonly t_ns: number; readonly ctrl_ack: number };

/** An event; `offloads` is the 64-bit mask. */
export type VectorEvent =
  | { readonly t_ns: number; readonly frame: string; readonly vnet_hdr?: string | undefined }
  | { readonly t_ns: number; readonly offloads: bigint }
  | { readonly t_ns: number; readonly post: number };

/** A recorded vector. */
export interface Vector {
  /** Its first line. */
  readonly head: VectorHead;
  /** What happens, in order of time. */
  readonly events: readonly VectorEvent[];
  /** The packets that were delivered, in order. */
  readonly packets: readonly VectorPacket[];
  /** The answers to control commands, in order. */
  readonly acks: readonly VectorAck[];
}

/** The features of a vector that names none. */
export const DEFAULT_FEATURES: readonly string[] = [
  "VERSION_1",
  "MAC",
  "STATUS",
  "CTRL_VQ",
  "CTRL_GUEST_OFFLOADS",
  "GUEST_CSUM",
  "GUEST_TSO4",
  "GUEST_TSO6",
  "RSC_EXT",
];

/** A file is no vector: where, and why. */
export class VectorError extends Error {
  override readonly name = "VectorError";
}

/** Reads the text of a vector; `file` is for messages. Throws VectorError naming the line. */
export function parseVector(text: string, file: string): Vector {
  const lines = text.split("\n");
  const events: VectorEvent[] = [];
  const packets: VectorPacket[] = [];
  const acks: VectorAck[] = [];
  let head: VectorHead | null = null;
  for (const [index, line] of lines.entries()) {
    if (line.trim() === "") continue;
    const where = `${file}, line ${index + 1}`;
    const value = parseLine(line, where);
    if (head === null) {
      head = check(headSchema, value, where);
    } else if (isRecord(value) && "in" in value) {
      const event = check(eventSchema, value.in, where);
      const last = events.at(-1);
      if (last !== undefined && event.t_ns < last.t_ns) {
        throw new VectorError(
          `${where}: t_ns ${event.t_ns} is before the event at ${last.t_ns}; sort the events by time`,
        );
      }
      events.push("offloads" in event ? { t_ns: event.t_ns, offloads: maskOf(line) } : event);
    } else if (isRecord(value) && "out" in value) {
      const output = check(outputSchema, value.out, where);
      if ("error" in output) {
        throw new VectorError(`${where}: the recording ended in an error: ${output.error}`);
      }
      if ("ctrl_ack" in output) acks.push(output as VectorAck);
      else packets.push(output as VectorPacket);
    } else {
      throw new VectorError(
        `${where}: neither "in" nor "out"; every line after the first must have one of them`,
      );
    }
  }
  if (head === null) {
    throw new VectorError(`${file}: is empty; a vector starts with a line that has "name" and "config"`);
  }
  return { head, events, packets, acks };
}

/** The lines of a vector. */
export function writeVector(vector: Vector): string {
  const { features: _, ...config } = vector.head.config;
  const head = { ...vector.head, config: { features: vector.head.config.features, ...config } };
  const lines = [JSON.stringify(head)];
  for (const event of vector.events) {
    lines.push(
      "offloads" in event
        // A 64-bit mask is written as a number, as recorded, which JSON.stringify cannot do.
        ? `{"in":{"t_ns":${event.t_ns},"offloads":${event.offloads}}}`
        : JSON.stringify({ in: event }),
    );
  }
  const outputs = [...vector.packets, ...vector.acks].sort((a, b) => a.t_ns - b.t_ns);
  for (const output of outputs) lines.push(JSON.stringify({ out: output }));
  return lines.join("\n") + "\n";
}

/** The virtio header that came with a frame of a vector; all 0 if none did. */
export function headerOf({ vnet_hdr = "" }: { readonly vnet_hdr?: string | undefined }): NetHeader {
  const header = new NetHeader();
  const bytes = new Uint8Array(12);
  bytes.set(fromHex(vnet_hdr).subarray(0, 12));
  readNetHeader(new DataView(bytes.buffer), 0, header);
  return header;
}

/** The virtio header of a packet; `num_buffers` is null where the device has not written it. */
export function vectorHeader(packet: ReceivedPacket): VectorHeader {
  return {
    flags: packet.flags,
    gso_type: packet.gsoType,
    hdr_len: packet.hdrLen,
    gso_size: packet.gsoSize,
    csum_start: packet.csumStart,
    csum_offset: packet.csumOffset,
    num_buffers: packet.numBuffersWritten ? packet.numBuffers : null,
  };
}

/** A packet that was delivered at `atNs`. */
export function vectorPacket(atNs: number, packet: ReceivedPacket): VectorPacket {
  return { t_ns: atNs, hdr: vectorHeader(packet), frame: toHex(packet.bytes) };
}

/** The bytes of hexadecimal digits. */
export function fromHex(digits: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(digits.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(digits.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** Hexadecimal digits of the bytes. */
export function toHex(bytes: Uint8Array): string {
  let digits = "";
  for (const byte of bytes) digits += byte.toString(16).padStart(2, "0");
  return digits;
}

function parseLine(line: string, where: string): unknown {
  try {
    return JSON.parse(line);
  } catch (cause) {
    throw new VectorError(`${where}: is not JSON: ${(cause as Error).message}`, { cause });
  }
}

function check<T>(schema: z.ZodType<T>, value: unknown, where: string): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue.path.length === 0 ? "" : `${issue.path.join(".")}: `;
  throw new VectorError(`${where}: ${path}${issue.message}`);
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** The mask, from the digits in the line: JSON.parse would round it to 53 bits. */
function maskOf(line: string): bigint {
  const digits = /"offloads"\s*:\s*"?(0x[0-9a-f]+|\d+)/i.exec(line);
  return digits === null ? 0n : BigInt.asUintN(64, BigInt(digits[1]));
}
