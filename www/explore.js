// Interaction with the chart: zoom, move, cursor, and its figures as a table. Loaded on the first use of the chart.

import { SIDES, greatest } from "./chart.js";
import { amounts, clock, day, dayOf, rate, rateUnit, span } from "./format.js";
import { CURSOR } from "./texts.js";

// Minimum length of a selected range, in seconds.
const LEAST_S = 10;
// A press that moves less than this many pixels is a click.
const CLICK_PX = 8;

// Summarises the chart in at most `most` rows `[first bucket, ...values of each line]`: averages and peaks of adjacent
// buckets. Averages are weighted by the seconds that were observed.
export function rowsOf(t, lines, most) {
  const size = Math.ceil(t.length / most);
  const rows = [];
  for (let i = 0; i < t.length; i += size) {
    rows.push([i, ...lines.flatMap((line) => {
      const part = (name) => line[name]?.slice(i, i + size) ?? [];
      const seen = part("observed");
      return SIDES.map((side) => {
        if (side.length > 2) return greatest(part(side));
        let [sum, seconds] = [0, 0];
        part(side).forEach((value, k) => {
          if (value == null) return;
          seconds += seen[k] ?? 1;
          sum += value * (seen[k] ?? 1);
        });
        return seconds ? sum / seconds : null;
      });
    })]);
  }
  return rows;
}

// The bucket that contains a time, else the nearest one.
export function nearest(t, step, time) {
  const next = t.findIndex((start) => start + step > time);
  return next < 0 ? t.length - 1 : next;
}

