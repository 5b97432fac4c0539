// Columns as the API answers them (`t` ascending, `null` for a gap), the scales and ticks over them, and the canvas that
// draws them. Everything but `draw` and `mount` is pure. Received goes up from the middle line and sent goes down, on one
// scale, so that the two are told apart without colour and still compare.

import { clock, day, unitFor } from "./format.js";

const DAY = 86400;
// Distances between ticks that a clock face suggests, in seconds, and then in months.
const TIME_STEPS = [1, 5, 10, 30, 60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200, DAY, 2 * DAY, 7 * DAY];
const MONTH_STEPS = [1, 2, 3, 6, 12, 24, 60];
// Widths of buckets of which a level that is stored is a part.
const BUCKETS = [10, 30, 60, 300, 900, 1800, 3600, 7200, 21600, 43200, DAY];
// As many as are told apart on a screen, and as many as there may be.
const ENOUGH = 400;
const MOST = 720;

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

// At most `most` rows `[from, averages, peaks]` of neighbouring buckets, over what is known of them.
export function pieces(t, averages, peaks, most) {
  const size = Math.ceil(t.length / most);
  const mean = (column) => {
    const known = column.filter((value) => value != null);
    return known.length ? known.reduce((sum, value) => sum + value) / known.length : null;
  };
  const rows = [];
  for (let i = 0; i < t.length; i += size) {
    const part = (column) => column?.slice(i, i + size) ?? [];
    rows.push([t[i], averages.map((column) => mean(part(column))), peaks.map((column) => greatest(part(column)))]);
  }
  return rows;
}

// Columns one upon the other: each sum reaches from zero, and is null where nothing below it is known either.
export function stack(columns) {
  let below = [];
  return columns.map((column) => (below = column.map((value, i) => (value == null ? below[i] ?? null : value + (below[i] ?? 0)))));
}

// The bucket that holds a time, or the nearest.
export function nearest(t, step, time) {
  const next = t.findIndex((start) => start + step > time);
  return next < 0 ? t.length - 1 : next;
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

// Draws `lines`, each `{rx, tx, rx_peak, tx_peak}` over `t`, as far as they lie in `from..to`, and gives back where the plot
// begins. In device pixels throughout. `bare` leaves the axes and the peaks out.
export function draw(canvas, { t, step, lines, from, to, settled, units, bare, overlaid, marks = [], at, picked }) {
  const px = (length) => Math.round(length * devicePixelRatio);
  // Assigning the size clears as well.
  const width = (canvas.width = px(canvas.clientWidth));
  const height = (canvas.height = px(canvas.clientHeight));
  if (!width) return 0;

  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  const pen = canvas.getContext("2d");
  pen.font = `${px(12)}px ${style.fontFamily}`;
  pen.lineWidth = 1.3 * devicePixelRatio;
  pen.lineJoin = "round";
  pen.textBaseline = "middle";

  const alone = lines.length < 2;
  const sides = ["rx", "tx"].map((side) => stack(lines.map((line) => line[side])));
  const peaks = ["rx", "tx"].map((side) => (alone && !bare ? lines[0]?.[`${side}_peak`] : null));
  // While it is moved, the scale stays.
  const [first, last] = settled ?? [from, to];
  const reach = (k) => greatest(...[peaks[k], sides[k].at(-1)].map((column) => column?.filter((_, i) => t[i] + step > first && t[i] < last))) ?? 0;
  const { up, span, ticks, unit: [unit, size] } = valueScale(reach(0), reach(1), Math.max(3, height / px(50)), units, overlaid);
  const label = (value) => String(Math.abs(+(value / size).toPrecision(6)));
  const left = bare ? 0 : px(10) + Math.max(...[unit, ...ticks.map(label)].map((text) => pen.measureText(text).width));
  const top = bare ? px(1) : px(20);
  const bottom = bare ? height - px(1) : height - px(24);
  const x = (time) => left + ((time - from) / (to - from)) * (width - left);
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
    for (const [tick, text, strong] of timeTicks(from, to, (width - left) / px(68))) {
      line("line", x(tick), top, px(1), bottom - top);
      const half = pen.measureText(text).width / 2;
      write(text, "center", strong ? "ink" : "soft", Math.min(Math.max(x(tick), left + half), width - half), height - px(8));
    }
    for (const tick of ticks) {
      line(tick ? "line" : "soft", left, y(tick), width, px(1));
      write(label(tick), "right", "soft", left - px(8), y(tick));
    }
    pen.save();
    pen.beginPath();
    pen.rect(left, 0, width, height);
    pen.clip();
  }

  ["rx", "tx"].forEach((side, k) => {
    const sign = k && !overlaid ? -1 : 1;
    // Laid over the other side it is a dashed line and hides nothing.
    const light = k && overlaid;
    if (light) pen.setLineDash([px(5), px(3)]);
    // The highest first: what is below is painted over it.
    sides[k].map((column, i) => [column, i]).reverse().forEach(([column, i]) => {
      for (const run of runs(t, column, peaks[k], step, x)) {
        // A run reaches over its outer buckets whole, so that a lonely one is seen too.
        const points = [{ ...run.points[0], x: run.from }, ...run.points, { ...run.points.at(-1), x: run.to }];
        const trace = (...keys) => points.forEach((point) => keys.forEach((key) => pen.lineTo(point.x, y(sign * point[key]))));
        const shade = (key, ink, alpha) => {
          pen.fillStyle = colour(ink);
          pen.beginPath();
          pen.lineTo(run.from, y(0));
          trace(key);
          pen.lineTo(run.to, y(0));
          pen.globalAlpha = alpha;
          pen.fill();
          pen.globalAlpha = 1;
        };
        if (!alone && !light) shade("high", "card", 1);
        if (alone && !bare) shade("peak", side, light ? 0.12 : 0.22);
        if (!light) shade("high", side, alone ? 0.25 : 0.75 - (0.65 * i) / (lines.length - 1));
        pen.strokeStyle = colour(side);
        pen.beginPath();
        trace("low", "high");
        pen.stroke();
      }
    });
    pen.setLineDash([]);
    if (!bare) write(k ? "↑ up" : "↓ down", "left", side, left + px(6 + (light ? 60 : 0)), sign > 0 ? top + px(9) : bottom - px(9));
  });

  for (const mark of marks) {
    pen.setLineDash([px(2), px(3)]);
    pen.strokeStyle = colour("bad");
    pen.beginPath();
    pen.moveTo(x(mark), top);
    pen.lineTo(x(mark), bottom);
    pen.stroke();
    write("▼", "center", "bad", x(mark), top - px(4));
  }
  if (at != null && t.length) line("ink", x(t[at] + step / 2), top, px(1), bottom - top);
  if (picked) {
    pen.globalAlpha = 0.2;
    line("ink", Math.min(...picked) * devicePixelRatio, top, px(Math.abs(picked[0] - picked[1])), bottom - top);
    pen.globalAlpha = 1;
  }
  if (!bare) pen.restore();
  return left;
}

