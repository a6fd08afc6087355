"""The tasks by name."""

from __future__ import annotations

from bench.learning.tasks import arithmetic, extraction, formatting
from bench.learning.tasks.task import Task

TASKS: dict[str, Task] = {module.TASK.name: module.TASK for module in (extraction, arithmetic, formatting)}
