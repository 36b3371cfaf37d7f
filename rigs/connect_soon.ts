/**
 * Connecting to a program that has just been started.
 * @module
 */

/**
 * Connects to a Unix socket as soon as it is there. Throws what is wrong if that takes longer than `limitMs`.
 */
export async function connectSoon(path: string, limitMs: number): Promise<Deno.UnixConn> {
  const endMs = Date.now() + limitMs;
  while (true) {
    try {
      return await Deno.connect({ transport: "unix", path });
    } catch (error) {
      if (Date.now() >= endMs) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
