import { assert, assertEquals, assertThrows } from "@std/assert";
import * as fc from "fast-check";
import { GuestError } from "../../../rings/guest_error.ts";
import { FeatureSet } from "../../../core/features.ts";
import type { RuleBook } from "../../../pipeline/qemu_compat.ts";
import { ControlQueue, type ControlRequest, MAX_COMMAND_BYTES } from "../../../devices/net/control_queue.ts";
import { ReceiveFilter } from "../../../devices/net/receive_filter.ts";
import { Steering } from "../../../devices/net/steering.ts";
import { featureBit } from "../../../wire/net_features.ts";
import { frame, PUBLISHED_KEY, v4 } from "./frames.ts";

const OK = 0;
const ERR = 1;
const OWN = [0x52, 0x54, 0, 0, 0, 1];

/** A chain that has one readable and one writable part. */
class Request implements ControlRequest {
  readonly #command: Uint8Array;
  readonly written: number[] = [];
  #read = 0;
  readonly writableBytes: number;
  reads = 0;

  constructor(command: ArrayLike<number>, writableBytes = 1) {
    this.#command = Uint8Array.from(command);
    this.writableBytes = writableBytes;
  }

  get readableBytes(): number {
    return this.#command.length;
  }

  read(target: Uint8Array, at: number, length: number): number {
    const part = this.#command.subarray(this.#read, this.#read + length);
    assert(at + part.length <= target.length, "read beyond the target");
    target.set(part, at);
    this.#read += part.length;
    this.reads += part.length;
    return part.length;
  }

  write(source: Uint8Array, at: number, length: number): number {
    const room = Math.min(length, this.writableBytes - this.written.length);
    this.written.push(...source.subarray(at, at + room));
    return room;
  }
}

/** A control queue with everything it programs; `told` is what the device heard. */
class Rig {
  readonly filter = new ReceiveFilter(Uint8Array.from(OWN));
  readonly steering: Steering;
  readonly told: string[] = [];
  readonly queue: ControlQueue;
  queuesReady = true;

  constructor(features: string[], rules: RuleBook = "strict", maxPairs = 4) {
    this.steering = new Steering(maxPairs);
    this.queue = new ControlQueue({
      filter: this.filter,
      steering: this.steering,
      maxPairs,
      rules,
      hooks: {
        offloadsRequested: (mask) => this.told.push(`requested ${mask}`),
        setGuestOffloads: (offloads) => this.told.push(`offloads ${[...offloads]}`),
        setQueuePairs: (pairs) => this.told.push(`pairs ${pairs}`) > 0 && this.queuesReady,
        announceAcked: () => this.told.push("announced"),
        macChanged: (mac) => this.told.push(`mac ${mac}`),
      },
    });
    this.queue.negotiated(FeatureSet.from(features.map((name) => featureBit(name)!)));
  }

  send(...command: number[]): number {
    const request = new Request(command);
    assertEquals(this.queue.handle(request), 1);
    assertEquals(request.written.length, 1);
    return request.written[0];
  }

  /** The command is refused for this reason, and for no other, and it is not reported. */
  refuses(reason: string, ...command: number[]): void {
    const before: Record<string, number> = { ...this.queue.counters };
    const told = this.told.length;
    assertEquals(this.send(...command), ERR, `${command}`);
    before.commands++;
    before[reason]++;
    assertEquals({ ...this.queue.counters }, before as typeof this.queue.counters, `${command}`);
    assertEquals(
      this.told.slice(told).filter((heard) => !/^(requested|pairs)/.test(heard)),
      [],
      `${command}`,
    );
  }

  accepts(destination: number[], ...tag: number[]): boolean {
    const bytes = Uint8Array.from([...destination, 2, 0, 0, 0, 0, 9, ...tag, 8, 0, 0, 0]);
    return this.filter.accepts(bytes, 0, bytes.length) === "accepted";
  }
}

function le(value: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 255);
}

function mask(...bits: number[]): number[] {
  return Array.from(
    { length: 8 },
    (_, i) => bits.filter((bit) => bit >>> 3 === i).reduce((sum, bit) => sum | 1 << (bit & 7), 0),
  );
}

