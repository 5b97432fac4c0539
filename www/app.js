// The frame and the first view: requests new data from the API, keeps the latest answers, and shows them. It never
// reads from the document and never makes markup from data. While the tab is hidden, it sends no requests.

import { about, amounts, clock, day, rate, rateUnit, seconds, span, unitsOf } from "./format.js";
import { draw, emptyRing, greatest, join, plan } from "./chart.js";
import { SHELL } from "./texts.js";

const RING_S = 300;
// An older rate is not shown as the current one.
const FRESH_S = 10;
const TIMEOUT_MS = 8000;
// The router makes the whole backup before it sends the first byte.
const LONG_TIMEOUT_MS = 120000;
const SLOWEST_RETRY_MS = 15000;

const $ = (id) => document.getElementById(id);

const ring = emptyRing();
// If the browser forbids storage, values last until the page is closed.
let store = {};
try {
  store = localStorage ?? store;
} catch {}
// Clock of the router minus clock of the browser, in seconds. Requests use times of the router.
let skew = 0;
// Time of the first request without an answer, in ms; null while the router answers.
let lost = null;
// Time of the latest answer, in ms.
let answered = 0;

// State that all views share. `interfaces` is a list, or null before the first answer; `rates` returns texts.
const shell = {
  ring,
  interfaces: null,
  primary: null,
  health: null,
  settings: null,
  units: unitsOf(true, false),
  now: () => Date.now() / 1000 + skew,
  // While the router does not answer, the last rates stay, in pale. If it answers without new samples, they disappear.
  fresh: () => lost || shell.now() - ring.t.at(-1) < FRESH_S,
  rates: (name) => ["rx", "tx"].map((side) => rate(shell.fresh() ? ring.interfaces[name]?.[side].at(-1) : null, shell.units)),
  find: (name) => shell.interfaces?.find((iface) => iface.name === name),
};

const page = (name) => `#/interface/${encodeURIComponent(name)}`;
const ctx = { api, ask, configure, dress, el, go, store, page, paint, put, shell };

// Requests.

// Sends a request and returns the JSON of the answer; with `file`, the body as a Blob, whose download has no time
// limit.
async function api(path, { method, body, file } = {}) {
  const headers = {};
  if (store.token) headers.Authorization = `Bearer ${store.token}`;
  if (body) headers["Content-Type"] = "application/json";
  const began = Date.now();
  const stop = new AbortController();
  const timeout = setTimeout(() => stop.abort(), method || file ? LONG_TIMEOUT_MS : TIMEOUT_MS);
  const answer = await fetch(path, { method, headers, signal: stop.signal, body: body && JSON.stringify(body) }).catch(() => null);
  if (!answer) {
    // If another request was answered meanwhile, the router is alive and only this answer is slow.
    if (answered < began) lost ??= Date.now();
    throw new Error(SHELL.silent);
  }
  answered = Date.now();
  // The Date header has whole seconds and arrives late, so small differences mean nothing.
  const off = (Date.parse(answer.headers.get("Date")) - Date.now()) / 1000;
  if (Math.abs(off - skew) > 3) skew = off;
  if (lost) {
    lost = null;
    for (const feed of feeds()) feed.due = 0;
  }
  // 429: too many wrong tokens. The router still accepts the right one.
  if ([401, 429].includes(answer.status) && (method || !refused) && (await (asking ??= token()))) return api(path, { method, body, file });
  if (file) clearTimeout(timeout);
  const content = await (file && answer.ok ? answer.blob() : answer.json());
  clearTimeout(timeout);
  if (answer.ok) return content;
  const { detail } = content;
  const sentence = Array.isArray(detail) ? detail.map(({ loc, msg }) => `${loc.at(-1)}: ${msg}`).join("; ") : detail ?? answer.status;
  throw Object.assign(new Error(sentence), { detail });
}

// One dialog serves all requests that need the token. If the user cancels it, only a change opens it again.
let asking = null;
let refused = false;

async function token() {
  try {
    const { request } = await module("token");
    const given = await request(el, store);
    refused = !given;
    if (given) store.token = given;
    return given;
  } finally {
    asking = null;
  }
}

