// What states, outcomes and events are called, and which parts of the page an event touches. Pure.

export const BASE = "base model";

/** An adapter's name for people; none is the base model. */
export const named = (adapter) => adapter ?? BASE;

/** Phases of a round, in order. */
export const ROUND_PHASES = ["claiming", "sampling", "scoring", "training", "evaluating"];

/** What each phase of a round does. */
export const ROUND_WORDS = {
  claiming: "takes fresh prompts for training",
  sampling: "asks the serving model several completions per prompt",
  scoring: "scores every completion, without labels",
  training: "trains a LoRA adapter on the scored completions",
  evaluating: "compares candidate and incumbent on held-out prompts",
};

/** What each phase of a rollout means for clients. */
export const ROLLOUT_WORDS = {
  staged: "Being loaded and verified on every server; no client sees it.",
  shadow: "Answers live prompts beside the incumbent; no client sees an answer of it.",
  canary: "Answers a share of the conversations.",
  baking: "Answers everything, still watched; undoes itself on a regression.",
  settled: "Serves. The rollout is over.",
  aborted: "Ended before it served everything.",
  rolled_back: "Served everything, and was undone.",
  superseded: "A newer candidate took its place.",
};

export const OPEN_PHASES = ["staged", "shadow", "canary", "baking"];
export const isOpen = (rollout) => rollout != null && OPEN_PHASES.includes(rollout.phase);

/** A sign and a tone for every way to end: never colour alone. */
export const OUTCOMES = {
  accepted: { sign: "✓", tone: "good", word: "accepted" },
  rejected: { sign: "✕", tone: "bad", word: "rejected" },
  inconclusive: { sign: "?", tone: "unsure", word: "inconclusive" },
  failed: { sign: "!", tone: "bad", word: "failed" },
  cancelled: { sign: "–", tone: "quiet", word: "cancelled" },
  running: { sign: "…", tone: "busy", word: "running" },
  staged: { sign: "…", tone: "busy", word: "staged" },
  shadow: { sign: "…", tone: "busy", word: "shadow" },
  canary: { sign: "…", tone: "busy", word: "canary" },
  baking: { sign: "…", tone: "busy", word: "baking" },
  settled: { sign: "✓", tone: "good", word: "settled" },
  aborted: { sign: "✕", tone: "bad", word: "aborted" },
  rolled_back: { sign: "↶", tone: "bad", word: "rolled back" },
  superseded: { sign: "–", tone: "quiet", word: "superseded" },
};

export const outcomeOf = (name) => OUTCOMES[name] ?? { sign: "·", tone: "quiet", word: String(name ?? "unknown") };

/** Events of the journal in words. */
const EVENTS = {
  DaemonStarted: "daemon started",
  RoundRequested: "round asked for",
  PhaseCompleted: "phase done",
  PhaseFailed: "phase failed",
  CandidateJudged: "gate's verdict",
  RoundClosed: "round put away",
  RoundCancelRequested: "round cancelled",
  RolloutApproved: "approved",
  RolloutPromoted: "promoted",
  RolloutAborted: "aborted",
  RolloutPaused: "paused",
  RolloutResumed: "resumed",
  AdapterVerified: "adapter verified",
  VerificationFailed: "verification failed",
  ShadowScored: "shadow pairs",
  TrafficMeasured: "traffic looked at",
  UndoRequested: "undo",
  ReplicaDrifted: "replica drifted",
  ReplicaHealed: "replica healed",
  AdapterUnservable: "adapter unservable",
  AdapterDeleted: "adapter deleted",
  TokenIssued: "token issued",
  TokenRevoked: "token revoked",
};

/** An event's class name in words; one that this page does not know is taken apart. */
export const eventWord = (type) =>
  EVENTS[type] ??
  String(type)
    .replace(/(?<!^)([A-Z])/g, " $1")
    .toLowerCase();

/** Looks at evidence come every few seconds and decide nothing by themselves. */
const ROUTINE = new Set(["ShadowScored", "TrafficMeasured"]);
export const isRoutine = (type) => ROUTINE.has(type);

/** What was judged, allowed, taken back or went wrong; the work between it is not. */
const WORK = new Set([...ROUTINE, "PhaseCompleted", "RoundClosed", "DaemonStarted"]);
export const isDecision = (type) => !WORK.has(type);

/** The first of several reasons: the one that decided. */
export const gist = (reason) => String(reason ?? "").split("; ")[0];

/** What is read out when it happens; null for what comes every few seconds. */
export const announced = (transition) =>
  isRoutine(transition.type) || !transition.note ? null : `${eventWord(transition.type)}: ${transition.note}`;

/** Which parts of the page may look different after an event. */
export function topicsOf(type) {
  if (isRoutine(type)) return ["audit", "rollouts"];
  if (/^(Round|Phase|Candidate)/.test(type)) return ["audit", "rounds", "rollouts", "adapters"];
  if (/^Token/.test(type)) return ["audit"];
  return ["audit", "rollouts", "adapters"];
}