interface RssParts {
  types?: number;
  table?: number[];
  tableMask?: number;
  unclassified?: number;
  transmit?: number;
  key?: number[];
}

function rssConfig(parts: RssParts = {}): number[] {
  const { types = 3, table = [0, 1, 2, 3], unclassified = 0, transmit = 4, key = [...PUBLISHED_KEY] } = parts;
  return [
    ...[4, 1],
    ...le(types, 4),
    ...le(parts.tableMask ?? table.length - 1, 2),
    ...le(unclassified, 2),
    ...table.flatMap((pair) => le(pair, 2)),
    ...le(transmit, 2),
    key.length,
    ...key,
  ];
}

Deno.test("ControlQueue.handle() switches the six receive modes", () => {
  const modes = ["promisc", "allmulti", "alluni", "nomulti", "nouni", "nobcast"] as const;
  const rig = new Rig(["CTRL_VQ", "CTRL_RX", "CTRL_RX_EXTRA"]);
  for (const [command, mode] of modes.entries()) {
    for (const on of [true, false, true]) {
      assertEquals(rig.send(0, command, on ? 1 : 0), OK);
      assertEquals(rig.filter.mode(mode), on, mode);
    }
    rig.refuses("data_short", 0, command);
    rig.refuses("data_long", 0, command, 0, 0);
    rig.refuses("value_invalid", 0, command, 2);
    assertEquals(rig.filter.mode(mode), true);
  }
  rig.refuses("unknown_command", 0, 6, 1);
});

Deno.test("ControlQueue.handle() wants CTRL_RX_EXTRA for the four extra modes", () => {
  const rig = new Rig(["CTRL_VQ", "CTRL_RX"]);
  assertEquals([0, 1].map((command) => rig.send(0, command, 1)), [OK, OK]);
  for (const command of [2, 3, 4, 5]) rig.refuses("not_negotiated", 0, command, 1);
  const extra = new Rig(["CTRL_VQ", "CTRL_RX_EXTRA"]);
  extra.refuses("not_negotiated", 0, 0, 0);
  assertEquals(extra.send(0, 5, 1), OK);
});

Deno.test("ControlQueue.handle() replaces the MAC tables", () => {
  const rig = new Rig(["CTRL_VQ", "CTRL_RX"]);
  rig.send(0, 0, 0);
  const other = [2, 0, 0, 0, 0, 5];
  const group = [1, 0, 0x5e, 0, 0, 1];
  assertEquals([rig.accepts(other), rig.accepts(group)], [false, false]);
  assertEquals(rig.send(1, 0, ...le(1, 4), ...other, ...le(1, 4), ...group), OK);
  assertEquals([rig.accepts(other), rig.accepts(group), rig.accepts([2, 0, 0, 0, 0, 6])], [
    true,
    true,
    false,
  ]);
  assertEquals(rig.send(1, 0, ...le(0, 4), ...le(0, 4)), OK);
  assertEquals([rig.accepts(other), rig.accepts(group), rig.accepts(OWN)], [false, false, true]);
});

Deno.test("ControlQueue.handle() refuses MAC tables that lie about their length", () => {
  const rig = new Rig(["CTRL_VQ", "CTRL_RX"]);
  rig.send(0, 0, 0);
  const other = [2, 0, 0, 0, 0, 5];
  rig.send(1, 0, ...le(1, 4), ...other, ...le(0, 4));
  rig.refuses("data_short", 1, 0);
  rig.refuses("data_short", 1, 0, 0, 0, 0);
  rig.refuses("data_short", 1, 0, ...le(0, 4));
  rig.refuses("data_short", 1, 0, ...le(1, 4), ...other);
  rig.refuses("data_short", 1, 0, ...le(0xffffffff, 4), ...other, ...le(0, 4));
  rig.refuses("data_short", 1, 0, ...le(0, 4), ...le(0x2aaaaaab, 4));
  rig.refuses("data_short", 1, 0, ...le(0, 4), ...le(1, 4), 1, 2, 3, 4, 5);
  rig.refuses("data_long", 1, 0, ...le(0, 4), ...le(0, 4), 0);
  rig.refuses("unknown_command", 1, 2, 0);
  assertEquals(rig.accepts(other), true, "the table before is still in force");
  new Rig(["CTRL_VQ", "CTRL_MAC_ADDR"]).refuses("not_negotiated", 1, 0, ...le(0, 4), ...le(0, 4));
});

