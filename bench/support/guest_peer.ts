/**
 * A guest in QEMU with a network device and a TAP, in a network of its own: either our device in a process of
 * its own, or the device that is part of QEMU. All else is the same. It is stopped between its turns, so that
 * it takes no time from the others.
 * @module
 */
import type { GuestImage } from "../../rigs/guest_image.ts";
import { HOST, OUR_MAC, OURS } from "../../rigs/kernel.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { QemuGuest } from "../../rigs/qemu.ts";
import type { QemuProgram } from "../../rigs/qemu_program.ts";
import type { Backend } from "./backend.ts";
import { startGuestBackend } from "./guest_backend.ts";

const TAP = "dv0";
/** Two rings, configuration space and the control queue; the back-end's device has as many. */
const VECTORS = 4;
/**
 * Counters that must be 0 in the end: rules broken, and frames lost that neither side could be blamed for.
 */
const FAULT = /^(fault_|refused$|badHeader$|tooLong$|truncated$|unfinished$)/;

/**
 * What the host hands to the TAP: frames of MTU size with all checksums, as from a network card, or large
 * ones without.
 */
export type Wire = "mtu" | "large";

/** Our device, as it is to be. */
export interface OurDevice {
  /** Who works its queues. */
  readonly mode: "loop" | "threads";
  /** How long coalescing holds a segment, in µs; null without coalescing. */
  readonly intervalUs: number | null;
  /** How long it polls at most before it sleeps, in µs; left out: not at all. */
  readonly pollMaxUs?: number;
  /**
   * False: what is held waits for the interval even if the network has nothing more. Left out: it does not.
   */
  readonly flushOnIdle?: boolean;
}

/** What goes out to the TAP and what comes in, as the kernel counts it. */
export interface Traffic {
  /** Frames that the host has given to the TAP. */
  readonly frames: number;
  /** Their bytes. */
  readonly bytes: number;
  /** Packets that the guest's driver has received. */
  readonly guestPackets: number;
}

/** One guest and its device. Killed with this object. */
export class GuestPeer implements AsyncDisposable {
  /** What it is called in tables. */
  readonly name: string;
  /** What works the device; null for QEMU itself. */
  readonly device: OurDevice | null;
  readonly #namespace: Namespace;
  readonly #guest: QemuGuest;
  readonly #backend: Backend | null;
  readonly #owned: AsyncDisposableStack;

  private constructor(
    name: string,
    device: OurDevice | null,
    parts: { namespace: Namespace; guest: QemuGuest; backend: Backend | null },
    owned: AsyncDisposableStack,
  ) {
    this.name = name;
    this.device = device;
    this.#namespace = parts.namespace;
    this.#guest = parts.guest;
    this.#backend = parts.backend;
    this.#owned = owned;
  }

  /**
   * Starts one, and has it stand still. Throws Error with the last words of who does not start.
   * @param id names its files; @param device ours, or null for QEMU's own
   */
  static async start(
    image: GuestImage,
    qemu: QemuProgram,
    id: string,
    name: string,
    device: OurDevice | null,
  ): Promise<GuestPeer> {
    await using owned = new AsyncDisposableStack();
    const namespace = owned.use(new Namespace());
    const socket = device === null ? null : `${image.folder}/${id}.sock`;
    const backend = device === null
      ? null
      : owned.use(await startGuestBackend(namespace, `${image.folder}/${id}.json`, config(device, socket!)));
    const args = device === null ? ownArgs(qemu) : [];
    // Up to its first promise it is in the network: QEMU finds its TAP there.
    const starting = namespace.run(() => QemuGuest.start(image, socket, { name: id, qemu, args }));
    const guest = owned.use(await starting);
    namespace.address(TAP, `${HOST}/24`);
    // Datagrams are to be lost on their way, not for want of a guest's program that reads them in time.
    await guest.shell.run("echo 8388608 >/proc/sys/net/core/rmem_default");
    await serve(guest, IPERF3_PORT, "iperf3 -s");
    await serve(guest, ECHO_PORT, `perl -e '${ECHO}'`);
    await guest.qmp.run("stop");
    return new GuestPeer(name, device, { namespace, guest, backend }, owned.move());
  }

