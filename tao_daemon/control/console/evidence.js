// What a rollout's evidence amounts to, in sentences beside the numbers. Pure.

import { counted, figure, percent, signed } from "./format.js";

/** How far an e-value is on its way to its threshold, in [0, 1]: evidence multiplies, so the scale is logarithmic. */
export function towards(value, threshold) {
  if (!(value > 1) || !(threshold > 1)) return 0;
  return Math.min(1, Math.log(value) / Math.log(threshold));
}

/** What the shadow has seen, and what it still needs. */
export function shadowLines(evidence) {
  const pairs = evidence.shadow_pairs ?? 0;
  const wanted = evidence.shadow_pairs_wanted ?? 0;
  const mean = evidence.shadow_mean_difference ?? 0;
  const sure = evidence.evidence_not_inferior ?? 0;
  const needed = evidence.threshold_not_inferior ?? 0;
  return [
    {
      name: "Live prompts compared",
      value: `${pairs} of at least ${wanted}`,
      share: wanted ? Math.min(1, pairs / wanted) : 1,
      met: pairs >= wanted,
      text:
        pairs >= wanted
          ? "Enough pairs of answers to the same live prompts."
          : `${counted(wanted - pairs, "pair")} of answers to the same live prompts are still missing.`,
    },
    {
      name: "Sure that it is not worse",
      value: `e-value ${figure(sure)} of ${figure(needed)} needed`,
      share: towards(sure, needed),
      met: sure >= needed,
      text:
        sure >= needed
          ? "The pairs rule out that it is worse by more than the margin."
          : "The pairs do not yet rule out that it is worse by more than the margin.",
    },
    {
      name: "Mean difference",
      value: signed(mean),
      mean: pairs ? mean : null,
      met: null,
      text: pairs ? meanText(mean) : "No pair was scored yet.",
    },
  ];
}

function meanText(mean) {
  if (Math.abs(mean) < 0.005) return "Both score alike on average; scores lie between 0 and 1.";
  return (
    `On average the candidate scores ${signed(Math.abs(mean)).slice(1)} ${mean > 0 ? "higher" : "lower"}; ` +
    "scores lie between 0 and 1."
  );
}

const GUARDS = {
  worse: "Worse answers",
  errors: "More errors",
  error_rate: "Too many errors",
  slow: "Slower",
  truncated: "Cut off more often",
};

const GUARD_TEXTS = {
  worse: "shadow scores below the incumbent's",
  errors: "errors in its arm beyond its share",
  error_rate: "errors beyond the absolute limit",
  slow: "slow answers in its arm beyond its share",
  truncated: "answers cut off in its arm beyond its share",
};

/** The tests that end the rollout by themselves when one reaches its threshold. */
export function guards(evidence) {
  return Object.keys(GUARDS)
    .filter((name) => evidence[`threshold_${name}`] != null)
    .map((name) => {
      const value = evidence[`evidence_${name}`];
      const threshold = evidence[`threshold_${name}`];
      const share = towards(value, threshold);
      return {
        name: GUARDS[name],
        text: GUARD_TEXTS[name],
        value,
        threshold,
        share,
        word: alarm(value, threshold, share),
      };
    });
}

function alarm(value, threshold, share) {
  if (value >= threshold) return "reached";
  if (share >= 0.7) return "close";
  return share >= 0.2 ? "some signs" : "no sign";
}

const COUNTS = [
  ["conversations", "Conversations"],
  ["errors", "with an error"],
  ["slow", "with a slow answer"],
  ["truncated", "with an answer cut off"],
];

/** Both arms beside each other; empty before any conversation was split. */
export function arms(evidence) {
  const conversations = (evidence.incumbent_conversations ?? 0) + (evidence.candidate_conversations ?? 0);
  if (!conversations) return [];
  return COUNTS.map(([key, name]) => ({
    name,
    incumbent: arm(evidence, "incumbent", key),
    candidate: arm(evidence, "candidate", key),
  }));
}

function arm(evidence, side, key) {
  const count = evidence[`${side}_${key}`] ?? 0;
  const all = evidence[`${side}_conversations`] ?? 0;
  return key === "conversations" || !all ? { count, share: "" } : { count, share: percent(count / all) };
}

/** How far the present canary step, or baking, has come. */
export function stepLines(rollout, now) {
  const { plan = {}, evidence } = rollout;
  const baking = rollout.phase === "baking";
  const wanted = baking ? plan.bake_conversations : plan.step_conversations;
  const seconds = baking ? plan.bake_seconds : plan.step_seconds;
  const seen = evidence.step_candidate_conversations ?? 0;
  const spent = Math.max(0, now - rollout.since);
  return { wanted: wanted ?? 0, seen, seconds: seconds ?? 0, spent };
}
