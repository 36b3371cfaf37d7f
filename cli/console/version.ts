/**
 * Which version this is.
 * @module
 */

/** The version of the project; a test compares it with deno.json. */
export const VERSION = "0.1.0";
