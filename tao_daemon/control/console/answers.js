// Both answers to held-out prompts beside each other, losses first. Strangers wrote all of it: it goes in as text only.

import { decimal, percent, signed, whole } from "./format.js";
import { Empty, Load } from "./parts.js";
import { Whiskers } from "./plots.js";
import { hashWith } from "./router.js";
import { html } from "./vendor/htm-preact.js";

const PAGE = 10;
const ORDERS = [
  ["regressions", "Losses first"],
  ["gains", "Gains first"],
  ["arrival", "As they were asked"],
];

export function Answers({ place }) {
  const order = ORDERS.some(([name]) => name === place.query.get("order")) ? place.query.get("order") : "regressions";
  const page = Math.max(0, Number.parseInt(place.query.get("page") ?? "0", 10) || 0);
  const path = `/v1/rounds/${encodeURIComponent(place.id)}/answers?order=${order}&limit=${PAGE}&offset=${page * PAGE}`;
  const pick = (event) => location.assign(hashWith(place, { order: event.target.value, page: null }));
  return html`<div class="toolbar"><label class="inline"><span>Order</span>
      <select value=${order} onChange=${pick}>${ORDERS.map(
        ([name, text]) => html`<option key=${name} value=${name}>
        ${text}</option>`,
      )}</select></label></div>
    <${Load} path=${path}>${(found) => html`<${Page} found=${found} page=${page} place=${place} />`}<//>`;
}

function Page({ found, page, place }) {
  const { total, rows } = found;
  if (!total) return html`<${Empty}>No answers were kept.<//>`;
  const from = page * PAGE;
  return html`<${WinRate} found=${found} />
    <ol class="answers" start=${from + 1}>${rows.map((row) => html`<${Pair} key=${row.prompt_id} row=${row} />`)}</ol>
    <nav class="pager" aria-label="Pages of answers">
      ${page > 0 ? html`<a class="button" href=${hashWith(place, { page: page - 1 || null })}>Previous</a>` : null}
      <span>${whole(from + 1)}–${whole(from + rows.length)} of ${whole(total)}</span>
      ${
        from + rows.length < total
          ? html`<a class="button"
        href=${hashWith(place, { page: page + 1 })}>Next</a>`
          : null
      }
    </nav>`;
}

function WinRate({ found }) {
  const { wins, ties, losses, win_rate: rate, win_rate_ci95: range } = found;
  if (rate == null) return null;
  const text = `${percent(rate)} [${percent(range[0])}, ${percent(range[1])}]`;
  return html`<div class="win-rate"><h3>Win rate ${percent(rate)} <span
    class="quiet">[${percent(range[0])}, ${percent(range[1])}]</span></h3>
    <${Whiskers} value=${rate} low=${range[0]} high=${range[1]} from=${0} to=${1} zero=${0.5}
      label=${`Win rate ${text}; one half is no difference`} />
    <p class="quiet">
      ${whole(wins)} won, ${whole(ties)} alike, ${whole(losses)} lost;
      alike counts as half a win, one half is no difference.</p></div>`;
}

function Pair({ row }) {
  const { difference } = row;
  const [tone, word] = difference > 0 ? ["good", "gain"] : difference < 0 ? ["bad", "loss"] : ["quiet", "alike"];
  return html`<li class="pair">
    <div class="pair-head"><span class=${`badge tone-${tone}`}>${word} ${signed(difference)}</span></div>
    <div class="prompt"><h4>Prompt</h4>${
      row.prompt === null
        ? html`<p
      class="quiet">The prompt was erased.</p>`
        : html`<${Said} text=${row.prompt} />`
    }</div>
    <div class="sides">
      <${Side} name="Incumbent" row=${row} side="incumbent" />
      <${Side} name="Candidate" row=${row} side="candidate" />
    </div></li>`;
}

function Side({ name, row, side }) {
  const text = row[`${side}_text`];
  return html`<div class="side"><h4>${name} <span class="value">${decimal(row[`${side}_score`])}</span>
      <span class="quiet"> ${whole(row[`${side}_tokens`])} tokens${row[`${side}_truncated`] ? ", cut off" : ""}</span>
        </h4>
    ${text ? html`<${Said} text=${text} />` : html`<p class="quiet">An empty answer.</p>`}</div>`;
}

/** What somebody or a model wrote: isolated, so that no control character reorders the page around it. */
function Said({ text }) {
  return html`<pre class="said" tabindex="0" dir="auto"><bdi>${text}</bdi></pre>`;
}
