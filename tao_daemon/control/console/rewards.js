// How the rewards of a round's completions are spread, one histogram per strategy on a common scale.

import { counted, decimal, percent, whole } from "./format.js";
import { Empty, Load } from "./parts.js";
import { Histogram } from "./plots.js";
import { html } from "./vendor/htm-preact.js";

export function Rewards({ round }) {
  return html`<${Load} path=${`/v1/rounds/${round}/rewards`}>${(found) => html`<${Distribution} found=${found} />`}
    <//>`;
}

function Distribution({ found }) {
  const { strategies, edges, groups, kept, dropped } = found;
  if (!strategies.some((one) => one.scored)) return html`<${Empty}>No completion has a reward.<//>`;
  const lost = dropped ? `; ${whole(dropped)} were dropped, their completions scored alike or not at all` : "";
  // Shares, so that a strategy with few completions is as readable as one with many.
  const shares = strategies.map((one) => one.counts.map((count) => (one.scored ? count / one.scored : 0)));
  const top = Math.max(...shares.flat(), 1e-9);
  return html`<p>
    ${counted(kept, "group")} of ${whole(groups)} could teach something${lost}.</p>
    <div class="histograms">${strategies.map(
      (one, place) => html`<figure key=${one.name}>
      <figcaption><strong>${one.name}</strong> <span
        class="quiet">mean ${decimal(one.mean)}, ${whole(one.scored)} of ${counted(one.completions, "completion")}
          </span></figcaption>
      <${Histogram} counts=${shares[place]} edges=${edges} top=${top} titles=${one.counts}
        label=${`Rewards of strategy ${one.name}: mean ${decimal(one.mean)}; ${spoken(one)}`} />
    </figure>`,
    )}</div>
    <p class="quiet">Share of completions by reward, from 0 to 1; all strategies on one scale.</p>`;
}

function spoken({ counts, scored }) {
  const third = (from, to) =>
    percent(counts.slice(from, to).reduce((sum, each) => sum + each, 0) / Math.max(1, scored));
  const cut = counts.length / 4;
  return `${third(0, cut)} in the lowest quarter of the scale, ${third(counts.length - cut)} in the highest`;
}
