/**
 * The command `guest`: boots User-mode Linux with the vhost-user devices of a configuration, and gives its
 * shell.
 *
 * This process runs the devices and stands between the terminal and the guest's console: so it can end
 * everything at any time, however busy the guest is, and leaves the terminal as it was.
 * @module
 */
import { fileURLToPath } from "node:url";
import { newRegistry } from "../config/builtins.ts";
import { loadConfig } from "../config/load.ts";
import type { ResolvedConfig } from "../config/types.ts";
import { HostError } from "../core/errors.ts";
import { buildMachine } from "../machine/build.ts";
import type { Machine } from "../machine/machine.ts";
import { umlArguments, type VhostUserOptions } from "../transports/vhost_user/mod.ts";
import { vhostUserEnds } from "./run/attach.ts";
import { EXIT_OK } from "./console/failure.ts";
import { type Io, shellQuoted } from "./console/io.ts";
import { type CommandUsage, parseCommand } from "./console/usage.ts";
import { checkFolder, findUml, UmlGuest } from "./guest/uml.ts";
import { CounterView, onSignals, RunReporter } from "./run/reporter.ts";

/** How `guest` is used. */
export const GUEST: CommandUsage = {
  name: "guest",
  operands: "[CONFIG] [options]",
  least: 0,
  most: 1,
  summary: "Boot a small Linux with the devices of a configuration, and give its shell.",
  about: [
    "Boots User-mode Linux, a kernel that is a program, in seconds: no KVM, no disk image, no root. It gets every " +
    "vhost-user device of the configuration, whatever its type, under a socket in a folder of its own, and the drivers that " +
    "these ask for. Without CONFIG it is examples/guest.jsonc: two network devices on one cable.",
    "The first network interface has the address 10.9.0.2/24. Each further one is in a network of its own with 10.9.0.3 " +
    'and so on, where "at DEVICE COMMAND" runs a command. There is a web server in each of these, and "download ADDRESS" ' +
    "shows what arrives of it.",
    "exit ends the guest, Ctrl-] does so at any time, and nothing that was started is left. The counters of all devices are " +
    "shown in the end. Needs Debian's packages user-mode-linux and busybox-static, on Linux on x86_64.",
  ],
  options: [
    {
      name: "run",
      value: "COMMAND",
      help: "Run this in the guest's shell instead of giving it, print what it prints, and exit as it exits.",
    },
    {
      name: "packages",
      value: "FOLDER",
      help:
        "Where the packages are unpacked, if they are not installed: usr/bin/linux.uml and bin/busybox in it.",
    },
    { name: "memory-mib", value: "N", help: "Memory of the guest in MiB, 64 to 4096 (128)." },
    { name: "time-limit-s", value: "N", help: "End the guest after N seconds, whatever it does." },
  ],
  examples: ["guest", "guest my.jsonc", "guest --run 'ping -c 3 10.9.0.3'"],
};

const DEFAULT_CONFIG = new URL("../examples/guest.jsonc", import.meta.url);
const DEFAULT_MEMORY_MIB = 128;
/** Time to boot. It takes 2 to 3 s where little else runs. */
const MAX_BOOT_MS = 120_000;
const MAX_LIMIT_S = 86_400;
/** Of what a command prints as much is kept for JSON. */
const MAX_KEPT_CHARACTERS = 1024 * 1024;
/** What is told while the guest runs: what it does wrong, and what fails. */
const TROUBLE: ReadonlySet<string> = new Set(["failed", "fault", "recording-failed", "recording-resumed"]);

/** Ctrl-], which no program in the guest is likely to want. */
const ESCAPE = 0x1d;
/** Ctrl-C. */
const INTERRUPT = 0x03;
/** Ctrl-D: the end of what is typed. */
const END_OF_INPUT = 0x04;
const END_OF_INPUT_PAUSE_MS = 500;

