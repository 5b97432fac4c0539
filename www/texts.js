// Texts of the page: names of settings, labels for words of the API, states and sentences. Headings and field labels
// stand in the views. The browser never loads this file: `build.rs` copies into each script the tables that it imports.

// An interface: labels of kinds that differ from the API's word, and the state of an interface without a link.
export const LINKS = {
  kinds: { ethernet: "Ethernet", wifi: "Wi-Fi", wwan: "mobile", ppp: "PPP", vpn: "VPN", vlan: "VLAN" },
  absent: "absent",
};

// The frame and the first view.
export const SHELL = {
  connecting: "connecting",
  live: "live",
  stopped: "stopped",
  lost: "no answer",
  silent: "the router does not answer",
  since: (time) => `No answer since ${time}. The page continues when the router answers.`,
  late: (what, fault) => `Cannot update ${what} (${fault}). Trying again.`,
  unsaved: (why) => `Cannot write the database${why}. A restart would lose the new figures: check the disk and the log.`,
  unwell: (why) => `Something is wrong${why}.`,
  idle: "No interface has carried traffic yet. One with traffic appears here within seconds.",
  empty: "No data for this time. Data appears minutes after the first traffic.",
  unwatched: "not watched",
};

// The cursor of the chart.
export const CURSOR = {
  none: "no cursor",
  known: (part, whole) => `measured ${part} of ${whole}`,
};

// Results of actions, in any view.
export const ACTIONS = {
  done: "Done.",
  unsaved: "Done, but not saved to disk yet.",
  undated: "time unknown",
};

export const TOKEN = {
  refused: "Wrong token.",
  where: " on the router prints it. This browser stores it.",
};

export const USAGE = {
  part: " incomplete",
  begun: " so far",
  begunInPart: " so far, incomplete",
  early: "too early",
  empty: "No data for this time.",
  zone: (zone) => `Days are in the router's time zone (${zone}), times in yours.`,
  counted: "Counted at the interface, with packet headers and the router's own traffic: your provider may count a few percent differently.",
};

export const INTERFACE = {
  none: "There is no such interface.",
  unwatched: "ignored",
  watched: { null: "by the rules", true: "always", false: "never" },
  lately: (time) => `in the last ${time}`,
  chosen: "Make it primary",
  found: "Choose the primary by traffic",
  merge: (gone, name) => `Merge ${gone} into ${name}? This cannot be undone.`,
  forget: (name) => `Forget ${name} and its history? This cannot be undone.`,
};

export const SYSTEM = {
  healthy: "all is well",
  clock: " The clock is not right yet: the figures stay in memory.",
  last: (time) => `the last ${time}`,
  nothing: "nothing",
  unknown: "known after an hour",
};

export const SETTINGS = {
  // Names of the settings, in groups.
  groups: {
    "Interfaces": { interfaces: "Watch", ignore: "Ignore", primary: "Primary" },
    "Reading": { interval: "Interval", max_retries: "Retries", retry_delay: "Retry delay" },
    "Saving": { media: "Storage", flush: "Save every" },
    "Retention in days": { keep_samples_days: "Samples", keep_5min_days: "5 minutes", keep_hours_days: "Hours" },
    "Display": { timezone: "Time zone", units: "Rates in", prefixes: "Units" },
  },
  words: { si: "MB (1000)", iec: "MiB (1024)" },
  owned: (owner) => `Set by ${owner}: `,
  refused: "Not saved: see the errors.",
  collected: (many) => `Interfaces read: ${many}.`,
  everything: "all",
  rows: { sample: "each sample", "5min": "5 minutes", hour: "an hour", day: "a day" },
  formats: { csv: "CSV", json: "JSON" },
  colours: { "": "as the system", light: "light", dark: "dark" },
};
