// www/chart.js: columns, scales and ticks of the chart.

import assert from "node:assert/strict";
import { test } from "node:test";

import { emptyRing, greatest, join, niceStep, plan, runs, stack, timeTicks, valueScale } from "../../www/chart.js";
import { nearest, rowsOf } from "../../www/explore.js";
import { seconds, unitsOf } from "../../www/format.js";

process.env.TZ = "Europe/Berlin";

const check = (actual, expected) => assert.deepEqual(actual, expected);

function ringOf(...answers) {
  const ring = emptyRing();
  for (const [next, t, interfaces] of answers) join(ring, { next, t, interfaces }, 4);
  return structuredClone(ring);
}

test("live answers are appended and the oldest seconds are dropped", () => {
  const ring = ringOf([2, [10, 11], { a: { rx: [1, 2], tx: [5, 6] } }], [5, [12, 13, 14], { a: { rx: [3, null, 4], tx: [7, null, 8] } }]);
  check(ring, { next: 5, t: [11, 12, 13, 14], interfaces: { a: { rx: [2, 3, null, 4], tx: [6, 7, null, 8] } } });
});

test("an interface that comes or goes is null while it is absent", () => {
  const ring = ringOf([1, [10], { a: { rx: [1], tx: [1] } }], [2, [11], { b: { rx: [2], tx: [2] } }]);
  check(ring.interfaces, { a: { rx: [1, null], tx: [1, null] }, b: { rx: [null, 2], tx: [null, 2] } });
});

test("names of object properties are valid names of interfaces", () => {
  const answer = JSON.parse('{ "constructor": { "rx": [1], "tx": [2] }, "__proto__": { "rx": [3], "tx": [4] } }');
  const ring = emptyRing();
  for (const next of [1, 2, 3]) join(ring, { next, t: [9 + next], interfaces: next === 2 ? {} : answer }, 4);
  check(Object.keys(ring.interfaces), ["constructor", "__proto__"]);
  check(ring.interfaces.__proto__.rx, [3, null, 3]);
  check(ring.interfaces.toString?.rx, undefined);
});

test("an interface that disappeared before the ring began is dropped", () => {
  const ring = ringOf([1, [10], { a: { rx: [1], tx: [1] } }], [5, [11, 12, 13, 14], { b: { rx: [1, 2, 3, 4], tx: [1, 2, 3, 4] } }]);
  check(Object.keys(ring.interfaces), ["b"]);
});

test("of an answer longer than the ring the newest part stays", () => {
  check(ringOf([6, [1, 2, 3, 4, 5, 6], { a: { rx: [1, 2, 3, 4, 5, 6], tx: [1, 2, 3, 4, 5, 6] } }]).interfaces.a.rx, [3, 4, 5, 6]);
});

test("seconds before a long sleep are dropped", () => {
  const ring = ringOf([2, [10, 11], { a: { rx: [1, 2], tx: [1, 2] } }], [4, [5000, 5001], { a: { rx: [3, 4], tx: [3, 4] } }]);
  check(ring, { next: 4, t: [5000, 5001], interfaces: { a: { rx: [3, 4], tx: [3, 4] } } });
});

test("an answer without samples changes nothing", () => {
  const ring = ringOf([2, [10, 11], { a: { rx: [1, 2], tx: [5, 6] } }], [2, [], {}]);
  check(ring, { next: 2, t: [10, 11], interfaces: { a: { rx: [1, 2], tx: [5, 6] } } });
});

test("after a restart of the service the old seconds are dropped", () => {
  const before = [500, [10, 11], { a: { rx: [1, 2], tx: [5, 6] } }];
  check(ringOf(before, [3, [], {}]), { next: 0, t: [], interfaces: {} });
  check(ringOf(before, [3, [12], { a: { rx: [9], tx: [9] } }]), { next: 3, t: [12], interfaces: { a: { rx: [9], tx: [9] } } });
});

test("after a clock step backwards the old seconds are dropped", () => {
  check(ringOf([1, [1000], { a: { rx: [1], tx: [1] } }], [2, [400], { a: { rx: [2], tx: [2] } }]).t, [400]);
});

test("the greatest of the known values", () => {
  check(greatest([1, null, 7], [3]), 7);
  check(greatest([0, null], undefined), 0);
  check(greatest([null, null]), null);
  check(greatest(undefined), null);
});

