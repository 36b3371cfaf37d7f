/**
 * An in-memory cable with any number of ports: what one sends, the others receive.
 *
 * Theory of operation. The cable is a small learning switch without time: `carry` notes the sender's address
 * (`MacTable`), looks the receiver's up, and moves the frame into the queue of one port, or of all others if the
 * address is a group's or unknown. Nothing is copied for a single receiver: the frame itself changes hands. For
 * several, all but the last get a copy from their own pool. Ports are served in the order of their numbers, so equal
 * input gives equal output.
 *
 * Fullness. A frame with one receiver waits for it: `carry` answers false, the sender keeps the frame and offers it
 * again, and nothing is lost. A frame for several does not wait: a port without room misses it (`queueFull`), for one
 * starved port must not stop the others. So a cable with two ports loses nothing at all.
 *
 * A port whose device has no guest takes nothing: frames for it are dropped (`noGuest`), and so is what waits there when a
 * guest goes. So nothing that one guest has caused reaches the next, and no sender waits for a guest that is not there.
 *
 * A frame in several pieces becomes one piece on the way, because what a transport delivers is in one piece.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import type { Frame } from "../../core/frame.ts";
import { MAX_FRAME_BYTES } from "../../core/frame_pool.ts";
import { VIRTIO_NET_HDR_F_NEEDS_CSUM } from "../../wire/virtio_net_header.ts";
import { type CableEnd, CablePort, type CablePortSettings } from "./cable_port.ts";
import { MacTable, NO_PORT } from "./mac_table.ts";

const ETHERNET_HEADER_BYTES = 14;
/** The most ports of a cable. */
export const MAX_CABLE_PORTS = 256;

/**
 * A cable.
 *
 * @example
 * ```ts
 * import { FrameBatch } from "../../core/frame_batch.ts";
 * import { FramePool } from "../../core/frame_pool.ts";
 * import { LoopbackCable } from "./cable.ts";
 * const pool = new FramePool();
 * const cable = new LoopbackCable();
 * using left = cable.plug({ pool });
 * using right = cable.plug({ pool });
 * const batch = new FrameBatch();
 * const frame = pool.take(60)!;
 * frame.bytes.fill(255, frame.start, frame.start + 6); // to everybody
 * batch.push(frame);
 * left.send(batch, 0, 0);
 * batch.clear();
 * if (right.receive(batch, 64, 0, 0) !== 1) throw new Error("unreachable");
 * batch.releaseAll();
 * ```
 */
export class LoopbackCable implements CableEnd {
  readonly #ports: (CablePort | null)[] = [];
  readonly #macs = new MacTable();
  #plugged = 0;

  /**
   * Adds a port. Throws HostError if the cable is full, or if its ports do not agree on `largeFrames`.
   * @param settings what the port needs; @param path where it stands in the configuration, for messages
   */
  plug(settings: CablePortSettings, path = "cable"): CablePort {
    for (const other of this.#ports) {
      if (other !== null && other.abilities.largeTcp !== (settings.largeFrames ?? false)) {
        throw new HostError(
          `${path}: largeFrames is ${
            settings.largeFrames ?? false
          }, and another port of this cable says otherwise; ` +
            `give all ports of a cable the same value`,
        );
      }
    }
    if (this.#plugged === MAX_CABLE_PORTS) {
      throw new HostError(`${path}: the cable has ${MAX_CABLE_PORTS} ports already; use another cable`);
    }
    const port = new CablePort(this, settings);
    const free = this.#ports.indexOf(null);
    if (free >= 0) this.#ports[free] = port;
    else this.#ports.push(port);
    const { mac } = settings;
    if (mac !== undefined && mac.some((byte) => byte !== 0)) {
      this.#macs.fix(mac, 0, this.#ports.indexOf(port));
    }
    this.#plugged++;
    return port;
  }

  /** Takes a port off the cable; called by the port when it is disposed of. */
  unplug(port: CablePort): void {
    const at = this.#ports.indexOf(port);
    if (at < 0) return;
    this.#ports[at] = null;
    this.#macs.forget(at, true);
    this.#plugged--;
  }

