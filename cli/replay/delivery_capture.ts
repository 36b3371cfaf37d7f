/**
 * Writes what the guest got to a capture, packet by packet, at the times of delivery.
 * @module
 */
import { HostError } from "../../core/errors.ts";
import { CaptureSink } from "../../transports/pcap/capture_sink.ts";
import { CaptureWriter } from "../../transports/pcap/capture_writer.ts";
import { DIRECTION_INBOUND } from "../../transports/pcap/captured_packet.ts";
import { offloadFlags } from "../../transports/pcap/packet_flags.ts";
import type { ReceivedPacket } from "../../transports/loopback_driver/mod.ts";
import { VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_RSC_INFO } from "../../wire/virtio_net_header.ts";
import { messageOf } from "../../config/errors.ts";

/** A capture of deliveries. */
export class DeliveryCapture implements Disposable {
  readonly #writer: CaptureWriter;

  /**
   * Creates the file: pcapng, or pcap without comments if its name ends so. Throws HostError if that cannot be.
   * @param path the file; @param startUnixNs time 0 of the replay, in ns since 1970
   */
  constructor(path: string, startUnixNs: bigint) {
    let file: Deno.FsFile;
    try {
      file = Deno.openSync(path, { write: true, create: true, truncate: true });
    } catch (cause) {
      throw new HostError(
        `Cannot write "${path}": ${messageOf(cause)}; check the path and the permission to write it`,
        { cause },
      );
    }
    // A replay has no need to hurry: written at once, nothing is ever refused for a slow disk.
    const output = {
      write: (bytes: Uint8Array) => Promise.resolve(file.writeSync(bytes)),
      writeSync: (bytes: Uint8Array) => file.writeSync(bytes),
      close: () => file.close(),
    };
    const format = path.toLowerCase().endsWith(".pcap") ? "pcap" : "pcapng";
    this.#writer = new CaptureWriter(new CaptureSink(output, path), { format, startUnixNs });
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
