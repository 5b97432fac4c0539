// The page: asks the service for what changed, keeps the last answers, and shows them. It reads nothing back from the
// document and never makes markup out of data. While the tab is hidden it asks for nothing.

import { NOTHING, about, amounts, clock, mbit, seconds } from "./format.js";
import { greatest, hourly, join, mount } from "./chart.js";

const RING_S = 300;
// A rate older than this is not "now".
const FRESH_S = 10;
const PATIENCE_MS = 8000;
const SLOWEST_RETRY_MS = 15000;

const ring = { next: 0, t: [], interfaces: {} };
const of = { day: null, month: null, series: null };
let interfaces = null;
let primary = null;
let health = null;
// The router's clock less this one. Either may be wrong; the times that are asked for are the router's.
let skew = 0;
// When the service stopped answering; null while it answers.
let lost = null;

const now = () => Date.now() / 1000 + skew;

// What is asked for, how often in seconds, and where the answer goes. A path of null means that it is too early to ask.
// What is `ofPrimary` is asked for again when another interface becomes the primary.
const FEEDS = [
  { what: "rates", every: 1, path: () => `traffic/live?since=${ring.next}`, take: takeLive },
  { what: "interfaces", every: 10, path: () => "interfaces", take: takeInterfaces },
  { what: "health", every: 15, path: () => "system/health", take: takeHealth },
  { what: "last 24 hours", every: 60, ofPrimary: true, path: seriesPath, take: takeSeries },
  { what: "today", every: 30, ofPrimary: true, path: () => totalsPath("day"), take: (rows) => takeTotals("day", rows) },
  { what: "this month", every: 60, ofPrimary: true, path: () => totalsPath("month"), take: (rows) => takeTotals("month", rows) },
].map((feed) => ({ ...feed, due: 0, failures: 0 }));

const ofPrimary = (path) => primary && health && `${path}&interface=${encodeURIComponent(primary)}`;
const totalsPath = (by) => ofPrimary(`traffic/totals?by=${by}&limit=1`);

function seriesPath() {
  const to = Math.floor(now());
  return ofPrimary(`traffic/series?from=${to - 86400}&to=${to}&points=288`);
}

function takeLive(answer) {
  join(ring, { ...answer, t: answer.t.map(seconds) }, RING_S);
}

function takeInterfaces(answer) {
  interfaces = Object.values(answer);
  const chosen = interfaces.find((iface) => iface.primary)?.name ?? null;
  if (chosen === primary) return;
  primary = chosen;
  of.day = of.month = of.series = null;
  for (const feed of FEEDS) if (feed.ofPrimary) feed.due = 0;
}

function takeHealth(answer) {
  health = answer;
  skew = seconds(answer.timestamp) - Date.now() / 1000 || 0;
}

function takeSeries({ from, to, step, t, interfaces }) {
  of.series = { ...interfaces[primary], from: seconds(from), to: seconds(to), step, t: t.map(seconds) };
}

// A period that is over is not "today", even if it is the last one that is known.
function takeTotals(period, rows) {
  of[period] = rows.find((row) => seconds(row.from) <= now() && now() < seconds(row.to)) ?? null;
}

async function load(feed, path) {
  const asked = primary;
  feed.busy = true;
  feed.due = Date.now() + feed.every * 1000;
  const answer = await fetch(`api/${path}`, { signal: AbortSignal.timeout(PATIENCE_MS) }).catch(() => null);
  if (!answer) lost ??= Date.now();
  else if (lost) {
    lost = null;
    for (const other of FEEDS) other.due = 0;
  }
  feed.fault = null;
  try {
    if (answer && !answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? answer.status);
    const body = await answer?.json();
    if (feed.ofPrimary && asked !== primary) feed.due = 0;
    else if (answer) feed.take(body);
  } catch (error) {
    feed.fault = error.message;
  }
  feed.failures = answer && !feed.fault ? 0 : feed.failures + 1;
  if (feed.failures) feed.due = Math.max(feed.due, Date.now() + Math.min(1000 * 2 ** feed.failures, SLOWEST_RETRY_MS));
  feed.busy = false;
  turn();
  requestAnimationFrame(update);
}

let timer;

function turn() {
  clearTimeout(timer);
  if (document.hidden) return;
  const waiting = [];
  for (const feed of FEEDS) {
    const path = !feed.busy && feed.path();
    if (path && feed.due <= Date.now()) load(feed, path);
    else if (path) waiting.push(feed.due);
  }
  // With nothing to wait for, whatever is under way calls again.
  if (waiting.length) timer = setTimeout(turn, Math.min(...waiting) - Date.now());
}

