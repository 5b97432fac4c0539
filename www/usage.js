// The view of usage: traffic per hour, day, week, month or year, as figures and as bars. Pure calculations come first.

import { NOTHING, clock, day, dayOf, seconds, unitFor } from "./format.js";
import { niceStep } from "./chart.js";
import { USAGE } from "./texts.js";

const DAY_S = 86400;

// Periods: length in seconds, number of rows shown, and the shorter period that a row links to.
export const PERIODS = {
  __proto__: null,
  hour: { length: 3600, count: 48 },
  day: { length: DAY_S, count: 31, into: "hour" },
  week: { length: 7 * DAY_S, count: 26, into: "day" },
  month: { length: 30.44 * DAY_S, count: 24, into: "day" },
  year: { length: 365.25 * DAY_S, count: 12, into: "month" },
};

// Rows as bars. Each missing period is a null, so that it leaves a gap of its width.
export function slots(rows, length) {
  const found = [];
  let end = null;
  for (const row of rows) {
    const missing = end === null ? 0 : Math.round((row.from - end) / length);
    found.push(...Array(Math.min(missing, 100)).fill(null), row);
    end = row.to;
  }
  return found;
}

// Scale of the bars: top value and ticks in bytes, at round numbers of the unit of the labels.
export function barScale(most, count, units) {
  const unit = unitFor(units.amount, most);
  const step = most ? niceStep(most / unit[1], count) * unit[1] : unit[1];
  const steps = Math.max(1, Math.ceil((most / step) * (1 - 1e-9)));
  return { top: steps * step, ticks: Array.from({ length: steps }, (_, k) => (k + 1) * step), unit };
}

// The note after a row's name: the period is not over, or some of it was not observed. The latest one or two readings
// may still be missing, so they do not count as missed.
export function note({ from, to, seen, whole }, now, interval) {
  const length = now - from;
  if (to <= now) return whole ? "" : USAGE.part;
  return length - seen > length / 100 + 2 * interval ? USAGE.begunInPart : USAGE.begun;
}

// Projects a period's total from the traffic since its begin, or since the records began (`day` is their first day).
// null when the period is over, or while less than a tenth of it was observed.
export function project({ from, to, rx, tx }, day, now) {
  const seen = now - Math.max(from, Math.min(day?.to, now) - day?.seen);
  if (now >= to || !(seen >= (to - from) / 10)) return null;
  const whole = (used) => used + (used / seen) * (to - now);
  return { rx: whole(rx), tx: whole(tx) };
}

// The name of a row. Hours are in the reader's time zone; dates of days and longer periods come from the router, which may
// be in another zone. A row of another year shows the year.
export function label(by, { from, to, first, last }, now, brief) {
  const name = (exact) => (by === "hour" ? day((from + to) / 2, exact) : dayOf(first, exact));
  const [, month, date, year] = name(true).split(" ");
  const exact = now && year !== day(now, true).slice(11);
  // A line break is possible only before the hour.
  const whole = name(exact).replace(/ /g, "\u00a0");
  const [begin, end] = [first, last].map((date) => dayOf(date).slice(4));
  const names = {
    hour: [`${whole} ${clock(from)}`, clock(from)],
    day: [whole, `${+date}`],
    month: [`${month} ${year}`, month],
    year: [year, year],
  };
  const [long, short] = names[by] ?? [`${begin} – ${end}${exact ? ` ${year}` : ""}`, begin];
  return brief ? short : long;
}

// The rows of today and of yesterday; either may be undefined. After a change of the time zone there may also be a row
// for a part of a day, which is neither.
export function latest(rows, now) {
  const today = rows.find(({ from, to }) => from <= now && now < to);
  return [today, rows.findLast(({ from, to }) => to <= (today?.from ?? now) && now - to < 25 * 3600 && to - from > DAY_S / 2)];
}

