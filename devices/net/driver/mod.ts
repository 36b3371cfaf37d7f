/**
 * The driver's half of `net`: a software guest that sends and receives frames, and its options.
 * @module
 */
export {
  type ControlCommand,
  NetControl,
  type ReceiveMode,
  VIRTIO_NET_ERR,
  VIRTIO_NET_OK,
} from "./control.ts";
export { netDriver, NetGuest, type NetGuestCounters, type NetGuestHooks } from "./net_guest.ts";
export {
  type GuestBehaviour,
  type GuestOptions,
  type GuestOptionsInput,
  guestOptionsSchema,
  type SendOptions,
} from "./options.ts";
export { type PacketHash, ReceivedPacket } from "./receive_queue.ts";
