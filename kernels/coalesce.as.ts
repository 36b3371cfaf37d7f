/**
 * The coalescing kernel: merges a burst of segments into what is held of their flows, as far as numbers go.
 *
 * JavaScript decides, kernels move. This one does what nearly every segment of bulk data needs: a plain
 * segment without options (but the timestamp), with right checksums, that is the next of a flow which is
 * found by the shortcut of the flow table. It stops in front of every other frame and has changed nothing for
 * it; `StrictChain.take` and `QemuChain.take`, which are its specification, judge that one. Frames of the
 * other IP version pass in between.
 *
 * It reads frames within the lengths that it is told, and writes rows of flows and its list. See
 * `flow_layout.ts`. Every access to a memory of 64-bit addresses is checked by the engine, which costs more
 * than a shift: hence two words at a time.
 */
import { sum } from "./checksum.as";
import {
  ACK, ECN, FAMILY, FLAGS_MASK, FLAGS_VALUE, FROM, HOP_LIMIT, IP_LENGTH, IS_QEMU, IS_RIGHT, ITEM_COUNT, ITEM_FLOW, KEY,
  LIST, MACS, MAX_BYTES, MAX_IP_LENGTH, MAX_SEGMENTS, OFFSET_FLAGS, PASSES, PAYLOAD_BYTES, PLACES, ROWS, SEGMENTS, SEQ,
  SHIFT, SUM, TIMESTAMPS, TRAITS, TS_VALUE, VLAN,
} from "./flow_layout";

/** EtherTypes as a little-endian load reads them. */
const IPV4: u32 = 0x0008;
const IPV6: u32 = 0xdd86;
const ETHERNET_BYTES: u32 = 14;
const PROTOCOL_TCP: u32 = 6;
const TCP_BYTES: u32 = 20;
const TIMESTAMP_BYTES: u32 = 32;
/** The timestamp block, as a little-endian load reads it. */
const TIMESTAMP_BLOCK: u32 = 0x0a080101;
const PSH: u32 = 8;
/** Flags that merged segments have alike. */
const ALIKE: u32 = 0xff7;
/** ECE, CWR and AE. */
const TCP_ECN: u32 = 0x1c0;

/** Bytes 0 and 1 of what a little-endian load has read, as a number of the network. */
@inline
function net16(word: u64): u32 {
  return <u32> (word & 0xff) << 8 | <u32> (word >> 8) & 0xff;
}

/** Bytes 0 to 3 of it. */
@inline
function net32(word: u64): u32 {
  return bswap<u32>(<u32> word);
}

/** Both 32-bit halves of it, to be summed up. */
@inline
function halves(word: u64): u64 {
  return (word & 0xffffffff) + (word >> 32);
}

/** Word `word` of a row and the next one; `word` is even. */
@inline
function pair(row: usize, word: usize): u64 {
  return load<u64>(row + (word << 2));
}

@inline
function setPair(row: usize, word: usize, low: u32, high: u32): void {
  store<u64>(row + (word << 2), <u64> low | <u64> high << 32);
}

/** Are `a` and `b` the same, bit for bit? */
@inline
function same(a: usize, b: usize): bool {
  return i8x16.all_true(i8x16.eq(v128.load(a), v128.load(b)));
}

/** Is a sum of the words of something with its checksum in place all ones? */
@inline
function isRight(total: u64): bool {
  total = halves(total);
  total = (total & 0xffff) + (total >> 16);
  total = (total & 0xffff) + (total >> 16);
  return (total & 0xffff) + (total >> 16) == 0xffff;
}

