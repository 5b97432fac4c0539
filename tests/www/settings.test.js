// www/settings.js: the calculations.

import assert from "node:assert/strict";
import { test } from "node:test";

import { changes, faultsOf, text, typed } from "../../www/settings.js";

const check = (actual, expected) => assert.deepEqual(actual, expected);

test("a text that is not a number goes to the API unchanged", () => {
  for (const text of ["1-5", "Infinity", "1e999", "5 x"]) check(typed("integer", text), text);
  check(typed("integer", " 7 "), 7);
  check(typed("decimal", "0.5"), 0.5);
});

test("a field's text becomes the API's type", () => {
  check(typed("integer", "30"), 30);
  check(typed("integer", "ten"), "ten");
  check(typed("decimal", " 0.5 "), 0.5);
  check(typed("integer", "  "), null);
  check(typed("list", "eth*, wg0,,"), ["eth*", "wg0"]);
  check(typed("switch", "false"), false);
  check(typed("text", " Europe/Berlin "), "Europe/Berlin");
  check(typed("word", "flash"), "flash");
});

const SETTINGS = {
  interval: { kind: "integer", value: 10, default: 30, origin: "saved" },
  flush: { kind: "integer", value: 300, default: 300, origin: "default" },
  media: { kind: "word", value: "disk", default: "disk", origin: "default" },
  interfaces: { kind: "list", value: ["eth*", "wg0"], default: [], origin: "saved" },
  retry_delay: { kind: "decimal", value: 5, default: 1, origin: "flag", owner: "--x" },
};

test("only changed fields are sent", () => {
  const texts = Object.fromEntries(Object.keys(SETTINGS).map((key) => [key, text(SETTINGS[key])]));
  check(texts, { interval: "10", flush: "", media: "disk", interfaces: "eth*, wg0", retry_delay: "5" });
  check(changes(SETTINGS, texts), {});
  check(changes(SETTINGS, { ...texts, interval: "5", media: "flash" }), { interval: 5, media: "flash" });
  check(changes(SETTINGS, { ...texts, interval: "" }), { interval: null });
  check(changes(SETTINGS, { ...texts, interfaces: "" }), { interfaces: null });
  check(changes(SETTINGS, { ...texts, interfaces: "eth*" }), { interfaces: ["eth*"] });
  // The text equals the default, but it is set explicitly: the default would change with `media`.
  check(changes(SETTINGS, { ...texts, flush: "300" }), { flush: 300 });
});

test("a choice that equals the default restores the default", () => {
  const media = { kind: "word", value: "flash", default: "disk", origin: "saved" };
  check(changes({ media }, { media: "disk" }), { media: null });
});

test("an owned setting is never sent", () => {
  const flush = { kind: "integer", value: 3600, default: 3600, origin: "default", owner: "--media" };
  const ignore = { kind: "list", value: ["x*", "y*"], default: [], origin: "environment", owner: "NETPULSE_IGNORE" };
  check([flush, ignore].map(text), ["3600", "x*, y*"]);
  check(changes({ flush, ignore }, { flush: text(flush), ignore: text(ignore) }), {});
});

test("errors are assigned to their fields", () => {
  const fault = (name, msg) => ({ loc: ["body", name], msg, input: "" });
  check(faultsOf([fault("interval", "must be less"), fault("media", "is no word")]), { interval: "must be less", media: "is no word" });
  check(faultsOf("a sentence"), {});
  check(faultsOf(undefined), {});
});
