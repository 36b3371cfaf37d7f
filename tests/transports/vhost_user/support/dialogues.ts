/**
 * How real front-ends begin and end, message by message: order, repetitions, and what they ask an answer for.
 * @module
 */
import { assertEquals } from "@std/assert";
import { Request } from "../../../../transports/vhost_user/messages.ts";
import { type FrontEnd, usualFeatures } from "../../../../rigs/vhost_user/front_end.ts";
import { u64 } from "../../../../rigs/vhost_user/payload.ts";

/** What dialogues differ in besides the front-end. */
export interface DialogueSettings<D> {
  readonly pairs: number;
  /** A socket for requests of the back-end. */
  socket(): D;
  /** Bits that the guest accepts besides the usual ones. */
  readonly more?: readonly number[];
}

/** A front-end by name. */
export interface Dialogue<D> {
  /** Everything up to a running device. */
  start(front: FrontEnd<D>, settings: DialogueSettings<D>): void;
  /** Stops every ring; returns where they stood. */
  stop(front: FrontEnd<D>, settings: DialogueSettings<D>): number[];
}

const MQ = 22;
const PACKED = 34;
const CTRL_VQ = 17;
const STATUS_PROTOCOL = 16n;

function rings({ pairs }: { readonly pairs: number }): number[] {
  return Array.from({ length: 2 * pairs }, (_, ring) => ring);
}

function accepted<D>(front: FrontEnd<D>, settings: DialogueSettings<D>, ...more: number[]): bigint {
  const packed = front.guest.layout.packed ? [PACKED] : [];
  const events = front.guest.layout.eventIndex ? [29] : [];
  const mq = settings.pairs > 1 ? [MQ] : [];
  const wanted = usualFeatures(
    front.features(),
    ...packed,
    ...events,
    ...mq,
    ...more,
    ...settings.more ?? [],
  );
  return front.guest.layout.eventIndex ? wanted : wanted & ~(1n << 29n);
}

/** Disables every ring, then stops them: what all four do. */
function stopAll<D>(front: FrontEnd<D>, settings: DialogueSettings<D>): number[] {
  for (const ring of rings(settings)) front.enable(ring, false);
  return rings(settings).map((ring) => front.base(ring));
}

/** QEMU: features and events once for each queue pair, memory once; control queue kept to itself. */
function qemu<D>(protocolMask: bigint): Dialogue<D> {
  const withStatus = (front: FrontEnd<D>) =>
    (front.protocolFeatures() & protocolMask) >> STATUS_PROTOCOL & 1n;
  return {
    start(front, settings) {
      front.asksFor = (id) => id === Request.ADD_MEM_REG || id === Request.SET_MEM_TABLE;
      for (let pair = 0; pair < settings.pairs; pair++) {
        front.features();
        front.setProtocolFeatures(front.protocolFeatures() & protocolMask);
        if (pair === 0) {
          const queues = Number(front.ask(Request.GET_QUEUE_NUM));
          assertEquals(queues >= settings.pairs, true, "QEMU gives up with fewer queues than pairs");
          front.ask(Request.GET_MAX_MEM_SLOTS);
          front.say(Request.SET_BACKEND_REQ_FD, undefined, [settings.socket()]);
          front.say(Request.SET_OWNER);
        }
        front.features();
        for (const ring of [2 * pair, 2 * pair + 1]) front.setCall(ring);
      }
      const features = accepted(front, settings);
      for (let pair = 0; pair < settings.pairs; pair++) {
        front.setFeatures(features);
        if (pair === 0) front.addMemory();
        for (const ring of [2 * pair, 2 * pair + 1]) front.describe(ring);
        for (const ring of [2 * pair, 2 * pair + 1]) front.enable(ring, true);
      }
      if (withStatus(front) === 1n) {
        front.setStatus(front.status() | 8);
        front.setStatus(front.status() | 7);
      }
    },
    stop(front, settings) {
      const bases = stopAll(front, settings);
      if (withStatus(front) === 1n) front.setStatus(0);
      return bases;
    },
  };
}