// Makes `canvas` a chart that is zoomed, moved and read by mouse, fingers and keys. What it gives back takes what `draw`
// takes. `settle(from, to, moved)` is called when something else should be seen, `whole()` when all of it should,
// `read(i)` when the cursor stands on another bucket. With `chart.grab`, dragging moves.
export function mount(canvas, { settle, whole, read }) {
  let data = null;
  let left = 0;
  // What is seen while it is dragged, what was seen before, and the times under the fingers then.
  let seen = null;
  let held = null;
  let picked = null;
  let at = null;
  const fingers = new Map();

  const redraw = () => {
    if (data) left = draw(canvas, { ...data, ...seen && { from: seen[0], to: seen[1], settled: [data.from, data.to] }, at, picked }) / devicePixelRatio;
    else canvas.width = 0;
  };
  let waiting = false;
  const soon = () => {
    if (!waiting) requestAnimationFrame(() => ((waiting = false), redraw()));
    waiting = true;
  };
  const time = (x, [from, to] = seen ?? [data.from, data.to]) => from + (Math.max(x - left, 0) / (canvas.clientWidth - left)) * (to - from);
  const point = (i) => {
    at = i;
    read(i);
    soon();
  };
  const pointAt = (x) => data.t.length && point(nearest(data.t, data.step, time(x)));
  const shift = (part) => settle(data.from + part * (data.to - data.from), data.to + part * (data.to - data.from), true);
  const zoom = (by) => {
    const { from, to, t, step } = data;
    const middle = at == null ? (from + to) / 2 : t[at] + step / 2;
    settle(middle - (middle - from) * by, middle + (to - middle) * by, true);
  };

  const grip = () => (held = new Map([...fingers].map(([id, x]) => [id, time(x)])));
  canvas.onpointerdown = (event) => {
    if (event.button || !data) return;
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, event.offsetX);
    picked = held = null;
    if (event.shiftKey || chart.grab || fingers.size > 1) grip();
    else picked = [event.offsetX, event.offsetX];
    pointAt(event.offsetX);
  };
  canvas.onpointermove = (event) => {
    if (!data) return;
    const down = fingers.has(event.pointerId);
    if (down) fingers.set(event.pointerId, event.offsetX);
    if (!down || picked) {
      if (down) picked[1] = Math.max(event.offsetX, left);
      return pointAt(event.offsetX);
    }
    // Each finger keeps the time that it was put on.
    const [[id, x], other] = fingers;
    const [from, to] = seen ?? [data.from, data.to];
    let scale = (to - from) / (canvas.clientWidth - left);
    if (other && Math.abs(x - other[1]) > 20) scale = Math.abs((held.get(id) - held.get(other[0])) / (x - other[1]));
    const start = held.get(id) - (x - left) * scale;
    seen = [start, start + (canvas.clientWidth - left) * scale];
    soon();
  };
  const release = (event) => {
    if (!fingers.delete(event.pointerId)) return;
    const [from, to] = picked?.map((x) => time(x)).sort((a, b) => a - b) ?? seen ?? [];
    const wide = seen || (picked && Math.abs(picked[0] - picked[1]) > 8);
    if (fingers.size) return grip();
    const moved = !!seen;
    seen = picked = held = null;
    if (wide && event.type === "pointerup") settle(from, to, moved);
    soon();
  };
  canvas.onpointerup = canvas.onpointercancel = release;
  canvas.onpointerleave = (event) => event.pointerType === "mouse" && !fingers.size && point(null);
  canvas.ondblclick = whole;
  canvas.onblur = () => point(null);
  canvas.onkeydown = ({ key, shiftKey }) => {
    if (!data?.t.length) return true;
    const end = data.t.length - 1;
    const way = { ArrowLeft: -1, ArrowRight: 1 }[key];
    if (way && shiftKey) shift(way / 4);
    else if (way) point(Math.min(Math.max((at ?? end + (way < 0)) + way, 0), end));
    else if (key === "Home" || key === "End") point(key === "End" ? end : 0);
    else if (key === "+" || key === "-") zoom(key === "+" ? 0.5 : 2);
    else if (key === "Escape") whole();
    else return true;
    return false;
  };
  new ResizeObserver(soon).observe(canvas);

  const chart = (newer) => {
    // The cursor stays at its time.
    const known = at == null ? null : data?.t[at];
    data = newer;
    if (known != null && data?.t.length) at = nearest(data.t, data.step, known);
    else at = null;
    soon();
  };
  return Object.assign(chart, { shift, zoom, soon, grab: false });
}
