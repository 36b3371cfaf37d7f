/**
 * A virtio-net driver that works a QEMU's device from outside (virtio 1.2, section 5.1): one queue pair, and
 * the control queue if it is agreed on. Buffers are mergeable.
 * @module
 */
import { type FeatureSet, VIRTIO_F_VERSION_1 } from "../../../core/features.ts";
import { VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MRG_RXBUF } from "../../../wire/net_features.ts";
import type { Qtest } from "./qtest.ts";
import { QtestPci } from "./qtest_pci.ts";
import { QtestRing } from "./qtest_ring.ts";

const STATUS_ACKNOWLEDGE = 1;
const STATUS_DRIVER = 2;
const STATUS_DRIVER_OK = 4;
const STATUS_FEATURES_OK = 8;

const RECEIVE = 0;
const TRANSMIT = 1;
const CONTROL = 2;

const RING_SIZE = 128;
const BUFFER_BYTES = 4096;
const HEADER_BYTES = 12;
/** Where rings and buffers lie in the guest's memory. */
const RINGS_AT = 0x10_0000;
const RING_STEP = 0x1_0000;
const BUFFERS_AT = 0x20_0000;
const SCRATCH_AT = 0x1f_0000;
/** Patience with the device. */
const LIMIT_MS = 20_000;

/** The header of a received packet, as it lies in the buffer. */
export interface PacketHeader {
  /** NEEDS_CSUM 1, DATA_VALID 2, RSC_INFO 4. */
  readonly flags: number;
  /** NONE 0, TCPV4 1, TCPV6 4. */
  readonly gsoType: number;
  /** Bytes of all headers. */
  readonly hdrLen: number;
  /** Bytes of data in each segment. */
  readonly gsoSize: number;
  /** Under RSC_INFO the number of segments. */
  readonly csumStart: number;
  /** Under RSC_INFO the number of duplicate ACKs. */
  readonly csumOffset: number;
}

/** A received packet. */
export interface GuestPacket {
  /** Its header. */
  readonly header: PacketHeader;
  /** Buffers in which it lay. */
  readonly buffers: number;
  /** The frame, put together. */
  readonly bytes: Uint8Array<ArrayBuffer>;
}

/** The driver. */
export class QtestNetDriver {
  /** What the device offers. */
  readonly offered: FeatureSet;
  /** What was accepted. */
  readonly accepted: FeatureSet;
  readonly #qtest: Qtest;
  readonly #device: QtestPci;
  readonly #rings: readonly QtestRing[];

  private constructor(
    qtest: Qtest,
    device: QtestPci,
    rings: readonly QtestRing[],
    offered: FeatureSet,
    accepted: FeatureSet,
  ) {
    this.#qtest = qtest;
    this.#device = device;
    this.#rings = rings;
    this.offered = offered;
    this.accepted = accepted;
  }

  /**
   * Resets the device and sets it up. Throws Error if it does not take the features.
   * @param wanted features to accept as far as they are offered, beside VERSION_1 and MRG_RXBUF
   */
  static async start(qtest: Qtest, wanted: FeatureSet): Promise<QtestNetDriver> {
    const device = await QtestPci.find(qtest);
    await device.setStatus(0);
    let status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    await device.setStatus(status);
    const offered = await device.features();
    const accepted = wanted.with(VIRTIO_F_VERSION_1, VIRTIO_NET_F_MRG_RXBUF).intersect(offered);
    await device.accept(accepted);
    status |= STATUS_FEATURES_OK;
    await device.setStatus(status);
    if (await device.status() !== status) throw new Error(`QEMU refuses features ${accepted}`);
    const rings: QtestRing[] = [];
    for (const queue of [RECEIVE, TRANSMIT, ...accepted.has(VIRTIO_NET_F_CTRL_VQ) ? [CONTROL] : []]) {
      const size = queue === CONTROL ? 64 : RING_SIZE;
      const ring = await QtestRing.create(qtest, size, RINGS_AT + RING_STEP * queue);
      await device.enableQueue(queue, size, ring.addresses);
      rings.push(ring);
    }
    const driver = new QtestNetDriver(qtest, device, rings, offered, accepted);
    for (let buffer = 0; buffer < RING_SIZE; buffer++) await driver.#post(buffer);
    await device.setStatus(status | STATUS_DRIVER_OK);
    await device.notify(RECEIVE);
    return driver;
  }

