/**
 * Guests made of software: the driver's side of rings, memory and status, and what drivers of device types
 * are written with.
 * @module
 */
export {
  BAD_USED,
  BufferList,
  type DriverRing,
  type IndirectUse,
  NOTHING_USED,
  type RingPlacement,
} from "./driver_ring.ts";
export {
  type GuestStorage,
  type PlacedQueue,
  QueuePlan,
  type QueueWish,
  type Reservation,
} from "./guest_queues.ts";
export {
  completeGuestOptions,
  type FeatureNames,
  type FeatureWishes,
  guestOptionsSchema,
  type SoftwareGuestOptions,
  softwareGuestOptions,
  type SoftwareGuestOptionsInput,
} from "./options.ts";
export { type GuestRequest, type RequestCounters, RequestGuest, type RequestHooks } from "./request_guest.ts";
export {
  type GuestCounters,
  type GuestHooks,
  newGuestCounters,
  QueueNotifications,
  SoftwareGuest,
} from "./software_guest.ts";
