"""A model folder is complete or absent, is converted once, and is replaced when it is not what it should be."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from tao_daemon.embedded import model
from tao_daemon.embedded.processes import EmbeddedError

SHA = "ab" * 32


class Converter:
    """Stands in for the child process: writes one file, and counts."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []
        self.error: Exception | None = None
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, source: Path, folder: Path, options: tuple[str, ...], *_: object) -> None:
        self.calls.append(options)
        assert self.go_on.wait(10)
        (folder / "model.safetensors").write_bytes(b"half" if self.error else b"whole")
        if self.error:
            raise self.error


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Converter:
    fake = Converter()
    monkeypatch.setattr(model, "_convert", fake)
    monkeypatch.setattr(model, "find_source", lambda: model.Source(tmp_path / "any.gguf", SHA))
    return fake


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_the_second_call_converts_nothing(converter: Converter, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = model.ensure_model(cache)
    assert model.ensure_model(cache) == first
    assert len(converter.calls) == 1
    assert visible(cache) == [first.name] == [f"smollm2-135m-instruct-{SHA[:12]}"]
    assert json.loads((first / model.MANIFEST).read_text())["files"] == {"model.safetensors": 5}


@pytest.mark.parametrize("damage", ["shorter file", "lost file", "lost manifest", "older recipe"])
def test_a_damaged_folder_is_replaced(converter: Converter, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    folder = model.ensure_model(cache)
    if damage == "shorter file":
        (folder / "model.safetensors").write_bytes(b"who")
    elif damage == "lost file":
        (folder / "model.safetensors").unlink()
    elif damage == "lost manifest":
        (folder / model.MANIFEST).unlink()
    else:
        manifest = json.loads((folder / model.MANIFEST).read_text())
        (folder / model.MANIFEST).write_text(json.dumps({**manifest, "recipe": 0}))
    assert (model.ensure_model(cache) / "model.safetensors").read_bytes() == b"whole"
    assert len(converter.calls) == 2
    assert visible(cache) == [folder.name]


def test_a_failed_conversion_leaves_no_folder(converter: Converter, tmp_path: Path) -> None:
    converter.error = EmbeddedError("out of memory")
    with pytest.raises(EmbeddedError, match="out of memory"):
        model.ensure_model(tmp_path / "cache")
    assert visible(tmp_path / "cache") == []


def test_what_a_killed_run_left_is_cleared(converter: Converter, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "tiny"
    leftover = target.parent / ".tiny.tmp-killed"
    leftover.mkdir(parents=True)
    model.tiny_random_model(target)
    assert not leftover.exists()


def test_two_at_once_convert_once(converter: Converter, tmp_path: Path) -> None:
    converter.go_on.clear()
    waiting = threading.Event()
    cache, results = tmp_path / "cache", []

    def heard(text: str) -> None:
        if "waiting for another process" in text:
            waiting.set()

    threads = [
        threading.Thread(target=lambda: results.append(model.ensure_model(cache, on_progress=heard))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert waiting.wait(10)
    converter.go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(set(results)) == 1
    assert len(results) == 2
    assert len(converter.calls) == 1


def test_another_seed_is_another_model(converter: Converter, tmp_path: Path) -> None:
    model.tiny_random_model(tmp_path / "tiny", seed=1)
    model.tiny_random_model(tmp_path / "tiny", seed=1)
    model.tiny_random_model(tmp_path / "tiny", seed=2)
    assert converter.calls == [("--tiny", "--seed", "1"), ("--tiny", "--seed", "2")]


def test_a_missing_carrier_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "CARRIER", "no-such-package-at-all")
    with pytest.raises(EmbeddedError, match=r"no-such-package-at-all.*install\.sh demo"):
        model.find_source()


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert model.default_cache_dir() == Path("/somewhere/tao-daemon/models")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert model.default_cache_dir() == Path.home() / ".cache/tao-daemon/models"
