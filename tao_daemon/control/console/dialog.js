// Every change goes through here: what will happen, who serves before and after, a reason, one idempotency key.
// asking → (sending → asking)* → done | cancelled

import { bodyOf, described, kindOf, obstacle, settledOnes, undoTargets } from "./actions.js";
import { change, idempotencyKey } from "./api.js";
import { Problem } from "./parts.js";
import { useResource } from "./resource.js";
import { personName, setPersonName } from "./session.js";
import { touch, useStore } from "./store.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/htm-preact.js";

const REASON_CHARACTERS = 2000;

/** The dialog of one action. It shows the status as it was when it opened: that is what the person decides on. */
export function ActionDialog({ name, onClose }) {
  const { status: latest, who } = useStore();
  const [status, setStatus] = useState(latest);
  const element = useRef(null);
  const kind = kindOf(name);
  const asked = useAsking(name, kind, status);
  const { found } = useResource(name === "undo" ? "/v1/rollouts?limit=50" : null);
  const targets = name === "undo" ? undoTargets(status, settledOnes(found?.rollouts ?? [])) : [];
  const [picked, setTo] = useState(null);
  const to = targets.some((one) => one.value === picked) ? picked : (targets[0]?.value ?? "");

  useEffect(() => {
    // Opened as a modal, so that focus stays inside, Escape cancels and focus returns to the button.
    element.current.showModal();
    element.current.querySelector("[data-first]")?.focus();
  }, []);

  // Before anybody can press a key at what is shown.
  useLayoutEffect(() => {
    if (asked.done) element.current.querySelector(".dialog-foot button").focus();
  }, [asked.done]);

  const vain = asked.done ? null : obstacle(name, status);
  const moved =
    latest.incumbent.generation !== status.incumbent.generation || latest.rollout?.phase !== status.rollout?.phase;
  const { what, before, after } = vain ? { what: [`Cannot be done now: ${vain}.`] } : described(name, status, to);
  return html`<dialog ref=${element} class="dialog" aria-labelledby="dialog-title" onClose=${onClose}>
    <form onSubmit=${(event) => asked.submit(event, to)}>
      <h2 id="dialog-title">${kind.title}</h2>
      <div class="dialog-body">
        ${what.map((sentence) => html`<p key=${sentence}>${sentence}</p>`)}
        ${targets.length > 1 ? html`<${Targets} targets=${targets} value=${to} onPick=${setTo} />` : null}
        ${
          before &&
          html`<dl class="before-after">
            <div><dt>Serves now</dt><dd>${before}</dd></div>
            <div><dt>Serves then</dt><dd>${after}</dd></div>
          </dl>`
        }
        ${asked.done || vain ? null : html`<${Signature} who=${who} asked=${asked} />`}
        ${
          moved && !asked.done && !asked.busy
            ? html`<p class="note tone-wait" role="status">Something moved since this was opened.
          <button type="button" onClick=${() => setStatus(latest)}>Show it as it is</button></p>`
            : null
        }
        <${Answer} asked=${asked} />
      </div>
      <div class="dialog-foot">
        <button type="button" onClick=${() => element.current.close()}>${asked.done ? "Close" : "Cancel"}</button>
        ${
          asked.done || vain
            ? null
            : html`<button type="submit" class=${`do tone-${kind.tone}`} disabled=${asked.busy}
          >${asked.busy ? "Asking …" : kind.verb}</button>`
        }
      </div>
    </form>
  </dialog>`;
}

/** The state of asking once, or again after a refusal. */
function useAsking(name, kind, status) {
  const key = useRef(idempotencyKey());
  const [reason, setReason] = useState("");
  const [actor, setActor] = useState(personName());
  const [at, setAt] = useState({ busy: false, done: null, refused: null, error: null });

  async function submit(event, to) {
    event.preventDefault();
    if (at.busy || at.done || !reason.trim()) return;
    setAt({ busy: true, done: null, refused: null, error: null });
    if (actor.trim()) setPersonName(actor);
    try {
      const body = bodyOf(name, status, { reason: reason.trim(), actor: actor.trim(), to });
      const answer = await change(kind.path, body, key.current);
      // A refusal is an answer: what is asked next is another request.
      if (answer.refused) key.current = idempotencyKey();
      setAt({
        busy: false,
        done: answer.refused ? null : answer,
        refused: answer.refused ? answer : null,
        error: null,
      });
      touch();
    } catch (error) {
      if (!error.unsure && error.code !== "idempotency_key_reused") key.current = idempotencyKey();
      setAt({ busy: false, done: null, refused: null, error });
    }
  }

  return { ...at, reason, setReason, actor, setActor, submit };
}

function Targets({ targets, value, onPick }) {
  return html`<label class="field"><span>Go back to</span>
    <select value=${value} onChange=${(event) => onPick(event.target.value)}>
      ${targets.map((one) => html`<option key=${one.value} value=${one.value}>${one.text}</option>`)}
    </select></label>`;
}

/** The reason, and for the local token, which is nobody's in particular, a name. */
function Signature({ who, asked }) {
  const local = who.name === "local";
  return html`
    ${
      local
        ? html`<label class="field"><span>Your name, for the journal</span>
      <input name="actor" required maxlength="200" autocomplete="name" value=${asked.actor}
        data-first=${asked.actor ? undefined : true} onInput=${(event) => asked.setActor(event.target.value)} />
          </label>`
        : null
    }
    <label class="field"><span>Reason, for the journal</span>
      <textarea name="reason" required rows="2" maxlength=${REASON_CHARACTERS} value=${asked.reason}
        data-first=${local && !asked.actor ? undefined : true}
        enterkeyhint="done" onInput=${(event) => asked.setReason(event.target.value)} onKeyDown=${submitOnEnter}>
          </textarea></label>
    ${local ? null : html`<p class="quiet">Recorded as ${who.name}.</p>`}`;
}

/** Enter submits, Shift and Enter begins a line; not while an input method composes. */
function submitOnEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  event.target.form.requestSubmit();
}

/** What the daemon said. */
function Answer({ asked }) {
  const { done, refused, error } = asked;
  if (done) {
    return html`<div class="note tone-good" role="status"><p><strong>${done.replayed ? "Done before: " : "Done: "}
      </strong>${done.note}</p>
      ${done.seq == null ? null : html`<p class="quiet">Journal entry ${done.seq}</p>`}</div>`;
  }
  if (refused)
    return html`<div class="note tone-bad" role="alert"><p><strong>Refused: </strong>${refused.note}</p></div>`;
  if (!error) return null;
  const unsure = error.unsure
    ? {
        ...error,
        message: error.message,
        remedy: "It may have been done all the same. Trying again " + "with the same reason is safe: it happens once.",
      }
    : error;
  return html`<${Problem} error=${unsure} />`;
}
