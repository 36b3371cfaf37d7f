/**
 * Builds `kernels/*.as.ts` into `kernels/kernels_wasm.ts`: `deno task kernels`.
 *
 * The compiler is only needed to change a kernel, and so is not among the imports of the project. It knows
 * memories of 32-bit addresses only by its command line; by its functions it compiles for 64 bits as well,
 * all but the declaration of the memory, which is put right in the text of the module.
 * @module
 */
import * as compiler from "npm:assemblyscript@0.28.20";
import * as library from "npm:assemblyscript@0.28.20/asc";
import binaryen from "npm:assemblyscript@0.28.20/binaryen";

const folder = new URL("../kernels/", import.meta.url);
const target = new URL("kernels_wasm.ts", folder);
/** 64-bit addresses. */
const WASM64 = 2;
const OPTIMIZE_LEVEL = 3;

function read(file: string): string {
  return Deno.readTextFileSync(new URL(file, folder));
}

/** The sources, by their names in the folder. */
function entries(): string[] {
  return [...Deno.readDirSync(folder)].map(({ name }) => name).filter((name) => name.endsWith(".as.ts"))
    .sort();
}

/** The module as the compiler makes it. Throws Error with what the compiler says. */
export function build(): Uint8Array<ArrayBuffer> {
  const options = compiler.newOptions();
  compiler.setTarget(options, WASM64);
  compiler.setRuntime(options, 0);
  compiler.setNoAssert(options, true);
  compiler.setImportMemory(options, true);
  compiler.setExportMemory(options, false);
  compiler.setInitialMemory(options, 1);
  compiler.setMaximumMemory(options, 262_144);
  compiler.setSharedMemory(options, true);
  for (const feature of [compiler.FEATURE_THREADS, compiler.FEATURE_SIMD, compiler.FEATURE_BULK_MEMORY]) {
    compiler.setFeature(options, feature, true);
  }
  compiler.setOptimizeLevelHints(options, OPTIMIZE_LEVEL, 0);
  const program = compiler.newProgram(options);
  for (const [name, text] of Object.entries(library.libraryFiles)) {
    if (!name.includes("/")) compiler.parse(program, text, `~lib/${name}.ts`, false);
  }
  compiler.parse(program, library.libraryFiles["rt/index-stub"], "~lib/rt/index-stub.ts", true);
  for (const name of entries()) compiler.parse(program, read(name), name, true);
  for (let file = compiler.nextFile(program); file !== null; file = compiler.nextFile(program)) {
    const name = file.replace("~lib/", "");
    const text = file === name
      ? read(`${file}.ts`)
      : library.libraryFiles[name] ?? library.libraryFiles[`${name}/index`];
    compiler.parse(program, text, `${file}.ts`, false);
  }
  throwDiagnostics(program);
  compiler.initializeProgram(program);
  const compiled = compiler.compile(program);
  throwDiagnostics(program);
  const text = binaryen.wrapModule(compiler.getBinaryenModuleRef(compiled)).emitText();
  const module = binaryen.parseText(text.replace("(memory $0 1 ", "(memory $0 i64 1 "));
  module.setFeatures(binaryen.Features.All);
  if (!module.validate()) throw new Error("the kernels are no valid module");
  binaryen.setOptimizeLevel(OPTIMIZE_LEVEL);
  binaryen.setShrinkLevel(0);
  module.optimize();
  return new Uint8Array(module.emitBinary());
}

function throwDiagnostics(program: compiler.Program): void {
  for (;;) {
    const diagnostic = compiler.nextDiagnostic(program);
    if (diagnostic === null) return;
    if (compiler.isError(diagnostic)) throw new Error(compiler.formatDiagnostic(diagnostic, false, true));
  }
}

if (import.meta.main) {
  const lines = build().toBase64().match(/.{1,100}/g)!.map((line) => `  "${line}"`).join(" +\n");
  Deno.writeTextFileSync(
    target,
    `/**
 * The kernels, assembled, in base64. Written by \`deno task kernels\`; do not edit.
 * @module
 */

/** The WebAssembly module. */
export const KERNELS: string =\n${lines};\n`,
  );
}
