"""Signals become numbers."""

from __future__ import annotations

import asyncio
import logging
import math
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tao_daemon.domain.ports import BufferStats
from tao_daemon.domain.report import Decision
from tao_daemon.domain.signals import (
    BufferFailed,
    BufferMeasured,
    BufferWritten,
    CandidateEvaluated,
    CompletionsSampled,
    DeadLettersFailed,
    GroupsScored,
    IntakeInterrupted,
    IntakeLagMeasured,
    IntakeStateChanged,
    MismatchMeasured,
    NotificationLag,
    NotificationSent,
    OffsetGapFound,
    PromptsBuffered,
    RecordsRejected,
    SamplesLost,
    SamplingPaced,
    ScorerKnown,
    Signal,
    TrainingEnded,
    TrainingStepped,
    UpstreamCalled,
)
from tao_daemon.telemetry.metrics import Metrics

NOW = 1_790_000_000.0


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3", lambda: NOW)


def after(metrics: Metrics, *signals: Signal) -> dict[str, float]:
    """Samples by name and labels, such as a{b="c"}, after the signals."""
    for signal in signals:
        metrics(signal)
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def test_intake(metrics: Metrics) -> None:
    found = after(metrics)
    assert found["tao_intake_state{state=stopped}"] == 1
    assert found["tao_intake_last_commit_timestamp_seconds"] == 0
    found = after(
        metrics,
        IntakeStateChanged("consuming"),
        PromptsBuffered(train=3, held_out=2, excluded=1, duplicates=4),
        RecordsRejected("not_json", 2),
        RecordsRejected("of a later version", 1),
        OffsetGapFound("t", 0, 7),
        IntakeLagMeasured("t", 3, 9),
        IntakeInterrupted("replaced"),
        DeadLettersFailed(5),
    )
    assert found["tao_intake_prompts_total{split=held_out}"] == 2
    assert found["tao_intake_duplicates_total"] == 4
    assert found["tao_intake_rejected_total{code=not_json}"] == 2
    assert found["tao_intake_rejected_total{code=other}"] == 1
    assert found["tao_intake_missing_offsets_total"] == 7
    assert found["tao_intake_lag_records{partition=3,topic=t}"] == 9
    assert found["tao_intake_interruptions_total{cause=replaced}"] == 1
    assert found["tao_intake_dead_letter_failures_total"] == 1
    assert found["tao_intake_state{state=stopped}"] == 0
    assert found["tao_intake_state{state=consuming}"] == 1
    assert found["tao_intake_state_since_timestamp_seconds"] == NOW
    assert found["tao_intake_last_commit_timestamp_seconds"] == NOW


def test_the_buffer_is_unknown_until_it_was_looked_at(metrics: Metrics) -> None:
    found = after(metrics)
    assert math.isnan(found["tao_buffer_prompts{split=train}"])
    assert math.isnan(found["tao_buffer_free_disk_bytes"])
    metrics.buffer(BufferStats(5, 4, 3, 2, 1, 6))
    found = after(metrics, BufferMeasured(10, 20, 30), BufferWritten(0.2), BufferFailed("disk_floor"))
    assert found["tao_buffer_prompts{split=excluded}"] == 1
    assert found["tao_buffer_available_prompts{split=held_out}"] == 2
    assert found["tao_buffer_clusters"] == 6
    sizes = ("file_bytes", "free_disk_bytes", "min_free_disk_bytes")
    assert [found[f"tao_buffer_{name}"] for name in sizes] == [10, 20, 30]
    assert found["tao_buffer_write_seconds_bucket{le=0.25}"] == 1
    assert found["tao_buffer_write_seconds_bucket{le=0.1}"] == 0
    assert found["tao_buffer_failures_total{cause=disk_floor}"] == 1


