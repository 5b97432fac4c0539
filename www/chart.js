// The chart: columns as the API sends them (`t` ascending, `null` for a gap), scales, ticks, and drawing on a canvas.
// All functions except `draw` are pure. Received traffic goes up from the middle line and sent traffic goes down, on
// the same scale: readers can distinguish them without colour, and can compare them.

import { clock, day, unitFor } from "./format.js";

export const SIDES = ["rx", "tx", "rx_peak", "tx_peak"];
const DAY = 86400;
// Round distances between ticks, in seconds, and for long ranges in months.
const TIME_STEPS = [1, 5, 10, 30, 60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200, DAY, 2 * DAY, 7 * DAY];
const MONTH_STEPS = [1, 2, 3, 6, 12, 24, 60];
// Widths of buckets in seconds that are multiples of a stored resolution.
const BUCKETS = [10, 30, 60, 300, 900, 1800, 3600, 7200, 21600, 43200, DAY];
// Number of points that a screen can show, and the maximum of the API.
const ENOUGH = 400;
const MOST = 720;

// The ring of the latest seconds. `__proto__: null`, because an interface may have any name, even `constructor`.
export const emptyRing = () => ({ next: 0, t: [], interfaces: { __proto__: null } });

// Appends an answer of `/api/traffic/live` to the ring and keeps the last `most` seconds. A smaller `next` means that
// the service restarted, a smaller time means that its clock was set back: in both cases the old seconds are dropped.
export function join(ring, more, most) {
  const restarted = more.next < ring.next;
  if (restarted || more.t[0] <= ring.t.at(-1)) Object.assign(ring, emptyRing());
  ring.next = restarted && !more.t.length ? 0 : more.next;
  const nulls = (count) => Array(count).fill(null);
  // Counted by time, not by number of samples: a tab that slept has a gap.
  const surplus = [...ring.t, ...more.t].filter((time) => time <= more.t.at(-1) - most).length;
  for (const name of Object.keys({ ...ring.interfaces, ...more.interfaces })) {
    const columns = (ring.interfaces[name] ??= { rx: nulls(ring.t.length), tx: nulls(ring.t.length) });
    for (const side of ["rx", "tx"]) {
      columns[side].push(...(more.interfaces[name]?.[side] ?? nulls(more.t.length)));
      columns[side].splice(0, surplus);
    }
    // The interface disappeared more than `most` seconds ago.
    if (columns.rx.every((value) => value === null)) delete ring.interfaces[name];
  }
  ring.t.push(...more.t);
  ring.t.splice(0, surplus);
}

// The greatest known value of several columns, any of which may be absent; null if no value is known.
export function greatest(...columns) {
  return columns.flat().reduce((most, value) => (value != null && !(value < most) ? value : most), null);
}

// Parameters of the request that shows `from..to` in buckets of `step` seconds; without `step`, of a suitable width.
// The range is extended to whole buckets, so that they get exactly this width. Days begin at local midnight.
export function plan(from, to, step) {
  step ||= BUCKETS.find((step) => (to - from) / step <= ENOUGH);
  if (!step) return { from, to, points: ENOUGH };
  const edge = (time) => (step < DAY ? time - (time % step) : new Date(time * 1000).setHours(0, 0, 0, 0) / 1000);
  // One hour more, because a day may have 25 hours.
  const end = edge(to) < to ? edge(to + step + (step < DAY ? 0 : 3600)) : to;
  const points = Math.min(Math.round((end - edge(from)) / step), MOST);
  return { from: Math.max(edge(from), end - points * step - 3600 * (step === DAY)), to: end, points };
}

// Stacks columns: each result is the sum of the columns up to this one, and null where none of them is known.
export function stack(columns) {
  let below = [];
  return columns.map((column) => (below = column.map((value, i) => (value == null ? below[i] ?? null : value + (below[i] ?? 0)))));
}

// Ticks at round local times in `from..to`, about `most` of them, each `[time, text, whether a new day or year
// begins]`. They are counted in wall time from local midnight, so on a day with a clock change they are not equally far
// apart. In spring two wall times are the same moment; the Map holds it once.
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

// The smallest of 1, 2, 5, 10, 20 ... that divides `span` into at most `most` pieces.
export function niceStep(span, most) {
  const power = 10 ** Math.floor(Math.log10(span / most));
  return power * [1, 2, 5, 10].find((step) => step * power * most >= span * (1 - 1e-9));
}

// The vertical scale: `up` (top value), `span` (both sides) and `ticks` in bytes per second, and the unit of the
// labels. Each side is tall enough for a label and reaches at least 500 B/s, so that an idle link does not look busy.
// `overlaid`: both directions share the upper side.
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

// Cuts a column at its gaps into runs `{from, to, points}`. All buckets in one pixel column share a point
// `{x, low, high, peak}`, so the number of points is limited by the width, and no peak is lost. A point is in the
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

// Draws `lines`, each `{rx, tx, rx_peak, tx_peak}` over `t`, and returns the left edge of the plot in CSS pixels.
// `from..to` sets the scale; while the user moves the chart, `seen` is the visible range. `bare` omits axes and peaks.
// All lengths inside are in device pixels.
export function draw(canvas, { t, step, lines, from, to, seen = [from, to], units, bare, overlaid, marks = [], at, picked }) {
  const px = (length) => Math.round(length * devicePixelRatio);
  // Setting the size also clears the canvas.
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
  // Whole pixels: a thin line between two pixels would be blurred.
  const line = (ink, x, y, width = px(1), height = bottom - top) => {
    pen.fillStyle = colour(ink);
    pen.fillRect(Math.round(x), Math.round(y), width, height);
  };

  if (!bare) {
    write(unit, "right", "soft", left - px(8), px(6));
    for (const [tick, text, strong] of timeTicks(...seen, (width - left) / px(68))) {
      line("line", x(tick), top);
      const half = pen.measureText(text).width / 2;
      // A label at the right edge is omitted: moved to the left, the wide name of a day would cover the label before
      // it.
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
    // Overlaid, sent traffic is a dashed line, so that it hides nothing.
    const light = k && overlaid;
    const sign = k && !light ? -1 : 1;
    if (light) pen.setLineDash([px(5), px(3)]);
    // From the top of the stack down: each lower area covers a part of the one above.
    for (let i = lines.length - 1; i >= 0; i--) {
      for (const run of runs(t, sums[i], peaks, step, x)) {
        // A run extends to the outer edges of its buckets, so that a single bucket is visible too.
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

  // Legend: the interfaces in the order of the stack, from the middle outwards.
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
