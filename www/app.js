// The shell and the first view: asks the service for what changed, keeps the last answers, and shows them. It reads
// nothing back from the document and never makes markup out of data. While the tab is hidden it asks for nothing.

import { NOTHING, about, amounts, clock, rate, rateUnit, seconds, unitsOf } from "./format.js";
import { greatest, hourly, join, mount } from "./chart.js";

const RING_S = 300;
// A rate older than this is not "now".
const FRESH_S = 10;
const PATIENCE_MS = 8000;
// A backup is made before its first byte is sent.
const LONG_PATIENCE_MS = 120000;
const SLOWEST_RETRY_MS = 15000;

const $ = (id) => document.getElementById(id);

const ring = { next: 0, t: [], interfaces: {} };
// The router's clock less this one. Either may be wrong; the times that are asked for are the router's.
let skew = 0;
// When the service stopped answering; null while it answers.
let lost = null;

// What every view may look at. `interfaces` is a list, null until it is known; rates are bytes per second.
const shell = {
  ring,
  interfaces: null,
  primary: null,
  health: null,
  units: unitsOf(true, false),
  now: () => Date.now() / 1000 + skew,
  // Without an answer the last known rates stay, paled; with one that says nothing new they go.
  fresh: () => lost || shell.now() - ring.t.at(-1) < FRESH_S,
  rate: (name, side) => (shell.fresh() ? ring.interfaces[name]?.[side].at(-1) : null) ?? null,
};

const ctx = { shell, api, el, note, go, paint };

// The service.

async function api(path, { method, body } = {}) {
  const headers = {};
  if (localStorage.token) headers.Authorization = `Bearer ${localStorage.token}`;
  if (body) headers["Content-Type"] = "application/json";
  const signal = AbortSignal.timeout(method ? LONG_PATIENCE_MS : PATIENCE_MS);
  const answer = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body) }).catch(() => null);
  if (!answer) {
    lost ??= Date.now();
    throw new Error("the router does not answer");
  }
  if (lost) {
    lost = null;
    for (const feed of feeds()) feed.due = 0;
  }
  if (answer.status === 401 && (await token(method))) return api(path, { method, body });
  const json = answer.headers.get("Content-Type") === "application/json";
  const content = await (json ? answer.json() : answer.blob());
  if (answer.ok) return content;
  const { detail } = content;
  throw new Error(Array.isArray(detail) ? detail.map(({ loc, msg }) => `${loc.at(-1)}: ${msg}`).join("; ") : detail ?? answer.status);
}

// Asked for once, however many requests want it; who does not give it is asked again only for a change.
let asking = null;
let refused = false;

function token(change) {
  if (refused && !change) return false;
  return (asking ??= new Promise((done) => {
    const dialog = $("ask");
    dialog.returnValue = "";
    dialog.showModal();
    dialog.onclose = () => {
      refused = !dialog.returnValue;
      if (!refused) localStorage.token = $("token").value.trim();
      asking = null;
      done(!refused);
    };
  }));
}

// What is asked for again and again: `{ what, every, path, take }`, seconds between two questions, and where the answer
// goes. A path that is not true means that there is nothing to ask now. Setting `due` to 0 asks at once.
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
  { what: "health", every: 15, path: () => "api/system/health", take: takeHealth },
  { what: "settings", every: 300, path: () => "api/config", take: takeSettings },
].map(adopt);

const feeds = () => [...FEEDS, ...(view?.feeds ?? [])];

function takeInterfaces(answer) {
  shell.interfaces = Object.values(answer);
  shell.primary = shell.interfaces.find((iface) => iface.primary)?.name ?? null;
}

function takeHealth(answer) {
  shell.health = answer;
  skew = seconds(answer.timestamp) - Date.now() / 1000 || 0;
}

function takeSettings({ settings: { units, prefixes } }) {
  shell.units = unitsOf(units?.value !== "bytes", prefixes?.value === "iec");
}

