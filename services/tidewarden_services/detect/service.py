"""The detect service: readings in, scores and anomalies out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import msgspec
import numpy as np

from tidewarden.bus.port import Record
from tidewarden.clock import Clock
from tidewarden.events import Anomaly, AnomalyBatch, AnomalyKind, Feedback
from tidewarden.frames import Frame, IntArray, NodeKey, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.registry.start import Start
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.scoring.candidates import Contest, left_behind, restore_either
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Purpose, partition_of
from tidewarden_services.contract import Output
from tidewarden_services.detect.board import DetectorBoard
from tidewarden_services.detect.kernels import take_newest

NEVER = -(2**63)


class _Snapshot(msgspec.Struct):
    version: int
    watermarks: dict[str, int]
    scorer: bytes
    time: dict[str, int] = {}
    candidate: bytes = b""
    contest: bytes = b""
    orphans: list[Anomaly] = []  # of a model that is gone, closed, still to be told


class DetectService:
    """One AnomalyDetector over one partition of one stream.

    Scores and anomalies are cut by tenant, which is what everything that follows is keyed by. An anomaly
    batch of a tenant goes out when there is an anomaly of it, and when its time has moved on by an interval,
    so that the alert service can let alerts resolve while all is calm; where the stream has several
    partitions, a frame of scores goes out then, too, even an empty one, because whoever merges the
    partitions waits for each of them.

    The instance's time of a tenant is the newest of its own scores and of what ingest says of the other
    partitions (header ``time``). Each source says how far *it* has come, and the newest counts. Which
    source was first on the topic is chance, but it is written down there: the order of the partition's records
    is fixed, so a replay sees the same maximum after each of them. (Were the sources to tell each other
    their times before publishing, a source replayed after a kill would say something else the second time.)

    Args:
        detector: what to watch and how.
        stream: whose readings.
        table: the process's series.
        telemetry: counters and the status board.
        clock: for how often the board is told.
        partition: of the readings, whose instance this is.
        partitions: of the stream, which share the detector's budget.
        board: shared by the instances of this detector in the process.
        start: loads the registered version to begin with, where there is no snapshot. It is asked once, before the
            first record; what it gave is in the snapshot that is saved before anything is published, so a restart
            goes on from the same version, whoever is the champion by then.
    """

    reads: Purpose = "readings"

    def __init__(
        self,
        detector: AnomalyDetector,
        stream: MetricStream,
        table: SeriesTable,
        telemetry: Telemetry,
        clock: Clock,
        *,
        partition: int = 0,
        partitions: int = 1,
        board: DetectorBoard | None = None,
        start: Callable[[], Start] | None = None,
    ) -> None:
        self._detector = detector.metadata.name
        self._stream = stream.metadata.name
        self._interval_ms = stream.spec.interval
        self._partition = partition
        self._partitions = partitions
        self._table = table
        self._telemetry = telemetry
        config = ScorerConfig.of(detector, stream, partitions)
        self._scorer: Scorer | Contest = (
            Scorer(config, table) if config.spec.candidate is None else Contest(config, table)
        )
        self._orphans: list[Anomaly] = []
        self._start = start
        self._clock = clock
        self._scored = telemetry.scored.labels(self._stream, self._detector)
        self._learned = telemetry.learned.labels(self._stream, self._detector)
        self._learned.set(clock.now_ms() / 1000)
        for kind in AnomalyKind:  # from 0, so that the first of a kind is an increase to those who watch
            if kind is not AnomalyKind.NONE:
                telemetry.anomalies.labels(self._stream, self._detector, kind.label)
        self._tenants: list[str] = []
        self._tenant_of: IntArray = np.zeros(0, np.int32)
        self._time: dict[str, int] = {}  # tenant → ms: how far it has come
        self._watermarks: dict[str, int] = {}  # tenant → ms: the same when it was last told
        self._board = DetectorBoard(detector, stream, telemetry, clock) if board is None else board
        self._board.show(partition, self._scorer)

    def handle(self, record: Record) -> list[Output]:
        """Score one frame of readings, or take in what a person says of an anomaly."""
        frame = record.value
        if isinstance(frame, Feedback):
            return self._hear(frame)
        assert isinstance(frame, Frame)
        self._begin()
        scored = self._scorer.score(frame)
        scores, anomalies = scored.scores, self._orphans + scored.anomalies
        self._orphans = []
        if len(scores):
            self._learned.set(self._clock.now_ms() / 1000)
        self._board.post()
        self._meet_tenants()
        self._observe(scores, record.headers.get("time"))
        advanced = self._advance(ended="ended" in record.headers)
        if advanced:
            owed = self._scorer.advance(self._watermarks)
            self._board.look(self._partition, self._watermarks)
            scores, anomalies = ScoreFrame.concat([scores, owed.scores]), anomalies + owed.anomalies
        self._scored.inc(len(scores))
        opened = [anomaly for anomaly in anomalies if anomaly.revision == 1]
        for anomaly in opened:
            self._telemetry.anomalies.labels(self._stream, self._detector, anomaly.kind).inc()
        if opened:
            self._board.opened(len(opened))
        return self._say(scores, anomalies, advanced)

    def _hear(self, feedback: Feedback) -> list[Output]:
        """Take in a word on one of this detector's anomalies; its place among the readings is what makes it exact."""
        if feedback.detector != self._detector:
            return []
        self._begin()
        tenant = feedback.tenant
        at = max(feedback.until_ms, self._time.get(tenant, NEVER))
        anomalies = self._scorer.feedback(feedback, at)
        right = None if feedback.verdict == "revoke" else feedback.verdict == "right"
        self.truth(feedback.series, feedback.from_ms, feedback.until_ms, right)
        if not anomalies:
            return []
        watermarks = {tenant: self._watermarks[tenant]}
        batch = AnomalyBatch(detector=self._detector, anomalies=anomalies, watermarks=watermarks)
        return [Output("anomalies", tenant, batch, self._time[tenant])]

    def snapshot(self) -> bytes:
        """State of model, calibration, thresholds and open anomalies, and how far time had come."""
        self._begin()
        self._board.post()  # what the last record of a burst changed, and the hour that goes by
        scorer = self._scorer
        states = scorer.snapshot() if isinstance(scorer, Contest) else (scorer.snapshot(), b"", b"")
        champion, candidate, contest = states
        return msgspec.msgpack.encode(
            _Snapshot(1, self._watermarks, champion, self._time, candidate, contest, self._orphans)
        )

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        snapshot = msgspec.msgpack.decode(state, type=_Snapshot)
        self._watermarks = snapshot.watermarks
        self._time = {**snapshot.watermarks, **snapshot.time}
        if isinstance(self._scorer, Contest):
            orphans = self._scorer.restore(snapshot.scorer, snapshot.candidate, snapshot.contest)
        else:  # the candidate of before may be the detector's model now
            stays = restore_either(self._scorer, snapshot.scorer, snapshot.candidate)
            orphans = left_behind(snapshot.contest, stays)
        self._orphans = snapshot.orphans + orphans
        self._start = None
        self._board.post(force=True)

    def truth(self, series: SeriesKey, from_ms: int, until_ms: int, right: bool | None) -> None:
        """What a person said of an anomaly, None where it is taken back; a candidate is judged by it."""
        if isinstance(self._scorer, Contest):
            self._scorer.truth(series, from_ms, until_ms, right)

    def close(self) -> None:
        """Let go: the status board no longer counts this instance."""
        self._board.hide(self._partition)

    def _begin(self) -> None:
        """With the registered version, where there is one and no snapshot."""
        if self._start is not None:
            start = self._start()
            try:
                self._scorer.begin(start.state, start.origin, self._is_mine)
            except ValueError as error:
                raise ValueError(
                    f"AnomalyDetector/{self._detector}: cannot begin with version {start.origin['version']} of "
                    f"spec.training.registry: {error}: give spec.model as `tidewarden models show` has it, or train a "
                    "version of this one"
                ) from error
            self._start = None
            self._board.post(force=True)

    def _is_mine(self, key: SeriesKey) -> bool:
        """Whether a series comes by this instance's partition."""
        return partition_of(NodeKey(*key[:3]), self._partitions) == self._partition

    def _meet_tenants(self) -> None:
        """Number the tenants of series that the table has learned since."""
        new = [self._table[series].tenant for series in range(len(self._tenant_of), len(self._table))]
        if new:
            self._tenants += sorted(set(new) - set(self._tenants))
            numbers = {tenant: number for number, tenant in enumerate(self._tenants)}
            self._tenant_of = np.concatenate([self._tenant_of, np.array([numbers[t] for t in new], np.int32)])

    def _by_tenant(self, scores: ScoreFrame) -> dict[str, ScoreFrame]:
        """Scores cut by tenant; where there is one tenant only, without looking at each of them."""
        if len(scores) == 0:
            return {}
        if len(self._tenants) == 1:
            return {self._tenants[0]: scores}
        number = self._tenant_of[scores.series]
        present = np.flatnonzero(np.bincount(number)).tolist()
        if len(present) == 1:
            return {self._tenants[present[0]]: scores}
        return {self._tenants[n]: scores.take(number == n) for n in present}

    def _observe(self, scores: ScoreFrame, told: str | None) -> None:
        """Let the tenants' time come as far as these scores, and as far as ingest says."""
        newest = np.full(len(self._tenants), NEVER, np.int64)
        take_newest(newest, self._tenant_of, scores.series, scores.timestamp)
        times = dict(zip(self._tenants, newest.tolist(), strict=True))
        for tenant, at in msgspec.json.decode(told, type=dict[str, int]).items() if told is not None else ():
            times[tenant] = max(at, times.get(tenant, NEVER))
        for tenant, at in times.items():
            if at > self._time.get(tenant, NEVER):
                self._time[tenant] = at

    def _advance(self, *, ended: bool) -> set[str]:
        """Tenants whose time has moved by an interval since it was last told, or at all where nothing more comes."""
        step = 1 if ended else self._interval_ms
        advanced = {tenant for tenant, at in self._time.items() if at >= self._watermarks.get(tenant, NEVER) + step}
        self._watermarks |= {tenant: self._time[tenant] for tenant in advanced}
        return advanced

    def _say(self, scores: ScoreFrame, anomalies: list[Anomaly], advanced: set[str]) -> list[Output]:
        """Scores and anomalies by tenant, tenants by name."""
        frames = self._by_tenant(scores)
        batches: dict[str, list[Anomaly]] = defaultdict(list)
        for anomaly in anomalies:
            batches[anomaly.tenant].append(anomaly)
        outputs: list[Output] = []
        for tenant in sorted({*frames, *batches, *advanced}):
            time = self._time[tenant]
            frame = frames.get(tenant)
            if frame is None and tenant in advanced and self._partitions > 1:
                frame = scores.take(slice(0, 0))
            if frame is not None:
                outputs.append(Output("scores", tenant, frame, time))
            if tenant in advanced or tenant in batches:
                batch = AnomalyBatch(
                    detector=self._detector,
                    anomalies=batches.get(tenant, []),
                    watermarks={tenant: self._watermarks[tenant]},
                )
                outputs.append(Output("anomalies", tenant, batch, time))
        return outputs
