/**
 * A guest in QEMU, without help of the processor, with its devices at our vhost-user sockets.
 * @module
 */
import type { GuestImage } from "./guest_image.ts";
import { guestKernel } from "./guest_image.ts";
import { OUR_MAC, OURS } from "./kernel.ts";
import { QEMU_7, type QemuProgram } from "./qemu_program.ts";
import { Qmp } from "./qmp.ts";
import { type Need, network, program } from "./require.ts";
import { SerialShell } from "./serial.ts";

/** What a test with a guest in QEMU needs. */
export const qemuGuest: readonly Need[] = [
  ...network,
  program("qemu-system-x86_64", "qemu-system-x86"),
  program("busybox", "busybox-static"),
  program("cpio", "cpio"),
  guestKernel,
];

/** Time for a guest to start; it takes some five seconds on an idle processor. */
const START_MS = 90_000;

/** What a guest is to be like, where it differs from the usual one. */
export interface GuestOptions {
  /** Tells guests of one image apart; their sockets and logs are named by it. */
  readonly name?: string;
  /** The program that it runs in; QEMU 7.2 if left out. */
  readonly qemu?: QemuProgram;
  /** Further properties of the network device, such as `packed=on`. */
  readonly device?: string;
  /** Further properties of the chardev, such as `server=on` or `reconnect=1`. */
  readonly chardev?: string;
  /** Queue pairs of the network device; all of them are used. */
  readonly pairs?: number;
  /** Addresses of the guest with their prefix lengths. */
  readonly addresses?: readonly string[];
  /** MTU of its interface, in bytes. */
  readonly mtu?: number;
  /** Further arguments. */
  readonly args?: readonly string[];
  /** Does it wait for the state of another guest, and so cannot be talked to yet? */
  readonly incoming?: string;
}

/** A running guest; killed with this object. */
export class QemuGuest implements AsyncDisposable {
  /** A shell in it. */
  readonly shell: SerialShell;
  /** QEMU itself. */
  readonly qmp: Qmp;
  readonly #process: Deno.ChildProcess;

  private constructor(process: Deno.ChildProcess, shell: SerialShell, qmp: Qmp) {
    this.#process = process;
    this.shell = shell;
    this.qmp = qmp;
  }

  /**
   * Starts a guest and waits until its network interface is up, unless it waits for the state of another one.
   * Throws Error with its last words if it does not start.
   * @param socket path of the vhost-user socket of its network device; null for a guest without one
   */
  static async start(
    image: GuestImage,
    socket: string | null,
    options: GuestOptions = {},
  ): Promise<QemuGuest> {
    const file = (name: string) => `${image.folder}/${options.name ?? "guest"}-${name}`;
    const { command, env } = options.qemu ?? QEMU_7;
    using stack = new DisposableStack();
    const process = new Deno.Command("sh", {
      // The shell becomes QEMU: the process that is killed is the right one.
      args: [
        "-c",
        'exec "$@" 2>"$0"',
        file("qemu.log"),
        ...command,
        ...qemuArgs(image, socket, file, options),
      ],
      env,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    try {
      const shell = stack.use(await SerialShell.connect(file("shell.sock"), 20_000));
      const qmp = stack.use(await Qmp.connect(file("qmp.sock"), 20_000));
      if (options.incoming === undefined) await shell.ready(START_MS);
      stack.move();
      return new QemuGuest(process, shell, qmp);
    } catch (cause) {
      await end(process);
      const words = [file("qemu.log"), file("console.log")].map((path) => lastWords(path)).join("\n");
      throw new Error(`The guest has not started: ${words}`, { cause });
    }
  }

  /** Packets that the guest's network interface has received and sent. */
  async packets(): Promise<{ received: number; sent: number }> {
    const text = await this.shell.run("cat /proc/net/dev");
    const fields = /^\s*eth0:\s*(.*)$/m.exec(text)?.[1].split(/\s+/).map(Number) ?? [];
    return { received: fields[1], sent: fields[9] };
  }

  /** Waits for the guest to start again, as it does after a reboot. */
  async restarted(): Promise<void> {
    await this.shell.ready(START_MS);
  }

  /** Kills it, and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.shell[Symbol.dispose]();
    this.qmp[Symbol.dispose]();
    await end(this.#process);
  }
}

function qemuArgs(
  image: GuestImage,
  socket: string | null,
  file: (name: string) => string,
  options: GuestOptions,
): string[] {
  const { pairs = 1, addresses = [`${OURS}/24`], mtu } = options;
  const words = [`guest.address=${addresses.join(",")}`];
  if (mtu !== undefined) words.push(`guest.mtu=${mtu}`);
  if (pairs > 1) words.push(`guest.pairs=${pairs}`);
  const args = {
    "-object": "memory-backend-memfd,id=mem,size=256M,share=on",
    "-machine": "q35,memory-backend=mem",
    "-m": "256M",
    "-accel": "tcg",
    "-kernel": image.kernel,
    "-initrd": image.initrd,
    "-append": `console=ttyS0 panic=-1 net.ifnames=0 ${words.join(" ")}`,
    "-display": "none",
    "-qmp": `unix:${file("qmp.sock")},server=on,wait=off`,
  };
  const serials = ["-serial", `file:${file("console.log")}`];
  serials.push("-serial", `unix:${file("shell.sock")},server=on,wait=off`);
  const own = socket === null ? [] : networkArgs(socket, options);
  const incoming = options.incoming === undefined ? [] : ["-incoming", options.incoming];
  return [
    "-nodefaults",
    "-no-user-config",
    ...Object.entries(args).flat(),
    ...serials,
    ...own,
    ...incoming,
    ...options.args ?? [],
  ];
}

function networkArgs(socket: string, { qemu = QEMU_7, pairs = 1, device, chardev }: GuestOptions): string[] {
  const list = (...parts: (string | undefined)[]) => parts.filter((part) => part !== undefined).join(",");
  // Interrupts for two rings of each pair, the control ring, and configuration space.
  const vectors = qemu.takesMsix ? 2 * pairs + 2 : 0;
  const several = pairs > 1 ? ["mq=on"] : [];
  return [
    "-chardev",
    list("socket", "id=net", `path=${socket}`, chardev),
    "-netdev",
    list("vhost-user", "id=net0", "chardev=net", `queues=${pairs}`),
    "-device",
    list(
      "virtio-net-pci",
      "netdev=net0",
      `mac=${OUR_MAC}`,
      `vectors=${vectors}`,
      "romfile=",
      ...several,
      device,
    ),
  ];
}

async function end(process: Deno.ChildProcess): Promise<void> {
  try {
    process.kill("SIGKILL");
  } catch {
    // It has ended already.
  }
  await process.status;
}

function lastWords(file: string): string {
  try {
    return Deno.readTextFileSync(file).slice(-1500);
  } catch {
    return "";
  }
}
