// @ts-types="./mod.d.ts"
export * from "deno-std/assert";
