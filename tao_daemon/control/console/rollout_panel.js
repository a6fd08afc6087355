// The latest rollout: how far it is, why it does not move, what was seen of it, and what one can do.

import { RolloutButtons } from "./buttons.js";
import { arms, guards, shadowLines, stepLines } from "./evidence.js";
import { duration, figure, percent, whole } from "./format.js";
import { Adapter, Badge, Empty, Meter, Panel, Time, useNow } from "./parts.js";
import { html } from "./vendor/htm-preact.js";
import { isOpen, outcomeOf, ROLLOUT_WORDS } from "./words.js";

export function RolloutPanel({ status }) {
  const { rollout } = status;
  if (!rollout) {
    return html`<${Panel} title="Rollout" id="rollout">
      <${Empty}>There was no rollout yet. A candidate that passes the gate begins one.<//>
    <//>`;
  }
  const open = isOpen(rollout);
  return html`<${Panel} title="Rollout" id="rollout" aside=${html`<${Badge} of=${rollout.phase} />`}>
    <p class="subject"><${Adapter} name=${rollout.adapter} link /> of <a
      href=${`#/rounds/${rollout.round}`}>round ${rollout.round}</a>, begun <${Time} at=${rollout.started_at} /></p>
    <${Stepper} rollout=${rollout} />
    <p>${ROLLOUT_WORDS[rollout.phase]}</p>
    ${
      open
        ? html`<p class="hold"><strong>Why it does not move on:</strong> ${holdOf(rollout)}</p>`
        : html`<p
      class="hold">${rollout.reason}</p>`
    }
    ${open && rollout.approved_by ? html`<p class="quiet">Approved by ${rollout.approved_by}</p>` : null}
    <${RolloutButtons} />
    ${rollout.phase === "staged" ? null : html`<${Evidence} rollout=${rollout} open=${open} />`}
  <//>`;
}