export function mount({ root, params, shell, el, go, put, bar, bothWays, called, fill, hash, options, sizes, soft }) {
  let by, of, rows, days, months;
  const chosen = () => params.get("i") ?? shell.primary ?? "";
  const path = (by, more) => shell.health && chosen() && `api/traffic/totals?${new URLSearchParams({ ...more, by, interface: chosen() })}`;
  const read = (answer) => answer.map((row) => ({ from: seconds(row.from), to: seconds(row.to), first: row.first_day, last: row.last_day, rx: row.rx_bytes, tx: row.tx_bytes, seen: row.observed, whole: row.complete }));
  const sums = ({ rx, tx }) => [rx, tx, rx + tx];
  const remark = (row) => note(row, shell.now(), shell.settings?.interval?.value ?? 30);
  const feeds = [
    { what: "usage", every: 60, path: () => path(by, { ...Object.fromEntries(params), limit: params.get("from") ? 1000 : PERIODS[by].count }), take: (answer) => (rows = read(answer)) },
    { what: "this month", every: 60, path: () => path("month", { limit: 1 }), take: (answer) => (months = read(answer)) },
    { what: "days", every: 300, path: () => path("day", { limit: 366 }), take: (answer) => (days = read(answer)) },
  ];

  const titles = ["Today", "Yesterday", "This month", "At this pace"];
  const tiles = titles.map(() =>
    el("section.card.tile", null, el("h2"), el("b"), el("p", null, bothWays())));
  const which = el("select", { ariaLabel: "Interface", onchange: () => go(hash("usage", { by, i: which.value })) });
  const cuts = Object.keys(PERIODS).map((word) => el("a", null, `${word}s`));
  const earlier = el("a.button", null, "‹ Earlier");
  const title = el("h2");
  const bars = el("div.bars");
  const reading = el("span");
  const empty = soft();
  const [figures, top] = [el("section.card"), el("section.card")];
  root.append(
    el("div.bar.wide", null, which, el("nav", { ariaLabel: "Rows" }, cuts)),
    el("div.tiles.wide", null, tiles),
    el("section.card", null, bar(title, earlier), empty,
      el("div", { ariaHidden: "true" }, bars, soft(el("i.in"), " down ", el("i.out"), " up", reading)),
      soft(USAGE.counted)),
    el("div.beside", null, figures), top);

  function change(next) {
    params = next;
    by = PERIODS[params.get("by")] ? params.get("by") : "day";
    rows = null;
    if (of !== chosen()) days = months = null;
    of = chosen();
    for (const feed of feeds) feed.due = 0;
  }

  // Each row links to its shorter periods, and the shortest to the chart.
  function numbers(title, rows, by) {
    const texts = sizes(rows.flatMap(sums));
    const { into } = PERIODS[by];
    const head = (text, side = "") => el(`th${side}`, { scope: "col" }, text);
    return el("table", null, el("caption", null, title), el("thead", null, el("tr", null, head(by), head("Down", ".rx"), head("Up", ".tx"), head("Total"))),
      el("tbody", null, rows.map((row, i) => {
        const { from, to } = row;
        return el("tr", null, el("th", { scope: "row" }, el("a", { href: hash(into ? "usage" : "", { ...(into && { by: into }), i: chosen(), from, to }) }, label(by, row, shell.now())), el("small", null, remark(row))),
          texts.slice(3 * i, 3 * i + 3).map((text) => el("td", null, text)));
      })));
  }

  function draw(shown) {
    const { top, ticks, unit: [unit, size] } = barScale(Math.max(0, ...shown.map((row) => row && row.rx + row.tx)), 4, shell.units);
    const every = Math.ceil(shown.length / 10);
    const at = (node, side, value) => {
      node.style[side] = `${(value / top) * 100}%`;
      return node;
    };
    return [
      ticks.map((tick) => at(el("span", null, `${+(tick / size).toPrecision(3)} ${unit}`), "bottom", tick)),
      shown.map((row, i) => {
        const showRow = () => put(reading, row ? ` · ${label(by, row, shell.now())}${remark(row)}: ${sizes(sums(row)).map((text, k) => ["↓ ", "↑ ", "= "][k] + text).join(" ")}` : "");
        const back = (shown.length - 1 - i - (every >> 1)) / every;
        return el(row?.whole === false ? "div.part" : "div", { onpointerenter: showRow, onclick: showRow }, row && [row.tx > 0 && at(el("i.out"), "height", row.tx), at(el("i.in"), "height", row.rx)],
          row && back % 1 === 0 && el(back % 2 ? "small.spare" : "small", null, label(by, row, 0, true)));
      }),
    ];
  }

  change(params);
  return {
    feeds, change,
    title: "Usage",
    update() {
      if (of !== chosen()) change(params);
      const { interfaces, units } = shell;
      const now = shell.now();
      // Ignored interfaces are not offered, except the one that the hash names.
      options(which, (interfaces ?? []).filter(({ monitored, present, name }) => monitored || present === false || name === chosen()).map((iface) => [iface.name, called(iface)]), chosen());
      which.hidden = !of;
      cuts.forEach((link, i) => {
        const word = Object.keys(PERIODS)[i];
        link.href = hash("usage", { by: word, i: chosen() });
        link.ariaCurrent = word === by ? "page" : null;
      });
      const [month] = latest(months ?? [], now);
      const guess = month && project(month, days?.[0], now);
      const { today_rx_bytes: rx, today_tx_bytes: tx } = shell.find(of) ?? {};
      const [today, yesterday] = latest(days ?? [], now);
      [rx != null && { ...today, rx, tx }, yesterday, month, guess].forEach((row, i) => {
        // The projection has the note of this month.
        put(tiles[i].firstChild, titles[i] + (row?.to ? remark(row) : guess && i > 2 ? remark(month).replace(" so far", "") : ""));
        const texts = row ? sizes(sums(row)) : [NOTHING, NOTHING, i > 2 && month && days ? USAGE.early : NOTHING];
        tiles[i].querySelectorAll("span, b").forEach((node, k) => put(node, texts[(k + 2) % 3]));
      });

      const first = rows?.[0];
      const ends = params.get("from") && first ? [first, rows.at(-1)].map((row) => label(by === "hour" ? "day" : by, row, now)) : [`${by}s`];
      put(title, [...new Set(ends)].join(" – "));
      earlier.hidden = !first;
      earlier.href = hash("usage", { by, i: chosen(), to: first?.from });
      const idle = rows ? !first : interfaces && !of;
      bars.parentNode.hidden = figures.hidden = idle;
      const midnight = days?.at(-1)?.to;
      put(empty, idle ? USAGE.empty
        : midnight && clock(midnight) !== "00:00" ? USAGE.zone(shell.health.details.clock.timezone) : "");
      // The old content stays until the answer arrives, so that the layout does not jump.
      if (first) {
        fill(bars, [rows, by, units], () => draw(slots(rows, PERIODS[by].length)));
        fill(figures, [rows, by, of, units], () => [numbers(`By the ${by}`, [...rows].reverse(), by)]);
      }
      const most = [...days ?? []].sort((a, b) => b.rx + b.tx - a.rx - a.tx).slice(0, 10);
      top.hidden = most.length < 3;
      fill(top, [most, of, units], () => [numbers("Top days of a year", most, "day")]);
    },
  };
}
