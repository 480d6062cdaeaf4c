"""What Tidewarden says of itself: figures that mean something, from the first moment on."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest

from tidewarden.bus.memory import MemoryBus
from tidewarden.clock import ManualClock
from tidewarden.evaluate.report import Evaluation
from tidewarden.events import AnomalyKind
from tidewarden.frames import Frame, SeriesTable
from tidewarden.resources import AlertPolicy, AnomalyDetector, MetricStream
from tidewarden.telemetry import Telemetry, rejections
from tidewarden.topics import StreamTopics
from tidewarden_operator.cluster.mirror import Mirror
from tidewarden_operator.engine import evaluations
from tidewarden_services.alert.service import AlertService
from tidewarden_services.detect.service import DetectService
from tidewarden_services.ingest.reasons import REASONS
from tidewarden_services.ingest.statistics import SourceStatistics
from tidewarden_services.ingest.validate import Verdict
from tidewarden_services.runtime import Runner
from tidewarden_services.state import MemoryState

STREAM = MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": {"tenants": ["shop"], "interval": "1m"}})
DETECTOR = AnomalyDetector.model_validate({"metadata": {"name": "watch"}, "spec": {"stream": "shop"}})
POLICY = AlertPolicy.model_validate({"metadata": {"name": "oncall"}, "spec": {"stream": "shop", "receivers": []}})
START_MS = 1_700_000_000_000


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_counters_begin_at_zero_for_everything_that_can_happen() -> None:
    """So that the first anomaly, alert or refusal is an increase to whoever watches: every kind, state and reason."""
    telemetry, clock = Telemetry(), ManualClock(START_MS)
    r = telemetry.registry
    DetectService(DETECTOR, STREAM, SeriesTable(), telemetry, clock)
    AlertService(POLICY, STREAM, telemetry)
    SourceStatistics("shop", "push", "http", telemetry, clock, interval_ms=60_000)
    for kind in set(AnomalyKind) - {AnomalyKind.NONE}:
        assert value(r, "tidewarden_anomalies_total", stream="shop", detector="watch", kind=kind.label) == 0
    for state in ("pending", "firing", "resolved"):
        assert value(r, "tidewarden_alerts_total", stream="shop", policy="oncall", state=state) == 0
    for reason in REASONS:
        assert value(r, "tidewarden_rejected_total", stream="shop", source="push", reason=reason) == 0
    assert rejections(telemetry) == {}, "people are shown reasons that occurred"


def test_an_evaluation_is_told_by_measure_and_what_means_nothing_is_not() -> None:
    """Precision without a report is no number, so there is no sample of it."""
    telemetry = Telemetry()
    result: dict[str, Any] = dict.fromkeys(("precision", "vus_pr", "auc_pr", "delay_median_s", "false_alarms_per_day"))
    counts = dict.fromkeys(("events", "detected", "false_alarms", "series", "readings", "learning"), 1)
    found = Evaluation(detector="watch", simulation="play", recall=0.25, f1=0.4, **result, **counts)
    telemetry.evaluation.note("shop", [found])
    who = {"stream": "shop", "simulation": "play", "detector": "watch"}
    assert value(telemetry.registry, "tidewarden_evaluation_recall_ratio", **who) == 0.25
    assert value(telemetry.registry, "tidewarden_evaluation_f1_ratio", **who) == 0.4
    assert value(telemetry.registry, "tidewarden_evaluation_precision_ratio", **who) is None


def test_a_detector_that_never_learns_is_as_old_as_its_process() -> None:
    """The time of learning begins with the service, so that an age can be told before the first reading."""
    telemetry = Telemetry()
    DetectService(DETECTOR, STREAM, SeriesTable(), telemetry, ManualClock(START_MS))
    learned = value(telemetry.registry, "tidewarden_learned_timestamp_seconds", stream="shop", detector="watch")
    assert learned == START_MS / 1000


def test_saving_is_told_with_its_time() -> None:
    """After a snapshot the time of the last one is now, by the clock that the runner has."""
    import threading

    telemetry, clock, table = Telemetry(), ManualClock(START_MS), SeriesTable()
    topics, bus = StreamTopics("local", "shop"), MemoryBus(table)
    bus.create(topics.all())
    runner = Runner(
        "alert.oncall", AlertService.reads, lambda _: AlertService(POLICY, STREAM, telemetry),
        stream=topics, bus=bus, state=MemoryState(), telemetry=telemetry, clock=clock,
    )  # fmt: skip
    assert value(telemetry.registry, "tidewarden_snapshot_timestamp_seconds", service="alert.oncall") == 0
    stop = threading.Event()
    stop.set()
    runner.run(stop)
    bus.close()
    assert value(telemetry.registry, "tidewarden_snapshot_timestamp_seconds", service="alert.oncall") == START_MS / 1000


def test_the_operator_tells_evaluations_of_simulations_that_have_ended() -> None:
    """What stands in their status, measure by measure; what is not there is not told."""
    mirror = Mirror()
    row = {"detector": "watch", "precision": 1, "f1": 0.5, "vusPr": 0.75, "delay": "1m30s"}
    mirror.put(
        {
            "apiVersion": "tidewarden.dev/v1alpha1", "kind": "MetricSimulation",
            "metadata": {"name": "play", "namespace": "shop", "uid": "1", "resourceVersion": "1"},
            "status": {"evaluation": [row]},
        }
    )  # fmt: skip
    assert sorted(evaluations(mirror)) == [
        ("shop", "play", "watch", "delay_seconds", 90.0),
        ("shop", "play", "watch", "f1", 0.5),
        ("shop", "play", "watch", "precision", 1.0),
        ("shop", "play", "watch", "vus_pr", 0.75),
    ]


def test_processes_tell_their_memory_and_their_version() -> None:
    """The customary process metrics and the build are in every process's registry."""
    telemetry = Telemetry()
    telemetry.build.labels("detect", "1.2.3").set(1)
    text = generate_latest(telemetry.registry).decode()
    assert 'tidewarden_build_info{role="detect",version="1.2.3"} 1.0' in text
    assert "process_resident_memory_bytes" in text


def test_the_silence_of_a_source_counts_from_its_delivery_to_its_end() -> None:
    """No time before the first delivery, then that of the latest; after a restart that of it; none at the end."""
    telemetry, clock = Telemetry(), ManualClock(START_MS)

    def delivered() -> float | None:
        name = "tidewarden_source_delivered_timestamp_seconds"
        return value(telemetry.registry, name, stream="shop", source="push")

    def nothing(newest_ms: int | None) -> Verdict:
        return Verdict(Frame.empty(SeriesTable()), np.zeros(0, np.uint8), 0, 0, newest_ms)

    first = SourceStatistics("shop", "push", "http", telemetry, clock, interval_ms=60_000)
    first.note(nothing(None), Counter())
    assert delivered() is None, "an empty batch is no delivery"
    first.note(nothing(START_MS), Counter(malformed=1))
    assert delivered() == START_MS / 1000, "nor is it silent if all that it sends is refused"
    clock.advance(5)
    again = SourceStatistics("shop", "push", "http", telemetry, clock, interval_ms=60_000)
    again.load(first.save())
    assert delivered() == START_MS / 1000 + 5
    again.state = "finished"
    again.post(force=True)
    assert delivered() is None
    assert value(telemetry.registry, "tidewarden_source_interval_seconds", stream="shop", source="push") == 60
