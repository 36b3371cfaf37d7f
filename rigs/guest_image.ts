/**
 * The software of a small guest: a kernel of Debian, and a file system in memory with busybox and the virtio
 * drivers.
 * @module
 */
import type { Need } from "./require.ts";

/** Where a kernel with its modules may be: unpacked by `.ci/install`, or that of the host. */
const ROOTS = ["/var/cache/deno-virtio/kernel", "/"];

const DRIVER = "drivers/net/virtio_net";

/** What the drivers for network and entropy consist of, in the order in which they must be loaded. */
const MODULES = [
  "drivers/virtio/virtio_ring",
  "drivers/virtio/virtio",
  "drivers/virtio/virtio_pci_modern_dev",
  "drivers/virtio/virtio_pci_legacy_dev",
  "drivers/virtio/virtio_pci",
  "net/core/failover",
  "drivers/net/net_failover",
  DRIVER,
  "drivers/char/hw_random/virtio-rng",
];

/** How a module may be packed, and what unpacks it to its output. */
const PACKINGS: readonly (readonly [suffix: string, ...unpack: string[]])[] = [
  [".ko", "cat"],
  [".ko.xz", "xz", "-dc"],
  [".ko.gz", "gzip", "-dc"],
  [".ko.zst", "zstd", "-dcq"],
];

const INIT = new URL("./guest/init", import.meta.url);

/** A kernel and the folder of its modules. */
interface Kernel {
  readonly file: string;
  readonly modules: string;
}

/** A kernel of Debian with its virtio modules. */
export const guestKernel: Need = () =>
  findKernel() === null ? "a Debian kernel with virtio modules is missing: run .ci/install" : null;

/** A kernel and a file system to start a guest from, in a folder that goes with this object. */
export class GuestImage implements Disposable {
  /** Path of the kernel. */
  readonly kernel: string;
  /** Path of the archive that the kernel unpacks into memory. */
  readonly initrd: string;
  /** An empty place for sockets and logs. */
  readonly folder: string = Deno.makeTempDirSync({ prefix: "deno-virtio-guest-" });

  /**
   * Builds it. Throws Error that says which part is missing.
   * @param tools programs of this system that the guest is to have, with the libraries that they need
   */
  constructor(tools: readonly string[] = []) {
    try {
      const kernel = findKernel();
      if (kernel === null) throw new Error(`No kernel with virtio modules in ${ROOTS.join(", ")}`);
      this.kernel = kernel.file;
      this.initrd = `${this.folder}/initrd`;
      const root = `${this.folder}/root`;
      for (const directory of ["", "/bin", "/modules"]) Deno.mkdirSync(`${root}${directory}`);
      Deno.copyFileSync(which("busybox"), `${root}/bin/busybox`);
      Deno.copyFileSync(INIT, `${root}/init`);
      for (const file of ["bin/busybox", "init"]) Deno.chmodSync(`${root}/${file}`, 0o755);
      const names = MODULES.map((path) =>
        unpackModule(`${kernel.modules}/kernel/${path}`, `${root}/modules`)
      );
      copyTools(tools.map(which), root);
      Deno.writeTextFileSync(`${root}/modules/order`, names.map((name) => `${name}\n`).join(""));
      Deno.writeFileSync(
        this.initrd,
        output("sh", "-c", 'cd "$0" && find . | cpio --quiet -o -H newc', root),
      );
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  /** Removes the folder. */
  [Symbol.dispose](): void {
    Deno.removeSync(this.folder, { recursive: true });
  }
}

function findKernel(): Kernel | null {
  for (const root of ROOTS) {
    const path = root === "/" ? "" : root;
    for (const version of entries(`${path}/lib/modules`).sort().reverse()) {
      const kernel = { file: `${path}/boot/vmlinuz-${version}`, modules: `${path}/lib/modules/${version}` };
      const driver = `${kernel.modules}/kernel/${DRIVER}`;
      if (exists(kernel.file) && PACKINGS.some(([suffix]) => exists(driver + suffix))) return kernel;
    }
  }
  return null;
}

/** Writes a module as the kernel loads it, and returns its name. */
function unpackModule(path: string, folder: string): string {
  const packing = PACKINGS.find(([suffix]) => exists(path + suffix));
  if (packing === undefined) throw new Error(`${path}.ko is missing: run .ci/install`);
  const [suffix, program, ...args] = packing;
  const name = path.slice(path.lastIndexOf("/") + 1);
  Deno.writeFileSync(`${folder}/${name}.ko`, output(program, ...args, path + suffix));
  return name;
}

/** Copies programs into `bin`, and each library to where its program looks for it. */
function copyTools(paths: readonly string[], root: string): void {
  const files = new Map(paths.map((path) => [path, `/bin/${path.slice(path.lastIndexOf("/") + 1)}`]));
  if (paths.length > 0) {
    for (const [library] of new TextDecoder().decode(output("ldd", ...paths)).matchAll(/\/\S+(?= \(0x)/g)) {
      files.set(library, library);
    }
  }
  for (const [from, to] of files) {
    Deno.mkdirSync(`${root}${to.slice(0, to.lastIndexOf("/"))}`, { recursive: true });
    Deno.copyFileSync(from, `${root}${to}`);
    Deno.chmodSync(`${root}${to}`, 0o755);
  }
}

function which(program: string): string {
  return new TextDecoder().decode(output("sh", "-c", 'command -v "$0"', program)).trim();
}

function output(program: string, ...args: string[]): Uint8Array {
  const { success, stdout, stderr } = new Deno.Command(program, { args }).outputSync();
  if (!success) throw new Error(`${program} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  return stdout;
}

function entries(folder: string): string[] {
  return exists(folder) ? [...Deno.readDirSync(folder)].map(({ name }) => name) : [];
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
