/**
 * What a test with a guest stands on: a network with a TAP in it, an image to start guests from, and
 * transfers between both.
 * @module
 */
import { GuestImage } from "../../../rigs/guest_image.ts";
import { HOST, OURS } from "../../../rigs/kernel.ts";
import { Namespace } from "../../../rigs/namespace.ts";
import type { QemuGuest } from "../../../rigs/qemu.ts";
import type { SerialShell } from "../../../rigs/serial.ts";
import { TapMachine } from "./tap_rig.ts";

/** Where transfers go. */
const PORT = 5001;
/** Time for a transfer; it takes a second on an idle processor. */
const TRANSFER_MS = 120_000;

/** The host's side: a network, a TAP in it, and a socket for the guest. */
export class GuestRig implements Disposable {
  readonly namespace = new Namespace();
  readonly image: GuestImage;
  /** Where the machine listens. */
  readonly socket: string;

  /** @param tools programs of this system that the guest is to have */
  constructor(tools: readonly string[] = []) {
    this.image = new GuestImage(tools);
    this.socket = `${this.image.folder}/net0.sock`;
  }

  /** Starts a machine with a TAP that has the host's address. */
  async machine(
    network: Record<string, unknown>,
    offloads: string[],
    device: Record<string, unknown> = {},
  ): Promise<TapMachine> {
    const guest = { use: "vhost-user", socket: this.socket };
    const machine = await TapMachine.start([this.namespace, { network, offloads, device, guest }]);
    this.namespace.address("dv0", `${HOST}/24`);
    return machine;
  }

  /** Pings the guest from the host's kernel. The machine goes on meanwhile. */
  async pingGuest(count: number): Promise<string> {
    const args = ["ping", "-c", String(count), "-W", "5", OURS];
    const pinging = this.namespace.run(() => new Deno.Command("busybox", { args, stdout: "piped" }).spawn());
    return new TextDecoder().decode((await pinging.output()).stdout);
  }

  /** Frames that the host's kernel has given to the TAP. */
  framesOnWire(): number {
    return JSON.parse(this.namespace.ip("-j", "-s", "link", "show", "dv0"))[0].stats64.tx.packets;
  }

  /** As {@linkcode sendTo}, in the rig's network. */
  send(guest: GuestShell, bytes: Uint8Array, to = OURS): Promise<string> {
    return sendTo(this.namespace, guest, bytes, to);
  }

  /** Has the guest send random bytes, and returns what arrived with the SHA-256 sum of what was sent. */
  async receive(guest: QemuGuest, count: number): Promise<[Uint8Array<ArrayBuffer>, string]> {
    const listener = this.namespace.run(() => Deno.listen({ hostname: HOST, port: PORT }));
    try {
      const sum = guest.shell.run(
        `head -c ${count} /dev/urandom >/tmp/sent; nc ${HOST} ${PORT} </tmp/sent >/dev/null; sha256sum </tmp/sent`,
        TRANSFER_MS,
      );
      // A guest that fails does not connect: then that is what is told.
      const connection = await Promise.race([listener.accept(), sum.then(() => listener.accept())]);
      const received = new Uint8Array(await new Response(connection.readable).arrayBuffer());
      return [received, (await sum).slice(0, 64)];
    } finally {
      listener.close();
    }
  }

  /** As {@linkcode bringBackFrom}, in the rig's network. */
  bringBack(guest: GuestShell, to = HOST, between?: string): Promise<Uint8Array<ArrayBuffer>> {
    return bringBackFrom(this.namespace, guest, to, between);
  }

  [Symbol.dispose](): void {
    this.image[Symbol.dispose]();
    this.namespace[Symbol.dispose]();
  }
}

/** What transfers need of a guest. */
export interface GuestShell {
  readonly shell: SerialShell;
}

/**
 * Sends bytes to a guest by TCP and returns the SHA-256 sum of what arrived there, and stays there in a file.
 */
export async function sendTo(
  namespace: Namespace,
  guest: GuestShell,
  bytes: Uint8Array,
  to: string,
): Promise<string> {
  const arriving = guest.shell.run(
    `nc -l -p ${PORT} >/tmp/arrived; sha256sum </tmp/arrived`,
    TRANSFER_MS,
  );
  const sending = async () => {
    using connection = await connectTo(namespace, to);
    for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at, at + 200_000));
    await connection.closeWrite();
    // Its end says that everything has arrived.
    await connection.read(new Uint8Array(1));
  };
  const [sum] = await Promise.all([arriving, sending()]);
  return sum.slice(0, 64);
}

/**
 * Has a guest send back what has last arrived there, and returns it.
 * @param between a command that the guest carries out when it has sent the first mebibyte
 */
export async function bringBackFrom(
  namespace: Namespace,
  guest: GuestShell,
  to: string,
  between?: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const inTwo = `{ head -c 1048576 /tmp/arrived; ${between} >&2; tail -c +1048577 /tmp/arrived; }`;
  const listener = namespace.run(() => Deno.listen({ hostname: to, port: PORT }));
  try {
    const source = between === undefined ? `nc ${to} ${PORT} </tmp/arrived` : `${inTwo} | nc ${to} ${PORT}`;
    const sent = guest.shell.run(`${source} >/dev/null`, TRANSFER_MS);
    const connection = await Promise.race([listener.accept(), sent.then(() => listener.accept())]);
    const received = new Uint8Array(await new Response(connection.readable).arrayBuffer());
    await sent;
    return received;
  } finally {
    listener.close();
  }
}

/** Connects as soon as the guest listens, within ten seconds. */
export async function connectTo(namespace: Namespace, hostname: string): Promise<Deno.TcpConn> {
  for (let tries = 0;; tries++) {
    try {
      return await namespace.run(() => Deno.connect({ hostname, port: PORT }));
    } catch (error) {
      if (tries === 200) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** The SHA-256 sum of bytes, in hexadecimal. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What went against the rules of protocol and rings, by name. */
export function faults({ machine }: TapMachine): Record<string, number> {
  return faultsIn(machine.counters);
}

/** As {@linkcode faults}, of counters by group. */
export function faultsIn(
  counters: Readonly<Record<string, Readonly<Record<string, number>>>>,
): Record<string, number> {
  const all = Object.values(counters).flatMap((group) => Object.entries(group));
  return Object.fromEntries(all.filter(([name, value]) => /^(fault_|refused$)/.test(name) && value > 0));
}
