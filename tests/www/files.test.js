// Checks the source text of the page's files: imports, names of views, and where texts are.

import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import * as texts from "../../www/texts.js";

const source = (path) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8");
const scripts = readdirSync(new URL("../../www/", import.meta.url)).filter((name) => name.endsWith(".js"));
const firstView = source("build.rs").match(/const FIRST_VIEW.* = \[(.*)\];/)[1].match(/\w+\.js/g);
const later = scripts.filter((name) => name !== "texts.js" && !firstView.includes(name));
const imports = (name) => [...source(`www/${name}`).matchAll(/^import \{ (.*) \} from "\.\/(.*)";$/gm)].map(([, names, file]) => [file, names.split(", ")]);

// Finds a full stop or a question mark at the end of a string, after a word or an inserted value. Comments are whole lines
// and are skipped.
const END = /(\w|\)| \$\{[^{}]*\})[.?]\s*["`]/;
const sentences = (text) => text.split("\n").filter((line) => !/^\s*\/\//.test(line) && END.test(line));

test("the lists of scripts are complete", () => {
  assert.equal(firstView.at(-1), "app.js");
  assert.ok(later.length >= 6, later.join());
});

test("each view that the frame links to has a file of its name", () => {
  const linked = [...source("www/index.html").matchAll(/href="#\/(\w+)"/g)].map(([, name]) => name);
  assert.ok(linked.length >= 3, linked.join());
  const views = later.filter((name) => source(`www/${name}`).includes("\nexport function mount({"));
  assert.deepEqual(views, ["interface", ...linked].map((name) => `${name}.js`).sort());
});

// A browser may remember that an import failed, and only app.js retries with another URL. Also, an import inside a script
// that is loaded later costs another round trip.
test("scripts that are loaded later import only scripts of the first view", () => {
  for (const name of later) {
    const lines = source(`www/${name}`).match(/^import .*$/gm) ?? [];
    assert.equal(lines.length, imports(name).length, `${name}: an import that this test does not read`);
    for (const [file] of imports(name)) assert.ok(file === "texts.js" || firstView.includes(file), `${name} imports ${file}`);
  }
});

test("sentences are in texts.js", () => {
  const check = (line, expect) => assert.equal(sentences(line).length === 1, expect, line);
  check('throw new Error("Not saved: see the errors.");', true);
  check("put(node, `${how}.${late ? ` It is late.` : \"\"}`);", true);
  check("confirm(`Add all of ${gone} to ${name}?`)", true);
  check("return `Interfaces read: ${many}.`;", true);
  check('" on the router. "', true);
  check("`${how[0].toUpperCase()}${how.slice(1)}.`", false);
  check('import { draw } from "./chart.js";', false);
  check('late ? "too early" : "live"', false);
  check("`#/${path}?${query}`", false);
  check('// "This is why."', false);
  for (const name of scripts.filter((name) => name !== "texts.js")) assert.deepEqual(sentences(source(`www/${name}`)), [], name);
  assert.ok(sentences(source("www/texts.js")).length > 10);
});

test("each text is there once, and one script uses it", () => {
  const users = (part) => scripts.filter((name) => imports(name).some(([file, names]) => file === "texts.js" && names.includes(part)));
  const seen = new Map();
  for (const [part, words] of Object.entries(texts)) {
    assert.equal(users(part).length, 1, `${part} is the text of ${users(part).join() || "no script"}`);
    const script = source(`www/${users(part)[0]}`);
    for (const [key, text] of Object.entries(words)) {
      assert.ok(script.includes(`${part}.${key}`), `${part}.${key} is not used`);
      if (typeof text === "object") continue;
      const content = String(text);
      assert.ok(!seen.has(content), `${part}.${key} is the same as ${seen.get(content)}`);
      seen.set(content, `${part}.${key}`);
    }
  }
});
