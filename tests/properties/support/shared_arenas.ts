/**
 * Some machines of a test have one arena after the other: to reserve one has the runtime collect garbage, and tests
 * build machines by the ten thousand. Nothing in an arena is given twice.
 * @module
 */
import { Arena } from "../../../rings/arena.ts";

/** As many as have room for their frames, 128 MiB each. */
const MACHINES = 12;

const reserve = Arena.reserve;
let arena: Arena | null = null;
let machines = 0;

Arena.reserve = () => {
  if (machines++ % MACHINES === 0) arena = reserve();
  return arena;
};
