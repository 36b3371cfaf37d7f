/**
 * The errors of virtqueues and chains, made out of line: the functions that may throw them stay small and
 * fast.
 * @module
 */
import { GuestError } from "./guest_error.ts";

/** Size of a split queue. */
export function splitSizeInvalid(size: number): GuestError {
  return new GuestError(
    "queue-size-invalid",
    `Size of a split queue is ${size}; it must be a power of two from 1 to 32768`,
  );
}

/** Size of a packed queue. */
export function packedSizeInvalid(size: number): GuestError {
  return new GuestError(
    "queue-size-invalid",
    `Size of a packed queue is ${size}; it must be from 1 to 32768`,
  );
}

/** A descriptor index outside its table of `entries`. */
export function indexOutOfRange(index: number, entries: number): GuestError {
  return new GuestError(
    "descriptor-index-out-of-range",
    `Descriptor index is ${index}; it must be below the ${entries} entries of its table`,
  );
}

/** More steps along a chain than its table has `entries`. */
export function loop(entries: number): GuestError {
  return new GuestError("descriptor-loop", `A chain goes around in its table of ${entries}; it must end`);
}

/** An indirect table that brings a chain to more elements than one may have. */
export function chainTooLong(elements: number, limit: number): GuestError {
  return new GuestError(
    "chain-too-long",
    `An indirect table adds ${elements} elements to its chain; there is room for ${limit}`,
  );
}

/** An indirect descriptor although VIRTIO_F_INDIRECT_DESC was not negotiated. */
export function indirectNotNegotiated(): GuestError {
  return new GuestError(
    "indirect-not-negotiated",
    "A descriptor has the INDIRECT flag; the driver must accept VIRTIO_F_INDIRECT_DESC first",
  );
}

/** A descriptor with INDIRECT and NEXT, or an indirect one in a list where none may be. */
export function indirectInList(): GuestError {
  return new GuestError(
    "descriptor-flags-invalid",
    "A descriptor has the flag INDIRECT and a chain that goes on; a table must end its chain",
  );
}

/** An indirect descriptor inside a table. */
export function nested(): GuestError {
  return new GuestError(
    "indirect-nested",
    "A descriptor in an indirect table has the flag INDIRECT; a table must not refer to another one",
  );
}

/** An available index that is too far ahead, or went back. */
export function tooFar(index: number, published: number, seen: number, size: number): GuestError {
  return new GuestError(
    "available-index-too-far",
    `Available index is ${index}; it must be from ${seen} to ${(published + size) & 0xffff}, ` +
      `at most ${size} ahead of the used index`,
  );
}

/** A list in a packed ring that needs more slots than are free. */
export function ringOverrun(slots: number, free: number): GuestError {
  return new GuestError(
    "available-index-too-far",
    `A list takes ${slots} slots of the ring; only ${free} were free, the rest still hold buffers of the device`,
  );
}

/** A descriptor of a packed list whose AVAIL and USED flags do not match the driver's wrap counter. */
export function notAvailable(position: number, flags: number): GuestError {
  return new GuestError(
    "descriptor-flags-invalid",
    `Flags of descriptor ${position} are 0x${
      flags.toString(16)
    }; all of a list must be marked available before its first`,
  );
}

/** A buffer id that names a buffer which has not been returned. */
export function idInUse(id: number): GuestError {
  return new GuestError(
    "buffer-id-in-use",
    `Buffer id ${id} names a buffer that the device still has; ids must differ`,
  );
}

/** A starting state of a ring that cannot be. */
export function stateInvalid(message: string): GuestError {
  return new GuestError("ring-state-invalid", message);
}

/** A device gives back what it does not have: its own mistake. */
export function notInFlight(head: number): RangeError {
  return new RangeError(`Cannot push chain ${head}: only what was popped, and not pushed yet, can be pushed`);
}

/** A device puts back more than it may: its own mistake. */
export function notReturnable(count: number, returnable: number): RangeError {
  return new RangeError(
    `Cannot unpop ${count} chains: only the ${returnable} that were popped since the last push can be put back`,
  );
}
