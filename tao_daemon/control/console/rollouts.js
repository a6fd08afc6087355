// The latest rollout in full, and every one before it with who or what moved it.

import { percent } from "./format.js";
import { Adapter, Badge, Empty, Load, Panel, Time } from "./parts.js";
import { RolloutPanel } from "./rollout_panel.js";
import { useStore } from "./store.js";
import { html } from "./vendor/htm-preact.js";
import { outcomeOf } from "./words.js";

export function RolloutsView() {
  const { status, changes } = useStore();
  return html`<${RolloutPanel} status=${status} />
    <${Panel} title="History" id="history">
      <${Load} path="/v1/rollouts?limit=50" again=${changes.rollouts}>${({ rollouts }) => html`<${History}
        rollouts=${rollouts} />`}<//>
    <//>`;
}

function History({ rollouts }) {
  if (!rollouts.length) return html`<${Empty}>There was no rollout yet.<//>`;
  return html`<ol class="past">${rollouts.map(
    (one, place) => html`<li key=${`${one.adapter}/${one.started_at}`}>
    <details open=${place === 0}>
      <summary><${Badge} of=${one.outcome} /> <${Adapter} name=${one.adapter} /> <span
        class="quiet">round ${one.round}, <${Time} at=${one.started_at} /></span></summary>
      <p><a href=${`#/rounds/${one.round}`}>Round ${one.round}</a> made it.</p>
      <ol class="timeline">${one.steps.map(
        (step) => html`<li key=${step.seq}>
        <span class="when"><${Time} at=${step.at} /></span>
        <span><strong>${outcomeOf(step.phase).word}${step.phase === "canary" ? ` ${percent(step.fraction)}` : ""}
          </strong>
          <span class="quiet"> by ${step.actor}</span><br />${step.note}</span></li>`,
      )}</ol>
    </details></li>`,
  )}</ol>`;
}
