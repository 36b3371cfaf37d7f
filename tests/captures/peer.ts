/**
 * The two programs of the recordings. Run with `serve` in one network namespace and with `call` in the other:
 *
 *     peer.ts serve ADDRESS PORT
 *     peer.ts call ADDRESS PORT send BYTES       one bulk transfer to the server
 *     peer.ts call ADDRESS PORT fetch BYTES      one bulk transfer from the server
 *     peer.ts call ADDRESS PORT ask ROUNDS       requests of 100 bytes, answers of 40 to 6000
 *
 * The server takes one connection and ends. What is sent depends on nothing but the arguments.
 */

/** Bytes of the message that says what is wanted: mode and number. */
const ORDER_BYTES = 5;
const MODES = ["send", "fetch", "ask"];

function pattern(length: number, seed: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  let state = seed | 1;
  for (let i = 0; i < length; i++) {
    state = Math.imul(state, 1_103_515_245) + 12_345 | 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

async function readExactly(connection: Deno.Conn, length: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const count = await connection.read(bytes.subarray(at));
    if (count === null) throw new Error(`The peer closed after ${at} of ${length} bytes`);
    at += count;
  }
  return bytes;
}

/** Bytes of the answer to request `round`: small ones, MTU-sized ones and some of several segments. */
function answerBytes(round: number): number {
  return round % 10 === 9 ? 6000 : 40 + (round * 397) % 1500;
}

async function serve(listener: Deno.Listener): Promise<void> {
  const connection = await listener.accept();
  const order = new DataView((await readExactly(connection, ORDER_BYTES)).buffer);
  const amount = order.getUint32(1);
  switch (MODES[order.getUint8(0)]) {
    case "send":
      await readExactly(connection, amount);
      await writeAll(connection, pattern(1, 1));
      break;
    case "fetch":
      await writeAll(connection, pattern(amount, 2));
      break;
    case "ask":
      for (let round = 0; round < amount; round++) {
        await readExactly(connection, 100);
        await writeAll(connection, pattern(answerBytes(round), round));
      }
  }
  await readExactly(connection, 1).catch(() => {}); // until the caller has closed
  connection.close();
  listener.close();
}

async function call(connection: Deno.TcpConn, mode: string, amount: number): Promise<void> {
  connection.setNoDelay(true);
  const order = new DataView(new ArrayBuffer(ORDER_BYTES));
  order.setUint8(0, MODES.indexOf(mode));
  order.setUint32(1, amount);
  await writeAll(connection, new Uint8Array(order.buffer));
  if (mode === "send") {
    await writeAll(connection, pattern(amount, 3));
    await readExactly(connection, 1);
  } else if (mode === "fetch") await readExactly(connection, amount);
  else {
    for (let round = 0; round < amount; round++) {
      await writeAll(connection, pattern(100, round));
      await readExactly(connection, answerBytes(round));
    }
  }
  connection.close();
}

const [role, hostname, port, mode, amount] = Deno.args;
if (role === "serve") {
  const listener = Deno.listen({ hostname, port: Number(port) });
  console.log("listening");
  await serve(listener);
} else await call(await Deno.connect({ hostname, port: Number(port) }), mode, Number(amount));
