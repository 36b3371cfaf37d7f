/**
 * A machine whose queue pairs are worked by threads, behind a vhost-user socket, with a front-end of the
 * tests or testpmd in front, and sockets of the test behind.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { newRegistry } from "../../../config/builtins.ts";
import { parseConfig } from "../../../config/load.ts";
import { UnixStream } from "../../../host/unix_socket.ts";
import { buildMachine } from "../../../machine/build.ts";
import type { Machine } from "../../../machine/machine.ts";
import type { VhostUserTransport } from "../../../transports/vhost_user/mod.ts";
import type { GuestLayout } from "../../../rigs/vhost_user/guest.ts";
import { SocketFrontEnd } from "../../../rigs/vhost_user/socket_front_end.ts";
import { type FarEnd, farEnds } from "./socket_network.ts";
import { until } from "./tap_rig.ts";
import { framePool } from "../../../pipeline/kinds.ts";

const SOCKETS = new URL("./socket_network.ts", import.meta.url).href;

/** A machine that runs by itself. */
export class ThreadsRig implements AsyncDisposable {
  readonly machine: Machine;
  readonly folder: string;
  readonly socket: string;
  readonly running: Promise<void>;
  readonly #stop = new AbortController();

  private constructor(machine: Machine, folder: string) {
    this.machine = machine;
    this.folder = folder;
    this.socket = `${folder}/net0.sock`;
    machine.start();
    this.running = machine.run(this.#stop.signal);
    // The failure is told when it is stopped.
    this.running.catch(() => {});
  }

  /** Starts a machine with one device, and others `beside` it, and waits until its threads work. */
  static async start(
    { offloads = [], beside = [], whole = {}, ...device }: {
      offloads?: unknown[];
      beside?: unknown[];
      whole?: Record<string, unknown>;
      [option: string]: unknown;
    } = {},
  ): Promise<ThreadsRig> {
    const net = { use: "net", mac: "52:54:00:00:00:01", network: { use: SOCKETS }, offloads };
    return await ThreadsRig.startDevice({ ...net, ...device }, beside, whole);
  }

  /** Starts a machine with a device of any type. @param whole keys of the configuration beside its devices */
  static async startDevice(
    device: Record<string, unknown>,
    beside: unknown[] = [],
    whole: Record<string, unknown> = {},
  ): Promise<ThreadsRig> {
    const folder = Deno.makeTempDirSync({ prefix: "threads-" });
    const written = {
      ...whole,
      devices: [{
        name: "net0",
        mode: "threads",
        driver: { use: "vhost-user", socket: "net0.sock" },
        ...device,
      }, ...beside],
    };
    const config = await parseConfig(JSON.stringify(written), `file://${folder}/config.json`, newRegistry());
    const rig = new ThreadsRig(buildMachine(config), folder);
    try {
      const work = until("the threads work", () => rig.machine.devices[0].workers?.isReady === true);
      // A thread that fails ends the machine, which says why.
      await Promise.race([work, rig.running]);
      return rig;
    } catch (error) {
      await rig[Symbol.asyncDispose]();
      throw error;
    }
  }

  get driver(): VhostUserTransport {
    return this.machine.devices[0].driver as VhostUserTransport;
  }

  get ends(): readonly FarEnd[] {
    return farEnds;
  }

  /** A front-end; each of its messages is answered before the next. */
  connect(layout: GuestLayout = {}): SocketFrontEnd {
    const { reactor } = this.machine.parts;
    return new SocketFrontEnd(UnixStream.connect(this.socket), layout, () => reactor.settle());
  }

  counters(group: string): Readonly<Record<string, number>> {
    return this.machine.counters[group];
  }

  /** Nothing was refused, and the guest broke no rule. */
  assertNoFault(): void {
    const driver = this.counters("net0.driver");
    assertEquals(Object.keys(driver).filter((name) => name.startsWith("fault_")), []);
    assertEquals(driver.refused, 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.running.catch(() => {});
    try {
      await this.machine.close();
      assertEquals(framePool(this.machine.parts.scope).inUse, 0);
      assertEquals(this.machine.devices[0].workers?.framesKept, 0);
    } finally {
      Deno.removeSync(this.folder, { recursive: true });
    }
  }
}

/** A frame of 60 bytes to the guest, or of it, with a number in it. */
export function numbered(number: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(60);
  bytes.set([0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 0x88, 0xb5]);
  new DataView(bytes.buffer).setUint16(58, number);
  return bytes;
}

/** The numbers of such frames. */
export function numbersIn(frames: readonly Uint8Array[]): number[] {
  return frames.map((bytes) => bytes[58] << 8 | bytes[59]);
}

/** Waits for frames on a receive queue, whose buffers are posted again, and asserts that it is these. */
export async function assertReceives(
  { guest, kicks }: SocketFrontEnd,
  queue: number,
  expected: readonly number[],
): Promise<void> {
  const received: number[] = [];
  await until(`frames ${expected} to queue ${queue}`, () => {
    const frames = guest.received(queue);
    received.push(...numbersIn(frames));
    if (frames.length > 0 && guest.post(queue, frames.length)) kicks[queue].signal();
    return received.length >= expected.length;
  });
  assertEquals(received, expected);
}

/** Waits for frames from the guest, and asserts that it is these. */
export async function assertSends(end: FarEnd, expected: readonly number[]): Promise<void> {
  const frames: Uint8Array[] = [];
  await until(`frames ${expected} from the guest`, () => {
    for (let frame = end.read(); frame !== null; frame = end.read()) frames.push(frame);
    return frames.length >= expected.length;
  });
  assertEquals(numbersIn(frames), expected);
}

/** Sends a frame from the guest, with a kick where that is wanted. */
export function send({ guest, kicks }: SocketFrontEnd, queue: number, number: number): void {
  if (guest.send(queue, numbered(number))) kicks[queue].signal();
}

/** Writes a frame to the guest; there must be room. */
export function write(end: FarEnd, number: number): void {
  assert(end.write(numbered(number)), "the socket has no room");
}
