// The views that are opened now and then: usage, one interface, the system, the settings; and the question for the
// access token. Loaded when the first of them is wanted. What they calculate is pure and stands first; each view builds its elements once, and `update` fills them.

import { NOTHING, about, amounts, clock, day, dayOf, rateUnit, seconds, span, unitFor } from "./format.js";
import { niceStep } from "./chart.js";

const DAY_S = 86400;

// How usage is cut: the length of a row in seconds, how many are shown, and how a row is cut further.
export const PERIODS = {
  __proto__: null,
  hour: { length: 3600, count: 48 },
  day: { length: DAY_S, count: 31, into: "hour" },
  week: { length: 7 * DAY_S, count: 26, into: "day" },
  month: { length: 30.44 * DAY_S, count: 24, into: "day" },
  year: { length: 365.25 * DAY_S, count: 12, into: "month" },
  cycle: { length: 30.44 * DAY_S, count: 24, into: "day" },
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
  const steps = Math.max(1, Math.ceil((most / step) * (1 - 1e-9)));
  return { top: steps * step, ticks: Array.from({ length: steps }, (_, k) => (k + 1) * step), unit };
}

// What is not whole, behind a row's name: it has begun, or was missed in part. A reading or two is always to come.
export function note({ from, to, seen, whole }, now, interval) {
  const length = now - from;
  if (to <= now) return whole ? "" : " in part";
  return length - seen > length / 100 + 2 * interval ? " so far, in part" : " so far";
}

// What a period comes to if it goes on as it went since the records began, of which `day` is the first; null where that
// would be a guess: before a tenth of the period was seen, and when it is over.
export function project({ from, to, rx, tx }, day, now) {
  const seen = now - Math.max(from, Math.min(day?.to, now) - day?.seen);
  if (now >= to || !(seen >= (to - from) / 10)) return null;
  const whole = (used) => used + (used / seen) * (to - now);
  return { rx: whole(rx), tx: whole(tx) };
}

