// What is wrong and what waits for a person, the most pressing first. Pure.

import { counted } from "./format.js";
import { isOpen } from "./words.js";

/** `{tone, text, action}` each; `action` names the button that settles it. */
export function notices(status, replicas = []) {
  const found = [];
  const { rollout, fleet, round, last_round: last, intake, buffer } = status;
  if (rollout?.waits_for_approval) {
    found.push({
      tone: "wait",
      text: `${rollout.adapter} passed the shadow and waits for your approval.`,
      action: "approve",
    });
  }
  if (isOpen(rollout) && rollout.paused_by) {
    found.push({ tone: "wait", text: `The rollout is paused by ${rollout.paused_by}.`, action: "resume" });
  }
  if (fleet.unready.length) {
    const which = fleet.unready.join(", ");
    found.push({
      tone: "bad",
      text:
        `${counted(fleet.unready.length, "replica")} not ready: ${which}. The base model alone ` +
        "is served there until it is verified.",
    });
  }
  const away = replicas.filter((each) => !each.reachable).map((each) => each.url);
  if (away.length) {
    found.push({ tone: "bad", text: `${counted(away.length, "replica")} not reachable: ${away.join(", ")}.` });
  }
  if (status.returning_to) {
    found.push({ tone: "busy", text: `Going back to ${status.returning_to}: it is being loaded and verified.` });
  }
  if (!["consuming", "starting", "off"].includes(intake)) {
    found.push({ tone: "bad", text: `Intake is not consuming: ${intake.replaceAll("_", " ")}.` });
  }
  if (!buffer) found.push({ tone: "bad", text: "The buffer does not answer. Serving and undo do not need it." });
  if (!round && last?.outcome === "failed") {
    found.push({ tone: "bad", text: `Round ${last.id} failed: ${last.reason}` });
  }
  if (isOpen(rollout) && ["canary", "baking"].includes(rollout.phase) && !fleet.gateways) {
    found.push({
      tone: "bad",
      text: "No gateway reports, so nothing is known of the live traffic and the rollout holds.",
    });
  }
  return found;
}
