/**
 * A network namespace without a name: it is there as long as this object, and gone with the process in any
 * case.
 *
 * The thread that runs the tests enters it for the time of one synchronous function. Sockets, TAPs and
 * programs that are made there stay in it.
 * @module
 */
import { assertEquals } from "@std/assert";

const CLONE_NEWNET = 0x4000_0000;
const O_CLOEXEC = 0o2000000;
const OWN_NAMESPACE = new TextEncoder().encode("/proc/thread-self/ns/net\0");

const { symbols: c } = Deno.dlopen("libc.so.6", {
  open: { parameters: ["buffer", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  unshare: { parameters: ["i32"], result: "i32" },
  setns: { parameters: ["i32", "i32"], result: "i32" },
});

function openOwn(): number {
  const number = c.open(OWN_NAMESPACE, O_CLOEXEC);
  if (number < 0) throw new Error("Cannot open the network namespace of this thread");
  return number;
}

/** A network of its own. */
export class Namespace implements Disposable {
  readonly #number: number;

  /** Makes a network in which there is nothing but a loopback interface, set up. */
  constructor() {
    const home = openOwn();
    try {
      assertEquals(c.unshare(CLONE_NEWNET), 0, "unshare(CLONE_NEWNET)");
      this.#number = openOwn();
    } finally {
      assertEquals(c.setns(home, CLONE_NEWNET), 0, "setns back");
      c.close(home);
    }
    this.ip("link", "set", "lo", "up");
  }

  /** Calls a function that must be synchronous within the network. */
  run<T>(fn: () => T): T {
    const home = openOwn();
    try {
      assertEquals(c.setns(this.#number, CLONE_NEWNET), 0, "setns");
      return fn();
    } finally {
      assertEquals(c.setns(home, CLONE_NEWNET), 0, "setns back");
      c.close(home);
    }
  }

  /** Runs a program to its end and returns what it printed. Throws with what it complained of. */
  command(name: string, ...args: string[]): string {
    const { success, stdout, stderr } = this.run(() => new Deno.Command(name, { args }).outputSync());
    if (!success) throw new Error(`${name} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
    return new TextDecoder().decode(stdout);
  }

  /** Runs `ip`. */
  ip(...args: string[]): string {
    return this.command("ip", ...args);
  }

  /** Gives an interface addresses, sets it up, and lets it be quiet: no router solicitations and the like. */
  address(device: string, ...addresses: string[]): void {
    this.command("sh", "-c", `echo 0 >/proc/sys/net/ipv6/conf/${device}/router_solicitations || true`);
    for (const address of addresses) {
      const nodad = address.includes(":") ? ["nodad"] : [];
      this.ip("addr", "add", address, "dev", device, ...nodad);
    }
    this.ip("link", "set", device, "up");
  }

  /** Lets the network go; what is still open in it keeps it. */
  [Symbol.dispose](): void {
    c.close(this.#number);
  }
}
