/**
 * Preloaded, it has every test run as on a host that gives no memory for frames and guests together: plain
 * code works all rings, in ordinary buffers.
 * @module
 */
import { Arena } from "../../rings/arena.ts";

Arena.reserve = () => null;