def test_sampling_and_scoring(metrics: Metrics) -> None:
    found = after(
        metrics,
        CompletionsSampled((("hint", 2), ("plain", 6)), tokens=100, seconds=3.0),
        SamplesLost("refused", 2),
        SamplingPaced(limit=4, in_flight=3, waiting=2, slowdown=1.5),
        GroupsScored(kept=3, dropped=2, mean_reward=0.5, mean_reward_plain=0.25, scorer_failures=1),
    )
    assert found["tao_sampling_completions_total{strategy=hint}"] == 2
    assert found["tao_sampling_tokens_total"] == 100
    assert found["tao_sampling_group_seconds_sum"] == 3
    assert found["tao_sampling_lost_total{kind=refused}"] == 2
    assert found["tao_sampling_limit_requests"] == 4
    assert found["tao_sampling_in_flight_requests"] == 3
    assert found["tao_sampling_waiting_requests"] == 2
    assert found["tao_sampling_live_slowdown_ratio"] == 1.5
    assert found["tao_scoring_groups_total{fate=dropped}"] == 2
    assert found["tao_scoring_failures_total"] == 1
    assert found["tao_scoring_mean_reward_ratio{completions=plain}"] == 0.25
    assert math.isnan(after(metrics, SamplingPaced(8, 0, 0, None))["tao_sampling_live_slowdown_ratio"])


def test_where_no_group_is_kept_there_is_no_mean_reward(metrics: Metrics) -> None:
    after(metrics, GroupsScored(kept=3, dropped=2, mean_reward=0.5, mean_reward_plain=0.25, scorer_failures=1))
    found = after(metrics, GroupsScored(0, 5, mean_reward=0.0, mean_reward_plain=0.0, scorer_failures=0))
    assert math.isnan(found["tao_scoring_mean_reward_ratio{completions=all}"])
    assert math.isnan(found["tao_scoring_mean_reward_ratio{completions=plain}"])


def test_a_failed_training_leaves_what_the_one_before_measured(metrics: Metrics) -> None:
    measured = {"gradient_norm": 2.0, "something else": 1.0}
    stepped = TrainingStepped(1, 2, loss=0.5, kl=0.1)
    found = after(metrics, MismatchMeasured(0.03), stepped, TrainingEnded("trained", 20.0, measured))
    assert found["tao_learning_steps_total"] == 1
    assert found["tao_learning_loss"] == 0.5
    assert found["tao_learning_kl_nats"] == 0.1
    assert found["tao_learning_mismatch_nats"] == 0.03
    assert found["tao_learning_gradient_norm"] == 2
    assert math.isnan(found["tao_learning_speed_tokens_per_second"]), "another trainer need not say"
    assert found["tao_learning_last_success_timestamp_seconds"] == NOW
    found = after(metrics, TrainingEnded("failed", 1.0), TrainingEnded("cancelled", 1.0))
    assert found["tao_learning_trainings_total{outcome=failed}"] == 1
    assert found["tao_learning_trainings_total{outcome=trained}"] == 1
    assert found["tao_learning_training_seconds_count"] == 3
    assert found["tao_learning_mismatch_nats"] == 0.03


def test_the_mismatch_that_stops_a_training_is_shown(metrics: Metrics) -> None:
    found = after(metrics, MismatchMeasured(0.5), TrainingEnded("failed", 1.0))
    assert found["tao_learning_mismatch_nats"] == 0.5


def test_what_never_happened_to_a_scorer_is_zero(metrics: Metrics) -> None:
    found = after(metrics, ScorerKnown("judge", "judge"), ScorerKnown("ticket", "json_schema"))
    assert found["tao_scoring_unscored_completions_total{kind=untrusted,scorer=judge}"] == 0
    assert found["tao_scoring_decoys_total{result=fooled,scorer=judge}"] == 0
    assert found["tao_scoring_requests_total{outcome=failed,scorer=judge}"] == 0
    assert found["tao_scoring_request_seconds_count{scorer=judge}"] == 0
    assert found["tao_scoring_tokens_total{kind=completion,scorer=judge}"] == 0
    assert found["tao_scoring_cost_total{scorer=judge}"] == 0
    assert found["tao_scoring_unscored_completions_total{kind=error,scorer=ticket}"] == 0
    assert not any(name.startswith("tao_scoring_requests") and "scorer=ticket" in name for name in found)


