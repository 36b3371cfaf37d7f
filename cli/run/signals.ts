/**
 * Signals to the process.
 * @module
 */

/** What to do at a signal. */
export interface SignalActions {
  /** SIGINT or SIGTERM. A second one ends the process at once. */
  stop(signal: Deno.Signal): void;
  /** SIGUSR1. */
  show(): void;
}

const EXIT_INTERRUPTED = 130;

/** Listens until disposed of. */
export function onSignals(actions: SignalActions): Disposable {
  let stopping = false;
  const stop = (signal: Deno.Signal) => () => {
    // Whoever asks twice does not want to wait for what hangs.
    if (stopping) Deno.exit(EXIT_INTERRUPTED);
    stopping = true;
    actions.stop(signal);
  };
  const listeners: [Deno.Signal, () => void][] = [["SIGINT", stop("SIGINT")]];
  if (Deno.build.os !== "windows") {
    listeners.push(["SIGTERM", stop("SIGTERM")], ["SIGUSR1", () => actions.show()]);
  }
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  return {
    [Symbol.dispose]: () => {
      for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
    },
  };
}
