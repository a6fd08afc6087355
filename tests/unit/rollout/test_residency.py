"""What to load on and unload from one server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.rollout.residency import Action, Load, Reload, Unload, in_use, plan

HOME = "/adapters"


def mine(*names: str) -> dict[str, str]:
    return {name: f"{HOME}/{name}" for name in names}


def always(name: str) -> bool:
    return True


def test_what_is_missing_is_loaded_in_order_of_importance() -> None:
    assert plan(["b", "a", "c", "a"], mine("c"), HOME, always) == (Load("b"), Load("a"))


def test_what_is_as_it_should_be_is_left_alone() -> None:
    assert plan(["a"], mine("a"), HOME, always) == ()
    assert plan(["a"], {"a": "/adapters//a/"}, "/adapters/", always) == ()


def test_what_comes_from_elsewhere_is_loaded_again() -> None:
    assert plan(["a"], {"a": "/old/a"}, HOME, always) == (Reload("a", "/old/a"),)


def test_what_nobody_wants_is_unloaded_once_drained() -> None:
    assert plan(["a"], mine("a", "b", "c"), HOME, lambda name: name == "c") == (Unload("c"),)


def test_nothing_of_anybody_elses_is_ever_unloaded() -> None:
    others = {
        "customer": "/models/customer",
        "below": "/adapters/team/below",
        "beside": "/adapters-old/beside",
        "alias": "/adapters/r000001-aa",
        "hub": "someone/adapter",
        "empty": "",
    }
    assert plan([], others, HOME, always) == ()


def test_draining_is_asked_about_candidates_for_unloading_only() -> None:
    asked: list[str] = []
    plan(["a"], {**mine("a", "b"), "x": "/else/x"}, HOME, lambda name: bool(asked.append(name)))
    assert asked == ["b"]


def test_directories_behind_aliases_are_in_use() -> None:
    loaded = {"alias": "/adapters/r000001-aa/", **mine("r000002-bb"), "x": "/else/r000003-cc"}
    assert in_use(loaded, "/adapters/") == {"alias", "r000001-aa", "r000002-bb", "x"}


names = st.sampled_from("abcdef")
paths = st.sampled_from([f"{HOME}/{name}" for name in "abcdef"] + ["/else/a", "/adapters"])


def apply(actions: tuple[Action, ...], loaded: dict[str, str]) -> dict[str, str]:
    after = dict(loaded)
    for action in actions:
        if isinstance(action, Unload):
            del after[action.name]
        else:
            after[action.name] = f"{HOME}/{action.name}"
    return after


@given(st.lists(names), st.dictionaries(names, paths))
def test_acting_once_reaches_what_is_desired_and_keeps_what_is_not_ours(
    desired: list[str], loaded: dict[str, str]
) -> None:
    after = apply(plan(desired, loaded, HOME, always), loaded)
    assert after.items() >= mine(*desired).items()
    assert plan(desired, after, HOME, always) == ()
    foreign = {name: path for name, path in loaded.items() if path != f"{HOME}/{name}" and name not in desired}
    assert after == {**mine(*desired), **foreign}
