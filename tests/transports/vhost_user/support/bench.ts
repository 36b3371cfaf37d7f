/**
 * A back-end, a device and a front-end in memory.
 * @module
 */
import { assertEquals } from "@std/assert";
import type { Device } from "../../../../core/device.ts";
import type { ResolvedOffload } from "../../../../pipeline/plugin.ts";
import { FaultLog } from "../../../../core/session.ts";
import { Backend } from "../../../../transports/vhost_user/backend.ts";
import { decodeHeader } from "../../../../transports/vhost_user/messages.ts";
import { HEADER_BYTES } from "../../../../transports/vhost_user/messages.ts";
import type { ProfileName } from "../../../../transports/vhost_user/front_ends.ts";
import type { ProtocolTrace } from "../../../../transports/vhost_user/protocol_trace.ts";
import { type FakeDescriptor, FakeEvent, FakeHost } from "./fake_host.ts";
import { type NetRig, newNetRig } from "./fake_network.ts";
import { FrontEnd, usualFeatures, type Wire } from "../../../../rigs/vhost_user/front_end.ts";
import { GUEST_BYTES, type GuestLayout, TestGuest } from "../../../../rigs/vhost_user/guest.ts";

/** How a bench is set up. */
export interface BenchSettings {
  readonly profile?: ProfileName;
  readonly guest?: GuestLayout;
  readonly device?: Parameters<typeof newNetRig>[0];
  readonly offloads?: readonly ResolvedOffload[];
  readonly trace?: ProtocolTrace;
}

/** Everything at hand, by a clock that stands where it is put. */
export class Bench implements Wire<FakeDescriptor>, Disposable {
  readonly host = new FakeHost();
  readonly rig: NetRig;
  readonly faults = new FaultLog();
  /** Messages refused, by fault. */
  readonly refused: Record<string, number> = {};
  readonly buffer = new ArrayBuffer(GUEST_BYTES);
  readonly front: FrontEnd<FakeDescriptor>;
  readonly kicks: FakeEvent[] = [];
  readonly calls: FakeEvent[] = [];
  readonly errors: FakeEvent[] = [];
  backend: Backend;
  nowNs = 0;
  readonly #settings: BenchSettings;

  constructor(settings: BenchSettings = {}) {
    this.#settings = settings;
    this.rig = newNetRig(settings.device, settings.offloads);
    this.backend = this.newBackend(this.rig.device);
    this.front = new FrontEnd(this, new TestGuest(this.buffer, settings.guest));
  }

  get guest(): TestGuest {
    return this.front.guest;
  }

  newBackend(device: Device): Backend {
    return new Backend(device, {
      host: this.host,
      profile: this.#settings.profile ?? "auto",
      faults: this.faults,
      refused: (fault) => this.refused[fault] = (this.refused[fault] ?? 0) + 1,
      trace: this.#settings.trace ?? null,
    });
  }

  exchange(bytes: Uint8Array, descriptors: readonly FakeDescriptor[]): Uint8Array | null {
    return this.backend.receive(decodeHeader(bytes), bytes.subarray(HEADER_BYTES), descriptors);
  }

  memory(): FakeDescriptor {
    return this.host.descriptor({ kind: "memory", buffer: this.buffer });
  }

  kick(ring: number): FakeDescriptor {
    return this.host.descriptor(this.kicks[ring] = new FakeEvent());
  }

  call(ring: number): FakeDescriptor {
    return this.host.descriptor(this.calls[ring] = new FakeEvent());
  }

  error(ring: number): FakeDescriptor {
    return this.host.descriptor(this.errors[ring] = new FakeEvent());
  }

  /** Rounds until nothing moves. */
  settle(): void {
    for (let rounds = 0; this.backend.poll(this.nowNs) || this.backend.hear(); rounds++) {
      if (rounds > 1000) throw new Error("the back-end does not come to rest");
    }
  }

  /** A usual start: features, memory, two rings, enabled; eight receive buffers. */
  start({ features = usualFeatures(this.front.features()), protocol = true } = {}): void {
    const { front } = this;
    if (protocol) front.setProtocolFeatures(front.protocolFeatures());
    front.setFeatures(features);
    front.setMemoryTable();
    for (const ring of [0, 1]) front.describe(ring);
    for (const ring of [0, 1]) front.enable(ring, true);
    this.guest.post(0, 8);
    this.settle();
  }

  /** Asserts that frames go both ways on a pair. */
  assertWorks(pair = 0): void {
    const { network } = this.rig;
    const toGuest = frameOf(pair, 7);
    network.inbox.push(toGuest);
    this.settle();
    assertEquals(this.guest.received(2 * pair).map((bytes) => bytes[59]), [7]);
    this.guest.post(2 * pair, 1);
    const before = network.sent.length;
    this.guest.send(2 * pair + 1, frameOf(pair, 9));
    this.kicks[2 * pair + 1]?.kick();
    this.settle();
    assertEquals(network.sent.slice(before).map((bytes) => bytes[59]), [9]);
    assertEquals(this.guest.returned(2 * pair + 1), 1);
  }

  /** Asserts that nothing of the front-end is left. */
  [Symbol.dispose](): void {
    this.backend[Symbol.dispose]();
    assertEquals(this.host.openDescriptors, 0, "descriptors left open");
    assertEquals(this.host.mappings, 0, "mappings left");
    assertEquals(this.rig.pool.inUse, 0, "frames left");
  }
}

function frameOf(pair: number, number: number): Uint8Array {
  const bytes = new Uint8Array(60);
  bytes.set([0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, pair, 2, 0x88, 0xb5]);
  bytes[59] = number;
  return bytes;
}
