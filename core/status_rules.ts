/**
 * Which writes to the device status field are allowed (virtio 1.2, sections 2.1 and 3.1.1).
 * @module
 */
import {
  STATUS_ACKNOWLEDGE,
  STATUS_DRIVER,
  STATUS_DRIVER_OK,
  STATUS_FAILED,
  STATUS_FEATURES_OK,
  STATUS_NEEDS_RESET,
} from "./device.ts";

const DRIVER_BITS = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK |
  STATUS_FAILED;

/**
 * Why a driver must not write `value` when the status is `status`; null if it may. Bits are only added, in order, and by
 * the right side; NEEDS_RESET, which a driver may or may not repeat, and FAILED leave no way but FAILED and 0.
 * @param legacy the driver does without FEATURES_OK
 */
export function statusObjection(status: number, value: number, legacy: boolean): string | null {
  if (value === 0) return null;
  if (!Number.isInteger(value) || value < 0 || value > 255) return "must be from 0 to 255";
  if ((value & ~(DRIVER_BITS | (status & STATUS_NEEDS_RESET))) !== 0) {
    return "has bits that a driver must not set";
  }
  if ((status & DRIVER_BITS & ~value) !== 0) return "takes bits back; only 0 does, all of them";
  const added = value & ~status;
  if ((added & STATUS_FAILED) !== 0) {
    return (added & ~STATUS_FAILED) === 0 ? null : "gives up and goes on at once";
  }
  if (added !== 0 && (status & (STATUS_NEEDS_RESET | STATUS_FAILED)) !== 0) {
    return "goes on after an error; the driver must write 0 first";
  }
  if (isSet(value, STATUS_DRIVER) && !isSet(value, STATUS_ACKNOWLEDGE)) {
    return "needs ACKNOWLEDGE before DRIVER";
  }
  if (isSet(value, STATUS_FEATURES_OK) && !isSet(value, STATUS_DRIVER)) {
    return "needs DRIVER before FEATURES_OK";
  }
  if (isSet(value, STATUS_DRIVER_OK)) {
    if (!isSet(value, STATUS_DRIVER)) return "needs DRIVER before DRIVER_OK";
    if (!legacy && !isSet(value, STATUS_FEATURES_OK)) return "needs FEATURES_OK before DRIVER_OK";
    if (
      !isSet(status, STATUS_FEATURES_OK) && isSet(status, STATUS_DRIVER_OK) &&
      isSet(value, STATUS_FEATURES_OK)
    ) {
      return "comes too late with FEATURES_OK";
    }
  }
  return null;
}

function isSet(value: number, bit: number): boolean {
  return (value & bit) !== 0;
}
