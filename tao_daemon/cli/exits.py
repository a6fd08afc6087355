"""Exit codes, one meaning each."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
UNREACHABLE: Final = 3
REFUSED: Final = 4
TIMED_OUT: Final = 5
NO_PERMISSION: Final = 6
INTERRUPTED: Final = 130

MEANINGS: Final = {
    OK: "done",
    FAILED: "failed, or what was waited for can no longer be reached",
    USAGE: "wrong usage or configuration",
    UNREACHABLE: "the daemon is not reachable",
    REFUSED: "the daemon refused: nothing was changed, and it says why",
    TIMED_OUT: "what was waited for did not come in time",
    NO_PERMISSION: "no permission: no valid token, or one without the scope",
    INTERRUPTED: "interrupted with Ctrl-C while waiting",
}
