// Buttons of actions: shown by what makes sense, enabled by what the token may do, and saying why not.

import { kindOf, obstacle } from "./actions.js";
import { ask, may, useStore } from "./store.js";
import { html } from "./vendor/htm-preact.js";

/** One button that opens its dialog. `name` is an action's; `label` says more than its verb. */
export function ActionButton({ name, label, primary = false }) {
  const { who, status, link } = useStore();
  const { scope, verb, tone } = kindOf(name);
  const reason = !may(who, scope)
    ? `needs scope ${scope}`
    : link.state === "lost"
      ? "the daemon does not answer"
      : obstacle(name, status);
  return html`<span class="action">
    <button type="button" class=${`act tone-${tone} ${primary ? "is-primary" : ""}`} disabled=${reason !== null}
      title=${reason ?? ""} onClick=${() => ask(name)}>${label ?? verb} …</button>
    ${reason ? html`<span class="why-not">${reason}</span>` : null}
  </span>`;
}

/** The buttons that make sense now. What the token may not do stays in sight, disabled. */
export function RolloutButtons() {
  const { status } = useStore();
  const sensible = ["approve", "promote", "promoteFull", "pause", "resume", "abort", "undo"].filter(
    (name) => obstacle(name, status) === null,
  );
  if (!sensible.length) return null;
  return html`<div class="actions" role="group" aria-label="What you can do with the rollout">
    ${sensible.map(
      (name) => html`<${ActionButton} key=${name} name=${name}
      primary=${name === "approve" && status.rollout.waits_for_approval} />`,
    )}
  </div>`;
}
