/**
 * How messages are answered that carry no value of their own, or that were refused.
 * @module
 */
import { GuestError, HostError } from "../../core/errors.ts";
import type { FeatureSet } from "../../core/features.ts";
import { encodeConfigReply, encodeNumberReply, type Header } from "./codec.ts";
import { FLAG_NEED_REPLY, ProtocolFeature, Request, requestName } from "./messages.ts";
import { ProtocolError } from "./protocol_error.ts";

/** SET_DEVICE_STATE_FD failed, and no descriptor comes back; all other requests take any value but 0 for a failure. */
const FAILURE = 0x101;

/** Requests that wait for a value: for these there is no way to say that it failed. */
const VALUE_REQUESTS: ReadonlySet<number> = new Set([
  Request.GET_FEATURES,
  Request.GET_PROTOCOL_FEATURES,
  Request.GET_QUEUE_NUM,
  Request.GET_MAX_MEM_SLOTS,
  Request.GET_VRING_BASE,
  Request.GET_STATUS,
]);

/** The answer that says that a message was carried out; null if none is wanted. @param protocol what was agreed on */
export function success(header: Header, protocol: FeatureSet): Uint8Array<ArrayBuffer> | null {
  return acknowledgement(header, protocol, 0);
}

/**
 * The answer that says that a message was refused; null if none is wanted. Fatal ProtocolError if the front-end waits for
 * an answer that cannot be given.
 */
export function failure(
  header: Header,
  protocol: FeatureSet,
  reason: string,
): Uint8Array<ArrayBuffer> | null {
  switch (header.id) {
    case Request.GET_CONFIG:
      return encodeConfigReply(0, new Uint8Array(0));
    case Request.SET_DEVICE_STATE_FD:
    case Request.CHECK_DEVICE_STATE:
      return encodeNumberReply(header.id, FAILURE);
    case Request.SET_LOG_BASE:
      if (protocol.has(ProtocolFeature.LOG_SHMFD)) return encodeNumberReply(header.id, FAILURE);
      break;
    default:
      if (VALUE_REQUESTS.has(header.id)) {
        const name = requestName(header.id);
        throw new ProtocolError(
          "value-invalid",
          `${name} waits for a value that cannot be given: ${reason}`,
          true,
        );
      }
  }
  return acknowledgement(header, protocol, FAILURE);
}

/** The name under which an error is counted; null if it is one of our own. */
export function faultOf(error: unknown): string | null {
  if (error instanceof ProtocolError || error instanceof GuestError) return error.fault;
  return error instanceof HostError ? "host-cannot" : null;
}

function acknowledgement(
  { id, flags }: Header,
  protocol: FeatureSet,
  value: number,
): Uint8Array<ArrayBuffer> | null {
  const wanted = (flags & FLAG_NEED_REPLY) !== 0 && protocol.has(ProtocolFeature.REPLY_ACK);
  return wanted ? encodeNumberReply(id, value) : null;
}
