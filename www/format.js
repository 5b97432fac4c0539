// Numbers, times and names as people read them. Pure: no page, no network, no clock of its own.

// One table for every unit: its name, and how many bytes (or bytes per second) it is. Smallest first. Powers of ten, as
// plans and links are sold.
export const UNITS = {
  amount: [["kB", 1e3], ["MB", 1e6], ["GB", 1e9], ["TB", 1e12], ["PB", 1e15]],
  rate: [["kbit/s", 125], ["Mbit/s", 125e3], ["Gbit/s", 125e6], ["Tbit/s", 125e9]],
};

export const NOTHING = "–";

// The API's words for kinds, where saying them as they are would not do.
const KINDS = {
  ethernet: "Ethernet", wifi: "Wi-Fi", wwan: "mobile", ppp: "PPP", vpn: "VPN", vlan: "VLAN", veth: "virtual pair", apple: "Apple",
};

const DAYS = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

// The largest unit of which `most` is at least one.
export function unitFor(units, most) {
  return units.findLast(([, size]) => most >= size) ?? units[0];
}

// Bytes per second in Mbit/s. Two digits behind the point whatever the value is: a column of rates stays aligned and never
// changes its unit.
export function mbit(rate) {
  if (rate == null) return NOTHING;
  const value = rate / 125e3;
  return value > 0 && value < 0.005 ? "<0.01" : value.toFixed(2);
}

// Amounts that stand together, in bytes: all in the unit of the greatest, or they could not be compared at a glance.
export function amounts(values) {
  const most = Math.max(...values);
  const [name, size] = unitFor(UNITS.amount, most);
  return values.map((value) => `${(value / size).toFixed(most / size < 100 ? 2 : 1)} ${name}`);
}

// The API's times, RFC 3339 or Unix seconds, as the latter.
export function seconds(time) {
  return typeof time === "number" ? time : Date.parse(time) / 1000;
}

// Local wall time of Unix seconds.
export function clock(unix) {
  const date = new Date(unix * 1000);
  return [date.getHours(), date.getMinutes()].map((part) => String(part).padStart(2, "0")).join(":");
}

export function day(unix) {
  const date = new Date(unix * 1000);
  return `${DAYS[date.getDay()]} ${date.getDate()} ${MONTHS[date.getMonth()]}`;
}

// What an interface is, in one line.
export function about({ kind, present, status, speed, parent }) {
  const link = speed && (speed < 1000 ? `${speed} Mbit/s` : `${speed / 1000} Gbit/s`);
  return [KINDS[kind] ?? kind, present === false ? "absent" : status, link, parent && `${kind === "vlan" ? "on" : "in"} ${parent}`].filter(Boolean).join(" · ");
}