// A feed is a repeated request: `{ what, every, path, take }`. `every`: seconds between two requests; `path()`: URL, or
// null if there is nothing to request now; `take(answer)`: handles the answer. Setting `due` to 0 sends it at once.
function adopt(feed) {
  let due = 0;
  return Object.defineProperty(Object.assign(feed, { failures: 0 }), "due", {
    get: () => due,
    set(at) {
      due = at;
      if (!at) queueMicrotask(turn);
    },
  });
}

const FEEDS = [
  { what: "rates", every: 1, path: () => `api/traffic/live?since=${ring.next}`, take: (answer) => join(ring, { ...answer, t: answer.t.map(seconds) }, RING_S) },
  { what: "interfaces", every: 10, path: () => "api/interfaces", take: takeInterfaces },
  { what: "health", every: 15, path: () => "api/system/health", take: (answer) => (shell.health = answer) },
  { what: "settings", every: 300, path: () => "api/config", take: configure },
].map(adopt);

// Requests a feed at once, after a change.
function ask(what) {
  FEEDS.find((feed) => feed.what === what).due = 0;
}

const feeds = () => [...FEEDS, ...(view?.feeds ?? [])];

function takeInterfaces(answer) {
  shell.interfaces = Object.values(answer);
  shell.primary = shell.interfaces.find((iface) => iface.primary)?.name ?? null;
}

function configure({ settings }) {
  const { units, prefixes } = shell.settings = settings;
  shell.units = unitsOf(units?.value !== "bytes", prefixes?.value === "iec");
}

async function load(feed, path) {
  feed.busy = true;
  feed.due = Date.now() + feed.every * 1000;
  feed.fault = null;
  try {
    const answer = await api(path);
    // Drops the answer if the feed was requested again meanwhile, or if its view was left.
    if (feed.due && feeds().includes(feed)) feed.take(answer);
    feed.failures = 0;
  } catch (error) {
    feed.fault = error.message;
    feed.due = Math.max(feed.due, Date.now() + Math.min(1000 * 2 ** ++feed.failures, SLOWEST_RETRY_MS));
  }
  feed.busy = false;
  turn();
  paint();
}

let timer;

function turn() {
  clearTimeout(timer);
  if (document.hidden) return;
  const dues = [];
  for (const feed of feeds()) {
    const path = !feed.busy && feed.path();
    if (path && feed.due <= Date.now()) load(feed, path);
    else if (path) dues.push(feed.due);
  }
  // Feeds that are loading call `turn` when they end.
  if (dues.length) timer = setTimeout(turn, Math.min(...dues) - Date.now());
}

// Views.

// Makes an element. `tag` may have classes: `p.soft`. An attribute whose name is a property of the element is set as a
// property (`onclick`, `value`). Children are elements or text, never markup.
function el(tag, attributes, ...children) {
  const [name, ...classes] = tag.split(".");
  const node = document.createElement(name);
  node.classList.add(...classes);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name in node) node[name] = value;
    else if (value != null && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}

let view = null;
let visits = 0;

