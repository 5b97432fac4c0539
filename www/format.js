// Formats numbers, times and names. Pure: uses no document, no network and no clock.

import { LINKS } from "./texts.js";

export const NOTHING = "–";

// Names of units with their size in bytes (or bytes per second), smallest first. Rates are in bits or bytes per second,
// amounts always in bytes; each prefix is 1000 or 1024 times the one before.
export function unitsOf(bits, iec) {
  const table = (name, size) => ["k", "M", "G", "T", "P"].map((prefix, i) =>
    [(iec ? `${prefix.toUpperCase()}i` : prefix) + name, size * (iec ? 1024 : 1000) ** (i + 1)]);
  return { rate: bits ? table("bit/s", 1 / 8) : table("B/s", 1), amount: table("B", 1) };
}

// The largest unit that is not larger than `most`.
export function unitFor(units, most) {
  return units.findLast(([, size]) => most >= size) ?? units[0];
}

// Unit of all rates in columns. It is fixed, so that the numbers in a column stay comparable.
export const rateUnit = (units) => units.rate[1][0];

// Bytes per second in that unit, without its name. Two digits after the point keep a column aligned; large numbers have
// fewer, so that they take at most six characters.
export function rate(value, units) {
  if (value == null) return NOTHING;
  value /= units.rate[1][1];
  return value > 0 && value < 0.005 ? "<0.01" : value.toFixed(value < 999.995 ? 2 : value < 9999.95 ? 1 : 0);
}

// Amounts (or rates: `kind`) that are shown together, all in the unit of the greatest, so that readers can compare
// them. A value that is not a finite number is unknown.
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

// A time of the API, RFC 3339 or Unix seconds, as Unix seconds.
export function seconds(time) {
  return typeof time === "number" ? time : Date.parse(time) / 1000;
}

// Unix seconds as local wall time: `11:30`, or `11:30:05` if `exact`.
export const clock = (unix, exact) => new Date(unix * 1000).toTimeString().slice(0, exact ? 8 : 5);

// Unix seconds as a local date: `Thu Jan 15`, with the year if `exact`.
export const day = (unix, exact) => new Date(unix * 1000).toDateString().slice(0, exact ? 15 : 10);

// The same for a date of the API, `2026-01-15`, plus `later` days. The reader's time zone does not matter.
export function dayOf(date, exact, later = 0) {
  const noon = new Date(`${date}T12:00`);
  return day(noon.setDate(noon.getDate() + later) / 1000, exact);
}

// A duration in seconds as its two greatest units: `2 d 3 h`.
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

// An interface in one line: kind, state, speed, parent.
export function about({ kind, present, status, speed, parent }) {
  const link = speed && (speed < 1000 ? `${speed} Mbit/s` : `${speed / 1000} Gbit/s`);
  return [LINKS.kinds[kind] ?? kind, present === false ? LINKS.absent : status, link, parent && `${kind === "vlan" ? "on" : "in"} ${parent}`].filter(Boolean).join(" · ");
}
