// The small pieces that every view is made of. All text goes in as text nodes, whatever it says.

import { relative, utc } from "./format.js";
import { useResource } from "./resource.js";
import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { named, outcomeOf } from "./words.js";

const TICK_MS = 5_000;

/** The present moment, in Unix seconds, moving on by itself. */
export function useNow() {
  const [now, setNow] = useState(Date.now() / 1000);
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now() / 1000), TICK_MS);
    return () => clearInterval(timer);
  }, []);
  return now;
}

/** "5 min ago", with the absolute time in UTC when pointed at or read out. */
export function Time({ at }) {
  const now = useNow();
  if (at == null) return html`<span class="quiet">–</span>`;
  const exact = utc(at);
  return html`<time dateTime=${new Date(at * 1000).toISOString()} title=${exact}
    aria-label=${`${relative(at, now)}, ${exact}`}
    >${relative(at, now)}</time>`;
}

/** An adapter's name, or "base model". */
export function Adapter({ name, link = false }) {
  const text = html`<span class=${name ? "adapter" : "adapter is-base"}>${named(name)}</span>`;
  return link && name ? html`<a href=${`#/adapters?at=${encodeURIComponent(name)}`}>${text}</a>` : text;
}

/** How something ended, or where it is: a sign, a word and a tone. */
export function Badge({ of }) {
  const { sign, tone, word } = outcomeOf(of);
  return html`<span class=${`badge tone-${tone}`}><span aria-hidden="true">${sign}</span> ${word}</span>`;
}

export function Tag({ tone = "quiet", children }) {
  return html`<span class=${`badge tone-${tone}`}>${children}</span>`;
}

/** A bar from 0 to 1 that says its value in words too. */
export function Meter({ label, share, text, tone = "busy", progress = false, thin = false }) {
  const value = Math.max(0, Math.min(1, share ?? 0));
  return html`<div class=${thin ? "meter thin" : "meter"} role=${progress ? "progressbar" : "meter"}
    aria-label=${label} aria-valuemin="0"
    aria-valuemax="100" aria-valuenow=${Math.round(value * 100)} aria-valuetext=${text}>
    <div class=${`meter-fill tone-${tone}`} style=${{ width: `${value * 100}%` }}></div>
  </div>`;
}

/** A titled region of the page. */
export function Panel({ title, id, aside, className = "", children }) {
  return html`<section class=${`panel ${className}`} aria-labelledby=${id}>
    <div class="panel-head"><h2 id=${id}>${title}</h2>${aside ? html`<div class="panel-aside">${aside}</div>` : null}
      </div>
    ${children}
  </section>`;
}

/** What went wrong and what to do about it. */
export function Problem({ error, retry }) {
  return html`<div class="problem" role="alert">
    <p><strong>${error.message}</strong></p>
    ${error.remedy ? html`<p>${error.remedy}</p>` : null}
    ${retry ? html`<button type="button" onClick=${retry}>Try again</button>` : null}
  </div>`;
}

export function Empty({ children }) {
  return html`<p class="empty">${children}</p>`;
}

/** What a route answers, or that it is being read, or what went wrong. `children` gets the answer. */
export function Load({ path, again = 0, quiet = false, children }) {
  const { found, error, retry } = useResource(path, again);
  if (error && (found === null || error.status !== 0)) return html`<${Problem} error=${error} retry=${retry} />`;
  if (found === null) return quiet ? null : html`<p class="empty" aria-busy="true">Reading …</p>`;
  return children(found);
}

/** Pairs of a name and a value. */
export function Facts({ rows, wide = false }) {
  return html`<dl class=${wide ? "facts is-wide" : "facts"}>
    ${rows.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}
