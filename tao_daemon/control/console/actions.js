// What a person may do, in words: what happens, who serves before and after, and the request that does it. Pure.

import { counted, percent } from "./format.js";
import { isOpen, named } from "./words.js";

/** What is common to all: path, scope, title, verb of the button, tone. */
const KINDS = {
  approve: { path: "/v1/rollout/approve", scope: "approve", verb: "Approve", tone: "go", title: "Approve the rollout" },
  promote: { path: "/v1/rollout/promote", scope: "approve", verb: "Skip ahead", tone: "warn", title: "Skip ahead" },
  promoteFull: {
    path: "/v1/rollout/promote",
    scope: "approve",
    verb: "Promote in full",
    tone: "warn",
    title: "Promote in full",
  },
  abort: { path: "/v1/rollout/abort", scope: "operate", verb: "Abort", tone: "stop", title: "Abort the rollout" },
  pause: { path: "/v1/rollout/pause", scope: "operate", verb: "Pause", tone: "plain", title: "Pause the rollout" },
  resume: { path: "/v1/rollout/resume", scope: "operate", verb: "Resume", tone: "plain", title: "Resume the rollout" },
  undo: { path: "/v1/rollout/undo", scope: "operate", verb: "Undo", tone: "stop", title: "Undo" },
  startRound: { path: "/v1/rounds", scope: "operate", verb: "Start a round", tone: "plain", title: "Start a round" },
  cancelRound: { path: "/v1/rounds/cancel", scope: "operate", verb: "Cancel", tone: "stop", title: "Cancel the round" },
};

export const kindOf = (name) => KINDS[name];

/** Why an action makes no sense now; null when it does. */
export function obstacle(name, status) {
  const { rollout, round, incumbent, mode } = status;
  const open = isOpen(rollout);
  switch (name) {
    case "approve":
      if (mode === "observe") return "rollout.mode is observe: nothing goes on to live traffic";
      if (!open || !["staged", "shadow"].includes(rollout.phase)) return "no rollout waits for an approval";
      return rollout.approved_by ? `approved by ${rollout.approved_by}` : null;
    case "promote":
      if (open && rollout.phase === "staged") return "it is being verified; skip ahead when the shadow runs";
    // falls through
    case "promoteFull":
      if (mode === "observe") return "rollout.mode is observe: nothing goes on to live traffic";
      return open ? null : "no rollout is open";
    case "abort":
      return open ? null : "no rollout is open";
    case "pause":
      return open && !rollout.paused_by ? null : "no rollout moves";
    case "resume":
      return open && rollout.paused_by ? null : "no rollout is paused";
    case "undo":
      return incumbent.adapter === null && rollout?.phase !== "canary" ? "the base model serves already" : null;
    case "cancelRound":
      return round ? null : "no round runs";
    default:
      return null;
  }
}

/** Which places an undo may lead to: `{value, text}`, the usual one first. `settled` are earlier adapters by name. */
export function undoTargets(status, settled) {
  const { adapter, previous } = status.incumbent;
  const found = [];
  if (status.rollout?.phase === "canary") {
    found.push({ value: "", text: `${named(adapter)}, for everybody: the canary ends` });
  }
  if (adapter !== null && previous !== null) found.push({ value: previous, text: `${previous} (the one before)` });
  if (adapter !== null) found.push({ value: "base", text: "the base model, without any adapter" });
  for (const name of settled) {
    if (name !== adapter && name !== previous) found.push({ value: name, text: `${name} (loaded and verified first)` });
  }
  return found;
}

/** Adapters that settled once, the latest first, of GET /v1/rollouts. */
export function settledOnes(rollouts) {
  const names = rollouts.filter((one) => one.steps.some((step) => step.phase === "settled")).map((one) => one.adapter);
  return [...new Set(names)];
}

/** `{what: [sentences], before, after}` for the dialog. */
export function described(name, status, to = "") {
  const { incumbent, rollout, round } = status;
  const now = serving(status);
  const stays = { before: now, after: now };
  switch (name) {
    case "approve":
      return { what: approval(rollout), before: now, after: afterApproval(status, now) };
    case "promote":
      return { what: [skipped(rollout)], before: now, after: following(status) };
    case "promoteFull":
      return { what: hurrying(rollout), before: now, after: afterHurry(status) };
    case "abort":
      return { what: aborting(rollout), before: now, after: afterAbort(status) };
    case "pause":
      return {
        what: ["The rollout stays where it is until somebody resumes it. A regression still ends it by itself."],
        ...stays,
      };
    case "resume":
      return { what: ["The rollout goes on by its evidence from where it was paused."], ...stays };
    case "undo":
      return {
        what: undoing(status, to),
        before: now,
        after:
          to === ""
            ? `${named(incumbent.adapter)} answers everything`
            : `${to === "base" ? named(null) : to} answers everything`,
      };
    case "startRound":
      return { what: beginning(status), ...stays };
    case "cancelRound":
      return { what: [`Round ${round?.id} ends without a verdict. Its prompts go back to the pool.`], ...stays };
    default:
      return { what: [], ...stays };
  }
}

