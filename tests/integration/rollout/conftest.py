"""Real adapters, made with PEFT, in a store."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.random_adapter import publish_random_adapters
from tao_daemon.domain.adapter import AdapterRecord
from tao_daemon.registry.adapter_store import DirectoryAdapterStore


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> DirectoryAdapterStore:
    """A store with two adapters of the tiny model."""
    root = tmp_path_factory.mktemp("adapters")
    store = DirectoryAdapterStore(root / "store", max_rank=16)
    publish_random_adapters(tiny_model, root, store, 2)
    return store


@pytest.fixture(scope="module")
def records(adapters: DirectoryAdapterStore) -> list[AdapterRecord]:
    return [adapters.get(name) for name in adapters.names()]
