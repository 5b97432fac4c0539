// Elements of all views except the first: cards, facts, fields, and buttons that show the result of their action.
// Loaded together with the first such view and passed to each view as arguments: if a view imported this file and that
// failed, the browser would not request it again.

import { NOTHING, amounts, clock, day, seconds } from "./format.js";
import { ACTIONS } from "./texts.js";

export function elements({ api, el, page, paint, put, shell }) {
  const sizes = (values) => amounts(values, shell.units);
  const count = (number) => number?.toLocaleString("en") ?? NOTHING;
  const when = (time) => (time ? `${day(seconds(time)).slice(4)} ${clock(seconds(time), true)}` : ACTIONS.undated);
  const hash = (path, values) => `#/${path}?${new URLSearchParams(values)}`;
  const bothWays = (down, up) => [el("span.rx", null, down), el("span.tx", null, up)];
  const called = ({ name, alias }) => [name, alias].filter(Boolean).join(" · ");

  // A part of a view. The last paragraph shows the result of an action in this card.
  const card = (title, ...children) => el("section.card", null, el("h2", null, title), ...children, el("p.result", { role: "status" }));
  const bar = (...children) => el("div.bar", null, ...children);
  const list = () => el("dl.facts");
  const log = () => el("dl.facts.log");
  const soft = (...children) => el("p.soft", null, ...children);

  // Replaces the children only if the data changed: a replaced element loses selection and keyboard focus.
  function fill(node, data, build) {
    const key = JSON.stringify(data);
    if (node.filled === key) return;
    node.filled = key;
    node.replaceChildren(...build().flat());
  }

  // Pairs of a label and a value: one text, or two for down and up. Pairs without a value are omitted.
  function facts(node, pairs) {
    const known = pairs.filter((pair) => pair?.[1]);
    fill(node, known, () => known.map(([term, value]) => el("div", null, el("dt", null, term), el("dd", null, Array.isArray(value) ? bothWays(...value) : value))));
  }

  function story(node, events, named) {
    fill(node, events, () => events.map(({ time, kind, interface: name, detail }) => el("div", null, el("dt", null, when(time)),
      el("dd", null, el("b", null, kind.replace("_", " ")), " ", named && name ? [el("a", { href: page(name) }, name), " "] : [], detail))));
  }

  function options(select, pairs, value) {
    fill(select, [pairs, value], () => pairs.map(([word, text]) => el("option", { value: word, selected: word === value }, text)));
    return select;
  }

  const field = (label, input) => el("label.field", null, `${label} `, input);
  const choice = (label, pairs, value, done) => field(label, options(el("select", { onchange: ({ target }) => done(target.value, target) }), pairs, value));

  // Runs an action and shows the text that `work` returns, or its error.
  async function act(node, work) {
    const result = node.closest("section").querySelector(".result");
    node.disabled = true;
    put(result, "");
    result.className = "result";
    try {
      put(result, (await work()) ?? "");
    } catch (error) {
      result.className = "result bad";
      put(result, error.message);
    }
    node.disabled = false;
    paint();
  }

  const button = (text, work) => el("button", { type: "button", onclick: ({ currentTarget }) => act(currentTarget, work) }, text);
  const form = (button, work, ...children) => el("form", { noValidate: true, onsubmit(event) {
    event.preventDefault();
    act(button, work);
  } }, ...children);
  const send = (method, path, body) => api(path, { method, body });
  const outcome = ({ saved }) => (saved === false ? ACTIONS.unsaved : ACTIONS.done);

  return { act, bar, bothWays, button, called, card, choice, count, facts, field, fill, form, hash, list, log, options, outcome, send, sizes, soft, story, when };
}
