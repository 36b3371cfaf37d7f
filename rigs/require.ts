/**
 * Tests that need more of the host than the runtime: rights, devices, programs. Where that is missing they
 * are skipped, loudly, and counted as skipped; but where `CI` is `true` they fail, for there everything is to
 * be tested.
 * @module
 */

/** Something that a test needs: null if it is there, or what is missing and how to get it. */
export type Need = () => string | null;

/** The kernel's TAP driver, and the right to make interfaces and network namespaces. */
export function tun(): string | null {
  if (Deno.build.os !== "linux") return `Linux is needed, this is ${Deno.build.os}`;
  try {
    Deno.statSync("/dev/net/tun");
  } catch {
    return "/dev/net/tun is missing: modprobe tun";
  }
  return has("net_admin") && has("sys_admin")
    ? null
    : "CAP_NET_ADMIN and CAP_SYS_ADMIN are needed: run as root";
}

/** Linux, whose system calls are tested. */
export function linux(): string | null {
  return Deno.build.os === "linux" ? null : `Linux is needed, this is ${Deno.build.os}`;
}

/** The user root, who can become another one. */
export function root(): string | null {
  return Deno.build.os !== "windows" && Deno.uid() === 0 ? null : "the user root is needed";
}

/** What was found of programs, by name: many tests ask for the same. */
const programs = new Map<string, "whole" | "half" | "missing">();

/**
 * A program in the path, such as `ip`, with the libraries that it is started with. While packages are
 * installed a program is there before its libraries are.
 */
export function program(name: string, from: string): Need {
  return () => {
    if (!programs.has(name)) programs.set(name, lookFor(name));
    const found = programs.get(name);
    if (found === "whole") return null;
    return found === "half"
      ? `${name} lacks libraries, or is being installed: install ${from}`
      : `${name} is missing: install ${from}`;
  };
}

function lookFor(name: string): "whole" | "half" | "missing" {
  // ldd has nothing to say of scripts and of programs without libraries.
  const script =
    `path=$(command -v ${name}) || exit 1; ! ldd "$path" 2>/dev/null | grep -q "not found" || exit 2`;
  const { code } = new Deno.Command("sh", { args: ["-c", script], stdout: "null" }).outputSync();
  return code === 0 ? "whole" : code === 2 ? "half" : "missing";
}

/** Tests that set network namespaces up. */
export const network: readonly Need[] = [tun, program("ip", "iproute2")];

/** What to do with a test. @param missing what it lacks, or null; @param ci the value of the variable `CI` */
export function decide(missing: string | null, ci: string | undefined): "run" | "skip" | "fail" {
  if (missing === null) return "run";
  return ci === "true" ? "fail" : "skip";
}

/** A test that runs if everything is there that it needs. */
export function hostTest(name: string, needs: readonly Need[], fn: () => void | Promise<void>): void {
  const missing = needs.map((need) => need()).find((problem) => problem !== null) ?? null;
  const decision = decide(missing, Deno.env.get("CI"));
  if (decision === "skip") console.warn(`SKIPPED ${name}: ${missing}`);
  const fail = () => {
    throw new Error(`This must not be skipped here: ${missing}`);
  };
  Deno.test({ name, ignore: decision === "skip", fn: decision === "fail" ? fail : fn });
}

const CAPABILITIES = { net_admin: 12, sys_admin: 21 } as const;

function has(capability: keyof typeof CAPABILITIES): boolean {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(Deno.readTextFileSync("/proc/self/status"))?.[1] ?? "0";
  return (BigInt(`0x${effective}`) >> BigInt(CAPABILITIES[capability]) & 1n) === 1n;
}
