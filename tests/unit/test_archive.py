"""The archive writes everything once, in batches that carry their offsets."""

from __future__ import annotations

import numpy as np
import pytest

from tidewarden.bus.port import Record, TopicPartition
from tidewarden.events import Alert, Anomaly, AnomalyBatch, Feedback, Rejection
from tidewarden.frames import Frame, NodeKey, RollupFrame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.store.memory import MemoryStore
from tidewarden.store.port import Query, WriteBatch
from tidewarden.telemetry import Telemetry
from tidewarden_services.archive.service import FLUSH_AFTER_S, FLUSH_ROWS, ArchiveService

TABLE = SeriesTable([SeriesKey("shop", "eu", "n1", "cpu"), SeriesKey("shop", "eu", "n2", "cpu")])
DAY = 86_400_000


def stream(**archive: object) -> MetricStream:
    spec = {"tenants": ["shop"], "archive": archive}
    return MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": spec})


def readings(timestamp: int, n: int = 2) -> Frame:
    series = np.arange(n, dtype=np.int32) % 2
    return Frame(TABLE, series, np.full(n, timestamp, np.int64), np.arange(n, dtype=np.float64))


def scores(of: Frame, kind: list[int]) -> ScoreFrame:
    floats = [np.full(len(of), x) for x in (0.5, 0.001, 1.0, 0.0, 2.0)]
    kinds, flags = np.array(kind, np.uint8), np.zeros(len(of), np.uint8)
    return ScoreFrame(TABLE, "d", "auto/1", of.series, of.timestamp, of.value, *floats, kinds, flags)


def record(purpose: str, offset: int, value: object, partition: int = 0) -> Record:
    return Record(f"local.shop.{purpose}", partition, offset, "shop", value)


ANOMALY = Anomaly(
    id="a", revision=1, state="open", stream="shop", detector="d", model_version="auto/1", tenant="shop", cluster="eu",
    node="n1", metric="cpu", onset=1, end=1, peak_at=1, peak_score=0.9, p_value=1e-6, value=1.0, expected=0.0,
    lower=0.0, upper=0.0, readings=1, kind="spike", direction="up", severity="critical", node_share=1.0, explanation="",
)  # fmt: skip
ALERT = Alert(
    id="l", revision=1, state="firing", stream="shop", policy="p", group={}, tenant="shop", severity="critical",
    title="", summary="", started_at=1, fired_at=1, resolved_at=None, updated_at=1, anomaly_ids=["a"], anomaly_count=1,
    peak_score=0.9, kinds=[], series=[],
)  # fmt: skip
REJECTION = Rejection(id="r", stream="shop", source="s", reason="late", detail="", origin="", received_at=1)

FEEDBACK = Feedback(
    id="f", anomaly_id="a", stream="shop", detector="d", tenant="shop", cluster="eu", node="n1", metric="latency_ms",
    kind="spike", from_ms=1, until_ms=2, p_value=1e-6, verdict="wrong", by="ann", at_ms=3,
)  # fmt: skip


def everything() -> list[Record]:
    one = np.ones(1)
    rollup = RollupFrame(
        "d", [NodeKey("shop", "", "")], np.zeros(1, np.int32), np.ones(1, np.int64), one, np.ones(1, np.int32), one
    )
    batch = AnomalyBatch(detector="d", anomalies=[ANOMALY], watermarks={})
    values = {
        "readings": readings(1), "scores": scores(readings(1), [0, 2]), "rollups": rollup, "anomalies": batch,
        "alerts": [ALERT], "rejected": [REJECTION],
    }  # fmt: skip
    return [record("readings", 6, FEEDBACK), *(record(purpose, 7, value) for purpose, value in values.items())]


