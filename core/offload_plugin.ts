/**
 * What every plugin has, and the plugin of a stage.
 * @module
 */
import type { OptionsSchema } from "./plugin.ts";
import type { Direction, Stage, StageContext } from "./stage.ts";

/** What every plugin has. */
export interface PluginBase<O> {
  /** Version of this contract. */
  readonly api: 1;
  /** The name that labels counters and errors: lower case, digits, hyphens. */
  readonly name: string;
  /** One line for `plugins` and for the JSON Schema. */
  readonly summary?: string;
  /** Validates what stands in the JSON beside `use`. */
  readonly options: OptionsSchema<O>;
  /** Keys of options that had another name in an earlier version, and the present name of each: errors name it. */
  readonly renamedOptions?: Readonly<Record<string, string>>;
}

/** A step of the line of frames. */
export interface OffloadPlugin<O = unknown> extends PluginBase<O> {
  /** What kind of plugin this is. */
  readonly kind: "offload";
  /** Which way the frames go that it wants; with `both`, one stage is made for each. */
  readonly direction: Direction | "both";
  /** Feature bits that the device may offer because of this stage; or a function of the options. */
  readonly offers?: readonly number[] | ((options: O) => readonly number[]);
  /** Feature bits without which the offered ones make no sense; the device must offer them itself. */
  readonly needs?: readonly number[];
  /** Builds the stage. May allocate and throw; the stage it returns may do neither. */
  create(context: StageContext, options: O): Stage;
}
