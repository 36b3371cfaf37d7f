/**
 * The entropy device, with an account of the random bytes that it drew from the host.
 * @module
 */
import { assert } from "@std/assert";
import { BUILT_IN_PLUGINS } from "../../../config/builtins.ts";
import { builtIns, PluginRegistry } from "../../../config/registry.ts";
import { defineDevice, type DevicePlugin } from "../../../plugins/plugin.ts";
import { entropy, EntropyDevice, type EntropyOptions } from "../../../devices/entropy/mod.ts";

/** Bytes that a guest is compared by: its driver takes none in smaller parts. */
const PART_BYTES = 16;

/** What devices of this registry draw, in order. One device only: two would be mixed. */
export class RecordedEntropy {
  /** The built-in plugins, with this in the place of `entropy`. */
  readonly registry: PluginRegistry;
  #drawn = "";
  #read = 0;

  constructor() {
    const recorded: DevicePlugin<EntropyOptions> = defineDevice<EntropyOptions>({
      ...entropy,
      create: (context, options) =>
        new EntropyDevice(context, options, (bytes) => {
          crypto.getRandomValues(bytes);
          this.#drawn += bytes.toHex();
        }),
    });
    const others = BUILT_IN_PLUGINS.filter(({ name }) => name !== entropy.name);
    this.registry = new PluginRegistry(builtIns([...others, recorded]));
  }

  /**
   * What a guest has read was drawn here, in this order, and after all that it had read before: no part came
   * twice.
   */
  assertGave(read: Uint8Array): void {
    for (let from = 0; from < read.length; from += PART_BYTES) {
      const part = read.subarray(from, from + PART_BYTES).toHex();
      const found = this.#drawn.indexOf(part, this.#read);
      assert(found >= 0, `What the guest read at ${from} was not drawn after what it had read before`);
      this.#read = found + part.length;
    }
  }
}

/** Asserts that bytes look random: each value about as often as any other. */
export function assertRandom(bytes: Uint8Array): void {
  const seen = new Array<number>(256).fill(0);
  for (const byte of bytes) seen[byte]++;
  const expected = bytes.length / 256;
  const chiSquare = seen.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
  // 255 degrees of freedom: the mean is 255, the deviation 22.6. Beyond these bounds by chance: less than
  // once in 10^8.
  assert(chiSquare > 130 && chiSquare < 410, `chi-square of ${bytes.length} bytes is ${chiSquare}`);
}
