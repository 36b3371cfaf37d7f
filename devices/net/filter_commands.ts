/**
 * The commands that program the receive filter: receive modes, MAC addresses, VLANs (virtio 1.2, sections 5.1.6.5.1 to
 * 5.1.6.5.3).
 * @module
 */
import type { FeatureSet } from "../../core/features.ts";
import { isMulticast, MAC_BYTES } from "../../wire/ethernet.ts";
import {
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
} from "../../wire/net_features.ts";
import {
  type ControlRefusal,
  decodeMacTables,
  le16,
  RECEIVE_MODES,
  refuse,
  VIRTIO_NET_CTRL_MAC_ADDR_SET,
  VIRTIO_NET_CTRL_MAC_TABLE_SET,
  VIRTIO_NET_CTRL_VLAN_ADD,
  VIRTIO_NET_CTRL_VLAN_DEL,
} from "./control_commands.ts";
import { type ReceiveFilter, VLAN_IDS } from "./receive_filter.ts";

/**
 * Judges and carries out commands on one filter. `bytes` is a command that the driver cannot change any more: class, command,
 * and data up to `end`. Null if it was carried out.
 */
export class FilterCommands {
  readonly #filter: ReceiveFilter;
  readonly #macChanged: (mac: Uint8Array) => void;

  /** Commands on `filter`. @param macChanged told of the device's own new address, six bytes, valid during the call */
  constructor(filter: ReceiveFilter, macChanged: (mac: Uint8Array) => void) {
    this.#filter = filter;
    this.#macChanged = macChanged;
  }

  /** VIRTIO_NET_CTRL_RX. */
  receiveMode(bytes: Uint8Array, end: number, features: FeatureSet): ControlRefusal | null {
    const command = bytes[1];
    if (command >= RECEIVE_MODES.length) return "unknown_command";
    const mode = RECEIVE_MODES[command];
    const extra = mode !== "promisc" && mode !== "allmulti";
    const refusal = refuse(features, extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX, end, 1);
    if (refusal !== null) return refusal;
    const on = bytes[2];
    if (on > 1) return "value_invalid";
    this.#filter.setMode(mode, on === 1);
    return null;
  }

  /** VIRTIO_NET_CTRL_MAC. */
  mac(bytes: Uint8Array, end: number, features: FeatureSet): ControlRefusal | null {
    switch (bytes[1]) {
      case VIRTIO_NET_CTRL_MAC_TABLE_SET:
        return this.#setTables(bytes, end, features);
      case VIRTIO_NET_CTRL_MAC_ADDR_SET:
        return this.#setMac(bytes, end, features);
      default:
        return "unknown_command";
    }
  }

  /** VIRTIO_NET_CTRL_VLAN. */
  vlan(bytes: Uint8Array, end: number, features: FeatureSet): ControlRefusal | null {
    const command = bytes[1];
    if (command !== VIRTIO_NET_CTRL_VLAN_ADD && command !== VIRTIO_NET_CTRL_VLAN_DEL) {
      return "unknown_command";
    }
    const refusal = refuse(features, VIRTIO_NET_F_CTRL_VLAN, end, 2);
    if (refusal !== null) return refusal;
    const id = le16(bytes, 2);
    if (id >= VLAN_IDS) return "value_invalid";
    this.#filter.setVlan(id, command === VIRTIO_NET_CTRL_VLAN_ADD);
    return null;
  }

  #setTables(bytes: Uint8Array, end: number, features: FeatureSet): ControlRefusal | null {
    if (!features.has(VIRTIO_NET_F_CTRL_RX)) return "not_negotiated";
    const tables = decodeMacTables(bytes, 2, end);
    if (typeof tables === "string") return tables;
    const { unicastAt, unicastCount, multicastAt, multicastCount } = tables;
    this.#filter.setTables(bytes, unicastAt, unicastCount, multicastAt, multicastCount);
    return null;
  }

  #setMac(bytes: Uint8Array, end: number, features: FeatureSet): ControlRefusal | null {
    // Either feature brings the command: the specification names CTRL_RX, drivers go by CTRL_MAC_ADDR.
    const feature = features.has(VIRTIO_NET_F_CTRL_RX) ? VIRTIO_NET_F_CTRL_RX : VIRTIO_NET_F_CTRL_MAC_ADDR;
    const refusal = refuse(features, feature, end, MAC_BYTES);
    if (refusal !== null) return refusal;
    if (isMulticast(bytes, 2)) return "value_invalid";
    const mac = bytes.subarray(2, end);
    this.#filter.setMac(mac);
    this.#macChanged(mac);
    return null;
  }
}
