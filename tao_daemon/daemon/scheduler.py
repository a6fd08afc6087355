"""The clock of the daemon: APScheduler for the calendar and a periodic look at the buffer.

Jobs only post messages; whether a round starts is decided by the pure `buffer.trigger.decide`, in one place.
"""

from __future__ import annotations
