import { assert, assertEquals, assertRejects } from "@std/assert";
import { HostError } from "../../../core/errors.ts";
import type { DriverContext } from "../../../plugins/plugin.ts";
import { type GuestOptionsInput, netDriver } from "../../../devices/net/driver/mod.ts";
import { guestOptions } from "../../../devices/net/driver/options.ts";
import plugin, { type LoopbackDriver, loopbackDriver } from "../../../transports/loopback_driver/mod.ts";
import { FakeNetDevice } from "../../devices/net/driver/support/fake_net_device.ts";
import { frameOf, OFFERED } from "../../devices/net/driver/support/rig.ts";

function make(options: GuestOptionsInput): { driver: LoopbackDriver; published: Record<string, number>[] } {
  const published: Record<string, number>[] = [];
  const context = {
    softwareDriver: netDriver,
    publish<T extends Record<string, number>>(counters: T): T {
      published.push(counters);
      return counters;
    },
  } as unknown as DriverContext;
  return { driver: loopbackDriver.create(context, guestOptions(options)) as LoopbackDriver, published };
}

Deno.test("loopbackDriver is a driver plugin, and the module's default", () => {
  assert(plugin === loopbackDriver);
  assertEquals([plugin.kind, plugin.api, plugin.name], ["driver", 2, "loopback"]);
});

Deno.test("LoopbackDriver serves a device until the signal aborts", async () => {
  const { driver, published } = make({ behaviour: "echo" });
  const device = new FakeNetDevice(OFFERED);
  const stop = new AbortController();
  assertEquals(driver.poll(0), false);
  assertEquals(driver.deadlineNs(), Infinity);
  const served = driver.serve(device, stop.signal);
  device.deliver(frameOf(100, 1));
  let turns = 0;
  while (driver.poll(0)) assert(++turns < 100);
  assertEquals(device.sent.length, 1);
  assertEquals(published[0].echoed, 1);
  assertEquals(driver.deadlineNs(), Infinity);
  stop.abort();
  await served;
  assertEquals(device.resets, 1);
  assert(!driver.guest.attached);
  assertEquals(driver.poll(0), false);
});

Deno.test("LoopbackDriver wants to be polled when its device or its guest does", () => {
  const { driver } = make({ behaviour: { send: { count: 2, intervalUs: 10 } } });
  const device = new FakeNetDevice(OFFERED);
  driver.serve(device, new AbortController().signal);
  while (driver.poll(1000));
  assertEquals(driver.deadlineNs(), 11_000);
  device.deadlineNs = () => 7000;
  assertEquals(driver.deadlineNs(), 7000);
  driver[Symbol.dispose]();
  assertEquals(driver.deadlineNs(), Infinity);
  assertEquals(device.resets, 1);
});

Deno.test("LoopbackDriver.serve() rejects when the device refuses, and does nothing when it is too late", async () => {
  const { driver } = make({ ring: "packed" });
  const device = new FakeNetDevice(OFFERED.without(34));
  await assertRejects(() => driver.serve(device, new AbortController().signal), HostError, "RING_PACKED");
  await driver.serve(device, AbortSignal.abort());
  assert(!driver.guest.attached);
});
