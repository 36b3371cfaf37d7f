/**
 * What a driver has programmed of a network device, as plain JSON: receive modes, tables, steering, offloads. It goes
 * through a migration; counters do not.
 * @module
 */
import { z } from "zod";
import { GuestError } from "../../core/errors.ts";
import { FeatureSet } from "../../core/features.ts";
import { formatMac, isMulticast, MAC_BYTES, MAC_PATTERN, parseMac } from "../../wire/ethernet.ts";
import { type FilterState, MAC_TABLE_ENTRIES, type ReceiveMode, VLAN_IDS } from "./receive_filter.ts";
import {
  RSS_MAX_KEY_BYTES,
  RSS_MAX_TABLE_LENGTH,
  type RssSettings,
  SUPPORTED_HASH_TYPES,
} from "./steering.ts";

/** The state of one device. */
export interface NetState {
  /** The receive filter. */
  readonly filter: FilterState;
  /** The guest offloads that are on; null if the driver has never changed them. */
  readonly offloads: FeatureSet | null;
  /** Queue pairs that the driver has asked for; null if it never did. */
  readonly pairs: number | null;
  /** Receive-side scaling; null in automatic mode. */
  readonly rss: RssSettings | null;
  /** What hashes are reported; null for none, and where RSS says it. */
  readonly hash: { readonly types: number; readonly key: Uint8Array } | null;
}

const MODES = [
  "promisc",
  "allmulti",
  "alluni",
  "nomulti",
  "nouni",
  "nobcast",
] as const satisfies ReceiveMode[];

const mac = z.string().regex(MAC_PATTERN).transform(parseMac);
const key = z.array(z.int().min(0).max(255)).max(RSS_MAX_KEY_BYTES).transform((bytes) =>
  Uint8Array.from(bytes)
);
const types = z.int().min(0).max(SUPPORTED_HASH_TYPES);

const schema = z.strictObject({
  mac: mac.refine((address) => !isMulticast(address, 0)),
  modes: z.array(z.enum(MODES)).max(MODES.length),
  unicast: z.array(mac).max(MAC_TABLE_ENTRIES),
  multicast: z.array(mac).max(MAC_TABLE_ENTRIES),
  unicastOverflow: z.boolean(),
  multicastOverflow: z.boolean(),
  vlans: z.array(z.int().min(0).max(VLAN_IDS - 1)).max(VLAN_IDS),
  offloads: z.string().regex(/^0x[0-9a-f]{1,16}$/).nullable(),
  pairs: z.int().min(1).max(0x8000).nullable(),
  rss: z.strictObject({
    hashTypes: types,
    table: z.array(z.int().min(0).max(0x7fff)).min(1).max(RSS_MAX_TABLE_LENGTH)
      .refine((table) => (table.length & (table.length - 1)) === 0),
    unclassifiedPair: z.int().min(0).max(0x7fff),
    pairs: z.int().min(1).max(0x8000),
    key,
  }).nullable(),
  hash: z.strictObject({ types, key }).nullable(),
});

/** The state as plain JSON. */
export function stateToJson(state: NetState): z.input<typeof schema> {
  const { filter, offloads, pairs, rss, hash } = state;
  return {
    mac: formatMac(filter.mac),
    modes: [...filter.modes],
    unicast: addresses(filter.unicast),
    multicast: addresses(filter.multicast),
    unicastOverflow: filter.unicastOverflow,
    multicastOverflow: filter.multicastOverflow,
    vlans: [...filter.vlans],
    offloads: offloads?.toString() ?? null,
    pairs,
    rss: rss && { ...rss, table: [...rss.table], key: [...rss.key] },
    hash: hash && { types: hash.types, key: [...hash.key] },
  };
}

/** The inverse. GuestError `device-state-invalid` for anything else, and for more than `maxPairs` queue pairs. */
export function stateFromJson(json: unknown, maxPairs: number): NetState {
  const parsed = schema.safeParse(json);
  if (!parsed.success) {
    const [{ path, message }] = parsed.error.issues;
    throw invalid(`field "${path.join(".")}" of the state: ${message}`);
  }
  const { offloads, rss, ...rest } = parsed.data;
  const { mac: own, modes, unicast, multicast, unicastOverflow, multicastOverflow, vlans } = rest;
  const pairs = Math.max(rest.pairs ?? 1, rss?.pairs ?? 1);
  if (pairs > maxPairs) throw invalid(`it uses ${pairs} queue pairs, this device has ${maxPairs}`);
  if (rss !== null && [...rss.table, rss.unclassifiedPair].some((pair) => pair >= rss.pairs)) {
    throw invalid(`its indirection table names pairs beyond the ${rss.pairs} in use`);
  }
  return {
    filter: {
      mac: own,
      modes,
      unicast: joined(unicast),
      multicast: joined(multicast),
      unicastOverflow,
      multicastOverflow,
      vlans,
    },
    offloads: offloads === null ? null : FeatureSet.fromBigInt(BigInt(offloads)),
    pairs: rest.pairs,
    rss: rss && { ...rss, table: Uint16Array.from(rss.table) },
    hash: rest.hash,
  };
}

function addresses(table: Uint8Array): string[] {
  return Array.from(
    { length: table.length / MAC_BYTES },
    (_, i) => formatMac(table.subarray(MAC_BYTES * i, MAC_BYTES * (i + 1))),
  );
}

function joined(table: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(MAC_BYTES * table.length);
  table.forEach((address, i) => bytes.set(address, MAC_BYTES * i));
  return bytes;
}

function invalid(remedy: string): GuestError {
  return new GuestError("device-state-invalid", `The state cannot be taken over: ${remedy}`);
}
