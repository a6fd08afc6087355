// Which adapter came from which: a tree from the base model down, with what each gained and which one serves.

import { signed } from "./format.js";
import { Adapter, Empty, Load, Panel, Problem, Tag, Time } from "./parts.js";
import { useResource } from "./resource.js";
import { useStore } from "./store.js";
import { html, useEffect, useRef } from "./vendor/htm-preact.js";
import { isOpen } from "./words.js";

export function AdaptersView({ place }) {
  const { status, changes } = useStore();
  const { found } = useResource("/v1/rounds/trend?limit=500", changes.rounds);
  const gains = new Map((found?.trend ?? []).map((point) => [point.candidate, point]));
  return html`<${Panel} title="Lineage" id="lineage">
    <p class="quiet">Each adapter is indented below the one that it was trained from.</p>
    <${Load} path="/v1/adapters" again=${changes.adapters}>${({ adapters }) => html`
      <${Tree} adapters=${adapters} gains=${gains} status=${status} at=${place.query.get("at")} />`}<//>
  <//>`;
}

function Tree({ adapters, gains, status, at }) {
  const children = childrenOf(adapters);
  return html`<ul class="lineage"><li>
    <div class="node"><${Adapter} name=${null} /> ${roles(null, status)}</div>
    <${Branch} of=${null} children=${children} gains=${gains} status=${status} at=${at} />
  </li></ul>
  ${adapters.length ? null : html`<${Empty}>No adapter was trained yet.<//>`}`;
}

/** By parent; one whose parent is gone by retention hangs below the base model, and says so. */
export function childrenOf(adapters) {
  const names = new Set(adapters.map((one) => one.name));
  const found = new Map();
  for (const one of adapters) {
    const parent = names.has(one.lineage?.parent) ? one.lineage.parent : null;
    found.set(parent, [...(found.get(parent) ?? []), one]);
  }
  return found;
}

function Branch({ of, children, gains, status, at }) {
  const here = children.get(of) ?? [];
  if (!here.length) return null;
  return html`<ul>${here.map(
    (one) => html`<li key=${one.name}>
    <${Node} one=${one} gain=${gains.get(one.name)} status=${status} chosen=${at === one.name}
      orphan=${of === null && one.lineage?.parent != null} />
    <${Branch} of=${one.name} children=${children} gains=${gains} status=${status} at=${at} />
  </li>`,
  )}</ul>`;
}

function Node({ one, gain, status, chosen, orphan }) {
  const element = useRef(null);
  useEffect(() => {
    if (chosen) element.current.scrollIntoView({ block: "center" });
  }, [chosen]);
  const { lineage } = one;
  if (!lineage)
    return html`<div class="node" ref=${element}><${Adapter} name=${one.name} /><${Problem}
      error=${{ message: one.problem }} /></div>`;
  return html`<div class=${`node ${chosen ? "is-chosen" : ""}`} ref=${element}>
    <div><${Adapter} name=${one.name} /> ${roles(one.name, status)}</div>
    <div class="quiet"><a href=${`#/rounds/${lineage.round}`}>round ${lineage.round}</a>
      ${gain?.difference == null ? "" : `, gain ${signed(gain.difference)}`},
      ${" "}${lineage.prompt_ids} prompts, rank ${one.rank}, <${Time} at=${one.created_at} />
        ${orphan ? `, from ${lineage.parent}, whose files are gone` : ""}</div>
  </div>`;
}

/** What an adapter is now, in words. */
function roles(name, { incumbent, rollout }) {
  const found = [];
  if (incumbent.adapter === name)
    found.push(html`<${Tag} key="s" tone="good"><span aria-hidden="true">✓ </span>serving<//>`);
  if (incumbent.adapter !== null && incumbent.previous === name)
    found.push(html`<${Tag} key="p">${rollout?.phase === "canary" ? "a second" : "an"} undo goes here<//>`);
  if (name !== null && isOpen(rollout) && rollout.adapter === name)
    found.push(html`<${Tag} key="r" tone="busy">${rollout.phase}<//>`);
  return found;
}
