/**
 * A machine that a front-end may do to what it likes, and which then has to serve the next one.
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { UnixStream } from "../../../../host/unix_socket.ts";
import type { CablePort } from "../../../../transports/loopback.ts";
import { FileMachine } from "../../../peers/support/file_machine.ts";
import { frame, numbersOf } from "./fake_network.ts";
import { OddDescriptors } from "./odd_descriptors.ts";
import { SocketFrontEnd } from "../../../../rigs/vhost_user/socket_front_end.ts";

/** A machine that serves a socket by itself. */
export class Target implements AsyncDisposable {
  readonly odd = new OddDescriptors();
  readonly machine: FileMachine;

  private constructor(machine: FileMachine) {
    this.machine = machine;
  }

  /** @param more of the device's configuration */
  static async start(more: Record<string, unknown> = {}): Promise<Target> {
    const device = {
      use: "net",
      mac: "52:54:00:00:00:01",
      network: "loopback",
      offloads: ["rsc-v4"],
      ...more,
    };
    const driver = { use: "vhost-user", socket: "net0.sock" };
    return new Target(await FileMachine.start([{ ...device, driver }]));
  }

  turn(): void {
    const { reactor } = this.machine.machine.parts;
    for (let rounds = 0; rounds < 20 && reactor.turn(); rounds++);
  }

  connect(): SocketFrontEnd {
    const stream = UnixStream.connect(`${this.machine.folder}/net0.sock`);
    return new SocketFrontEnd(stream, {}, () => this.turn());
  }

  /** Waits until the back-end has noticed that no front-end is there. */
  async alone(): Promise<void> {
    const driver = this.machine.driver(0);
    for (
      let tries = 0;
      driver.connected || driver.counters.connections !== driver.counters.disconnections;
      tries++
    ) {
      assert(tries < 400, "the back-end holds on to a connection that is closed");
      this.turn();
      if (tries > 2) await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** A good front-end is served: frames go both ways. */
  async assertServes(): Promise<void> {
    const port = this.machine.machine.devices[0].parts.network as CablePort;
    const sent: Uint8Array[] = [];
    const stop = port.tap((taken) => void sent.push(taken.toBytes()));
    {
      using front = this.connect();
      front.start();
      assert(port.inject(frame(7)));
      this.turn();
      assertEquals(numbersOf(front.guest.received(0)), [7]);
      front.guest.send(1, frame(9));
      front.kicks[1].signal();
      this.turn();
      assertEquals([numbersOf(sent), front.guest.returned(1)], [[9], 1]);
    }
    stop();
    await this.alone();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.odd[Symbol.dispose]();
    await this.machine[Symbol.asyncDispose]();
  }
}
