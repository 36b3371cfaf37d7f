import { assert, assertEquals } from "@std/assert";
import { PageLog } from "../../../host/page_log.ts";
import { Request } from "../../../transports/vhost_user/messages.ts";
import { Bench } from "./support/bench.ts";
import { FakeEvent } from "./support/fake_host.ts";
import { frame } from "./support/fake_network.ts";
import { usualFeatures } from "../../../rigs/vhost_user/front_end.ts";
import { GUEST_BASE, GUEST_BYTES, type GuestLayout } from "../../../rigs/vhost_user/guest.ts";
import { concat, u64 } from "../../../rigs/vhost_user/payload.ts";

const LOG_ALL = 1n << 26n;
const LOG_BYTES = (GUEST_BASE + GUEST_BYTES) / 4096 / 8;

/** Pages that are marked in a log, as guest addresses. */
function marked(log: ArrayBuffer, offset = 0): number[] {
  const pages: number[] = [];
  new Uint8Array(log, offset).forEach((byte, i) => {
    for (let bit = 0; bit < 8; bit++) if ((byte >>> bit & 1) === 1) pages.push((8 * i + bit) * 4096);
  });
  return pages;
}

function migrate(bench: Bench, log: ArrayBuffer, extra: readonly number[] = [], offset = 0): void {
  const payload = concat(u64(log.byteLength - offset), u64(offset));
  const descriptor = bench.host.descriptor({ kind: "memory", buffer: log });
  assertEquals(bench.front.ask(Request.SET_LOG_BASE, payload, [descriptor]), 0n);
  bench.front.setFeatures(usualFeatures(bench.front.features(), ...extra) | LOG_ALL);
}

/** The pages in which a guest's queue has its parts, and its first receive buffer. */
const DESCRIPTORS_PAGE = GUEST_BASE;
const FIRST_BUFFER_PAGE = GUEST_BASE + 0x2000;

for (const layout of [{ packed: false }, { packed: true }] as GuestLayout[]) {
  const name = layout.packed ? "packed" : "split";
  const extra = layout.packed ? [34] : [];

  Deno.test(`a migration begins and ends in the midst of work, without setting the device up anew (${name})`, () => {
    using bench = new Bench({ guest: layout });
    bench.start({ features: usualFeatures(bench.front.features(), ...extra) });
    const { activations } = bench.rig.counters[""];
    const log = new ArrayBuffer(LOG_BYTES);
    migrate(bench, log, extra);
    bench.assertWorks();
    for (const ring of [0, 1]) bench.front.setAddress(ring, 1, bench.guest.place(ring).device);
    bench.assertWorks();
    assert(marked(log).length > 0);
    bench.front.setFeatures(usualFeatures(bench.front.features(), ...extra));
    for (const ring of [0, 1]) bench.front.setAddress(ring);
    new Uint8Array(log).fill(0);
    bench.assertWorks();
    assertEquals(marked(log), []);
    assertEquals(bench.rig.counters[""].activations, activations);
  });

  Deno.test(`buffers are logged by where they are, used rings only if their address asks for it (${name})`, () => {
    using bench = new Bench({ guest: layout });
    bench.start({ features: usualFeatures(bench.front.features(), ...extra) });
    const log = new ArrayBuffer(LOG_BYTES);
    migrate(bench, log, extra);
    bench.rig.network.inbox.push(frame(1));
    bench.settle();
    assertEquals(marked(log), [FIRST_BUFFER_PAGE]);

    // The log address may lie elsewhere; only the parts that a packed ring has in its descriptors keep their
    // place.
    const elsewhere = 0x5000;
    bench.front.setAddress(0, 1, elsewhere);
    new Uint8Array(log).fill(0);
    bench.rig.network.inbox.push(frame(2));
    bench.settle();
    const pages = marked(log);
    assert(pages.includes(FIRST_BUFFER_PAGE), String(pages));
    assertEquals(pages.includes(elsewhere), !layout.packed, "used elements are in the used ring");
    assertEquals(pages.includes(DESCRIPTORS_PAGE), layout.packed === true, "or in the descriptors");

    // Whether kicks are wanted is written too: of a transmit ring, after each burst.
    bench.front.setAddress(1, 1, elsewhere);
    new Uint8Array(log).fill(0);
    bench.guest.send(1, frame(3));
    bench.settle();
    assertEquals(marked(log).includes(elsewhere), true);
  });
}

