// Server-sent events over fetch: EventSource cannot send the Authorization header.
// connecting → live → (lost → connecting)* → stopped

import { address, failure, headers, unreachable } from "./api.js";

const SILENCE_MS = 45_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;

/** A parser of one stream: give it text as it comes, get whole events. Lines end in LF or CRLF. */
export function parser() {
  let rest = "";
  let event = { kind: "message", data: [], id: null };
  return (text) => {
    const found = [];
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const raw of lines) {
      const line = raw.endsWith("\r") ? raw.slice(0, -1) : raw;
      if (line === "") {
        if (event.data.length) found.push({ ...event, data: event.data.join("\n") });
        event = { kind: "message", data: [], id: event.id };
      } else if (!line.startsWith(":")) {
        const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
        if (name === "event") event.kind = value;
        else if (name === "data") event.data.push(value);
        else if (name === "id") event.id = value;
      }
    }
    return found;
  };
}

/**
 * Follow GET /v1/events until the returned function is called. `onEvent(kind, data)` gets each event's JSON;
 * `onLink(state, error)` hears "live", "lost" and, for a token that is refused, "denied", which ends it.
 */
export function follow(onEvent, onLink) {
  const stop = new AbortController();
  const link = { last: null, pause: FIRST_PAUSE_MS };
  run();
  return () => stop.abort();

  async function run() {
    while (!stop.signal.aborted) {
      const error = await once().catch((problem) => problem);
      if (stop.signal.aborted) return;
      if (error?.status === 401 || error?.status === 403) return onLink("denied", error);
      onLink("lost", error ?? unreachable());
      await wait(link.pause, stop.signal);
      link.pause = Math.min(link.pause * 2, LONGEST_PAUSE_MS);
    }
  }

  async function once() {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MS);
    try {
      const response = await fetch(address("/v1/events"), {
        headers: headers(link.last ? { "Last-Event-ID": link.last } : {}),
        cache: "no-store",
        signal: AbortSignal.any([stop.signal, silence.signal]),
      });
      if (!response.ok) throw failure(response.status, await response.json().catch(() => null));
      onLink("live", null);
      link.pause = FIRST_PAUSE_MS;
      const parse = parser();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS);
        for (const event of parse(value)) {
          link.last = event.id ?? link.last;
          onEvent(event.kind, JSON.parse(event.data));
        }
      }
    } finally {
      clearTimeout(timer);
    }
  }
}

function wait(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    // A laptop that wakes up, or a network that comes back, does not wait.
    addEventListener("online", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
