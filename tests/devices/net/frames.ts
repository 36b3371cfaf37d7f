/** Frames for the tests of steering and hashing. @module */

/** What a frame is made of. Addresses are bytes: 4 or 16 of them. */
export interface FrameParts {
  readonly source: readonly number[];
  readonly destination: readonly number[];
  readonly ports?: readonly [number, number];
  readonly protocol?: number;
  /** IPv4: the word of flags and fragment offset. */
  readonly fragment?: number;
  /** IPv6: extension headers, whole, the first one's type first. */
  readonly extensions?: readonly (readonly [type: number, bytes: readonly number[]])[];
  /** VLAN tags, as pairs of words. */
  readonly tags?: readonly (readonly [number, number])[];
  /** Bytes before the frame in its array. */
  readonly before?: number;
  /** Bytes behind the ports that belong to the packet; default 16, so that a TCP header is whole. */
  readonly rest?: number;
  /** Bytes behind the packet. */
  readonly padding?: number;
}

/** A frame in an array, and where it is. */
export interface Placed {
  readonly bytes: Uint8Array;
  readonly start: number;
  readonly length: number;
}

export const TCP = 6;
export const UDP = 17;

/** The key of the published verification suite for RSS. */
export const PUBLISHED_KEY: Uint8Array = Uint8Array.from(
  "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa".match(/../g)!,
  (pair) => parseInt(pair, 16),
);

/** `a.b.c.d` as bytes. */
export function v4(text: string): number[] {
  return text.split(".").map(Number);
}

/** An IPv6 address, `::` allowed, as bytes. */
export function v6(text: string): number[] {
  const [head, tail] = text.split("::");
  const words = (part: string | undefined) => part ? part.split(":").map((word) => parseInt(word, 16)) : [];
  const front = words(head);
  const back = words(tail);
  const all = [...front, ...new Array(8 - front.length - back.length).fill(0), ...back];
  return all.flatMap((word) => [word >>> 8, word & 255]);
}

/** Builds the frame. */
export function frame(parts: FrameParts): Placed {
  const ipv4 = parts.source.length === 4;
  const protocol = parts.protocol ?? TCP;
  const ports = parts.ports?.flatMap((port) => [port >>> 8, port & 255]) ?? [];
  const payload = [...ports, ...new Array(parts.rest ?? 16).fill(0)];
  const packet = ipv4 ? ipv4Packet(parts, protocol, payload) : ipv6Packet(parts, protocol, payload);
  const tags = (parts.tags ?? []).flatMap(([type, id]) => [type >>> 8, type & 255, id >>> 8, id & 255]);
  const bytes = Uint8Array.from([
    ...new Array(parts.before ?? 0).fill(0xee),
    ...[0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2],
    ...tags,
    ...(ipv4 ? [0x08, 0x00] : [0x86, 0xdd]),
    ...packet,
    ...new Array(parts.padding ?? 0).fill(0),
  ]);
  return { bytes, start: parts.before ?? 0, length: bytes.length - (parts.before ?? 0) };
}

/** The same flow, the other way round. */
export function reversed(parts: FrameParts): FrameParts {
  const { source, destination, ports } = parts;
  const back = { ...parts, source: destination, destination: source };
  return ports === undefined ? back : { ...back, ports: [ports[1], ports[0]] };
}

function ipv4Packet(parts: FrameParts, protocol: number, payload: number[]): number[] {
  const total = 20 + payload.length;
  const fragment = parts.fragment ?? 0x4000;
  return [
    ...[0x45, 0, total >>> 8, total & 255, 0, 1, fragment >>> 8, fragment & 255, 64, protocol, 0, 0],
    ...parts.source,
    ...parts.destination,
    ...payload,
  ];
}

function ipv6Packet(parts: FrameParts, protocol: number, payload: number[]): number[] {
  const extensions = parts.extensions ?? [];
  const types = [...extensions.map(([type]) => type), protocol];
  const chain = extensions.flatMap(([, bytes], i) => [types[i + 1], ...bytes.slice(1)]);
  const length = chain.length + payload.length;
  return [
    ...[0x60, 0, 0, 0, length >>> 8, length & 255, types[0], 64],
    ...parts.source,
    ...parts.destination,
    ...chain,
    ...payload,
  ];
}
