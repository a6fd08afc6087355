"""Named places where a test can have this process killed, to prove that recovery works from there.

`TAO_KILL_AT=name` in the environment sends SIGKILL to this process the first time it reaches that place.
Without the variable, reaching one costs a dictionary lookup.
"""

from __future__ import annotations

import os
import signal

VARIABLE = "TAO_KILL_AT"


def reach(name: str) -> None:
    """Die here if a test asked for it."""
    if os.environ.get(VARIABLE) == name:
        os.kill(os.getpid(), signal.SIGKILL)
