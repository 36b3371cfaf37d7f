/**
 * Installs the command `deno-virtio`, which runs from where this project lies: `deno task install`. What
 * stands behind the task goes to `deno install`, such as `--root DIR`.
 *
 * The runtime copies the configuration that it is given to a place of its own, where the relative links of
 * deno.json lead nowhere. So it gets one in which they are absolute.
 * @module
 */
import { fileURLToPath } from "node:url";

const root = new URL("../", import.meta.url);
const { imports, links } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
const config = await Deno.makeTempFile({ suffix: ".json" });
let code = 1;
try {
  const absolute = links.map((link: string) => fileURLToPath(new URL(link, root)));
  await Deno.writeTextFile(config, JSON.stringify({ imports, links: absolute }));
  const cli = fileURLToPath(new URL("cli.ts", root));
  // Native calls are the right to do anything: the devices for real guests cannot do without.
  const args = ["install", "--global", "--force", "--allow-all", "--config", config, "--name", "deno-virtio"];
  ({ code } = await new Deno.Command(Deno.execPath(), { args: [...args, ...Deno.args, cli] }).spawn().status);
} finally {
  await Deno.remove(config);
}
Deno.exitCode = code;
