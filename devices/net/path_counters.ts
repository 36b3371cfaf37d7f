/**
 * The counters of the two data paths: what became of frames, by direction and by name.
 * @module
 */

/** What became of frames to the guest. */
export interface ToGuestCounters extends Record<string, number> {
  /** Frames delivered. */
  packets: number;
  /** Their bytes, without virtio headers. */
  bytes: number;
  /** Receive buffers they took. */
  buffers: number;
  /** Times a frame found no buffer and had to wait. */
  starved: number;
  /** Interrupts sent. */
  interrupts: number;
  /** Dropped: a buffer without MRG_RXBUF, or all buffers that the ring can hold, are smaller than the frame. */
  dropped_buffer_too_small: number;
  /** Dropped: NEEDS_CSUM, which the guest did not accept, and no `checksum` stage. */
  dropped_partial_checksum: number;
  /** Dropped: a large frame of a kind the guest did not accept. */
  dropped_large: number;
  /** Dropped: longer than the MTU that the driver accepted. */
  dropped_over_mtu: number;
  /** Dropped: its queue pair has no receive queue. */
  dropped_no_queue: number;
  /** Dropped: the link is down. */
  dropped_link_down: number;
}

/** Counters of frames to the guest, all 0. */
export function newToGuestCounters(): ToGuestCounters {
  return {
    packets: 0,
    bytes: 0,
    buffers: 0,
    starved: 0,
    interrupts: 0,
    dropped_buffer_too_small: 0,
    dropped_partial_checksum: 0,
    dropped_large: 0,
    dropped_over_mtu: 0,
    dropped_no_queue: 0,
    dropped_link_down: 0,
  };
}

/** What became of frames from the guest. */
export interface FromGuestCounters extends Record<string, number> {
  /** Frames taken from the guest. */
  packets: number;
  /** Their bytes, without virtio headers. */
  bytes: number;
  /** Frames that the network took. */
  sent: number;
  /** Times the network took less than offered, and frames had to wait. */
  delayed: number;
  /** Interrupts sent. */
  interrupts: number;
  /** Dropped: shorter than an Ethernet header. */
  dropped_too_short: number;
  /** Dropped: longer than the network carries. */
  dropped_too_long: number;
  /** Dropped: the virtio header contradicts the frame or what was negotiated. */
  dropped_bad_header: number;
  /** Dropped: the link is down. */
  dropped_link_down: number;
}

/** Counters of frames from the guest, all 0. */
export function newFromGuestCounters(): FromGuestCounters {
  return {
    packets: 0,
    bytes: 0,
    sent: 0,
    delayed: 0,
    interrupts: 0,
    dropped_too_short: 0,
    dropped_too_long: 0,
    dropped_bad_header: 0,
    dropped_link_down: 0,
  };
}
