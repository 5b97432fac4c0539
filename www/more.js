// The views that are opened now and then: usage, one interface, the system, the settings. Loaded when the first of them
// is. What they calculate is pure and stands first; each view builds its elements once, and `update` fills them.

import { NOTHING, about, amounts, clock, day, rate, rateUnit, seconds, unitFor, unitsOf } from "./format.js";
import { niceStep } from "./chart.js";

const DAY_S = 86400;

// How usage is cut: the length of a row in seconds, how many are shown, and how a row is cut further.
export const PERIODS = {
  hour: { name: "Hours", length: 3600, count: 48 },
  day: { name: "Days", length: DAY_S, count: 31, into: "hour" },
  week: { name: "Weeks", length: 7 * DAY_S, count: 26, into: "day" },
  month: { name: "Months", length: 30.44 * DAY_S, count: 24, into: "day" },
  year: { name: "Years", length: 365.25 * DAY_S, count: 12, into: "month" },
  cycle: { name: "Billing cycles", length: 30.44 * DAY_S, count: 24, into: "day" },
};

// Rows as bars: a period of which nothing is known is a hole as wide as itself, and null.
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

// How high the bars reach, and the ticks below it, in bytes: round numbers of the unit in which they are written.
export function barScale(most, count, units) {
  const unit = unitFor(units.amount, most);
  const step = most ? niceStep(most / unit[1], count) * unit[1] : unit[1];
  const top = Math.max(1, Math.ceil((most / step) * (1 - 1e-9))) * step;
  const ticks = [];
  for (let k = 1; k * step <= top * (1 + 1e-9); k++) ticks.push(k * step);
  return { top, ticks, unit };
}

// What a period comes to if it goes on as it went since `known`, the start of the records; null where that would be a
// guess: before a tenth of the period was seen, and when it is over.
export function project({ from, to, rx, tx }, known, now) {
  const seen = now - Math.max(from, known);
  if (now >= to || !(seen >= (to - from) / 10)) return null;
  const whole = (used) => used + (used / seen) * (to - now);
  return { rx: whole(rx), tx: whole(tx) };
}

// A row's name. Its bounds are the router's, which may live in another zone than the reader: the middle of a day is the
// same date in both. What is not of this year says so.
export function label(by, { from, to }, now, brief) {
  const date = (unix) => day(unix).slice(4);
  const year = (unix) => day(unix, true).slice(11);
  const middle = (from + to) / 2;
  const exact = now && year(middle) !== year(now);
  const [first, last] = [from, to].map((unix, i) => date(unix + (i ? -0.5 : 0.5) * DAY_S));
  if (by === "hour") return brief ? clock(from) : `${day(from, exact)} ${clock(from)}`;
  if (by === "day") return brief ? date(middle) : day(middle, exact);
  if (by === "month") return brief ? date(middle).slice(0, 3) : `${date(middle).slice(0, 3)} ${year(middle)}`;
  if (by === "year") return year(middle);
  return brief ? first : `${first} – ${last}${exact ? ` ${year(middle)}` : ""}`;
}

// The rows of today and of yesterday, as far as they are known: the last row may be neither.
export function latest(rows, now) {
  const today = rows.find((row) => row.from <= now && now < row.to);
  const yesterday = rows.findLast((row) => row !== today && row.to <= (today?.from ?? now) && now - row.to < 25 * 3600);
  return [today, yesterday];
}

// Seconds as the two greatest units.
export function span(length) {
  const parts = [["d", DAY_S], ["h", 3600], ["min", 60], ["s", 1]];
  let rest = Math.max(0, Math.round(length));
  let at = parts.findIndex(([, size]) => rest >= size);
  if (at < 0) return "0 s";
  const found = [];
  for (const [name, size] of parts.slice(at, at + 2)) {
    const count = Math.floor(rest / size);
    if (count) found.push(`${count} ${name}`);
    rest -= count * size;
  }
  return found.join(" ");
}

