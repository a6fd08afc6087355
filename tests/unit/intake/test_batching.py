from __future__ import annotations

from tao_daemon.domain.prompt import Prompt, Source
from tao_daemon.intake import batching
from tao_daemon.intake.batching import Batch
from tao_daemon.intake.dead_letters import MAX_ORIGINAL_HEADER_BYTES, dead_letter

PLACE = ("prompts", 0)


def prompt(offset: int) -> Prompt:
    source = Source("prompts", 0, offset)
    return Prompt(source.prompt_id, {"prompt": "x"}, source, 0.0)


def letter(offset: int = 8, value: bytes | None = b"{", headers: list[tuple[str, bytes | None]] | None = None):
    return dead_letter(code="not_json", topic="prompts", partition=0, offset=offset, value=value, headers=headers or [])


def test_offsets_cover_prompts_and_dead_letters() -> None:
    batch = Batch(max_records=10)
    batch.add(prompt(7), place=PLACE, offset=7, size=5, now=1.0)
    batch.add(letter(8), place=PLACE, offset=8, size=1, now=2.0)
    assert batch.ingest().next_offsets == {PLACE: 9}
    assert [p.source.offset for p in batch.ingest().prompts] == [7]
    assert batch.rejections() == {"not_json": 1}
    assert batch.room == 8


def test_due_when_full_or_old_but_never_when_empty() -> None:
    batch = Batch(max_records=2)
    assert not batch.is_due(1e9, 0.5)
    batch.add(prompt(1), place=PLACE, offset=1, size=1, now=10.0)
    assert not batch.is_due(10.4, 0.5)
    assert batch.is_due(10.5, 0.5)
    batch.add(prompt(2), place=PLACE, offset=2, size=1, now=10.0)
    assert batch.is_due(10.0, 0.5)
    assert batch.room == 0


def test_a_moved_position_alone_is_worth_writing() -> None:
    batch = Batch(max_records=2)
    batch.move(PLACE, 90, now=0.0)
    assert batch.is_due(1.0, 0.5)
    assert batch.ingest().prompts == ()
    assert batch.ingest().next_offsets == {PLACE: 90}


def test_bytes_bound_a_batch_too() -> None:
    batch = Batch(max_records=1000)
    batch.add(letter(), place=PLACE, offset=1, size=batching.MAX_BYTES, now=0.0)
    assert batch.room == 0


def test_a_dead_letter_says_why_and_from_where() -> None:
    made = letter(headers=[("tenant", b"a"), ("x", None)])
    assert made.key == b"prompts-0-8"
    assert dict(made.headers) == {
        "tao-reason": b"not_json",
        "tao-source-topic": b"prompts",
        "tao-source-partition": b"0",
        "tao-source-offset": b"8",
        "tao-source-log": b"prompts",
        "tenant": b"a",
        "x": b"",
    }
    assert made.value == b"{"


def test_oversize_headers_and_values_can_be_left_out() -> None:
    made = letter(value=b"12345", headers=[("big", b"x" * MAX_ORIGINAL_HEADER_BYTES)])
    assert "big" not in dict(made.headers)
    smaller = made.without_value()
    assert smaller.value is None
    assert dict(smaller.headers)["tao-dropped-bytes"] == b"5"
    assert smaller.key == made.key
