/**
 * Payloads of the front-end's requests, from bytes to values. Every length is checked before it is used.
 * @module
 */
import { FeatureSet } from "../../core/features.ts";
import {
  FLAG_NO_DESCRIPTOR,
  MAX_CONFIG_BYTES,
  MAX_TABLE_REGIONS,
  type Payload,
  type RegionDescription,
  VHOST_VRING_F_LOG,
} from "./messages.ts";
import { ProtocolError } from "./protocol_error.ts";

/** Bytes in front of the contents of configuration space: offset, size, flags. */
export const CONFIG_HEADER_BYTES = 12;
const REGION_BYTES = 32;

/** Decodes a payload of this kind. ProtocolError, never fatal, with the message's name in it. */
export function decodePayload(kind: Payload["kind"], name: string, bytes: Uint8Array): Payload {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (kind) {
    case "none":
      // Nothing is expected and nothing is looked at: some front-ends pad.
      return { kind };
    case "bits":
      checkSize(name, bytes, 8);
      return { kind, bits: FeatureSet.fromWords(view.getUint32(0, true), view.getUint32(4, true)) };
    case "ring":
      checkSize(name, bytes, 8);
      return { kind, index: view.getUint32(0, true), num: view.getUint32(4, true) };
    case "ringEvent": {
      checkSize(name, bytes, 8);
      const word = view.getUint32(0, true);
      return { kind, index: word & 0xff, hasDescriptor: (word & FLAG_NO_DESCRIPTOR) === 0 };
    }
    case "ringAddress":
      checkSize(name, bytes, 40);
      return decodeRingAddress(name, view);
    case "regions":
      return decodeRegions(name, bytes, view);
    case "region":
      checkSize(name, bytes, 8 + REGION_BYTES);
      return { kind, region: decodeRegion(name, view, 8) };
    case "log":
      // Before LOG_SHMFD the payload was one address, which means nothing without its memory.
      if (bytes.length === 8) return { kind, sizeBytes: 0, offsetBytes: 0 };
      checkSize(name, bytes, 16);
      return {
        kind,
        sizeBytes: le64(name, "log size", view, 0),
        offsetBytes: le64(name, "log offset", view, 8),
      };
    case "config":
      return decodeConfig(name, bytes, view);
    case "transfer":
      checkSize(name, bytes, 8);
      return { kind, direction: view.getUint32(0, true), phase: view.getUint32(4, true) };
  }
}

function decodeRingAddress(name: string, view: DataView): Payload {
  const flags = view.getUint32(4, true);
  return {
    kind: "ringAddress",
    index: view.getUint32(0, true),
    flags,
    descriptors: le64(name, "descriptor", view, 8),
    used: le64(name, "used", view, 16),
    available: le64(name, "available", view, 24),
    // Without the flag the field may be anything.
    log: (flags & VHOST_VRING_F_LOG) === 0 ? null : le64(name, "log", view, 32),
  };
}

function decodeRegions(name: string, bytes: Uint8Array, view: DataView): Payload {
  if (bytes.length < 8) checkSize(name, bytes, 8);
  const count = view.getUint32(0, true);
  if (count > MAX_TABLE_REGIONS) {
    throw new ProtocolError(
      "memory-table-invalid",
      `${name} has ${count} regions; at most ${MAX_TABLE_REGIONS} fit, more must be added one by one`,
    );
  }
  // Some front-ends always send room for eight.
  if (bytes.length < 8 + count * REGION_BYTES || bytes.length > 8 + MAX_TABLE_REGIONS * REGION_BYTES) {
    checkSize(name, bytes, 8 + count * REGION_BYTES);
  }
  const regions = Array.from({ length: count }, (_, i) => decodeRegion(name, view, 8 + i * REGION_BYTES));
  return { kind: "regions", regions };
}

function decodeRegion(name: string, view: DataView, at: number): RegionDescription {
  return {
    guestAddress: le64(name, "guest address", view, at),
    size: le64(name, "size", view, at + 8),
    userAddress: le64(name, "user address", view, at + 16),
    mapOffset: le64(name, "mmap offset", view, at + 24),
  };
}

function decodeConfig(name: string, bytes: Uint8Array, view: DataView): Payload {
  if (bytes.length < CONFIG_HEADER_BYTES) checkSize(name, bytes, CONFIG_HEADER_BYTES);
  const offset = view.getUint32(0, true);
  const size = view.getUint32(4, true);
  if (size > MAX_CONFIG_BYTES || offset > MAX_CONFIG_BYTES - size) {
    throw new ProtocolError(
      "value-invalid",
      `${name} asks for ${size} bytes at ${offset}; configuration space has at most ${MAX_CONFIG_BYTES}`,
    );
  }
  checkSize(name, bytes, CONFIG_HEADER_BYTES + size);
  const kept = bytes.slice(CONFIG_HEADER_BYTES);
  return { kind: "config", offset, size, flags: view.getUint32(8, true), bytes: kept };
}

/** Checks that as many descriptors came as the payload speaks of. ProtocolError `descriptors-invalid`. */
export function checkDescriptors(name: string, payload: Payload, descriptors: number): void {
  let wanted = descriptors;
  if (payload.kind === "regions") wanted = payload.regions.length;
  if (payload.kind === "ringEvent") wanted = payload.hasDescriptor ? 1 : 0;
  if (wanted !== descriptors) {
    throw new ProtocolError(
      "descriptors-invalid",
      `${name} came with ${descriptors} descriptors; its payload asks for ${wanted}`,
    );
  }
}

function checkSize(name: string, bytes: Uint8Array, wanted: number): void {
  if (bytes.length !== wanted) {
    throw new ProtocolError(
      "payload-size-invalid",
      `Payload of ${name} is ${bytes.length} bytes long; it must be ${wanted}`,
    );
  }
}

function le64(name: string, field: string, view: DataView, at: number): number {
  const low = view.getUint32(at, true);
  const high = view.getUint32(at + 4, true);
  if (high >= 0x200000) {
    throw new ProtocolError(
      "address-too-large",
      `${field} of ${name} is 0x${high.toString(16)}${
        low.toString(16).padStart(8, "0")
      }; it must be below 2^53`,
    );
  }
  return high * 0x100000000 + low;
}
