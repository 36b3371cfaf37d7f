/**
 * Machines with a real guest: Linux in QEMU at our vhost-user socket, the kernel of the host at our TAP.
 */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import { streamBytes } from "../../testing/mod.ts";
import type { VhostUserTransport } from "../../transports/vhost_user/mod.ts";
import { GuestImage } from "./support/guest_image.ts";
import { HOST, OURS } from "./support/kernel.ts";
import { Namespace } from "./support/namespace.ts";
import { QemuGuest, qemuGuest } from "./support/qemu.ts";
import { hostTest } from "./support/require.ts";
import { TapMachine } from "./support/tap_rig.ts";

const MEBIBYTE = 1 << 20;
const PORT = 5001;
/** Time for a transfer; it takes a second on an idle processor. */
const TRANSFER_MS = 60_000;

for (const layout of ["split", "packed"]) {
  const name =
    `a Linux guest with ${layout} rings in QEMU pings, is pinged, and moves the same bytes both ways`;
  hostTest(name, qemuGuest, async () => {
    using rig = new Rig();
    await using machine = await rig.machine({ interface: "dv0" }, [], { packedRing: layout === "packed" });
    await using guest = await QemuGuest.start(rig.image, rig.socket, layout === "packed" ? "packed=on" : "");
    const { backend } = machine.machine.devices[0].driver as VhostUserTransport;
    assertEquals(backend?.features?.has(VIRTIO_F_RING_PACKED), layout === "packed");
    const pings = await guest.shell.run(`ping -c 5 -W 5 ${HOST}`);
    assert(pings.includes("5 packets received"), pings);
    const answers = await rig.pingGuest(5);
    assert(answers.includes("5 packets received"), answers);

    const bytes = streamBytes(0, 4 * MEBIBYTE);
    assertEquals(await rig.send(guest, bytes), await sha256(bytes));
    const [received, sum] = await rig.receive(guest, 4 * MEBIBYTE);
    assertEquals([received.length, await sha256(received)], [4 * MEBIBYTE, sum]);
    assertEquals(faults(machine), {});
  });
}

hostTest(
  "a Linux guest in QEMU receives far fewer packets than the wire carries, by rsc-v4",
  qemuGuest,
  async () => {
    using rig = new Rig();
    // Without offloads the kernel of the host hands over frames as a network card does: none above the MTU.
    await using machine = await rig.machine({ interface: "dv0", offloads: "off" }, ["rsc-v4"]);
    await using guest = await QemuGuest.start(rig.image, rig.socket);
    const bytes = streamBytes(0, 4 * MEBIBYTE);
    const before = { guest: await guest.packets(), wire: rig.framesOnWire() };
    assertEquals(await rig.send(guest, bytes), await sha256(bytes));
    const inGuest = (await guest.packets()).received - before.guest.received;
    const onWire = rig.framesOnWire() - before.wire;
    assert(onWire >= bytes.length / 1448, `${onWire} frames are too few to be of MTU size`);
    assert(inGuest * 4 < onWire, `the guest received ${inGuest} packets of ${onWire} frames`);
    assertEquals(faults(machine), {});
  },
);

/** The host's side: a network, a TAP in it, and a socket for the guest. */
class Rig implements Disposable {
  readonly namespace = new Namespace();
  readonly image = new GuestImage();
  readonly socket = `${this.image.folder}/net0.sock`;

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

  /** Sends bytes to the guest by TCP and returns the SHA-256 sum of what arrived there. */
  async send(guest: QemuGuest, bytes: Uint8Array): Promise<string> {
    const arriving = guest.shell.run(
      `nc -l -p ${PORT} >/tmp/arrived; sha256sum </tmp/arrived`,
      TRANSFER_MS,
    );
    const sending = async () => {
      using connection = await this.#connect();
      for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at, at + 200_000));
      await connection.closeWrite();
      // Its end says that everything has arrived.
      await connection.read(new Uint8Array(1));
    };
    const [sum] = await Promise.all([arriving, sending()]);
    return sum.slice(0, 64);
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

  /** Connects as soon as the guest listens, within ten seconds. */
  async #connect(): Promise<Deno.TcpConn> {
    for (let tries = 0;; tries++) {
      try {
        return await this.namespace.run(() => Deno.connect({ hostname: OURS, port: PORT }));
      } catch (error) {
        if (tries === 200) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  [Symbol.dispose](): void {
    this.image[Symbol.dispose]();
    this.namespace[Symbol.dispose]();
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(sum, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** What went against the rules of protocol and rings, by name. */
function faults({ machine }: TapMachine): Record<string, number> {
  const all = Object.values(machine.counters).flatMap((group) => Object.entries(group));
  return Object.fromEntries(all.filter(([name, value]) => /^(fault_|refused$)/.test(name) && value > 0));
}