// A row's name: hours are the reader's, days and what is longer are the router's, which says them, as it may live in another
// zone. What is not of this year says so.
export function label(by, { from, to, first, last }, now, brief) {
  const name = (exact) => (by === "hour" ? day((from + to) / 2, exact) : dayOf(first, exact));
  const [, month, date, year] = name(true).split(" ");
  const exact = now && year !== day(now, true).slice(11);
  // A line may end before the hour, and nowhere else.
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

// The rows of today and of yesterday, as far as they are known: the last row may be neither. Where the zone was changed
// there is a piece of a day beside.
export function latest(rows, now) {
  const today = rows.find(({ from, to }) => from <= now && now < to);
  return [today, rows.findLast(({ from, to }) => to <= (today?.from ?? now) && now - to < 25 * 3600 && to - from > DAY_S / 2)];
}

// A field's text as the API takes it. Nothing typed means the default, and what is no number is left for the API to refuse.
export function typed(kind, text) {
  if (!text.trim()) return null;
  if (kind === "list") return text.split(",").map((item) => item.trim()).filter(Boolean);
  if (kind === "switch") return text === "true";
  return /integer|decimal|size/.test(kind) && Number.isFinite(+text) ? +text : text.trim();
}

const CHOICE = /word|switch/;

// A setting as the text of its field: empty where it is left to the default, which the field shows by itself. What is
// owned may be a default too, of another flag's making.
export function text({ kind, value, origin, owner }) {
  return origin === "default" && !owner && !CHOICE.test(kind) ? "" : [value].flat().join(", ");
}

// What of the fields' texts differs from the settings, as the body of a PATCH.
export function changes(settings, texts) {
  const body = {};
  for (const [key, now] of Object.entries(texts)) {
    const setting = settings[key];
    // An empty field means the default; choices have no empty one.
    const usual = CHOICE.test(setting?.kind) && now === String(setting.default);
    if (setting && now !== text(setting)) body[key] = usual ? null : typed(setting.kind, now);
  }
  return body;
}

// The faults of a 422, by setting.
export function faultsOf(detail) {
  return Object.fromEntries((Array.isArray(detail) ? detail : []).map(({ loc, msg }) => [loc.at(-1), msg]));
}

// How many errors and drops there were in the newest samples, which begin `seconds` ago.
export function recent(records, now) {
  const oldest = Math.min(now - 1, ...records.map(({ timestamp }) => seconds(timestamp)));
  const sums = (what) => ["rx", "tx"].map((side) => records.reduce((sum, record) => sum + (record[`${side}_${what}`] ?? 0), 0));
  return { seconds: now - oldest, errors: sums("errors"), drops: sums("drops") };
}

// A netmask as the number of its bits, of either family.
export function prefix(mask) {
  const base = mask.includes(".") ? 10 : 16;
  const bits = (part) => (parseInt(part, base) || 0).toString(2).replace(/0/g, "").length;
  return mask.split(/[.:]/).reduce((sum, part) => sum + bits(part), 0);
}

// How it is, in a sentence or two.
export function wellbeing({ status, reason, details: { clock } }) {
  const how = reason ?? (status === "healthy" ? "all is well" : status);
  return `${how[0].toUpperCase()}${how.slice(1)}.${clock?.believed === false ? " The clock cannot be right yet: figures wait in memory." : ""}`;
}

// What follows is seen. Views are given the shell's tools; the module keeps them, as there is one view at a time.

let api, ask, configure, dress, el, go, kept, page, paint, put, shell;

const using = (view) => (ctx) => {
  ({ api, ask, configure, dress, el, go, kept, page, paint, put, shell } = ctx);
  return view(ctx);
};

const sizes = (values) => amounts(values, shell.units);
const count = (number) => number?.toLocaleString("en") ?? NOTHING;
const when = (time) => (time ? `${day(seconds(time)).slice(4)} ${clock(seconds(time), true)}` : "with a wrong clock");
const hash = (path, values) => `#/${path}?${new URLSearchParams(values)}`;
const bothWays = (down, up) => [el("span.rx", null, down), el("span.tx", null, up)];
const called = ({ name, alias }) => [name, alias].filter(Boolean).join(" · ");

// A part of a view. What came of something that was done in it is said at its end, next to the hand that did it.
const card = (title, ...children) => el("section.card", null, el("h2", null, title), ...children, el("p.said", { role: "status" }));
const bar = (...children) => el("div.bar", null, ...children);
const list = () => el("dl.facts");
const log = () => el("dl.facts.log");
const soft = (...children) => el("p.soft", null, ...children);

// What did not change is not touched: selections and the place of the keyboard stay where they are.
function fill(node, data, build) {
  const key = JSON.stringify(data);
  if (node.filled === key) return;
  node.filled = key;
  node.replaceChildren(...build().flat());
}

// Pairs of a word and what it says: a text, or one for down and one for up. What is not known is left out.
function facts(node, pairs) {
  const known = pairs.filter((pair) => pair?.[1]);
  fill(node, known, () => known.map(([term, value]) => el("div", null, el("dt", null, term), el("dd", null, Array.isArray(value) ? bothWays(...value) : value))));
}

function story(node, events, named) {
  fill(node, events, () => events.map(({ time, kind, interface: name, detail }) => el("div", null, el("dt", null, when(time)),
    el("dd", null, el("b", null, kind.replace("_", " ")), " ", named && name ? [el("a", { href: page(name) }, name), " "] : [], detail))));
}

function options(select, pairs, value) {
  fill(select, [pairs, value], () => pairs.map(([word, text]) => el("option", { value: word, selected: word === value }, text)));
  return select;
}

const field = (label, input) => el("label.field", null, `${label} `, input);
const choice = (label, pairs, value, done) => field(label, options(el("select", { onchange: ({ target }) => done(target.value, target) }), pairs, value));

// Does something and says what came of it: `work` answers with the sentence.
async function act(node, work) {
  const said = node.closest("section").querySelector(".said");
  node.disabled = true;
  put(said, "");
  said.className = "said";
  try {
    put(said, (await work()) ?? "");
  } catch (error) {
    said.className = "said bad";
    put(said, error.message);
  }
  node.disabled = false;
  paint();
}

const button = (text, work) => el("button", { type: "button", onclick: ({ currentTarget }) => act(currentTarget, work) }, text);
const form = (button, work, ...children) => el("form", { noValidate: true, onsubmit(event) {
  event.preventDefault();
  act(button, work);
} }, ...children);
const send = (method, path, body) => api(path, { method, body });
const outcome = ({ saved }) => (saved === false ? "Done, and not on disk yet." : "Done.");

// Asks for the access token. Gives back what was typed, or nothing.
export function request(el, kept) {
  // One that was sent and not taken.
  const wrong = kept.token;
  delete kept.token;
  // What a header cannot carry is no token.
  const input = el("input", { autocomplete: "off", spellcheck: false, required: true, pattern: "\\s*[!-~]+\\s*" });
  const dialog = el("dialog.card", { ariaLabel: "Access token" }, el("form", { method: "dialog" },
    el("h2", null, "Access token"),
    wrong && el("p.bad", { role: "alert" }, "That is not it."),
    el("p", null, el("code", null, "net-pulse token"), " on the router prints it. This browser keeps it."),
    el("label", null, "Token ", input),
    el("p.bar", null, el("button", { value: "ok" }, "Go on"), el("button", { formNoValidate: true }, "Cancel")),
  ));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((done) => {
    dialog.onclose = () => {
      dialog.remove();
      done(dialog.returnValue && input.value.trim());
    };
  });
}

function usage({ root, params }) {
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
  const told = el("span");
  const empty = soft();
  const [figures, top] = [el("section.card"), el("section.card")];
  root.append(
    el("div.bar.wide", null, which, el("nav", { ariaLabel: "Rows" }, cuts)),
    el("div.tiles.wide", null, tiles),
    el("section.card", null, bar(title, earlier), empty,
      el("div", { ariaHidden: "true" }, bars, soft(el("i.in"), " down ", el("i.out"), " up", told)),
      soft("Counted at the interface, headers and the router's own traffic included: a provider may differ by a few per cent.")),
    el("div.beside", null, figures), top);

  function change(next) {
    params = next;
    by = PERIODS[params.get("by")] ? params.get("by") : "day";
    rows = null;
    if (of !== chosen()) days = months = null;
    of = chosen();
    for (const feed of feeds) feed.due = 0;
  }

  // A row leads to what it is made of, in the end to the curve.
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
        const tell = () => put(told, row ? ` · ${label(by, row, shell.now())}: ${sizes(sums(row)).map((text, k) => ["↓ ", "↑ ", "= "][k] + text).join(" ")}` : "");
        const back = (shown.length - 1 - i - (every >> 1)) / every;
        return el(row?.whole === false ? "div.part" : "div", { onpointerenter: tell, onclick: tell }, row && [row.tx > 0 && at(el("i.out"), "height", row.tx), at(el("i.in"), "height", row.rx)],
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
      // Those that people count with: what is left out is not offered, unless it was asked for.
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
        put(tiles[i].firstChild, titles[i] + (row?.to ? remark(row) : ""));
        const texts = row ? sizes(sums(row)) : [NOTHING, NOTHING, i > 2 && month && days ? "too early" : NOTHING];
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
      put(empty, idle ? "Nothing is recorded of this time."
        : midnight && clock(midnight) !== "00:00" ? `Days are the router's (${shell.health.details.clock.timezone}), times are yours.` : "");
      // Until the answer is there, what was before stays, so that nothing jumps.
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

function iface({ root, name }) {
  let iface = shell.find(name);
  let stats, records, events, seen;
  const own = `api/interfaces/${encodeURIComponent(name)}`;
  const feeds = [
    { what: "counters", every: 5, path: () => iface?.present && `${own}/stats`, take: (answer) => (stats = answer) },
    { what: "errors", every: 60, path: () => iface?.present && `api/traffic/history?limit=120&${new URLSearchParams({ interface_name: name })}`, take: (answer) => (records = answer) },
    { what: "events", every: 60, path: () => iface && `api/events?limit=50&${new URLSearchParams({ interface: name })}`, take: (answer) => (events = answer.filter((event) => event.interface === name)) },
  ];

  async function set(body) {
    const answer = await send("PATCH", own, body);
    ask("interfaces");
    ask("settings");
    return outcome(answer);
  }

  const title = el("h2");
  const kind = soft();
  const [now, link, counters, happened] = [list(), list(), list(), log()];
  const alias = el("input", { maxLength: 64, autocomplete: "off" });
  const save = el("button", null, "Save");
  const watch = choice("Watch it", [["null", "as the rules say"], ["true", "always"], ["false", "never"]], "null", (value, node) =>
    act(node, () => set({ monitored: JSON.parse(value) }).finally(() => (seen = null))));
  const main = button("…", () => set({ primary: !fixed() }));
  const fixed = () => iface.primary && [name, ...iface.altnames ?? []].includes(shell.settings?.primary?.value);
  const gone = el("select", { ariaLabel: "Absent interface" });
  const merge = bar("Add the history of", gone, button("Merge", () => confirm(`Add all of ${gone.value} to ${name}, for good?`) && set({ merge: gone.value })));
  const forget = button(`Forget ${name}`, async () => {
    if (!confirm(`Forget ${name} and its history, for good?`)) return;
    await send("DELETE", own);
    ask("interfaces");
    go("#/");
  });
  const parts = [
    card("Link", link), card("Counters", counters),
    card("What to do with it", form(save, () => set({ alias: alias.value.trim() }), field("Name for people", alias), save), watch, bar(main, forget), merge),
    card("What happened to it", happened),
  ];
  root.append(card("", title, kind, now, bar(el("a.button", { href: hash("", { i: name }) }, "History"), el("a.button", { href: hash("usage", { i: name }) }, "Usage"))), ...parts);

  return {
    feeds,
    title: name,
    update() {
      const { interfaces, settings, units } = shell;
      iface = shell.find(name);
      put(title, called(iface ?? { name }));
      put(kind, iface ? about(iface) : interfaces ? "There is no such interface." : "");
      for (const part of parts) part.hidden = !iface;
      if (!iface) return;
      const away = iface.present === false;
      const pair = (rx, tx) => rx != null && sizes([rx, tx]);
      facts(now, [
        ["Now", !away && iface.monitored && shell.rates(name).map((text) => `${text} ${rateUnit(units)}`)],
        ["Today", pair(iface.today_rx_bytes, iface.today_tx_bytes)], ["In all", pair(iface.lifetime_rx_bytes, iface.lifetime_tx_bytes)],
      ]);
      facts(link, [
        ...(iface.addresses ?? []).map(({ family, address, netmask }) => [family === "inet" ? "IPv4" : "IPv6", netmask ? `${address}/${prefix(netmask)}` : address]),
        ["Altnames", iface.altnames?.join(", ")], ["MAC", iface.mac], ["MTU", iface.mtu], ["Not watched", !iface.monitored && (iface.ignored_because ?? "left out")],
      ]);
      parts[1].hidden = away || !stats;
      const late = records?.length && recent(records, shell.now());
      const row = (key) => stats && [key, ["rx", "tx"].map((side) => count(stats[`${side}_${key}`]))];
      const lately = (key) => late && [`in the last ${span(Math.ceil(late.seconds / 60) * 60)}`, late[key].map(count)];
      facts(counters, [row("bytes"), row("packets"), row("errors"), lately("errors"), row("drops"), lately("drops")]);
      if (alias.seen !== iface.alias) alias.value = alias.seen = iface.alias ?? "";
      const said = (pattern) => settings?.ignore?.value.includes(pattern);
      if (seen !== settings) watch.lastChild.value = said(`!${name}`) ? "true" : said(name) ? "false" : "null";
      seen = settings;
      main.hidden = away || (iface.primary && !fixed());
      put(main, fixed() ? "Find the headline by its traffic" : "Make it the headline");
      forget.hidden = !away;
      const absent = interfaces.filter((other) => other.present === false && other !== iface);
      merge.hidden = !absent.length;
      options(gone, absent.map((other) => [other.name, called(other)]));
      parts[3].hidden = !events?.length;
      story(happened, events ?? []);
    },
  };
}

function system({ root }) {
  let info, metrics, events;
  const feeds = [
    { what: "the machine", every: 60, path: () => "api/system/info", take: (answer) => (info = answer) },
    { what: "load", every: 15, path: () => "api/system/metrics", take: (answer) => (metrics = answer) },
    { what: "events", every: 60, path: () => "api/events?limit=200", take: (answer) => (events = answer) },
  ];
  const words = el("p");
  const [states, history, machine, happened] = [list(), list(), list(), log()];
  root.append(card("How it is", words, states), card("The history", history), card("The machine", machine), card("What happened", happened));
  return {
    feeds,
    title: "System",
    update() {
      const { health } = shell;
      const amount = (bytes) => bytes != null && sizes([bytes])[0];
      const { database = {}, collector, interfaces, clock } = health?.details ?? {};
      if (collector) {
        const { stats } = collector;
        const ago = (time) => time && `${span(shell.now() - seconds(time))} ago, ${when(time)}`;
        const since = database.unsaved_seconds;
        put(words, wellbeing(health));
        facts(states, [
          ["Reading", `${health.collector_status}, every ${span(collector.configuration.polling_interval)}`], ["Saving", health.database_status],
          ["Interfaces", `${health.interfaces_status}, ${interfaces.monitored_interfaces} watched`],
          ["Last reading", ago(stats.last_successful_poll)], ["Failed readings", stats.failed_polls],
          ["Last fault", collector.last_error ?? database.error], ["Source", [collector.source, collector.source_note].filter(Boolean).join(": ")],
        ]);
        facts(history, [
          ["File", database.database_path], ["Size", amount(database.database_size_bytes)],
          ["Last saved", ago(database.last_saved)], ["Saved every", database.flush_interval_seconds && span(database.flush_interval_seconds)],
          ["A power cut now would lose", since ? `the last ${span(since)}` : "nothing"],
          ["of the headline", since && database.unsaved_rx_bytes != null && sizes([database.unsaved_rx_bytes, database.unsaved_tx_bytes])],
          ["Written in a day", database.bytes_written_per_day === null ? "known after an hour" : amount(database.bytes_written_per_day)],
          ["Failed saves", database.save_failures], ["Disk in use", metrics && `${Math.round(metrics.disk_usage_percent)} %`],
        ]);
      }
      facts(machine, [
        ["Up for", info && span(info.uptime_seconds)], ["Memory free", info && sizes([info.memory_available, info.memory_total]).join(" of ")],
        ["Net-Pulse", info?.version], ["runs for", collector && span(collector.stats.uptime_seconds)],
        ["its time zone", clock?.timezone],
        ["takes memory", amount(metrics?.rss_bytes)],
      ]);
      story(happened, events ?? [], true);
    },
  };
}

// The settings' names, in groups.
const GROUPS = {
  "What is watched": { interfaces: "Watch", ignore: "Leave out", primary: "Headline" },
  "How it is read": { interval: "Interval", max_retries: "Retries", retry_delay: "Time between them" },
  "How it is saved": { media: "Lies on", flush: "Save every" },
  "How long it is kept, in days": { keep_samples_days: "Samples", keep_5min_days: "Five minutes", keep_hours_days: "Hours" },
  "How it is shown": { timezone: "Time zone", units: "Rates in", prefixes: "Units" },
};
const WORDS = { si: "MB (1000)", iec: "MiB (1024)" };

function settings({ root }) {
  let config = {};
  const inputs = {};
  const wanted = () => changes(config, Object.fromEntries(Object.entries(inputs).map(([key, { input }]) => [key, input.value])));
  const submit = el("button.chief", null, "Save");
  const undo = el("button", { type: "button", onclick: () => show() }, "Undo");
  const groups = el("div");
  const edit = form(submit, save, groups, card("", bar(submit, undo)));

  edit.oninput = paint;
  ask("settings");

  function control(key, title) {
    const { kind, words, min = "", max = "", help, owner } = config[key];
    const input = words ? options(el("select"), words.map((word) => [word, WORDS[word] ?? word]))
      // A field of numbers would keep to itself what is none.
      : el("input", { inputMode: /integer|decimal/.test(kind) ? "decimal" : "text", autocomplete: "off", autocapitalize: "off" });
    input.disabled = owner;
    input.setAttribute("aria-describedby", `about-${key}`);
    const fault = el("span.bad");
    inputs[key] = { input, fault };
    return el("div", null, field(title, input), el("div", { id: `about-${key}` }, fault,
      el("small", null, `${owner ? `Set by ${owner}: ` : ""}${help}${max && ` (${min} to ${max})`}`)));
  }

  // All but what somebody is typing.
  function show(edited = {}) {
    fill(groups, Object.keys(config).map((key) => config[key].owner), () => Object.entries(GROUPS).map(([title, names]) =>
      el("fieldset.card", null, el("legend", null, title), Object.keys(names).filter((key) => config[key]).map((key) => control(key, names[key])))));
    for (const [key, { input }] of Object.entries(inputs)) {
      const setting = config[key];
      // One setting's default may follow from another's value.
      input.placeholder = setting.default;
      if (!(key in edited)) input.value = text(setting);
    }
    mark({});
  }

  function mark(faults) {
    for (const [key, { input, fault }] of Object.entries(inputs)) {
      put(fault, faults[key] ?? "");
      input.ariaInvalid = faults[key] ? "true" : null;
    }
  }

  async function save() {
    mark({});
    try {
      const answer = await send("PATCH", "api/config", wanted());
      configure(answer);
      config = shell.settings;
      show();
      return outcome(answer);
    } catch (error) {
      mark(faultsOf(error.detail));
      const marked = document.querySelector("[aria-invalid]");
      marked?.focus();
      throw marked ? new Error("Not saved: see the marks.") : error;
    }
  }

  const run = (text, path, done) => button(text, async () => {
    const answer = await send("POST", `collector/${path}`);
    ask("health");
    return done(answer);
  });
  const start = run("Start", "start", outcome);
  const stop = run("Stop", "stop", outcome);
  const collect = run("Collect now", "collect", ({ success, interfaces_collected: many, errors }) => (success ? `Interfaces read: ${many}.` : errors.join("; ")));

  const forget = button("Forget the access token", () => {
    delete kept.token;
  });

  const asked = { resolution: "5min", format: "csv" };
  const pick = (label, key, pairs) => choice(label, pairs, asked[key], (value) => (asked[key] = value));
  const [from, to] = [el("input", { type: "date" }), el("input", { type: "date" })];
  const which = pick("Interface", "interface_name", []);
  const data = card("Export, backup",
    el("div.form", null, which, pick("A row for", "resolution", [["sample", "each sample"], ["5min", "5 minutes"], ["hour", "an hour"], ["day", "a day"]]),
      field("From", from), field("To", to), pick("Format", "format", [["csv", "CSV"], ["json", "JSON"]])),
    bar(button("Export", async () => {
      const query = Object.entries({ ...asked, start_time: from.value, end_time: to.value && `${to.value}T23:59:59` }).filter(([, value]) => value);
      const path = `api/export/traffic?${new URLSearchParams(query)}`;
      // Past this page, as it may be long; where reading needs the token, it cannot.
      download(config.private?.value ? await api(path, { file: true }) : path, asked.format);
    }), button("Backup", async () => download(await api("api/backup", { method: "POST", file: true }), "db"))));

  function download(what, ending) {
    const href = what.size ? URL.createObjectURL(what) : what;
    el("a", { href, download: `net-pulse-${new Date().toJSON().slice(0, 10)}.${ending}` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60000);
  }

  root.append(edit, el("div", null, card("Collection", bar(start, stop, collect)),
    card("This browser", choice("Colours", [["", "as the system has it"], ["light", "light"], ["dark", "dark"]], kept.theme ?? "", dress), bar(forget)), data));
  return {
    title: "Settings",
    update() {
      if (shell.settings && shell.settings !== config) {
        const edited = wanted();
        config = shell.settings;
        show(edited);
      }
      const stopped = shell.health?.collector_status === "stopped";
      start.hidden = !stopped;
      stop.hidden = stopped;
      forget.hidden = !kept.token;
      edit.hidden = !shell.settings;
      options(which.lastChild, [["", "all"], ...(shell.interfaces ?? []).map((iface) => [iface.name, called(iface)])], asked.interface_name);
      submit.disabled = undo.disabled = !Object.keys(wanted()).length;
    },
  };
}

export const views = { __proto__: null, usage: using(usage), interface: using(iface), system: using(system), settings: using(settings) };