/** Boots a guest and stays with it to its end. */
export async function runGuest(args: readonly string[], io: Io): Promise<number> {
  const parsed = parseCommand(GUEST, args, io);
  if (parsed === null) return EXIT_OK;
  const command = parsed.value("run");
  if (parsed.json && command === undefined) {
    throw parsed.usageError("--json needs --run, for a shell prints what it likes");
  }
  const limitS = parsed.number("time-limit-s", 1, MAX_LIMIT_S);
  const memoryMiB = Math.round(parsed.number("memory-mib", 64, 4096) ?? DEFAULT_MEMORY_MIB);
  await using end = new AsyncDisposableStack();
  const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-uml-" });
  end.defer(() => Deno.remove(folder, { recursive: true }));
  checkFolder(folder);
  const written = parsed.operands[0] ?? ownConfig();
  const config = withSocketsIn(folder, await loadConfig(written, newRegistry()), written);
  const software = findUml(parsed.value("packages"));

  const stop = new AbortController();
  let reporter: RunReporter | null = null;
  const machine = end.use(buildMachine(config, {
    events: (device, event) => {
      if (TROUBLE.has(event.event)) reporter?.event(device, event);
    },
  }));
  reporter = new RunReporter(new CounterView(machine), { ...io, isTerminal: false }, false, () => 0);
  machine.start();
  const running = machine.run(stop.signal);
  // A guest without devices would wait for ever.
  running.then(
    () => stop.abort(new HostError("Every network is at its end, and so is the guest")),
    () => stop.abort(new HostError("A device has failed, and the guest was ended")),
  );
  using _signals = onSignals({
    stop: (signal) =>
      stop.abort(command === undefined ? null : new HostError(`${signal} has ended the guest`)),
    show: () => reporter.counters(),
  });
  const limit = limitS === undefined ? undefined : setTimeout(
    () => stop.abort(new HostError(`The guest was ended after ${limitS} s, the limit of --time-limit-s`)),
    limitS * 1000,
  );
  const settings = { folder, memoryMiB, args: umlArgs(config, machine), script: script(config, command) };
  let outcome: Outcome;
  try {
    await using guest = await UmlGuest.start(software, settings);
    outcome = await converse(guest, stop, { command, keeps: parsed.json });
  } finally {
    clearTimeout(limit);
    stop.abort(null);
    await running;
  }
  if (parsed.json) io.out(`${JSON.stringify({ ...outcome, counters: machine.counters })}\n`);
  if (command !== undefined) return outcome.code;
  reporter.stopped("signal");
  return EXIT_OK;
}

/** The configuration that comes with the source. */
function ownConfig(): string {
  if (DEFAULT_CONFIG.protocol === "file:") return fileURLToPath(DEFAULT_CONFIG);
  throw new HostError('The example comes with the source only; name a configuration: "guest CONFIG"');
}

/**
 * The same configuration with every vhost-user device served at a socket in a folder, for User-mode Linux.
 * Throws HostError if it has none.
 */
function withSocketsIn(folder: string, config: ResolvedConfig, file: string): ResolvedConfig {
  const ends = vhostUserEnds(config);
  if (ends.length === 0) {
    throw new HostError(
      `${file} has no device for a guest: write "driver": { "use": "vhost-user", "socket": "net0.sock" }`,
    );
  }
  const devices = config.devices.map((device, index) => {
    const end = ends.find((end) => end.index === index);
    if (end === undefined) return device;
    const options: VhostUserOptions = {
      ...end.options,
      socket: `${folder}/${index}.sock`,
      fd: null,
      mode: "server",
      profile: "uml",
      // Its memory is a file that can be cut.
      memory: "local",
      socketMode: null,
      socketUser: null,
      socketGroup: null,
    };
    return { ...device, driver: { ...device.driver, options } };
  });
  return { ...config, devices };
}

function umlArgs(config: ResolvedConfig, { devices }: Machine): string[] {
  return umlArguments(
    vhostUserEnds(config).map(({ socket, index }) => ({ socket: socket!, type: devices[index].device.type })),
  );
}