async function load(feed, path) {
  feed.busy = true;
  feed.due = Date.now() + feed.every * 1000;
  feed.fault = null;
  try {
    const answer = await api(path);
    // Asked for anew meanwhile, or nobody is interested any more.
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
  const waiting = [];
  for (const feed of feeds()) {
    const path = !feed.busy && feed.path();
    if (path && feed.due <= Date.now()) load(feed, path);
    else if (path) waiting.push(feed.due);
  }
  // With nothing to wait for, whatever is under way calls again.
  if (waiting.length) timer = setTimeout(turn, Math.min(...waiting) - Date.now());
}

// Views.

// Text only, never markup. A name that is a property of the element is set as such (`onclick`, `className`, `value`).
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
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

async function route() {
  const [path, query] = location.hash.slice(1).split("?");
  const [place = "", name = null] = path.split("/").slice(1).map(decodeURIComponent);
  const params = new URLSearchParams(query);
  const key = [place, name].join();
  if (view?.key === key && view.change) view.change(params);
  else {
    const visit = ++visits;
    const first = !view;
    let next = home;
    const root = el("div");
    if (place) {
      const more = await Promise.all([import("./more.js"), sheet("more.css")]).catch(() => null);
      if (visit !== visits) return;
      // A router that reboots: the nav is there, and the way back too.
      if (!more) return setTimeout(() => visit === visits && route(), 3000);
      next = more[0].views[place]?.({ ...ctx, root, params, name }) ?? home;
    }
    view?.end?.();
    view = next;
    view.key = key;
    (view.feeds ?? []).forEach(adopt);
    if (view === home) home.change(params);
    $("home").hidden = view !== home;
    $("other").replaceChildren(root);
    for (const link of document.querySelectorAll("nav a")) link.ariaCurrent = link.hash === `#/${place}` ? "page" : null;
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
  return (sheets ??= new Promise((onload, onerror) => document.head.append(el("link", { rel: "stylesheet", href, onload, onerror }))));
}

// What is seen.

let drawn = true;

function paint() {
  if (drawn) requestAnimationFrame(update);
  drawn = false;
}

// What did not change is not touched: screen readers announce, and selections end, where it is.
function show(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// For what is there only while there is something to say.
function tell(id, text) {
  $(id).hidden = !text;
  show($(id), text || "");
}

let said = null;

// Says in the quiet bar what came of something that somebody did.
function note(text) {
  said = text;
  setTimeout(() => {
    if (said === text) said = null;
    paint();
  }, 8000);
  paint();
}

function update() {
  drawn = true;
  const { health, primary, units } = shell;
  const stopped = health?.collector_status === "stopped";
  const ill = lost ? "no answer" : stopped ? "stopped" : health?.status !== "healthy" && health?.status;
  show($("state"), ill || (shell.fresh() ? "live" : "connecting"));
  $("state").className = ill ? "bad" : "";
  document.body.classList.toggle("stale", !!lost);
  $("stopped").hidden = !stopped;
  tell("trouble", said ?? trouble());
  const both = ["rx", "tx"].map((side) => rate(shell.rate(primary, side), units));
  const title = view?.title ?? (primary && shell.fresh() && !lost && `↓ ${both[0]} ↑ ${both[1]}`);
  document.title = [title, "Net-Pulse"].filter(Boolean).join(" · ");
  view?.update();
}

function trouble() {
  // A phone that wakes up often fails once: that is not worth a word.
  if (lost) return Date.now() - lost > 1500 && `No answer since ${clock(lost / 1000)}. What you see is from then, and goes on by itself once the router can be reached.`;
  const failed = feeds().find((feed) => feed.fault);
  if (failed) return `Not up to date: ${failed.what} (${failed.fault}). Trying again.`;
  const { database_status: database, collector_status: collector, reason } = shell.health ?? {};
  const why = reason ? ` (${reason})` : "";
  if (database && database !== "healthy") return `The database cannot be written${why}. Counting goes on in memory, which a restart would lose: look at the disk and the log.`;
  return collector !== "stopped" && why && `Something needs a look${why}.`;
}

// The first view.

const home = { feeds: [{ what: "history", every: 60, path: seriesPath, take: takeSeries }], change() {}, update: showHome };

const chart = mount($("chart"));
const spark = mount($("spark"), true);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const rows = new Map();
let series = null;
let charted;
let sparked = 0;

function seriesPath() {
  const to = Math.floor(shell.now());
  return shell.primary && shell.health && `api/traffic/series?from=${to - 86400}&to=${to}&points=288&interface=${encodeURIComponent(shell.primary)}`;
}

function takeSeries({ from, to, step, t, interfaces }) {
  series = { ...interfaces[shell.primary], from: seconds(from), to: seconds(to), step, t: t.map(seconds) };
}

function showHome() {
  const { interfaces, primary, units } = shell;
  const main = interfaces?.find((iface) => iface.name === primary);
  const idle = interfaces && !main;
  tell("which", [main?.name, main?.alias].filter(Boolean).join(" · "));
  tell("waiting", idle && (interfaces.length
    ? "No interface has carried traffic yet. The main one appears here a few seconds after it does."
    : "No network interface was found. One that is plugged in appears here by itself."));
  $("rates").hidden = $("spark").hidden = idle;
  document.querySelectorAll("#rates b").forEach((node, i) => show(node, rate(shell.rate(primary, i ? "tx" : "rx"), units)));

  if (!calm.matches || Date.now() - sparked > 10000) {
    sparked = Date.now();
    const columns = ring.interfaces[primary];
    const to = ring.t.at(-1) + 1;
    spark(columns ? { ...columns, t: ring.t, step: 1, from: to - RING_S, to } : null);
  }
  const empty = series && greatest(series.rx, series.tx) === null;
  if (series !== charted) {
    charted = series;
    chart(empty ? null : charted);
  }
  tell("empty", (idle || empty)
    && "Nothing is recorded yet. The first figures appear here within a few minutes, and after a day the picture is whole. There is nothing to set up.");
  list();
}

function list() {
  const { interfaces, units } = shell;
  for (const name of rows.keys()) if (!interfaces.some((iface) => iface.name === name)) rows.delete(name);
  const rank = (iface) => (iface.primary ? 0 : iface.status === "up" ? 1 : 2);
  const parts = { watched: [], ignored: [] };
  for (const iface of (interfaces ?? []).toSorted((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name, "en", { numeric: true }))) {
    const { name, alias, monitored, ignored_because: reason } = iface;
    if (!rows.has(name)) rows.set(name, $("row").content.firstChild.cloneNode(true));
    const row = rows.get(name);
    row.className = iface.primary ? "primary" : iface.status;
    const [head, rx, tx] = row.children;
    show(head.children[0], name);
    show(head.children[1], alias ?? "");
    show(head.children[2], monitored ? about(iface) : reason ?? "not chosen");
    show(rx, monitored ? rate(shell.rate(name, "rx"), units) : "");
    show(tx, monitored ? rate(shell.rate(name, "tx"), units) : "");
    parts[monitored ? "watched" : "ignored"].push(row);
  }
  // Moving a row takes the selection from it: only when something moved.
  for (const [id, wanted] of Object.entries(parts)) {
    const shown = $(id).children;
    if (shown.length !== wanted.length || wanted.some((row, i) => row !== shown[i])) $(id).replaceChildren(...wanted);
  }
  const fold = document.querySelector("details");
  fold.hidden = !parts.ignored.length;
  show(fold.firstElementChild, `${parts.ignored.length} ignored`);
}

// By hand it is light or dark, else as the system has it.
export function dress(theme) {
  if (theme !== undefined) localStorage.theme = theme;
  document.documentElement.dataset.theme = localStorage.theme ?? "";
}
ctx.dress = dress;
dress();

$("stopped").lastElementChild.onclick = () => api("collector/start", { method: "POST" }).then(() => (FEEDS[2].due = 0), (error) => note(error.message));
document.addEventListener("visibilitychange", turn);
addEventListener("hashchange", route);
route();
