// The journal: every decision, who made it and why, and whether the chain of hashes is whole.

import { get } from "./api.js";
import { counted, utc, whole } from "./format.js";
import { Empty, Load, Panel, Problem, Time } from "./parts.js";
import { hashWith } from "./router.js";
import { useStore } from "./store.js";
import { html, useState } from "./vendor/htm-preact.js";
import { eventWord, isRoutine } from "./words.js";

const PAGE = 100;

export function AuditView({ place }) {
  const { changes } = useStore();
  const before = Number.parseInt(place.query.get("before") ?? "", 10);
  const all = place.query.get("all") === "yes";
  const again = Number.isNaN(before) ? changes.audit : 0;
  return html`<${Panel} title="Journal" id="journal" aside=${html`<${Verify} />`}>
    <div class="toolbar"><label class="inline"><input type="checkbox" checked=${all}
      onChange=${(event) => location.assign(hashWith(place, { all: event.target.checked ? "yes" : null }))} />
      <span>Routine looks at the evidence too</span></label></div>
    <${Load} path="/v1/audit?after=9007199254740992&limit=1" again=${again}>${({ head }) => {
      const last = Number.isNaN(before) ? head.seq : before - 1;
      return html`<${Window} last=${last} all=${all} place=${place} again=${again} />`;
    }}<//>
  <//>`;
}

/** The entries up to `last`, a page of sequence numbers at a time. */
function Window({ last, all, place, again }) {
  const after = Math.max(0, last - PAGE);
  if (last < 1) return html`<${Empty}>The journal is empty.<//>`;
  return html`<${Load} path=${`/v1/audit?after=${after}&limit=${Math.min(PAGE, last - after)}`} again=${again}>${({
    entries,
  }) => {
    const shown = entries.filter((entry) => all || !isRoutine(entry.event.type)).reverse();
    return html`<table class="rows audit">
        <thead><tr><th scope="col">Entry</th><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th>
          <th scope="col">Note</th></tr></thead>
        <tbody>${shown.map((entry) => html`<${Row} key=${entry.seq} entry=${entry} />`)}</tbody>
      </table>
      ${shown.length ? null : html`<${Empty}>Only routine looks in entries ${whole(after + 1)}–${whole(last)}.<//>`}
      <nav class="pager" aria-label="Pages of the journal">
        ${
          place.query.get("before")
            ? html`<a class="button"
          href=${hashWith(place, { before: null })}>Newest</a>`
            : null
        }
        <span>entries ${whole(after + 1)}–${whole(last)}</span>
        ${after > 0 ? html`<a class="button" href=${hashWith(place, { before: after + 1 })}>Older</a>` : null}
      </nav>`;
  }}<//>`;
}

function Row({ entry }) {
  return html`<tr><th scope="row" data-label="Entry"><span title=${`Hash ${entry.hash}`}>${entry.seq}</span></th>
    <td data-label="When"><${Time} at=${entry.at} /></td><td data-label="Who">${entry.actor}</td>
    <td data-label="What">${eventWord(entry.event.type)}</td><td data-label="Note" class="note-cell">${entry.note}</td>
      </tr>`;
}

/** Checks every hash on demand: it reads the whole journal. */
function Verify() {
  const [found, setFound] = useState({ busy: false, answer: null, error: null });
  async function check() {
    setFound({ busy: true, answer: null, error: null });
    try {
      setFound({ busy: false, answer: await get("/v1/audit/verify"), error: null });
    } catch (error) {
      setFound({ busy: false, answer: null, error });
    }
  }
  const { answer } = found;
  return html`<span role="status">${
    answer === null
      ? null
      : answer.problem
        ? html`<span class="tone-bad">✕ ${answer.problem}</span>`
        : html`<span class="tone-good"
          title=${`Head ${answer.head.hash}, ${utc(Date.now() / 1000)}`}
            >✓ whole, ${counted(answer.entries, "entry", "entries")}</span>`
  }</span>
    <button type="button" class="small" disabled=${found.busy} onClick=${check}>
      ${found.busy ? "Checking …" : "Check the chain"}</button>
    ${found.error ? html`<${Problem} error=${found.error} />` : null}`;
}