/** How a guest's life went. */
interface Outcome {
  /** The exit code. */
  readonly code: number;
  /** From the start of the kernel to its shell, in ms. */
  readonly bootMs: number;
  /** What the command has printed, if it is kept. */
  readonly printed: string;
}

/** Passes on what is typed and printed, until the guest or the signal ends it. */
async function converse(
  guest: UmlGuest,
  stop: AbortController,
  { command, keeps }: { readonly command: string | undefined; readonly keeps: boolean },
): Promise<Outcome> {
  const startMs = performance.now();
  const { signal } = stop;
  if (signal.aborted) guest.kill();
  signal.addEventListener("abort", () => guest.kill());
  const isTerminal = command === undefined && Deno.stdin.isTerminal();
  // While it boots, Ctrl-C has nothing to interrupt.
  let escapes = [ESCAPE, INTERRUPT];
  const isEscape = (typed: Uint8Array) => isTerminal && escapes.some((escape) => typed.includes(escape));
  if (isTerminal) {
    Deno.stdin.setRaw(true);
    passTyped(guest, isEscape, stop);
  }
  try {
    await guest.ready(MAX_BOOT_MS);
    const bootMs = performance.now() - startMs;
    escapes = [ESCAPE];
    if (!isTerminal && command === undefined) passTyped(guest, isEscape, stop);
    const decoder = new TextDecoder();
    let printed = "";
    for (let bytes = await guest.read(); bytes !== null; bytes = await guest.read()) {
      if (!keeps) await writeAll(bytes);
      else if (printed.length < MAX_KEPT_CHARACTERS) printed += decoder.decode(bytes, { stream: true });
    }
    const code = await guest.ended;
    if (code === null) throw new HostError("The guest has ended without the end of its shell");
    return { code, bootMs, printed };
  } catch (error) {
    if (!signal.aborted) throw error;
    if (signal.reason !== null) throw signal.reason;
    return { code: EXIT_OK, bootMs: performance.now() - startMs, printed: "" };
  } finally {
    if (isTerminal) Deno.stdin.setRaw(false);
  }
}

async function passTyped(
  guest: UmlGuest,
  isEscape: (typed: Uint8Array) => boolean,
  stop: AbortController,
): Promise<void> {
  const buffer = new Uint8Array(4096);
  for (;;) {
    const length = await Deno.stdin.read(buffer).catch(() => null);
    if (length === null) return await endInput(guest);
    const typed = buffer.subarray(0, length);
    if (isEscape(typed)) return stop.abort(null);
    await guest.write(typed);
  }
}

/**
 * Types the end of the input until the guest has ended: what is typed while a program runs, its shell may not
 * see.
 */
async function endInput(guest: UmlGuest): Promise<void> {
  const ended = guest.ended.then(() => true);
  const pause = () => new Promise<false>((resolve) => setTimeout(resolve, END_OF_INPUT_PAUSE_MS, false));
  do await guest.write(Uint8Array.of(END_OF_INPUT)); while (!(await Promise.race([ended, pause()])));
}

async function writeAll(bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await Deno.stdout.write(bytes.subarray(at));
}

/**
 * What the guest runs: sets its network interfaces up, tells what there is, and is its shell or the command.
 */
function script(config: ResolvedConfig, command: string | undefined): string {
  const names = vhostUserEnds(config).map(({ device }) => device.name).join(" ");
  return `${NETWORK}
index=0
host=2
for name in ${names}; do
  device=/sys/bus/virtio/devices/virtio$index
  index=$((index + 1))
  # Every program that is started costs a guest some milliseconds: so little is.
  for interface in $device/net/*; do :; done
  interface=\${interface##*/}
  if [ "$interface" = '*' ]; then
    driver=$(readlink $device/driver)
    tell "$name: \${driver:+driver }\${driver##*/}\${driver:-no driver in this kernel}"
  elif [ $host = 2 ]; then
    address $interface
    tell "$name is $interface with 10.9.0.$host"
    host=3
  else
    apart $name $interface
    tell "$name is $interface with 10.9.0.$host in a network of its own: \\"at $name COMMAND\\" runs there"
    others="$others 10.9.0.$host"
    host=$((host + 1))
  fi
done
${command === undefined ? shell() : runs(command)}`;
}

