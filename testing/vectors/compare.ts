/**
 * What a device delivered against what was recorded: every difference, by number and field.
 * @module
 */
import type { Vector, VectorPacket } from "./format.ts";
import type { VectorRun } from "./run_vector.ts";

/** Names each difference; none if the run is equal to the recording, bit for bit. */
export function differences(vector: Vector, run: VectorRun): string[] {
  const found: string[] = [];
  const count = Math.max(vector.packets.length, run.packets.length);
  for (let i = 0; i < count; i++) {
    const wanted = vector.packets[i];
    const got = run.packets[i];
    const where = `packet ${i + 1}`;
    if (wanted === undefined) found.push(`${where}: not recorded, but delivered at ${got.t_ns} ns`);
    else if (got === undefined) found.push(`${where}: recorded at ${wanted.t_ns} ns, but not delivered`);
    else found.push(...packetDifferences(where, wanted, got));
  }
  const acks = Math.max(vector.acks.length, run.acks.length);
  for (let i = 0; i < acks; i++) {
    const wanted = vector.acks[i];
    const got = run.acks[i];
    if (wanted?.ctrl_ack !== got?.ctrl_ack || wanted?.t_ns !== got?.t_ns) {
      found.push(`control answer ${i + 1}: wanted ${JSON.stringify(wanted)}, got ${JSON.stringify(got)}`);
    }
  }
  for (const error of run.guestErrors) found.push(`guest: ${error}`);
  if (run.framesLeft > 0) found.push(`pool: ${run.framesLeft} frames are not back at the end`);
  return found;
}

function packetDifferences(where: string, wanted: VectorPacket, got: VectorPacket): string[] {
  const found: string[] = [];
  if (wanted.t_ns !== got.t_ns) found.push(`${where}, t_ns: wanted ${wanted.t_ns}, got ${got.t_ns}`);
  for (const field of Object.keys(wanted.hdr) as (keyof VectorPacket["hdr"])[]) {
    const value = wanted.hdr[field];
    // The recording could not see num_buffers where the reference left it unwritten.
    if (value === null || value === got.hdr[field]) continue;
    found.push(`${where}, ${field}: wanted ${value}, got ${got.hdr[field]}`);
  }
  if (wanted.frame !== got.frame) found.push(`${where}, ${frameDifference(wanted.frame, got.frame)}`);
  return found;
}

function frameDifference(wanted: string, got: string): string {
  if (wanted.length !== got.length) return `length: wanted ${wanted.length / 2} bytes, got ${got.length / 2}`;
  let at = 0;
  while (wanted[at] === got[at]) at++;
  const byte = at >> 1;
  const excerpt = (digits: string) => digits.slice(2 * byte, 2 * byte + 16);
  return `frame, byte ${byte}: wanted ${excerpt(wanted)}…, got ${excerpt(got)}…`;
}
