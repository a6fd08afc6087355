from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tao_daemon.intake.dead_letters import MAX_ORIGINAL_HEADER_BYTES, Origin, dead_letter, origin_of

HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["tenant", "x", "tao-reason", "tao-source-topic", "tao-source-offset", "tao-source-log"]),
        st.one_of(st.none(), st.binary(max_size=20)),
    ),
    max_size=6,
)


@given(HEADERS, st.sampled_from(["prompts", "prompts~2"]), st.integers(0, 2**63 - 1))
def test_the_origin_is_read_back_whatever_the_clients_own_headers_claim(
    headers: list[tuple[str, bytes | None]], log: str, offset: int
) -> None:
    letter = dead_letter(
        code="not_json", topic="prompts", partition=3, offset=offset, value=b"x", headers=headers, log=log
    )
    assert origin_of(letter.headers) == Origin("not_json", "prompts", log, 3, offset, is_whole=True)


def test_what_lost_its_value_or_its_headers_is_not_whole() -> None:
    whole = dead_letter(code="c", topic="t", partition=0, offset=1, value=b"x", headers=())
    large = [("big", b"x" * (MAX_ORIGINAL_HEADER_BYTES + 1))]
    bare = dead_letter(code="c", topic="t", partition=0, offset=1, value=b"x", headers=large)
    for letter, expected in ((whole, True), (whole.without_value(), False), (bare, False)):
        origin = origin_of(letter.headers)
        assert origin is not None
        assert origin.is_whole is expected


def test_what_is_no_letter_of_ours_has_no_origin() -> None:
    assert origin_of([("tenant", b"acme")]) is None
    assert origin_of([("tao-reason", b"\xff"), ("tao-source-topic", b"t"), ("tao-source-log", b"t")]) is None
    letter = dead_letter(code="c", topic="t", partition=0, offset=1, value=b"x", headers=())
    assert origin_of([(name, b"no number" if "offset" in name else raw) for name, raw in letter.headers]) is None
