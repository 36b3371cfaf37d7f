/**
 * What each request of a front-end does, and the value it is answered with: the table of the back-end.
 *
 * Nothing is caught here: a request that is refused throws, and has had no effect. Descriptors that nobody takes out of the
 * bag are closed by whoever filled it.
 * @module
 */
import type { Device } from "../../core/device.ts";
import type { FeatureSet } from "../../core/features.ts";
import type { BackChannel } from "./back_channel.ts";
import * as codec from "./codec.ts";
import type { DeviceLink } from "./device_link.ts";
import type { DeviceMessages } from "./device_messages.ts";
import type { DirtyLogging } from "./dirty_logging.ts";
import type { DescriptorBag, Host } from "./host.ts";
import type { MemoryTable } from "./memory_table.ts";
import { MAX_MEMORY_SLOTS, type Message, type Payload, ProtocolFeature, Request } from "./messages.ts";
import type { Negotiation } from "./negotiation.ts";
import type { RingMessages } from "./ring_messages.ts";

/** What requests are about. */
export interface RequestParts {
  /** The device. */
  readonly device: Device;
  /** The host. */
  readonly host: Host;
  /** The memory that the front-end shares. */
  readonly table: MemoryTable;
  /** What works on it. */
  readonly link: DeviceLink;
  /** What is agreed on. */
  readonly negotiation: Negotiation;
  /** Carries out what is about rings. */
  readonly ringMessages: RingMessages;
  /** Carries out what is about the device itself. */
  readonly deviceMessages: DeviceMessages;
  /** Carries out what is about logging. */
  readonly logging: DirtyLogging;
  /** The way of our own requests. */
  readonly channel: BackChannel;
}

/** Carries out requests. */
export class Requests {
  readonly #parts: RequestParts;

  /** Keeps nothing itself. @param parts what requests are about */
  constructor(parts: RequestParts) {
    this.#parts = parts;
  }

  /**
   * Carries out a message and returns the answer that carries a value; null for messages that have none by themselves.
   * Throws ProtocolError, GuestError and HostError.
   */
  serve(message: Message, bag: DescriptorBag, nowNs: number): Uint8Array<ArrayBuffer> | null {
    const { id, payload } = message;
    const { table, link, logging, negotiation, ringMessages, deviceMessages } = this.#parts;
    switch (payload.kind) {
      case "none":
        return this.#serveBare(id, bag);
      case "bits":
        return this.#serveBits(id, payload.bits, nowNs);
      case "regions":
        table.replace(payload.regions, bag);
        link.memoryChanged();
        return null;
      case "region":
        if (id === Request.ADD_MEM_REG) table.add(payload.region, bag);
        else table.remove(payload.region);
        link.memoryChanged();
        return null;
      case "log":
        logging.setBase(payload.sizeBytes, payload.offsetBytes, bag);
        // With shared memory the front-end waits for an answer, whether it asks for it or not.
        return negotiation.protocol.has(ProtocolFeature.LOG_SHMFD) ? codec.encodeNumberReply(id, 0) : null;
      case "config":
        return this.#serveConfig(id, payload);
      case "transfer":
        return codec.encodeNumberReply(id, deviceMessages.transfer(payload, link.isSuspended, bag));
      case "ring":
      case "ringAddress":
      case "ringEvent": {
        const base = ringMessages.serve(message, bag);
        return base === null || payload.kind !== "ring"
          ? null
          : codec.encodeRingReply(id, payload.index, base);
      }
    }
  }

  #serveBare(id: number, bag: DescriptorBag): Uint8Array<ArrayBuffer> | null {
    const { device, host, negotiation, deviceMessages, logging, channel } = this.#parts;
    switch (id) {
      case Request.GET_FEATURES:
        return codec.encodeBitsReply(id, negotiation.offer.features);
      case Request.GET_PROTOCOL_FEATURES:
        return codec.encodeBitsReply(id, negotiation.offer.protocol);
      case Request.GET_QUEUE_NUM:
        // All of them, the control queue too: some front-ends make exactly so many, the others only want enough.
        return codec.encodeNumberReply(id, device.queueSizes.length);
      case Request.GET_MAX_MEM_SLOTS:
        return codec.encodeNumberReply(id, MAX_MEMORY_SLOTS);
      case Request.GET_STATUS:
        return codec.encodeNumberReply(id, negotiation.status);
      case Request.RESET_DEVICE:
        negotiation.reset();
        return null;
      case Request.SET_LOG_FD:
        logging.setEvent(bag);
        return null;
      case Request.SET_BACKEND_REQ_FD:
        channel.use(host.channel(bag.take()));
        return null;
      case Request.CHECK_DEVICE_STATE:
        deviceMessages.checkTransfer();
        return codec.encodeNumberReply(id, 0);
      default:
        // SET_OWNER and RESET_OWNER: the connection itself says who owns the device, and for how long.
        return null;
    }
  }

  #serveBits(id: number, bits: FeatureSet, nowNs: number): null {
    const { negotiation, deviceMessages } = this.#parts;
    switch (id) {
      case Request.SET_FEATURES:
        negotiation.acceptFeatures(bits);
        break;
      case Request.SET_PROTOCOL_FEATURES:
        negotiation.acceptProtocol(bits);
        break;
      case Request.SET_STATUS:
        negotiation.setStatus(bits.word(0) & 0xff);
        break;
      case Request.NET_SET_MTU:
        deviceMessages.checkMtu(bits);
        break;
      default:
        deviceMessages.announce(bits, nowNs);
    }
    return null;
  }

  #serveConfig(id: number, payload: Extract<Payload, { kind: "config" }>): Uint8Array<ArrayBuffer> | null {
    const { deviceMessages } = this.#parts;
    if (id === Request.GET_CONFIG) {
      return codec.encodeConfigReply(payload.offset, deviceMessages.readConfig(payload));
    }
    deviceMessages.writeConfig(payload);
    return null;
  }
}