function go(hash, quietly) {
  if (!quietly) location.hash = hash;
  else {
    history.replaceState(null, "", hash);
    route();
  }
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const links = document.querySelectorAll("nav a");
// Names of the views: those that the frame links to, and "interface". Each is a file that is loaded on its first use.
const VIEWS = ["interface", ...Array.from(links, ({ hash }) => hash.slice(2)).filter(Boolean)];

// A browser may remember until the page is closed that the import of a module failed. So the next attempt uses another
// URL.
const modules = {};
let misses = 0;

function module(name) {
  return (modules[name] ??= import(`./${name}.js${misses ? `?${misses}` : ""}`).catch((error) => {
    misses++;
    modules[name] = null;
    throw error;
  }));
}

async function route() {
  const visit = ++visits;
  refused = false;
  const [path, query] = location.hash.slice(1).split("?");
  const [place = "", name = null] = path.split("/").slice(1).map(decoded);
  const params = new URLSearchParams(query);
  const key = [place, name].join();
  if (view?.key === key && view.change) view.change(params);
  else {
    const first = !view;
    let next = home;
    const root = el("div", { className: `more ${place}` });
    if (VIEWS.includes(place)) {
      const loaded = await Promise.all([module("elements"), module(place), sheet("views.css")]).catch(() => null);
      if (visit !== visits) return;
      // The router may be rebooting. Until the next attempt, the links of the frame still work.
      if (!loaded) return setTimeout(() => visit === visits && route(), 3000);
      const [{ elements }, { mount }] = loaded;
      next = mount({ ...ctx, ...elements(ctx), root, params, name });
    }
    view?.end?.();
    view = next;
    view.key = key;
    if (view === home) home.change(params);
    else view.feeds?.forEach(adopt);
    $("home").hidden = view !== home;
    $("other").replaceChildren(root);
    for (const link of links) link.ariaCurrent = link.hash === `#/${place}` ? "page" : null;
    if (!first) {
      scrollTo(0, 0);
      $("view").focus();
    }
  }
  turn();
  paint();
}

let sheets;

function sheet(href) {
  return (sheets ??= new Promise((onload, fail) => {
    const onerror = () => fail((sheets = null));
    document.head.append(el("link", { rel: "stylesheet", href, onload, onerror }));
  }));
}

// Painting.

let waiting = false;

function paint() {
  if (!waiting) requestAnimationFrame(update);
  waiting = true;
}

// Sets a text only if it changed: every write ends a selection and makes screen readers announce the text again.
function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Shows a text, or hides the element if the text is empty.
function showText(id, text) {
  $(id).hidden = !text;
  put($(id), text || "");
}

let notice;

// Shows the result of an action in the notice bar, for 8 seconds.
function note(text) {
  notice = text;
  paint();
  if (text) setTimeout(note, 8000);
}

function update() {
  waiting = false;
  const { health, primary } = shell;
  const stopped = health?.collector_status === "stopped";
  const ill = lost ? SHELL.lost : stopped ? SHELL.stopped : health?.status !== "healthy" && health?.status;
  put($("state"), ill || (shell.fresh() ? SHELL.live : SHELL.connecting));
  $("state").className = ill ? "bad" : "";
  document.body.classList.toggle("stale", !!lost);
  $("stopped").hidden = !stopped;
  showText("trouble", notice ?? trouble());
  const [down, up] = shell.rates(primary);
  const title = view?.title ?? (primary && shell.fresh() && !lost && `↓ ${down} ↑ ${up}`);
  document.title = [title, "Net-Pulse"].filter(Boolean).join(" · ");
  view?.update();
}

function trouble() {
  // The first request of a phone that wakes up often fails. That alone is not shown.
  if (lost) return Date.now() - lost > 1500 && SHELL.since(clock(lost / 1000));
  const failed = feeds().find((feed) => feed.fault);
  if (failed) return SHELL.late(failed.what, failed.fault);
  const { database_status: database, collector_status: collector, status, reason } = shell.health ?? {};
  const why = reason ? ` (${reason})` : "";
  if (database && database !== "healthy") return SHELL.unsaved(why);
  return collector !== "stopped" && why && (status === "healthy" ? `${reason[0].toUpperCase()}${reason.slice(1)}.` : SHELL.unwell(why));
}

// The first view. The URL's hash holds its state: range, interfaces, grouping.

const RANGES = { __proto__: null, "5m": 300, "1h": 3600, "6h": 21600, "24h": 86400, "7d": 604800, "30d": 2592000, "1y": 31536000 };
const GROUPS = { __proto__: null, auto: 0, "5 min": 300, hour: 3600, day: 86400 };
const MARKS = ["reset", "gap", "implausible", "clock_step"];

const home = {
  feeds: [
    { what: "history", every: 60, path: seriesPath, take: takeSeries },
    { what: "events", every: 60, path: eventsPath, take: takeEvents },
  ].map(adopt),
  change(params) {
    query = params;
    stale = true;
    for (const feed of home.feeds) feed.due = 0;
  },
  update: showHome,
};

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const rows = new Map();
let query;
let series = null;
let events = [];
let sketched = 0;
// `data`: what the chart shows; `look`: what explore.js adds (cursor, selection, moved range).
const plot = { canvas: $("chart"), look: {}, draw: () => (plot.left = draw(plot.canvas, { ...plot.data, ...plot.look })) };
// Whether `data` must be built again, and the function of explore.js to call then.
let stale;
let refresh;

const range = () => (query.get("range") in RANGES ? query.get("range") : "24h");
const whole = () => !(+query.get("to") > +query.get("from"));

// The range of the chart. `live`: the ring of the latest seconds holds it, so no request is needed.
function frame() {
  const last = ring.t.at(-1) + 1 || Math.floor(shell.now());
  const [from, to] = whole() ? [last - RANGES[range()], last] : [+query.get("from"), +query.get("to")];
  return { from, to, live: whole() ? range() === "5m" : ring.t.filter((time) => time >= from && time < to).length > 0.9 * (to - from) };
}

function chosen() {
  const known = query.getAll("i").filter(shell.find).slice(0, 8);
  return known[0] ? known : [shell.primary ?? []].flat();
}

const fits = ({ from, to }, step) => !step || (to - from <= 720 * step && to - from >= 2 * step);

function seriesPath() {
  const now = frame();
  // Without a name the API answers for the primary interface, so the request need not wait for the list of interfaces.
  if (now.live || (!chosen()[0] && (shell.interfaces || query.has("i")))) return null;
  const step = GROUPS[query.get("by")];
  const params = new URLSearchParams(plan(now.from, now.to, fits(now, step) && step));
  for (const name of chosen()) params.append("interface", name);
  return `api/traffic/series?${params}`;
}

function takeSeries({ first_day: day, step, t, interfaces }) {
  series = { ...frame(), day, step, t: t.map(seconds), lines: Object.entries(interfaces).map(([name, columns]) => ({ name, ...columns })) };
  home.feeds[0].every = Math.min(Math.max(step, 10), 300);
  stale = true;
}

function takeEvents(answer) {
  events = answer;
  stale = true;
}

function eventsPath() {
  const { from, to } = frame();
  return shell.interfaces && `api/events?limit=200&from=${from}&to=${to}&kind=${MARKS.join("&kind=")}`;
}

let exploring;

// Loads explore.js at the first pointer or focus event on the chart, then repeats a click that came before it was
// loaded. If loading fails, the next event tries again.
function reach(event) {
  if (refresh || !plot.data) return;
  exploring ??= module("explore").then(
    ({ explore }) => (refresh = explore(plot, { ...ctx, RANGES, hash: () => query, chosen, whole, marks, $, showText })),
    () => (exploring = null),
  );
  const { type, target } = event;
  if (type === "click" && target.matches("button, canvas")) exploring.then(() => refresh && target.dispatchEvent(new MouseEvent(type, event)));
}

for (const event of ["pointerover", "focusin", "click"]) $("history").addEventListener(event, reach);

const marks = () => events.filter(({ time, interface: name }) => time && (!name || chosen().includes(name)))
  .map(({ time, interface: name, detail }) => [seconds(time), `${name} ${detail}`]);

function showHistory() {
  const now = frame();
  if (!stale && !now.live) return;
  stale = false;
  const { units } = shell;
  const names = chosen();
  const { step, lines } = plot.data = {
    ...now.live
      ? { ...now, t: ring.t, step: 1, lines: names.map((name) => ({ name, ...ring.interfaces[name] })).filter((line) => line.rx) }
      : { t: [], step: 60, lines: [], ...now, ...series, ...!whole() && now },
    units: units.rate,
    overlaid: query.has("over"),
    marks: marks().map(([time]) => time),
  };
  plot.draw();
  refresh?.();
  put($("step"), `averages of ${span(step)}${now.live ? "" : ", pale: peaks"}`);
  for (const button of $("ranges").children) button.ariaPressed = whole() && button.textContent === range();
  $("whole").disabled = whole();
  $("over").ariaPressed = query.has("over");
  const by = $("by");
  by.value = query.get("by") ?? "auto";
  for (const option of by) option.disabled = !fits(now, GROUPS[option.value]);
  if (!by.value || by.selectedOptions[0].disabled) by.value = "auto";
  showText("empty", (now.live || series) && greatest(...lines.flatMap(({ rx, tx }) => [rx, tx])) === null
    && SHELL.empty);
  plot.canvas.ariaLabel = `Traffic of ${names.join(", ")} from ${day(now.from)} ${clock(now.from)} to ${day(now.to)} ${clock(now.to)}`;
}

function again() {
  stale = true;
  sketched = 0;
  paint();
}

function showHome() {
  const { interfaces, primary, units } = shell;
  const main = shell.find(primary);
  const idle = interfaces && !main;
  showText("which", main && `${primary} ${main.alias}`);
  showText("waiting", idle && SHELL.idle);
  $("rates").hidden = $("spark").hidden = $("today").hidden = idle;
  document.querySelectorAll("#rates b").forEach((node, i) => put(node, shell.rates(primary)[i]));
  document.querySelectorAll(".unit").forEach((node) => put(node, rateUnit(units)));
  const [down, up] = amounts([main?.today_rx_bytes, main?.today_tx_bytes], units);
  put($("today"), `Today ↓ ${down} ↑ ${up}`);
  list();
  if (ring.next > sketched + (calm.matches && 10) || ring.next < sketched) {
    sketched = ring.next;
    const to = ring.t.at(-1) + 1;
    for (const [name, canvas] of [[primary, $("spark")], ...[...rows].map(([name, nodes]) => [name, nodes[5]])])
      draw(canvas, { t: ring.t, step: 1, lines: [ring.interfaces[name] ?? []].flat(), from: to - RING_S, to, units: units.rate, bare: true });
  }
  showHistory();
}

function list() {
  const { interfaces, units } = shell;
  for (const name of rows.keys()) if (!shell.find(name)) rows.delete(name);
  const rank = (iface) => (iface.primary ? 0 : iface.status === "up" ? 1 : 2);
  const sorted = [...interfaces ?? []].sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name, "en", { numeric: true }));
  const today = amounts(sorted.map((iface) => (iface.monitored ? iface.today_rx_bytes + iface.today_tx_bytes : null)), units);
  const parts = { watched: [], ignored: [], who: [] };
  sorted.forEach((iface, i) => {
    const { name, alias, monitored, ignored_because: reason } = iface;
    if (!rows.has(name)) {
      const row = $("row").content.firstChild.cloneNode(true);
      rows.set(name, [row, el("button", { value: name }), ...row.querySelectorAll("a, small, p, td, canvas")]);
    }
    const [row, chip, link, second, what, canvas, ...cells] = rows.get(name);
    row.className = iface.primary ? "primary" : iface.status;
    link.href = page(name);
    chip.ariaPressed = chosen().includes(name);
    const texts = [name, alias, monitored ? about(iface) : reason ?? SHELL.unwatched, ...monitored ? [...shell.rates(name), today[i]] : []];
    [link, second, what, ...cells].forEach((node, i) => put(node, texts[i] ?? ""));
    put(chip, alias || name);
    parts[monitored ? "watched" : "ignored"].push(row);
    if (monitored) parts.who.push(chip);
  });
  const fold = $("fold");
  fold.hidden = !parts.ignored[0];
  put(fold.firstElementChild, `${parts.ignored.length} ignored`);
  // There may be hundreds of ignored interfaces, so their rows exist only while the list is open.
  fold.ontoggle = paint;
  if (!fold.open) parts.ignored = [];
  // Moving a row ends a selection in it, so rows are replaced only if their order changed.
  for (const [id, wanted] of Object.entries(parts)) {
    const shown = $(id).children;
    if (shown.length !== wanted.length || wanted.some((row, i) => row !== shown[i])) $(id).replaceChildren(...wanted);
  }
  $("who").hidden = !parts.who[1];
}

// Sets the colours: light, dark, or "" for those of the system.
function dress(theme) {
  if (theme != null) store.theme = theme;
  document.documentElement.dataset.theme = store.theme ?? "";
  again();
}

dress();
matchMedia("(prefers-color-scheme: dark)").onchange = onresize = again;
$("stopped").lastElementChild.onclick = () => api("collector/start", { method: "POST" }).then(() => ask("health"), (error) => note(error.message));
document.onvisibilitychange = turn;
onhashchange = route;
route();
