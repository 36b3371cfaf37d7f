import { assert, assertEquals, assertMatch } from "@std/assert";
import { newRegistry } from "../../config/builtins.ts";
import { parseConfig } from "../../config/load.ts";
import { buildMachine } from "../../machine/build.ts";
import { hostTest, linux, type Need, program } from "../../rigs/require.ts";

/**
 * User-mode Linux in front: a real driver over a real front-end of another make than QEMU's, which takes its driver away
 * without a word but SET_VRING_ENABLE, and puts another one into the same connection.
 */

const ROOT = "/var/cache/deno-virtio/uml";
const KERNEL = `${ROOT}/usr/bin/linux.uml`;
const MODULES = ["net/core/failover", "drivers/net/net_failover", "drivers/net/virtio_net"];
/** It takes 2 s where nothing else runs. */
const PATIENCE_S = 150;
const LIVES = 3;

const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
# Router solicitations would be counted as well.
for kind in default all; do echo 1 >/proc/sys/net/ipv6/conf/$kind/disable_ipv6; done
insmod /failover.ko; insmod /net_failover.ko
for life in $(seq ${LIVES}); do
  insmod /virtio_net.ko || echo "life $life: no driver"
  ip addr add 10.9.0.2/24 dev eth0
  ip link set eth0 up
  for i in 1 2; do ping -c 1 -W 1 10.9.0.1 >/dev/null; done
  [ "$(cat /sys/class/net/eth0/statistics/tx_packets)" -ge 2 ] && echo "life $life: sent"
  rmmod virtio_net
  # What was the driver's memory is somebody else's now.
  dd if=/dev/urandom of=/file bs=1M count=24 2>/dev/null; rm /file
done
echo "the end"
poweroff -f
`;

const uml: Need = () => {
  try {
    Deno.statSync(KERNEL);
    return null;
  } catch {
    return "user-mode-linux is missing: run .ci/install";
  }
};

/** Makes the file system of the guest and returns the path of its archive. */
function makeInitrd(folder: string): string {
  const [version] = [...Deno.readDirSync(`${ROOT}/usr/lib/uml/modules`)].map(({ name }) => name);
  const root = `${folder}/root`;
  for (const name of ["", "/bin", "/proc", "/sys", "/dev"]) Deno.mkdirSync(root + name);
  const { stdout } = new Deno.Command("sh", { args: ["-c", "command -v busybox"] }).outputSync();
  Deno.copyFileSync(new TextDecoder().decode(stdout).trim(), `${root}/bin/busybox`);
  for (const path of MODULES) {
    Deno.copyFileSync(
      `${ROOT}/usr/lib/uml/modules/${version}/kernel/${path}.ko`,
      `${root}/${path.split("/").at(-1)}.ko`,
    );
  }
  Deno.writeTextFileSync(`${root}/init`, INIT);
  for (const file of ["bin/busybox", "init"]) Deno.chmodSync(`${root}/${file}`, 0o755);
  const pack = 'cd "$0" && find . | cpio --quiet -o -H newc >../initrd';
  assert(new Deno.Command("sh", { args: ["-c", pack, root] }).outputSync().success);
  return `${folder}/initrd`;
}

hostTest("a driver of User-mode Linux is taken away and loaded again, on one connection", [
  linux,
  uml,
  program("busybox", "busybox-static"),
  program("cpio", "cpio"),
], async () => {
  const folder = Deno.makeTempDirSync({ prefix: "deno-virtio-uml-" });
  const device = {
    use: "net",
    driver: { use: "vhost-user", socket: "net0.sock" },
    network: "loopback",
  };
  const config = await parseConfig(
    JSON.stringify({ devices: [device] }),
    `file://${folder}/config.json`,
    newRegistry(),
  );
  const machine = buildMachine(config);
  const stop = new AbortController();
  machine.start();
  const running = machine.run(stop.signal);
  try {
    // It makes a session of its own and leaves helpers behind when it is killed, which hold its output: they go with it.
    const script = `timeout -s KILL ${PATIENCE_S} sh -c 'echo $$ >"$0"; exec "$@"' "$0" "$@"
kill -KILL -- "-$(cat "$0")" 2>/dev/null`;
    const guest = await new Deno.Command("sh", {
      args: ["-c", script, `${folder}/group`, KERNEL, "mem=128M", `initrd=${makeInitrd(folder)}`]
        .concat("rdinit=/init", "con=null", "con0=null,fd:1", `uml_dir=${folder}`, "quiet")
        .concat(`virtio_uml.device=${folder}/net0.sock:1`),
      stdin: "null",
    }).output();
    const said = new TextDecoder().decode(guest.stdout);
    assertMatch(said, /the end/, said);
    for (let life = 1; life <= LIVES; life++) assertMatch(said, new RegExp(`life ${life}: sent`), said);
  } finally {
    stop.abort();
    await running;
    await machine.close();
    Deno.removeSync(folder, { recursive: true });
  }
  const counters = machine.counters["net0.driver"];
  assertEquals(
    Object.keys(counters).filter((name) => name.startsWith("fault_")),
    [],
    JSON.stringify(counters),
  );
  assertEquals([counters.connections, counters.refused], [1, 0]);
  assertEquals(machine.counters.net0.activations, LIVES);
  assert(machine.counters["net0.fromGuest"].sent >= 2 * LIVES);
});
