/**
 * What a socket that another program has passed on is.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { checked } from "../../host/errno.ts";
import { factsOfDescriptor } from "../../host/file_facts.ts";
import { libc } from "../../host/libc.ts";

const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;

/** Does this socket wait for connections? Otherwise it is one. Throws HostError for a descriptor that is no socket. */
export function isListening(fd: number): boolean {
  const attempt = `use file descriptor ${fd} as a vhost-user socket`;
  if (!factsOfDescriptor(fd).isSocket) {
    throw new HostError(`Cannot ${attempt}: it is something else; pass a Unix stream socket`);
  }
  const value = new Uint8Array(4);
  const length = new Uint8Array(new Uint32Array([value.length]).buffer);
  checked(libc().getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, value, length), attempt);
  return value[0] !== 0;
}
