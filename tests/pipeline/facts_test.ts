import { assertThrows } from "@std/assert";
import { networkKind } from "../../pipeline/kinds.ts";

Deno.test("networkKind.checkFacts() refuses facts that no network could work with", () => {
  const facts = { guestMac: new Uint8Array(6), queuePairs: 1 };
  for (
    const right of [undefined, facts, { ...facts, mtu: undefined }, { ...facts, mtu: 68 }, {
      ...facts,
      mtu: 65_535,
    }]
  ) {
    networkKind.checkFacts!(right);
  }
  const cases: [unknown, string][] = [
    [7, "it returned 7, not facts"],
    [{ ...facts, guestMac: new Uint8Array(5) }, "guestMac is no Uint8Array of six bytes"],
    [{ ...facts, queuePairs: 0 }, "queuePairs 0; 1 to 32768 are possible"],
    [{ ...facts, mtu: 67 }, "mtu 67; 68 to 65535 bytes are possible"],
    [{ ...facts, mtu: 65_536 }, "mtu 65536; 68 to 65535 bytes are possible"],
    [{ ...facts, mtu: NaN }, "mtu NaN; 68 to 65535 bytes are possible"],
    [{ ...facts, mtu: "1500" }, 'mtu "1500"; 68 to 65535 bytes are possible'],
  ];
  for (const [wrong, text] of cases) assertThrows(() => networkKind.checkFacts!(wrong), TypeError, text);
});
