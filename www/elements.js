// What the views beside the first are made of: cards, facts, fields, and buttons that say what came of them. Loaded side by
// side with the first of these views, and handed to each as arguments: what a view imported could not be asked for anew.

import { NOTHING, amounts, clock, day, seconds } from "./format.js";
import { ACTIONS } from "./texts.js";

export function elements({ api, el, page, paint, put, shell }) {
  const sizes = (values) => amounts(values, shell.units);
  const count = (number) => number?.toLocaleString("en") ?? NOTHING;
  const when = (time) => (time ? `${day(seconds(time)).slice(4)} ${clock(seconds(time), true)}` : ACTIONS.undated);
  const hash = (path, values) => `#/${path}?${new URLSearchParams(values)}`;
  const bothWays = (down, up) => [el("span.rx", null, down), el("span.tx", null, up)];
  const called = ({ name, alias }) => [name, alias].filter(Boolean).join(" · ");

  // A part of a view. What came of something that was done in it is said at its end, next to the hand that did it.
  const card = (title, ...children) => el("section.card", null, el("h2", null, title), ...children, el("p.said", { role: "status" }));
  const bar = (...children) => el("div.bar", null, ...children);
  const list = () => el("dl.facts");
  const log = () => el("dl.facts.log");
  const soft = (...children) => el("p.soft", null, ...children);

  // What did not change is not touched: selections and the place of the keyboard stay where they are.
  function fill(node, data, build) {
    const key = JSON.stringify(data);
    if (node.filled === key) return;
    node.filled = key;
    node.replaceChildren(...build().flat());
  }

  // Pairs of a word and what it says: a text, or one for down and one for up. What is not known is left out.
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

  // Does something and says what came of it: `work` answers with the sentence.
  async function act(node, work) {
    const said = node.closest("section").querySelector(".said");
    node.disabled = true;
    put(said, "");
    said.className = "said";
    try {
      put(said, (await work()) ?? "");
    } catch (error) {
      said.className = "said bad";
      put(said, error.message);
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
