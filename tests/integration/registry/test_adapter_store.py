"""The adapter store: what goes in was checked, what comes out is byte for byte the same."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tao_daemon.domain.adapter import Lineage, OffsetRange
from tao_daemon.domain.errors import AdapterError
from tao_daemon.domain.ports import AdapterStore
from tao_daemon.registry.adapter_store import DirectoryAdapterStore

Artefact = Callable[..., Path]
LINEAGE = Lineage(7, None, "base", "0" * 64, ("p1", "p2"), ("json",), "1" * 64, (OffsetRange("prompts", 0, 3, 9),))
Q_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data" / "adapters"


@pytest.fixture
def store(root: Path) -> DirectoryAdapterStore:
    return DirectoryAdapterStore(root, max_rank=16)


def test_what_is_published_comes_back(store: DirectoryAdapterStore, root: Path, artefact: Artefact) -> None:
    port: AdapterStore = store
    source = artefact()
    record = port.publish(str(source), LINEAGE, 1_700_000_000.5)
    assert record == port.get(record.name)
    assert record.name == f"r000007-{record.digest[:12]}"
    assert record.path == root / record.name
    assert (record.rank, record.created_at, record.lineage) == (8, 1_700_000_000.5, LINEAGE)
    assert record.fingerprint.probes[0].adapter_logprobs == (-1.0, -2.0)
    assert set(record.files) == {"adapter_model.safetensors", "adapter_config.json", "fingerprint.json", "README.md"}
    assert port.names() == (record.name,)
    for name in record.files:
        assert (record.path / name).read_bytes() == (source / name).read_bytes()
    assert stat.S_IMODE((record.path / "adapter_model.safetensors").stat().st_mode) & 0o044, "servers must read it"
    manifest = json.loads((record.path / "manifest.json").read_text())
    assert manifest["files"] == dict(record.files)
    assert manifest["lineage"]["prompt_ids"] == ["p1", "p2"]


def test_publishing_again_is_the_same_adapter_and_another_lineage_is_another(
    store: DirectoryAdapterStore, artefact: Artefact
) -> None:
    source = str(artefact())
    first = store.publish(source, LINEAGE, 1.0)
    assert store.publish(source, LINEAGE, 2.0) == first
    other = store.publish(source, Lineage(7, first.name, "base", "0" * 64, ("p1",), (), "1" * 64), 3.0)
    assert other.name != first.name
    assert store.names() == tuple(sorted([first.name, other.name]))


def test_an_empty_store_has_no_names(store: DirectoryAdapterStore) -> None:
    assert store.names() == ()


def drop_b(arrays: dict[str, Any]) -> None:
    del arrays[Q_B]


def nan(arrays: dict[str, Any]) -> None:
    arrays[Q_B][3, 1] = np.nan


def zero_b(arrays: dict[str, Any]) -> None:
    for name in arrays:
        if "lora_B" in name:
            arrays[name][:] = 0.0


def strip_prefix(arrays: dict[str, Any]) -> None:
    for name in list(arrays):
        arrays[name.removeprefix("base_model.model.")] = arrays.pop(name)


def integers(arrays: dict[str, Any]) -> None:
    arrays[Q_B] = arrays[Q_B].astype(np.int32)


def nothing(arrays: dict[str, Any]) -> None:
    arrays.clear()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"change": nan}, "NaN"),
        ({"change": zero_b}, "equals the base"),
        ({"change": strip_prefix}, "not named base_model.model."),
        ({"change": drop_b}, "has no lora_B"),
        ({"change": integers}, "I32"),
        ({"change": nothing}, "no tensor"),
        ({"rank": 32}, "above the servers' 16"),
        ({"rank": 12}, "r is 12"),
        ({"config": {"r": 16}}, "with r = 16"),
        ({"config": {"use_dora": True}}, "use_dora"),
        ({"config": {"target_modules": ["q_proj"]}}, "down_proj"),
    ],
)
def test_a_bad_artefact_is_refused_with_the_reason_and_leaves_nothing(
    store: DirectoryAdapterStore, root: Path, artefact: Artefact, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(AdapterError, match="refused") as caught:
        store.publish(str(artefact(**arguments)), LINEAGE, 1.0)
    assert said in str(caught.value)
    assert store.names() == ()
    assert not root.exists() or os.listdir(root) == []


def pickled(source: Path) -> None:
    (source / "adapter_model.bin").write_bytes(pickle.dumps({"x": 1}))


def linked(source: Path) -> None:
    (source / "README.md").unlink()
    (source / "README.md").symlink_to("/etc/hostname")


def nested(source: Path) -> None:
    (source / "checkpoint-1").mkdir()


def without_fingerprint(source: Path) -> None:
    (source / "fingerprint.json").unlink()


def cut(source: Path) -> None:
    path = source / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def pickle_in_disguise(source: Path) -> None:
    (source / "adapter_model.safetensors").write_bytes(pickle.dumps({"x": 1}))


def empty_weights(source: Path) -> None:
    (source / "adapter_model.safetensors").write_bytes(b"")


def broken_config(source: Path) -> None:
    (source / "adapter_config.json").write_text('{"r": 8, "r": 16}')


def broken_fingerprint(source: Path) -> None:
    (source / "fingerprint.json").write_text('{"probes": [{}]}')


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (pickled, "adapter_model.bin may be a pickle"),
        (linked, "README.md is not a plain file"),
        (nested, "checkpoint-1 is not a plain file"),
        (without_fingerprint, "fingerprint.json is missing"),
        (cut, "adapter_model.safetensors"),
        (pickle_in_disguise, "adapter_model.safetensors"),
        (empty_weights, "adapter_model.safetensors"),
        (broken_config, "key twice"),
        (broken_fingerprint, "fingerprint.json"),
        (shutil.rmtree, "cannot read the adapter"),
    ],
)
def test_files_that_do_not_belong_or_cannot_be_read_are_refused(
    store: DirectoryAdapterStore, artefact: Artefact, spoil: Callable[[Path], None], said: str
) -> None:
    source = artefact()
    spoil(source)
    with pytest.raises(AdapterError) as caught:
        store.publish(str(source), LINEAGE, 1.0)
    assert said in str(caught.value)
    assert store.names() == ()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_byte_anywhere_is_noticed_and_its_file_named(
    store: DirectoryAdapterStore, artefact: Artefact, data: st.DataObject
) -> None:
    names = store.names()
    record = store.get(names[0]) if names else store.publish(str(artefact()), LINEAGE, 1.0)
    name = data.draw(st.sampled_from([*sorted(record.files), "manifest.json"]))
    path = record.path / name
    original = path.read_bytes()
    place = data.draw(st.integers(0, len(original) - 1))
    path.write_bytes(
        original[:place] + bytes([original[place] ^ data.draw(st.integers(1, 255))]) + original[place + 1 :]
    )
    try:
        if name == "manifest.json":
            # White space and the date carry no claim; everything else must be refused.
            with suppress(AdapterError):
                again = store.get(record.name)
                assert (again.files, again.lineage, again.rank) == (record.files, record.lineage, record.rank)
        else:
            with pytest.raises(AdapterError, match=f"{name} was changed"):
                store.get(record.name)
    finally:
        path.write_bytes(original)


def test_a_swapped_a_missing_and_an_added_file_are_each_named(store: DirectoryAdapterStore, artefact: Artefact) -> None:
    record = store.publish(str(artefact()), LINEAGE, 1.0)
    other = store.publish(str(artefact(rank=16)), LINEAGE, 1.0)
    weights = record.path / "adapter_model.safetensors"
    original = weights.read_bytes()
    shutil.copyfile(other.path / weights.name, weights)
    with pytest.raises(AdapterError, match=r"adapter_model\.safetensors was changed"):
        store.get(record.name)
    weights.write_bytes(original)
    (record.path / "README.md").unlink()
    with pytest.raises(AdapterError, match=r"README\.md is missing"):
        store.get(record.name)
    (record.path / "README.md").write_text("an adapter\n")
    assert store.get(record.name) == record
    (record.path / "adapter_model.bin").write_bytes(b"x")
    with pytest.raises(AdapterError, match=r"adapter_model\.bin was added"):
        store.get(record.name)


def test_a_whole_directory_under_another_adapters_name_is_refused(
    store: DirectoryAdapterStore, artefact: Artefact
) -> None:
    record = store.publish(str(artefact()), LINEAGE, 1.0)
    other = store.publish(str(artefact(rank=16)), LINEAGE, 1.0)
    shutil.rmtree(record.path)
    shutil.copytree(other.path, record.path)
    with pytest.raises(AdapterError, match=f"belongs to {other.name}"):
        store.get(record.name)


def test_a_rewritten_lineage_is_noticed(store: DirectoryAdapterStore, artefact: Artefact) -> None:
    record = store.publish(str(artefact()), LINEAGE, 1.0)
    manifest = json.loads((record.path / "manifest.json").read_text())
    manifest["lineage"]["prompt_ids"] = ["p1"]
    (record.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AdapterError, match="does not match its content"):
        store.get(record.name)


@pytest.mark.parametrize("name", ["", "..", "../adapters", "/etc", "r000007-zz", "r000007-aaaaaaaaaaaa", ".tmp-x"])
def test_a_name_that_is_no_adapters_is_refused_and_never_a_path(
    store: DirectoryAdapterStore, artefact: Artefact, name: str
) -> None:
    store.publish(str(artefact()), LINEAGE, 1.0)
    with pytest.raises(AdapterError, match="there is no adapter"):
        store.get(name)


def test_what_an_interrupted_publish_left_is_invisible_and_cleaned_up(
    store: DirectoryAdapterStore, root: Path, artefact: Artefact
) -> None:
    root.mkdir(parents=True)
    (root / ".tmp-r000007-aaaaaaaaaaaa-00").mkdir()
    (root / ".tmp-r000007-aaaaaaaaaaaa-00" / "adapter_config.json").write_text("{")
    assert store.names() == ()
    record = store.publish(str(artefact()), LINEAGE, 1.0)
    assert os.listdir(root) == [record.name]


def test_deleting_removes_all_of_it_and_is_idempotent(
    store: DirectoryAdapterStore, root: Path, artefact: Artefact
) -> None:
    port: AdapterStore = store
    gone, stays = (port.publish(str(artefact(rank=rank)), LINEAGE, 0.0).name for rank in (8, 16))
    port.delete(gone)
    port.delete(gone)
    assert port.names() == (stays,)
    assert {path.name for path in root.iterdir()} == {stays}
    with pytest.raises(AdapterError, match="there is no adapter"):
        port.get(gone)
    assert port.get(stays).path == port.root / stays


@pytest.mark.parametrize("name", ["r000099-aaaaaaaaaaaa", "..", "", ".", "../other", "notes.txt"])
def test_deleting_what_is_no_adapter_deletes_nothing(
    store: DirectoryAdapterStore, root: Path, artefact: Artefact, name: str
) -> None:
    kept = store.publish(str(artefact()), LINEAGE, 0.0).name
    (root / "notes.txt").write_text("mine")
    (root.parent / "other").mkdir()
    store.delete(name)
    assert store.names() == (kept,)
    assert (root / "notes.txt").exists()
    assert (root.parent / "other").is_dir()


def test_a_deletion_that_was_interrupted_leaves_nothing_under_the_name_and_is_cleared_later(
    store: DirectoryAdapterStore, root: Path, artefact: Artefact, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = store.publish(str(artefact(rank=8)), LINEAGE, 0.0).name
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", _crash)
        with pytest.raises(KeyboardInterrupt):
            store.delete(name)
    assert store.names() == ()
    assert list(root.iterdir()), "the crash came too late to show anything"
    other = store.publish(str(artefact(rank=16)), LINEAGE, 0.0).name
    assert {path.name for path in root.iterdir()} == {other}


def _crash(*arguments: object, **others: object) -> None:
    raise KeyboardInterrupt