Deno.test("ControlQueue.handle() takes a list of ten thousand addresses and lets all of their kind through", () => {
  const rig = new Rig(["CTRL_VQ", "CTRL_RX"]);
  rig.send(0, 0, 0);
  assertEquals(rig.send(1, 0, ...le(10_000, 4), ...new Array(60_000).fill(2), ...le(0, 4)), OK);
  assertEquals([rig.accepts([2, 9, 9, 9, 9, 9]), rig.accepts([3, 9, 9, 9, 9, 9])], [true, false]);
});

Deno.test("ControlQueue.handle() sets the MAC address, with CTRL_RX or CTRL_MAC_ADDR", () => {
  for (const feature of ["CTRL_RX", "CTRL_MAC_ADDR"]) {
    const rig = new Rig(["CTRL_VQ", feature]);
    rig.filter.setMode("promisc", false);
    assertEquals(rig.send(1, 1, 2, 0, 0, 0, 0, 7), OK);
    assertEquals(rig.told, ["mac 2,0,0,0,0,7"]);
    assertEquals([rig.accepts([2, 0, 0, 0, 0, 7]), rig.accepts(OWN)], [true, false]);
    rig.refuses("data_short", 1, 1, 2, 0, 0, 0, 0);
    rig.refuses("data_long", 1, 1, 2, 0, 0, 0, 0, 7, 0);
    rig.refuses("value_invalid", 1, 1, 3, 0, 0, 0, 0, 7);
    assertEquals(rig.accepts([2, 0, 0, 0, 0, 7]), true);
  }
  new Rig(["CTRL_VQ"]).refuses("not_negotiated", 1, 1, 2, 0, 0, 0, 0, 7);
});

Deno.test("ControlQueue.handle() adds and removes VLANs", () => {
  const rig = new Rig(["CTRL_VQ", "CTRL_VLAN"]);
  rig.filter.negotiated(FeatureSet.of(featureBit("CTRL_VLAN")!));
  rig.filter.setMode("promisc", false);
  const tag = [0x81, 0, 0x0f, 0xff];
  assertEquals(rig.accepts(OWN, ...tag), false);
  assertEquals(rig.send(2, 0, 0xff, 0x0f), OK);
  assertEquals(rig.accepts(OWN, ...tag), true);
  rig.refuses("value_invalid", 2, 1, 0x00, 0x10);
  rig.refuses("data_short", 2, 1, 0xff);
  rig.refuses("data_long", 2, 1, 0xff, 0x0f, 0);
  rig.refuses("unknown_command", 2, 2, 0xff, 0x0f);
  assertEquals(rig.accepts(OWN, ...tag), true);
  assertEquals(rig.send(2, 1, 0xff, 0x0f), OK);
  assertEquals(rig.accepts(OWN, ...tag), false);
  new Rig(["CTRL_VQ"]).refuses("not_negotiated", 2, 0, 1, 0);
});

Deno.test("ControlQueue.handle() hears that the driver has announced itself", () => {
  const rig = new Rig(["CTRL_VQ", "GUEST_ANNOUNCE"]);
  assertEquals([rig.send(3, 0), rig.told], [OK, ["announced"]]);
  rig.refuses("data_long", 3, 0, 0);
  rig.refuses("unknown_command", 3, 1);
  new Rig(["CTRL_VQ"]).refuses("not_negotiated", 3, 0);
});