  /** Runs a measurement while it is awake. */
  async turn<T>(wire: Wire, measure: () => Promise<T>): Promise<T> {
    const on = wire === "mtu" ? "off" : "on";
    // The kernel gives up large frames with checksums by itself, but does not take them up again.
    this.#namespace.command("ethtool", "-K", TAP, "tx", on, "sg", on, "tso", on, "gso", on);
    await this.#guest.qmp.run("cont");
    try {
      const answers = await this.onHost(15_000, "busybox", "ping", "-A", "-c", "3", "-W", "5", OURS);
      if (!answers.includes("3 packets received")) {
        throw new Error(`${this.name} does not answer: ${answers}`);
      }
      return await measure();
    } finally {
      await this.#guest.qmp.run("stop");
    }
  }

  /**
   * Runs a program in the host's network to its end and returns what it printed. Throws Error with that if it
   * fails.
   */
  async onHost(limitMs: number, program: string, ...args: string[]): Promise<string> {
    const signal = AbortSignal.timeout(limitMs);
    const child = this.#namespace.run(() =>
      new Deno.Command(program, { args, signal, stdin: "null", stdout: "piped", stderr: "piped" }).spawn()
    );
    const { success, stdout, stderr } = await child.output();
    const [printed, complaint] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    if (success) return printed;
    throw new Error(
      `${this.name}: ${program} ${args.join(" ")} within ${limitMs} ms: ${printed}${complaint}`,
    );
  }

  /** What has passed so far from the host to the guest. */
  async traffic(): Promise<Traffic> {
    const [{ stats64: { tx } }] = JSON.parse(this.#namespace.ip("-j", "-s", "link", "show", TAP));
    return { frames: tx.packets, bytes: tx.bytes, guestPackets: (await this.#guest.packets()).received };
  }

  /** Ends it in good order. Throws Error if the device broke a rule or found one broken. */
  async end(): Promise<void> {
    await this.#guest[Symbol.asyncDispose]();
    const counters = Object.values(await this.#backend?.stop() ?? {});
    const faults = counters.flatMap((group) => Object.entries(group))
      .filter(([name, value]) => FAULT.test(name) && value > 0);
    if (faults.length > 0) throw new Error(`${this.name} has counted faults: ${JSON.stringify(faults)}`);
  }

  /** Kills what still runs. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#owned.disposeAsync();
  }
}

/** Where the guest sends back what it gets by TCP. */
export const ECHO_PORT = 5007;
/** Where iperf3 listens unless told otherwise. */
const IPERF3_PORT = 5201;

const ECHO = `socket L,2,1,0; setsockopt L,1,2,pack("l",1); ` +
  `bind L,pack("Snx12",2,${ECHO_PORT}) or die $!; listen L,5; ` +
  `while(accept C,L){ while(sysread C,$d,4096){ syswrite C,$d } close C }`;

/** Starts a server in the guest, and waits until it listens. */
async function serve(guest: QemuGuest, port: number, command: string): Promise<void> {
  const listens = `grep -q ":${
    port.toString(16).toUpperCase().padStart(4, "0")
  } " /proc/net/tcp /proc/net/tcp6`;
  await guest.shell.run(`(${command} >/tmp/${port}.log 2>&1 &); until ${listens}; do usleep 20000; done`);
}

function config({ mode, intervalUs, flushOnIdle, pollMaxUs = 0 }: OurDevice, socket: string): unknown {
  const coalescing = ["rsc-v4", "rsc-v6"].map((use) => ({ use, intervalUs, flushOnIdle }));
  return {
    pollMaxUs,
    devices: [{
      use: "net",
      mac: OUR_MAC,
      mode,
      driver: { use: "vhost-user", socket, profile: "qemu" },
      network: { use: "tap", interface: TAP },
      offloads: ["checksum", ...intervalUs === null ? [] : coalescing],
    }],
  };
}

function ownArgs({ takesMsix }: QemuProgram): string[] {
  const vectors = takesMsix ? VECTORS : 0;
  return [
    "-netdev",
    `tap,id=net0,ifname=${TAP},script=no,downscript=no,vhost=off`,
    "-device",
    `virtio-net-pci,netdev=net0,mac=${OUR_MAC},vectors=${vectors},romfile=`,
  ];
}
