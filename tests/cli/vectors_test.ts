import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { command, projectPath, withFolder } from "./support/command.ts";

const RSC = projectPath("tests/vectors/rsc");
const ONE = `${RSC}/ack_dup_v6.jsonl`;

async function fileNames(folder: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names.sort();
}

Deno.test("vectors runs a folder of recordings under both rule books, and every one passes", async () => {
  const qemu = await command(["vectors", RSC]);
  assertEquals([qemu.code, qemu.out], [0, "100 passed, 0 failed\n"]);
  const strict = await command(["vectors", RSC, "--rules", "strict"]);
  assertEquals([strict.code, strict.out], [0, "100 passed, 0 failed\n"]);
});

Deno.test("vectors --json lists every vector, once", async () => {
  const { code, out } = await command(["vectors", ONE, RSC, ONE, "--json"]);
  assertEquals(code, 0);
  const { rules, passed, failed, vectors } = JSON.parse(out);
  assertEquals([rules, passed, failed, vectors.length], ["qemu", 100, 0, 100]);
  assertEquals(vectors[0], { file: ONE, name: "ack_dup_v6", problems: [] });
  assertEquals(new Set(vectors.map(({ file }: { file: string }) => file)).size, 100);
});

Deno.test("vectors prints each difference by packet and field, runs the others, and fails", async () => {
  await withFolder(async (folder) => {
    await Deno.mkdir(`${folder}/deep/er`, { recursive: true });
    const lines = (await Deno.readTextFile(ONE)).split("\n");
    const at = lines.findIndex((line) => line.startsWith('{"out"'));
    const changed = JSON.parse(lines[at]);
    changed.out.t_ns += 1000;
    changed.out.hdr.flags ^= 1;
    changed.out.frame = changed.out.frame.replace(/..$/, "ab");
    lines[at] = JSON.stringify(changed);
    await Deno.writeTextFile(`${folder}/deep/er/changed.jsonl`, lines.join("\n"));
    await Deno.copyFile(ONE, `${folder}/good.jsonl`);
    await Deno.writeTextFile(`${folder}/readme.txt`, "no vector");
    const { code, out, err } = await command(["vectors", folder]);
    assertEquals([code, err], [1, ""]);
    assertMatch(
      out,
      /^failed ack_dup_v6 \(\S+\/deep\/er\/changed\.jsonl\)\n {2}packet 1, t_ns: wanted \d+, got \d+\n/,
    );
    assertMatch(out, /\n {2}packet 1, flags: wanted \d, got \d\n {2}packet 1, frame, byte \d+: wanted ab/);
    assertMatch(out, /\n1 passed, 1 failed\n$/);
  });
});

Deno.test("vectors counts as failed what cannot be run, with the line and the reason", async () => {
  await withFolder(async (folder) => {
    const [head] = (await Deno.readTextFile(ONE)).split("\n");
    const oddRing = JSON.parse(head);
    oddRing.config.rx_bufs = 3;
    const hostile: Record<string, [text: string, problem: string]> = {
      a_empty: ["", "is empty"],
      b_no_json: ["{", "line 1: is not JSON"],
      c_no_head: ["3\n", "line 1:"],
      d_neither: [`${head}\n{"on":1}\n`, 'line 2: neither "in" nor "out"'],
      e_odd_hex: [`${head}\n{"in":{"t_ns":0,"frame":"abc"}}\n`, "line 2:"],
      f_backwards: [
        `${head}\n{"in":{"t_ns":5,"post":1}}\n{"in":{"t_ns":4,"post":1}}\n`,
        "is before the event at 5",
      ],
      g_latin1: ["\u00e9", "is not UTF-8"],
      h_odd_ring: [`${JSON.stringify(oddRing)}\n`, "queueSize"],
    };
    for (const [name, [text]] of Object.entries(hostile)) {
      const bytes = name === "g_latin1" ? Uint8Array.of(0xe9, 0xff) : new TextEncoder().encode(text);
      await Deno.writeFile(`${folder}/${name}.jsonl`, bytes);
    }
    const { code, out } = await command(["vectors", folder, "--json"]);
    assertEquals(code, 1);
    const { vectors, failed } = JSON.parse(out);
    assertEquals(failed, Object.keys(hostile).length);
    for (const [i, [, problem]] of Object.values(hostile).entries()) {
      assertStringIncludes(vectors[i].problems.join("\n"), problem);
    }
  });
});

Deno.test("vectors --record writes what our device delivered, under the same names, and it is reproduced", async () => {
  await withFolder(async (folder) => {
    const { version } = JSON.parse(await Deno.readTextFile(projectPath("deno.json")));
    const target = `${folder}/new/qemu`;
    const { code, out } = await command(["vectors", RSC, "--record", target]);
    assertEquals([code, out], [0, "100 passed, 0 failed\n"]);
    assertEquals(await fileNames(target), await fileNames(RSC));
    const again = await command(["vectors", target]);
    assertEquals([again.code, again.out], [0, "100 passed, 0 failed\n"]);
    const head = (text: string) => JSON.parse(text.slice(0, text.indexOf("\n")));
    const original = head(await Deno.readTextFile(ONE));
    const recorded = head(await Deno.readTextFile(`${target}/ack_dup_v6.jsonl`));
    assertEquals(recorded.oracle, `deno-virtio ${version}, rules qemu`);
    assertEquals([recorded.observed, recorded.name], [[], original.name]);
    assertEquals({ ...recorded.config }, { ...recorded.config, ...original.config });
    // The two rule books do not agree on everything.
    const strict = `${folder}/strict`;
    await command(["vectors", RSC, "--rules", "strict", "--record", strict]);
    const compared = await command(["vectors", strict]);
    assertEquals(compared.code, 1);
    assertStringIncludes(compared.out, "flags: wanted 5, got 4");
  });
});

Deno.test("vectors --record never overwrites a vector it runs, nor writes two to one place", async () => {
  await withFolder(async (folder) => {
    await Deno.mkdir(`${folder}/a`);
    await Deno.mkdir(`${folder}/b`);
    await Deno.copyFile(ONE, `${folder}/a/x.jsonl`);
    await Deno.copyFile(ONE, `${folder}/b/x.jsonl`);
    const own = await command(["vectors", `${folder}/a`, "--record", `${folder}/b/../a/`]);
    assertEquals([own.code, own.out], [1, ""]);
    assertStringIncludes(own.err, "is a vector to be run; choose another folder");
    const both = await command(["vectors", folder, "--record", `${folder}/out`]);
    assertEquals([both.code, both.out], [1, ""]);
    assertStringIncludes(both.err, "run them apart");
    assertEquals(await Deno.readTextFile(`${folder}/a/x.jsonl`), await Deno.readTextFile(ONE));
  });
});

Deno.test("vectors says where there is no vector", async () => {
  await withFolder(async (folder) => {
    const empty = await command(["vectors", folder]);
    assertEquals([empty.code, empty.out], [1, ""]);
    assertStringIncludes(empty.err, `Cannot find a vector in "${folder}": no file in it ends in .jsonl`);
    const missing = await command(["vectors", `${folder}/no.jsonl`]);
    assertEquals(missing.code, 1);
    assertStringIncludes(missing.err, `Cannot find "${folder}/no.jsonl"`);
    // A folder that contains itself must not be walked for ever.
    await Deno.symlink(folder, `${folder}/loop`);
    await Deno.copyFile(ONE, `${folder}/one.jsonl`);
    const looped = await command(["vectors", folder]);
    assert(looped.out.startsWith("1 passed, 0 failed"), looped.out + looped.err);
  });
});
