// The view of the system: state of Net-Pulse, history, machine, events. Pure calculations come first.

import { seconds, span } from "./format.js";
import { SYSTEM } from "./texts.js";

// The state in one or two sentences.
export function stateText({ status, reason, details: { clock } }) {
  const how = reason ?? (status === "healthy" ? SYSTEM.healthy : status);
  return `${how[0].toUpperCase()}${how.slice(1)}.${clock?.believed === false ? SYSTEM.clock : ""}`;
}

export function mount({ root, shell, el, put, card, facts, list, log, sizes, story, when }) {
  let info, metrics, events;
  const feeds = [
    { what: "the machine", every: 60, path: () => "api/system/info", take: (answer) => (info = answer) },
    { what: "load", every: 15, path: () => "api/system/metrics", take: (answer) => (metrics = answer) },
    { what: "events", every: 60, path: () => "api/events?limit=200", take: (answer) => (events = answer) },
  ];
  const words = el("p");
  const [states, history, machine, timeline] = [list(), list(), list(), log()];
  root.append(card("Status", words, states), card("History", history), card("Machine", machine), card("Events", timeline));
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
        put(words, stateText(health));
        facts(states, [
          ["Reading", `${health.collector_status}, every ${span(collector.configuration.polling_interval)}`], ["Saving", health.database_status],
          ["Interfaces", `${health.interfaces_status}, ${interfaces.monitored_interfaces} watched`],
          ["Last reading", ago(stats.last_successful_poll)], ["Failed readings", stats.failed_polls],
          ["Last error", collector.last_error ?? database.error], ["Source", [collector.source, collector.source_note].filter(Boolean).join(": ")],
        ]);
        facts(history, [
          ["File", database.database_path], ["Size", amount(database.database_size_bytes)],
          ["Last saved", ago(database.last_saved)], ["Saved every", database.flush_interval_seconds && span(database.flush_interval_seconds)],
          ["A power cut now would lose", since ? SYSTEM.last(span(since)) : SYSTEM.nothing],
          ["of the primary", since && database.unsaved_rx_bytes != null && sizes([database.unsaved_rx_bytes, database.unsaved_tx_bytes])],
          ["Written in a day", database.bytes_written_per_day === null ? SYSTEM.unknown : amount(database.bytes_written_per_day)],
          ["Failed saves", database.save_failures], ["Disk in use", metrics && `${Math.round(metrics.disk_usage_percent)} %`],
        ]);
      }
      facts(machine, [
        ["Up for", info && span(info.uptime_seconds)], ["Memory free", info && sizes([info.memory_available, info.memory_total]).join(" of ")],
        ["Net-Pulse", info?.version], ["Running for", collector && span(collector.stats.uptime_seconds)],
        ["Time zone", clock?.timezone],
        ["Memory used", amount(metrics?.rss_bytes)],
      ]);
      story(timeline, events ?? [], true);
    },
  };
}