def test_every_kind_of_record_is_written_with_the_offset_after_it() -> None:
    store, telemetry = MemoryStore(), Telemetry()
    archive = ArchiveService("archive.shop", stream(), store, telemetry)
    archive.handle(everything())
    assert store.offsets("shop") == {}
    offsets = archive.flush()
    assert offsets == {TopicPartition(f"local.shop.{p}", 0): 8 for p in (
        "readings", "scores", "rollups", "anomalies", "alerts", "rejected",
    )}  # fmt: skip
    assert store.offsets("shop") == archive.start_offsets() == offsets
    assert store.counts() == {
        "readings": 2,
        "scores": 2,
        "rollups": 1,
        "anomalies": 1,
        "alerts": 1,
        "rejected": 1,
        "feedback": 1,
    }
    assert (
        telemetry.registry.get_sample_value("tidewarden_stored_rows_total", {"stream": "shop", "kind": "scores"}) == 2
    )
    assert archive.flush() == {}


def test_without_raw_readings_only_what_was_unusual_is_kept() -> None:
    """``archive.readings: false`` keeps anomalous scores, rollups and events; offsets move on all the same."""
    store = MemoryStore()
    archive = ArchiveService("archive.shop", stream(readings=False), store, Telemetry())
    archive.handle(everything())
    archive.flush()
    assert store.counts() == {
        "readings": 0,
        "scores": 1,
        "rollups": 1,
        "anomalies": 1,
        "alerts": 1,
        "rejected": 1,
        "feedback": 1,
    }
    assert store.offsets("shop")[TopicPartition("local.shop.readings", 0)] == 8
    rows = store.readings(Query()).to_pylist()
    assert [(row["node"], row["value"], row["kind"]) for row in rows] == [("n2", 1.0, "spike")]


def test_it_asks_to_write_by_size_or_by_age() -> None:
    archive = ArchiveService("archive.shop", stream(), MemoryStore(), Telemetry())
    assert not archive.should_flush(0.0)
    archive.handle([record("readings", 0, readings(1))])
    assert not archive.should_flush(10.0)
    assert not archive.should_flush(10.0 + FLUSH_AFTER_S / 2)
    assert archive.should_flush(10.0 + FLUSH_AFTER_S)
    archive.flush()
    assert not archive.should_flush(20.0)
    archive.handle([record("readings", 1, readings(1, FLUSH_ROWS))])
    assert archive.should_flush(20.0)


def test_a_store_that_refuses_loses_nothing() -> None:
    """What was collected stays collected, and the next flush writes it."""

    class Refusing(MemoryStore):
        refuse = True

        def write(self, batch: WriteBatch) -> None:
            if self.refuse:
                raise OSError("no space left on device")
            super().write(batch)

    store = Refusing()
    archive = ArchiveService("archive.shop", stream(), store, Telemetry())
    archive.handle([record("readings", 0, readings(1))])
    with pytest.raises(OSError, match="no space"):
        archive.flush()
    store.refuse = False
    archive.handle([record("readings", 1, readings(2))])
    assert archive.flush() == {TopicPartition("local.shop.readings", 0): 2}
    assert store.counts()["readings"] == 4


def test_a_record_of_a_foreign_kind_is_named() -> None:
    archive = ArchiveService("archive.shop", stream(), MemoryStore(), Telemetry())
    with pytest.raises(TypeError, match=r"local\.shop\.scores carries a dict"):
        archive.handle([record("scores", 0, {"not": "a frame"})])


def test_retention_counts_from_the_newest_reading_of_a_replay() -> None:
    """Data of 2014 replayed today is not a decade too old; what is older than its own newest reading is."""
    store = MemoryStore()
    archive = ArchiveService("archive.shop", stream(retention="1d"), store, Telemetry())
    archive.purge(2000 * DAY)
    archive.handle([record("readings", at, readings(at * DAY)) for at in (100, 101, 102)])
    archive.flush()
    archive.purge(now_ms=2000 * DAY)
    assert store.readings(Query()).column("timestamp").to_pylist() == [101 * DAY] * 2 + [102 * DAY] * 2
    archive.purge(now_ms=50 * DAY)  # a reading from the future does not make the present old
    assert store.counts()["readings"] == 4
