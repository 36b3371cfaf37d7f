/**
 * Paths of a configuration.
 * @module
 */
import { dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";

/**
 * A path of a configuration, absolute; null if it is relative to what is no file. What stands behind a name
 * is left to the system: behind a symbolic link `..` is the folder above that to which it leads.
 */
export function absolutePath(written: string, baseUrl: string): string | null {
  if (written.startsWith("/")) return written;
  const base = new URL(baseUrl);
  if (base.protocol !== "file:") return null;
  const [up] = written.match(/^(?:\.{1,2}\/+)*/)!;
  return `${resolve(dirname(fileURLToPath(new URL("x", base))), up)}/${written.slice(up.length)}`;
}