/** DPDK virtio-user: calls before features, status in small steps, memory by table. */
function virtioUser<D>(): Dialogue<D> {
  return {
    start(front, settings) {
      front.say(Request.SET_OWNER);
      front.features();
      front.setProtocolFeatures(front.protocolFeatures() & (1n << 0n | 1n << 3n | 1n << STATUS_PROTOCOL));
      front.asksFor = (id) => id === Request.SET_MEM_TABLE || id === Request.SET_STATUS;
      front.setStatus(0);
      assertEquals(front.status(), 0);
      for (const status of [1, 3]) front.setStatus(status);
      for (const ring of rings(settings)) front.setCall(ring);
      front.setFeatures(accepted(front, settings) & ~(1n << 29n));
      front.setStatus(11);
      assertEquals(front.status(), 11, "FEATURES_OK must stick");
      front.setMemoryTable();
      for (const ring of rings(settings)) {
        front.setNum(ring);
        front.setBase(ring, front.guest.layout.packed ? 0x8000 : 0);
        front.setAddress(ring);
        front.setKick(ring);
      }
      for (const ring of [0, 1]) front.enable(ring, true);
      front.setStatus(15);
      assertEquals(front.status(), 15);
      for (const ring of rings(settings).slice(2)) front.enable(ring, true);
    },
    stop(front, settings) {
      const bases = stopAll(front, settings);
      front.setStatus(0);
      return bases;
    },
  };
}

/** cloud-hypervisor: asks for an answer to everything, wants two queues for each pair. */
function cloudHypervisor<D>(): Dialogue<D> {
  return {
    start(front, settings) {
      front.say(Request.SET_OWNER);
      const features = accepted(front, settings);
      front.setFeatures(features);
      front.setProtocolFeatures(front.protocolFeatures() & 0x9820bn);
      front.asksFor = () => true;
      const queues = Number(front.ask(Request.GET_QUEUE_NUM));
      assertEquals(queues >= 2 * settings.pairs, true, "cloud-hypervisor gives up with fewer queues");
      front.config(0, 12);
      front.addMemory();
      front.setFeatures(features);
      for (const ring of rings(settings)) {
        front.setNum(ring);
        front.setAddress(ring);
        front.setBase(ring, 0);
        front.setCall(ring);
        front.setKick(ring);
      }
      for (const ring of rings(settings)) front.enable(ring, true);
    },
    stop: stopAll,
  };
}

/**
 * crosvm: reads configuration from the back-end, builds as many queues as it is told, forwards the control
 * queue.
 */
function crosvm<D>(): Dialogue<D> {
  const all = (settings: DialogueSettings<D>) => [...rings(settings), 2 * settings.pairs];
  return {
    start(front, settings) {
      front.say(Request.SET_OWNER);
      front.features();
      front.say(Request.SET_FEATURES, u64(1n << 30n));
      front.setProtocolFeatures(front.protocolFeatures() & (1n | 1n << 3n | 1n << 5n | 1n << 9n | 1n << 19n));
      assertEquals(
        Number(front.ask(Request.GET_QUEUE_NUM)),
        2 * settings.pairs + 1,
        "crosvm builds exactly these",
      );
      front.say(Request.SET_BACKEND_REQ_FD, undefined, [settings.socket()]);
      assertEquals(
        [...front.config(0, 6)],
        [0x52, 0x54, 0, 0, 0, 1],
        "configuration space comes from the back-end",
      );
      front.setFeatures(accepted(front, settings, 5, 16, CTRL_VQ, 18, 2, 23));
      front.setMemoryTable();
      for (const ring of all(settings)) {
        front.setNum(ring);
        front.setAddress(ring);
        front.setBase(ring, 0);
        front.setCall(ring);
        front.setKick(ring);
        front.enable(ring, true);
      }
    },
    stop(front, settings) {
      for (const ring of all(settings)) front.enable(ring, false);
      return all(settings).map((ring) => front.base(ring));
    },
  };
}

/** Every dialogue, with the profile that belongs to it. */
export function dialogues<D>(): Record<string, Dialogue<D> & { readonly profile: string }> {
  return {
    // All bits below the highest that it knows, less CONFIG.
    "QEMU 7.2": { profile: "qemu", ...qemu((1n << 17n) - 1n & ~(1n << 9n)) },
    "QEMU 10": { profile: "qemu", ...qemu((1n << 20n) - 1n & ~(1n << 9n)) },
    "virtio-user": { profile: "virtio-user", ...virtioUser() },
    "cloud-hypervisor": { profile: "cloud-hypervisor", ...cloudHypervisor() },
    "crosvm": { profile: "crosvm", ...crosvm() },
  };
}
