"""Good artefacts, each in a directory of its own."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.artefacts import write_artefact

Artefact = Callable[..., Path]


@pytest.fixture
def artefact(tmp_path: Path) -> Artefact:
    """Writes an artefact into a new directory; keywords are those of `write_artefact`."""
    numbers = count()

    def write(**changes: Any) -> Path:
        return write_artefact(tmp_path / f"artefact-{next(numbers)}", **changes)

    return write
