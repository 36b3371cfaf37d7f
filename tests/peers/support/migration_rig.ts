/**
 * Two back-ends of ours on one bridge, each with a machine and a TAP of its own, between which a guest can
 * move.
 * @module
 */
import type { Machine } from "../../../machine/machine.ts";
import type { VhostUserTransport } from "../../../transports/vhost_user/mod.ts";
import type { GuestImage } from "../../../rigs/guest_image.ts";
import { GuestRig } from "./guest_rig.ts";
import { HOST, OUR_MAC } from "../../../rigs/kernel.ts";
import type { Namespace } from "../../../rigs/namespace.ts";
import type { Need } from "../../../rigs/require.ts";
import { BareTap, TapMachine } from "./tap_rig.ts";

/** Bridges of the kernel. */
export const bridges: Need = () => {
  const making = "command -v bridge && unshare --net ip link add type bridge";
  const { success } = new Deno.Command("sh", { args: ["-c", making], stdout: "null", stderr: "null" })
    .outputSync();
  return success ? null : "the kernel makes no bridge: install iproute2 and run modprobe bridge";
};

/** One of the two places that a guest can be at. */
export class Place implements AsyncDisposable {
  /** Where its back-end listens. */
  readonly socket: string;
  /** The names of all requests that its back-end has got. */
  readonly requests: string[] = [];
  /** Packets that have got to the guest because the device was told to let go what it held. */
  drainedPackets = 0;
  readonly #running: TapMachine;

  private constructor(socket: string, running: TapMachine) {
    this.socket = socket;
    this.#running = running;
    const { device } = this.machine.devices[0];
    const drain = device.drain.bind(device);
    device.drain = (nowNs) => {
      const { packets } = this.counters("net0.toGuest");
      drain(nowNs);
      this.drainedPackets += this.counters("net0.toGuest").packets - packets;
    };
    this.driver.trace = {
      note: (event) => {
        if (event.event === "request") this.requests.push(event.message.name);
      },
    };
  }

  /** Starts a machine and puts its TAP on the bridge. */
  static async start(
    rig: GuestRig,
    name: string,
    offloads: readonly unknown[],
    device: Readonly<Record<string, unknown>>,
  ): Promise<Place> {
    const socket = `${rig.image.folder}/${name}-net.sock`;
    const machine = await TapMachine.start([rig.namespace, {
      network: { interface: name, offloads: "off" },
      device: { ...device, mac: OUR_MAC },
      guest: { use: "vhost-user", socket },
      offloads,
    }]);
    rig.namespace.ip("link", "set", name, "master", "bridge");
    return new Place(socket, machine);
  }

  /** Its machine. */
  get machine(): Machine {
    return this.#running.machine;
  }

  /** Its way to the guest. */
  get driver(): VhostUserTransport {
    return this.machine.devices[0].driver as VhostUserTransport;
  }

  /** Its counters by group, live. */
  counters(group: string): Readonly<Record<string, number>> {
    return this.machine.counters[group];
  }

  /** Stops its machine. Throws Error if that still has frames. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running[Symbol.asyncDispose]();
  }
}

/** The bridge and what is on it. */
export class MigrationRig implements AsyncDisposable {
  /** Where the guest starts. */
  readonly source: Place;
  /** Where it moves to. */
  readonly target: Place;
  /** A port of the bridge on which nothing is but what the bridge floods. */
  readonly bystander: BareTap;
  readonly #rig: GuestRig;

  private constructor(rig: GuestRig, source: Place, target: Place, bystander: BareTap) {
    this.#rig = rig;
    this.source = source;
    this.target = target;
    this.bystander = bystander;
  }

  /** Sets both places up. @param offloads stages of both devices; @param device further options of both */
  static async start(
    offloads: readonly unknown[],
    device: Readonly<Record<string, unknown>>,
  ): Promise<MigrationRig> {
    await using stack = new AsyncDisposableStack();
    const rig = stack.use(new GuestRig());
    const { namespace } = rig;
    // A port forwards at once, as loops are not looked for.
    namespace.ip("link", "add", "bridge", "type", "bridge", "forward_delay", "0");
    namespace.address("bridge", `${HOST}/24`);
    const source = stack.use(await Place.start(rig, "source", offloads, device));
    const target = stack.use(await Place.start(rig, "target", offloads, device));
    const bystander = stack.use(new BareTap(namespace, { interface: "bystander", offloads: "off" }));
    namespace.ip("link", "set", "bystander", "master", "bridge");
    stack.move();
    return new MigrationRig(rig, source, target, bystander);
  }

  /** The network with the bridge in it. */
  get namespace(): Namespace {
    return this.#rig.namespace;
  }

  /** What guests start from. */
  get image(): GuestImage {
    return this.#rig.image;
  }

  /** The port on which the bridge looks for the guest; null if it does not know. */
  get portOfGuest(): string | null {
    const entries: { mac: string; ifname: string }[] = JSON.parse(
      this.namespace.command("bridge", "-j", "fdb", "show", "br", "bridge"),
    );
    return entries.find(({ mac }) => mac === OUR_MAC)?.ifname ?? null;
  }

  /** Stops both places, and takes the network down. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.bystander[Symbol.dispose]();
    await this.target[Symbol.asyncDispose]();
    await this.source[Symbol.asyncDispose]();
    this.#rig[Symbol.dispose]();
  }
}
