/**
 * What a plugin's option schema must be: a schema of any Standard Schema library (version 1), by its shape.
 *
 * Written out here, as the standard invites libraries to do, so that the core depends on no package for its types.
 * @module
 */

/** One thing that a schema found wrong. */
export interface SchemaIssue {
  /** What is wrong, in words. */
  readonly message: string;
  /** Where: keys from the outside in. */
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
}

/** What a schema says of a value: the value, complete and typed, or what is wrong with it. */
export type SchemaResult<O> =
  | { readonly value: O; readonly issues?: undefined }
  | { readonly issues: readonly SchemaIssue[] };

/** A schema (zod, valibot, arktype, …): checks the options, fills in defaults, types the code. */
export interface OptionsSchema<O> {
  /** The standard's own property. */
  readonly "~standard": {
    /** Version of the standard. */
    readonly version: 1;
    /** The library. */
    readonly vendor: string;
    /** Judges a value. */
    readonly validate: (value: unknown) => SchemaResult<O> | Promise<SchemaResult<O>>;
  };
}
