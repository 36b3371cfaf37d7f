/**
 * The dialogue of front-end and back-end, message by message, for people and for programs.
 * @module
 */
import { featureName, FeatureSet } from "../../core/features.ts";
import { HEADER_BYTES, type Message, type Payload, protocolFeatureName, Request } from "./messages.ts";

/** One thing that was said or that happened. */
export type TraceEvent =
  | { readonly event: "connected" | "disconnected"; readonly reason?: string }
  /** A request of the front-end. */
  | { readonly event: "request"; readonly message: Message }
  /** A request that was refused: broken, unknown, or impossible. */
  | { readonly event: "refused"; readonly id: number; readonly name: string; readonly reason: string }
  /** A reply to it: bytes as sent, header included. */
  | { readonly event: "reply"; readonly id: number; readonly name: string; readonly bytes: Uint8Array }
  /** A request of the back-end. */
  | { readonly event: "back-end request"; readonly name: string; readonly ring: number | null };

/** Listens to a dialogue. */
export interface ProtocolTrace {
  /** Something was said. Must not throw. */
  note(event: TraceEvent): void;
}

/** The names of a device type's own feature bits: `Device.featureNames`. */
type FeatureNames = ReadonlyMap<number, string>;

/**
 * Writes a dialogue as readable lines.
 * @param write takes a line, without its end
 * @param names the names of the device's own feature bits
 */
export function textTrace(write: (line: string) => void, names: FeatureNames = new Map()): ProtocolTrace {
  return { note: (event) => write(textOf(event, names)) };
}

/**
 * Writes a dialogue as one JSON object a line.
 * @param write takes a line, without its end
 * @param facts what stands in every line besides, such as the time
 * @param names the names of the device's own feature bits
 */
export function jsonTrace(
  write: (line: string) => void,
  facts: () => Readonly<Record<string, unknown>> = () => ({}),
  names: FeatureNames = new Map(),
): ProtocolTrace {
  return { note: (event) => write(JSON.stringify({ ...facts(), ...jsonOf(event, names) })) };
}

/** The event as a readable line; `>` is to the back-end, `<` from it. */
export function textOf(event: TraceEvent, names: FeatureNames): string {
  switch (event.event) {
    case "request": {
      const { name, needReply, payload, descriptors, id } = event.message;
      const facts = factsText(payloadFacts(id, payload, names));
      if (descriptors > 0) facts.push(`fds=${descriptors}`);
      if (needReply) facts.push("need_reply");
      return [`> ${name}`, ...facts].join(" ");
    }
    case "refused":
      return `! ${event.name} refused: ${event.reason}`;
    case "reply":
      return [`< ${event.name}`, ...factsText(replyFacts(event.id, event.bytes, names))].join(" ");
    case "back-end request":
      return event.ring === null ? `< ${event.name}` : `< ${event.name} index=${event.ring}`;
    default:
      return event.reason === undefined ? `- ${event.event}` : `- ${event.event}: ${event.reason}`;
  }
}

/** The event as plain JSON. */
function jsonOf(event: TraceEvent, names: FeatureNames): Record<string, unknown> {
  switch (event.event) {
    case "request": {
      const { id, name, needReply, descriptors, payload } = event.message;
      return { event: "request", id, name, needReply, fds: descriptors, ...payloadFacts(id, payload, names) };
    }
    case "reply":
      return { event: "reply", id: event.id, name: event.name, ...replyFacts(event.id, event.bytes, names) };
    default:
      return { ...event };
  }
}

function payloadFacts(id: number, payload: Payload, names: FeatureNames): Record<string, unknown> {
  const { kind, ...facts } = payload;
  if (payload.kind === "bits") {
    return { value: payload.bits.toString(), ...bitNames(id, payload.bits, names) };
  }
  if (payload.kind === "config") return { ...facts, bytes: hexOf(payload.bytes) };
  return kind === "none" ? {} : facts;
}

/** What a reply says, header left out; what has no form of its own is shown byte by byte. */
function replyFacts(id: number, bytes: Uint8Array, names: FeatureNames): Record<string, unknown> {
  const view = new DataView(bytes.buffer, bytes.byteOffset + HEADER_BYTES, bytes.length - HEADER_BYTES);
  if (view.byteLength !== 8) return { payload: hexOf(bytes.subarray(HEADER_BYTES)) };
  const words = [view.getUint32(0, true), view.getUint32(4, true)];
  if (id === Request.GET_VRING_BASE) return { index: words[0], num: words[1] };
  const bits = FeatureSet.fromWords(...words);
  return { value: bits.toString(), ...bitNames(id, bits, names) };
}

function bitNames(id: number, bits: FeatureSet, names: FeatureNames): Record<string, unknown> {
  switch (id) {
    case Request.GET_FEATURES:
    case Request.SET_FEATURES:
      return { names: Array.from(bits, (bit) => nameOfFeature(bit, names)) };
    case Request.GET_PROTOCOL_FEATURES:
    case Request.SET_PROTOCOL_FEATURES:
      return { names: Array.from(bits, protocolFeatureName) };
    default:
      return {};
  }
}

function factsText(facts: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(facts).map(([key, value]) => `${key}=${shown(value)}`);
}

function nameOfFeature(bit: number, names: FeatureNames): string {
  if (bit === 26) return "LOG_ALL";
  return bit === 30 ? "PROTOCOL_FEATURES" : featureName(bit, names);
}

function shown(value: unknown): string {
  if (typeof value === "number" && value > 0xffff) return `0x${value.toString(16)}`;
  if (Array.isArray(value)) return `[${value.map(shown).join(",")}]`;
  if (typeof value !== "object" || value === null) return String(value);
  return `{${Object.entries(value).map(([key, inner]) => `${key}=${shown(inner)}`).join(" ")}}`;
}

function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
