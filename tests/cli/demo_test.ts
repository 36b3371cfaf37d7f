import { assert, assertEquals, assertFalse, assertMatch, assertStringIncludes } from "@std/assert";
import { command, longestLine, projectPath } from "./support/command.ts";

Deno.test("the task demo runs with its own permissions, plain in a pipe, within 80 columns, and coalesces by more than ten", async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "demo"],
    cwd: projectPath(""),
    env: { LC_ALL: "C.UTF-8", TERM: "xterm-256color" },
  }).output();
  const out = new TextDecoder().decode(stdout);
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  assertFalse(out.includes("\x1b"));
  assert(longestLine(out).length <= 80, longestLine(out));
  const factor = Number(/Coalescing factor (\d+\.\d)/.exec(out)?.[1]);
  assert(factor > 10, out);
  for (
    const part of [
      "without RSC",
      "interrupts",
      "the same 262,144 bytes",
      "Why",
      "S7.2",
      "Next steps",
      "--explain",
    ]
  ) {
    assertStringIncludes(out, part);
  }
  assertMatch(out, /\n {2}45 segments {2}█+\n/);
  assertEquals(out.match(/\n {4}deno run -R mod\.ts /g)?.length, 3);
});

Deno.test("demo shows bars in ASCII where nothing else can be seen", async () => {
  const { out } = await command(["demo"], { unicode: false });
  assertMatch(out, /\n {2}45 segments {2}#+\n/);
  // deno-lint-ignore no-control-regex
  assertFalse(/[^\x00-\x7f]/.test(out));
});

Deno.test("demo --json has the three runs it compares", async () => {
  const { code, out } = await command(["demo", "--json"]);
  assertEquals(code, 0);
  const { without, strict, qemu } = JSON.parse(out);
  assertEquals([without.intervalUs, without.coalescingFactor, without.output.packets], [
    null,
    1,
    without.input.frames,
  ]);
  assertEquals([strict.rules, qemu.rules], ["strict", "qemu"]);
  assert(strict.output.interrupts * 10 < without.output.interrupts);
  assertEquals(strict.output.payloadBytes, without.output.payloadBytes);
});

Deno.test("demo takes another capture, and groups the bars if there are many packets", async () => {
  const { code, out } = await command(["demo", projectPath("tests/captures/loss_v6_plain.pcapng")]);
  assertEquals(code, 0);
  assertMatch(out, /\n {4}2 to 3 +\d+ +█/);
});

Deno.test("the commands that the demo proposes work", async () => {
  const { out } = await command(["demo"]);
  const proposed = [...out.matchAll(/\n {4}deno run -R mod\.ts (.+)/g)].map((match) => match[1].split(" "));
  assertEquals(proposed.length, 3);
  for (const args of proposed) {
    const absolute = args.map((arg) => /^(tests|examples)\//.test(arg) ? projectPath(arg) : arg);
    assertEquals((await command(absolute)).code, 0, args.join(" "));
  }
});
