/**
 * Tests that need more of the host than the runtime: rights, devices, programs. Where that is missing they are skipped,
 * loudly, and counted as skipped; but where `CI` is `true` they fail, for there everything is to be tested.
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

/** A program in the path, such as `ip`. */
export function program(name: string, from: string): Need {
  return () => {
    const { success } = new Deno.Command("sh", { args: ["-c", `command -v ${name}`], stdout: "null" })
      .outputSync();
    return success ? null : `${name} is missing: install ${from}`;
  };
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
