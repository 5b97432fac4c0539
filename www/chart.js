// Columns as the API answers them (`t` ascending, `null` for a gap), the scales and ticks over them, and the one canvas
// that draws them. Everything but `mount` is pure. Received goes up from the middle line and sent goes down, on one
// scale, so that the two are told apart without colour and still compare.

import { clock, day, unitFor, unitsOf } from "./format.js";

// Distances between ticks that a clock face suggests, in seconds.
const TIME_STEPS = [60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800];

// Appends a newer answer of `/api/traffic/live` to the older ones, and keeps the last `most` seconds. A `next` that fell
// means a restarted service, times that fall mean that its clock was set: what was before has no place beside either.
export function join(ring, more, most) {
  const restarted = more.next < ring.next;
  if (restarted || more.t[0] <= ring.t.at(-1)) {
    ring.t = [];
    ring.interfaces = {};
  }
  ring.next = restarted && !more.t.length ? 0 : more.next;
  const nulls = (count) => Array(count).fill(null);
  const surplus = Math.max(0, ring.t.length + more.t.length - most);
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

// One row `[from, rx, tx, rx_peak, tx_peak]` for each hour: averages and peaks of what is known of it.
export function hourly({ t, rx, tx, rx_peak, tx_peak }) {
  const rows = [];
  for (let i = 0, end; i < t.length; i = end) {
    const hour = t[i] - (t[i] % 3600);
    for (end = i; end < t.length && t[end] < hour + 3600; ) end++;
    const mean = (column) => {
      const known = column.slice(i, end).filter((value) => value !== null);
      return known.length ? known.reduce((sum, value) => sum + value) / known.length : null;
    };
    rows.push([hour, mean(rx), mean(tx), greatest(rx_peak?.slice(i, end)), greatest(tx_peak?.slice(i, end))]);
  }
  return rows;
}

// Local round times in `from..to`, about `most` of them. Counted in wall time from local midnight: on a day on which the
// clock changes, ticks are not equally far apart, and in spring two wall times are one moment.
export function timeTicks(from, to, most) {
  const step = TIME_STEPS.find((step) => (to - from) / step <= most) ?? TIME_STEPS.at(-1);
  const start = new Date(from * 1000);
  const ticks = new Set();
  for (let wall = 0, tick = 0; tick <= to; wall += step) {
    if (tick >= from) ticks.add(tick);
    tick = new Date(start.getFullYear(), start.getMonth(), start.getDate(), 0, 0, wall) / 1000;
  }
  return [...ticks];
}

// The least of 1, 2, 5, 10, 20 ... that cuts `span` into at most `most` pieces.
export function niceStep(span, most) {
  const power = 10 ** Math.floor(Math.log10(span / most));
  return power * [1, 2, 5, 10].find((step) => step * power * most >= span * (1 - 1e-9));
}

// How far the two sides reach, the ticks between, all in bytes per second, and the unit to write them in. Neither side is
// so short that it could not be labelled, nor does idle chatter look like a storm.
export function valueScale(rx, tx, most) {
  const least = Math.max((rx + tx) * 0.12, 500);
  const up = Math.max(rx, least) * 1.05;
  const span = up + Math.max(tx, least) * 1.05;
  const unit = unitFor(unitsOf(true, false).rate, Math.max(rx, tx));
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
    if (value === null) return (run = null);
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

// Draws into `canvas`, and again when its size, the screen's density or the colours change. `bare` leaves the axes and
// the peaks out. What it gives back takes `{from, to, step, t, rx, tx, rx_peak, tx_peak}` or null.
export function mount(canvas, bare) {
  let data = null;
  const redraw = () => draw(canvas, data, bare);
  new ResizeObserver(redraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  return (newer) => {
    data = newer;
    redraw();
  };
}

// In device pixels throughout.
function draw(canvas, data, bare) {
  const px = (length) => Math.round(length * devicePixelRatio);
  // Assigning the size clears as well.
  const width = (canvas.width = px(canvas.clientWidth));
  const height = (canvas.height = px(canvas.clientHeight));
  if (!data || !width) return;

  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  const pen = canvas.getContext("2d");
  pen.font = `${px(12)}px ${style.fontFamily}`;
  pen.lineWidth = 1.3 * devicePixelRatio;
  pen.lineJoin = "round";
  pen.textBaseline = "middle";

  const reach = (side) => greatest(data[side], bare ? null : data[`${side}_peak`]) ?? 0;
  const { up, span, ticks, unit: [unit, size] } = valueScale(reach("rx"), reach("tx"), Math.max(3, height / px(50)));
  const label = (value) => String(Math.abs(+(value / size).toPrecision(6)));
  const left = bare ? 0 : px(10) + Math.max(...[unit, ...ticks.map(label)].map((text) => pen.measureText(text).width));
  const top = bare ? px(1) : px(20);
  const bottom = bare ? height - px(1) : height - px(24);
  const x = (time) => left + ((time - data.from) / (data.to - data.from)) * (width - left);
  const y = (value) => top + ((up - value) / span) * (bottom - top);
  const write = (text, align, ink, x, y) => {
    pen.textAlign = align;
    pen.fillStyle = colour(ink);
    pen.fillText(text, x, y);
  };
  // On whole pixels, or a thin line is a blur of two.
  const line = (ink, x, y, width, height) => {
    pen.fillStyle = colour(ink);
    pen.fillRect(Math.round(x), Math.round(y), width, height);
  };

  if (!bare) {
    write(unit, "right", "soft", left - px(8), px(6));
    for (const tick of timeTicks(data.from, data.to, (width - left) / px(56))) {
      line("line", x(tick), top, px(1), bottom - top);
      const time = clock(tick);
      const text = time === "00:00" ? day(tick) : time;
      const half = pen.measureText(text).width / 2;
      write(text, "center", text === time ? "soft" : "ink", Math.min(Math.max(x(tick), left + half), width - half), height - px(8));
    }
    for (const tick of ticks) {
      line(tick ? "line" : "soft", left, y(tick), width, px(1));
      write(label(tick), "right", "soft", left - px(8), y(tick));
    }
  }

  for (const [side, sign, name, at] of [["rx", 1, "↓ down", top + px(9)], ["tx", -1, "↑ up", bottom - px(9)]]) {
    if (!bare) write(name, "left", side, left + px(6), at);
    pen.fillStyle = pen.strokeStyle = colour(side);
    for (const run of runs(data.t, data[side], data[`${side}_peak`], data.step, x)) {
      // A run reaches over its outer buckets whole, so that a lonely one is seen too.
      const points = [{ ...run.points[0], x: run.from }, ...run.points, { ...run.points.at(-1), x: run.to }];
      const trace = (...keys) => points.forEach((point) => keys.forEach((key) => pen.lineTo(point.x, y(sign * point[key]))));
      const shade = (key, alpha) => {
        pen.beginPath();
        pen.lineTo(run.from, y(0));
        trace(key);
        pen.lineTo(run.to, y(0));
        pen.globalAlpha = alpha;
        pen.fill();
        pen.globalAlpha = 1;
      };
      if (!bare) shade("peak", 0.22);
      shade("high", 0.25);
      pen.beginPath();
      trace("low", "high");
      pen.stroke();
    }
  }
}
