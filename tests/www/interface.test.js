// www/interface.js: the calculations.

import assert from "node:assert/strict";
import { test } from "node:test";

import { prefix, recent } from "../../www/interface.js";

const check = (actual, expected) => assert.deepEqual(actual, expected);

test("recent errors are those of the newest samples", () => {
  const record = (timestamp, rx_errors, tx_drops) => ({ timestamp, rx_errors, tx_errors: 0, rx_drops: 0, tx_drops });
  check(recent([record("1970-01-01T00:02:00Z", 2, 1), record("1970-01-01T00:01:00Z", 1, 0)], 180), { seconds: 120, errors: [3, 0], drops: [0, 1] });
  check(recent([], 180).seconds, 1);
});

test("a netmask becomes a prefix length", () => {
  check(prefix("255.255.255.0"), 24);
  check(prefix("255.255.240.0"), 20);
  check(prefix("0.0.0.0"), 0);
  check(prefix("ffff:ffff:ffff:ffff::"), 64);
  check(prefix("ffff:ffff:ffff:fff0::"), 60);
  check(prefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 128);
});