Deno.test("ControlQueue.handle() sets the number of queue pairs", () => {
  const rig = new Rig(["CTRL_VQ", "MQ"]);
  assertEquals([rig.send(4, 0, 4, 0), rig.told, rig.steering.pairs], [OK, ["pairs 4"], 4]);
  rig.refuses("value_invalid", 4, 0, 0, 0);
  rig.refuses("value_invalid", 4, 0, 5, 0);
  rig.refuses("value_invalid", 4, 0, 1, 1);
  rig.refuses("data_short", 4, 0, 1);
  rig.refuses("data_long", 4, 0, 1, 0, 0);
  rig.refuses("unknown_command", 4, 3, 1, 0);
  assertEquals([rig.told, rig.steering.pairs], [["pairs 4"], 4]);
  rig.queuesReady = false;
  rig.refuses("queue_not_ready", 4, 0, 2, 0);
  assertEquals(rig.steering.pairs, 4);
  new Rig(["CTRL_VQ", "RSS"]).refuses("not_negotiated", 4, 0, 1, 0);
});

Deno.test("ControlQueue.handle() configures receive-side scaling", () => {
  const rig = new Rig(["CTRL_VQ", "RSS"]);
  const { bytes } = frame({
    source: v4("66.9.149.187"),
    destination: v4("161.142.100.80"),
    ports: [2794, 1766],
  });
  assertEquals(rig.send(...rssConfig({ table: [0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0] })), OK);
  assertEquals([rig.told, rig.steering.usesRss, rig.steering.pairs], [["pairs 4"], true, 4]);
  assertEquals(rig.steering.select(bytes, 0, bytes.length), 3, "0x51ccc178 & 15 is 8");
  assertEquals(rig.send(...rssConfig({ types: 0x38, table: [1], unclassified: 2, transmit: 1 })), OK);
  assertEquals(rig.told.at(-1), "pairs 3");
  assertEquals(rig.send(...rssConfig({ table: [0, 3], transmit: 1 })), OK);
  assertEquals([rig.told.at(-1), rig.steering.pairs], ["pairs 4", 4]);
  assertEquals(rig.send(...rssConfig({ types: 0x38, table: [1], unclassified: 2, transmit: 1 })), OK);
  assertEquals(rig.steering.select(bytes, 0, bytes.length), 2);
  assertEquals(rig.send(...rssConfig({ types: 0, table: [0], key: [] })), OK);
  assertEquals(rig.send(...rssConfig({ table: new Array(128).fill(1) })), OK);
});

Deno.test("ControlQueue.handle() refuses receive-side scaling that cannot be meant", () => {
  const rig = new Rig(["CTRL_VQ", "RSS"]);
  assertEquals(rig.send(...rssConfig({ table: [2], transmit: 3 })), OK);
  const config = rssConfig();
  for (let length = 2; length < config.length; length++) {
    rig.refuses("data_short", ...config.slice(0, length));
  }
  rig.refuses("data_long", ...config, 0);
  rig.refuses("value_invalid", ...rssConfig({ types: 0x40 }));
  rig.refuses("value_invalid", ...rssConfig({ types: 0x80000001 }));
  rig.refuses("value_invalid", ...rssConfig({ table: [0, 1, 2] }));
  rig.refuses("value_invalid", ...rssConfig({ table: new Array(256).fill(0) }));
  rig.refuses("value_invalid", ...rssConfig({ tableMask: 0xffff }));
  rig.refuses("value_invalid", ...rssConfig({ table: [0, 4] }));
  rig.refuses("value_invalid", ...rssConfig({ table: [0, 0x8001] }));
  rig.refuses("value_invalid", ...rssConfig({ unclassified: 4 }));
  rig.refuses("value_invalid", ...rssConfig({ transmit: 0 }));
  rig.refuses("value_invalid", ...rssConfig({ transmit: 5 }));
  rig.refuses("value_invalid", ...rssConfig({ key: [] }));
  rig.refuses("value_invalid", ...rssConfig({ key: new Array(41).fill(1) }));
  rig.queuesReady = false;
  rig.refuses("queue_not_ready", ...rssConfig());
  assertEquals(
    [rig.steering.usesRss, rig.steering.pairs],
    [true, 3],
    "what was configured before is in force",
  );
  new Rig(["CTRL_VQ", "MQ", "HASH_REPORT"]).refuses("not_negotiated", ...rssConfig());
});