Deno.test("SET_LOG_BASE is answered whether asked or not, since the front-end waits", () => {
  using bench = new Bench();
  bench.front.setProtocolFeatures(bench.front.protocolFeatures());
  assert(bench.front.ask(Request.SET_LOG_BASE, concat(u64(0), u64(0)), [bench.memory()]) !== 0n);
  assert(bench.front.ask(Request.SET_LOG_BASE, concat(u64(4096), u64(0))) !== 0n, "there is no memory");
  assertEquals(bench.refused, { "log-invalid": 2 });
});

Deno.test("a log starts at its offset, and a new one takes the place of the old", () => {
  using bench = new Bench();
  bench.start();
  const first = new ArrayBuffer(LOG_BYTES + 4096);
  migrate(bench, first, [], 4096);
  bench.rig.network.inbox.push(frame(1));
  bench.settle();
  assertEquals(marked(first, 4096), [FIRST_BUFFER_PAGE]);
  assertEquals(new Uint8Array(first, 0, 4096).every((byte) => byte === 0), true);
  const second = new ArrayBuffer(LOG_BYTES);
  migrate(bench, second);
  assertEquals(bench.host.mappings, 2, "guest memory and one log");
  bench.rig.network.inbox.push(frame(1));
  bench.settle();
  assertEquals(marked(second), [FIRST_BUFFER_PAGE]);
});

Deno.test("writes go on being logged when the memory table is replaced", () => {
  using bench = new Bench();
  bench.start();
  const log = new ArrayBuffer(LOG_BYTES);
  migrate(bench, log);
  bench.front.setMemoryTable();
  bench.rig.network.inbox.push(frame(1));
  bench.settle();
  assertEquals(marked(log), [FIRST_BUFFER_PAGE]);
});

Deno.test("the event of SET_LOG_FD is signalled once for each round that logged something", () => {
  using bench = new Bench();
  bench.start();
  const event = new FakeEvent();
  bench.front.say(Request.SET_LOG_FD, undefined, [bench.host.descriptor(event)]);
  migrate(bench, new ArrayBuffer(LOG_BYTES));
  for (let i = 0; i < 3; i++) bench.rig.network.inbox.push(frame(i));
  bench.settle();
  assertEquals(event.signals, 1);
  bench.settle();
  assertEquals(event.signals, 1);
});

Deno.test("pages behind the end of a log that is too short are counted, and nothing else is touched", () => {
  using bench = new Bench();
  bench.start();
  const log = new ArrayBuffer(8);
  migrate(bench, log);
  bench.rig.network.inbox.push(frame(1), frame(2));
  bench.settle();
  assertEquals(marked(log), []);
  // Header and frame are one write; each write counts.
  assertEquals(bench.backend.unloggedPages, 2);
  assertEquals(bench.guest.received(0).length, 2);
});

Deno.test("PageLog marks every page of a range, and keeps the bits of others", () => {
  const bits = new Uint8Array(16);
  bits[1] = 0x80;
  const log = new PageLog(bits);
  assertEquals(log.takeModified(), false);
  log.mark(7 * 4096 + 4095, 2);
  assertEquals([bits[0], bits[1]], [0x80, 0x81]);
  log.mark(16 * 4096, 4096 * 8);
  assertEquals([bits[2], bits[3]], [0xff, 0]);
  log.mark(127 * 4096, 4097);
  assertEquals([bits[15], log.unloggedPages, log.takeModified(), log.takeModified()], [0x80, 1, true, false]);
});
