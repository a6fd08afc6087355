// What is around every view: where one is, whether the daemon answers, who asks, and what serves in one line.

import { ActionDialog } from "./dialog.js";
import { clockTime, percent } from "./format.js";
import { notices } from "./notices.js";
import { Adapter } from "./parts.js";
import { ask, signOut, useStore } from "./store.js";
import { html, useEffect, useRef } from "./vendor/htm-preact.js";
import { isOpen, outcomeOf } from "./words.js";

const LINKS = [
  ["overview", "Overview", "#/"],
  ["rounds", "Rounds", "#/rounds"],
  ["rollouts", "Rollouts", "#/rollouts"],
  ["adapters", "Adapters", "#/adapters"],
  ["audit", "Audit", "#/audit"],
];

export function Frame({ place, title, children }) {
  const { who, link, status, asking, announcement } = useStore();
  const heading = useRef(null);
  const first = useRef(true);
  const waiting = status ? notices(status).filter((notice) => notice.tone === "wait").length : 0;
  useEffect(() => {
    document.title = `${waiting ? `(${waiting}) ` : ""}${title} · tao-daemon`;
  }, [title, waiting]);
  useEffect(() => {
    // After a click on a link, keyboard and screen reader go on at the top of the new view.
    if (first.current) first.current = false;
    else {
      heading.current.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
  }, [place.view, place.id]);
  function closed() {
    ask(null);
    // The button may be gone with what it did: then go on at the top instead of nowhere.
    setTimeout(() => document.activeElement === document.body && heading.current?.focus({ preventScroll: true }));
  }
  return html`
    <a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="top">
      <a class="brand" href="#/"><img src="icon.svg" alt="" width="22" height="22" />tao-daemon</a>
      <nav aria-label="Views"><ul>
        ${LINKS.map(
          ([view, text, href]) => html`<li key=${view}><a href=${href}
          aria-current=${place.view === view ? "page" : undefined}>${text}</a></li>`,
        )}
      </ul></nav>
      <div class="who"><${Link} link=${link} /><span class="name" title=${`May: ${who.scopes.join(", ")}`}>${who.name}
        </span>
        <button type="button" class="small" onClick=${() => signOut()}>Sign out</button></div>
    </header>
    <main id="main" tabindex="-1">
      <h1 tabindex="-1" ref=${heading} class=${place.view === "overview" ? "unseen" : ""}>${title}</h1>
      ${status && place.view !== "overview" ? html`<${Strip} status=${status} />` : null}
      ${children}
    </main>
    <footer>${status ? `tao-daemon ${status.version} · rollout mode ${status.mode}` : "tao-daemon"}</footer>
    ${asking && status ? html`<${ActionDialog} key=${asking} name=${asking} onClose=${closed} />` : null}
    <div class="unseen" role="status" aria-live="polite">${announcement}</div>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

/** Whether what is shown is alive. */
function Link({ link }) {
  const words = {
    connecting: ["busy", "connecting"],
    live: ["good", "live"],
    lost: ["bad", `daemon down since ${clockTime(link.since)}`],
  };
  const [tone, text] = words[link.state];
  return html`<span class=${`link tone-${tone}`} role="status"><span class="lamp" aria-hidden="true"></span>${text}${
    link.state === "lost" ? html`<span class="again">, reconnecting</span>` : null
  }</span>`;
}

/** Everything that matters in one line, for the views that are about something else. */
function Strip({ status }) {
  const { incumbent, rollout, round } = status;
  const share = rollout?.phase === "canary" ? ` ${percent(rollout.traffic_fraction)}` : "";
  return html`<p class="strip"><span>Serving <${Adapter} name=${incumbent.adapter} /></span>
    ${
      isOpen(rollout)
        ? html`<span>Rollout: ${outcomeOf(rollout.phase).word}${share}${
            rollout.waits_for_approval ? html`, <a href="#/">waits for approval</a>` : ""
          }</span>`
        : null
    }
    ${round ? html`<span>Round ${round.id}: ${round.phase} ${percent(round.progress)}</span>` : null}</p>`;
}
