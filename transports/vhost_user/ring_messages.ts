/**
 * The messages about rings: SET_VRING_NUM, ADDR, BASE, KICK, CALL, ERR, ENABLE, GET_VRING_BASE, VRING_KICK.
 * @module
 */
import { VIRTIO_F_RING_PACKED } from "../../core/features.ts";
import type { DeviceLink } from "./device_link.ts";
import type { DescriptorBag, EventHandle, Host } from "./host.ts";
import { type Message, type Payload, Request } from "./messages.ts";
import { ProtocolError } from "./protocol_error.ts";
import type { Vring } from "./vring.ts";

/** Carries out messages about the rings of a link. */
export class RingMessages {
  readonly #host: Host;
  readonly #link: DeviceLink;
  /** Rings whose base was set while they ran: it counts when they are made anew. */
  readonly #newBases = new Map<Vring, number>();

  /** Keeps nothing but what was said of rings that run. @param link whose rings the messages are about */
  constructor(host: Host, link: DeviceLink) {
    this.#host = host;
    this.#link = link;
  }

  /**
   * Carries out a message. Returns where the ring stands for GET_VRING_BASE, null for the others. ProtocolError
   * `ring-index-invalid` or `value-invalid`.
   */
  serve(message: Message, bag: DescriptorBag): number | null {
    const { payload } = message;
    switch (payload.kind) {
      case "ring":
        return this.#number(message.id, this.#ring(payload.index), payload.num);
      case "ringAddress":
        this.#place(this.#ring(payload.index), payload);
        return null;
      case "ringEvent":
        this.#event(message.id, this.#ring(payload.index), bag);
        return null;
      default:
        throw new RangeError(`${message.name} is not about a ring`);
    }
  }

  #number(id: number, ring: Vring, num: number): number | null {
    switch (id) {
      case Request.SET_VRING_NUM:
        if (num < 1 || num > ring.maxSize) {
          throw new ProtocolError(
            "value-invalid",
            `Size of ring ${ring.index} is ${num}; it must be from 1 to ${ring.maxSize}: lower it at the front-end, ` +
              'or raise the device\'s "queueSize"',
          );
        }
        if (num === ring.size) return null;
        ring.size = num;
        if (ring.queue === null) this.#redescribe(ring, null);
        return null;
      case Request.SET_VRING_BASE:
        if (ring.queue === null) this.#redescribe(ring, num);
        else this.#newBases.set(ring, num);
        return null;
      case Request.GET_VRING_BASE:
        return this.#stop(ring);
      case Request.SET_VRING_ENABLE:
        if (num > 1) {
          throw new ProtocolError(
            "value-invalid",
            `Ring ${ring.index} is enabled by ${num}; it must be 0 or 1`,
          );
        }
        this.#enable(ring, num === 1);
        return null;
      default:
        ring.kickGiven = true;
        ring.kickedByMessage = true;
        ring.mustLook = true;
        this.#link.settle();
        return null;
    }
  }

  #place(ring: Vring, payload: Extract<Payload, { kind: "ringAddress" }>): void {
    const { descriptors, used, available, log } = payload;
    ring.addresses = { descriptors, used, available, log };
    this.#remake(ring);
  }

  #event(id: number, ring: Vring, bag: DescriptorBag): void {
    const watched = id === Request.SET_VRING_KICK;
    const isCall = id === Request.SET_VRING_CALL;
    const event: EventHandle | null = bag.count === 0 ? null : this.#host.event(bag.take(), watched, isCall);
    switch (id) {
      case Request.SET_VRING_CALL:
        ring.call?.[Symbol.dispose]();
        ring.call = event;
        // What was used while the event changed hands may never have been told.
        if (ring.queue !== null) event?.signal();
        return;
      case Request.SET_VRING_ERR:
        ring.error?.[Symbol.dispose]();
        ring.error = event;
        return;
      default:
        ring.forgetKick();
        ring.kick = event;
        ring.kickGiven = true;
        if (ring.queue === null || this.#newBases.has(ring)) this.#remake(ring);
        else {
          ring.wasKicked = true;
          this.#link.settle();
        }
    }
  }

  #remake(ring: Vring): void {
    const base = this.#newBases.get(ring) ?? null;
    this.#newBases.delete(ring);
    this.#redescribe(ring, base);
  }

  #redescribe(ring: Vring, base: number | null): void {
    ring.redescribe(base);
    this.#link.settle();
  }

  #enable(ring: Vring, enabled: boolean): void {
    if (ring.enabled === enabled) return;
    if (!enabled && ring.queue !== null) this.#link.drain();
    ring.enable(enabled);
    this.#link.settle();
  }

  #stop(ring: Vring): number {
    this.#newBases.delete(ring);
    if (ring.queue !== null) this.#link.drain();
    ring.halt("stopped");
    ring.wasEnabled = false;
    ring.forgetKick();
    this.#link.settle();
    return ring.place(this.#link.features?.has(VIRTIO_F_RING_PACKED) === true);
  }

  #ring(index: number): Vring {
    const { rings } = this.#link;
    if (index < rings.length) return rings[index];
    throw new ProtocolError(
      "ring-index-invalid",
      `Ring index is ${index}; the device has rings 0 to ${rings.length - 1}`,
    );
  }
}
