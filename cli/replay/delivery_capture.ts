/**
 * Writes what the guest got to a capture, packet by packet, at the times of delivery.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { CaptureSink } from "../../transports/pcap/capture_sink.ts";
import { CaptureWriter, formatOf } from "../../transports/pcap/capture_writer.ts";
import { DIRECTION_INBOUND } from "../../transports/pcap/captured_packet.ts";
import { type FileIdentity, OutputFile } from "../../transports/pcap/output_file.ts";
import { offloadFlags } from "../../transports/pcap/packet_flags.ts";
import type { ReceivedPacket } from "../../transports/loopback_driver/mod.ts";
import { VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_RSC_INFO } from "../../wire/virtio_net_header.ts";

/** A capture of deliveries. */
export class DeliveryCapture implements Disposable {
  readonly #writer: CaptureWriter;

  /**
   * Creates the file: pcapng, or pcap without comments if its name ends so. Throws HostError if that cannot be.
   * @param path the file; @param startUnixNs time 0 of the replay, in ns since 1970; @param read which file it must not be
   */
  constructor(path: string, startUnixNs: bigint, read: FileIdentity | null) {
    // A replay has no need to hurry: written at once, nothing is ever refused for a slow disk.
    const file = OutputFile.open(path, "", true);
    if (read !== null && file.identity === read) {
      file.close();
      throw new HostError(`Cannot write to "${path}" while reading it; choose another file`);
    }
    this.#writer = new CaptureWriter(new CaptureSink(file, path), { format: formatOf(path), startUnixNs });
  }

  /** Writes a packet; a failure is told by `close`. */
  write(packet: ReceivedPacket, segments: number, nowNs: number): void {
    const flags = DIRECTION_INBOUND | offloadFlags(packet.flags, packet.gsoType);
    this.#writer.writeBytes(packet.bytes, flags, nowNs, commentOn(packet, segments));
  }

  /** Completes the file. Rejects with HostError if it could not be written. */
  close(): Promise<void> {
    return this.#writer.close();
  }

  /** Closes the file if `close` has not. */
  [Symbol.dispose](): void {
    this.#writer[Symbol.dispose]();
  }
}

/** What a capture cannot say of a packet by itself. */
function commentOn(packet: ReceivedPacket, segments: number): string {
  const facts = [segments === 1 ? "1 segment" : `${segments} segments`];
  if (packet.gsoSize > 0) facts.push(`gso_size ${packet.gsoSize}`);
  if ((packet.flags & VIRTIO_NET_HDR_F_RSC_INFO) !== 0) facts.push("RSC_INFO");
  if ((packet.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) facts.push("checksum left to the guest");
  return facts.join(", ");
}
