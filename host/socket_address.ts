/**
 * Addresses of Unix sockets.
 * @module
 */
import { HostError } from "../core/errors.ts";

/** Unix sockets. */
export const AF_UNIX = 1;
/** A stream of bytes. */
export const SOCK_STREAM = 1;
/** Most bytes of a path, without the zero byte behind it. */
export const LONGEST_SOCKET_PATH = 107;

/** struct sockaddr_un for this path. Throws HostError for one that is empty, too long, or has a zero byte in it. */
export function unixAddress(path: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(path);
  if (bytes.length === 0 || bytes.length > LONGEST_SOCKET_PATH || bytes.includes(0)) {
    throw new HostError(
      `Cannot use ${
        JSON.stringify(path)
      } as a socket: its path has ${bytes.length} bytes, and must have 1 to ` +
        `${LONGEST_SOCKET_PATH}, none of them zero; use a shorter folder or a relative path`,
    );
  }
  const address = new Uint8Array(2 + bytes.length + 1);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(bytes, 2);
  return address;
}
