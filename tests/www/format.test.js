// Numbers, times and names as people read them.

import assert from "node:assert/strict";
import { test } from "node:test";

import { UNITS, about, amounts, clock, day, mbit, seconds, unitFor } from "../../www/format.js";

process.env.TZ = "Europe/Berlin";

const check = (actual, expected) => assert.deepEqual(actual, expected);

test("rates keep their unit and their digits", () => {
  check(mbit(0), "0.00");
  check(mbit(125000), "1.00");
  check(mbit(11_750_000), "94.00");
  check(mbit(312_500_000), "2500.00");
});

test("a rate too small to print is not nothing", () => {
  check(mbit(1), "<0.01");
  check(mbit(624), "<0.01");
  check(mbit(625), "0.01");
});

test("what is not known is a dash and never a zero", () => {
  check(mbit(null), "–");
  check(mbit(undefined), "–");
});

test("amounts that stand together share the unit of the greatest", () => {
  check(amounts([3.42e9, 310e6, 3.73e9]), ["3.42 GB", "0.31 GB", "3.73 GB"]);
  check(amounts([0, 0, 0]), ["0.00 kB", "0.00 kB", "0.00 kB"]);
  check(amounts([184.6e9, 21.9e9]), ["184.6 GB", "21.9 GB"]);
  check(amounts([1e12, 5e9]), ["1.00 TB", "0.01 TB"]);
});

test("units change at their own size", () => {
  check(unitFor(UNITS.amount, 999_999)[0], "kB");
  check(unitFor(UNITS.amount, 1_000_000)[0], "MB");
  check(unitFor(UNITS.amount, 0)[0], "kB");
  check(unitFor(UNITS.amount, 2 ** 64)[0], "PB");
  check(unitFor(UNITS.rate, 125_000)[0], "Mbit/s");
});

test("times are taken as seconds or as RFC 3339", () => {
  check(seconds(1768473000), 1768473000);
  check(seconds("2026-01-15T10:30:00Z"), 1768473000);
  check(seconds("2026-01-15T12:30:00+02:00"), 1768473000);
  check(Number.isNaN(seconds("soon")), true);
});

test("times are shown in local time", () => {
  check(clock(1768473000), "11:30");
  check(clock(1784111400), "12:30");
  check(day(1768473000), "Thu 15 Jan");
});

test("an interface is described by what is known of it", () => {
  check(about({ kind: "ethernet", status: "up", speed: 1000, parent: "br-lan" }), "Ethernet · up · 1 Gbit/s · in br-lan");
  check(about({ kind: "ethernet", status: "up", speed: 2500, parent: null }), "Ethernet · up · 2.5 Gbit/s");
  check(about({ kind: "vlan", status: "down", speed: null, parent: "eth0" }), "VLAN · down · on eth0");
  check(about({ kind: "ppp", present: false, status: "down", speed: null, parent: null }), "PPP · absent");
  check(about({ kind: "bridge", status: "up", speed: 100 }), "bridge · up · 100 Mbit/s");
});