Deno.test("ControlQueue.handle() configures hash reports, and goes back to automatic steering", () => {
  const rig = new Rig(["CTRL_VQ", "RSS", "MQ", "HASH_REPORT"]);
  rig.send(...rssConfig());
  const config = [4, 2, ...le(3, 4), ...new Array(8).fill(0), 40, ...PUBLISHED_KEY];
  assertEquals(rig.send(...config), OK);
  assertEquals([rig.steering.usesRss, rig.steering.pairs], [false, 4]);
  const { bytes } = frame({
    source: v4("66.9.149.187"),
    destination: v4("161.142.100.80"),
    ports: [2794, 1766],
  });
  assertEquals(rig.steering.packetHash.compute(bytes, 0, bytes.length), 2);
  assertEquals(rig.steering.packetHash.value, 0x51ccc178);
  for (let length = 2; length < config.length; length++) {
    rig.refuses("data_short", ...config.slice(0, length));
  }
  rig.refuses("data_long", ...config, 0);
  rig.refuses("value_invalid", 4, 2, ...le(3, 4), ...new Array(8).fill(0), 0);
  rig.refuses("value_invalid", 4, 2, ...le(0x100, 4), ...config.slice(6));
  assertEquals(rig.steering.packetHash.types, 3);
  assertEquals(rig.send(4, 2, ...le(0, 4), ...new Array(8).fill(0), 0), OK);
  assertEquals(rig.steering.packetHash.types, 0);
  new Rig(["CTRL_VQ", "RSS"]).refuses("not_negotiated", ...config);
});

Deno.test("ControlQueue.handle() leaves receive-side scaling when the driver sets the number of pairs", () => {
  const rig = new Rig(["CTRL_VQ", "RSS", "MQ"]);
  rig.send(...rssConfig());
  assertEquals(rig.send(4, 0, 2, 0), OK);
  assertEquals([rig.steering.usesRss, rig.steering.pairs], [false, 2]);
});

const OFFLOADS = ["CTRL_VQ", "CTRL_GUEST_OFFLOADS", "GUEST_CSUM", "GUEST_TSO4", "GUEST_TSO6"];

Deno.test("ControlQueue.handle() switches guest offloads that were negotiated", () => {
  const rig = new Rig([...OFFLOADS, "RSC_EXT"]);
  assertEquals(rig.send(5, 0, ...mask(1, 7, 61)), OK);
  assertEquals(rig.send(5, 0, ...mask(1)), OK);
  assertEquals(rig.send(5, 0, ...mask()), OK);
  assertEquals(rig.told, [
    "requested 0x2000000000000082",
    "offloads 1,7,61",
    "requested 0x2",
    "offloads 1",
    "requested 0x0",
    "offloads ",
  ]);
});

Deno.test("ControlQueue.handle() under strict rules refuses every offload that was not negotiated", () => {
  for (const bit of [9, 10, 46, 47, 54, 55, 61, 0, 32, 63]) {
    const rig = new Rig(OFFLOADS);
    rig.refuses("not_negotiated", 5, 0, ...mask(1, 7, bit));
    assertEquals(rig.told.length, 1, "requested is told before it is judged");
    assert(rig.told[0].startsWith("requested "));
  }
});

Deno.test("ControlQueue.handle() under qemu rules takes RSC_EXT out before it judges the rest", () => {
  const rig = new Rig(OFFLOADS, "qemu");
  assertEquals(rig.send(5, 0, ...mask(1, 7, 61)), OK);
  assertEquals(rig.told, ["requested 0x2000000000000082", "offloads 1,7"]);
  rig.refuses("not_negotiated", 5, 0, ...mask(7, 9, 61));
  assertEquals(rig.told.slice(2), ["requested 0x2000000000000280"], "requested all the same");
  const withRsc = new Rig([...OFFLOADS, "RSC_EXT"], "qemu");
  assertEquals(withRsc.send(5, 0, ...mask(1, 7, 61)), OK);
  assertEquals(withRsc.told.at(-1), "offloads 1,7");
});

