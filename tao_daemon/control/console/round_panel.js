// The running round with its phases and time left, or why none runs, and what the last one came to.

import { ActionButton } from "./buttons.js";
import { duration, percent, whole } from "./format.js";
import { Badge, Meter, Panel, Time } from "./parts.js";
import { html } from "./vendor/htm-preact.js";
import { gist, ROUND_PHASES, ROUND_WORDS } from "./words.js";

export function RoundPanel({ status }) {
  const { round, last_round: last, next_round: next } = status;
  return html`<${Panel} title=${round ? `Round ${round.id}` : "Rounds"} id="round" aside=${
    round
      ? html`<${Badge}
    of="running" />`
      : null
  }>
    ${round ? html`<${Running} round=${round} />` : html`<p>No round runs: ${next.due ?? next.trigger}.</p>`}
    ${
      last
        ? html`<p class="last-round">Last: <a href=${`#/rounds/${last.id}`}>round ${last.id}</a> <${Badge}
          of=${last.outcome} />${" "}
      <span class="quiet"><${Time} at=${last.ended_at} /></span><br /><span class="quiet">${gist(last.reason)}</span>
        </p>`
        : null
    }
    <div class="actions">${
      round
        ? html`<${ActionButton} name="cancelRound"
      label="Cancel the round" />`
        : html`<${ActionButton} name="startRound" />`
    }</div>
  <//>`;
}

function Running({ round }) {
  const at = ROUND_PHASES.indexOf(round.phase);
  const done = round.total ? `${whole(round.done)} of ${whole(round.total)}` : percent(round.progress);
  const left = round.seconds_left === null ? "" : `, about ${duration(round.seconds_left)} left`;
  return html`
    <p class="subject">begun <${Time} at=${round.started_at} />: ${round.reason}</p>
    <ol class="stepper" aria-label="Phases of the round">
      ${ROUND_PHASES.map(
        (name, place) => html`<li key=${name} class=${place < at ? "is-done" : place === at ? "is-current" : "is-later"}
        aria-current=${place === at ? "step" : undefined}><span aria-hidden="true">
          ${place < at ? "✓" : place === at ? "●" : "○"}</span> ${name}</li>`,
      )}
    </ol>
    <div class="line"><div class="line-head"><span>${round.phase}</span><span class="value">${done}${left}</span></div>
      <${Meter} label=${`Progress of ${round.phase}`} share=${round.progress} text=${`${done}${left}`} progress />
      <p class="quiet">It ${ROUND_WORDS[round.phase]}.${round.attempt > 1 ? ` Attempt ${round.attempt}.` : ""}</p>
      ${round.held ? html`<p class="quiet">${round.held}.</p>` : null}
        </div>`;
}
