/**
 * Who wants to be told of what: the arithmetic of used_event and of the event suppression words, for both layouts.
 * @module
 */

/** Flags of an event word: tell of everything. */
export const EVENT_ENABLE = 0;
/** Flags of an event word: tell of nothing. */
export const EVENT_DISABLE = 1;
/** Flags of an event word: tell when a certain slot is reached; only with VIRTIO_F_EVENT_IDX. */
export const EVENT_DESC = 2;

/**
 * Has a split ring's index, going from `from` to `to`, passed the element that is awaited (virtio 1.2, section 2.7.7.2)?
 * Indices are free-running 16-bit numbers; element `event` is passed when the index becomes `event + 1`.
 */
export function splitEventDue(event: number, from: number, to: number): boolean {
  return ((to - event - 1) & 0xffff) < ((to - from) & 0xffff);
}

/**
 * Does a driver with this event suppression word want an interrupt (virtio 1.2, section 2.8.10)?
 * @param word offset (bits 0 to 14), wrap counter (15) and flags (16 and 17), as in the ring
 * @param eventIndex VIRTIO_F_EVENT_IDX was negotiated; without it, waiting for a slot has no meaning and all is told
 * @param slot the slot after the last used one
 * @param wrap the wrap counter that belongs to `slot`
 * @param since slots used since this was last asked, 0 to `size`
 * @param size slots of the ring
 */
export function packedEventDue(
  word: number,
  eventIndex: boolean,
  slot: number,
  wrap: boolean,
  since: number,
  size: number,
): boolean {
  const flags = word >>> 16 & 3;
  if (flags === EVENT_DISABLE) return false;
  if (flags !== EVENT_DESC || !eventIndex) return true;
  const sameLap = ((word & 0x8000) !== 0) === wrap;
  // How far the awaited slot lies behind: over a lap if it belongs to the next one, which is to say, ahead.
  const behind = slot + (sameLap ? 0 : size) - (word & 0x7fff);
  return behind >= 1 && behind <= since;
}
