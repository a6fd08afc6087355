"""Which prompts a scorer applies to."""

from __future__ import annotations

from tao_daemon.domain.prompt import Prompt


def matches(prompt: Prompt, *, tenant: str | None, model: str | None, system_sha256: str | None) -> bool:
    """Whether every given condition holds; None asks for nothing."""
    return (
        tenant in (None, prompt.tenant)
        and model in (None, prompt.model)
        and system_sha256 in (None, prompt.system_digest)
    )
