/**
 * Which version this is.
 * @module
 */
import metadata from "../../deno.json" with { type: "json" };

/** The version of the project. */
export const VERSION: string = metadata.version;