// Adds interaction to the canvas of `plot`: `{ canvas, data, look, left, draw }`. `look` gets cursor, selection and
// moved range. Returns the function to call when `data` is new.
export function explore(plot, { RANGES, hash, chosen, whole, marks, shell, el, go, $, showText }) {
  const { canvas, look } = plot;
  // Time under the pointer when the user began to move the chart.
  let held;
  let grab = false;
  let waiting;

  const soon = () => {
    waiting ??= requestAnimationFrame(() => {
      waiting = null;
      plot.draw();
    });
  };
  // Changes parameters of the hash; null removes one.
  const alter = (changes, quietly) => {
    const params = new URLSearchParams(hash());
    for (const [name, value] of Object.entries(changes)) {
      params.delete(name);
      for (const each of [value ?? []].flat()) params.append(name, each);
    }
    go(`#/?${params}`, quietly);
  };
  const ends = () => look.seen ?? [plot.data.from, plot.data.to];
  const time = (x) => {
    const [from, to] = ends();
    return from + ((x - plot.left) / (canvas.clientWidth - plot.left)) * (to - from);
  };
  // Shows a range. With `quietly`, a change from one range to another adds no entry to the browser's history, so that
  // "back" leaves the zoom at once.
  const settle = ([from, to], quietly) => {
    const more = Math.max(0, LEAST_S + from - to) / 2;
    // A range may not end in the future.
    const late = Math.max(0, to + more - shell.now());
    alter({ from: Math.max(0, Math.floor(from - more - late)), to: Math.ceil(to + more - late) }, quietly && !whole());
  };
  const shift = (part) => settle(ends().map((time) => time + part * (plot.data.to - plot.data.from)), true);
  const zoom = (by) => {
    const [from, to] = ends();
    const middle = look.at ?? (from + to) / 2;
    settle([from, to].map((time) => middle + (time - middle) * by), true);
  };
  const reset = () => whole() || alter({ from: null, to: null });
  const drop = () => {
    held = look.picked = look.seen = undefined;
    soon();
  };
  const moment = (time) => `${day(time, true)} ${clock(time, plot.data.step < 60)}`;
  // Days are those of the router, which may be in another time zone.
  const named = (i) => (plot.data.day ? dayOf(plot.data.day, true, (i * plot.data.step) / 86400) : moment(plot.data.t[i]));

  // Moves the cursor to a bucket and shows its values, also for screen readers.
  function point(i) {
    const { t, step, lines } = plot.data;
    look.at = i < t.length ? t[i] + step / 2 : null;
    const text = look.at && [
      named(i),
      ...lines.map((line) => {
        const [rx, tx, rxPeak, txPeak] = amounts(SIDES.map((side) => line[side]?.[i]), shell.units, "rate");
        return `${lines[1] ? line.name : ""} ↓ ${rx} ↑ ${tx}${line.rx_peak ? `\npeak ↓ ${rxPeak} ↑ ${txPeak}` : ""}${line.observed?.[i] < 0.99 * step ? `\n${CURSOR.known(span(line.observed[i]), span(step))}` : ""}`;
      }),
      ...marks().filter(([time]) => time >= t[i] && time < t[i] + step).map(([, text]) => text),
    ].join("\n").trim();
    showText("read", text);
    $("read").className = i > t.length / 2 ? "" : "right";
    canvas.ariaValueMax = t.length - 1;
    canvas.ariaValueNow = i ?? 0;
    canvas.ariaValueText = text || CURSOR.none;
    soon();
  }

  function figures() {
    if (!$("figures").open) return;
    const { t, lines } = plot.data;
    const row = (head, scope, cells) => el("tr", null, el("th", { scope }, head), cells.map((text) => (scope === "col" ? el("th", { scope }, text) : el("td", null, text))));
    $("table").replaceChildren(
      el("caption", null, `Rates in ${rateUnit(shell.units)}`),
      row("From", "col", lines.flatMap(({ name }) => ["↓", "↑", "peak ↓", "peak ↑"].map((side) => `${lines[1] ? name : ""} ${side}`))),
      ...rowsOf(t, lines, 24).map(([i, ...values]) => row(named(i), "row", values.map((value) => rate(value, shell.units)))),
      ...marks().map(([time, text]) => el("tr", null, el("th", { scope: "row" }, moment(time)), el("td", { colSpan: 4 * lines.length }, text))),
    );
  }

  canvas.onpointerdown = ({ button, shiftKey, isPrimary, pointerId, offsetX: x }) => {
    if (button || !isPrimary) return;
    canvas.setPointerCapture(pointerId);
    if (shiftKey || grab) held = time(x);
    else look.picked = [x, x];
  };
  canvas.onpointermove = ({ isPrimary, offsetX: x }) => {
    if (!isPrimary) return;
    if (held) {
      const by = held - time(x);
      look.seen = ends().map((time) => time + by);
      return soon();
    }
    if (look.picked) look.picked[1] = Math.max(x, plot.left);
    canvas.onclick({ offsetX: x });
  };
  // A tap of a finger sends only this event.
  canvas.onclick = ({ offsetX: x }) => point(nearest(plot.data.t, plot.data.step, time(x)));
  canvas.onpointerup = () => {
    const { picked, seen } = look;
    const range = seen ?? (picked && Math.abs(picked[0] - picked[1]) > CLICK_PX && picked.map(time).sort((a, b) => a - b));
    drop();
    if (range) settle(range, !!seen);
  };
  canvas.onpointercancel = drop;
  canvas.onpointerleave = ({ pointerType }) => pointerType === "mouse" && !look.picked && point();
  canvas.onblur = () => point();
  canvas.ondblclick = reset;
  canvas.onkeydown = ({ key, shiftKey, ctrlKey, altKey, metaKey }) => {
    // Leaves shortcuts to the browser.
    if (ctrlKey || altKey || metaKey) return;
    const { t, step } = plot.data;
    const end = t.length - 1;
    const way = { ArrowLeft: -1, ArrowRight: 1, Home: -end, End: end }[key];
    if (way ** 2 === 1 && shiftKey) shift(way / 4);
    else if (way && t.length) point(Math.min(Math.max(look.at ? nearest(t, step, look.at) + way : end, 0), end));
    else if (key === "+" || key === "-") zoom(key === "+" ? 0.5 : 2);
    else if (key === "Escape") reset();
    else return;
    return false;
  };
  const tools = {
    earlier: () => shift(-0.5),
    later: () => shift(0.5),
    wider: () => zoom(2),
    closer: () => zoom(0.5),
    whole: reset,
    move: ({ target }) => (target.ariaPressed = grab = !grab),
    over: () => alter({ over: hash().has("over") ? null : 1 }),
  };
  for (const [id, onclick] of Object.entries(tools)) $(id).onclick = onclick;
  $("by").onchange = ({ target: { value: by } }) => alter({ by });
  $("ranges").onclick = ({ target: { textContent: range } }) => range in RANGES && alter({ range, from: null, to: null });
  $("who").onclick = ({ target: { value } }) => value && alter({ i: chosen().includes(value) ? chosen().filter((name) => name !== value) : [...chosen(), value] });
  $("figures").ontoggle = figures;
  figures();

  let refreshed = 0;
  return () => {
    // The cursor stays at the same time.
    if (look.at) point(nearest(plot.data.t, plot.data.step, look.at));
    // At most every 10 s, for screen readers that read the table.
    if (Date.now() - refreshed < 10000 && plot.data.live) return;
    refreshed = Date.now();
    figures();
  };
}