test("the figures average the observed seconds and keep the peaks", () => {
  const t = [3600, 5400, 7200];
  const lines = [{ rx: [10, 20, null], tx: [null, 4, null], rx_peak: [15, 90, null], tx_peak: [null, 8, null] }, { rx: [1, 2, 3], tx: [4, 5, 6] }];
  check(rowsOf(t, lines, 2), [[0, 15, 4, 90, 8, 1.5, 4.5, null, null], [2, null, null, null, null, 3, 6, null, null]]);
  check(rowsOf(t, [{ rx: [1, 2, 3], tx: [0, 0, 0] }], 5).length, 3);
  check(rowsOf([], [], 5), []);
  // A bucket observed for one second has less weight than one observed for an hour.
  const uneven = { rx: [10, null, 90], tx: [2, null, 6], observed: [3, 0, 1] };
  check(rowsOf([0, 60, 120], [uneven], 1), [[0, 30, 3, null, null]]);
});

test("a stack begins at zero and has a gap only where no column is known", () => {
  check(stack([[1, null, null, 4], [10, 20, null, null]]), [[1, null, null, 4], [11, 20, null, 4]]);
  check(stack([]), []);
});

test("the cursor finds its bucket", () => {
  const at = (time) => nearest([100, 200, 400], 100, time);
  check([50, 100, 199, 200, 350, 450, 900].map(at), [0, 0, 0, 1, 2, 2, 2]);
});

const asked = (from, to, step) => {
  const { from: begin, to: end, points } = plan(seconds(from), seconds(to), step);
  return [new Date(begin * 1000).toJSON().slice(0, 16), new Date(end * 1000).toJSON().slice(0, 16), points];
};

test("the request asks for whole buckets of the chosen width", () => {
  check(asked("2026-01-15T10:32:10Z", "2026-01-15T11:31:10Z", 300), ["2026-01-15T10:30", "2026-01-15T11:35", 13]);
  check(asked("2026-01-15T10:00:00Z", "2026-01-15T11:00:00Z", 300), ["2026-01-15T10:00", "2026-01-15T11:00", 12]);
  check(asked("2026-01-15T10:30:00Z", "2026-01-16T10:30:00Z", 3600), ["2026-01-15T10:00", "2026-01-16T11:00", 25]);
});

test("days begin at local midnight, also around a clock change", () => {
  check(asked("2026-01-15T10:30:00Z", "2026-01-22T10:30:00Z", 86400), ["2026-01-14T23:00", "2026-01-22T23:00", 8]);
  check(asked("2026-03-27T10:30:00Z", "2026-03-30T10:30:00Z", 86400), ["2026-03-26T23:00", "2026-03-30T22:00", 4]);
  check(asked("2026-10-24T10:30:00Z", "2026-10-25T10:30:00Z", 86400), ["2026-10-23T22:00", "2026-10-25T23:00", 2]);
});

test("never more points than the maximum, and the newest stay", () => {
  check(asked("2026-01-01T00:30:00Z", "2026-01-31T00:30:00Z", 3600), ["2026-01-01T01:00", "2026-01-31T01:00", 720]);
  for (const span of [60, 301, 3600, 86400, 604800, 2592000, 31536000, 3e8]) {
    const { from, to, points } = plan(1.7e9 + 17, 1.7e9 + 17 + span);
    assert.ok(points >= 1 && points <= 402, `${points} points for ${span} s`);
    assert.ok(from <= 1.7e9 + 17 && to >= 1.7e9 + 17 + span, `${span} s are cut`);
  }
});

const texts = (from, to, most) => timeTicks(seconds(from), seconds(to), most).map(([, text]) => text).join(" ");

test("ticks are at round local times", () => {
  check(texts("2026-01-15T10:30:00+01:00", "2026-01-16T10:30:00+01:00", 8), "12:00 15:00 18:00 21:00 Fri Jan 16 03:00 06:00 09:00");
  check(texts("2026-01-15T10:30:00+01:00", "2026-01-16T10:30:00+01:00", 4), "12:00 18:00 Fri Jan 16 06:00");
  check(texts("2026-01-15T10:28:00+01:00", "2026-01-15T10:33:00+01:00", 5), "10:28 10:29 10:30 10:31 10:32 10:33");
  check(texts("2026-01-15T10:28:00+01:00", "2026-01-15T10:28:40+01:00", 5), "10:28:00 10:28:10 10:28:20 10:28:30 10:28:40");
  check(texts("2026-01-15T10:28:00+01:00", "2026-01-19T10:28:00+01:00", 5), "Jan 16 Jan 17 Jan 18 Jan 19");
});

