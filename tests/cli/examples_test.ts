import { assert, assertEquals } from "@std/assert";
import type { CounterSnapshot } from "../../cli/run/reporter.ts";
import { Namespace } from "../../rigs/namespace.ts";
import { hostTest, type Need, network } from "../../rigs/require.ts";
import { command, projectPath, ROOT } from "./support/command.ts";
import { CommandProcess } from "./support/process.ts";

interface Example {
  readonly endless?: true;
  readonly needs?: readonly Need[];
  done(counters: CounterSnapshot): boolean;
}

/** What an example must have done when it stops; `endless` ones are stopped by a signal. */
const EXAMPLES: Record<string, Example> = {
  "entropy.jsonc": {
    done: (counters) =>
      counters["entropy0.driver"].writtenBytes === 20_000 &&
      counters["entropy0.driver"].distinctValues === 256,
  },
  // With its guest in another test.
  "guest.jsonc": {
    endless: true,
    needs: network,
    done: (counters) => counters["near.driver"].connections === 0 && "sent" in counters["far.network"],
  },
  "loopback_echo.jsonc": {
    endless: true,
    done: (counters) =>
      counters["echo.driver"].echoed > 3 &&
      counters["sender.driver"].received === counters["echo.driver"].echoed,
  },
  // With its guest in another test; here it makes its interface and its socket.
  "real_guest.jsonc": {
    endless: true,
    needs: network,
    done: (counters) => counters["net0.driver"].connections === 0 && "read" in counters["net0.network"],
  },
  "replay_capture.jsonc": {
    done: (counters) =>
      counters["net0.rsc-v4"].segments_coalesced === 182 && counters["net0.driver"].receivedBytes > 262_144,
  },
  "two_devices_one_cable.jsonc": {
    done: (counters) =>
      counters["right.driver"].received === 1000 && counters["right.driver"].receivedBytes === 1_514_000,
  },
};

Deno.test("every configuration in examples is tried here", async () => {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(new URL("examples/", ROOT))) {
    if (/\.jsonc?$/.test(name)) names.push(name);
  }
  assertEquals(names.sort(), Object.keys(EXAMPLES).sort());
});

for (const [name, { endless, needs = [], done }] of Object.entries(EXAMPLES)) {
  const title = `examples/${name} names the schema and runs with exactly the permissions that check tells`;
  hostTest(title, needs, async () => {
    const path = `examples/${name}`;
    const text = await Deno.readTextFile(projectPath(path));
    assert(text.includes('"$schema": "../config.schema.json"'));
    const checked = await command(["check", projectPath(path), "--json"]);
    assertEquals(checked.code, 0, checked.err);
    const flags = JSON.parse(checked.out).permissions.flags as string[];
    const args = [path, "--json", ...endless === undefined ? [] : ["--stats-interval-s", "0.2"]];
    using home = needs.length === 0 ? null : new Namespace();
    const start = () => new CommandProcess(flags, args);
    const child = home === null ? start() : home.run(start);
    if (endless !== undefined) {
      await child.lineWith('"counters"');
      await child.lineWith('"counters"');
      child.signal("SIGINT");
    }
    const { code, rest, err } = await child.end();
    assertEquals([code, err], [0, ""]);
    const { event, counters } = JSON.parse(rest.at(-1)!);
    assertEquals(event, "stopped");
    assertEquals(counters["net0.driver"]?.malformed ?? 0, 0);
    assert(done(counters), rest.at(-1));
  });
}
