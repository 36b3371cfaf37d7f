import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { z } from "zod";
import { guestOptionsSchema } from "../../../../devices/net/driver/mod.ts";
import { guestOptions, type GuestOptionsInput } from "../../../../devices/net/driver/options.ts";

Deno.test("guestOptions() has a default for everything", () => {
  assertEquals(guestOptions({}), {
    ring: "split",
    queueSize: 256,
    queuePairs: 1,
    receiveBuffers: "all",
    transmitBufferBytes: 2048,
    descriptorsPerBuffer: 1,
    mergeable: true,
    indirect: true,
    eventIndex: true,
    accept: "all",
    legacy: false,
    behaviour: "sink",
    memoryRegions: 1,
    polling: false,
    reuse: false,
  });
  assertEquals(guestOptions({ behaviour: { send: {} } }).behaviour, {
    send: { count: 1, frameBytes: 60, intervalUs: 1000, destination: "ff:ff:ff:ff:ff:ff" },
  });
  const complete = guestOptions({ ring: "packed", queueSize: 7, accept: ["MQ", 61] });
  assertEquals(guestOptions(complete), complete);
});

Deno.test("guestOptions() names every field that is wrong, and the remedy", () => {
  const wrong: [unknown, string][] = [
    [{ queueSize: 100 }, 'queueSize: must be a power of two for split rings; write one, or "ring": "packed"'],
    [{ ring: "packed", legacy: true }, "legacy: packed rings need VERSION_1"],
    [{ accept: ["GUEST_TSO5"] }, "such as GUEST_TSO4, or a bit number"],
    [{ behaviour: { send: { destination: "52:54" } } }, "52:54:00:00:00:01"],
    [{ queueSize: 0, queuePairs: 0 }, "queuePairs: "],
    [{ rings: 1 }, '"rings"'],
  ];
  for (const [input, message] of wrong) {
    const error = assertThrows(() => guestOptions(input as GuestOptionsInput), RangeError, message);
    assert(error.message.startsWith("Cannot make a software guest: "));
  }
});

Deno.test("guestOptions() takes anything or throws RangeError", () => {
  const key = fc.constantFrom(
    "ring",
    "queueSize",
    "receiveBuffers",
    "accept",
    "behaviour",
    "legacy",
    "other",
  );
  fc.assert(
    fc.property(fc.dictionary(key, fc.jsonValue()), (input) => {
      try {
        assertEquals(guestOptions(guestOptions(input as GuestOptionsInput)).transmitBufferBytes, 2048);
      } catch (error) {
        assert(error instanceof RangeError);
      }
    }),
    { numRuns: 500 },
  );
});

Deno.test("guestOptionsSchema describes every option in JSON Schema", () => {
  const json = z.toJSONSchema(guestOptionsSchema as unknown as z.ZodType, { io: "input" });
  const properties = Object.entries(json.properties!) as [string, { description?: string }][];
  assertEquals(properties.length, 16);
  assertEquals(json.additionalProperties, false);
  for (const [name, property] of properties) assert((property.description ?? "").length > 20, name);
});
