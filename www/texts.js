// What the page says: names of settings and of the API's words, states, and sentences about what is not there, is waited for
// or failed. Headings and labels are the structure of a view, and stand in it. No view loads this file: `build.rs` gives
// each script the parts that it imports.

// An interface: its kind, where the API's word would not do, and that it is not there.
export const LINKS = {
  kinds: { ethernet: "Ethernet", wifi: "Wi-Fi", wwan: "mobile", ppp: "PPP", vpn: "VPN", vlan: "VLAN" },
  absent: "absent",
};

// The shell and the first view.
export const SHELL = {
  connecting: "connecting",
  live: "live",
  stopped: "stopped",
  lost: "no answer",
  silent: "the router does not answer",
  since: (time) => `No answer since ${time}. It goes on by itself once the router can be reached.`,
  late: (what, fault) => `Not up to date: ${what} (${fault}). Trying again.`,
  unsaved: (why) => `The database cannot be written${why}. Figures wait in memory, which a restart would lose: look at the disk and the log.`,
  unwell: (why) => `Something needs a look${why}.`,
  idle: "No interface has carried traffic yet. One that does appears here within seconds.",
  empty: "Nothing is recorded of this time. Figures appear minutes after the first traffic.",
  unwatched: "not chosen",
};

// The chart in the hands.
export const CURSOR = {
  none: "no cursor",
  known: (part, whole) => `known for ${part} of ${whole}`,
};

// What came of something that was done, in any view.
export const ACTIONS = {
  done: "Done.",
  unsaved: "Done, and not on disk yet.",
  undated: "with a wrong clock",
};

export const TOKEN = {
  refused: "That is not it.",
  where: " on the router prints it. This browser keeps it.",
};

export const USAGE = {
  part: " in part",
  begun: " so far",
  begunInPart: " so far, in part",
  early: "too early",
  empty: "Nothing is recorded of this time.",
  zone: (zone) => `Days are the router's (${zone}), times are yours.`,
  counted: "Counted at the interface, headers and the router's own traffic included: a provider may differ by a few per cent.",
};

export const INTERFACE = {
  none: "There is no such interface.",
  unwatched: "left out",
  watched: { null: "as the rules say", true: "always", false: "never" },
  lately: (time) => `in the last ${time}`,
  chosen: "Make it the headline",
  found: "Find the headline by its traffic",
  merge: (gone, name) => `Add all of ${gone} to ${name}, for good?`,
  forget: (name) => `Forget ${name} and its history, for good?`,
};

export const SYSTEM = {
  healthy: "all is well",
  clock: " The clock cannot be right yet: figures wait in memory.",
  last: (time) => `the last ${time}`,
  nothing: "nothing",
  unknown: "known after an hour",
};

export const SETTINGS = {
  // The settings' names, in groups.
  groups: {
    "What is watched": { interfaces: "Watch", ignore: "Leave out", primary: "Headline" },
    "How it is read": { interval: "Interval", max_retries: "Retries", retry_delay: "Time between them" },
    "How it is saved": { media: "Lies on", flush: "Save every" },
    "How long it is kept, in days": { keep_samples_days: "Samples", keep_5min_days: "Five minutes", keep_hours_days: "Hours" },
    "How it is shown": { timezone: "Time zone", units: "Rates in", prefixes: "Units" },
  },
  words: { si: "MB (1000)", iec: "MiB (1024)" },
  owned: (owner) => `Set by ${owner}: `,
  refused: "Not saved: see the marks.",
  collected: (many) => `Interfaces read: ${many}.`,
  everything: "all",
  rows: { sample: "each sample", "5min": "5 minutes", hour: "an hour", day: "a day" },
  formats: { csv: "CSV", json: "JSON" },
  colours: { "": "as the system has it", light: "light", dark: "dark" },
};
