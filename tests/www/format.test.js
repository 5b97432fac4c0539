// www/format.js: numbers, times and names.

import assert from "node:assert/strict";
import { test } from "node:test";

import { about, amounts, clock, day, rate, rateUnit, seconds, span, unitFor, unitsOf } from "../../www/format.js";

process.env.TZ = "Europe/Berlin";

const check = (actual, expected) => assert.deepEqual(actual, expected);
const bits = unitsOf(true, false);

test("rates keep their unit and their digits", () => {
  check(rate(0, bits), "0.00");
  check(rate(125000, bits), "1.00");
  check(rate(11_750_000, bits), "94.00");
  check(rate(124_999_000, bits), "999.99");
  check(rate(312_500_000, bits), "2500.0");
  check(rate(12_500_000_000, bits), "100000");
  for (let value = 1; value < 1e11; value *= 1.7) assert(rate(value, bits).length <= 6, rate(value, bits));
});

test("a rate too small to print is not nothing", () => {
  check(rate(1, bits), "<0.01");
  check(rate(624, bits), "<0.01");
  check(rate(625, bits), "0.01");
});

test("an unknown value is a dash and never a zero", () => {
  check(rate(null, bits), "–");
  check(rate(undefined, bits), "–");
});

test("amounts that are shown together have the unit of the greatest", () => {
  check(amounts([3.42e9, 310e6, 3.73e9], bits), ["3.42 GB", "0.31 GB", "3.73 GB"]);
  check(amounts([0, 0, 0], bits), ["0.00 kB", "0.00 kB", "0.00 kB"]);
  check(amounts([184.6e9, 21.9e9], bits), ["184.6 GB", "21.9 GB"]);
  check(amounts([1e12, null, undefined, NaN], bits), ["1.00 TB", "–", "–", "–"]);
  check(amounts([125e3, 1250], bits, "rate"), ["1.00 Mbit/s", "0.01 Mbit/s"]);
  check(amounts([1e12, 5e9], bits), ["1.00 TB", "0.01 TB"]);
});

test("a unit is used from its own size on", () => {
  check(unitFor(bits.amount, 999_999)[0], "kB");
  check(unitFor(bits.amount, 1_000_000)[0], "MB");
  check(unitFor(bits.amount, 0)[0], "kB");
  check(unitFor(bits.amount, 2 ** 64)[0], "PB");
  check(unitFor(bits.rate, 125_000)[0], "Mbit/s");
});

test("units follow the settings, and amounts are always bytes", () => {
  const units = (...choice) => [rateUnit(unitsOf(...choice)), rate(1.25e6, unitsOf(...choice)), ...amounts([5e9], unitsOf(...choice))];
  check(units(true, false), ["Mbit/s", "10.00", "5.00 GB"]);
  check(units(false, false), ["MB/s", "1.25", "5.00 GB"]);
  check(units(true, true), ["Mibit/s", "9.54", "4.66 GiB"]);
  check(units(false, true), ["MiB/s", "1.19", "4.66 GiB"]);
  check(unitFor(unitsOf(false, true).amount, 1024)[0], "KiB");
});

test("times may be seconds or RFC 3339", () => {
  check(seconds(1768473000), 1768473000);
  check(seconds("2026-01-15T10:30:00Z"), 1768473000);
  check(seconds("2026-01-15T12:30:00+02:00"), 1768473000);
  check(Number.isNaN(seconds("soon")), true);
});

test("times are shown in local time", () => {
  check(clock(1768473000), "11:30");
  check(clock(1784111400), "12:30");
  check(clock(1768473005, true), "11:30:05");
  check(day(1768473000), "Thu Jan 15");
  check(day(1768473000, true), "Thu Jan 15 2026");
});

test("durations have at most two units", () => {
  check([0, 0.4, 59, 60, 61, 3600, 3661, 86400, 90061, -5].map(span), ["0 s", "0 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 h 1 min", "1 d", "1 d 1 h", "0 s"]);
  check(span(1e9), "11574 d 1 h");
});

test("the description of an interface has only known parts", () => {
  check(about({ kind: "ethernet", status: "up", speed: 1000, parent: "br-lan" }), "Ethernet · up · 1 Gbit/s · in br-lan");
  check(about({ kind: "ethernet", status: "up", speed: 2500, parent: null }), "Ethernet · up · 2.5 Gbit/s");
  check(about({ kind: "vlan", status: "down", speed: null, parent: "eth0" }), "VLAN · down · on eth0");
  check(about({ kind: "ppp", present: false, status: "down", speed: null, parent: null }), "PPP · absent");
  check(about({ kind: "bridge", status: "up", speed: 100 }), "bridge · up · 100 Mbit/s");
});
