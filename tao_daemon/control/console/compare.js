// Two rounds beside each other, figure by figure.

import { plain, signed } from "./format.js";
import { Load } from "./parts.js";
import { hashWith } from "./router.js";
import { html } from "./vendor/htm-preact.js";

/** What is words or a date: a difference of it says nothing. */
const TOLD_ABOVE = new Set(["outcome_reason", "reason", "started_at", "ended_at"]);

export function CompareRounds({ round, place }) {
  const other = Number.parseInt(place.query.get("with") ?? "", 10);
  function pick(event) {
    event.preventDefault();
    const wanted = new FormData(event.target).get("with");
    if (wanted) location.assign(hashWith(place, { with: wanted }));
  }
  return html`<form class="toolbar" onSubmit=${pick}><label class="inline"><span>Beside round</span>
      <input type="number" name="with" min="1" required
        defaultValue=${Number.isNaN(other) ? (round > 1 ? round - 1 : "") : other} /></label>
      <button type="submit">Compare</button></form>
    ${
      Number.isNaN(other)
        ? null
        : html`<${Load} path=${`/v1/rounds/compare?left=${other}&right=${round}`}>
      ${(found) => html`<${Table} found=${found} />`}<//>`
    }`;
}

const changed = (change) => signed(change, Number.isInteger(change) ? 0 : 3);

function Table({ found }) {
  const rows = found.rows.filter((row) => !TOLD_ABOVE.has(row.name) && (row.left !== null || row.right !== null));
  return html`<div class="scroller" tabindex="0" role="region" aria-label="Comparison"><table
    class="numbers comparison">
    <thead><tr><th scope="col">What</th><th scope="col">Round ${found.left}</th><th scope="col">Round ${found.right}
      </th><th scope="col">Change</th></tr></thead>
    <tbody>${rows.map(
      (row) => html`<tr key=${row.name}><th scope="row">${row.name.replaceAll("_", " ").replace(".", ": ")}</th>
      <td>${plain(row.left)}</td><td>${plain(row.right)}</td><td>${row.change === null ? "" : changed(row.change)}
        </td></tr>`,
    )}</tbody>
  </table></div>`;
}
