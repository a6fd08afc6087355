"""Asks scorers which prompts they match, for as long as the store's thread can spare: it serves intake too.

Whether one matches may take a pattern to search, for up to a second, or a schema to compile. Each prompt is asked about
once per claim, and none any more when time is up: they count as not matched, so that a claim is made of what was found.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from tao_daemon.domain.ports import Accepts, Claim
from tao_daemon.domain.prompt import Prompt

SECONDS = 10.0

logger = logging.getLogger(__name__)


def patient(claim: Claim, *, seconds: float = SECONDS) -> Claim:
    """The claim, asking with patience from now on."""
    return replace(claim, accepts=_Asked(claim.accepts, time.monotonic() + seconds))


class _Asked:
    """Implements `Accepts`."""

    def __init__(self, accepts: Accepts, until: float) -> None:
        self._accepts = accepts
        self._until = until
        self._known: dict[str, bool] = {}
        self._told = False

    def __call__(self, prompt: Prompt) -> bool:
        if prompt.id not in self._known:
            if time.monotonic() >= self._until:
                self._tell()
                return False
            self._known[prompt.id] = self._accepts(prompt)
        return self._known[prompt.id]

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            extra = {"asked": len(self._known), "matched": sum(self._known.values())}
            message = "a claim looks no further: the scorers take too long to say which prompts they match"
            logger.warning(message, extra=extra)