  /** The guest of this port has gone: what was learned of it is forgotten. */
  forget(port: CablePort): void {
    this.#macs.forget(this.#ports.indexOf(port), false);
  }

  /** Carries a frame that `from` sends; false if its only receiver has no room, and the frame stays the caller's. */
  carry(from: CablePort, frame: Frame, nowNs: number): boolean {
    const { bytes, start } = frame;
    if (!this.#fits(from, frame)) {
      frame.release();
      return true;
    }
    const fromAt = this.#ports.indexOf(from);
    this.#macs.learn(bytes, start + 6, fromAt, nowNs);
    const group = (bytes[start] & 1) === 1;
    const toAt = group ? NO_PORT : this.#macs.find(bytes, start, nowNs);
    if (toAt === fromAt) {
      from.counters.ownAddress++;
      from.noteSent(frame, nowNs);
      frame.release();
      return true;
    }
    if (toAt !== NO_PORT) return this.#handOver(from, this.#ports[toAt]!, frame, nowNs);
    if (this.#plugged > 2) return this.#flood(from, frame, nowNs);
    for (let i = 0; i < this.#ports.length; i++) {
      const port = this.#ports[i];
      if (port !== null && port !== from) return this.#handOver(from, port, frame, nowNs);
    }
    from.counters.noReceiver++;
    from.noteSent(frame, nowNs);
    frame.release();
    return true;
  }

  /** Is this a frame that the cable carries? If not, that is counted. */
  #fits(from: CablePort, frame: Frame): boolean {
    const header = frame.header;
    if (frame.length < ETHERNET_HEADER_BYTES) from.counters.tooShort++;
    else if (frame.total > MAX_FRAME_BYTES) from.counters.tooLong++;
    else if (from.abilities.largeTcp) return true;
    else if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0 || header.gsoType !== 0) {
      from.counters.unfinished++;
    } else {
      header.clear();
      return true;
    }
    return false;
  }

  #handOver(from: CablePort, to: CablePort, frame: Frame, nowNs: number): boolean {
    if (to.isDeaf) {
      from.noteSent(frame, nowNs);
      to.miss(frame);
      return true;
    }
    if (!to.hasRoom) return false;
    if (frame.next === null) {
      from.noteSent(frame, nowNs);
      to.arrive(frame, nowNs);
      return true;
    }
    const whole = copy(frame, to);
    if (whole === null) return false;
    from.noteSent(frame, nowNs);
    frame.release();
    to.arrive(whole, nowNs);
    return true;
  }

  #flood(from: CablePort, frame: Frame, nowNs: number): boolean {
    from.noteSent(frame, nowNs);
    let last: CablePort | null = null;
    for (let i = 0; i < this.#ports.length; i++) {
      const port = this.#ports[i];
      if (port === null || port === from) continue;
      if (port.isDeaf) {
        port.counters.noGuest++;
        continue;
      }
      if (!port.hasRoom) {
        port.counters.queueFull++;
        continue;
      }
      // The port before this one is not the last, so it gets a copy; the last gets the frame itself.
      if (last !== null) deliverCopy(frame, last, nowNs);
      last = port;
    }
    if (last !== null && frame.next === null) last.arrive(frame, nowNs);
    else {
      if (last !== null) deliverCopy(frame, last, nowNs);
      frame.release();
    }
    return true;
  }
}

function deliverCopy(frame: Frame, to: CablePort, nowNs: number): void {
  const whole = copy(frame, to);
  if (whole === null) to.counters.poolEmpty++;
  else to.arrive(whole, nowNs);
}

/** The frame in one piece, from the receiver's pool; null if that is empty. */
function copy(frame: Frame, to: CablePort): Frame | null {
  const whole = to.pool.take(frame.total);
  if (whole === null) return null;
  frame.copyTo(whole.bytes, whole.start);
  whole.header.copyFrom(frame.header);
  return whole;
}
