/**
 * User-mode Linux as a child process: finds it, makes its file system, boots it on vhost-user devices, ends
 * it.
 *
 * `linux.uml` is a kernel that is a program: no KVM, no disk image, no root. Its file system is an archive
 * that it unpacks into memory: busybox, `/init`, and what the caller adds. Modules stay on the host, where
 * `hostfs` reads them; `/init` loads those that the devices ask for by their type, so that nothing here knows
 * any type. By `hostfs` too the guest has a folder of the host's as `/task`: it writes its exit code there.
 *
 * The kernel leads a session of its own, and leaves helpers in it when it is killed. A second process, the
 * watchdog, sits in another session and reads its standard input. The host closes that when this process
 * ends, however it ends, and the watchdog then kills the kernel's session: a guest that spins never outlives
 * the program.
 * @module
 */
import { messageOf } from "../../config/errors.ts";
import { HostError } from "../../core/errors.ts";
import { shellQuoted } from "../console/io.ts";

/** Where Debian's packages are looked for: installed, or unpacked by `.ci/install`. */
const FOLDERS = ["/", "/var/cache/deno-virtio/uml"];
const PACKAGES = "user-mode-linux busybox-static";

/** What it takes to boot. */
export interface UmlSoftware {
  /** Path of the kernel. */
  readonly kernel: string;
  /** Folder with a folder of modules for each version of the kernel; null for a kernel that needs none. */
  readonly modules: string | null;
  /** Path of a busybox that needs no libraries. */
  readonly busybox: string;
}

/**
 * Looks for the kernel, its modules and busybox.
 * @param packages a folder in which Debian's packages are unpacked, looked into first
 * @throws {HostError} with the remedy if something is missing
 */
export function findUml(packages?: string): UmlSoftware {
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    throw new HostError(
      `User-mode Linux runs on Linux on x86_64 only, and this is ${Deno.build.os} on ${Deno.build.arch}`,
    );
  }
  const folders = [...packages === undefined ? [] : [packages], ...FOLDERS].map((folder) =>
    folder.endsWith("/") ? folder : `${folder}/`
  );
  const find = (...names: string[]) =>
    folders.flatMap((folder) => names.map((name) => folder + name)).find(exists);
  const kernel = find("usr/bin/linux.uml");
  const busybox = find("bin/busybox", "usr/bin/busybox");
  const missing = kernel === undefined ? "linux.uml" : busybox === undefined ? "busybox" : null;
  if (missing !== null) {
    throw new HostError(`${missing} is missing (looked into ${folders.join(", ")}); ${REMEDY}`);
  }
  if (!isStatic(busybox!)) {
    throw new HostError(`${busybox} needs libraries, which a guest does not have; ${REMEDY}`);
  }
  return { kernel: kernel!, busybox: busybox!, modules: find("usr/lib/uml/modules") ?? null };
}

const REMEDY = `as root: apt-get install ${PACKAGES}; or without root: apt-get download ${PACKAGES}, ` +
  "unpack each of the two files with dpkg -x FILE FOLDER, and add --packages FOLDER";

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return false;
    throw error;
  }
}

const ELF_HEADER_BYTES = 64;
const PT_INTERP = 3;

/** Is this a program of 64 bits that names no loader of libraries? */
function isStatic(path: string): boolean {
  using file = Deno.openSync(path);
  const read = (offset: number, length: number) => {
    file.seekSync(offset, Deno.SeekMode.Start);
    const bytes = new Uint8Array(length);
    file.readSync(bytes);
    return new DataView(bytes.buffer);
  };
  const header = read(0, ELF_HEADER_BYTES);
  const [entryBytes, entries] = [header.getUint16(54, true), header.getUint16(56, true)];
  const table = read(Number(header.getBigUint64(32, true)), entryBytes * entries);
  for (let i = 0; i < entries; i++) if (table.getUint32(i * entryBytes, true) === PT_INTERP) return false;
  return entries > 0;
}

/** A guest to boot. */
export interface UmlSettings {
  /**
   * A folder of this guest's own, in which nothing else is; `/task` in the guest. See
   * {@linkcode checkFolder}.
   */
  readonly folder: string;
  /** Arguments for the kernel, such as those that name the devices. */
  readonly args: readonly string[];
  /** The guest's memory in MiB. */
  readonly memoryMiB: number;
  /**
   * What the guest runs when its drivers are loaded, as lines of the Bourne shell; when they end, it ends.
   */
  readonly script: string;
}

