/**
 * Every configuration and every command in README and docs, pasted as it stands into a copy of the project.
 * Blocks of TypeScript are examples, which `gates_test.ts` runs.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { dirname } from "node:path";
import { parseJsonc } from "../config/jsonc.ts";

const ROOT = new URL("../", import.meta.url);
/** A command hangs that takes longer; far more than any needs. */
const LIMIT_MS = 240_000;

/** Commands that are not run here, and why not. */
const NOT_RUN: readonly (readonly [command: RegExp, why: string])[] = [
  [/^npx .* task test\b/, "this is a part of it"],
  [/^npx .* task guest\b/, "boots User-mode Linux, where it is there: tests/peers does this"],
  [/^deno task bench/, "takes minutes"],
  [/^apt-get /, "changes the machine"],
  [/^(ip|wget|pkill|qemu-system-\S+) /, "needs a guest: tests/peers does this with a real one"],
  [
    /real_guest\.jsonc --allow-ffi|--allow-ffi mod\.ts examples\/real_guest/,
    "makes an interface: tests/peers does it",
  ],
  [/^deno eval 'Deno\.serve/, "serves at an address of that interface"],
];

/** A block of a page. */
interface Block {
  readonly page: string;
  readonly line: number;
  readonly language: string;
  readonly text: string;
  /** The paragraph before it. */
  readonly before: string;
}

async function blocksOf(page: string): Promise<Block[]> {
  const text = await Deno.readTextFile(new URL(page, ROOT));
  return [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)].map((match) => ({
    page,
    line: text.slice(0, match.index).split("\n").length,
    language: match[1],
    text: match[2],
    before: text.slice(0, match.index).trimEnd().split(/\n\n/).at(-1)!,
  }));
}

async function pages(): Promise<string[]> {
  const found = ["README.md", "ARCHITECTURE.md"];
  for await (const { name } of Deno.readDir(new URL("docs", ROOT))) {
    if (name.endsWith(".md")) found.push(`docs/${name}`);
  }
  return found.sort();
}

/**
 * A copy of the project to paste into, in a folder of its own: what its commands write, also beside the
 * project, does not end up in the tree, nor where the next run finds it.
 */
async function copyProject(): Promise<string> {
  const folder = `${await Deno.makeTempDir({ prefix: "deno-virtio-docs-" })}/project`;
  await Deno.mkdir(folder);
  const copy = async (from: URL, to: string) => {
    for await (const { name, isDirectory, isFile } of Deno.readDir(from)) {
      if (name.startsWith(".") || name === "node_modules") continue;
      if (isFile) await Deno.copyFile(new URL(name, from), `${to}/${name}`);
      if (!isDirectory) continue;
      await Deno.mkdir(`${to}/${name}`);
      await copy(new URL(`${name}/`, from), `${to}/${name}`);
    }
  };
  await copy(ROOT, folder);
  // Deno runs under whatever name the pages call it.
  await Deno.mkdir(`${folder}/bin`);
  await Deno.symlink(Deno.execPath(), `${folder}/bin/deno`);
  return folder;
}

/** Runs a command. One that goes on for ever is stopped as by Ctrl-C as soon as it has said something. */
async function paste(
  command: string,
  folder: string,
  forEver = false,
): Promise<{ code: number; text: string }> {
  const env = { PATH: `${folder}/bin:${Deno.env.get("PATH")}`, NO_COLOR: "1" };
  const line = command.replace(/^npx -y deno@\S+/, "deno");
  const child = new Deno.Command("sh", {
    args: ["-c", `exec ${line}`],
    cwd: folder,
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const kill = setTimeout(() => child.kill("SIGKILL"), LIMIT_MS);
  const errors = new Response(child.stderr).text();
  let text = "";
  for await (const piece of child.stdout.pipeThrough(new TextDecoderStream())) {
    if (forEver && text === "") child.kill("SIGINT");
    text += piece;
  }
  const { code } = await child.status;
  clearTimeout(kill);
  return { code, text: text + await errors };
}

Deno.test("every configuration and command of README and docs works where the page says", async () => {
  const folder = await copyProject();
  const unused = new Set(NOT_RUN);
  try {
    for (const page of await pages()) {
      for (const { line, language, text, before } of await blocksOf(page)) {
        const place = `${page}:${line}`;
        if (language === "json" || language === "jsonc") {
          const value = parseJsonc(text) as { devices?: unknown };
          if (value.devices === undefined) continue;
          // The sentence before a configuration says under which name it is saved.
          const name = /`([^`\s]+\.jsonc?)`/.exec(before)?.[1];
          assert(
            name !== undefined,
            `${place}: the paragraph before this configuration names no file for it`,
          );
          await Deno.mkdir(dirname(`${folder}/${name}`), { recursive: true });
          await Deno.writeTextFile(`${folder}/${name}`, text);
          const { code, text: said } = await paste(`deno run -R mod.ts check ${name}`, folder);
          assertEquals(code, 0, `${place}\n${said}`);
        } else if (language === "sh") {
          for (const one of text.split("\n")) {
            const command = one.replace(/\s+# .*$/, "").trim();
            const excuse = NOT_RUN.find(([pattern]) => pattern.test(command));
            if (excuse !== undefined) unused.delete(excuse);
            if (excuse !== undefined || command === "" || command.startsWith("#")) continue;
            const { code, text: said } = await paste(command, folder, one.includes("Ctrl-C"));
            assertEquals(code, 0, `${place}: ${command}\n${said}`);
          }
        } else {assert(
            ["ts", "ini", ""].includes(language),
            `${place}: a block of ${language}, which is not tried here`,
          );}
      }
    }
    assertEquals(
      [...unused].map(([pattern]) => String(pattern)),
      [],
      "these excuses are not needed any more",
    );
  } finally {
    await Deno.remove(dirname(folder), { recursive: true });
  }
});
