// The view of settings: settings, collection, values stored in this browser, export, backup. Pure calculations come
// first.

import { SETTINGS } from "./texts.js";

// The text of a field as JSON for the API: null (the default) if empty. The API refuses a text that is not a number.
export function typed(kind, text) {
  if (!text.trim()) return null;
  if (kind === "list") return text.split(",").map((item) => item.trim()).filter(Boolean);
  if (kind === "switch") return text === "true";
  return /integer|decimal|size/.test(kind) && Number.isFinite(+text) ? +text : text.trim();
}

const CHOICE = /word|switch/;

// The text of a setting's field. It is empty for a default, which the field shows as placeholder. A setting that a flag
// or variable owns shows its value: its default may come from another flag.
export function text({ kind, value, origin, owner }) {
  return origin === "default" && !owner && !CHOICE.test(kind) ? "" : [value].flat().join(", ");
}

// The body of a PATCH with the fields that the user changed.
export function changes(settings, texts) {
  const body = {};
  for (const [key, now] of Object.entries(texts)) {
    const setting = settings[key];
    // An empty field means the default. A choice has no empty option, so its default value is sent as null.
    const usual = CHOICE.test(setting?.kind) && now === String(setting.default);
    if (setting && now !== text(setting)) body[key] = usual ? null : typed(setting.kind, now);
  }
  return body;
}

// The errors of a 422 answer, by setting.
export function faultsOf(detail) {
  return Object.fromEntries((Array.isArray(detail) ? detail : []).map(({ loc, msg }) => [loc.at(-1), msg]));
}

export function mount({ root, api, ask, configure, dress, store, paint, put, shell, el, bar, button, called, card, choice, fill, field, form, options, outcome, send }) {
  let config = {};
  const inputs = {};
  const wanted = () => changes(config, Object.fromEntries(Object.entries(inputs).map(([key, { input }]) => [key, input.value])));
  const submit = el("button.chief", null, "Save");
  const undo = el("button", { type: "button", onclick: () => show() }, "Undo");
  const groups = el("div");
  const edit = form(submit, save, groups, card("", bar(submit, undo)));

  edit.oninput = paint;
  ask("settings");

  function control(key, title) {
    const { kind, words, min = "", max = "", help, owner } = config[key];
    const input = words ? options(el("select"), words.map((word) => [word, SETTINGS.words[word] ?? word]))
      // Not type="number": that field would return an empty text for an invalid number.
      : el("input", { inputMode: /integer|decimal/.test(kind) ? "decimal" : "text", autocomplete: "off", autocapitalize: "off" });
    input.disabled = owner;
    input.setAttribute("aria-describedby", `about-${key}`);
    const fault = el("span.bad");
    inputs[key] = { input, fault };
    return el("div", null, field(title, input), el("div", { id: `about-${key}` }, fault,
      el("small", null, `${owner ? SETTINGS.owned(owner) : ""}${help}${max && ` (${min} to ${max})`}`)));
  }

  // Fills all fields except those that the user has edited.
  function show(edited = {}) {
    fill(groups, Object.keys(config).map((key) => config[key].owner), () => Object.entries(SETTINGS.groups).map(([title, names]) =>
      el("fieldset.card", null, el("legend", null, title), Object.keys(names).filter((key) => config[key]).map((key) => control(key, names[key])))));
    for (const [key, { input }] of Object.entries(inputs)) {
      const setting = config[key];
      // The default of one setting may depend on another setting.
      input.placeholder = setting.default;
      if (!(key in edited)) input.value = text(setting);
    }
    mark({});
  }

  function mark(faults) {
    for (const [key, { input, fault }] of Object.entries(inputs)) {
      put(fault, faults[key] ?? "");
      input.ariaInvalid = faults[key] ? "true" : null;
    }
  }

  async function save() {
    mark({});
    try {
      const answer = await send("PATCH", "api/config", wanted());
      configure(answer);
      config = shell.settings;
      show();
      return outcome(answer);
    } catch (error) {
      mark(faultsOf(error.detail));
      const marked = document.querySelector("[aria-invalid]");
      marked?.focus();
      throw marked ? new Error(SETTINGS.refused) : error;
    }
  }

  const run = (text, path, done) => button(text, async () => {
    const answer = await send("POST", `collector/${path}`);
    ask("health");
    return done(answer);
  });
  const start = run("Start", "start", outcome);
  const stop = run("Stop", "stop", outcome);
  const collect = run("Collect now", "collect", ({ success, interfaces_collected: many, errors }) => (success ? SETTINGS.collected(many) : errors.join("; ")));

  const forget = button("Forget the access token", () => {
    delete store.token;
  });

  const asked = { resolution: "5min", format: "csv" };
  const pick = (label, key, pairs) => choice(label, pairs, asked[key], (value) => (asked[key] = value));
  const [from, to] = [el("input", { type: "date" }), el("input", { type: "date" })];
  const which = pick("Interface", "interface_name", []);
  const data = card("Export, backup",
    el("div.form", null, which, pick("A row for", "resolution", Object.entries(SETTINGS.rows)),
      field("From", from), field("To", to), pick("Format", "format", Object.entries(SETTINGS.formats))),
    bar(button("Export", async () => {
      const query = Object.entries({ ...asked, start_time: from.value, end_time: to.value && `${to.value}T23:59:59` }).filter(([, value]) => value);
      const path = `api/export/traffic?${new URLSearchParams(query)}`;
      // The browser downloads it directly, as an export may be large. If reading needs the token, this page must fetch
      // it.
      download(config.private?.value ? await api(path, { file: true }) : path, asked.format);
    }), button("Backup", async () => download(await api("api/backup", { method: "POST", file: true }), "db"))));

  function download(what, ending) {
    const href = what.size ? URL.createObjectURL(what) : what;
    el("a", { href, download: `net-pulse-${new Date().toJSON().slice(0, 10)}.${ending}` }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60000);
  }

  root.append(edit, el("div", null, card("Collection", bar(start, stop, collect)),
    card("This browser", choice("Colours", Object.entries(SETTINGS.colours), store.theme ?? "", dress), bar(forget)), data));
  return {
    title: "Settings",
    update() {
      if (shell.settings && shell.settings !== config) {
        const edited = wanted();
        config = shell.settings;
        show(edited);
      }
      const stopped = shell.health?.collector_status === "stopped";
      start.hidden = !stopped;
      stop.hidden = stopped;
      forget.hidden = !store.token;
      edit.hidden = !shell.settings;
      options(which.lastChild, [["", SETTINGS.everything], ...(shell.interfaces ?? []).map((iface) => [iface.name, called(iface)])], asked.interface_name);
      submit.disabled = undo.disabled = !Object.keys(wanted()).length;
    },
  };
}