/** Throws HostError if the path of a guest's folder cannot be written on the kernel's command line. */
export function checkFolder(folder: string): void {
  if (/^[\w./+-]{1,80}$/.test(folder)) return;
  throw new HostError(
    `Cannot use the folder ${folder} for a guest: set TMPDIR to a path of at most 60 characters, all of them ` +
      "letters, digits or . / + - _",
  );
}

/** What the guest prints before its script runs. */
const READY = "\x01guest ready\x02";
/** The end of what was printed that an error repeats. */
const MAX_COMPLAINT_CHARACTERS = 2000;

/** A guest that runs until its script is at its end, or until it is disposed of. */
export class UmlGuest implements AsyncDisposable {
  /** Fulfilled with the exit code of the script when the kernel has ended; null if it ended otherwise. */
  readonly ended: Promise<number | null>;
  readonly #kernel: Deno.ChildProcess;
  readonly #watchdog: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #output: ReadableStreamDefaultReader<Uint8Array>;
  readonly #errors: Promise<string>;
  /** What came behind the sign that the guest is ready. */
  #ahead: Uint8Array | null = null;

  private constructor(kernel: Deno.ChildProcess, watchdog: Deno.ChildProcess, folder: string) {
    this.#kernel = kernel;
    this.#watchdog = watchdog;
    this.#input = kernel.stdin.getWriter();
    this.#output = kernel.stdout.getReader();
    this.#errors = new Response(kernel.stderr).text().catch(() => "");
    // The helpers that it may leave behind would keep its output open.
    this.ended = kernel.status.then(() => this.#killSession()).then(() => exitCode(folder));
  }

  /** Boots one. The devices' sockets must be served already. Throws HostError if it cannot be started. */
  static async start(software: UmlSoftware, settings: UmlSettings): Promise<UmlGuest> {
    const { folder, args, memoryMiB } = settings;
    checkFolder(folder);
    const initramfs = `${folder}/initramfs`;
    // Up to the first promise nothing waits: a caller may be in another network for so long.
    Deno.writeFileSync(initramfs, fileSystem(software, settings));
    const piped = { stdin: "piped", stdout: "piped", stderr: "piped", detached: true } as const;
    const watchdog = start("sh", { ...piped, args: ["-c", WATCHDOG], stdout: "null", stderr: "null" });
    try {
      const own = [`mem=${memoryMiB}M`, `initrd=${initramfs}`, "rdinit=/init", `uml_dir=${folder}`];
      // Of the kernel's own messages only those that are its last.
      own.push("con=null", "con0=fd:0,fd:1", "quiet", "loglevel=1", "panic=0");
      const kernel = start(software.kernel, { ...piped, args: [...own, ...args] });
      const orders = watchdog.stdin.getWriter();
      await orders.write(new TextEncoder().encode(`${kernel.pid}\n`));
      orders.releaseLock();
      return new UmlGuest(kernel, watchdog, folder);
    } catch (error) {
      watchdog.kill("SIGKILL");
      await watchdog.status;
      throw error;
    }
  }

  /**
   * Waits until the guest runs its script. Throws HostError with what it has printed if it ends before, or
   * does not come to that within `limitMs`; it is ended then.
   */
  async ready(limitMs: number): Promise<void> {
    const decoder = new TextDecoder("latin1");
    let printed = "";
    const timer = setTimeout(() => this.kill(), limitMs);
    try {
      for (let at = -1; at < 0; at = printed.indexOf(READY)) {
        const { value, done } = await this.#output.read();
        if (done) throw await this.#didNotBoot(printed);
        printed = printed.slice(-MAX_COMPLAINT_CHARACTERS) + decoder.decode(value);
      }
    } finally {
      clearTimeout(timer);
    }
    const rest = printed.slice(printed.indexOf(READY) + READY.length);
    this.#ahead = Uint8Array.from(rest, (character) => character.charCodeAt(0));
  }

  /** What the guest prints next; null when it has ended. */
  async read(): Promise<Uint8Array | null> {
    const ahead = this.#ahead;
    this.#ahead = null;
    if (ahead !== null && ahead.length > 0) return ahead;
    const { value } = await this.#output.read();
    return value ?? null;
  }

  /** Types into the guest's terminal. What a guest that has ended would get is dropped. */
  async write(bytes: Uint8Array): Promise<void> {
    await this.#input.write(bytes).catch(() => {});
  }

  /** Ends the guest and everything that it has left behind. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#killSession();
    await Promise.all([this.ended, this.#errors]);
    await Promise.all([this.#input.close(), this.#output.cancel()].map((end) => end.catch(() => {})));
  }

  /** Has the watchdog do what it is there for. */
  async #killSession(): Promise<void> {
    await this.#watchdog.stdin.close().catch(() => {});
    await this.#watchdog.status;
  }

