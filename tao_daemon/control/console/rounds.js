// Every round: the gain over time as a plot, then a table, the latest first.

import { get } from "./api.js";
import { duration, interval, signed } from "./format.js";
import { Badge, Empty, Load, Panel, Problem, Time } from "./parts.js";
import { GainLegend, GainPlot, MiniWhiskers } from "./plots.js";
import { useStore } from "./store.js";
import { html, useState } from "./vendor/htm-preact.js";
import { gist, outcomeOf } from "./words.js";

const PAGE = 25;
const TREND = 200;

export function RoundsView() {
  const { changes } = useStore();
  return html`
    <${Panel} title="Held-out gain over rounds" id="gain">
      <${Load} path=${`/v1/rounds/trend?limit=${TREND}`} again=${changes.rounds}>${({ trend }) => html`<${Trend}
        points=${trend} />`}<//>
    <//>
    <${Panel} title="History" id="history">
      <${Load} path=${`/v1/rounds?limit=${PAGE}`} again=${changes.rounds}>${({ rounds }) => html`<${History}
        rounds=${rounds} />`}<//>
    <//>`;
}

function Trend({ points }) {
  if (!points.length) return html`<${Empty}>No round has ended yet.<//>`;
  return html`<${GainPlot} points=${points} height=${240} /><${GainLegend} points=${points} />
    <p class="quiet">Each mark is one candidate against the incumbent of its own round, on prompts that never trained;
      the line is its 95 % interval. Gains do not add up, and those of accepted candidates are a little too large,
      because they were chosen by them.</p>`;
}

/** The newest page, with older ones below it on demand. */
function History({ rounds }) {
  const [older, setOlder] = useState([]);
  const [more, setMore] = useState({ busy: false, error: null });
  const all = [...older, ...rounds];
  if (!all.length)
    return html`<${Empty}>No round yet. One starts when enough fresh prompts are there;
      the overview says what is missing.<//>`;

  const bounds = all.flatMap(({ verdict }) => [verdict?.numbers?.difference_low, verdict?.numbers?.difference_high]);
  const reach = Math.max(0.05, ...bounds.filter((bound) => bound != null).map(Math.abs));

  async function load() {
    setMore({ busy: true, error: null });
    try {
      const found = await get(`/v1/rounds?limit=${PAGE}&before=${all[0].round}`);
      setOlder([...found.rounds, ...older]);
      setMore({ busy: false, error: null });
    } catch (error) {
      setMore({ busy: false, error });
    }
  }

  return html`<table class="rows">
      <thead><tr><th scope="col">Round</th><th scope="col">Outcome</th><th scope="col">Held-out gain</th><th
        scope="col">Why</th>
        <th scope="col">Began</th><th scope="col">Took</th></tr></thead>
      <tbody>${[...all].reverse().map(
        (report) => html`<${Row} key=${report.round} report=${report}
        reach=${reach} />`,
      )}</tbody>
    </table>
    ${more.error ? html`<${Problem} error=${more.error} />` : null}
    ${
      all[0].round > 1
        ? html`<button type="button" onClick=${load}
      disabled=${more.busy}>Older rounds</button>`
        : null
    }`;
}

function Row({ report, reach }) {
  const { difference, difference_low: low, difference_high: high } = report.verdict?.numbers ?? {};
  const known = difference != null && low != null;
  const outcome = report.outcome ?? "running";
  return html`<tr>
    <th scope="row" data-label="Round"><a href=${`#/rounds/${report.round}`}>Round ${report.round}</a></th>
    <td data-label="Outcome"><${Badge} of=${outcome} /></td>
    <td data-label="Held-out gain" class="gain">${
      known
        ? html`<${MiniWhiskers} low=${low} high=${high} value=${difference} reach=${reach}
          tone=${outcomeOf(outcome).tone} />
      <span>${signed(difference)} <span class="quiet">${interval(low, high)}</span></span>`
        : html`<span class="quiet">not measured</span>`
    }</td>
    <td data-label="Why" class="why" title=${report.outcome_reason ?? ""}>
      ${gist(report.outcome_reason ?? report.reason)}</td>
    <td data-label="Began"><${Time} at=${report.started_at} /></td>
    <td data-label="Took" class="value">${duration(tookSeconds(report))}</td>
  </tr>`;
}

function tookSeconds(report) {
  if (report.ended_at != null && report.started_at != null) return report.ended_at - report.started_at;
  const spent = Object.values(report.phases ?? {}).map((phase) => phase.seconds ?? 0);
  return spent.length ? spent.reduce((sum, each) => sum + each, 0) : null;
}
