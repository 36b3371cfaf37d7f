/**
 * What a replay counts.
 * @module
 */

/** What a replay counts. */
export interface ReplayCounters extends Record<string, number> {
  /** Packets read from the capture, of every kind. */
  read: number;
  /** Frames delivered. */
  taken: number;
  /** Frames left out because they are not for the guest. */
  notForGuest: number;
  /** Packets left out because the capture has not all of their bytes. */
  snapped: number;
  /** Packets left out because they are of another link type. */
  otherLinkType: number;
  /** Packets left out because no frame can be that long. */
  tooLong: number;
  /** Packets left out because they are shorter than an Ethernet header. */
  tooShort: number;
  /** Packets left out because their block is not right, or beyond a limit of the reader. */
  unreadable: number;
  /** Packets delivered although their captured length exceeds the original one. */
  capturedAboveOriginal: number;
  /** Packets delivered whose IP length contradicts the frame check sequence that the file declares. */
  fcsContradictsIp: number;
  /** 1 if the capture is damaged or cut off. */
  damaged: number;
  /** 1 if that is because the file ends within a record, a block or its gzip stream. */
  cutOff: number;
  /** Frames that the device sent. */
  sent: number;
  /** Frames written. */
  written: number;
  /** Frames not written because the file took no more, or writing failed. */
  writeDropped: number;
}

/** Counters at 0. */
export function newReplayCounters(): ReplayCounters {
  return {
    read: 0,
    taken: 0,
    notForGuest: 0,
    snapped: 0,
    otherLinkType: 0,
    tooLong: 0,
    tooShort: 0,
    unreadable: 0,
    capturedAboveOriginal: 0,
    fcsContradictsIp: 0,
    damaged: 0,
    cutOff: 0,
    sent: 0,
    written: 0,
    writeDropped: 0,
  };
}