/** Functions and programs of the guest that concern its networks. */
const NETWORK = String.raw`mkdir -p /tmp/at /www/cgi-bin
cat >/bin/at <<'END'
#!/bin/sh
# Runs a command in the network of a device.
device=$1; shift
[ -e "/tmp/at/$device" ] || { echo "usage: at DEVICE COMMAND; there is $(cd /tmp/at; echo *)" >&2; exit 2; }
read -r process <"/tmp/at/$device"
exec nsenter -t "$process" -n "$@"
END
cat >/www/cgi-bin/zeros <<'END'
#!/bin/sh
printf 'Content-Type: application/octet-stream\r\n\r\n'
exec head -c "${"$"}{QUERY_STRING}m" /dev/zero
END
cat >/bin/download <<'END'
#!/bin/sh
# Fetches so many MB of zeros, and tells in what packets they came.
[ $# -gt 0 ] || { echo "usage: download ADDRESS [MB]" >&2; exit 2; }
interface=$(ip route get "$1" | sed -n 's/.* dev \([^ ]*\) .*/\1/p')
packets() { cat "/sys/class/net/$interface/statistics/rx_packets"; }
now() { cut -d ' ' -f 1 /proc/uptime | tr -d .; }
megabytes=${"$"}{2:-16}
before=$(packets) start=$(now)
bytes=$(wget -q -O - "http://$1/cgi-bin/zeros?$megabytes" | wc -c)
took=$(($(now) - start)) came=$(($(packets) - before))
[ "$bytes" -gt 0 ] && [ "$came" -gt 0 ] || { echo "nothing came from $1" >&2; exit 1; }
[ "$took" -gt 0 ] || took=1
echo "$bytes bytes in $((took * 10)) ms, $((bytes * 8 / took / 10000)) Mbit/s, $came packets of $((bytes / came)) bytes each"
END
chmod +x /bin/at /bin/download /www/cgi-bin/zeros
address() { ip addr add "10.9.0.$host/24" dev "$1"; ip link set "$1" up; }
# A process that sleeps keeps the network; the number of it says that all is done.
apart() {
  unshare -n sh -c 'nsenter -t 1 -n ip link set "$2" netns $$; ip addr add "$3" dev "$2"
    ip link set "$2" up; ip link set lo up; httpd -h /www; echo $$ >"/tmp/at/$1"; exec sleep 1000000
    ' apart "$1" "$2" "10.9.0.$host/24" &
  until [ -s "/tmp/at/$1" ]; do usleep 10000; done
}
tell() { echo "  $*" >>/etc/motd; }
others=''`;

/** The end of the script that runs a command: its output passes the terminal as it is. */
function runs(command: string): string {
  return `stty raw -echo\nsh -c ${shellQuoted(command)} </dev/null 2>&1\n`;
}

/** The end of the script that is a shell for people. */
function shell(): string {
  const size = Deno.stdout.isTerminal() ? Deno.consoleSize() : null;
  const { state } = Deno.permissions.querySync({ name: "env", variable: "TERM" });
  const term = state === "granted" ? Deno.env.get("TERM") : undefined;
  return `${size === null || size.rows === 0 ? "" : `stty rows ${size.rows} cols ${size.columns}`}
export TERM=${/^[\w.+-]+$/.test(term ?? "") ? term : "linux"} PS1='guest:\\w# '
echo "Linux $(uname -r), up in $(cut -d ' ' -f 1 /proc/uptime) s. exit ends it, and Ctrl-] at any time."
cat /etc/motd
set -- $others
[ $# = 0 ] || echo "Try: ping $1, or download $1"
cd /root
setsid cttyhack sh
`;
}
