// What stands around: the buffer, intake, gateways and replicas.

import { whole } from "./format.js";
import { Facts, Panel, Tag } from "./parts.js";
import { html } from "./vendor/htm-preact.js";

export function FleetPanel({ status, replicas }) {
  const { buffer, fleet, intake } = status;
  const fresh = (available, all) => (buffer ? `${whole(available)} of ${whole(all)}` : "–");
  const tone = intake === "consuming" ? "good" : "quiet";
  return html`<${Panel} title="Buffer and fleet" id="fleet">
    <${Facts}
      rows=${[
        ["Intake", html`<${Tag} tone=${tone}>${intake.replaceAll("_", " ")}<//>`],
        ["Fresh prompts for training", fresh(buffer?.train_available, buffer?.train)],
        ["Fresh prompts for the gate", fresh(buffer?.held_out_available, buffer?.held_out)],
        ["Gateways", whole(fleet.gateways)],
      ]}
    />
    <ul class="replicas">
      ${replicas.map((each) => html`<${Replica} key=${each.url} each=${each} />`)}
    </ul>
  <//>`;
}

function Replica({ each }) {
  const [tone, word] = each.ready
    ? ["good", "✓ ready"]
    : each.reachable
      ? ["unsure", "! not ready"]
      : ["bad", "✕ not reachable"];
  return html`<li>
    <${Tag} tone=${tone}>${word}<//><span>${each.url}</span>
    <span class="quiet">${each.adapters.length ? `has ${each.adapters.join(", ")}` : "base model alone"}</span>
    ${each.problems.map((text) => html`<span key=${text} class="quiet">${text}</span>`)}
  </li>`;
}
