/**
 * The C library of this host, opened when it is first needed: whoever uses no native transport needs no right to it.
 *
 * This folder is the only room with foreign functions. A worker has its own copy of this module, and so its own `errno`.
 * @module
 */
import { HostError } from "../core/errors.ts";
import { LIBC_SYMBOLS, type LibcSymbols } from "./libc_symbols.ts";

export type { LibcSymbols };

const LIBRARY = "libc.so.6";

let opened: LibcSymbols | null = null;
let lastError: Int32Array | null = null;

/** The C library's functions. Throws HostError if this host has none that we know, or Deno may not call it. */
export function libc(): LibcSymbols {
  return opened ??= openLibc();
}

/** Opens the C library, whether it was opened before or not. Throws HostError. */
export function openLibc(): LibcSymbols {
  if (Deno.build.os !== "linux") {
    throw new HostError(
      `Cannot call the C library on ${Deno.build.os}: native transports need Linux; use "loopback" or "pcap" here`,
    );
  }
  try {
    return Deno.dlopen(LIBRARY, LIBC_SYMBOLS).symbols;
  } catch (cause) {
    const message = cause instanceof Deno.errors.NotCapable
      ? `Cannot call ${LIBRARY}: Deno may not call native functions; add --allow-ffi, which is the right to do anything`
      : `Cannot call ${LIBRARY}: ${cause instanceof Error ? cause.message : cause}; native transports need ` +
        `Linux with the GNU C library 2.33 or later`;
    throw new HostError(message, { cause });
  }
}

/**
 * Why the last call failed, as a number. Only right after a synchronous call: an awaited one runs in another thread, and its
 * `errno` is lost.
 */
export function errno(): number {
  if (lastError === null) {
    const address = libc().__errno_location()!;
    // The address belongs to this thread and stays the same as long as it lives.
    lastError = new Int32Array(new Deno.UnsafePointerView(address).getArrayBuffer(4));
  }
  return lastError[0];
}

/** The text as C wants it: UTF-8 with a zero byte behind it. Throws HostError if there is one within. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  if (text.includes("\0")) {
    throw new HostError(`Cannot pass ${JSON.stringify(text)} on: it must contain no zero byte`);
  }
  return new TextEncoder().encode(`${text}\0`);
}

/** The address of a buffer's first byte; right as long as the buffer is reachable and not transferred. */
export function addressOf(buffer: ArrayBufferView<ArrayBuffer>): bigint {
  return Deno.UnsafePointer.value(Deno.UnsafePointer.of(buffer));
}
