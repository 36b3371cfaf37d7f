/**
 * A guest in QEMU, without help of the processor, with one network device at our vhost-user socket.
 * @module
 */
import type { GuestImage } from "./guest_image.ts";
import { guestKernel } from "./guest_image.ts";
import { OUR_MAC, OURS } from "./kernel.ts";
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

/** A running guest; killed with this object. */
export class QemuGuest implements AsyncDisposable {
  /** A shell in it. */
  readonly shell: SerialShell;
  readonly #process: Deno.ChildProcess;

  private constructor(process: Deno.ChildProcess, shell: SerialShell) {
    this.#process = process;
    this.shell = shell;
  }

  /**
   * Starts a guest and waits until its network interface is up. Throws Error with its last words if it does not start.
   * @param socket path of the vhost-user socket, on which somebody listens
   * @param device further properties of the network device, such as `packed=on`
   */
  static async start(image: GuestImage, socket: string, device = ""): Promise<QemuGuest> {
    const serial = `${image.folder}/shell.sock`;
    const console = `${image.folder}/console.log`;
    const errors = `${image.folder}/qemu.log`;
    using stack = new DisposableStack();
    const process = new Deno.Command("sh", {
      // The shell becomes QEMU: the process that is killed is the right one.
      args: [
        "-c",
        'exec qemu-system-x86_64 "$@" 2>"$0"',
        errors,
        ...qemuArgs(image, socket, serial, console, device),
      ],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    try {
      const shell = stack.use(await SerialShell.connect(serial, 10_000));
      await shell.ready(START_MS);
      stack.move();
      return new QemuGuest(process, shell);
    } catch (cause) {
      await end(process);
      const words = [errors, console].map((file) => lastWords(file)).join("\n");
      throw new Error(`The guest has not started: ${words}`, { cause });
    }
  }

  /** Packets that the guest's network interface has received and sent. */
  async packets(): Promise<{ received: number; sent: number }> {
    const text = await this.shell.run("cat /proc/net/dev");
    const fields = /^\s*eth0:\s*(.*)$/m.exec(text)?.[1].split(/\s+/).map(Number) ?? [];
    return { received: fields[1], sent: fields[9] };
  }

  /** Kills it, and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.shell[Symbol.dispose]();
    await end(this.#process);
  }
}

function qemuArgs(
  image: GuestImage,
  socket: string,
  serial: string,
  console: string,
  device: string,
): string[] {
  const args = {
    "-object": "memory-backend-memfd,id=mem,size=256M,share=on",
    "-machine": "q35,memory-backend=mem",
    "-m": "256M",
    "-accel": "tcg",
    "-kernel": image.kernel,
    "-initrd": image.initrd,
    "-append": `console=ttyS0 panic=-1 net.ifnames=0 guest.address=${OURS}/24`,
    "-display": "none",
    "-chardev": `socket,id=net,path=${socket}`,
    "-netdev": "vhost-user,id=net0,chardev=net",
    // With MSI-X, QEMU 7.2 crashes when a guest without KVM starts a vhost-user device.
    "-device": `virtio-net-pci,netdev=net0,mac=${OUR_MAC},vectors=0,romfile=${
      device === "" ? "" : `,${device}`
    }`,
  };
  const serials = ["-serial", `file:${console}`, "-serial", `unix:${serial},server=on,wait=off`];
  return ["-nodefaults", "-no-user-config", "-no-reboot", ...Object.entries(args).flat(), ...serials];
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
