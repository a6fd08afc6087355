"""User functions by the name under which an installed package offers them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tao_daemon.scoring.python_verifier import import_function


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package as an installer leaves it: a module, and its metadata with entry points."""
    (tmp_path / "acme_scorers_for_tests.py").write_text("def politeness(request, answer):\n    return 0.75\n")
    info = tmp_path / "acme_scorers_for_tests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-scorers-for-tests\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tao_daemon.scorers]\n"
        "polite = acme_scorers_for_tests:politeness\n"
        "gone = acme_scorers_for_tests:no_such_function\n"
        "lost = acme_no_such_module:f\n"
        "[some.other.group]\n"
        "rude = acme_scorers_for_tests:politeness\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_scorers_for_tests", raising=False)


def test_a_function_is_found_by_its_entry_point() -> None:
    assert import_function("polite")({}, "Thank you.") == 0.75
    assert import_function("acme_scorers_for_tests:politeness")({}, "") == 0.75


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    for name in ("rude", "nonsense", ""):
        with pytest.raises(ValueError, match=r"entry point in the group 'tao_daemon\.scorers'.*gone, lost, polite"):
            import_function(name)


@pytest.mark.parametrize(("name", "missing"), [("gone", "no_such_function"), ("lost", "acme_no_such_module")])
def test_an_entry_point_that_leads_nowhere_says_where(name: str, missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        import_function(name)
