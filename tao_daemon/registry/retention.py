"""Which adapters' files may go. Pure.

Kept: what the state names, what any server has loaded, and the newest. A record of what was deleted stays in the
journal and in the reports of the rounds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence


def expendable(names: Sequence[str], *, needed: Collection[str], newest: int) -> tuple[str, ...]:
    """Those of `names` (oldest first) that are neither `needed` nor among the `newest`, oldest first."""
    if newest < 1:
        raise ValueError(f"cannot keep the newest {newest} adapters; keep at least 1")
    return tuple(name for name in names[:-newest] if name not in needed)
