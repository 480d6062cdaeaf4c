"""The detect service: readings in, scores and anomalies out."""

from __future__ import annotations

import msgspec
import numpy as np

from tidewarden.bus.port import Record
from tidewarden.clock import Clock
from tidewarden.events import AnomalyBatch
from tidewarden.frames import Frame, IntArray, ScoreFrame, SeriesTable
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Purpose
from tidewarden_services.contract import Output

_POST_EVERY_S = 0.25  # people read the board; more often costs more than it says


class _Snapshot(msgspec.Struct):
    version: int
    watermarks: dict[str, int]
    scorer: bytes


class DetectService:
    """One AnomalyDetector over one stream.

    Scores of a frame are published under the frame's own key, so they keep its partition and order.
    An anomaly batch goes out when there is an anomaly, and when time has moved on by an interval, so
    that the alert service can let alerts resolve while all is calm.
    """

    inputs: tuple[Purpose, ...] = ("readings",)

    def __init__(
        self, detector: AnomalyDetector, stream: MetricStream, table: SeriesTable, telemetry: Telemetry, clock: Clock
    ) -> None:
        self.name = f"detect.{detector.metadata.name}"
        self._detector = detector.metadata.name
        self._stream = stream.metadata.name
        self._interval_ms = stream.spec.interval
        self._table = table
        self._telemetry = telemetry
        self._clock = clock
        self._scorer = Scorer(ScorerConfig.of(detector, stream), table)
        self._alerting = detector.spec.alerting
        self._model = detector.spec.model.kind
        self._scored = telemetry.scored.labels(self._stream, self._detector)
        self._tenants: list[str] = []
        self._tenant_of: IntArray = np.zeros(0, np.int32)
        self._watermarks: dict[str, int] = {}
        self._posted_at = 0.0
        self.post()

    def handle(self, record: Record) -> list[Output]:
        """Score one frame of readings."""
        frame = record.value
        assert isinstance(frame, Frame)
        scored = self._scorer.score(frame)
        scores, anomalies = scored.scores, scored.anomalies
        self.post()
        if not len(scores):
            return []
        advanced = self._advance(scores)
        if advanced:
            owed = self._scorer.advance(self._watermarks)
            scores, anomalies = ScoreFrame.concat([scores, owed.scores]), anomalies + owed.anomalies
        self._scored.inc(len(scores))
        for anomaly in anomalies:
            if anomaly.revision == 1:
                self._telemetry.anomalies.labels(self._stream, self._detector, anomaly.kind).inc()
        outputs = [Output("scores", record.key, scores)]
        if anomalies or advanced:
            batch = AnomalyBatch(detector=self._detector, anomalies=anomalies, watermarks=dict(self._watermarks))
            outputs.append(Output("anomalies", record.key, batch))
        return outputs

    def snapshot(self) -> bytes:
        """State of model, calibration, thresholds and open anomalies, and how far time had come."""
        return msgspec.msgpack.encode(_Snapshot(1, self._watermarks, self._scorer.snapshot()))

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        snapshot = msgspec.msgpack.decode(state, type=_Snapshot)
        self._watermarks = snapshot.watermarks
        self._scorer.restore(snapshot.scorer)
        self.post(force=True)

    def post(self, *, force: bool = False) -> None:
        """Tell the status board how far the model is; at most a few times a second."""
        now = self._clock.monotonic()
        if not force and now - self._posted_at < _POST_EVERY_S:
            return
        self._posted_at = now
        learning = self._scorer.learning()
        self._telemetry.model_series.labels(self._stream, self._detector, "learning").set(learning.n_learning)
        self._telemetry.model_series.labels(self._stream, self._detector, "ready").set(learning.n_ready)
        self._telemetry.model_bytes.labels(self._stream, self._detector).set(self._scorer.state_bytes)
        self._telemetry.board.post(
            "detectors",
            self._detector,
            stream=self._stream,
            model=self._model,
            series=self._scorer.n_series,
            learning=learning.n_learning,
            ready=learning.n_ready,
            warmup=learning.warmup,
            message=learning.message,
            state_bytes=self._scorer.state_bytes,
            threshold=self._alerting.threshold,
            budget_per_day=self._alerting.budget,
        )

    def _advance(self, scores: ScoreFrame) -> bool:
        """Move the tenants' watermarks on; true if one has moved by an interval since it was last told."""
        new = [self._table[series].tenant for series in range(len(self._tenant_of), len(self._table))]
        if new:
            self._tenants += sorted(set(new) - set(self._tenants))
            numbers = {tenant: number for number, tenant in enumerate(self._tenants)}
            self._tenant_of = np.concatenate([self._tenant_of, np.array([numbers[t] for t in new], np.int32)])
        newest = np.full(len(self._tenants), np.iinfo(np.int64).min)
        np.maximum.at(newest, self._tenant_of[scores.series], scores.timestamp)
        advanced = False
        for tenant, at in zip(self._tenants, newest.tolist(), strict=True):
            if at >= self._watermarks.get(tenant, np.iinfo(np.int64).min) + self._interval_ms:
                self._watermarks[tenant] = at
                advanced = True
        return advanced