  /** The device status field. */
  async status(): Promise<number> {
    return await this.#device.status();
  }

  /** Waits for so many packets, and gives their buffers back. More than those asked for are an Error. */
  async receive(count: number): Promise<GuestPacket[]> {
    const packets: GuestPacket[] = [];
    let parts: Uint8Array<ArrayBuffer>[] = [];
    while (packets.length < count) {
      const chains = await this.#rings[RECEIVE].takeUsed();
      if (chains.length === 0) await this.#interrupt(`packet ${packets.length + 1} of ${count}`);
      for (const { head, lengthBytes } of chains) {
        parts.push(await this.#qtest.readBytes(BUFFERS_AT + BUFFER_BYTES * head, lengthBytes));
        await this.#post(head);
        if (parts.length < le16(parts[0], 10)) continue;
        packets.push(packetOf(parts));
        parts = [];
      }
    }
    if (packets.length > count) throw new Error(`${packets.length} packets have come, not ${count}`);
    await this.#device.notify(RECEIVE);
    return packets;
  }

  /**
   * Sends a frame and waits until the device has taken it.
   * @param flags of its header, which is 0 but for these
   */
  async send(frame: Uint8Array, flags = 0): Promise<void> {
    const bytes = new Uint8Array(HEADER_BYTES + frame.length);
    bytes[0] = flags;
    bytes.set(frame, HEADER_BYTES);
    await this.#qtest.writeBytes(SCRATCH_AT, bytes);
    const piece = { address: SCRATCH_AT, lengthBytes: bytes.length, writable: false };
    await this.#rings[TRANSMIT].add(0, [piece]);
    await this.#takenBy(TRANSMIT);
  }

  /**
   * Gives a command to the control queue and returns the answer: 0 for obeyed, 1 for refused (section
   * 5.1.6.5).
   */
  async command(commandClass: number, command: number, data: Uint8Array): Promise<number> {
    const answerAt = SCRATCH_AT + 2 + data.length;
    await this.#qtest.writeBytes(SCRATCH_AT, Uint8Array.of(commandClass, command, ...data, 0xff));
    await this.#rings[CONTROL].add(0, [
      { address: SCRATCH_AT, lengthBytes: 2, writable: false },
      { address: SCRATCH_AT + 2, lengthBytes: data.length, writable: false },
      { address: answerAt, lengthBytes: 1, writable: true },
    ]);
    await this.#takenBy(CONTROL);
    return await this.#qtest.read(1, answerAt);
  }

  async #post(buffer: number): Promise<void> {
    const address = BUFFERS_AT + BUFFER_BYTES * buffer;
    await this.#rings[RECEIVE].add(buffer, [{ address, lengthBytes: BUFFER_BYTES, writable: true }]);
  }

  async #takenBy(queue: number): Promise<void> {
    await this.#device.notify(queue);
    while ((await this.#rings[queue].takeUsed()).length === 0) {
      await this.#interrupt(`the chain in queue ${queue}`);
    }
  }

  /** Waits for an interrupt. Throws Error if none comes. */
  async #interrupt(what: string): Promise<void> {
    const endMs = Date.now() + LIMIT_MS;
    while (!await this.#device.interrupted()) {
      if (Date.now() > endMs) throw new Error(`No interrupt within ${LIMIT_MS} ms announces ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  }
}

function packetOf(parts: readonly Uint8Array<ArrayBuffer>[]): GuestPacket {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return {
    header: {
      flags: whole[0],
      gsoType: whole[1],
      hdrLen: le16(whole, 2),
      gsoSize: le16(whole, 4),
      csumStart: le16(whole, 6),
      csumOffset: le16(whole, 8),
    },
    buffers: parts.length,
    bytes: whole.slice(HEADER_BYTES),
  };
}

function le16(bytes: Uint8Array, at: number): number {
  return bytes[at] | bytes[at + 1] << 8;
}