/** Goes on from item `FROM`; returns in front of which item it stopped. */
export function coalesce(at: u32): u32 {
  const block = <usize> at;
  const isV4 = load<u32>(block, FAMILY) == 4;
  const isQemu = load<u32>(block, IS_QEMU) != 0;
  const ownType = isV4 ? IPV4 : IPV6;
  const otherType = isV4 ? IPV6 : IPV4;
  const ipBytes: u32 = isV4 ? 20 : 40;
  const addressesAt: u32 = isV4 ? 26 : 22;
  const count = load<u32>(block, ITEM_COUNT);
  const flagsMask = load<u32>(block, FLAGS_MASK);
  const flagsValue = load<u32>(block, FLAGS_VALUE);
  const timestamps = load<u32>(block, TIMESTAMPS) != 0;
  const ecnAllowed = load<u32>(block, ECN) != 0;
  const maxIpLength = load<u32>(block, MAX_IP_LENGTH);
  const maxBytes = load<u32>(block, MAX_BYTES);
  const maxSegments = load<u32>(block, MAX_SEGMENTS);
  const places = <usize> load<u32>(block, PLACES);
  const rows = <usize> load<u32>(block, ROWS);
  const shift = load<u32>(block, SHIFT);
  let verified: u32 = 0;
  let i = load<u32>(block, FROM);
  let item = block + LIST + (<usize> i << 4);
  for (; i < count; i++, item += 16) {
    verified = 0;
    const entry = load<u64>(item);
    const frame = <usize> <u32> entry;
    const length = <u32> (entry >> 32) & ~SUM;
    if (length < ETHERNET_BYTES + 2) break;
    // The last four bytes of the MAC addresses, the EtherType, and the first two bytes of IP.
    const start = load<u64>(frame, 8);
    const type = <u32> (start >> 32) & 0xffff;
    if (type != ownType) {
      if (type != otherType) break;
      store<u32>(item, PASSES, ITEM_FLOW);
      continue;
    }
    if (length < ETHERNET_BYTES + ipBytes + TCP_BYTES) break;
    // The next eight bytes of IP.
    const second = load<u64>(frame, 16);
    const tcp = frame + <usize> (ETHERNET_BYTES + ipBytes);
    const portsAndSeq = load<u64>(tcp);
    const ackAndFlags = load<u64>(tcp, 8);
    let tag = <u32> portsAndSeq;
    let addresses: u64 = 0;
    let tcpBytes: u32 = 0;
    let traits: u32 = 0;
    let hopLimit: u32 = 0;
    let ecn: u32 = 0;
    if (isV4) {
      const fragment = net16(second >> 32);
      const ipLength = net16(second);
      if ((<u32> (start >> 48) & 0xff) != 0x45 || <u32> (second >> 56) != PROTOCOL_TCP) break;
      if (ipLength < ipBytes + TCP_BYTES || ipLength + ETHERNET_BYTES > length) break;
      traits = <u32> (start >> 56);
      ecn = traits & 3;
      traits |= fragment & 0x4000;
      hopLimit = <u32> (second >> 48) & 0xff;
      addresses = load<u64>(frame, 26);
      if (isQemu) {
        if ((fragment & 0x4000) == 0 || ecn != 0) break;
      } else {
        if ((fragment & 0x3fff) != 0) break;
        if (!isRight((start >> 48) + halves(second) + <u64> load<u16>(frame, 24) + halves(addresses))) break;
      }
      tcpBytes = ipLength - ipBytes;
      tag ^= <u32> addresses;
    } else {
      traits = net16(start >> 48) << 16 | net16(second);
      tcpBytes = net16(second >> 16);
      if (traits >> 28 != 6 || (<u32> (second >> 32) & 0xff) != PROTOCOL_TCP) break;
      if (tcpBytes < TCP_BYTES || tcpBytes + ETHERNET_BYTES + ipBytes > length) break;
      ecn = traits >> 20 & 3;
      if (isQemu && (traits & 0xc00000) != 0) break;
      hopLimit = <u32> (second >> 40) & 0xff;
      tag ^= load<u32>(frame, 34);
    }
    let flags = net16(ackAndFlags >> 32);
    const tcpHeaderBytes = flags >> 12 << 2;
    if ((flags & flagsMask) != flagsValue || tcpBytes <= tcpHeaderBytes) break;
    let hasTimestamp: u32 = 0;
    if (tcpHeaderBytes != TCP_BYTES) {
      if (!timestamps || tcpHeaderBytes != TIMESTAMP_BYTES || load<u32>(tcp, 20) != TIMESTAMP_BLOCK) break;
      hasTimestamp = 1;
    }
    if ((<u32> (entry >> 32) & SUM) != 0) {
      const total = sum(<u32> frame + addressesAt, tcpBytes + ETHERNET_BYTES + ipBytes - addressesAt);
      if (!isRight(<u64> (total + (PROTOCOL_TCP << 8) + (tcpBytes >> 8) + ((tcpBytes & 0xff) << 8)))) break;
      verified = 1;
    }
    let place = load<u64>(places + (<usize> (((tag ^ tag >> 16) * 0x9e3779b1) >> shift) << 4));
    if (<u32> place != tag) {
      place = load<u64>(places + (<usize> (((tag ^ tag >> 16) * 0x9e3779b1) >> shift) << 4), 8);
      if (<u32> place != tag) break;
    }
    const flow = <u32> (place >> 32);
    if (flow == 0) break;
    const row = rows + (<usize> (flow - 1) << 7);
    const key = row + (KEY << 2);
    if (isV4) {
      if (addresses != load<u64>(key) || <u32> portsAndSeq != load<u32>(key, 8)) break;
    } else if (!same(frame + 22, key) || !same(frame + 38, key + 16) || <u32> portsAndSeq != load<u32>(key, 32)) break;
    const payloadBytes = tcpBytes - tcpHeaderBytes;
    const seqAndBytes = pair(row, SEQ);
    const heldBytes = <u32> (seqAndBytes >> 32);
    const lengths = pair(row, IP_LENGTH);
    const ipLength = <u32> lengths + payloadBytes;
    const totalBytes = <u32> (lengths >> 32) + payloadBytes;
    let segments = load<u32>(row, SEGMENTS << 2) + 1;
    if (net32(portsAndSeq >> 32) - <u32> seqAndBytes != heldBytes || ipLength > maxIpLength) break;
    if (pair(row, VLAN) != 0) break;
    const ack = net32(ackAndFlags);
    if (isQemu) {
      if (heldBytes == 0 || heldBytes > 0xffff || totalBytes > maxBytes) break;
      segments &= 0xffff;
    } else {
      const heldFlags = pair(row, OFFSET_FLAGS);
      if (((flags ^ <u32> heldFlags) & ALIKE) != 0 || <u32> (heldFlags >> 32) != hasTimestamp) break;
      if (pair(row, TRAITS) != (<u64> traits | <u64> load<u32>(item, ITEM_FLOW) << 32)) break;
      if (!ecnAllowed && (ecn != 0 || (flags & TCP_ECN) != 0)) break;
      if (load<u64>(frame) != pair(row, MACS) || <u32> start != load<u32>(row, (MACS + 2) << 2)) break;
      if (segments > maxSegments || <i32> (ack - load<u32>(row, ACK << 2)) < 0) break;
      if (hasTimestamp != 0) {
        const latest = load<u64>(tcp, 24);
        const held = pair(row, TS_VALUE);
        const value = net32(latest);
        const echo = net32(latest >> 32);
        if (<i32> (value - <u32> held) < 0 || <i32> (echo - <u32> (held >> 32)) < 0) break;
        setPair(row, TS_VALUE, value, echo);
      }
      const bounds = pair(row, HOP_LIMIT);
      setPair(row, HOP_LIMIT, min(hopLimit, <u32> bounds), max(payloadBytes, <u32> (bounds >> 32)));
      flags |= <u32> heldFlags & PSH;
    }
    store<u32>(row, heldBytes + payloadBytes, PAYLOAD_BYTES << 2);
    setPair(row, IP_LENGTH, ipLength, totalBytes);
    setPair(row, SEGMENTS, segments, 1);
    setPair(row, ACK, ack, net16(ackAndFlags >> 48));
    store<u32>(row, flags, OFFSET_FLAGS << 2);
    store<u64>(item, <u64> (<u32> tcp + tcpHeaderBytes) | <u64> payloadBytes << 32);
    store<u32>(item, flow - 1, ITEM_FLOW);
  }
  store<u32>(block, verified, IS_RIGHT);
  return i;
}
