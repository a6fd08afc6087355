"""Directories of the trainer's jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tao_daemon.config import Training
from tao_daemon.domain.adapter import AdapterRecord, Fingerprint, Lineage
from tao_daemon.domain.completion import PLAIN, Completion, CompletionGroup
from tao_daemon.domain.ports import DivergenceJob, TrainingJob
from tao_daemon.learning.job_folders import divergence_spec_of, spec_of, write_measurement

LINEAGE = Lineage(1, None, "/base", "d" * 64, (), (), "")
CANDIDATE = AdapterRecord("a", "a", Path("/adapters/a"), 8, 0.0, LINEAGE, Fingerprint(()))


def test_the_same_measurement_can_be_made_again(tmp_path: Path) -> None:
    """A phase that waited for a server begins again with the same attempt."""
    answer = Completion(0, PLAIN, "needle", (5, 6), (-0.5, -0.5), "stop")
    job = DivergenceJob(1, 1, (CompletionGroup("p", (1, 2), (answer,)),), CANDIDATE, None)
    spec = divergence_spec_of(job, Training())
    first, second = (write_measurement(tmp_path / "training", spec, job) for _ in range(2))
    assert first != second
    assert [path.parent for path in (first, second)] == [tmp_path / "training"] * 2
    for directory in (first, second):
        assert all("needle" not in path.read_text() for path in directory.iterdir())


@pytest.mark.parametrize(
    ("start", "rate", "key"),
    [(None, 0.5, "training.learning_rate"), (CANDIDATE, 0.25, "training.continued_learning_rate")],
)
def test_a_training_that_goes_on_from_an_adapter_has_a_rate_of_its_own(
    start: AdapterRecord | None, rate: float, key: str
) -> None:
    spec = spec_of(TrainingJob(1, 1, (), start, 0), Training(learning_rate=0.5, continued_learning_rate=0.25))
    assert (spec.learning_rate, spec.rate_key) == (rate, key)
