// Numbers, times and names as people read them. Pure: no page, no network, no clock of its own.

import { LINKS } from "./texts.js";

export const NOTHING = "–";

// The names of units and how many bytes (or bytes per second) they are, smallest first. Rates are bits or bytes per
// second, prefixes go up by 1000 or by 1024; amounts are bytes always.
export function unitsOf(bits, iec) {
  const table = (name, size) => ["k", "M", "G", "T", "P"].map((prefix, i) =>
    [(iec ? `${prefix.toUpperCase()}i` : prefix) + name, size * (iec ? 1024 : 1000) ** (i + 1)]);
  return { rate: bits ? table("bit/s", 1 / 8) : table("B/s", 1), amount: table("B", 1) };
}

// The largest unit of which `most` is at least one.
export function unitFor(units, most) {
  return units.findLast(([, size]) => most >= size) ?? units[0];
}

// What all rates in columns are written in: one unit for all, so that none jumps between neighbours.
export const rateUnit = (units) => units.rate[1][0];

// Bytes per second in that unit, without its name. Two digits behind the point, so that a column of rates stays aligned;
// what is so large that it would need more than six signs has fewer.
export function rate(value, units) {
  if (value == null) return NOTHING;
  value /= units.rate[1][1];
  return value > 0 && value < 0.005 ? "<0.01" : value.toFixed(value < 999.995 ? 2 : value < 9999.95 ? 1 : 0);
}

// Amounts, or what else has units, that stand together: all in the unit of the greatest, or they could not be compared at
// a glance. What is no number is not known.
export function amounts(values, units, kind = "amount") {
  const most = Math.max(0, ...values.filter(Number.isFinite));
  const [name, size] = unitFor(units[kind], most);
  const digits = most / size < 100 ? 2 : 1;
  const least = 10 ** -digits;
  return values.map((value) => {
    if (!Number.isFinite(value)) return NOTHING;
    value /= size;
    return `${value > 0 && value < least / 2 ? `<${least}` : value.toFixed(digits)} ${name}`;
  });
}

// The API's times, RFC 3339 or Unix seconds, as the latter.
export function seconds(time) {
  return typeof time === "number" ? time : Date.parse(time) / 1000;
}

// Local wall time of Unix seconds: `11:30`, or `11:30:05` where seconds count.
export const clock = (unix, exact) => new Date(unix * 1000).toTimeString().slice(0, exact ? 8 : 5);

// `Thu Jan 15`, with the year where another one than today's may be meant.
export const day = (unix, exact) => new Date(unix * 1000).toDateString().slice(0, exact ? 15 : 10);

// The same of a date that the router tells, `2026-01-15`, or so many days later, wherever the reader lives.
export function dayOf(date, exact, later = 0) {
  const noon = new Date(`${date}T12:00`);
  return day(noon.setDate(noon.getDate() + later) / 1000, exact);
}

// Seconds as the two greatest units.
export function span(length) {
  let rest = Math.max(0, Math.round(length));
  const found = [];
  for (const [name, size] of [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]]) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count || found.length) found.push(count && `${count} ${name}`);
  }
  return found.slice(0, 2).filter(Boolean).join(" ") || "0 s";
}

// What an interface is, in one line.
export function about({ kind, present, status, speed, parent }) {
  const link = speed && (speed < 1000 ? `${speed} Mbit/s` : `${speed / 1000} Gbit/s`);
  return [LINKS.kinds[kind] ?? kind, present === false ? LINKS.absent : status, link, parent && `${kind === "vlan" ? "on" : "in"} ${parent}`].filter(Boolean).join(" · ");
}
