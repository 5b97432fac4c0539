// The question for the access token, loaded with the first request that needs it.

import { TOKEN } from "./texts.js";

// Asks for the access token. Gives back what was typed, or nothing.
export function request(el, kept) {
  // One that was sent and not taken.
  const wrong = kept.token;
  delete kept.token;
  // What a header cannot carry is no token.
  const input = el("input", { autocomplete: "off", spellcheck: false, required: true, pattern: "\\s*[!-~]+\\s*" });
  const dialog = el("dialog.card", { ariaLabel: "Access token" }, el("form", { method: "dialog" },
    el("h2", null, "Access token"),
    wrong && el("p.bad", { role: "alert" }, TOKEN.refused),
    el("p", null, el("code", null, "net-pulse token"), TOKEN.where),
    el("label", null, "Token ", input),
    el("p.bar", null, el("button", { value: "ok" }, "Go on"), el("button", { formNoValidate: true }, "Cancel")),
  ));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((done) => {
    dialog.onclose = () => {
      dialog.remove();
      done(dialog.returnValue && input.value.trim());
    };
  });
}
