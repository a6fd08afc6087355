"""What a round asks of the buffer, and what it would lack.

fresh training prompts that a scorer matches + earlier ones to ask again + held-out ones that the gate's scorers judge
"""

from __future__ import annotations

from dataclasses import dataclass

from tao_daemon.daemon.round_parts import RoundSettings
from tao_daemon.domain.ports import Accepts, Claim, PromptStore
from tao_daemon.domain.prompt import Split


@dataclass(frozen=True, slots=True)
class RoundClaims:
    """The claims of any round. `accepts` is asked of training prompts, `judges` of held-out ones."""

    settings: RoundSettings
    accepts: Accepts
    judges: Accepts

    def training(self, round_id: int) -> Claim:
        settings = self.settings
        return Claim(round_id, settings.prompts, settings.tenant_share, self.accepts, settings.min_groups)

    def rehearsal(self, round_id: int) -> Claim:
        return Claim(round_id, self.settings.rehearsed_prompts, self.settings.tenant_share, self.accepts)

    def held_out(self, round_id: int) -> Claim:
        settings = self.settings
        return Claim(round_id, settings.held_out_prompts, settings.tenant_share, self.judges, settings.gate_min_prompts)


async def missing_prompts(store: PromptStore, claims: RoundClaims) -> str | None:
    """Why a round that started now would end without a verdict, in words; None when it would find its prompts. What is
    merely counted as available may be matched by no scorer, or be beyond a tenant's share."""
    found = await store.claimable(Split.TRAIN, claims.training(0))
    return missing_training(found, claims) or await missing_held_out(store, claims)


def missing_training(found: int, claims: RoundClaims) -> str | None:
    least = claims.settings.min_groups
    if found >= least:
        return None
    return (
        f"only {found} fresh training prompts that a scorer matches, with no tenant above round.tenant_share, and a "
        f"round needs {least} (training.min_groups); wait for traffic, or check match of the scorers"
    )


async def missing_held_out(store: PromptStore, claims: RoundClaims) -> str | None:
    settings = claims.settings
    found = await store.claimable(Split.HELD_OUT, claims.held_out(0))
    if found >= settings.gate_min_prompts:
        return None
    return (
        f"only {found} fresh held-out prompts that the gate's scorers judge, with no tenant above round.tenant_share, "
        f"and the gate needs {settings.gate_min_prompts} (gate.min_prompts); wait for traffic, or check match of the "
        "scorers"
    )
