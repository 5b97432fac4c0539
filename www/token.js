// The dialog for the access token. Loaded for the first request that needs it.

import { TOKEN } from "./texts.js";

// Asks for the access token. Resolves to the typed text, or to an empty value if the user cancels.
export function request(el, store) {
  // The router refused the stored token.
  const wrong = store.token;
  delete store.token;
  // A token has only characters that an HTTP header can carry.
  const input = el("input", { autocomplete: "off", spellcheck: false, required: true, pattern: "\\s*[!-~]+\\s*" });
  const dialog = el("dialog.card", { ariaLabel: "Access token" }, el("form", { method: "dialog" },
    el("h2", null, "Access token"),
    wrong && el("p.bad", { role: "alert" }, TOKEN.refused),
    el("p", null, el("code", null, "net-pulse token"), TOKEN.where),
    el("label", null, "Token ", input),
    el("p.bar", null, el("button", { value: "ok" }, "OK"), el("button", { formNoValidate: true }, "Cancel")),
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