test("ticks of long ranges are at months and years", () => {
  check(texts("2025-11-10T00:00:00+01:00", "2026-05-20T00:00:00+01:00", 8), "Dec 2026 Feb Mar Apr May");
  check(texts("2025-11-10T00:00:00+01:00", "2026-11-10T00:00:00+01:00", 5), "2026 Apr Jul Oct");
  check(texts("2020-11-10T00:00:00+01:00", "2026-11-10T00:00:00+01:00", 7), "2021 2022 2023 2024 2025 2026");
});

test("ticks stay round across a clock change, and none is there twice", () => {
  check(texts("2026-03-28T23:00:00+01:00", "2026-03-29T07:00:00+02:00", 8), "23:00 Sun Mar 29 01:00 03:00 04:00 05:00 06:00 07:00");
  check(texts("2026-03-28T21:00:00+01:00", "2026-03-29T21:00:00+02:00", 4), "Sun Mar 29 06:00 12:00 18:00");
  check(texts("2026-10-24T21:00:00+02:00", "2026-10-25T21:00:00+01:00", 5), "Sun Oct 25 06:00 12:00 18:00");
});

test("steps are 1, 2 or 5 of some power of ten", () => {
  check(niceStep(10, 5), 2);
  check(niceStep(10, 10), 1);
  check(niceStep(11, 10), 2);
  check(niceStep(100, 1), 100);
  check(niceStep(0.9, 4), 0.5);
  check(niceStep(999, 3), 500);
});

test("both sides fit into the scale and have room for a label", () => {
  for (const [rx, tx] of [[0, 0], [1, 0], [0, 1e6], [1e6, 1e6], [1e9, 1], [1, 1e9], [3e11, 5e4], [12345, 678]]) {
    const { up, span, ticks, unit } = valueScale(rx, tx, 6, unitsOf(true, false).rate);
    assert.ok(up >= rx && span - up >= tx, `${rx} and ${tx} are cut off`);
    assert.ok(up >= span * 0.1 && span - up >= span * 0.1, `${rx} and ${tx} leave no room`);
    assert.ok(ticks.includes(0) && ticks.length >= 2 && ticks.length <= 8, `${ticks.length} ticks for ${rx} and ${tx}`);
    assert.ok(ticks[0] >= up - span && ticks.at(-1) <= up, `a tick is outside for ${rx} and ${tx}`);
    assert.ok(Math.max(rx, tx) >= unit[1] || unit[0] === "kbit/s");
  }
});

test("overlaid sides begin at zero and share the height", () => {
  const { up, span, ticks } = valueScale(1e6, 3e6, 6, unitsOf(false, true).rate, true);
  assert.ok(up === span && up >= 3e6 && ticks[0] === 0);
  assert.ok(ticks[1] % 1024 === 0);
});

// Maps a time to pixels: one pixel per ten seconds.
const x = (time) => time / 10;
const lines = (t, values, peaks, step) =>
  runs(t, values, peaks, step, x).map((run) => [run.from, run.to, run.points.map((point) => [point.low, point.high, point.peak])]);

test("a gap cuts the line, and a single bucket is a run of its width", () => {
  check(lines([0, 100, 200, 300], [1, null, 3, 4], [2, null, 9, 4], 100), [[0, 10, [[1, 1, 2]]], [20, 40, [[3, 3, 9], [4, 4, 4]]]]);
});

test("missing buckets are a gap too", () => {
  check(lines([0, 300], [1, 2], null, 100), [[0, 10, [[1, 1, 1]]], [30, 40, [[2, 2, 2]]]]);
});

test("a day of 25 hours is no gap", () => {
  check(lines([0, 90000], [1, 2], null, 86400).length, 1);
});

test("without known values nothing is drawn", () => {
  check(lines([0, 100], [null, null], null, 100), []);
  check(lines([], [], [], 100), []);
});

test("many buckets in one pixel column keep their extremes", () => {
  check(lines([0, 1, 2, 3, 10], [5, 1, 9, 4, 2], [5, 30, 9, 4, 2], 1), [[0, 0.4, [[1, 9, 30]]], [1, 1.1, [[2, 2, 2]]]]);
  check(lines([8, 9, 10, 11], [1, 2, 3, 4], null, 1), [[0.8, 1.2, [[1, 2, 2], [3, 4, 4]]]]);
});
