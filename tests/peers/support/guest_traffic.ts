/**
 * What goes between a guest and the kernel of the host, both ways, and what the guest's kernel has counted of
 * it.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { type GuestRig, sha256 } from "./guest_rig.ts";
import { HOST, OURS } from "../../../rigs/kernel.ts";
import type { QemuGuest } from "../../../rigs/qemu.ts";
import type { TapMachine } from "./tap_rig.ts";

/** The host's address in IPv6. */
export const HOST_6 = "fd09::1";
/** Our side's address in IPv6. */
export const OURS_6 = "fd09::2";
/** Addresses for a guest that is to have both. */
export const OUR_ADDRESSES: readonly string[] = [`${OURS}/24`, `${OURS_6}/64`];

const ECHO_PORT = 5002;
/** A byte, less than an Ethernet frame takes, and more: the kernel sends the latter in fragments. */
const DATAGRAMS = [1, 1400, 4000];

/** Runs a program in the host's network and returns what it printed. The machine goes on meanwhile. */
export async function onHost(rig: GuestRig, program: string, ...args: string[]): Promise<string> {
  const child = rig.namespace.run(() =>
    new Deno.Command(program, { args, stdout: "piped", stderr: "piped" }).spawn()
  );
  const { success, stdout, stderr } = await child.output();
  const [printed, complaint] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
  assert(success, `${program} ${args.join(" ")}: ${printed}${complaint}`);
  return printed;
}

/** Pings from the guest and from the host: nothing may be lost. @param bytes data in each packet */
export async function pingBothWays(
  rig: GuestRig,
  guest: QemuGuest,
  [ours, host]: readonly [ours: string, host: string] = [OURS, HOST],
  bytes = 56,
): Promise<void> {
  const args = ["-A", "-c", "5", "-W", "5", "-s", `${bytes}`];
  const answers = await onHost(rig, "busybox", "ping", ...args, ours);
  assert(answers.includes("5 packets received"), answers);
  const ownAnswers = await guest.shell.run(`ping ${args.join(" ")} ${host}`);
  assert(ownAnswers.includes("5 packets received"), ownAnswers);
}

/** Moves bytes by TCP to the guest and back: they must arrive as they were. */
export async function transferBothWays(
  rig: GuestRig,
  guest: QemuGuest,
  count: number,
  [ours, host]: readonly [ours: string, host: string] = [OURS, HOST],
): Promise<void> {
  const bytes = randomBytes(count);
  const sum = await sha256(bytes);
  assertEquals(await rig.send(guest, bytes, ours), sum, "to the guest");
  const back = await rig.bringBack(guest, host);
  assertEquals([back.length, await sha256(back)], [count, sum], "from the guest");
}

/** Bytes without a pattern: none of them can pass for another. */
export function randomBytes(count: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(count);
  const maxAtOnce = 65_536;
  for (let at = 0; at < count; at += maxAtOnce) {
    crypto.getRandomValues(bytes.subarray(at, at + maxAtOnce));
  }
  return bytes;
}

/** Sends datagrams from host and guest, each of which the other side sends back. The guest needs `perl`. */
export async function datagramsBothWays(rig: GuestRig, guest: QemuGuest): Promise<void> {
  await guest.shell.run(
    `perl -e '${echo(DATAGRAMS.length)}' >/tmp/echo & until grep -q ready /tmp/echo; do usleep 10000; done`,
  );
  assertEquals(await onHost(rig, "perl", "-e", ask(OURS, DATAGRAMS)), "all right");
  await askHost(rig, guest, 1, (question) => question);
}

/**
 * Has the guest send datagrams to the host, which sends them back; `times` times over, each time from another
 * port.
 * @param command makes a command for the guest out of the one that asks
 */
export async function askHost(
  rig: GuestRig,
  guest: QemuGuest,
  times: number,
  command: (question: string, time: number) => string,
): Promise<void> {
  const args = ["-e", echo(DATAGRAMS.length * times)];
  const answering = rig.namespace.run(() => new Deno.Command("perl", { args, stdout: "piped" }).spawn());
  try {
    const output = answering.stdout.getReader();
    await output.read();
    for (let time = 0; time < times; time++) {
      const answer = await guest.shell.run(command(`perl -e '${ask(HOST, DATAGRAMS)}'`, time));
      assertEquals(answer, "all right");
    }
    await output.cancel();
    assertEquals((await answering.status).code, 0);
  } finally {
    // It has ended, unless a test has failed.
    try {
      answering.kill("SIGKILL");
    } catch { /* It has. */ }
  }
}

/** A program that sends so many datagrams back, and says when it is ready. */
function echo(count: number): string {
  return `socket S,2,2,0; bind S,pack "Snx12",2,${ECHO_PORT} or die $!; $|=1; print "ready"; ` +
    `alarm 60; for(1..${count}){ $from=recv S,$data,65535,0; send S,$data,0,$from or die $! }`;
}

/** A program that sends datagrams of these sizes, and compares what comes back. */
function ask(address: string, sizes: readonly number[]): string {
  const to = `pack "SnC4x8",2,${ECHO_PORT},${address.replaceAll(".", ",")}`;
  return `alarm 15; socket S,2,2,0; for $n (${sizes}) { $data=join "",map{chr(($_*7+$n)&255)} 1..$n; ` +
    `send S,$data,0,${to} or die $!; recv S,$back,65535,0; ` +
    `$back eq $data or die "$n bytes came back as ".length $back } print "all right"`;
}

/** What the guest's kernel has counted of a protocol, by the names in /proc/net/snmp. */
export async function counted(
  guest: QemuGuest,
  protocol: "Ip" | "Tcp" | "Udp",
): Promise<Record<string, number>> {
  const text = await guest.shell.run(`grep ^${protocol}: /proc/net/snmp`);
  const [names, values] = text.split("\n").map((line) => line.split(" ").slice(1));
  return Object.fromEntries(names.map((name, i) => [name, Number(values[i])]));
}

/** What the guest's driver has counted of its queues, by the names of `ethtool -S`. */
export async function queueStatistics(guest: QemuGuest): Promise<Record<string, number>> {
  const text = await guest.shell.run("ethtool -S eth0");
  return Object.fromEntries(
    Array.from(text.matchAll(/^\s*(\w+): (\d+)$/gm), ([, name, value]) => [name, Number(value)]),
  );
}

/** What the device has dropped or its filter refused, by name. */
export function losses({ machine }: TapMachine): Record<string, number> {
  const { "net0.toGuest": toGuest, "net0.fromGuest": fromGuest, "net0.filter": filter } = machine.counters;
  const all = [...Object.entries(toGuest), ...Object.entries(fromGuest)]
    .filter(([name]) => name.startsWith("dropped_"));
  return Object.fromEntries([...all, ...Object.entries(filter)].filter(([, count]) => count > 0));
}