/** The daemon's words, without the command that stands for the button. */
const holdOf = ({ hold, waits_for_approval: waits }) =>
  waits ? hold.replace(/waits for `[^`]*`/, "it waits for your approval") : hold;

/** staged → shadow → canary steps → baking → settled, with the place it is at, or ended at. */
function Stepper({ rollout }) {
  const fractions = rollout.plan?.fractions ?? [];
  const steps = ["staged", "shadow", ...fractions.map((each) => `canary ${percent(each)}`), "baking", "settled"];
  const at = placeIn(rollout, fractions.length);
  const ended = !isOpen(rollout) && rollout.phase !== "settled";
  return html`<ol class="stepper" aria-label="How far the rollout is">
    ${steps.map((name, place) => {
      const state =
        rollout.phase === "settled" || place < at ? "done" : place === at ? (ended ? "ended" : "current") : "later";
      const sign = { done: "✓", ended: "✕", current: "●", later: "○" }[state];
      const spoken = { done: "done", ended: outcomeOf(rollout.phase).word, current: "now", later: "later" }[state];
      return html`<li key=${name} class=${`is-${state}`} aria-current=${state === "current" ? "step" : undefined}>
        <span aria-hidden="true">${sign}</span> ${name}<span class="unseen">, ${spoken}</span></li>`;
    })}
  </ol>`;
}

/** Where it is; for one that ended, how far it came by what it has seen. */
function placeIn(rollout, fractions) {
  const places = { staged: 0, shadow: 1, canary: 2 + rollout.step, baking: 2 + fractions, settled: 3 + fractions };
  if (rollout.phase in places) return places[rollout.phase];
  if (rollout.phase === "rolled_back") return 2 + fractions;
  if (rollout.steps.length) return rollout.steps.at(-1).fraction === 1 ? 2 + fractions : 2 + rollout.step;
  return rollout.evidence.shadow_pairs ? 1 : 0;
}

function Evidence({ rollout, open }) {
  const { evidence, phase } = rollout;
  const counts = arms(evidence);
  const stepping = phase === "canary" || phase === "baking";
  return html`<div class="evidence">
    ${
      stepping || counts.length
        ? html`<div class="column">
            ${stepping ? html`<${StepProgress} rollout=${rollout} />` : null}
            ${counts.length ? html`<${Arms} rows=${counts} />` : null}
          </div>`
        : null
    }
    <${ShadowEvidence} rollout=${rollout} open=${open} />
    <${Guards} rows=${guards(evidence)} />
  </div>`;
}

function StepProgress({ rollout }) {
  const now = useNow();
  const { wanted, seen, seconds, spent } = stepLines(rollout, now);
  const what = rollout.phase === "baking" ? "Baking" : `Canary step at ${percent(rollout.traffic_fraction)}`;
  return html`<section><h3>${what}</h3>
    ${
      wanted
        ? html`<${Line} name="Conversations the candidate answered"
      value=${`${whole(seen)} of at least ${whole(wanted)}`} share=${seen / wanted} met=${seen >= wanted} />`
        : null
    }
    ${
      seconds
        ? html`<${Line} name="Time in this step"
      value=${`${duration(Math.min(spent, seconds))} of at least ${duration(seconds)}`} share=${spent / seconds}
        met=${spent >= seconds} />`
        : null
    }
  </section>`;
}

function Line({ name, value, share, met, text = "" }) {
  return html`<div class="line"><div class="line-head"><span>${name}</span><span class="value">${
    met
      ? html`<span
    class="tone-good">✓ </span>`
      : null
  }${value}</span></div>
    <${Meter} label=${name} share=${share} text=${value} tone=${met ? "good" : "busy"} />
    ${text ? html`<p class="quiet">${text}</p>` : null}</div>`;
}

function ShadowEvidence({ rollout, open }) {
  const { evidence } = rollout;
  const lines = shadowLines(evidence);
  const skipped = evidence.shadow_skipped ?? 0;
  const failures = evidence.shadow_candidate_failures ?? 0;
  return html`<section><h3>Shadow</h3>
    ${lines.map((line) =>
      "mean" in line
        ? html`<${MeanLine} key=${line.name} line=${line} />`
        : html`<${Line}
      key=${line.name} ...${line} />`,
    )}
    ${
      skipped || failures
        ? html`<p class="quiet">
          ${failures ? `${whole(failures)} without an answer of the candidate, counted as −1. ` : ""}${
            skipped ? `${whole(skipped)} skipped: no answer of the incumbent, or no score.` : ""
          }</p>`
        : null
    }
    ${open && rollout.shadow ? html`<p class="quiet">The shadow now: ${rollout.shadow}.</p>` : null}
  </section>`;
}

/** A bar from the middle of −1 … 1. */
function MeanLine({ line }) {
  const mean = line.mean ?? 0;
  const size = `${Math.min(1, Math.abs(mean)) * 50}%`;
  const style = mean < 0 ? { right: "50%", width: size } : { left: "50%", width: size };
  return html`<div class="line"><div class="line-head"><span>${line.name}</span><span class="value">${line.value}
    </span></div>
    <div class="diverging" aria-hidden="true"><div class=${`part tone-${mean < 0 ? "bad" : "good"}`} style=${style}>
      </div></div>
    <p class="quiet">${line.text}</p></div>`;
}

function Arms({ rows }) {
  const cell = ({ count, share }) => html`${whole(count)}${share ? html` <span class="quiet">${share}</span>` : null}`;
  return html`<section><h3>Live conversations</h3><table class="numbers">
    <thead><tr><th scope="col"><span class="unseen">What</span></th><th scope="col">incumbent</th><th
      scope="col">candidate</th></tr></thead>
    <tbody>${rows.map(
      (row) => html`<tr key=${row.name}><th scope="row">${row.name}</th><td>${cell(row.incumbent)}</td>
      <td>${cell(row.candidate)}</td></tr>`,
    )}</tbody>
  </table></section>`;
}

const ALARMS = { reached: "bad", close: "bad", "some signs": "unsure", "no sign": "quiet" };

/** What would end it by itself: evidence multiplies, so the bars are logarithmic. */
function Guards({ rows }) {
  return html`<section><h3>What would end it by itself</h3><ul class="guards">
    ${rows.map(
      (row) => html`<li key=${row.name} title=${row.text}>
      <div class="line-head"><span>${row.name}</span>
        <span class="value">${row.word} <span class="quiet">${figure(row.value)} of ${figure(row.threshold)}</span>
          </span></div>
      <${Meter} label=${`${row.name}: ${row.text}`} share=${row.share} tone=${ALARMS[row.word]} thin
        text=${`e-value ${figure(row.value)} of ${figure(row.threshold)}: ${row.word}`} /></li>`,
    )}
  </ul><p class="quiet">E-values: 1 says nothing, each threshold may be looked at any time.
    Reaching one aborts the rollout or takes it back.</p></section>`;
}
