import { assert, assertEquals } from "@std/assert";
import { QEMU_RULES, STRICT_RULES } from "../../offloads/rsc_chain/verdicts.ts";
import { command, projectPath } from "./support/command.ts";

const CAPTURES = ["bulk_v4_timestamps.pcapng", "loss_v6_plain.pcapng", "offloads_v4_timestamps.pcap"];

interface Explained {
  readonly stage: string;
  readonly verdict: string;
  readonly rule: string;
  readonly meaning?: string;
}

for (const [book, rules] of [["strict", STRICT_RULES], ["qemu", QEMU_RULES]] as const) {
  const byId = new Map(Object.values(rules).map((rule) => [rule.id, rule]));

  Deno.test(`replay --rules ${book} prints the texts of the table of verdicts`, async () => {
    const seen = new Set<string>();
    for (const name of CAPTURES) {
      const path = projectPath(`tests/captures/${name}`);
      const { out } = await command(["replay", path, "--rules", book, "--explain", "--json"]);
      const lines = out.trimEnd().split("\n").map((line) => JSON.parse(line));
      const reasons: Explained[] = lines.at(-1).reasons;
      for (const { stage, verdict, rule, meaning } of [...reasons, ...lines.slice(0, -1) as Explained[]]) {
        if (stage === "") continue;
        assertEquals(byId.get(rule)?.verdict, verdict);
        if (meaning === undefined) continue;
        assertEquals(meaning, byId.get(rule)!.text);
        seen.add(rule);
      }
      const { out: text } = await command(["replay", path, "--rules", book], { columns: 400 });
      for (const { stage, meaning } of reasons) assert(stage === "" || text.includes(meaning!), meaning);
    }
    assert(seen.size >= 4, `only ${[...seen]}`);
  });
}

Deno.test("the texts of rules stand in the table of verdicts and in docs/rules.md only", async () => {
  const texts = [...Object.values(STRICT_RULES), ...Object.values(QEMU_RULES)]
    .map(({ text }) => text.slice(text.indexOf(": ") + 2)).filter((text) => text.length > 40);
  for (const folder of ["cli", "cli/replay", "testing", "offloads", "config"]) {
    for await (const { name, isFile } of Deno.readDir(projectPath(folder))) {
      if (!isFile) continue;
      const source = await Deno.readTextFile(projectPath(`${folder}/${name}`));
      for (const text of texts) assert(!source.includes(text), `${folder}/${name}: ${text}`);
    }
  }
});
