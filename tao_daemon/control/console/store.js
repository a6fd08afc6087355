// What the page knows: the status, who asks, and whether the daemon answers. One object, replaced on every change.
// signed out → signing in → signed in (status, events) → signed out

import { get } from "./api.js";
import { forgetToken, setToken, token } from "./session.js";
import { follow } from "./stream.js";
import { useEffect, useState } from "./vendor/htm-preact.js";
import { announced, topicsOf } from "./words.js";

const REFRESH_MS = 15_000;
const GATHER_MS = 120;
const TOPICS = ["rounds", "rollouts", "adapters", "audit"];

const FRESH = {
  who: null,
  status: null,
  /** Model servers, as the daemon last saw them. */
  replicas: [],
  problem: null,
  /** The action whose dialog is open. It stays open when what it did makes its button go away. */
  asking: null,
  /** "connecting", "live" or "lost", and when that began. */
  link: { state: "connecting", since: 0 },
  /** For those who hear the page: the latest transition worth a word. */
  announcement: "",
  /** How often each topic has changed: what shows it reads it again. */
  changes: Object.fromEntries(TOPICS.map((topic) => [topic, 0])),
};

let state = { ...FRESH, signingIn: false, signInProblem: null };
const listeners = new Set();
let hangUp = null;
let gathered = null;

export const present = () => state;

function set(part) {
  state = { ...state, ...part };
  for (const listener of listeners) listener(state);
}

/** The store's state, kept current. */
export function useStore() {
  const [seen, see] = useState(state);
  useEffect(() => {
    listeners.add(see);
    see(state);
    return () => listeners.delete(see);
  }, []);
  return seen;
}

/** Sign in with this token, or with the one of the tab. */
export async function signIn(given = token()) {
  if (!given) return;
  setToken(given);
  set({ signingIn: true, signInProblem: null });
  try {
    const who = await get("/v1/whoami");
    set({ ...FRESH, who, signingIn: false });
    await refresh();
    hangUp = follow(onEvent, onLink);
  } catch (error) {
    if (error.status === 401) forgetToken();
    set({ ...FRESH, signingIn: false, signInProblem: error });
  }
}

export function signOut(problem = null) {
  hangUp?.();
  hangUp = null;
  forgetToken();
  set({ ...FRESH, signingIn: false, signInProblem: problem });
}

/** Open the dialog of an action; null closes it. */
export const ask = (asking) => set({ asking });

export const may = (who, scope) => who?.scopes.includes(scope) ?? false;

/** Read the status again. A daemon that is down leaves the last one standing, marked as old by the link. */
export async function refresh() {
  if (!state.who) return;
  try {
    const [status, { replicas }] = await Promise.all([get("/v1/status"), get("/v1/replicas")]);
    if (state.who) set({ status, replicas, problem: null });
  } catch (error) {
    if (error.status === 401) signOut(error);
    else set({ problem: error });
  }
}

/** Something was changed from here: everything may look different. */
export function touch(topics = TOPICS) {
  const changes = { ...state.changes };
  for (const topic of topics) changes[topic] += 1;
  set({ changes });
  return refresh();
}

function onEvent(kind, data) {
  if (kind === "progress") return onProgress(data);
  if (kind !== "transition") return;
  set({ announcement: announced(data) ?? state.announcement });
  gathered ??= { topics: new Set(), timer: setTimeout(release, GATHER_MS) };
  for (const topic of topicsOf(data.type)) gathered.topics.add(topic);
}

/** Transitions come in bursts: one look is enough for all of them. */
function release() {
  const { topics } = gathered;
  gathered = null;
  touch(topics);
}

function onProgress(data) {
  const round = state.status?.round;
  if (!round || round.id !== data.round) return;
  const { phase, done, total, fraction, seconds_left, held } = data;
  set({ status: { ...state.status, round: { ...round, phase, done, total, progress: fraction, seconds_left, held } } });
}

function onLink(next, error) {
  if (next === "denied") {
    if (error.status === 401) return signOut(error);
    return set({ problem: error });
  }
  if (state.link.state === next) return;
  const wasLost = state.link.state === "lost";
  set({ link: { state: next, since: Date.now() / 1000 } });
  // The stream tells what comes from now on: what was before it is read.
  if (next === "live") touch(wasLost ? TOPICS : []);
}

// Counts that no transition tells of: the buffer, the gateways.
setInterval(() => document.visibilityState === "visible" && refresh(), REFRESH_MS);
