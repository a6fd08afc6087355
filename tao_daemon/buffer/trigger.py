"""Whether a round should start now, and why, in words with numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TriggerState:
    """Everything the decision rests on. Counts are prompts, times Unix seconds."""

    train_available: int
    held_out_available: int
    round_prompts: int
    """Training prompts that a round wants."""
    gate_min_prompts: int
    """Held-out prompts below which the gate cannot decide."""
    min_new_prompts: int
    """Fresh training prompts that start a round; 0 when only the calendar does."""
    min_interval_seconds: float
    last_round_ended_at: float | None
    calendar_due: bool
    """A calendar date has passed that no round has answered yet; stays true until one does."""
    round_running: bool
    rollout_open: bool


@dataclass(frozen=True, slots=True)
class Decision:
    run: bool
    reason: str


def decide(now: float, state: TriggerState) -> Decision:
    """Start a round, or say what it waits for. `now` in Unix seconds."""
    obstacle = _obstacle(now, state)
    if obstacle is not None:
        return Decision(False, obstacle)
    enough = state.min_new_prompts > 0 and state.train_available >= state.min_new_prompts
    if not enough and not state.calendar_due:
        return Decision(False, _waiting_for(state))
    cause = (
        f"{state.train_available} fresh training prompts reached min_new_prompts ({state.min_new_prompts})"
        if enough
        else f"the calendar is due, with {state.train_available} fresh training prompts"
    )
    return Decision(True, cause)


def _obstacle(now: float, state: TriggerState) -> str | None:
    """What forbids a round whatever wants one; None when nothing does."""
    if state.round_running:
        return "a round is running"
    if state.rollout_open:
        return "a rollout is open; the next round starts when it has ended"
    if state.last_round_ended_at is not None:
        left = state.last_round_ended_at + state.min_interval_seconds - now
        if left > 0:
            return f"the last round ended less than {state.min_interval_seconds:g} s ago; {left:.0f} s to wait"
    needed = _needed(state)
    wanted = state.calendar_due or (state.min_new_prompts > 0 and state.train_available >= state.min_new_prompts)
    if wanted and state.train_available < needed:
        return f"{state.train_available} fresh training prompts, and a round needs at least {needed}"
    if wanted and state.held_out_available < state.gate_min_prompts:
        return (
            f"{state.held_out_available} fresh held-out prompts, and the gate needs {state.gate_min_prompts} "
            "(gate.min_prompts) to judge what a round trains"
        )
    return None


def _needed(state: TriggerState) -> int:
    """A full round, or fewer where the user lets fewer start one."""
    return min(state.round_prompts, state.min_new_prompts) if state.min_new_prompts else state.round_prompts


def _waiting_for(state: TriggerState) -> str:
    if state.min_new_prompts == 0:
        return f"the calendar is not due ({state.train_available} fresh training prompts wait)"
    return f"{state.train_available} of {state.min_new_prompts} fresh training prompts"
