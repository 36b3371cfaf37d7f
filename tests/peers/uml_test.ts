import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { newRegistry } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { buildMachine } from "../../machine/build.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { hostTest, linux, type Need, network } from "../../rigs/require.ts";
import { umlKernel, UmlRig } from "../../rigs/uml.ts";
import { BackendProcess } from "./support/backend_process.ts";
import { bringBackFrom, connectTo, faultsIn, sendTo, sha256 } from "./support/guest_rig.ts";
import { randomBytes } from "./support/guest_traffic.ts";
import { TapMachine } from "./support/tap_rig.ts";

/**
 * User-mode Linux in front: a real driver over a real front-end of another make than QEMU's, which takes its
 * driver away without a word but SET_VRING_ENABLE, and puts another one into the same connection. Its kernel
 * has no driver for entropy: a guest of QEMU shows that device (`entropy_test.ts`).
 */

const NEEDS: readonly Need[] = [linux, umlKernel];
const MEBIBYTE = 1 << 20;
/** Time for one command in a guest while the host is busy. */
const COMMAND_MS = 120_000;
const NET = 1;

/** A folder that goes with this object. */
class Folder implements Disposable {
  readonly path: string = Deno.makeTempDirSync({ prefix: "deno-virtio-uml-" });
  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

const KINDS = [
  { packedRing: false, mergeable: true },
  { packedRing: false, mergeable: false },
  { packedRing: true, mergeable: true },
  { packedRing: true, mergeable: false },
];

hostTest(
  "TCP to and from User-mode Linux is whole and coalesced, with split and packed rings, mergeable buffers or not",
  [...NEEDS, ...network],
  async () => {
    using folder = new Folder();
    using namespace = new Namespace();
    const sockets = KINDS.map((_, i) => `${folder.path}/${i}.sock`);
    await using machine = await TapMachine.start(...KINDS.map(({ packedRing, mergeable }, i) =>
      [namespace, {
        network: { interface: `dv${i}`, offloads: "off" },
        offloads: ["checksum", "rsc-v4", "segment"],
        device: { packedRing, withhold: mergeable ? [] : ["MRG_RXBUF"] },
        guest: { use: "vhost-user", socket: sockets[i], profile: i % 2 === 0 ? "uml" : "auto" },
      }] as const
    ));
    KINDS.forEach((_, i) => namespace.address(`dv${i}`, `10.9.${i}.1/24`));
    await using guest = await UmlRig.start(folder.path, sockets.map((socket) => ({ socket, type: NET })));
    const run = (command: string) => guest.shell.run(command, COMMAND_MS);
    for (const [i, { packedRing, mergeable }] of KINDS.entries()) {
      const kind = JSON.stringify(KINDS[i]);
      const interfaceName = (await run(`ls /sys/bus/virtio/devices/virtio${i}/net`)).trim();
      const features = (await run(`cat /sys/bus/virtio/devices/virtio${i}/features`)).trim();
      assertEquals([features[34], features[15]], [packedRing, mergeable].map((has) => has ? "1" : "0"), kind);
      await run(`ip addr add 10.9.${i}.2/24 dev ${interfaceName}; ip link set ${interfaceName} up`);
      const packets = async () =>
        Number(await run(`cat /sys/class/net/${interfaceName}/statistics/rx_packets`));
      const before = { inGuest: await packets(), onWire: machine.counters(`net${i}.network`).read };
      const bytes = randomBytes(2 * MEBIBYTE);
      const sum = await sha256(bytes);
      assertEquals(await sendTo(namespace, guest, bytes, `10.9.${i}.2`), sum, `${kind}: to the guest`);
      const inGuest = await packets() - before.inGuest;
      const onWire = machine.counters(`net${i}.network`).read - before.onWire;
      assert(onWire >= bytes.length / 1448, `${kind}: ${onWire} frames on the wire are none of MTU size`);
      assert(2 * inGuest < onWire, `${kind}: ${inGuest} packets in the guest, ${onWire} on the wire`);
      assert(machine.counters(`net${i}.rsc-v4`).segments_coalesced > onWire / 2, kind);
      const back = await bringBackFrom(namespace, guest, `10.9.${i}.1`);
      assertEquals([back.length, await sha256(back)], [bytes.length, sum], `${kind}: from the guest`);
    }
    assertEquals(faultsIn(machine.machine.counters), {});
  },
);

const LIVES = 3;

hostTest("a driver of User-mode Linux is taken away and loaded again, on one connection", NEEDS, async () => {
  using folder = new Folder();
  const layouts = ["split", "packed"];
  const devices = layouts.map((layout) => ({
    use: "net",
    name: layout,
    packedRing: layout === "packed",
    driver: { use: "vhost-user", socket: `${layout}.sock` },
    network: { use: "loopback", cable: layout },
  }));
  const text = JSON.stringify({ devices });
  const machine = buildMachine(await parseConfig(text, `file://${folder.path}/config.json`, newRegistry()));
  const stop = new AbortController();
  machine.start();
  const running = machine.run(stop.signal);
  try {
    const facts = layouts.map((layout) => ({ socket: `${folder.path}/${layout}.sock`, type: NET }));
    await using guest = await UmlRig.start(folder.path, facts);
    const run = (command: string) => guest.shell.run(command, COMMAND_MS);
    for (let life = 1; life <= LIVES; life++) {
      if (life > 1) await run("modprobe virtio_net");
      for (const i of layouts.keys()) {
        await run(`ip addr add 10.9.${i}.2/24 dev eth${i}; ip link set eth${i} up`);
        await run(`for i in 1 2; do ping -c 1 -W 1 10.9.${i}.1 >/dev/null; done; true`);
        const sent = Number(await run(`cat /sys/class/net/eth${i}/statistics/tx_packets`));
        assert(sent >= 2, `life ${life} of ${layouts[i]}: ${sent} packets`);
      }
      await run("rmmod virtio_net");
      // What was the driver's memory is used for something else now.
      await run("dd if=/dev/urandom of=/file bs=1M count=24 2>/dev/null; rm /file");
    }
  } finally {
    stop.abort();
    await running;
    await machine.close();
  }
  assertEquals(faultsIn(machine.counters), {});
  for (const layout of layouts) {
    const { connections, refused } = machine.counters[`${layout}.driver`];
    assertEquals([connections, refused], [1, 0]);
    assertEquals(machine.counters[layout].activations, LIVES);
    assert(machine.counters[`${layout}.fromGuest`].sent >= 2 * LIVES);
  }
});

hostTest(
  "a back-end that is killed under traffic is gone for its guest of User-mode Linux, which lives; the next guest is served",
  [...NEEDS, ...network],
  async () => {
    using folder = new Folder();
    using namespace = new Namespace();
    const socket = `${folder.path}/net0.sock`;
    const device = {
      use: "net",
      driver: { use: "vhost-user", socket },
      network: { use: "tap", interface: "dv0", offloads: "off" },
      offloads: ["checksum", "rsc-v4", "segment"],
    };
    const start = async () => {
      const backend = await BackendProcess.start(namespace, `${folder.path}/config.json`, {
        devices: [device],
      });
      namespace.address("dv0", "10.9.0.1/24");
      return backend;
    };
    const boot = async (name: string) => {
      Deno.mkdirSync(`${folder.path}/${name}`);
      const guest = await UmlRig.start(`${folder.path}/${name}`, [{ socket, type: NET }]);
      await guest.shell.run("ip addr add 10.9.0.2/24 dev eth0; ip link set eth0 up", COMMAND_MS);
      return guest;
    };
    await using first = await start();
    await using guest = await boot("first");
    const run = (command: string) => guest.shell.run(command, COMMAND_MS);
    await run("(nc -l -p 5001 >/dev/null; true) >/dev/null 2>&1 & true");
    let flows = true;
    const connection = await connectTo(namespace, "10.9.0.2");
    const failed = (async () => {
      const bytes = randomBytes(65_536);
      while (flows) await connection.write(bytes);
    })().catch(() => {});
    await first.until("traffic", (counters) => counters["net0.toGuest"].packets > 100);
    await first.kill();
    await run("until [ ! -e /sys/class/net/eth0 ]; do usleep 10000; done");
    assertEquals((await run("ls /sys/bus/virtio/devices; echo alive")).trim(), "alive");
    flows = false;
    connection.close();
    await failed;

    await using second = await start();
    // The guest does not come back by itself; a new one is served.
    assertEquals((await second.counters())["net0.driver"].connections, 0);
    await using next = await boot("next");
    await next.shell.run("ping -c 3 -W 20 10.9.0.1", COMMAND_MS);
    const { code, counters, complaints } = await second.stop();
    assertEquals([code, complaints.includes("error")], [0, false], complaints);
    assertEquals(counters["net0.driver"].connections, 1);
  },
);

const ROOT = new URL("../../", import.meta.url);

/**
 * Starts `deno task guest`; `memoryMiB` tells it from all others. What is killed leaves its folder behind, in
 * TMPDIR.
 */
function task(memoryMiB: number, args: string[] = [], env: Record<string, string> = {}): Deno.ChildProcess {
  const { tasks } = JSON.parse(Deno.readTextFileSync(new URL("deno.json", ROOT)));
  const [, ...words] = (tasks.guest.command as string).split(" ");
  return new Deno.Command(Deno.execPath(), {
    // The task itself, without the program that starts tasks: it can be killed.
    args: [...words, "--memory-mib", `${memoryMiB}`, "--time-limit-s", "300", ...args],
    cwd: ROOT,
    env,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

/** Processes of a guest with so much memory. */
function kernels(memoryMiB: number): string[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => name).filter((name) => {
    try {
      return Deno.readTextFileSync(`/proc/${name}/cmdline`).includes(`linux.uml\0mem=${memoryMiB}M\0`);
    } catch {
      return false;
    }
  });
}

hostTest(
  "deno task guest runs a command on the devices of the example, and exits as it exits",
  NEEDS,
  async () => {
    const child = task(65, ["--json", "--run", "download 10.9.0.3 4; at far ip addr show eth1; exit 5"]);
    await child.stdin.close();
    const { code, stdout, stderr } = await child.output();
    const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    assertEquals([code, err], [5, ""], out);
    const { printed, bootMs, counters } = JSON.parse(out);
    assert(bootMs > 0);
    assertMatch(printed, /^4194304 bytes in .*, \d+ packets of \d{4,} bytes each\n/);
    assertStringIncludes(printed, "inet 10.9.0.3/24");
    assert(counters["near.rsc-v4"].segments_coalesced > 1000);
    assertEquals(kernels(65), []);
  },
);

hostTest(
  "deno task guest gives a shell, whose input is typed, and shows the counters in the end",
  NEEDS,
  async () => {
    const child = task(66);
    const input = child.stdin.getWriter();
    await input.write(new TextEncoder().encode("echo the answer is $((6 * 7))\nping -c 1 10.9.0.3\n"));
    await input.close();
    const { code, stdout, stderr } = await child.output();
    const [out, err] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    assertEquals([code, err], [0, ""], out);
    for (
      const part of ["near is eth0 with 10.9.0.2", "the answer is 42", "0% packet loss", "Stopped after"]
    ) {
      assertStringIncludes(out, part);
    }
    assertEquals(kernels(66), []);
  },
);

hostTest("a guest that spins does not outlive its task, which is killed", NEEDS, async () => {
  using folder = new Folder();
  const child = task(67, ["--run", "echo it spins; while :; do :; done"], { TMPDIR: folder.path });
  await child.stdin.close();
  const output = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  assertStringIncludes((await output.read()).value ?? "", "it spins");
  assert(kernels(67).length > 0);
  child.kill("SIGKILL");
  await child.status;
  await output.cancel();
  await child.stderr.cancel();
  for (let tries = 0; kernels(67).length > 0; tries++) {
    assert(tries < 600, `still there: ${kernels(67)}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
});
