"""Named places at which a test makes this process die or hang, as a crash or a stuck disk would.

Nothing happens unless TAO_KILL_AT or TAO_HANG_AT names the place.
"""

from __future__ import annotations

import os
import signal
import threading

_KILL = os.environ.get("TAO_KILL_AT")
_HANG = os.environ.get("TAO_HANG_AT")


def reach(place: str) -> None:
    """Kill this process, or block this thread for good, when the environment names `place`."""
    if place == _KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if place == _HANG:
        threading.Event().wait()
