// At a glance: what serves and since when, whether anything is wrong, whether anything waits, and what goes on.

import { ActionButton } from "./buttons.js";
import { FleetPanel } from "./fleet.js";
import { notices } from "./notices.js";
import { Adapter, Empty, Load, Panel, Time } from "./parts.js";
import { GainLegend, GainPlot } from "./plots.js";
import { RolloutPanel } from "./rollout_panel.js";
import { RoundPanel } from "./round_panel.js";
import { useStore } from "./store.js";
import { html } from "./vendor/htm-preact.js";
import { eventWord, gist, isDecision, named } from "./words.js";

const TREND = 30;
const DECISIONS = 8;

export function Overview() {
  const { status, replicas, changes } = useStore();
  return html`<div class="overview">
    <${Serving} status=${status} />
    <div class="column"><${RolloutPanel} status=${status} /></div>
    <div class="column">
      <${RoundPanel} status=${status} />
      <${Panel} title="Held-out gain" id="gain" aside=${html`<a href="#/rounds">All rounds</a>`}>
        <${Load} path=${`/v1/rounds/trend?limit=${TREND}`} again=${changes.rounds}>
          ${({ trend }) => html`<${Trend} points=${trend} />`}<//>
      <//>
      <${FleetPanel} status=${status} replicas=${replicas} />
    </div>
    <${Panel} title="Latest decisions" id="decisions" className="wide" aside=${html`<a href="#/audit">Audit log</a>`}>
      <${Decisions} again=${changes.audit} /><//>
  </div>`;
}

function Serving({ status }) {
  const { incumbent, rollout } = status;
  return html`<section class="panel serving" aria-labelledby="serving">
    <div class="serving-now">
      <h2 id="serving">Serving</h2>
      <p class="headline"><${Adapter} name=${incumbent.adapter} link /></p>
      <p class="quiet">${
        incumbent.since
          ? html`since <${Time}
        at=${incumbent.since} />`
          : "since the beginning"
      }${" · "}routes generation ${incumbent.generation}</p>
    </div>
    <div class="serving-back">
      <h3>An undo goes back to</h3>
      <p>${wayBack(incumbent, rollout)}</p>
      <${ActionButton} name="undo" />
    </div>
    <${Attention} status=${status} />
  </section>`;
}

function Attention({ status }) {
  const found = notices(status);
  return html`<div class="attention">
    <h3>Attention</h3>
    ${
      found.length === 0
        ? html`<p class="calm"><span aria-hidden="true">✓</span> Nothing is wrong, and nothing waits for you.</p>`
        : html`<ul>
      ${found.map(
        ({ tone, text, action }) => html`<li key=${text} class=${`note tone-${tone}`}><span>${text}</span>
        ${action ? html`<${ActionButton} name=${action} primary />` : null}</li>`,
      )}
    </ul>`
    }
  </div>`;
}

function Trend({ points }) {
  if (!points.length)
    return html`<${Empty}>No round has ended yet. A point appears here with every verdict of the gate.<//>`;
  return html`<${GainPlot} points=${points} height=${170} /><${GainLegend} points=${points} />
    <p class="quiet">Candidate minus incumbent on held-out prompts, with 95 % intervals.
      Each round has its own incumbent: gains do not add up.</p>`;
}

/** In a canary the first thing to take back is the candidate's share. */
function wayBack(incumbent, rollout) {
  if (rollout?.phase === "canary") return named(incumbent.adapter);
  return incumbent.adapter === null ? "nothing: the base model serves" : named(incumbent.previous);
}

/** The last entries of the journal that decided something. */
function Decisions({ again }) {
  return html`<${Load} path="/v1/audit?after=9007199254740992&limit=1" again=${again}>${({ head }) => html`
    <${Load} path=${`/v1/audit?after=${Math.max(0, head.seq - 100)}&limit=100`} again=${again} quiet>${({
      entries,
    }) => html`
      <${DecisionList} entries=${entries} />`}<//>`}<//>`;
}

function DecisionList({ entries }) {
  const told = entries
    .filter((entry) => isDecision(entry.event.type) && entry.note)
    .slice(-DECISIONS)
    .reverse();
  if (!told.length) return html`<${Empty}>The journal is empty.<//>`;
  return html`<ol class="decisions">
    ${told.map(
      (entry) => html`<li key=${entry.seq} title=${entry.note}><span class="when"><${Time} at=${entry.at} /></span>
      <span class="who-did">${entry.actor}</span><span><strong>${eventWord(entry.event.type)}
        </strong> ${gist(entry.note)}</span></li>`,
    )}
  </ol>`;
}
