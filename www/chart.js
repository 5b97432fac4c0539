// Columns as the API answers them (`t` ascending, `null` for a gap), the scales and ticks over them, and the canvas that
// draws them. Everything but `draw` is pure. Received goes up from the middle line and sent goes down, on one
// scale, so that the two are told apart without colour and still compare.

import { clock, day, unitFor } from "./format.js";

export const SIDES = ["rx", "tx", "rx_peak", "tx_peak"];
const DAY = 86400;
// Distances between ticks that a clock face suggests, in seconds, and then in months.
const TIME_STEPS = [1, 5, 10, 30, 60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200, DAY, 2 * DAY, 7 * DAY];
const MONTH_STEPS = [1, 2, 3, 6, 12, 24, 60];
// Widths of buckets of which a level that is stored is a part.
const BUCKETS = [10, 30, 60, 300, 900, 1800, 3600, 7200, 21600, 43200, DAY];
// As many as are told apart on a screen, and as many as there may be.
const ENOUGH = 400;
const MOST = 720;

// The latest seconds. Names of interfaces may be anything, `constructor` too.
export const emptyRing = () => ({ next: 0, t: [], interfaces: { __proto__: null } });

// Appends a newer answer of `/api/traffic/live` to the older ones, and keeps the last `most` seconds. A `next` that fell
// means a restarted service, times that fall mean that its clock was set: what was before has no place beside either.
export function join(ring, more, most) {
  const restarted = more.next < ring.next;
  if (restarted || more.t[0] <= ring.t.at(-1)) Object.assign(ring, emptyRing());
  ring.next = restarted && !more.t.length ? 0 : more.next;
  const nulls = (count) => Array(count).fill(null);
  // By time and not by number: a tab that slept has nothing between.
  const surplus = [...ring.t, ...more.t].filter((time) => time <= more.t.at(-1) - most).length;
  for (const name of Object.keys({ ...ring.interfaces, ...more.interfaces })) {
    const columns = (ring.interfaces[name] ??= { rx: nulls(ring.t.length), tx: nulls(ring.t.length) });
    for (const side of ["rx", "tx"]) {
      columns[side].push(...(more.interfaces[name]?.[side] ?? nulls(more.t.length)));
      columns[side].splice(0, surplus);
    }
    // It left more than `most` seconds ago.
    if (columns.rx.every((value) => value === null)) delete ring.interfaces[name];
  }
  ring.t.push(...more.t);
  ring.t.splice(0, surplus);
}

// The greatest known value of several columns, which may be absent; null where nothing is known.
export function greatest(...columns) {
  return columns.flat().reduce((most, value) => (value != null && !(value < most) ? value : most), null);
}

// What to ask for to see `from..to` in buckets of `step` seconds, or of what suits. Whole buckets: only then they are as
// wide as they should be. Days begin at local midnight.
export function plan(from, to, step) {
  step ||= BUCKETS.find((step) => (to - from) / step <= ENOUGH);
  if (!step) return { from, to, points: ENOUGH };
  const edge = (time) => (step < DAY ? time - (time % step) : new Date(time * 1000).setHours(0, 0, 0, 0) / 1000);
  // Over the longest of days, too.
  const end = edge(to) < to ? edge(to + step + (step < DAY ? 0 : 3600)) : to;
  const points = Math.min(Math.round((end - edge(from)) / step), MOST);
  return { from: Math.max(edge(from), end - points * step - 3600 * (step === DAY)), to: end, points };
}

// Columns one upon the other: each sum reaches from zero, and is null where nothing below it is known either.
export function stack(columns) {
  let below = [];
  return columns.map((column) => (below = column.map((value, i) => (value == null ? below[i] ?? null : value + (below[i] ?? 0)))));
}

