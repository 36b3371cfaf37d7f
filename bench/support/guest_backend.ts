/**
 * Our back-end in a network of its own, for a guest.
 * @module
 */
import type { Namespace } from "../../rigs/namespace.ts";
import { Backend, SPAWN_OPTIONS } from "./backend.ts";

/** Starts it there; see {@linkcode Backend.start}. */
export function startGuestBackend(namespace: Namespace, file: string, config: unknown): Promise<Backend> {
  return Backend.start(
    file,
    config,
    ([program, ...args]) =>
      namespace.run(() => new Deno.Command(program, { args, ...SPAWN_OPTIONS }).spawn()),
  );
}
