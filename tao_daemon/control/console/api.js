// The control API: every call with the token, with a deadline, and with failures in one shape.

import { token } from "./session.js";

/** Where the API lives: beside /console/, whatever a proxy puts before both. */
const ROOT = new URL("../", import.meta.url);
const DEADLINE_MS = 20_000;

/** What went wrong. `status` 0: no answer at all. */
export class ApiError extends Error {
  constructor(status, code, message, remedy) {
    super(message);
    this.status = status;
    this.code = code;
    this.remedy = remedy;
  }

  /** Whether the request may have been carried out although no answer says so. */
  get unsure() {
    return this.status === 0 || this.status >= 500;
  }
}

export const address = (path) => new URL(path.replace(/^\//, ""), ROOT);

export function headers(more = {}) {
  return { Authorization: `Bearer ${token() ?? ""}`, ...more };
}

/** The JSON behind a GET route. Throws ApiError. */
export async function get(path) {
  const response = await ask(path, { headers: headers() });
  return await body(response);
}

/** Ask for a change: `{note, refused, seq, replayed}`, also when it was refused. Throws ApiError. */
export async function change(path, content, key) {
  const response = await ask(path, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json", "Idempotency-Key": key }),
    body: JSON.stringify(content),
  });
  return await body(response, 409);
}

async function ask(path, init) {
  try {
    return await fetch(address(path), { ...init, cache: "no-store", signal: AbortSignal.timeout(DEADLINE_MS) });
  } catch {
    throw unreachable();
  }
}

export function unreachable() {
  return new ApiError(
    0,
    "unreachable",
    "The daemon does not answer.",
    "Is it running? `tao-daemon rollout undo` works with it stopped, on its machine.",
  );
}

async function body(response, alsoFine = 0) {
  let found;
  try {
    found = await response.json();
  } catch {
    throw new ApiError(
      response.status,
      "no_json",
      `The daemon answered ${response.status} without JSON.`,
      "Is something else listening there?",
    );
  }
  if (response.ok || (response.status === alsoFine && "refused" in found)) return found;
  throw failure(response.status, found);
}

/** The documented error shape as an ApiError. */
export function failure(status, found) {
  const { code = "unknown", message = `The daemon answered ${status}.`, remedy = "" } = found?.error ?? {};
  return new ApiError(status, code, message, remedy);
}

/** 128 random bits; `crypto.randomUUID` exists on secure origins only. */
export function idempotencyKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
