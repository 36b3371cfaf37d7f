import { assertEquals } from "@std/assert";
import { FileDescriptor } from "../host/descriptors.ts";
import { libc } from "../host/libc.ts";
import type { Namespace } from "./namespace.ts";

/**
 * The kernel as the peer of a TAP: its addresses, sockets and facts.
 */

/** The address of the host's side. */
export const HOST = "10.9.0.1";
/** The address of our side. */
export const OURS = "10.9.0.2";
/** The MAC address of our side: that of the first device. */
export const OUR_MAC = "52:54:00:00:00:01";

/** Facts about an interface, as `ip` tells them. */
export interface LinkFacts {
  readonly mtu: number;
  readonly address: string;
  readonly flags: readonly string[];
  readonly linkinfo: {
    info_data: { vnet_hdr: boolean; multi_queue: boolean; persist: boolean; numqueues?: number };
  };
  readonly stats64: { rx: { packets: number }; tx: { dropped: number } };
}

/** What the kernel says of an interface. */
export function link(namespace: Namespace, name: string): LinkFacts {
  return JSON.parse(namespace.ip("-j", "-d", "-s", "link", "show", name))[0];
}

/** The names of all interfaces. */
export function interfaces(namespace: Namespace): string[] {
  return JSON.parse(namespace.ip("-j", "link")).map(({ ifname }: { ifname: string }) => ifname);
}

/** A namespace with a TAP that has an address, to which our end is a known neighbour. */
export function addressed(namespace: Namespace, name: string, mac = OUR_MAC): void {
  namespace.address(name, `${HOST}/24`);
  namespace.ip("neigh", "replace", OURS, "lladdr", mac, "dev", name);
}

/** Is this a UDP datagram over IPv4? */
export function isUdp(bytes: Uint8Array): boolean {
  return bytes[12] === 8 && bytes[13] === 0 && bytes[23] === 17;
}

/** Sends datagrams by the kernel. */
export function udpSocket(
  namespace: Namespace,
  bytes = 0,
): { send(to: string, port: number, count?: number): void } {
  const payload = "x".repeat(bytes);
  return {
    send: (to, port, count = 1) => {
      namespace.command(
        "bash",
        "-c",
        `for i in $(seq ${count}); do printf '${payload}' >/dev/udp/${to}/${port}; done`,
      );
    },
  };
}

/** Time of the processor that a process has used, this one if none is named, in units of 10 ms. */
export function processorTicks(process: number | "self" = "self"): number {
  const fields = Deno.readTextFileSync(`/proc/${process}/stat`).replace(/^.*\) /, "").split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/** A UDP socket of the kernel, bound to a port, which does not wait. */
export function udpReceiver(namespace: Namespace, port: number): FileDescriptor {
  const [AF_INET, SOCK_DGRAM] = [2, 2];
  const address = Uint8Array.of(AF_INET, 0, port >> 8, port & 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  return namespace.run(() => {
    const socket = new FileDescriptor(libc().socket(AF_INET, SOCK_DGRAM, 0));
    socket.makeNonBlocking();
    assertEquals(libc().bind(socket.number, address, address.length), 0);
    return socket;
  });
}

/** Moves bytes over TCP from the kernel of one network to that of another, and returns how they arrived. */
export async function transfer(
  from: Namespace,
  to: Namespace,
  address: string,
  bytes: Uint8Array,
): Promise<Uint8Array> {
  const listener = to.run(() => Deno.listen({ hostname: address, port: 5001 }));
  try {
    // The socket is made before the first promise: within the namespace.
    const connecting = from.run(() => Deno.connect({ hostname: address, port: 5001 }));
    const [client, server] = await Promise.all([connecting, listener.accept()]);
    const sending = (async () => {
      for (let at = 0; at < bytes.length;) at += await client.write(bytes.subarray(at, at + 200_000));
      await client.closeWrite();
    })();
    const received = new Uint8Array(await new Response(server.readable).arrayBuffer());
    await sending;
    client.close();
    return received;
  } finally {
    listener.close();
  }
}

/**
 * What a process spends in the quietest of up to fifteen seconds, in units of 10 ms. A runtime that has just
 * begun collects garbage and compiles in the background; what never rests shows in every second.
 */
export async function quietestSecond(pid?: number): Promise<number> {
  let least = Infinity;
  for (let tries = 0; tries < 15 && least > 1; tries++) {
    const before = processorTicks(pid);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    least = Math.min(least, processorTicks(pid) - before);
  }
  return least;
}
