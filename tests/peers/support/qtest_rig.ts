/**
 * A machine of ours behind a vhost-user socket, a QEMU in front of it, and the driver in that QEMU's guest:
 * this program.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { newRegistry } from "../../../config/builtins.ts";
import { parseConfig } from "../../../config/load.ts";
import type { FeatureSet } from "../../../core/features.ts";
import { buildMachine } from "../../../machine/build.ts";
import type { Machine } from "../../../machine/machine.ts";
import { arp, GUEST_MAC } from "../../../testing/mod.ts";
import type { CablePort } from "../../../transports/loopback.ts";
import type { VhostUserTransport } from "../../../transports/vhost_user/mod.ts";
import { QEMU_7, type QemuProgram } from "../../../rigs/qemu_program.ts";
import { Qtest } from "./qtest.ts";
import { type GuestPacket, QtestNetDriver } from "./qtest_net_driver.ts";
import { until } from "./tap_rig.ts";
import { framePool } from "../../../pipeline/kinds.ts";

const START_MS = 20_000;
/** The instruction HLT. */
const HALT = 0xf4;

/** What is to be different. */
export interface QtestRigOptions {
  /** Default QEMU 7.2. */
  readonly qemu?: QemuProgram;
  /** Properties of QEMU's device; default `guest_rsc_ext=on`. */
  readonly device?: string;
  /** Rule book of our device; default `strict`. */
  readonly rules?: "strict" | "qemu";
  /** Offloads of our device; default `rsc-v4` and `rsc-v6`. */
  readonly offloads?: readonly unknown[];
  /** Features that our device is not to offer; default none. */
  readonly withhold?: readonly string[];
}

/** The whole. */
export class QtestRig implements AsyncDisposable {
  /** The driver; there once `drive` has set it up. */
  driver!: QtestNetDriver;
  /** Our machine. */
  readonly machine: Machine;
  readonly #qtest: Qtest;
  readonly #stack: AsyncDisposableStack;

  private constructor(machine: Machine, qtest: Qtest, stack: AsyncDisposableStack) {
    this.machine = machine;
    this.#qtest = qtest;
    this.#stack = stack;
  }

  /** Starts both, without a driver yet. Throws Error with QEMU's last words if it does not start. */
  static async start(options: QtestRigOptions = {}): Promise<QtestRig> {
    const { qemu = QEMU_7, device = "guest_rsc_ext=on" } = options;
    await using stack = new AsyncDisposableStack();
    const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-qtest-" });
    stack.defer(() => Deno.removeSync(folder, { recursive: true }));
    const machine = await startMachine(`${folder}/net0.sock`, options, stack);
    // The processor starts at the end of the firmware, and halts at once.
    Deno.writeFileSync(`${folder}/firmware`, new Uint8Array(65_536).fill(HALT));
    const process = new Deno.Command("sh", {
      // The shell becomes QEMU: the process that is killed is the right one.
      args: ["-c", 'exec "$@" 2>"$0/log"', folder, ...qemu.command, ...qemuArgs(folder, device)],
      env: qemu.env,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    stack.defer(() => end(process));
    try {
      const qtest = stack.use(await Qtest.connect(`${folder}/qtest.sock`, START_MS));
      return new QtestRig(machine, qtest, stack.move());
    } catch (cause) {
      throw new Error(`QEMU has not started: ${Deno.readTextFileSync(`${folder}/log`)}`, { cause });
    }
  }

  /** Our end of the cable. */
  get port(): CablePort {
    return this.machine.devices[0].parts.network as CablePort;
  }

  /** What QEMU and we have agreed on: without bits that QEMU serves by itself. */
  get agreed(): FeatureSet {
    return (this.machine.devices[0].driver as VhostUserTransport).backend!.features!;
  }

  /** Resets QEMU's device and sets it up with these features, as far as they are offered. Sends a frame. */
  async drive(wanted: FeatureSet): Promise<QtestNetDriver> {
    this.driver = await QtestNetDriver.start(this.#qtest, wanted);
    // QEMU need not wait for us to carry out its messages. Once a frame is taken they are carried out.
    await this.driver.send(arp());
    return this.driver;
  }

  /**
   * Lets frames arrive from the network, all at one moment; 64 at most, which our device takes in one round.
   */
  inject(frames: readonly Uint8Array[]): void {
    for (const frame of frames) assert(this.port.inject(frame), "the cable takes no more");
  }

  /** Injects frames and returns the packets that the guest receives, of which there must be `count`. */
  async deliver(frames: readonly Uint8Array[], count: number): Promise<GuestPacket[]> {
    const { packets } = this.machine.counters["net0.toGuest"];
    this.inject(frames);
    const received = await this.driver.receive(count);
    await until("nothing is held any more", () => framePool(this.machine.parts.scope).inUse === 0);
    assertEquals(this.machine.counters["net0.toGuest"].packets - packets, count);
    return received;
  }

  /** Ends both, and asserts that neither broke a rule. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack[Symbol.asyncDispose]();
    const { counters } = this.machine.devices[0].driver as VhostUserTransport;
    assertEquals(Object.keys(counters).filter((name) => name.startsWith("fault_")), []);
    assertEquals(counters.refused, 0);
  }
}

async function startMachine(
  socket: string,
  { rules = "strict", offloads = ["rsc-v4", "rsc-v6"], withhold = [] }: QtestRigOptions,
  stack: AsyncDisposableStack,
): Promise<Machine> {
  const written = {
    devices: [{
      use: "net",
      mac: GUEST_MAC,
      rules,
      withhold,
      driver: { use: "vhost-user", socket, profile: "qemu" },
      network: { use: "loopback" },
      offloads,
    }],
  };
  const machine = buildMachine(await parseConfig(JSON.stringify(written), import.meta.url, newRegistry()));
  const stop = new AbortController();
  machine.start();
  const running = machine.run(stop.signal);
  // The failure is told when it is stopped.
  running.catch(() => {});
  stack.defer(async () => {
    stop.abort();
    await running;
    await machine.close();
    assertEquals(framePool(machine.parts.scope).inUse, 0);
  });
  return machine;
}

function qemuArgs(folder: string, device: string): string[] {
  const args = {
    "-object": "memory-backend-memfd,id=mem,size=64M,share=on",
    "-machine": "q35,memory-backend=mem",
    "-m": "64M",
    "-accel": "tcg",
    "-bios": `${folder}/firmware`,
    "-display": "none",
    "-qtest": `unix:${folder}/qtest.sock,server=on,wait=off`,
    "-qtest-log": "none",
    "-chardev": `socket,id=net,path=${folder}/net0.sock`,
    "-netdev": "vhost-user,id=net0,chardev=net",
    // QEMU 7.2 crashes with MSI-X where there is no KVM.
    "-device":
      `virtio-net-pci,netdev=net0,mac=${GUEST_MAC},disable-legacy=on,vectors=0,romfile=,addr=0x4,${device}`,
  };
  return ["-nodefaults", "-no-user-config", ...Object.entries(args).flat()];
}

async function end(process: Deno.ChildProcess): Promise<void> {
  try {
    process.kill("SIGKILL");
  } catch {
    // It has ended already.
  }
  await process.status;
}
