"""The configuration as the plain values that parts take. Pure."""

from __future__ import annotations

from tao_daemon.config import Config
from tao_daemon.daemon.keeping import KeeperSettings
from tao_daemon.daemon.rollout_watch import WatchSettings
from tao_daemon.daemon.round_parts import RoundSettings
from tao_daemon.daemon.shadow import ShadowSettings
from tao_daemon.daemon.state import Policy
from tao_daemon.rollout.assessment import Limits
from tao_daemon.rollout.plan import FreezeWindow, Plan, clock_seconds


def policy_of(config: Config) -> Policy:
    """What the configuration lets the machine decide."""
    rollout = config.rollout
    limits = Limits(
        alpha=rollout.alpha,
        margin=rollout.margin,
        relative_risk=rollout.relative_risk,
        max_error_fraction=rollout.max_error_fraction,
        min_pairs=rollout.shadow_pairs,
    )
    plan = Plan(
        mode=rollout.mode,
        newer_candidate=rollout.newer_candidate,
        fractions=rollout.canary_fractions,
        step_seconds=rollout.step_seconds,
        step_conversations=rollout.step_conversations,
        bake_seconds=rollout.bake_seconds,
        bake_conversations=rollout.bake_conversations,
        limits=limits,
        freeze=tuple(FreezeWindow(w.days, clock_seconds(w.start), clock_seconds(w.end)) for w in rollout.freeze),
    )
    return Policy(plan, config.round.max_attempts)


def round_settings(config: Config) -> RoundSettings:
    return RoundSettings(
        prompts=config.round.prompts,
        rehearsed_prompts=round(config.round.rehearsal_fraction * config.round.prompts),
        carried_rounds=config.round.carried_rounds,
        tenant_share=config.round.tenant_share,
        held_out_prompts=config.gate.prompts,
        gate_min_prompts=config.gate.min_prompts,
        divergence_prompts=config.gate.divergence_prompts,
        shows_examples=any(strategy.type == "few_shot" for strategy in config.sampling.strategies),
        min_groups=config.training.min_groups,
        min_spread=config.training.min_spread,
        sampling_limit=config.sampling.max_tokens,
        outage_seconds=config.round.outage_seconds,
        base_seed=config.round.seed,
        base_model=str(config.training.base_model),
        config_digest=config.digest,
    )


def watch_settings(config: Config) -> WatchSettings:
    return WatchSettings(
        evaluate_seconds=config.rollout.evaluate_seconds,
        shadow=ShadowSettings(
            pairs_max=config.rollout.shadow_pairs_max,
            concurrency=config.rollout.shadow_concurrency,
            tenant_share=config.round.tenant_share,
        ),
    )


def keeper_settings(config: Config) -> KeeperSettings:
    serving = config.serving
    return KeeperSettings(
        lease_seconds=serving.lease_seconds,
        reconcile_seconds=serving.reconcile_seconds,
        drain_seconds=serving.drain_seconds,
        keep_adapters=serving.keep_adapters,
    )
