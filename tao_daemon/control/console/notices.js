// What waits for a person, as GET /v1/status tells it, and the button that settles it. Pure.

const TONES = { decision: "wait", problem: "bad" };
const ACTIONS = { approval: "approve", paused: "resume" };

/** `{tone, text, action}` each, the most pressing first; `action` names a button. */
export function notices({ needs, returning_to: returning }) {
  const found = needs.map(({ code, text, severity }) => ({
    tone: TONES[severity] ?? "bad",
    text: sentence(text),
    action: ACTIONS[code],
  }));
  if (returning) found.push({ tone: "busy", text: `Going back to ${returning}: it is being loaded and verified.` });
  return found;
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}
