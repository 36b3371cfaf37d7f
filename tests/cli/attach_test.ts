import { assert, assertEquals } from "@std/assert";
import type { ConfigDescription } from "./support/description.ts";
import { GuestImage } from "../../rigs/guest_image.ts";
import { qemuGuest } from "../../rigs/qemu.ts";
import { hostTest } from "../../rigs/require.ts";
import { SerialShell } from "../../rigs/serial.ts";
import { command, withFolder } from "./support/command.ts";
import { CommandProcess } from "./support/process.ts";

/**
 * The command line that `run` prints, typed as it is: QEMU attaches, a guest of Linux starts its devices, and
 * what `check` says of QEMU is what is agreed on.
 */

/** What a request of a front-end says in a trace. */
interface Said {
  readonly device: string;
  readonly event: string;
  readonly name: string;
  readonly names: readonly string[];
}

hostTest(
  "a guest of QEMU attaches by the command line that run prints, and agrees on what check tells",
  qemuGuest,
  async () => {
    await withFolder(async (folder) => {
      const config = `${folder}/config.json`;
      const net = {
        use: "net",
        name: "lan",
        network: "loopback",
        offloads: ["checksum", "segment", "rsc-v4"],
      };
      const driver = { use: "vhost-user", socket: "lan.sock", profile: "qemu" };
      const dice = {
        use: "entropy",
        name: "dice",
        driver: { ...driver, socket: "dice.sock", mode: "client" },
      };
      await Deno.writeTextFile(config, JSON.stringify({ devices: [{ ...net, driver }, dice] }));
      const trace = `${folder}/trace.jsonl`;
      const flags = ["--allow-read", `--allow-write=${trace}`, "--allow-ffi"];
      const child = new CommandProcess(flags, ["run", config, "--json", "--trace-protocol", trace]);
      const { attach: { qemu } } = JSON.parse((await child.line())!);

      using image = new GuestImage();
      await using guest = await attach(qemu, image);
      assertEquals((await guest.shell.run("cat /sys/class/net/eth0/address")).trim(), "52:54:00:12:34:56");
      const bytes = await guest.shell.run("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c");
      assertEquals(bytes.trim(), "64");
      assertEquals(guest.complaints(), "");

      child.signal("SIGUSR2");
      const { counters } = JSON.parse(await child.lineWith('"counters"'));
      assertEquals([counters["lan.driver"].connections, counters["dice.driver"].connections], [1, 1]);
      assertEquals([counters["lan.driver"].refused, counters["dice.driver"].refused], [0, 0]);
      assert(counters.dice.bytes >= 64);
      const sent: bigint[] = [];
      for (const device of ["virtio0", "virtio1"]) {
        const text = (await guest.shell.run(`cat /sys/bus/virtio/devices/${device}/features`)).trim();
        sent.push(BigInt(`0b${[...text].reverse().join("")}`));
      }
      child.signal("SIGTERM");
      assertEquals((await child.end()).code, 0);

      const said: Said[] = (await Deno.readTextFile(trace)).trimEnd().split("\n").map((line) =>
        JSON.parse(line)
      );
      const checked = await command(["check", config, "--json"]);
      const { devices } = JSON.parse(checked.out) as ConfigDescription;
      for (const { name, frontEnds: [qemu] } of devices) {
        const last = said.filter((one) =>
          one.event === "request" && one.name === "SET_FEATURES" && one.device === name
        ).at(-1)!;
        const agreed = last.names.filter((feature) =>
          feature !== "PROTOCOL_FEATURES" && feature !== "LOG_ALL"
        );
        const told = [...qemu.agreed, ...qemu.newer];
        assertEquals(agreed.filter((feature) => !told.includes(feature)), [], name);
        // Linux takes all of these.
        assertEquals(qemu.agreed.filter((feature) => !agreed.includes(feature)), [], name);
      }
      // What QEMU answers for itself reaches the guest without us: the control queue, for one.
      assert(sent.some((features) => (features >> 17n & 1n) === 1n));
      assert(devices[0].frontEnds[0].own.includes("CTRL_VQ"));
    });
  },
);

interface AttachedGuest extends AsyncDisposable {
  readonly shell: SerialShell;
  /** What QEMU has complained of. */
  complaints(): string;
}

/** Starts the command line as it is, with a kernel in place of the disk. */
async function attach(command: readonly string[], image: GuestImage): Promise<AttachedGuest> {
  const errors = `${image.folder}/qemu.log`;
  const serial = `${image.folder}/shell.sock`;
  // Not every host that has KVM can use it. And without it, QEMU 7.2 crashes when a vhost-user device has
  // MSI-X.
  const kvm = command.indexOf("kvm");
  assertEquals(command[kvm - 1], "-accel");
  const usable = command.toSpliced(kvm - 1, 2).map((word) => word.replace(/,vectors=\d+/, ""));
  const args = [...usable, "-global", "virtio-net-pci.vectors=0"];
  args.push("-global", "vhost-user-rng-pci.vectors=0", "-display", "none", "-no-reboot");
  args.push("-kernel", image.kernel, "-initrd", image.initrd);
  args.push("-append", "console=ttyS0 panic=-1 net.ifnames=0 guest.address=10.9.0.2/24");
  args.push("-serial", "null", "-serial", `unix:${serial},server=on,wait=off`);
  const process = new Deno.Command("sh", {
    args: ["-c", 'exec "$@" 2>"$0"', errors, ...args],
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const end = async () => {
    try {
      process.kill("SIGKILL");
    } catch {
      // It has ended already.
    }
    await process.status;
  };
  try {
    const shell = await SerialShell.connect(serial, 10_000);
    await shell.ready(90_000);
    return {
      shell,
      // That it waits for us to come is no complaint.
      complaints: () => Deno.readTextFileSync(errors).replace(/^.* info: QEMU waiting .*\n/gm, ""),
      [Symbol.asyncDispose]: async () => {
        shell[Symbol.dispose]();
        await end();
      },
    };
  } catch (cause) {
    await end();
    throw new Error(`The guest has not started: ${Deno.readTextFileSync(errors)}`, { cause });
  }
}
