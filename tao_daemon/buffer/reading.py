"""Prompts of a buffer that no daemon has open: for whoever looks back at a round. Writes nothing.

A process that reads keeps daemons from opening the file, so the look is one query long.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from tao_daemon.buffer.lookups import read_prompts
from tao_daemon.clients.duckdb import failure_name, settings_for
from tao_daemon.domain.errors import InstanceError, PromptStoreError
from tao_daemon.domain.prompt import Prompt


def look_up(path: Path, ids: Sequence[str]) -> dict[str, Prompt]:
    """Prompts by identifier; what is not there is absent.

    Raises InstanceError while another process has the buffer open, PromptStoreError for a file that cannot be read.
    """
    if not path.exists():
        raise PromptStoreError(f"there is no buffer at {path}; has the daemon ever run with this config?")
    try:
        with duckdb.connect(str(path), read_only=True, config={**settings_for(path)}) as connection:
            return read_prompts(connection, ids)
    except duckdb.IOException as error:
        if "lock on file" not in str(error):
            raise PromptStoreError(f"{path} cannot be read: {failure_name(error)}") from None
        raise InstanceError(f"{path} is in use by the daemon; stop it, or work on a backup") from None
    except duckdb.Error as error:
        raise PromptStoreError(f"{path} cannot be read: {failure_name(error)}; is it another program's?") from None