/** Who answers clients now, in words. */
export function serving({ incumbent, rollout }) {
  if (rollout?.phase !== "canary") return `${named(incumbent.adapter)} answers everything`;
  return shared(incumbent, rollout, rollout.traffic_fraction);
}

function shared(incumbent, rollout, share) {
  const rest = `${named(incumbent.adapter)} answers ${percent(1 - share)} of the conversations`;
  return `${rest}, ${rollout.adapter} ${percent(share)}`;
}

function hurrying(rollout) {
  const when = rollout.phase === "staged" ? "as soon as it is verified" : "at once";
  return [
    `${rollout.adapter} serves everything ${when}, and the rollout is settled.`,
    "What is left of shadow, canary and baking is skipped; nothing watches it any more.",
  ];
}

function afterHurry({ incumbent, rollout }) {
  const baking = incumbent.adapter === rollout.adapter;
  const fallback = named(baking ? incumbent.previous : incumbent.adapter);
  return `${rollout.adapter} answers everything; ${fallback} stays loaded for an undo`;
}

function beginning({ round, mode }) {
  const others = round ? `Round ${round.id} ends first. ` : "";
  const judges = mode === "auto" ? "the gate and the rollout" : "the gate, the shadow and your approval";
  return [`${others}A round begins as soon as it can. What it trains serves only after ${judges}.`];
}

function approval(rollout) {
  const pairs = rollout.evidence.shadow_pairs ?? 0;
  const passed = rollout.waits_for_approval;
  return [
    passed
      ? `${rollout.adapter} passed the shadow (${counted(pairs, "pair")}) and goes on to live traffic.`
      : `${rollout.adapter} may go on to live traffic once its shadow passes; it has ${counted(pairs, "pair")} now.`,
    "It is watched at every step, and a regression takes it back by itself.",
  ];
}

function afterApproval({ incumbent, rollout }, now) {
  if (!rollout.waits_for_approval) return `${now}, until its shadow passes; then ${firstStep(rollout)}`;
  const [first] = rollout.plan?.fractions ?? [];
  if (!first) return firstStep(rollout);
  return shared(incumbent, rollout, first);
}

function firstStep(rollout) {
  const [first] = rollout.plan?.fractions ?? [];
  return first
    ? `${rollout.adapter} answers ${percent(first)} of the conversations`
    : `${rollout.adapter} answers everything, watched`;
}

function skipped(rollout) {
  if (rollout.phase === "shadow") return "The rest of the shadow is skipped; the canary begins without its evidence.";
  if (rollout.phase === "baking")
    return "The rest of the baking is skipped; the rollout is settled, and nothing watches it any more.";
  return "The rest of this canary step is skipped.";
}

function following({ rollout }) {
  const fractions = rollout.plan?.fractions ?? [];
  const next =
    rollout.phase === "shadow" ? fractions[0] : rollout.phase === "canary" ? fractions[rollout.step + 1] : undefined;
  if (next !== undefined) return `${rollout.adapter} answers ${percent(next)} of the conversations`;
  return rollout.phase === "baking"
    ? `${rollout.adapter} answers everything, settled`
    : `${rollout.adapter} answers everything, watched`;
}

function aborting(rollout) {
  if (rollout.phase === "baking") return [`${rollout.adapter} is taken back, and its rollout is over.`];
  if (rollout.phase === "canary") return [`${rollout.adapter} gets no more conversations, and its rollout is over.`];
  return [`The rollout of ${rollout.adapter} is over. No client saw an answer of it.`];
}

function afterAbort({ incumbent, rollout }) {
  return `${named(rollout.phase === "baking" ? incumbent.previous : incumbent.adapter)} answers everything`;
}

function undoing({ incumbent, rollout, round }, to) {
  if (to === "") return [`${rollout.adapter} gets no more conversations, and its rollout is over.`];
  const found = [`${named(incumbent.adapter)} is taken back.`];
  const loaded = to === "base" || to === incumbent.previous;
  if (!loaded) found.push(`${to} is loaded and verified first; until then ${named(incumbent.adapter)} serves on.`);
  if (isOpen(rollout) && rollout.phase !== "baking") found.push(`The open rollout of ${rollout.adapter} ends too.`);
  if (round) found.push(`Round ${round.id}, which builds on it, is cancelled.`);
  return found;
}

/** The body of the request. What moves traffic names the generation that the person saw. */
export function bodyOf(name, status, { reason, actor, to }) {
  const content = { reason, ...(actor ? { actor } : {}) };
  if (["approve", "promote", "promoteFull"].includes(name)) content.expected_generation = status.incumbent.generation;
  if (name === "promoteFull") content.full = true;
  if (name === "undo" && to) content.to = to;
  if (name === "undo" && !to) content.expected_generation = status.incumbent.generation;
  return content;
}
