/**
 * When the device wants to be kicked: never while it works anyway, and at a receive queue only while frames wait for it.
 *
 * Theory of operation. Kicks are off while rounds do something. The first round that does not switches them on, for the
 * control queue and the transmit queues, and has the device look once more at what came meanwhile. A receive queue asks for
 * a kick only while it is starved, and asks again in every idle round: with EVENT_IDX a kick is for one place in the ring,
 * and the buffer that it brings may not be enough.
 *
 * @module
 */
import type { Session } from "../../core/device.ts";

/** Knows for which queue pairs frames wait. */
export interface Starvation {
  /** Does a frame wait for receive buffers of any pair? */
  readonly isBlocked: boolean;
  /** Does a frame wait for receive buffers of this pair? */
  isStarved(pair: number): boolean;
}

/** Switches kicks off when a round did something and on when it did not. */
export class KickSwitch {
  readonly #starvation: Starvation;
  #controlIndex = -1;
  #on = false;

  /** For a device that is not active. @param starvation which receive queues need buffers */
  constructor(starvation: Starvation) {
    this.#starvation = starvation;
  }

  /** The driver is ready: nobody wants to hear of receive buffers yet. @param controlIndex index of the control queue */
  begin(session: Session, controlIndex: number): void {
    this.#controlIndex = controlIndex;
    this.#on = false;
    for (let i = 0; i < session.queues.length; i++) {
      if (this.#isReceive(i)) session.queues[i]?.disableKicks();
    }
  }

  /**
   * After a round. Returns whether to look again: because the round did something, or something came while kicks were off.
   * @param did the round did something
   * @param congested frames from the guest cannot be taken now: the network will wake the device
   */
  after(did: boolean, session: Session, congested: boolean): boolean {
    if (did) {
      if (this.#on) this.#disable(session);
      return true;
    }
    let more = false;
    if (!this.#on) {
      this.#on = true;
      more = this.#enable(session, congested);
    }
    if (this.#starvation.isBlocked && this.#askForBuffers(session)) more = true;
    return more;
  }

  #isReceive(index: number): boolean {
    return (index & 1) === 0 && index !== this.#controlIndex;
  }

  #enable(session: Session, congested: boolean): boolean {
    let more = false;
    for (let i = 0; i < session.queues.length; i++) {
      const queue = session.queues[i];
      if (queue === null || this.#isReceive(i)) continue;
      if (congested && i !== this.#controlIndex) continue;
      if (queue.enableKicks()) more = true;
    }
    return more;
  }

  #askForBuffers(session: Session): boolean {
    let more = false;
    for (let i = 0; i < session.queues.length; i++) {
      const queue = session.queues[i];
      if (queue === null || !this.#isReceive(i) || !this.#starvation.isStarved(i >>> 1)) continue;
      if (queue.enableKicks()) more = true;
    }
    return more;
  }

  #disable(session: Session): void {
    this.#on = false;
    for (let i = 0; i < session.queues.length; i++) session.queues[i]?.disableKicks();
  }
}
