// Asks for the access token. Loaded when the service first wants one.

// Gives back what was typed, or nothing.
export function request(el) {
  const input = el("input", { autocomplete: "off", spellcheck: false, required: true });
  const dialog = el("dialog.card", { ariaLabel: "Access token" }, el("form", { method: "dialog" },
    el("h2", null, "Access token"),
    el("p", null, "Changes need it: ", el("code", null, "net-pulse token"), " prints it on the router. This browser keeps it."),
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
