/**
 * A wire between two interfaces that loses packets: every frame that comes in at one is sent out at the
 * other, but of the frames on the way to the second one in `RATE` is lost. Which ones depends on the seed
 * alone.
 *
 *     dropping_hop.ts INTERFACE_A INTERFACE_B RATE SEED
 *
 * Needs CAP_NET_RAW, Linux and `--allow-ffi`. Runs until it gets SIGTERM, then prints what it did.
 */

const AF_PACKET = 17;
const SOCK_RAW_NONBLOCK = 3 | 0o4000;
const ETH_P_ALL_BIG_ENDIAN = 0x0300;
const SOL_PACKET = 263;
const PACKET_IGNORE_OUTGOING = 23;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
/** Frames shorter than this carry no data: handshakes and ACKs pass, or a lost SYN would cost a second. */
const MIN_LOST_BYTES = 200;

const libc = Deno.dlopen("libc.so.6", {
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  if_nametoindex: { parameters: ["buffer"], result: "u32" },
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  close: { parameters: ["i32"], result: "i32" },
});

function open(name: string): number {
  const index = libc.symbols.if_nametoindex(new TextEncoder().encode(`${name}\0`));
  if (index === 0) throw new Error(`There is no interface "${name}"`);
  const socket = libc.symbols.socket(AF_PACKET, SOCK_RAW_NONBLOCK, ETH_P_ALL_BIG_ENDIAN);
  if (socket < 0) throw new Error("Cannot open a packet socket: root is needed");
  const address = new DataView(new ArrayBuffer(20)); // struct sockaddr_ll
  address.setUint16(0, AF_PACKET, true);
  address.setUint16(2, ETH_P_ALL_BIG_ENDIAN, true);
  address.setInt32(4, index, true);
  if (libc.symbols.bind(socket, address.buffer, 20) !== 0) throw new Error(`Cannot bind to "${name}"`);
  libc.symbols.setsockopt(socket, SOL_PACKET, PACKET_IGNORE_OUTGOING, Int32Array.of(1), 4);
  libc.symbols.setsockopt(socket, SOL_SOCKET, SO_RCVBUFFORCE, Int32Array.of(16 << 20), 4);
  return socket;
}

const [interfaceA, interfaceB, rate, seed] = Deno.args;
const a = open(interfaceA);
const b = open(interfaceB);
const frame = new Uint8Array(2048);
let state = Number(seed) | 1;
let passed = 0;
let lost = 0;
let running = true;
Deno.addSignalListener("SIGTERM", () => running = false);
console.log("forwarding");

/** One in `RATE`, by a xorshift generator. */
function isLost(): boolean {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % Number(rate) === 0;
}

function forward(from: number, to: number, lossy: boolean): boolean {
  let any = false;
  for (let i = 0; i < 64; i++) {
    const length = Number(libc.symbols.recv(from, frame, BigInt(frame.length), 0));
    if (length <= 0) break;
    any = true;
    if (lossy && length >= MIN_LOST_BYTES && isLost()) lost++;
    else {
      libc.symbols.send(to, frame, BigInt(length), 0);
      passed++;
    }
  }
  return any;
}

for (let idle = 0; running;) {
  const forth = forward(a, b, true);
  const back = forward(b, a, false);
  idle = forth || back ? 0 : idle + 1;
  if (idle > 100) await new Promise((resolve) => setTimeout(resolve, 0));
}
console.log(`passed ${passed}, lost ${lost}`);
libc.symbols.close(a);
libc.symbols.close(b);
