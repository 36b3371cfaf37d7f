/**
 * One direction of a TCP connection, segment by segment.
 * @module
 */
import { tcp, type TcpFields } from "./tcp_packet.ts";

/**
 * Makes the segments of a flow: each begins where the one before it ended.
 *
 * @example
 * ```ts
 * import { parseTcp } from "./parse_tcp.ts";
 * import { TcpStream } from "./tcp_stream.ts";
 * const stream = new TcpStream({ sourcePort: 5001, seq: 0xffffffc0 });
 * stream.next(100);
 * if (parseTcp(stream.next(100)).seq !== 0x24) throw new Error("unreachable");
 * ```
 */
export class TcpStream {
  readonly #fields: TcpFields;
  #seq: number;

  /** Starts at the first sequence number. @param fields what all segments have in common, and the first sequence number (default 1000) */
  constructor(fields: TcpFields = {}) {
    this.#fields = fields;
    this.#seq = fields.seq ?? 1000;
  }

  /** The sequence number of the next segment. */
  get seq(): number {
    return this.#seq;
  }

  /** The next segment, with this payload. @param changes what only this segment has */
  next(payload: number | Uint8Array, changes: TcpFields = {}): Uint8Array<ArrayBuffer> {
    const frame = tcp({ ...this.#fields, ...changes, seq: this.#seq, payload });
    this.#seq = (this.#seq + (typeof payload === "number" ? payload : payload.length)) >>> 0;
    return frame;
  }
}
