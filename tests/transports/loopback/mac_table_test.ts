import { assert, assertEquals } from "@std/assert";
import { MacTable, NO_PORT } from "../../../transports/loopback/cable.ts";

Deno.test("MacTable finds what it learned last, never a group, and stays its size under a flood", () => {
  const table = new MacTable();
  const address = (n: number) => Uint8Array.of(2, 0, n >>> 24, n >>> 16, n >>> 8, n);
  const group = Uint8Array.of(1, 0, 0x5e, 0, 0, 1);
  table.learn(group, 0, 3, 0);
  assertEquals(table.find(group, 0, 0), NO_PORT);
  for (let n = 0; n < 100_000; n++) {
    table.learn(address(n), 0, n % 7, 0);
    assertEquals(table.find(address(n), 0, 0), n % 7);
  }
  let known = 0;
  for (let n = 0; n < 100_000; n++) {
    const port = table.find(address(n), 0, 0);
    if (port === NO_PORT) continue;
    assertEquals(port, n % 7);
    known++;
  }
  assert(known > 500 && known <= 1024);
  for (let port = 0; port < 7; port++) table.forget(port, true);
  for (let n = 0; n < 100_000; n += 97) assertEquals(table.find(address(n), 0, 0), NO_PORT);
});

Deno.test("MacTable: an address of the configuration stays where it is, a learned one moves and is forgotten", () => {
  const table = new MacTable();
  const [fixed, learned] = [Uint8Array.of(2, 0, 0, 0, 0, 1), Uint8Array.of(2, 0, 0, 0, 0, 2)];
  table.fix(fixed, 0, 0);
  table.learn(fixed, 0, 1, 0);
  assertEquals(table.find(fixed, 0, 1e15), 0);
  table.learn(learned, 0, 0, 0);
  table.learn(learned, 0, 1, 1e9);
  assertEquals([table.find(learned, 0, 300e9), table.find(learned, 0, 302e9)], [1, NO_PORT]);
  table.learn(learned, 0, 0, 400e9);
  table.forget(0, false);
  assertEquals([table.find(learned, 0, 400e9), table.find(fixed, 0, 400e9)], [NO_PORT, 0]);
  table.forget(0, true);
  assertEquals(table.find(fixed, 0, 400e9), NO_PORT);
});