// Local round times in `from..to`, about `most` of them, each `[time, text, whether a new day or year begins]`. Counted in
// wall time from local midnight: on a day on which the clock changes, ticks are not equally far apart, and in spring two
// wall times are one moment.
export function timeTicks(from, to, most) {
  const step = TIME_STEPS.find((step) => (to - from) / step <= most);
  const months = MONTH_STEPS.find((months) => (to - from) / months / 30 / DAY <= most) ?? 120;
  const start = new Date(from * 1000);
  const year = start.getFullYear();
  const ticks = new Map();
  for (let i = 0, tick = 0; tick <= to; i++) {
    const date = step ? new Date(year, start.getMonth(), start.getDate(), 0, 0, i * step) : new Date(year, i * months);
    tick = date / 1000;
    const time = clock(tick, step < 60);
    const midnight = /^00:00(:00)?$/.test(time);
    const text = !step ? (date.getMonth() ? day(tick).slice(4, 7) : String(date.getFullYear())) : !midnight ? time : day(tick).slice(step < DAY ? 0 : 4);
    if (tick >= from && tick <= to) ticks.set(tick, [tick, text, step ? midnight && step < DAY : !date.getMonth()]);
  }
  return [...ticks.values()];
}

// The least of 1, 2, 5, 10, 20 ... that cuts `span` into at most `most` pieces.
export function niceStep(span, most) {
  const power = 10 ** Math.floor(Math.log10(span / most));
  return power * [1, 2, 5, 10].find((step) => step * power * most >= span * (1 - 1e-9));
}

// How far the two sides reach, the ticks between, all in bytes per second, and the unit to write them in. Neither side is
// so short that it could not be labelled, nor does idle chatter look like a storm. Laid over each other, there is one side.
export function valueScale(rx, tx, most, units, overlaid) {
  const least = Math.max((rx + tx) * 0.12, 500);
  const up = Math.max(rx, least, overlaid ? tx : 0) * 1.05;
  const span = overlaid ? up : up + Math.max(tx, least) * 1.05;
  const unit = unitFor(units, Math.max(rx, tx));
  const step = niceStep(span / unit[1], most) * unit[1];
  const ticks = [];
  for (let k = Math.ceil((up - span) / step); k * step <= up; k++) ticks.push(k * step);
  return { up, span, ticks, unit };
}

// Cuts a column into unbroken runs `{from, to, points}` with one point `{x, low, high, peak}` for each pixel column that
// has any: however long the column is, no more is drawn than can be seen, and no peak is lost. A point stands in the
// middle of its bucket; `x` maps a time to device pixels.
export function runs(t, values, peaks, step, x) {
  const found = [];
  let run = null;
  values.forEach((value, i) => {
    if (value == null) return (run = null);
    if (!run || t[i] - t[i - 1] > step * 1.5) found.push((run = { from: x(t[i]), points: [] }));
    run.to = x(t[i] + step);
    const point = { x: x(t[i] + step / 2), low: value, high: value, peak: Math.max(value, peaks?.[i] ?? 0) };
    const last = run.points.at(-1);
    if (last && Math.floor(last.x) === Math.floor(point.x)) {
      last.low = Math.min(last.low, value);
      last.high = Math.max(last.high, value);
      last.peak = Math.max(last.peak, point.peak);
    } else run.points.push(point);
  });
  return found;
}