Deno.test("ControlQueue.handle() reports no offloads command that is malformed or not negotiated", () => {
  for (const rules of ["strict", "qemu"] as const) {
    const rig = new Rig([...OFFLOADS, "RSC_EXT"], rules);
    rig.refuses("data_short", 5, 0, ...mask(1, 7).slice(0, 7));
    rig.refuses("data_long", 5, 0, ...mask(1, 7), 0);
    rig.refuses("unknown_command", 5, 1, ...mask(1, 7));
    assertEquals(rig.told, []);
    const without = new Rig(["CTRL_VQ", "GUEST_CSUM", "GUEST_TSO4", "RSC_EXT"], rules);
    without.refuses("not_negotiated", 5, 0, ...mask(1, 7, 61));
    assertEquals(without.told, []);
  }
});

Deno.test("ControlQueue.handle() refuses unknown classes, stubs and giants", () => {
  const rig = new Rig(["CTRL_VQ", "CTRL_RX"]);
  for (const unknown of [6, 7, 8, 9, 0x80, 0xff]) rig.refuses("unknown_class", unknown, 0, 0);
  rig.refuses("data_short");
  rig.refuses("data_short", 0);
  const giant = new Request(new Uint8Array(MAX_COMMAND_BYTES + 1));
  assertEquals([rig.queue.handle(giant), giant.written, giant.reads], [1, [ERR], 0]);
  assertEquals(rig.queue.counters.too_large, 1);
});

Deno.test("ControlQueue.handle() throws if there is no room for the answer, and does nothing", () => {
  const rig = new Rig(["CTRL_VQ", "CTRL_RX"]);
  const error = assertThrows(() => rig.queue.handle(new Request([0, 0, 0], 0)), GuestError) as GuestError;
  assertEquals(error.fault, "buffer-too-small");
  assertEquals([rig.queue.counters.commands, rig.filter.mode("promisc")], [0, true]);
});

Deno.test("ControlQueue.handle() writes one byte, however much room there is", () => {
  const rig = new Rig(["CTRL_VQ", "CTRL_RX"]);
  const request = new Request([0, 0, 0], 64);
  assertEquals([rig.queue.handle(request), request.written], [1, [OK]]);
});

Deno.test("ControlQueue.negotiated() with nothing closes the queue for commands", () => {
  const rig = new Rig(["CTRL_VQ", "CTRL_RX"]);
  rig.queue.negotiated(FeatureSet.none);
  rig.refuses("not_negotiated", 0, 0, 0);
});

Deno.test("ControlQueue.handle() of any bytes answers, counts once, and never throws", () => {
  const everything = [
    "CTRL_VQ",
    "CTRL_RX",
    "CTRL_RX_EXTRA",
    "CTRL_VLAN",
    "CTRL_MAC_ADDR",
    "GUEST_ANNOUNCE",
    "MQ",
    "RSS",
  ];
  const small = fc.integer({ min: 0, max: 5 });
  const data = fc.oneof(
    fc.uint8Array({ maxLength: 70 }),
    fc.array(fc.constantFrom(0, 1, 2, 3, 40, 255), { maxLength: 70 }).map((bytes) => Uint8Array.from(bytes)),
  );
  const command = fc.oneof(
    fc.uint8Array({ maxLength: 80 }),
    fc.tuple(small, small, data).map(([first, second, rest]) => Uint8Array.of(first, second, ...rest)),
  );
  for (const rules of ["strict", "qemu"] as const) {
    const rig = new Rig([...everything, ...OFFLOADS, "HASH_REPORT"], rules);
    let sent = 0;
    fc.assert(
      fc.property(command, fc.nat(2), (bytes, room) => {
        const request = new Request(bytes, room);
        if (room === 0) {
          assertThrows(() => rig.queue.handle(request), GuestError, "buffer-too-small");
          return;
        }
        const refusals = () => {
          const { commands: _, ...reasons } = rig.queue.counters;
          return Object.values(reasons).reduce((sum, count) => sum + count);
        };
        const before = refusals();
        assertEquals(rig.queue.handle(request), 1);
        assert(request.written.length === 1 && request.written[0] === refusals() - before);
        assertEquals(rig.queue.counters.commands, ++sent);
        assert(rig.steering.pairs >= 1 && rig.steering.pairs <= 4);
        assert(rig.steering.select(bytes, 0, bytes.length) < 4);
      }),
      { numRuns: 1000 },
    );
  }
});
