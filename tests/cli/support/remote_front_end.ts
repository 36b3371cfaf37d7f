/**
 * A front-end of a back-end in another process: real socket, real memory, real events.
 * @module
 */
import type { UnixStream } from "../../../host/unix_socket.ts";
import { SocketFrontEnd } from "../../../rigs/vhost_user/socket_front_end.ts";

const nothing = new Int32Array(new SharedArrayBuffer(4));

/** Talks to another process: there is nothing to turn here, but to wait for. */
export function remoteFrontEnd(stream: UnixStream): SocketFrontEnd {
  return new SocketFrontEnd(stream, {}, () => void Atomics.wait(nothing, 0, 0, 5));
}
