/**
 * The project's own gates, as tests: what `deno fmt`, `lint`, `check`, `doc` and `publish` say of the tree.
 * @module
 */
import { assertEquals } from "@std/assert";

const root = new URL("../", import.meta.url);

async function deno(...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: root,
    env: { NO_COLOR: "1" },
  }).output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assertEquals(code, 0, `deno ${args.join(" ")}\n${text}`);
}

Deno.test("deno fmt --check finds nothing to format", () => deno("fmt", "--check"));
Deno.test("deno lint finds nothing", () => deno("lint"));
Deno.test("deno check finds no type error in any file", () => deno("check", "."));
Deno.test("deno doc --lint finds every public symbol documented", () =>
  deno("doc", "--lint", "mod.ts", "plugin.ts", "cli.ts", "testing/mod.ts", "wire/mod.ts"));
Deno.test("deno publish --dry-run finds a publishable package without slow types", () =>
  deno("publish", "--dry-run", "--allow-dirty", "--no-provenance"));
// Without types: Deno imports all exports of a module into each example, unused ones too, which
// `noUnusedLocals` refuses.
Deno.test("every example in the documentation runs", () =>
  deno(
    "test",
    "--doc",
    "--no-check",
    "--allow-read",
    "core",
    "pipeline",
    "guest",
    "config",
    "machine",
    "host",
    "wire",
    "devices",
    "offloads",
    "transports",
    "testing",
    "docs/plugins.md",
  ));
