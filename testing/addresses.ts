/**
 * Addresses as people write them, in bytes and back. Of its own, so that tests do not check the code with itself.
 * @module
 */

/** The six bytes of a MAC address such as `52:54:00:12:34:56`, with colons or hyphens. Throws RangeError. */
export function macBytes(text: string): Uint8Array<ArrayBuffer> {
  const parts = text.split(text.includes("-") ? "-" : ":");
  if (parts.length !== 6 || !parts.every((part) => /^[0-9a-f]{2}$/i.test(part))) {
    throw new RangeError(`Cannot read MAC address "${text}": write six bytes such as 52:54:00:12:34:56`);
  }
  return Uint8Array.from(parts, (part) => Number.parseInt(part, 16));
}

/** The MAC address at `at`, as text. */
export function macText(bytes: Uint8Array, at: number): string {
  return Array.from(bytes.slice(at, at + 6), (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** Is this the text of an IPv6 address? */
export function isIpv6Text(text: string): boolean {
  return text.includes(":");
}

/** The 4 or 16 bytes of an IP address such as `10.0.0.1` or `fd00::1`. Throws RangeError. */
export function ipBytes(text: string): Uint8Array<ArrayBuffer> {
  const bytes = isIpv6Text(text) ? ipv6Bytes(text) : ipv4Bytes(text);
  if (bytes === null) {
    throw new RangeError(`Cannot read IP address "${text}": write one such as 10.0.0.1 or fd00::1`);
  }
  return bytes;
}

/** The IP address of 4 or 16 bytes at `at`, as text. The longest run of zero groups is not looked for, only the first. */
export function ipText(bytes: Uint8Array, at: number, length: 4 | 16): string {
  if (length === 4) return bytes.slice(at, at + 4).join(".");
  const groups: string[] = [];
  for (let i = at; i < at + 16; i += 2) groups.push((bytes[i] << 8 | bytes[i + 1]).toString(16));
  const shortened = groups.join(":").replace(/(^|:)0(:0)+(:|$)/, "::");
  return shortened;
}

function ipv4Bytes(text: string): Uint8Array<ArrayBuffer> | null {
  const parts = text.split(".");
  const valid = parts.length === 4 && parts.every((part) => /^\d{1,3}$/.test(part) && Number(part) < 256);
  return valid ? Uint8Array.from(parts, Number) : null;
}

function ipv6Bytes(text: string): Uint8Array<ArrayBuffer> | null {
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const [left, right] = halves.map((half) => half === "" ? [] : half.split(":"));
  const missing = 8 - left.length - (right?.length ?? 0);
  if (right === undefined ? missing !== 0 : missing < 1) return null;
  const groups = right === undefined ? left : [...left, ...new Array<string>(missing).fill("0"), ...right];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null;
  return Uint8Array.from(groups.flatMap((group) => {
    const value = Number.parseInt(group, 16);
    return [value >>> 8, value & 0xff];
  }));
}
