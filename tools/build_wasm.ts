/**
 * Writes the bytes of `wire/checksum_kernel.wat` into `wire/checksum_kernel_wasm.ts`: `deno task wasm`.
 *
 * The assembler is only needed to change the kernel, and so is not among the imports of the project.
 * @module
 */
import assembler from "npm:wabt@1.0.37";

const source = new URL("../wire/checksum_kernel.wat", import.meta.url);
const target = new URL("../wire/checksum_kernel_wasm.ts", import.meta.url);

/** The module as the assembler makes it. */
export async function assemble(): Promise<Uint8Array<ArrayBuffer>> {
  const wabt = await assembler();
  const parsed = wabt.parseWat("checksum_kernel.wat", Deno.readTextFileSync(source), { simd: true });
  return new Uint8Array(parsed.toBinary({}).buffer);
}

if (import.meta.main) {
  const text = (await assemble()).toBase64();
  const lines = text.match(/.{1,100}/g)!.map((line) => `  "${line}"`).join(" +\n");
  Deno.writeTextFileSync(
    target,
    `/**
 * The assembled \`checksum_kernel.wat\`, in base64. Written by \`deno task wasm\`; do not edit.
 * @module
 */

/** The WebAssembly module. */
export const CHECKSUM_KERNEL: string =\n${lines};\n`,
  );
}