// Draws `lines`, each `{rx, tx, rx_peak, tx_peak}` over `t`, and gives back where the plot begins. The scale is that of
// `from..to`; while it is moved, `seen` is seen instead. `bare` leaves the axes and the peaks out. In device pixels throughout.
export function draw(canvas, { t, step, lines, from, to, seen = [from, to], units, bare, overlaid, marks = [], at, picked }) {
  const px = (length) => Math.round(length * devicePixelRatio);
  // Assigning the size clears as well.
  const width = (canvas.width = px(canvas.clientWidth));
  const height = (canvas.height = px(canvas.clientHeight));
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  const pen = canvas.getContext("2d");
  pen.font = `${px(12)}px ${style.fontFamily}`;
  pen.lineWidth = 1.3 * devicePixelRatio;
  pen.lineJoin = "round";
  pen.textBaseline = "middle";

  const alone = lines.length < 2;
  const depth = (i) => (alone ? 0.25 : 0.8 - (0.6 * i) / (lines.length - 1));
  const sides = ["rx", "tx"].map((side) => ({
    side,
    sums: stack(lines.map((line) => line[side])),
    peaks: alone && !bare && lines[0]?.[`${side}_peak`],
  }));
  const [rx, tx] = sides.map(({ sums, peaks }) =>
    greatest(...[sums.at(-1), peaks || []].map((column) => column?.filter((_, i) => t[i] + step > from && t[i] < to))) ?? 0);
  const { up, span, ticks, unit: [unit, size] } = valueScale(rx, tx, Math.max(3, height / px(50)), units, overlaid);
  const label = (value) => String(Math.abs(+(value / size).toPrecision(6)));
  const left = bare ? 0 : px(10) + Math.max(...[unit, ...ticks.map(label)].map((text) => pen.measureText(text).width));
  const top = bare ? px(1) : px(20);
  const bottom = bare ? height - px(1) : height - px(24);
  const x = (time) => left + ((time - seen[0]) / (seen[1] - seen[0])) * (width - left);
  const y = (value) => top + ((up - value) / span) * (bottom - top);
  const write = (text, align, ink, x, y) => {
    pen.textAlign = align;
    pen.fillStyle = colour(ink);
    pen.fillText(text, x, y);
  };
  // On whole pixels, or a thin line is a blur of two.
  const line = (ink, x, y, width = px(1), height = bottom - top) => {
    pen.fillStyle = colour(ink);
    pen.fillRect(Math.round(x), Math.round(y), width, height);
  };

  if (!bare) {
    write(unit, "right", "soft", left - px(8), px(6));
    for (const [tick, text, strong] of timeTicks(...seen, (width - left) / px(68))) {
      line("line", x(tick), top);
      const half = pen.measureText(text).width / 2;
      // A day's name is wider than an hour's, but never reaches the next; moved in at the right it would.
      if (x(tick) + half <= width) write(text, "center", strong ? "ink" : "soft", Math.max(x(tick), half), height - px(8));
    }
    for (const tick of ticks) {
      line(tick ? "line" : "soft", left, y(tick), width, px(1));
      write(label(tick), "right", "soft", left - px(8), y(tick));
    }
    pen.rect(left, 0, width, height);
    pen.clip();
  }

  sides.forEach(({ side, sums, peaks }, k) => {
    // Laid over the other side it is a dashed line and hides nothing.
    const light = k && overlaid;
    const sign = k && !light ? -1 : 1;
    if (light) pen.setLineDash([px(5), px(3)]);
    // The highest first: what is below is painted over it.
    for (let i = lines.length - 1; i >= 0; i--) {
      for (const run of runs(t, sums[i], peaks, step, x)) {
        // A run reaches over its outer buckets whole, so that a lonely one is seen too.
        const points = [{ ...run.points[0], x: run.from }, ...run.points, { ...run.points.at(-1), x: run.to }];
        const trace = (...keys) => {
          pen.beginPath();
          points.forEach((point) => keys.forEach((key) => pen.lineTo(point.x, y(sign * point[key]))));
        };
        const shade = (key, ink, alpha) => {
          trace(key);
          pen.lineTo(run.to, y(0));
          pen.lineTo(run.from, y(0));
          pen.fillStyle = colour(ink);
          pen.globalAlpha = alpha;
          pen.fill();
          pen.globalAlpha = 1;
        };
        if (peaks) shade("peak", side, light ? 0.12 : 0.22);
        if (!light) {
          if (!alone) shade("high", "card", 1);
          shade("high", side, depth(i));
        }
        trace("low", "high");
        pen.strokeStyle = colour(side);
        pen.stroke();
      }
    }
    if (!bare) write(k ? "↑ up" : "↓ down", "left", side, left + px(light ? 66 : 6), sign > 0 ? top + px(9) : bottom - px(9));
  });

  // Which band is whose, from the middle outwards.
  let place = left + px(70);
  lines.forEach(({ name }, i) => {
    if (alone) return;
    pen.globalAlpha = depth(i);
    write("■", "left", "rx", place, top - px(10));
    pen.globalAlpha = 1;
    write(name, "left", "ink", place + px(14), top - px(10));
    place += pen.measureText(name).width + px(28);
  });
  for (const mark of marks) {
    line("bad", x(mark), top);
    write("▼", "center", "bad", x(mark), top - px(4));
  }
  if (at) line("ink", x(at), top);
  if (picked) {
    pen.globalAlpha = 0.2;
    line("ink", px(Math.min(...picked)), top, px(Math.abs(picked[0] - picked[1])));
  }
  return left / devicePixelRatio;
}
