// www/usage.js: the calculations.

import assert from "node:assert/strict";
import { test } from "node:test";

import { dayOf, unitsOf } from "../../www/format.js";
import { barScale, label, latest, note, project, slots } from "../../www/usage.js";

process.env.TZ = "Europe/Berlin";

const DAY = 86400;
const check = (actual, expected) => assert.deepEqual(actual, expected);
const at = (time) => Date.parse(time) / 1000;

test("missing periods leave gaps between the bars", () => {
  const row = (from, to) => ({ from, to });
  const [a, b, c] = [row(0, 10), row(10, 20), row(40, 50)];
  check(slots([a, b, c], 10), [a, b, null, null, c]);
  check(slots([], 10), []);
  // A day of 25 hours, a short month and a short hour are not gaps.
  check(slots([row(0, 90000), row(90000, 172800)], DAY).length, 2);
  check(slots([row(0, 31 * DAY), row(31 * DAY, 59 * DAY), row(59 * DAY, 90 * DAY)], 30.44 * DAY).length, 3);
  check(slots([row(0, 1), row(1e9, 1e9 + 1)], 1).length, 102);
});

test("bars end at a round number of their unit", () => {
  const scale = (most, iec = false) => {
    const { top, ticks, unit } = barScale(most, 4, unitsOf(true, iec));
    return [top / unit[1], ticks.map((tick) => tick / unit[1]), unit[0]];
  };
  check(scale(67.5e9), [80, [20, 40, 60, 80], "GB"]);
  check(scale(80e9), [80, [20, 40, 60, 80], "GB"]);
  check(scale(1.38e12), [1.5, [0.5, 1, 1.5], "TB"]);
  check(scale(3 * 1024 ** 3, true), [3, [1, 2, 3], "GiB"]);
  for (const most of [1, 999, 1001, 5e5, 123456789, 999999999, 4.2e15]) {
    const { top, ticks } = barScale(most, 4, unitsOf(true, false));
    assert.ok(top >= most && ticks.length >= 1 && ticks.length <= 5, `${most}: ${ticks}`);
  }
});

test("there is a scale even without traffic", () => {
  check(barScale(0, 4, unitsOf(true, false)).top, 1000);
});

test("e28_no_projection_early_in_a_period", () => {
  const month = { from: 0, to: 30 * DAY, rx: 300, tx: 30 };
  const day = { to: DAY, seen: DAY };
  check(project(month, day, 1 * DAY), null);
  check(project(month, day, 3 * DAY - 1), null);
  check(project(month, day, 3 * DAY), { rx: 3000, tx: 300 });
  check(project(month, day, 15 * DAY), { rx: 600, tx: 60 });
  check(project(month, day, 30 * DAY), null);
});

test("a projection uses only observed time", () => {
  // Only the second half of the elapsed time was observed: its rate is projected onto the rest, not onto the first half.
  const period = { from: 0, to: 40, rx: 100, tx: 0 };
  check(project(period, { to: 15, seen: 5 }, 20), { rx: 300, tx: 0 });
  check(project(period, { to: 20, seen: 2 }, 20), null);
  // The first day is today and is not over.
  check(project(period, { to: 30, seen: 10 }, 20), { rx: 300, tx: 0 });
  check(project(period, undefined, 20), null);
});

test("rows have readable names", () => {
  const now = at("2026-11-22T12:00:00+01:00");
  const name = (by, row, brief) => label(by, row, now, brief).replace(/\u00a0/g, " ");
  const hour = { from: at("2026-11-22T12:00:00Z"), to: at("2026-11-22T13:00:00Z"), first: "2026-11-22", last: "2026-11-22" };
  const days = (first, last = first) => ({ from: 0, to: 0, first, last });
  check(name("day", days("2026-11-22")), "Sun Nov 22");
  check(name("day", days("2026-11-22"), true), "22");
  check(name("hour", hour), "Sun Nov 22 13:00");
  check(name("hour", hour, true), "13:00");
  check(name("week", days("2026-11-16", "2026-11-22")), "Nov 16 – Nov 22");
  check(name("month", days("2026-11-01", "2026-11-30")), "Nov 2026");
  check(name("month", days("2026-11-01", "2026-11-30"), true), "Nov");
  check(name("year", days("2026-01-01", "2026-12-31")), "2026");
  check(name("day", days("2025-11-21")), "Fri Nov 21 2025");
});

test("an incomplete row has a note", () => {
  const day = (seen, whole) => ({ from: 0, to: DAY, seen, whole });
  check(note(day(DAY - 800, true), 2 * DAY, 30), "");
  // A part of a day that was fully observed.
  check(note(day(DAY, false), DAY, 30), " incomplete");
  check(note(day(DAY / 2), DAY / 2 + 40, 30), " so far");
  check(note(day(DAY / 4), DAY / 2, 30), " so far, incomplete");
  check(note(day(0), 3000, 3600), " so far");
});

test("dates of the router are the same for readers in all time zones", () => {
  // Also on days with a clock change in Berlin, New York and Samoa; Santiago has no midnight on one of these days.
  const zones = ["Pacific/Niue", "Etc/GMT+12", "Pacific/Kiritimati", "Pacific/Chatham", "Pacific/Auckland", "Pacific/Honolulu",
    "America/Santiago", "America/New_York", "Europe/Berlin", "UTC"];
  for (const zone of zones) {
    process.env.TZ = zone;
    for (const [date, name] of [["2026-11-23", "Mon Nov 23"], ["2026-03-29", "Sun Mar 29"], ["2026-09-06", "Sun Sep 06"], ["2026-11-01", "Sun Nov 01"]]) {
      check(label("day", { from: 0, to: 0, first: date, last: date }, 0), name.replace(/ /g, "\u00a0"));
      check(dayOf(date), name);
    }
    check(label("week", { from: 0, to: 0, first: "2026-11-23", last: "2026-11-29" }, 0), "Nov 23 – Nov 29");
    check(dayOf("2026-03-28", true, 2), "Mon Mar 30 2026");
    check(dayOf("2026-12-31", true, 366), "Sat Jan 01 2028");
  }
  process.env.TZ = "Europe/Berlin";
});

test("the last row may be older than yesterday", () => {
  const days = [0, 1, 2].map((n) => ({ from: n * DAY, to: (n + 1) * DAY }));
  check(latest(days, 2.5 * DAY), [days[2], days[1]]);
  check(latest(days, 3 * DAY + 60), [undefined, days[2]]);
  check(latest(days, 9 * DAY), [undefined, undefined]);
  check(latest([], 9 * DAY), [undefined, undefined]);
});

test("a part of a day left by a change of zone is not yesterday", () => {
  const [whole, piece, today] = [[0, DAY], [DAY, DAY + 3600], [DAY + 3600, 2 * DAY + 3600]].map(([from, to]) => ({ from, to }));
  check(latest([whole, piece, today], DAY + 7200), [today, whole]);
});
