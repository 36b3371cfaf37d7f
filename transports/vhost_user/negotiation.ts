/**
 * What front-end and back-end agree on: virtio features, protocol features, device status.
 *
 * SET_STATUS is a note rather than a command: front-ends write bits in an order of their own, and rings start
 * by kick. Writing 0 does reset the device, as RESET_DEVICE does. Memory survives both: front-ends tell it
 * only when it changes.
 * @module
 */
import { type Device, STATUS_FEATURES_OK, STATUS_NEEDS_RESET } from "../../core/device.ts";
import { GuestError } from "../../rings/guest_error.ts";
import { FeatureSet } from "../../core/features.ts";
import { judgeFeatures } from "../../core/session.ts";
import { VIRTIO_NET_F_CTRL_VQ } from "../../wire/net_features.ts";
import type { DeviceRunner } from "./device_runner.ts";
import type { Offer } from "./front_ends.ts";
import type { DirtyLogging } from "./memory_table.ts";
import {
  featureNeededBy,
  ProtocolError,
  ProtocolFeature,
  protocolFeatureName,
  requestName,
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from "./messages.ts";

/**
 * Features that a front-end serves by itself, so that it makes no difference to the device whether they were
 * offered: ANY_LAYOUT (27), ORDER_PLATFORM (36), SR_IOV (37), NOTIFICATION_DATA (38), NOTIF_CONFIG_DATA (39),
 * RING_RESET (40), ADMIN_VQ (41).
 */
const NOT_THE_DEVICES = FeatureSet.of(27, 36, 37, 38, 39, 40, 41);

/**
 * Types of device whose front-ends never send SET_VRING_ENABLE, whatever they accept, and whose rings are
 * hence enabled from the start: 20, of which QEMU (vhost-user-crypto) only says by kicks that its ring is to
 * be served.
 */
const NEVER_ENABLED: ReadonlySet<number> = new Set([20]);

/** The state of one connection's agreement. */
export class Negotiation {
  /** What is offered. */
  readonly offer: Offer;
  readonly #device: Device;
  readonly #runner: DeviceRunner;
  readonly #logging: DirtyLogging;
  #protocol = FeatureSet.none;
  #status = 0;

  /**
   * Nothing is agreed on yet.
   * @param runner what works by the features;
   * @param logging what one of them switches
   */
  constructor(device: Device, offer: Offer, runner: DeviceRunner, logging: DirtyLogging) {
    this.offer = offer;
    this.#device = device;
    this.#runner = runner;
    this.#logging = logging;
  }

  /** The protocol features that were agreed on. */
  get protocol(): FeatureSet {
    return this.#protocol;
  }

  /** The device status field as the front-end sees it. */
  get status(): number {
    return this.#runner.needsReset ? this.#status | STATUS_NEEDS_RESET : this.#status;
  }

  /** Is this request among those that were offered? ProtocolError `not-negotiated` if not. */
  check(id: number): void {
    const needed = featureNeededBy(id);
    if (needed === undefined || this.offer.protocol.has(needed)) return;
    throw new ProtocolError(
      "not-negotiated",
      `${requestName(id)} needs protocol feature ${protocolFeatureName(needed)}, which was not offered`,
    );
  }

  /**
   * The driver accepts these features. Those that were not offered and concern only driver and front-end are
   * ignored: QEMU accepts RING_RESET for its GPU in any case. GuestError if it must not accept the others;
   * the device then does not work at all, for the driver, which cannot be told, goes by what it has accepted.
   */
  acceptFeatures(accepted: FeatureSet): void {
    const unoffered = accepted.minus(this.offer.features);
    const ignored = unoffered.intersect(NOT_THE_DEVICES);
    const judged = accepted.minus(ignored);
    const features = deviceFeatures(judged);
    // What is in force already was judged before: logging is switched by the same message, in the midst of
    // work.
    if (this.#runner.features?.equals(features) !== true) {
      try {
        this.#judge(judged);
      } catch (error) {
        this.#runner.setFeatures(null);
        throw error;
      }
    }
    this.#runner.setFeatures(features);
    if (!accepted.has(VHOST_USER_F_PROTOCOL_FEATURES) || NEVER_ENABLED.has(this.#device.type)) {
      this.#runner.enableAll();
    }
    this.#logging.switch(accepted.has(VHOST_F_LOG_ALL));
  }

  /**
   * The front-end accepts these protocol features. ProtocolError for what was not offered or does not go
   * together.
   */
  acceptProtocol(accepted: FeatureSet): void {
    const unknown = accepted.minus(this.offer.protocol);
    if (!unknown.isEmpty) {
      throw new ProtocolError(
        "not-negotiated",
        `Protocol features ${unknown} must be offered before they are set`,
      );
    }
    const { INBAND_NOTIFICATIONS, BACKEND_REQ, REPLY_ACK } = ProtocolFeature;
    if (accepted.has(INBAND_NOTIFICATIONS) && !accepted.hasAll([BACKEND_REQ, REPLY_ACK])) {
      throw new ProtocolError(
        "not-negotiated",
        "INBAND_NOTIFICATIONS must come with BACKEND_REQ and REPLY_ACK",
        true,
      );
    }
    this.#protocol = accepted;
  }

  /** The driver writes the status field; 0 resets. FEATURES_OK only sticks if features are in force. */
  setStatus(status: number): void {
    if (status === 0) {
      this.reset();
      return;
    }
    const ours = this.#runner.features === null
      ? STATUS_NEEDS_RESET | STATUS_FEATURES_OK
      : STATUS_NEEDS_RESET;
    this.#status = status & ~ours;
  }

  /** The driver resets the device. */
  reset(): void {
    this.#status = 0;
    this.#runner.reset();
  }

  #judge(accepted: FeatureSet): void {
    const unknown = accepted.minus(this.offer.features);
    if (!unknown.isEmpty) {
      throw new GuestError(
        "features-unknown",
        `Features ${unknown} were accepted, but must be offered first`,
      );
    }
    judgeFeatures(this.#device, featuresToJudge(this.#device, deviceFeatures(accepted)));
  }
}

/** The device's own features among those that a front-end accepts: without the bits of the protocol. */
export function deviceFeatures(accepted: FeatureSet): FeatureSet {
  return accepted.without(VHOST_USER_F_PROTOCOL_FEATURES, VHOST_F_LOG_ALL);
}

/**
 * The features to be judged in place of `features`. A front-end that ends the control queue in itself accepts
 * MQ or GUEST_ANNOUNCE without CTRL_VQ, on which they depend: its driver has CTRL_VQ all the same.
 */
function featuresToJudge(device: Device, features: FeatureSet): FeatureSet {
  const isNet = device.type === 1;
  return isNet && device.features.has(VIRTIO_NET_F_CTRL_VQ) ? features.with(VIRTIO_NET_F_CTRL_VQ) : features;
}