// As the router has it: * stands for anything, everything else for itself.
export function matches(pattern, name) {
  const pieces = pattern.split("*").map((piece) => piece.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${pieces.join(".*")}$`, "s").test(name);
}

export const items = (text) => text.split(",").map((item) => item.trim()).filter(Boolean);

// A field's text as the API takes it. Nothing typed means the default, and what is no number is left for the API to refuse.
export function typed(kind, text) {
  if (!text.trim()) return null;
  if (kind === "list") return items(text);
  if (kind === "switch") return text === "true";
  return /integer|decimal|size/.test(kind) && !isNaN(text) ? Number(text) : text.trim();
}

// A setting as the text of its field: empty where it is left to the default, which the field shows by itself.
export function text({ kind, value, origin }) {
  if (origin === "default" && kind !== "word" && kind !== "switch") return "";
  return Array.isArray(value) ? value.join(", ") : String(value);
}

// What of the fields' texts differs from the settings, as the body of a PATCH.
export function changes(settings, texts) {
  const body = {};
  for (const [key, now] of Object.entries(texts)) {
    const setting = settings[key];
    if (setting && now !== text(setting)) body[key] = now === String(setting.default) ? null : typed(setting.kind, now);
  }
  return body;
}

// The faults of a 422 by setting; whatever belongs to none of the fields is under "".
export function faultsOf(detail, keys) {
  const faults = {};
  for (const { loc, msg } of Array.isArray(detail) ? detail : []) {
    const key = keys.includes(loc.at(-1)) ? loc.at(-1) : "";
    faults[key] = [faults[key], key ? msg : `${loc.at(-1)} ${msg}`].filter(Boolean).join("; ");
  }
  return faults;
}

// How many errors and drops there were in the newest samples, which begin `seconds` ago.
export function recent(records, now) {
  if (!records.length) return null;
  const sum = (name) => records.reduce((all, record) => all + (record[name] ?? 0), 0);
  const since = Math.min(...records.map((record) => seconds(record.timestamp)));
  const names = ["rx_errors", "tx_errors", "rx_drops", "tx_drops"];
  return { seconds: Math.max(1, now - since), ...Object.fromEntries(names.map((name) => [name, sum(name)])) };
}

// How it is, in a sentence or two.
export function wellbeing({ status, reason, details: { collector, database, interfaces, clock: time = {} } }) {
  const sentences = [];
  if (reason) sentences.push(`${reason[0].toUpperCase()}${reason.slice(1)}.`);
  else if (status === "healthy") {
    const { polling_interval: every } = collector.configuration;
    const count = interfaces.monitored_interfaces ?? collector.stats.interfaces_monitored;
    const save = database.flush_interval_seconds ? ` and saved every ${span(database.flush_interval_seconds)}` : "";
    sentences.push(`All is well. ${count} ${count === 1 ? "interface is" : "interfaces are"} read every ${span(every)}${save}.`);
  }
  if (time.believed === false) sentences.push("The clock of this machine cannot be right yet: what is counted waits in memory until it is.");
  return sentences.join(" ");
}

// What follows is seen. Views are given the shell's tools; the module keeps them, as there is one view at a time.

let api, el, shell, go, dress;

const using = (view) => (ctx) => {
  ({ api, el, shell, go, dress } = ctx);
  return view(ctx);
};

const cell = (text, className = "") => el("td", { className }, text);
const head = (text, className = "") => el("th", { scope: "row", className }, text);
const count = (number) => number?.toLocaleString("en") ?? NOTHING;
const when = (time) => (time ? `${day(seconds(time))} ${clock(seconds(time), true)}` : "before the clock was right");
const hash = (path, values) => `#/${path}?${new URLSearchParams(values)}`;
const bothWays = ([down, up]) => [el("span", { className: "rx" }, down), el("span", { className: "tx" }, up)];

// A part of a view. What came of something that was done in it is said at its end, next to the hand that did it.
function part(title, className, ...children) {
  return el("section", { className: `card ${className}` }, el("h2", null, title), children.flat(), el("p", { className: "said", role: "status" }));
}

// What did not change is not touched: selections and the place of the keyboard stay where they are.
function fill(node, data, build) {
  const key = JSON.stringify(data);
  if (node.filled === key) return;
  node.filled = key;
  node.replaceChildren(...build(data).flat());
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function table(caption, columns, rows) {
  const titles = columns.map((title) => el("th", { scope: "col", className: { Down: "rx", Up: "tx" }[title] ?? "" }, title));
  return el("table", null, el("caption", { className: "unseen" }, caption), el("thead", null, el("tr", null, titles)), el("tbody", null, rows));
}

// Pairs of a word and what it says; what is not known is left out.
function facts(node, pairs) {
  fill(node, pairs.filter(([, value]) => value != null && value !== ""), (known) =>
    known.map(([term, value]) => el("div", null, el("dt", null, term), el("dd", null, value))));
}

// Does something and says what came of it: `work` answers with the sentence.
async function act(node, work) {
  const said = node.closest("section").querySelector(".said");
  const button = node.matches("button") && node;
  put(said, "");
  said.classList.remove("bad");
  if (button) button.disabled = true;
  try {
    put(said, (await work()) ?? "");
  } catch (error) {
    said.classList.add("bad");
    put(said, error.message);
  }
  if (button) button.disabled = false;
}

const button = (text, work, className = "") => el("button", { type: "button", className, onclick: ({ currentTarget: node }) => act(node, work) }, text);
const change = (path, body, method = "PATCH") => api(path, { method, body });
const kept = ({ saved }, done) => (saved === false ? `${done} It could not be written to disk yet, and is tried again.` : done);

function sure(question, verb) {
  return new Promise((done) => {
    const dialog = el("dialog", { ariaLabel: verb },
      el("form", { method: "dialog" }, el("p", null, question), el("p", { className: "bar" }, el("button", { value: "ok" }, verb), el("button", { value: "" }, "Cancel"))));
    dialog.onclose = () => {
      dialog.remove();
      done(dialog.returnValue === "ok");
    };
    document.body.append(dialog);
    dialog.showModal();
  });
}

function choice(label, options, value, onchange) {
  return el("label", { className: "field" }, `${label} `, el("select", { onchange: ({ target }) => onchange?.(target.value) }, options.map(([word, text]) => el("option", { value: word, selected: word === value }, text))));
}

const called = ({ name, alias }) => [name, alias].filter(Boolean).join(" · ");
// Those that people count with: what is left out is not offered, unless it was asked for.
const offered = (chosen) => (shell.interfaces ?? []).filter((iface) => iface.monitored || !iface.present || iface.name === chosen);

function usage({ root, params }) {
  let by, rows, days, months, best;
  const chosen = () => params.get("i") ?? shell.primary;
  const path = (by, more) => shell.health && chosen() && `api/traffic/totals?${new URLSearchParams({ by, interface: chosen(), ...more })}`;
  const read = (answer) => answer.map((row) => ({ from: seconds(row.from), to: seconds(row.to), rx: row.rx_bytes, tx: row.tx_bytes, whole: row.complete }));
  const range = () => Object.fromEntries(["from", "to"].filter((key) => params.get(key)).map((key) => [key, params.get(key)]));
  const place = (more) => hash("usage", { by, i: chosen(), ...more });

  const feeds = [
    { what: "usage", every: 60, path: () => path(by, { limit: params.get("from") ? 1000 : PERIODS[by].count, ...range() }), take: (answer) => (rows = read(answer)) },
    { what: "today", every: 30, path: () => path("day", { limit: 2 }), take: (answer) => (days = read(answer)) },
    { what: "this month", every: 60, path: () => path("month", { limit: 1 }), take: (answer) => (months = read(answer)) },
    { what: "top days", every: 900, path: () => path("day", { limit: 366 }), take: (answer) => (best = read(answer)) },
  ];

  const tile = (title) => {
    const [total, down, up, small] = [el("b"), el("span", { className: "rx" }), el("span", { className: "tx" }), el("small")];
    const node = el("section", { className: "card tile" }, el("h2", null, title), total, el("p", null, down, " ", up), small);
    return [node, (row, words = "") => {
      const texts = row ? amounts([row.rx, row.tx, row.rx + row.tx], shell.units) : [NOTHING, NOTHING, NOTHING];
      [down, up, total].forEach((node, i) => put(node, texts[i]));
      put(small, words);
    }];
  };
  const tiles = ["Today", "Yesterday", "This month", "This month, if it goes on like this"].map(tile);
  const which = el("select", { ariaLabel: "Interface", onchange: () => go(hash("usage", { by, i: which.value })) });
  const cuts = el("nav", { ariaLabel: "Cut by", className: "bar" });
  const title = el("h2");
  const bars = el("div", { className: "bars", ariaHidden: "true" });
  const under = el("p", { className: "soft", ariaHidden: "true" });
  const empty = el("p", { className: "soft" });
  const steps = el("p", { className: "bar" });
  const figures = el("div", { className: "card" });
  const top = el("div", { className: "card" });
  root.className = "more usage";
  root.append(
    el("div", { className: "bar wide" }, which, cuts),
    el("div", { className: "tiles wide" }, tiles.map(([node]) => node)),
    el("section", { className: "card main" }, el("div", { className: "bar spread" }, title, steps), bars, under, empty),
    figures, top);

  function change(next) {
    params = next;
    by = PERIODS[params.get("by")] ? params.get("by") : "day";
    rows = days = months = best = undefined;
    for (const feed of feeds) feed.due = 0;
  }

  // Where a row leads: to what it is made of, in the end to the curve.
  const deeper = ({ from, to }) => (PERIODS[by].into ? hash("usage", { by: PERIODS[by].into, i: chosen(), from, to }) : hash("", { i: chosen(), from, to }));

  function numbers(rows, caption, by, link) {
    const texts = amounts(rows.flatMap(({ rx, tx }) => [rx, tx, rx + tx]), shell.units);
    const note = (row) => (row.to > shell.now() ? "so far" : row.whole ? null : "in part");
    return table(caption, ["", "Down", "Up", "Total"], rows.map((row, i) => el("tr", null,
      el("th", { scope: "row" }, el("a", { href: link(row) }, label(by, row, shell.now())), note(row) && el("small", null, ` ${note(row)}`)),
      [0, 1, 2].map((k) => cell(texts[3 * i + k])))));
  }

  function draw(shown) {
    const { top, ticks, unit: [unit, size] } = barScale(Math.max(...shown.map((row) => (row ? row.rx + row.tx : 0))), 4, shell.units);
    const every = Math.ceil(shown.length / 14);
    const tall = (name, value) => {
      const bar = el("i", { className: name });
      bar.style.height = `${(value / top) * 100}%`;
      return bar;
    };
    const tell = (row) => () => put(under, row ? [label(by, row, shell.now()), ...amounts([row.rx, row.tx, row.rx + row.tx], shell.units).map((text, k) => `${["↓", "↑", "together"][k]} ${text}`)].join("   ") : "Nothing is known of this time.");
    return [
      ...ticks.map((tick) => {
        const line = el("span", null, `${+(tick / size).toPrecision(3)} ${unit}`);
        line.style.bottom = `${(tick / top) * 100}%`;
        return line;
      }),
      ...shown.map((row, i) => el("div", { onpointerenter: tell(row), onclick: tell(row) }, row && [tall("up", row.tx), tall("down", row.rx)],
        row && (shown.length - 1 - i) % every === 0 && el("small", null, label(by, row, 0, true)))),
    ];
  }

  change(params);
  return {
    feeds, change,
    get title() {
      return `Usage of ${chosen() ?? "…"}`;
    },
    update() {
      const now = shell.now();
      const options = offered(chosen());
      fill(which, [options.map(({ name, alias }) => ({ name, alias })), chosen()], ([options, chosen]) =>
        options.map((iface) => el("option", { value: iface.name, selected: iface.name === chosen }, called(iface))));
      fill(cuts, [by, chosen()], () => Object.entries(PERIODS).map(([word, { name }]) =>
        el("a", { href: hash("usage", { by: word, i: chosen() }), ariaCurrent: word === by ? "page" : null }, name)));

      const [today, yesterday] = latest(days ?? [], now);
      const [month] = latest(months ?? [], now);
      const guess = month && best?.length ? project(month, best[0].from, now) : null;
      [today, yesterday, month].forEach((row, i) => tiles[i][1](row));
      tiles[3][1](guess, month && best && !guess ? "too early to say" : "");

      put(title, params.get("from") && rows?.length ? `${PERIODS[by].name}: ${label(by, rows[0], now)} – ${label(by, rows.at(-1), now)}` : PERIODS[by].name);
      const later = params.get("to") && +params.get("to") + PERIODS[by].count * PERIODS[by].length;
      fill(steps, [rows?.[0]?.from, later, by, chosen()], ([first]) => [
        first ? el("a", { className: "button", href: place({ to: first }) }, "‹ Earlier") : [],
        later ? el("a", { className: "button", href: place(later < now ? { to: Math.round(later) } : {}) }, "Later ›") : [],
      ]);
      bars.hidden = figures.hidden = !rows?.length;
      const idle = shell.interfaces && !chosen();
      put(empty, idle || rows?.length === 0 ? "Nothing is recorded here yet. The first figures appear within a few minutes of the first traffic; there is nothing to set up." : "");
      if (rows?.length) {
        fill(bars, [rows, by, shell.units], ([rows]) => draw(slots(rows, PERIODS[by].length)));
        fill(figures, [rows, by, shell.units], () => [numbers(rows.toReversed(), `Usage by ${by}`, by, deeper)]);
      }
      const days10 = (best ?? []).toSorted((a, b) => b.rx + b.tx - a.rx - a.tx).slice(0, 10);
      top.hidden = days10.length < 3;
      fill(top, [days10, shell.units], () => [el("h2", null, "Top days of a year"), numbers(days10, "The days of most traffic", "day", ({ from, to }) => hash("usage", { by: "hour", i: chosen(), from, to }))]);
    },
  };
}
