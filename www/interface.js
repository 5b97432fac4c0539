// The view of one interface: link, counters, actions, events. Pure calculations come first.

import { about, rateUnit, seconds, span } from "./format.js";
import { INTERFACE } from "./texts.js";

// Sums of errors and drops in the newest samples, the oldest of which is `seconds` old.
export function recent(records, now) {
  const oldest = Math.min(now - 1, ...records.map(({ timestamp }) => seconds(timestamp)));
  const sums = (what) => ["rx", "tx"].map((side) => records.reduce((sum, record) => sum + (record[`${side}_${what}`] ?? 0), 0));
  return { seconds: now - oldest, errors: sums("errors"), drops: sums("drops") };
}

// The prefix length of a netmask, IPv4 or IPv6.
export function prefix(mask) {
  const base = mask.includes(".") ? 10 : 16;
  const bits = (part) => (parseInt(part, base) || 0).toString(2).replace(/0/g, "").length;
  return mask.split(/[.:]/).reduce((sum, part) => sum + bits(part), 0);
}

export function mount({ root, name, ask, go, put, shell, el, act, bar, button, called, card, choice, count, facts, field, form, hash, list, log, options, outcome, send, sizes, soft, story }) {
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
  const [now, link, counters, timeline] = [list(), list(), list(), log()];
  const alias = el("input", { maxLength: 64, autocomplete: "off" });
  const save = el("button", null, "Save");
  const watch = choice("Watch", Object.entries(INTERFACE.watched), "null", (value, node) =>
    act(node, () => set({ monitored: JSON.parse(value) }).finally(() => (seen = null))));
  const main = button("…", () => set({ primary: !fixed() }));
  const fixed = () => iface.primary && [name, ...iface.altnames ?? []].includes(shell.settings?.primary?.value);
  const gone = el("select", { ariaLabel: "Absent interface" });
  const merge = bar("Merge the history of", gone, button("Merge", () => confirm(INTERFACE.merge(gone.value, name)) && set({ merge: gone.value })));
  const forget = button(`Forget ${name}`, async () => {
    if (!confirm(INTERFACE.forget(name))) return;
    await send("DELETE", own);
    ask("interfaces");
    go("#/");
  });
  const parts = [
    card("Link", link), card("Counters", counters),
    card("Actions", form(save, () => set({ alias: alias.value.trim() }), field("Alias", alias), save), watch, bar(main, forget), merge),
    card("Events", timeline),
  ];
  root.append(card("", title, kind, now, bar(el("a.button", { href: hash("", { i: name }) }, "History"), el("a.button", { href: hash("usage", { i: name }) }, "Usage"))), ...parts);

  return {
    feeds,
    title: name,
    update() {
      const { interfaces, settings, units } = shell;
      iface = shell.find(name);
      put(title, called(iface ?? { name }));
      put(kind, iface ? about(iface) : interfaces ? INTERFACE.none : "");
      for (const part of parts) part.hidden = !iface;
      if (!iface) return;
      const away = iface.present === false;
      const pair = (rx, tx) => rx != null && sizes([rx, tx]);
      facts(now, [
        ["Now", !away && iface.monitored && shell.rates(name).map((text) => `${text} ${rateUnit(units)}`)],
        ["Today", pair(iface.today_rx_bytes, iface.today_tx_bytes)], ["Total", pair(iface.lifetime_rx_bytes, iface.lifetime_tx_bytes)],
      ]);
      facts(link, [
        ...(iface.addresses ?? []).map(({ family, address, netmask }) => [family === "inet" ? "IPv4" : "IPv6", netmask ? `${address}/${prefix(netmask)}` : address]),
        ["Altnames", iface.altnames?.join(", ")], ["MAC", iface.mac], ["MTU", iface.mtu], ["Not watched", !iface.monitored && (iface.ignored_because ?? INTERFACE.unwatched)],
      ]);
      parts[1].hidden = away || !stats;
      const late = records?.length && recent(records, shell.now());
      const row = (key) => stats && [key, ["rx", "tx"].map((side) => count(stats[`${side}_${key}`]))];
      const lately = (key) => late && [INTERFACE.lately(span(Math.ceil(late.seconds / 60) * 60)), late[key].map(count)];
      facts(counters, [row("bytes"), row("packets"), row("errors"), lately("errors"), row("drops"), lately("drops")]);
      if (alias.seen !== iface.alias) alias.value = alias.seen = iface.alias ?? "";
      const ignores = (pattern) => settings?.ignore?.value.includes(pattern);
      if (seen !== settings) watch.lastChild.value = ignores(`!${name}`) ? "true" : ignores(name) ? "false" : "null";
      seen = settings;
      main.hidden = away || (iface.primary && !fixed());
      put(main, fixed() ? INTERFACE.found : INTERFACE.chosen);
      forget.hidden = !away;
      const absent = interfaces.filter((other) => other.present === false && other !== iface);
      merge.hidden = !absent.length;
      options(gone, absent.map((other) => [other.name, called(other)]));
      parts[3].hidden = !events?.length;
      story(timeline, events ?? []);
    },
  };
}
