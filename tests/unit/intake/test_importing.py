from __future__ import annotations

import json
from pathlib import Path

import pytest

from tao_daemon.domain.prompt import Prompt, Source, Split
from tao_daemon.intake.importing import RejectedLine, export_line, read_jsonl


def lines(path: Path, max_bytes: int = 1000) -> list[Prompt | RejectedLine]:
    return list(read_jsonl(path, max_bytes, lambda: 99.0))


def test_plain_and_wrapped_lines(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    wrapped = {"value": {"prompt": "b"}, "headers": {"tenant": "acme", "ignored": "x"}}
    file.write_text('{"prompt": "a"}\n\n' + json.dumps(wrapped) + "\r\n" + '{"prompt": "c", "value": {}}')
    first, second, third = lines(file)
    assert isinstance(first, Prompt)
    assert isinstance(second, Prompt)
    assert isinstance(third, Prompt)
    assert (first.request, first.source.offset, first.received_at) == ({"prompt": "a"}, 1, 99.0)
    assert (second.request, second.tenant, second.source.offset) == ({"prompt": "b"}, "acme", 3)
    assert third.request["prompt"] == "c"
    assert first.source.topic == second.source.topic
    assert first.source.topic.startswith("import:")


def test_bad_lines_are_named_and_stop_nothing(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    long = json.dumps({"prompt": "x" * 200_000}).encode()
    file.write_bytes(
        b'{"prompt": "a"}\nnot json\n' + long + b'\n\xff\n{"value": {"prompt": "b"}, "headers": [1]}\n{"prompt": "z"}\n'
    )
    found = lines(file)
    assert found[1:5] == [
        RejectedLine(2, "not_json"),
        RejectedLine(3, "too_large"),
        RejectedLine(4, "not_utf8"),
        RejectedLine(5, "bad_header"),
    ]
    assert isinstance(found[5], Prompt)
    assert found[5].source.offset == 6


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_a_line_of_exactly_the_limit_passes(tmp_path: Path, end: str) -> None:
    line = json.dumps({"prompt": "x" * 50})
    file = tmp_path / "p.jsonl"
    file.write_bytes((line + end).encode())
    assert isinstance(lines(file, len(line))[0], Prompt)
    assert lines(file, len(line) - 1) == [RejectedLine(1, "too_large")]


def test_the_same_bytes_have_the_same_identifiers(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    a.write_text('{"prompt": "a"}\n')
    b.write_text('{"prompt": "a"}\n')
    c.write_text('{"prompt": "a"}\n\n')
    ids = [p.id for file in (a, b, c) for p in lines(file) if isinstance(p, Prompt)]
    assert ids[0] == ids[1] != ids[2]


def exported(tmp_path: Path, *prompts: Prompt) -> Path:
    file = tmp_path / "export.jsonl"
    file.write_bytes(b"".join(export_line(each, Split.TRAIN) for each in prompts))
    return file


def test_what_was_exported_is_the_same_prompt_again(tmp_path: Path) -> None:
    source = Source("prompts~2", 3, 4711)
    request = {"messages": [{"role": "user", "content": 'ü "quoted"\n\u2028 line'}], "temperature": 0.7}
    prompt = Prompt(source.prompt_id, request, source, 12.5, "acme", "c 1", "ada@example.org")
    anonymous = Prompt(source.prompt_id, {"prompt": "a"}, source, 13.0)
    assert lines(exported(tmp_path, prompt, anonymous)) == [prompt, anonymous]


def test_an_exported_request_of_the_largest_size_is_imported(tmp_path: Path) -> None:
    request = {"prompt": "x" * 500}
    size = len(json.dumps(request, separators=(",", ":")))
    source = Source("prompts", 0, 1)
    prompt = Prompt(source.prompt_id, request, source, 12.5, "t" * 256, "c" * 256, "s" * 256)
    assert lines(exported(tmp_path, prompt), size) == [prompt]
    assert lines(exported(tmp_path, prompt), size - 1) == [RejectedLine(1, "too_large")]


@pytest.mark.parametrize(
    "besides",
    [
        {"source": None},
        {"source": {"topic": "t", "partition": 0}},
        {"source": {"topic": "t", "partition": "0", "offset": 1}},
        {"source": {"topic": "t", "partition": 2**31, "offset": 1}},
        {"source": {"topic": "t", "partition": -1, "offset": 1}},
        {"received_at": "yesterday"},
        {"received_at": True},
        {"received_at": -1},
    ],
)
def test_a_source_that_is_none_is_refused(tmp_path: Path, besides: dict[str, object]) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"value": {"prompt": "a"}, **besides}))
    assert lines(file) == [RejectedLine(1, "bad_source")]


def test_a_date_in_the_future_is_today(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"value": {"prompt": "a"}, "received_at": 1e12}))
    [found] = lines(file)
    assert isinstance(found, Prompt)
    assert found.received_at == 99.0
