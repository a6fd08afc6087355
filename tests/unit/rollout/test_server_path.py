"""A local path as the servers see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao_daemon.config import PathMap
from tao_daemon.rollout.vllm_fleet import server_path

MAPS = (
    PathMap(local=Path("/srv/tao"), server=Path("/mnt/tao")),
    PathMap(local=Path("/srv/tao/adapters"), server=Path("/adapters")),
    PathMap(local=Path("data"), server=Path("/relative")),
)


@pytest.mark.parametrize(
    ("local", "server"),
    [
        ("/srv/tao/adapters/r000001-aa", "/adapters/r000001-aa"),
        ("/srv/tao/other", "/mnt/tao/other"),
        ("/srv/taoist/adapters", "/srv/taoist/adapters"),
        ("/srv/tao/../elsewhere", "/srv/elsewhere"),
    ],
)
def test_the_longest_matching_prefix_wins_and_only_whole_names_match(local: str, server: str) -> None:
    assert server_path(Path(local), MAPS) == server


def test_relative_paths_become_absolute_before_they_are_matched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert server_path(Path("data/adapters/a"), MAPS) == "/relative/adapters/a"
    assert server_path(Path("elsewhere/a"), MAPS) == str(tmp_path / "elsewhere/a")