def test_a_verdict_without_figures_shows_none_of_the_gate_before(metrics: Metrics) -> None:
    numbers = {
        "difference": 0.1,
        "difference_low": 0.05,
        "difference_high": 0.15,
        "incumbent_score": 0.4,
        "candidate_score": 0.5,
        "pairs": 190.0,
        "differing_pairs": 40.0,
        "dropped": 10.0,
        "length_ratio": 1.1,
        "truncation_increase": 0.0,
    }
    found = after(metrics, CandidateEvaluated(Decision.PASS, numbers))
    assert found["tao_evaluation_difference_ratio{bound=low}"] == 0.05
    assert found["tao_evaluation_score_ratio{version=candidate}"] == 0.5
    assert found["tao_evaluation_pairs"] == 190
    assert found["tao_evaluation_length_ratio"] == 1.1
    assert found["tao_evaluation_last_verdict_timestamp_seconds"] == NOW
    found = after(metrics, CandidateEvaluated(Decision.INCONCLUSIVE, {"available": 3.0}))
    assert math.isnan(found["tao_evaluation_difference_ratio{bound=low}"])
    assert found["tao_evaluation_pairs"] == 0
    assert found["tao_evaluation_verdicts_total{decision=inconclusive}"] == 1
    assert found["tao_evaluation_verdicts_total{decision=fail}"] == 0


def test_calls_to_model_servers(metrics: Metrics) -> None:
    found = after(
        metrics,
        UpstreamCalled("chat", "ok", 2.0),
        UpstreamCalled("chat", "http_4xx", 0.1),
        UpstreamCalled("of a later version", "unreachable", 0.1),
    )
    assert found["tao_serving_request_seconds_count{operation=chat,outcome=ok}"] == 1
    assert found["tao_serving_request_seconds_count{operation=chat,outcome=failed}"] == 1
    assert found["tao_serving_request_failures_total{operation=chat,outcome=http_4xx}"] == 1
    assert found["tao_serving_request_failures_total{operation=other,outcome=unreachable}"] == 1


def test_requests_to_the_control_api_are_bounded(metrics: Metrics) -> None:
    metrics.control.observe("get", "/v1/rounds/{id}", 200, 0.01)
    metrics.control.observe("BREW", None, 404, 0.01)
    metrics.control.observe("POST", "/v1/rollout/undo", 401, 0.01)
    metrics.control.observe("POST", "/v1/rollout/undo", 403, 0.01)
    for number in range(1000):
        metrics.control.observe("GET", f"/v1/{number}", 200, 0.01)
    found = after(metrics)
    assert found["tao_control_requests_total{method=GET,route=/v1/rounds/{id},status=2xx}"] == 1
    assert found["tao_control_requests_total{method=other,route=other,status=4xx}"] == 1
    assert found["tao_control_requests_total{method=POST,route=/v1/rollout/undo,status=4xx}"] == 2
    assert found["tao_control_token_rejections_total{reason=unauthenticated}"] == 1
    assert found["tao_control_token_rejections_total{reason=forbidden}"] == 1
    assert found["tao_control_request_seconds_count{route=/v1/rollout/undo}"] == 2
    assert len([name for name in found if name.startswith("tao_control_requests_total")]) <= 103


def test_a_sink_is_known_whole_from_its_first_word(metrics: Metrics) -> None:
    found = after(metrics, NotificationLag("on-call", 3))
    assert found["tao_notification_pending_entries{sink=on-call}"] == 3
    assert found["tao_notification_sent_total{outcome=failed,sink=on-call}"] == 0
    assert found["tao_notification_last_success_timestamp_seconds{sink=on-call}"] == 0
    found = after(metrics, NotificationSent("on-call", "failed"), NotificationSent("on-call", "delivered"))
    assert found["tao_notification_sent_total{outcome=failed,sink=on-call}"] == 1
    assert found["tao_notification_last_success_timestamp_seconds{sink=on-call}"] == NOW


async def test_a_process_tells_of_its_log_and_its_loop(metrics: Metrics) -> None:
    with metrics.process.counting():
        watch = asyncio.create_task(metrics.process.watch_loop())
        await asyncio.sleep(0.01)
        log = logging.getLogger("tao_daemon.tests")
        log.info("fine")
        log.warning("hm")
        log.error("no")
        time.sleep(0.7)  # what a task must never do
        await asyncio.sleep(0.01)
        watch.cancel()
    log.warning("nobody counts any more")
    found = after(metrics)
    assert found["tao_process_log_records_total{level=warning}"] == 1
    assert found["tao_process_log_records_total{level=error}"] == 1
    assert found["tao_process_event_loop_lag_seconds_sum"] > 0.1
    assert found["tao_build_info{component=daemon,version=1.2.3}"] == 1