// What is seen.

const $ = (id) => document.getElementById(id);
const chart = mount($("chart"));
const spark = mount($("spark"), true);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const rows = new Map();
let charted;
let sparked = 0;

// What did not change is not touched: screen readers announce, and selections end, where it is.
function show(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// For what is there only while there is something to say.
function tell(id, text) {
  $(id).hidden = !text;
  show($(id), text || "");
}

function update() {
  // Without an answer the last known rates stay, paled; with one that says nothing new they go.
  const fresh = lost || now() - ring.t.at(-1) < FRESH_S;
  const rate = (name, side) => mbit(fresh ? ring.interfaces[name]?.[side].at(-1) : null);
  const main = interfaces?.find((iface) => iface.name === primary);
  const idle = interfaces && !main;
  const stopped = health?.collector_status === "stopped";
  const ill = lost ? "no answer" : stopped ? "stopped" : health?.status !== "healthy" && health?.status;

  show($("state"), ill || (fresh ? "live" : "connecting"));
  $("state").className = ill ? "bad" : "";
  document.body.className = lost ? "stale" : "";
  tell("stopped", stopped && "Collection is stopped: nothing is being counted. A POST to /collector/start starts it again.");
  tell("trouble", trouble());

  tell("which", [main?.name, main?.alias].filter(Boolean).join(" · "));
  tell("waiting", idle && (interfaces.length
    ? "No interface has carried traffic yet. The main one appears here a few seconds after it does."
    : "No network interface was found. One that is plugged in appears here by itself."));
  $("rates").hidden = $("spark").hidden = idle;
  const both = ["rx", "tx"].map((side) => rate(primary, side));
  document.querySelectorAll("#rates b").forEach((node, i) => show(node, both[i]));
  document.title = fresh && main && !lost ? `↓ ${both[0]} ↑ ${both[1]} · Net-Pulse` : "Net-Pulse";

  if (!calm.matches || Date.now() - sparked > 10000) {
    sparked = Date.now();
    const columns = ring.interfaces[primary];
    const to = ring.t.at(-1) + 1;
    spark(columns ? { ...columns, t: ring.t, step: 1, from: to - RING_S, to } : null);
  }
  for (const period of ["day", "month"]) {
    const { rx_bytes: rx, tx_bytes: tx } = of[period] ?? {};
    const texts = of[period] ? amounts([rx, tx, rx + tx]) : [NOTHING, NOTHING, NOTHING];
    document.querySelectorAll(`#${period} dd`).forEach((node, i) => show(node, texts[i]));
  }
  const empty = of.series && greatest(of.series.rx, of.series.tx) === null;
  if (of.series !== charted) {
    charted = of.series;
    chart(empty ? null : charted);
    describe(charted);
  }
  tell("empty", (idle || empty)
    && "Nothing is recorded yet. The first figures appear here within a few minutes, and after a day the picture is whole. There is nothing to set up.");
  list(rate);
}

function trouble() {
  // A phone that wakes up often fails once: that is not worth a word.
  if (lost) return Date.now() - lost > 1500 && `No answer since ${clock(lost / 1000)}. What you see is from then, and goes on by itself once the router can be reached.`;
  const failed = FEEDS.find((feed) => feed.fault);
  if (failed) return `Not up to date: ${failed.what} (${failed.fault}). Trying again.`;
  const { database_status: database, collector_status: collector, reason } = health ?? {};
  const why = reason ? ` (${reason})` : "";
  if (health && database !== "healthy") return `The database cannot be written${why}. Counting goes on in memory, which a restart would lose: look at the disk and the log.`;
  return collector !== "stopped" && why && `Something needs a look${why}.`;
}

// The chart in words and as a table, for those who do not see it.
function describe(series) {
  const peak = (side) => mbit(greatest(series?.[`${side}_peak`], series?.[side]));
  $("chart").ariaLabel = `Traffic of the last 24 hours: down at most ${peak("rx")} Mbit/s, up at most ${peak("tx")} Mbit/s`;
  $("hours").tBodies[0].replaceChildren(...(series ? hourly(series) : []).map(([from, ...values]) => {
    const row = document.createElement("tr");
    for (const text of [clock(from), ...values.map(mbit)]) row.insertCell().textContent = text;
    return row;
  }));
}

function list(rate) {
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
    show(rx, monitored ? rate(name, "rx") : "");
    show(tx, monitored ? rate(name, "tx") : "");
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

document.addEventListener("visibilitychange", turn);
turn();
