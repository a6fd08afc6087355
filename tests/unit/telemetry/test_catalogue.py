"""What is declared, what is exposed and what is documented are the same; and every declaration keeps the rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tao_daemon.domain import gateway_metrics
from tao_daemon.domain.metrics import OTHER, Family, Kind, Label
from tao_daemon.gateway.meters import Meters
from tao_daemon.gateway.routing import Kind as VersionKind
from tao_daemon.telemetry import catalogue, intake, serving
from tao_daemon.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[3]
MEASURED = ("seconds", "bytes", "ratio", "nats", "tokens", "tokens_per_second", "norm", "loss")
"""Units of measurement: a name must end with its own."""


def daemon() -> list[Metric]:
    return list(text_string_to_metric_families(Metrics("1", lambda: 5.0).exposition().decode()))


def gateway() -> list[Metric]:
    return list(text_string_to_metric_families(Meters("1", lambda: 5.0).exposition().decode()))


PROCESSES = pytest.mark.parametrize(
    ("exposed", "declared"), [(daemon, catalogue.DAEMON), (gateway, catalogue.GATEWAY)], ids=["daemon", "gateway"]
)


def ours(exposed: Iterable[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in exposed if not metric.name.startswith(catalogue.STANDARD)}


def parsed_name(family: Family) -> str:
    """As the parser says it: counters without `_total`."""
    return family.base_name if family.kind is Kind.COUNTER else family.name


def test_the_page_is_what_the_code_says() -> None:
    written = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert written == catalogue.page(), "run `python -m tao_daemon.telemetry.catalogue > docs/metrics.md`"


@PROCESSES
def test_exactly_what_is_declared_is_exposed(exposed: object, declared: tuple[Family, ...]) -> None:
    found = ours(exposed())  # type: ignore[operator]
    assert found.keys() == {parsed_name(family) for family in declared}
    types = {Kind.INFO: "gauge"}
    for family in declared:
        metric = found[parsed_name(family)]
        assert metric.type == types.get(family.kind, family.kind.value)
        assert metric.documentation == family.help


@PROCESSES
def test_every_known_series_is_there_from_the_start_and_no_other(exposed: object, declared: tuple[Family, ...]) -> None:
    found = ours(exposed())  # type: ignore[operator]
    for family in declared:
        if family.kind is Kind.INFO:
            continue
        samples = found[parsed_name(family)].samples
        assert {sample.name for sample in samples} <= set(catalogue.exposed_names(family))
        series = {tuple(sample.labels.get(name, "") for name in family.label_names) for sample in samples}
        assert series >= set(family.known_series())
        for label, values in zip(family.labels, zip(*series, strict=True), strict=False):
            assert not label.values or set(values) <= set(label.values)


@PROCESSES
def test_what_the_client_library_adds_is_there(exposed: object, declared: tuple[Family, ...]) -> None:
    names = {metric.name for metric in exposed()}  # type: ignore[operator]
    assert {"process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds", "python_info"} <= names
    assert not [name for name in names if name.endswith("_created")]


@pytest.mark.parametrize("family", catalogue.families(), ids=lambda family: family.name)
def test_a_declaration_keeps_the_rules(family: Family) -> None:
    assert re.fullmatch(r"tao(_[a-z0-9]+)+", family.name)
    assert family.name.endswith("_total") == (family.kind is Kind.COUNTER)
    assert family.help.endswith(".")
    assert family.look.endswith((".", "?"))
    assert family.help not in family.look
    unit = family.unit.replace(" ", "_")
    if unit in MEASURED:
        assert family.base_name.endswith(f"_{unit}"), "the unit ends the name"
    elif family.kind is Kind.GAUGE and family.unit != "0 or 1":
        assert family.name.endswith(f"_{unit}"), "what is counted ends the name"
    assert family.name.endswith("_timestamp_seconds") == ("Unix time" in family.help)
    assert catalogue.room_of(family)
    adapters = {"adapter", "previous", "candidate"} & set(family.label_names)
    assert not adapters or family.kind is Kind.INFO, "adapters' names are unbounded"
    if family.kind is Kind.HISTOGRAM:
        assert list(family.buckets) == sorted(set(family.buckets))


def test_no_two_metrics_share_a_name() -> None:
    names = [family.base_name for family in catalogue.families()]
    assert len(names) == len(set(names))


def test_a_label_is_bounded_one_way_or_the_other() -> None:
    assert Label("code", ("a", OTHER)).known("b") == OTHER
    assert Label("sink", one_for_each="sink").known("b") == "b"
    with pytest.raises(AssertionError, match="no value 'b'"):
        Label("code", ("a",)).known("b")
    for values, words in ((("a",), "sink"), ((), "")):
        with pytest.raises(AssertionError, match="bounded"):
            Label("code", values, words)


def codes(pattern: str, room: str) -> set[str]:
    """What the source of a room says; files of an import are other commands'."""
    files = [file for file in (ROOT / "tao_daemon" / room).glob("*.py") if file.name != "importing.py"]
    return {code for file in files for code in re.findall(pattern, file.read_text(encoding="utf-8"))}


def test_the_values_are_those_that_the_rooms_say() -> None:
    assert codes(r'RecordError\(\s*"(\w+)"', "intake") == set(intake.REJECTION_CODES)
    assert codes(r'_Call\("(\w+)"', "clients") == set(serving.OPERATIONS)
    assert set(gateway_metrics.KINDS) == set(VersionKind)
    assert codes(r'capture_dropped\["(\w+)"\]', "gateway") == set(gateway_metrics.DROP_REASONS)
    assert codes(r'BufferFailed\("(\w+)"\)', "buffer") == set(intake.FAILURES.labels[0].values)
    assert codes(r'IntakeInterrupted\("(\w+)"\)', "intake") == set(intake.INTERRUPTIONS.labels[0].values)
    assert codes(r'_enter\(\s*"(\w+)"', "intake") == set(intake.STATE.labels[0].values)