  /** Kills the kernel: `read` and `ended` then say so. */
  kill(): void {
    try {
      this.#kernel.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
  }

  async #didNotBoot(printed: string): Promise<HostError> {
    const { signal } = await this.#kernel.status;
    await this[Symbol.asyncDispose]();
    const said = `${await this.#errors}\n${printed}`.trim().slice(-MAX_COMPLAINT_CHARACTERS);
    const how = signal === "SIGKILL" ? "did not boot in time" : "did not boot";
    return new HostError(`The guest ${how}: ${said === "" ? "it printed nothing" : said}`);
  }
}

/** Is told the session, and kills it at the end of its input. */
const WATCHDOG =
  'trap "" HUP INT TERM; read -r session && { read -r end; kill -s KILL -- "-$session"; } 2>/dev/null';

function start(program: string, options: Deno.CommandOptions): Deno.ChildProcess {
  try {
    return new Deno.Command(program, options).spawn();
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    throw new HostError(`Cannot start ${program}: ${messageOf(cause)}`, { cause });
  }
}

async function exitCode(folder: string): Promise<number | null> {
  try {
    return Number.parseInt(await Deno.readTextFile(`${folder}/exit`));
  } catch {
    return null;
  }
}

/** The first program of the guest. */
function init({ modules }: UmlSoftware, folder: string): string {
  const loading = modules === null ? "" : `mount -t hostfs -o ${shellQuoted(modules)} none /lib/modules
loaded=
for file in /sys/bus/virtio/devices/*/modalias; do
  [ -e $file ] && read -r alias <$file || continue
  case $loaded in *" $alias "*) ;; *) modprobe -q $alias; loaded="$loaded $alias " ;; esac
done
`;
  return `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir /dev/pts
mount -t devpts pts /dev/pts
mount -t hostfs -o ${folder} none /task
ip link set lo up
${loading}printf '\\001guest ready\\002'
sh /script
echo $? >/task/exit
# The kernel's last word is about itself.
echo 0 >/proc/sys/kernel/printk
poweroff -f
`;
}

const FOLDER_MODE = 0o040755;
const PROGRAM_MODE = 0o100755;

/** The guest's files, as an archive of cpio's format "newc", which the kernel unpacks. */
function fileSystem(software: UmlSoftware, { folder, script }: UmlSettings): Uint8Array<ArrayBuffer> {
  const archive = new Archive();
  for (const name of ["bin", "dev", "lib", "lib/modules", "proc", "root", "sys", "task", "tmp", "etc"]) {
    archive.add(name, FOLDER_MODE, new Uint8Array(0));
  }
  archive.add("bin/busybox", PROGRAM_MODE, Deno.readFileSync(software.busybox));
  const encoder = new TextEncoder();
  archive.add("init", PROGRAM_MODE, encoder.encode(init(software, folder)));
  archive.add("script", PROGRAM_MODE, encoder.encode(script));
  return archive.finish();
}

class Archive {
  readonly #parts: Uint8Array<ArrayBuffer>[] = [];
  #files = 0;

  add(name: string, mode: number, bytes: Uint8Array<ArrayBuffer>): void {
    const hex = (value: number) => value.toString(16).padStart(8, "0");
    const numbers = [++this.#files, mode, 0, 0, 1, 0, bytes.length, 0, 0, 0, 0, name.length + 1, 0];
    const head = new TextEncoder().encode(`070701${numbers.map(hex).join("")}${name}\0`);
    for (const part of [head, bytes]) this.#parts.push(part, new Uint8Array(-part.length & 3));
  }

  finish(): Uint8Array<ArrayBuffer> {
    this.add("TRAILER!!!", 0, new Uint8Array(0));
    const whole = new Uint8Array(this.#parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.length;
    }
    return whole;
  }
}
