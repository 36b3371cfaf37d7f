/**
 * When the device wants to be kicked: never while it works anyway, and at the receive queues only when it needs buffers.
 * @module
 */
import type { Session } from "../../core/device.ts";

/** Switches kicks off when a round did something and on when it did not. */
export class KickSwitch {
  #on = false;
  #receiveOn = false;

  /** The session is gone. */
  reset(): void {
    this.#on = false;
    this.#receiveOn = false;
  }

  /**
   * After a round. `starved`: the receive queues need buffers. `congested`: frames from the guest cannot be taken now.
   * Returns whether to look again: because the round did something, or buffers came while kicks were off.
   */
  after(did: boolean, session: Session, starved: boolean, congested: boolean): boolean {
    if (did) {
      if (this.#on) this.#disable(session);
      return true;
    }
    if (this.#on && this.#receiveOn === starved) return false;
    this.#on = true;
    this.#receiveOn = starved;
    let more = false;
    for (let i = 0; i < session.queues.length; i++) {
      const queue = session.queues[i];
      if (queue === null) continue;
      const isReceive = (i & 1) === 0 && i < session.queues.length - 1;
      if (isReceive ? !starved : congested) continue;
      if (queue.enableKicks()) more = true;
    }
    return more;
  }

  #disable(session: Session): void {
    this.#on = false;
    for (let i = 0; i < session.queues.length; i++) session.queues[i]?.disableKicks();
  }
}
