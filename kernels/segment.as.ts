/**
 * Makes one segment of a large TCP frame: headers, payload and checksums, in one pass over the payload.
 *
 * Its twin in TypeScript is `Cutter` of `offloads/segment/large_frame.ts`, which does the same for frames
 * that are in several pieces, UDP, and urgent data, and where there are no kernels. Everything that is told
 * has been judged there, and lies in frames.
 */
import { sum } from "./checksum.as";
import { IS_LAST, IS_V4, LEAVES_CHECKSUM } from "./layout";

const IPV4_TOTAL_LENGTH: usize = 2;
const IPV4_ID: usize = 4;
const IPV4_CHECKSUM: usize = 10;
const IPV6_PAYLOAD_LENGTH: usize = 4;
const IPV6_HEADER_BYTES: u32 = 40;
const TCP_SEQ: usize = 4;
const TCP_OFFSET_FLAGS: usize = 12;
const TCP_CHECKSUM: usize = 16;
const TCP_FIN_PSH: u16 = 0x009;
const TCP_CWR: u16 = 0x080;

@inline
function fold(total: u32): u32 {
  const once = (total & 0xffff) + (total >> 16);
  return (once & 0xffff) + (once >> 16);
}

/** Copies, and returns the sum of the words, folded once. */
@inline
function copyAndSum(to: usize, from: usize, length: u32): u32 {
  const ones = i16x8.splat(1);
  const bias = i16x8.splat(-0x8000);
  const whole = length & ~63;
  let a = i32x4.splat(0);
  let b = i32x4.splat(0);
  // As in `checksum.as.ts`: every word loses 0x8000, and all of it is added again at once.
  for (let at: usize = 0; at < <usize> whole; at += 64) {
    const first = v128.load(from + at);
    const second = v128.load(from + at, 16);
    const third = v128.load(from + at, 32);
    const fourth = v128.load(from + at, 48);
    v128.store(to + at, first);
    v128.store(to + at, second, 16);
    v128.store(to + at, third, 32);
    v128.store(to + at, fourth, 48);
    a = i32x4.add(a, i32x4.dot_i16x8_s(ones, v128.xor(bias, first)));
    b = i32x4.add(b, i32x4.dot_i16x8_s(ones, v128.xor(bias, second)));
    a = i32x4.add(a, i32x4.dot_i16x8_s(ones, v128.xor(bias, third)));
    b = i32x4.add(b, i32x4.dot_i16x8_s(ones, v128.xor(bias, fourth)));
  }
  a = i32x4.add(a, b);
  a = i32x4.add(a, v128.shuffle<i8>(a, a, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  const total = (whole << 14) + <u32> i32x4.extract_lane(a, 0) + <u32> i32x4.extract_lane(a, 1);
  const rest = length - whole;
  if (rest != 0) memory.copy(to + <usize> whole, from + <usize> whole, <usize> rest);
  return (total & 0xffff) + (total >> 16) + sum(<u32> from + whole, rest);
}

/**
 * Makes segment `index` at `to`, with the headers at `header` and the payload at `payload`.
 * @param ipAt where in the headers that of IP begins; @param tcpAt and that of TCP
 * @param payloadAt bytes of payload in the segments before this one
 * @param pseudoSum of the pseudo header, without the length
 * @param flags IS_V4, IS_LAST, LEAVES_CHECKSUM
 */
export function cut(
  to: u32, header: u32, headerBytes: u32, payload: u32, payloadBytes: u32, ipAt: u32, tcpAt: u32, index: u32, payloadAt: u32,
  pseudoSum: u32, flags: u32,
): void {
  memory.copy(<usize> to, <usize> header, <usize> headerBytes);
  const ip = <usize> to + <usize> ipAt;
  const ipBytes = headerBytes - ipAt + payloadBytes;
  if ((flags & IS_V4) != 0) {
    store<u16>(ip, bswap<u16>(<u16> ipBytes), IPV4_TOTAL_LENGTH);
    store<u16>(ip, bswap<u16>(bswap<u16>(load<u16>(ip, IPV4_ID)) + <u16> index), IPV4_ID);
    store<u16>(ip, 0, IPV4_CHECKSUM);
    store<u16>(ip, <u16> ~fold(sum(to + ipAt, tcpAt - ipAt)), IPV4_CHECKSUM);
  } else store<u16>(ip, bswap<u16>(<u16> (ipBytes - IPV6_HEADER_BYTES)), IPV6_PAYLOAD_LENGTH);
  const tcp = <usize> to + <usize> tcpAt;
  store<u32>(tcp, bswap<u32>(bswap<u32>(load<u32>(tcp, TCP_SEQ)) + payloadAt), TCP_SEQ);
  let bits = bswap<u16>(load<u16>(tcp, TCP_OFFSET_FLAGS));
  if (index != 0) bits &= ~TCP_CWR;
  if ((flags & IS_LAST) == 0) bits &= ~TCP_FIN_PSH;
  store<u16>(tcp, bswap<u16>(bits), TCP_OFFSET_FLAGS);
  const tcpBytes = headerBytes - tcpAt + payloadBytes;
  const pseudo = fold(pseudoSum + <u32> bswap<u16>(<u16> tcpBytes));
  const target = <usize> (to + headerBytes);
  if ((flags & LEAVES_CHECKSUM) != 0) {
    memory.copy(target, <usize> payload, <usize> payloadBytes);
    store<u16>(tcp, <u16> pseudo, TCP_CHECKSUM);
    return;
  }
  const payloadSum = copyAndSum(target, <usize> payload, payloadBytes);
  store<u16>(tcp, 0, TCP_CHECKSUM);
  store<u16>(tcp, <u16> ~fold(payloadSum + sum(to + tcpAt, headerBytes - tcpAt) + pseudo), TCP_CHECKSUM);
}
