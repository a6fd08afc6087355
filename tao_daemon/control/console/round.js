// One round: why it ended as it did, in words and numbers; its phases; its rewards; its answers side by side.

import { Answers } from "./answers.js";
import { CompareRounds } from "./compare.js";
import { duration, interval, plain, signed, decimal } from "./format.js";
import { Adapter, Badge, Empty, Facts, Load, Panel, Time } from "./parts.js";
import { Whiskers } from "./plots.js";
import { Rewards } from "./rewards.js";
import { useStore } from "./store.js";
import { html } from "./vendor/htm-preact.js";
import { outcomeOf, ROUND_PHASES, ROUND_WORDS } from "./words.js";

export function RoundView({ place }) {
  const { changes } = useStore();
  return html`<p class="crumbs"><a href="#/rounds">Rounds</a></p>
    <${Load} path=${`/v1/rounds/${encodeURIComponent(place.id)}`} again=${changes.rounds}>
      ${(report) => html`<${Report} report=${report} place=${place} />`}<//>`;
}

function Report({ report, place }) {
  const judged = report.verdict?.numbers?.difference != null;
  const scored = report.phases?.scoring != null;
  return html`
    <${Verdict} report=${report} />
    <${Panel} title="Phases" id="phases"><${Phases} report=${report} /><//>
    ${scored ? html`<${Panel} title="Rewards in training" id="rewards"><${Rewards} round=${report.round} /><//>` : null}
    ${
      judged
        ? html`<${Panel} title="Held-out answers side by side" id="answers"><${Answers} place=${place} />
      <//>`
        : null
    }
    <${Panel} title="Compare" id="compare"><${CompareRounds} round=${report.round} place=${place} /><//>`;
}

const SIGNS = { true: ["✓", "good", "held"], false: ["✕", "bad", "refuted"], null: ["?", "unsure", "not known"] };

function Verdict({ report }) {
  const outcome = report.outcome ?? "running";
  const numbers = report.verdict?.numbers ?? {};
  return html`<${Panel} title="Verdict" id="verdict" aside=${html`<${Badge} of=${outcome} />`}>
    <p class="subject">${
      report.candidate
        ? html`<${Adapter} name=${report.candidate} link /> against the incumbent${" "}`
        : "No candidate was trained. Incumbent: "
    }<${Adapter} name=${report.incumbent} link /></p>
    <p>${sentence(report, numbers)}</p>
    ${numbers.difference == null ? null : html`<${Numbers} numbers=${numbers} outcome=${outcome} />`}
    <${Criteria} rows=${report.verdict ? (report.explanation ?? []) : []} />
    <${Facts} wide rows=${[
      ["Began", html`<${Time} at=${report.started_at} />`],
      ["Because", report.reason ?? "–"],
      ["Ended", html`<${Time} at=${report.ended_at} />`],
    ]} />
  <//>`;
}

/** The verdict in a sentence. */
function sentence(report, { difference, difference_low: low, difference_high: high, pairs }) {
  const measured =
    difference == null
      ? ""
      : ` On ${plain(pairs)} held-out prompts that never trained it scored ${signed(difference)} ` +
        `against the incumbent, 95 % interval ${interval(low, high)}.`;
  switch (report.outcome) {
    case "accepted":
      return `The candidate passed the gate and went on to a rollout.${measured}`;
    case "rejected":
      return `The candidate failed the gate.${measured}`;
    case "inconclusive":
      return `The evidence was not enough either way, and that is final for this candidate.${measured}`;
    case "failed":
      return `The round failed: ${report.outcome_reason}`;
    case "cancelled":
      return `The round was cancelled: ${report.outcome_reason}`;
    default:
      return "The round is running.";
  }
}

function Numbers({ numbers, outcome }) {
  const { difference, difference_low: low, difference_high: high } = numbers;
  const rows = [
    ["incumbent", "Incumbent"],
    ["candidate", "Candidate"],
  ].filter(([side]) => numbers[`${side}_score`] != null);
  return html`<div class="verdict-plots">
    <div><h3>Difference ${signed(difference)} <span class="quiet">${interval(low, high)}</span></h3>
      <${Whiskers} value=${difference} low=${low} high=${high} from=${-1} to=${1} zero=${0}
        tone=${outcomeOf(outcome).tone}
        label=${`Difference ${signed(difference)}, 95 % interval ${interval(low, high)}, on a scale from −1 to 1`} />
          </div>
    ${rows.map(([side, name]) => {
      const [value, from, to] = ["", "_low", "_high"].map((part) => numbers[`${side}_score${part}`]);
      const text = `${decimal(value)} [${decimal(from)}, ${decimal(to)}]`;
      return html`<div key=${side}><h3>${name} score ${decimal(value)} <span
        class="quiet">[${decimal(from)}, ${decimal(to)}]</span></h3>
        <${Whiskers} value=${value} low=${from ?? value} high=${to ?? value} from=${0} to=${1} tone="busy"
          label=${`${name} score ${text}, on a scale from 0 to 1`} /></div>`;
    })}
  </div>`;
}

function Criteria({ rows }) {
  if (!rows.length) return null;
  return html`<ul class="criteria" aria-label="What the gate looked at">
    ${rows.map((row) => {
      const [sign, tone, word] = SIGNS[row.passed] ?? SIGNS[null];
      return html`<li key=${row.criterion + row.text}><span class=${`sign tone-${tone}`} aria-hidden="true">${sign}
        </span>
        <span><span class="unseen">${word}: </span>${row.text}</span></li>`;
    })}
  </ul>`;
}

const PROVENANCE = new Set(["seconds", "seed", "version", "config_digest", "fingerprint"]);

function Phases({ report }) {
  const there = ROUND_PHASES.filter((phase) => report.phases?.[phase]);
  if (!there.length) return html`<${Empty}>No phase has ended yet.<//>`;
  const longest = Math.max(...there.map((phase) => report.phases[phase].seconds ?? 0), 1e-9);
  return html`<ol class="phases">${there.map((phase) => {
    const found = report.phases[phase];
    const figures = Object.entries(found).filter(
      ([name, value]) => !PROVENANCE.has(name) && (value === null || typeof value !== "object"),
    );
    return html`<li key=${phase}><div class="line-head"><span title=${ROUND_WORDS[phase]}>${phase}</span><span
      class="value">${duration(found.seconds)}</span></div>
      <div class="meter thin" aria-hidden="true"><div class="meter-fill tone-busy"
        style=${{ width: `${((found.seconds ?? 0) / longest) * 100}%` }}></div></div>
      <p class="quiet figures">${figures.map(
        ([name, value]) => html`<span key=${name}>${name.replaceAll("_", " ")} <b>
        ${plain(value)}</b></span> `,
      )}</p></li>`;
  })}</ol>`;
}
