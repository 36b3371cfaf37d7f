/**
 * Back-ends in processes of their own.
 * @module
 */
import { assertEquals, assertMatch } from "@std/assert";
import type { CommandProcess } from "./process.ts";

/** A network device behind a socket in the folder of the configuration. */
export const NET = {
  use: "net",
  name: "lan",
  mac: "52:54:00:00:00:07",
  driver: { use: "vhost-user", socket: "lan.sock" },
  network: "loopback",
};

/** An entropy device likewise. */
export const RNG = { use: "entropy", name: "dice", driver: { use: "vhost-user", socket: "dice.sock" } };

/** What they need. */
export const FLAGS = ["--allow-read", "--allow-ffi"];

/** Writes a configuration of these devices, and returns its path. */
export async function write(folder: string, ...devices: unknown[]): Promise<string> {
  const path = `${folder}/config.json`;
  await Deno.writeTextFile(path, JSON.stringify({ devices }));
  return path;
}

/** What a back-end says of its devices, with the time of day. */
const EVENT = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ([a-z0-9_-]+: .*)$/;

/** The events among the lines of a standard error, without their times. */
export function eventsIn(err: string): string[] {
  return err.split("\n").flatMap((line) => EVENT.exec(line)?.slice(1, 2) ?? []);
}

/** A standard error without events. */
export function withoutEvents(err: string): string {
  return err.split("\n").filter((line) => !EVENT.test(line)).join("\n");
}

/** Tells a back-end to stop, and asserts that it does so as it should. Returns its standard error. */
export async function stop(child: CommandProcess): Promise<string> {
  child.signal("SIGTERM");
  const { code, rest, err } = await child.end();
  assertEquals(code, 0, err);
  assertMatch(rest.join("\n"), /SIGTERM: stopping\nStopped after .*, as asked/);
  return err;
}
