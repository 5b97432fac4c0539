// What the further views calculate.

import assert from "node:assert/strict";
import { test } from "node:test";

import { dayOf, unitsOf } from "../../www/format.js";
import { barScale, changes, faultsOf, label, latest, note, prefix, project, recent, slots, text, typed, wellbeing } from "../../www/more.js";

process.env.TZ = "Europe/Berlin";

const DAY = 86400;
const check = (actual, expected) => assert.deepEqual(actual, expected);
const at = (time) => Date.parse(time) / 1000;

test("what is not known is a hole among the bars", () => {
  const row = (from, to) => ({ from, to });
  const [a, b, c] = [row(0, 10), row(10, 20), row(40, 50)];
  check(slots([a, b, c], 10), [a, b, null, null, c]);
  check(slots([], 10), []);
  // A day of 25 hours, a short month and a short hour are no holes.
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

test("without traffic there is a scale too", () => {
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

test("what was before the records is not made up", () => {
  // Known for the second of two halves of the elapsed time: as much again for the rest only.
  const period = { from: 0, to: 40, rx: 100, tx: 0 };
  check(project(period, { to: 15, seen: 5 }, 20), { rx: 300, tx: 0 });
  check(project(period, { to: 20, seen: 2 }, 20), null);
  // The first day is today, and has hours to come.
  check(project(period, { to: 30, seen: 10 }, 20), { rx: 300, tx: 0 });
  check(project(period, undefined, 20), null);
});

test("rows are named for people", () => {
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

test("what is not whole says so", () => {
  const day = (seen, whole) => ({ from: 0, to: DAY, seen, whole });
  check(note(day(DAY - 800, true), 2 * DAY, 30), "");
  // A piece of a day, all of which was seen.
  check(note(day(DAY, false), DAY, 30), " in part");
  check(note(day(DAY / 2), DAY / 2 + 40, 30), " so far");
  check(note(day(DAY / 4), DAY / 2, 30), " so far, in part");
  check(note(day(0), 3000, 3600), " so far");
});

test("what is no number is left for the API to refuse", () => {
  for (const text of ["1-5", "Infinity", "1e999", "5 x"]) check(typed("integer", text), text);
  check(typed("integer", " 7 "), 7);
  check(typed("decimal", "0.5"), 0.5);
});

test("a router's date is the same for all readers", () => {
  // On the days on which Berlin, New York and Samoa change their clocks, too; Santiago has no midnight on one of these.
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

test("the last row may be neither today nor yesterday", () => {
  const days = [0, 1, 2].map((n) => ({ from: n * DAY, to: (n + 1) * DAY }));
  check(latest(days, 2.5 * DAY), [days[2], days[1]]);
  check(latest(days, 3 * DAY + 60), [undefined, days[2]]);
  check(latest(days, 9 * DAY), [undefined, undefined]);
  check(latest([], 9 * DAY), [undefined, undefined]);
});

test("a piece of a day that a change of zone has left is not yesterday", () => {
  const [whole, piece, today] = [[0, DAY], [DAY, DAY + 3600], [DAY + 3600, 2 * DAY + 3600]].map(([from, to]) => ({ from, to }));
  check(latest([whole, piece, today], DAY + 7200), [today, whole]);
});

test("fields are what the API takes", () => {
  check(typed("integer", "30"), 30);
  check(typed("integer", "ten"), "ten");
  check(typed("decimal", " 0.5 "), 0.5);
  check(typed("integer", "  "), null);
  check(typed("list", "eth*, wg0,,"), ["eth*", "wg0"]);
  check(typed("switch", "false"), false);
  check(typed("text", " Europe/Berlin "), "Europe/Berlin");
  check(typed("word", "flash"), "flash");
});

const SETTINGS = {
  interval: { kind: "integer", value: 10, default: 30, origin: "saved" },
  flush: { kind: "integer", value: 300, default: 300, origin: "default" },
  media: { kind: "word", value: "disk", default: "disk", origin: "default" },
  interfaces: { kind: "list", value: ["eth*", "wg0"], default: [], origin: "saved" },
  retry_delay: { kind: "decimal", value: 5, default: 1, origin: "flag", owner: "--x" },
};

test("only what was changed is sent", () => {
  const texts = Object.fromEntries(Object.keys(SETTINGS).map((key) => [key, text(SETTINGS[key])]));
  check(texts, { interval: "10", flush: "", media: "disk", interfaces: "eth*, wg0", retry_delay: "5" });
  check(changes(SETTINGS, texts), {});
  check(changes(SETTINGS, { ...texts, interval: "5", media: "flash" }), { interval: 5, media: "flash" });
  check(changes(SETTINGS, { ...texts, interval: "" }), { interval: null });
  check(changes(SETTINGS, { ...texts, interfaces: "" }), { interfaces: null });
  check(changes(SETTINGS, { ...texts, interfaces: "eth*" }), { interfaces: ["eth*"] });
  // Said outright, though it is the default's own value: with another medium it would be another.
  check(changes(SETTINGS, { ...texts, flush: "300" }), { flush: 300 });
});

test("a word that is the default's is the default again", () => {
  const media = { kind: "word", value: "flash", default: "disk", origin: "saved" };
  check(changes({ media }, { media: "disk" }), { media: null });
});

test("what is owned is never sent", () => {
  const flush = { kind: "integer", value: 3600, default: 3600, origin: "default", owner: "--media" };
  const ignore = { kind: "list", value: ["x*", "y*"], default: [], origin: "environment", owner: "NETPULSE_IGNORE" };
  check([flush, ignore].map(text), ["3600", "x*, y*"]);
  check(changes({ flush, ignore }, { flush: text(flush), ignore: text(ignore) }), {});
});

test("faults find their fields", () => {
  const fault = (name, msg) => ({ loc: ["body", name], msg, input: "" });
  check(faultsOf([fault("interval", "must be less"), fault("media", "is no word")]), { interval: "must be less", media: "is no word" });
  check(faultsOf("a sentence"), {});
  check(faultsOf(undefined), {});
});

test("recent errors are those of the newest samples", () => {
  const record = (timestamp, rx_errors, tx_drops) => ({ timestamp, rx_errors, tx_errors: 0, rx_drops: 0, tx_drops });
  check(recent([record("1970-01-01T00:02:00Z", 2, 1), record("1970-01-01T00:01:00Z", 1, 0)], 180), { seconds: 120, errors: [3, 0], drops: [0, 1] });
  check(recent([], 180).seconds, 1);
});

test("netmasks are counted", () => {
  check(prefix("255.255.255.0"), 24);
  check(prefix("255.255.240.0"), 20);
  check(prefix("0.0.0.0"), 0);
  check(prefix("ffff:ffff:ffff:ffff::"), 64);
  check(prefix("ffff:ffff:ffff:fff0::"), 60);
  check(prefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), 128);
});

test("health is said in words", () => {
  const health = (more, clock) => ({
    status: "healthy", reason: null, ...more,
    details: { clock },
  });
  check(wellbeing(health()), "All is well.");
  check(wellbeing(health({ status: "degraded", reason: "collection is stopped" })), "Collection is stopped.");
  assert.match(wellbeing(health({}, { believed: false })), /clock cannot be right/);
});
