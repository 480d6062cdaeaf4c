"""Readings in, scores and anomalies out: model, calibration, missing readings, thresholds.

A `Scorer` is one AnomalyDetector at work. What it says is a function of the readings it was given, in
their order: cut into frames one way or another, or interrupted by `snapshot` and `restore`, it says
the same to the last bit. It numbers the series it watches by itself, in order of arrival, so neither
series of other detectors nor the ids of the process's table cost memory or change a result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidewarden.drift.monitor import DriftMonitor, Findings
from tidewarden.events import Anomaly, Feedback
from tidewarden.frames import Frame, IntArray, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.models.contract import Judgement, State
from tidewarden.models.registry import build
from tidewarden.models.state import Column, SeriesState
from tidewarden.resources import AnomalyDetector, AnomalyDetectorSpec, MetricStream
from tidewarden.scoring.anomalies import AnomalyTracker
from tidewarden.scoring.budgets import Budgets
from tidewarden.scoring.calibration import Calibrator
from tidewarden.scoring.cutting import cut
from tidewarden.scoring.decision import DECISION_ROW, SEEN, Rules, decide
from tidewarden.scoring.flat import FlatLine
from tidewarden.scoring.gaps import Filled, GapFiller
from tidewarden.scoring.silence import Silence
from tidewarden.scoring.snapshots import pack, unpack

UNKNOWN = -1
NOT_SELECTED = -2


@dataclass(frozen=True, slots=True)
class ScorerConfig:
    """What a scorer must know: the detector's spec, and from its stream how time goes by."""

    detector: str
    stream: str
    spec: AnomalyDetectorSpec
    interval_ms: int = 60_000
    lateness_ms: int = 60_000
    max_gap: int = 5
    budget_share: float = 1.0  # of the detector's budget, where several scorers share its series

    @classmethod
    def of(cls, detector: AnomalyDetector, stream: MetricStream, partitions: int = 1) -> ScorerConfig:
        """The configuration for a detector resource on its stream resource, one scorer for each of ``partitions``.

        The budget is shared evenly, because a scorer knows neither how many series the others have nor what they
        have spent; so a detector of few nodes, all in one partition, stays below its budget.
        """
        spec = stream.spec
        return cls(
            detector.metadata.name, stream.metadata.name, detector.spec, spec.interval, spec.lateness_ms,
            spec.max_gap, 1.0 / partitions,
        )  # fmt: skip


@dataclass(slots=True, eq=False)
class Scored:
    """What came of one frame."""

    scores: ScoreFrame
    anomalies: list[Anomaly]


@dataclass(frozen=True, slots=True)
class Learning:
    """How far the series of a detector are in their warm-up."""

    n_learning: int
    n_ready: int
    warmup: int  # readings that a series needs
    furthest: int = 0  # readings that the furthest of those that learn has

    @property
    def message(self) -> str:
        """For people."""
        if not self.n_learning and not self.n_ready:
            return "waiting for the first reading"
        if not self.n_learning:
            return "ready"
        message = f"learning, {self.furthest} of {self.warmup} readings"
        return f"{self.n_learning} of {self.n_learning + self.n_ready} series {message}" if self.n_ready else message

    def __add__(self, other: Learning) -> Learning:
        return Learning(
            self.n_learning + other.n_learning, self.n_ready + other.n_ready, self.warmup,
            max(self.furthest, other.furthest),
        )  # fmt: skip


class Scorer:
    """One detector over all its series."""

    def __init__(self, config: ScorerConfig, table: SeriesTable) -> None:
        spec = config.spec
        self._config = config
        self._table = table
        self._local_of = np.full(64, UNKNOWN, np.int32)  # id in the process's table → own number
        self._own = SeriesTable()  # the watched series in order of arrival
        self._global_of = np.zeros(64, np.int32)
        self._model = build(spec.model, spec.seasonality, config.interval_ms)
        self._calibrator = Calibrator()
        self._flat = FlatLine()
        self._gaps = GapFiller(config.interval_ms, config.lateness_ms, config.max_gap)
        self._silence = Silence((config.max_gap + 2) * config.interval_ms + config.lateness_ms)
        self._decisions = SeriesState(row=Column((DECISION_ROW,), np.float64))
        self._budgets = Budgets(spec.alerting.scope)
        self._rules = Rules.of(spec.alerting, config.interval_ms, config.budget_share)
        self._tracker = self._new_tracker()
        self._drift = DriftMonitor(spec, config.interval_ms, config.budget_share) if spec.drift.watch else None
        self._origin: dict[str, Any] | None = None

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """The registered version that all this began with, as `begin` was told; None: with nothing."""
        return self._origin

    @property
    def model_version(self) -> str:
        """Kind and version of the model, as ``auto/1``."""
        return f"{self._model.kind}/{self._model.version}"

    @property
    def n_series(self) -> int:
        """Series that the detector watches and has met."""
        return len(self._own)

    @property
    def state_bytes(self) -> int:
        """Memory that the state of all watched series takes."""
        return self.state_bytes_per_series * len(self._own)

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs, of all parts together."""
        parts = (self._model, self._flat, self._gaps, self._tracker)
        total = sum(part.state_bytes_per_series for part in parts) + self._decisions.bytes_per_series
        if not self._model.calibrated:
            total += self._calibrator.state_bytes_per_series
        return total if self._drift is None else total + self._drift.state_bytes_per_series

    def learning(self) -> Learning:
        """How many series still learn, and a message that says how far they are."""
        seen = self._decisions["row"][: len(self._own), SEEN]
        warmup = self._model.warmup
        young = seen[seen < warmup]
        return Learning(len(young), len(seen) - len(young), warmup, int(young.max()) if len(young) else 0)

    def drift(self, watermarks: Mapping[str, int]) -> Findings:
        """What has drifted, by the tenants' times in ms; nothing where it is not watched."""
        return Findings() if self._drift is None else self._drift.findings(self._own, watermarks)

    def score(self, frame: Frame) -> Scored:
        """Score readings in arrival order, then learn from them.

        Args:
            frame: readings of this scorer's table; those of series not selected are passed over.

        Returns:
            Scores of the selected readings in their order, with absent readings where they were
            noticed, and the anomalies that opened, grew or closed.
        """
        return self.judge(self.hear(frame))

    def hear(self, frame: Frame) -> Filled:
        """Readings of series that are watched, by own numbers, with those that were found absent; not yet judged."""
        if frame.table is not self._table:
            raise ValueError("the frame belongs to another series table than the scorer: decode it into the scorer's")
        own = self._number(frame.series)
        timestamp, value = frame.timestamp, frame.value
        # Kernels are compiled for plain arrays, and anew for others (read-only, say): those are copied.
        if not (timestamp.flags.carray and value.flags.carray and (own >= 0).all()):
            rows = np.flatnonzero(own >= 0)
            own, timestamp, value = own[rows], timestamp[rows], value[rows]
        self._silence.hear(self._own.node_of[own], len(self._own.nodes))
        return self._gaps.fill(own, timestamp, value, self._own.node_of)

    def advance(self, watermarks: Mapping[str, int]) -> Scored:
        """Let time pass: what nodes owe that have fallen silent, and anomalies that silence has ended.

        Absent readings of a silent node are the same, with the same scores, whether they are noticed here
        or when the node resumes.

        Args:
            watermarks: newest reading of each tenant, milliseconds since the epoch.
        """
        scored = self.judge(self.owed(watermarks))
        scored.anomalies += self.close_silent(watermarks)
        return scored

    def feedback(self, feedback: Feedback, at: int) -> list[Anomaly]:
        """Take in what a person says of an anomaly of this detector; see `tidewarden.scoring.feedback`.

        No score changes, only of which later anomalies people are alerted.

        Args:
            feedback: the newest word on the anomaly.
            at: event time of its tenant, milliseconds since the epoch.

        Returns:
            The open anomaly of that series, told again where nobody is to hear of it any more, or somebody now is.
        """
        return self._tracker.mark(feedback, at)

    def owed(self, watermarks: Mapping[str, int]) -> Filled:
        """Absent readings of nodes that have fallen silent; not yet judged."""
        return self._gaps.absences(*self._silence.silent(self._own, watermarks))

    def close_silent(self, watermarks: Mapping[str, int]) -> list[Anomaly]:
        """Anomalies that silence has ended."""
        config = self._config
        quiet_ms = (config.spec.alerting.quiet + config.max_gap) * config.interval_ms + config.lateness_ms
        return self._tracker.close_silent(watermarks, quiet_ms)

    def accompany(self, lead: Scorer) -> None:
        """Watch the same series as ``lead``, with its numbers and its gaps, so that both judge the same rows.

        Call it before each `judge`; what ``lead`` hears is then heard by both.
        """
        if self._own is not lead._own:
            runs, n = self._tracker.snapshot(), len(self._own)
            if list(self._own.keys) != list(lead._own.keys[:n]):
                raise ValueError("the two scorers have met their series in different orders: start one of them anew")
            self._own = lead._own
            self._tracker = self._new_tracker()
            self._tracker.restore(runs, np.arange(n))
            self._tracker.marks.load(lead._tracker.marks.save())  # also where this one begins after they were set
        self._local_of, self._global_of, self._gaps, self._silence = (
            lead._local_of, lead._global_of, lead._gaps, lead._silence,
        )  # fmt: skip
        self._make_room()

    @property
    def own(self) -> SeriesTable:
        """The watched series in order of arrival."""
        return self._own

    def judge(self, filled: Filled) -> Scored:
        """Score readings and absences, own series numbers, in order."""
        series, timestamp = filled.series, filled.timestamp
        flags, learn = filled.flags, filled.learn
        said = Judgement.blank(len(series))
        self._model.observe(series, timestamp, filled.value, learn, said)
        if self._model.calibrated:
            log10_p = np.where(np.isnan(said.surprise), 0.0, said.surprise)
        else:
            log10_p = self._calibrator.observe(series, said.surprise, learn)
        self._flat.raise_log10_p(series, filled.value, filled.late, learn, log10_p)
        score, p_value = decide(
            series, filled.value, log10_p, learn, filled.late, said.expected, said.lower, said.upper, flags,
            self._decisions["row"], self._budgets.group_of, self._budgets.n_active, self._model.warmup, self._rules,
        )  # fmt: skip
        kind = np.zeros(len(series), np.uint8)
        scores = ScoreFrame(
            self._own, self._config.detector, self.model_version, series, timestamp, filled.value,
            score, p_value, said.expected, said.lower, said.upper, kind, flags,
        )  # fmt: skip
        anomalies = self._tracker.observe(scores)
        if self._drift is not None:
            self._drift.observe(scores, sum(anomaly.revision == 1 for anomaly in anomalies))
        scores.table = self._table
        scores.series = self._global_of[series]
        return Scored(scores, anomalies)

    def snapshot(self) -> bytes:
        """All state, series by name; checksummed and compressed, no pickles."""
        arrays: State = {}
        parts: tuple[tuple[str, State], ...] = (
            ("model", self._model.snapshot()),
            ("calibrator", self._calibrator.snapshot()),
            ("gaps", self._gaps.snapshot()),
            ("decisions", self._decisions.snapshot()),
            ("tracker", self._tracker.snapshot()),
            ("flat", self._flat.snapshot()),
            ("silence", self._silence.snapshot()),
            ("drift", {} if self._drift is None else self._drift.snapshot()),
        )
        for part, state in parts:
            arrays.update({f"{part}/{name}": array for name, array in state.items()})
        series = [list(key) for key in self._own.keys]
        marks = self._tracker.marks.save()
        return pack({**self._identity(), "origin": self._origin, "series": series, "feedback": marks}, arrays)

    def begin(
        self, state: bytes, origin: Mapping[str, Any], mine: Callable[[SeriesKey], bool] = lambda _: True
    ) -> None:
        """Begin with what a registered version has learned, instead of with nothing.

        What it knows of each series is taken over; where its time was is not: the first reading of each node is the
        first, nothing between it and the training is missing or late, no anomaly of the training is still open.

        Args:
            state: of the version, as `snapshot` gave it to the registry.
            origin: what names the version, kept in every snapshot from now on; JSON.
            mine: whether a series may come to this scorer at all, where several share a detector's.
        """
        select = self._config.spec.select
        self.restore(cut(state, lambda key: select.matches(*key) and mine(key)), fresh=True)
        self._origin = dict(origin)

    def restore(self, state: bytes, *, fresh: bool = False) -> None:
        """Go on from a snapshot, into whatever ids the table gives; ValueError says what does not fit.

        Args:
            state: what `snapshot` gave.
            fresh: forget where its time was; see `begin`.
        """
        header, arrays = unpack(state)
        for name, mine in self._identity().items():
            if header.get(name) != mine:
                raise ValueError(
                    f"the snapshot was taken with {name} {header.get(name)!r}, this detector has {mine!r}: "
                    "start without the snapshot to learn anew"
                )
        origin, training = header.get("origin"), self._config.spec.training
        if not fresh and training is not None and (origin or {}).get("reference") != training.from_:
            raise ValueError(
                f"the snapshot began with {(origin or {}).get('reference', 'no version')!r}, this detector is to begin "
                f"with {training.from_!r}: it begins anew with that"
            )

        def part(prefix: str) -> State:
            return {n.partition("/")[2]: a for n, a in arrays.items() if n.startswith(prefix + "/")}

        keys = [SeriesKey(*names) for names in header["series"]]
        self._own = SeriesTable()
        self._local_of = np.full(64, UNKNOWN, np.int32)
        self._tracker = self._new_tracker()
        self._budgets = Budgets(self._config.spec.alerting.scope)
        self._adopt(keys)
        self._model.restore(part("model"))
        self._calibrator.restore(part("calibrator"))
        self._decisions.restore(part("decisions"))
        self._budgets.count(self._decisions["row"][: len(keys)])
        self._flat.restore(part("flat"), range(len(keys)))
        if not fresh:
            self._gaps.restore(part("gaps"))
            self._tracker.restore(part("tracker"), np.arange(len(keys)))
            self._silence.restore(part("silence"))
            self._tracker.marks.load(header.get("feedback", []))  # older snapshots have none
            drift = part("drift")
            if self._drift is not None and drift:  # older snapshots have none: the reference is taken anew
                self._drift.restore(drift)
        self._origin = origin

    def _new_tracker(self) -> AnomalyTracker:
        config = self._config
        return AnomalyTracker(
            config.detector, config.stream, self.model_version, self._own,
            quiet=config.spec.alerting.quiet, interval_ms=config.interval_ms,
            season_ms=max(config.spec.seasonality, default=86_400_000),
        )  # fmt: skip

    def _identity(self) -> dict[str, Any]:
        """What must agree between a snapshot and the scorer that goes on from it."""
        spec = self._config.spec
        return {
            "model": self.model_version,
            "parameters": spec.model.model_dump(mode="json", exclude_none=True),
            "seasonality_ms": list(spec.seasonality),
            "interval_ms": self._config.interval_ms,
        }

    def _number(self, series: IntArray) -> IntArray:
        """Own numbers of series ids, negative where not selected; new series get theirs now."""
        if len(self._local_of) < len(self._table):
            grown = np.full(max(len(self._table), 2 * len(self._local_of)), UNKNOWN, np.int32)
            grown[: len(self._local_of)] = self._local_of
            self._local_of = grown
        own: IntArray = self._local_of[series]
        if not (own == UNKNOWN).any():
            return own
        ids, first = np.unique(series[own == UNKNOWN], return_index=True)
        select = self._config.spec.select
        wanted = []
        for i in ids[np.argsort(first)]:  # in order of arrival, which no cutting into frames changes
            if select.matches(*self._table[i]):
                wanted.append(self._table[i])
            else:
                self._local_of[i] = NOT_SELECTED
        self._adopt(wanted)
        return np.asarray(self._local_of[series], np.int32)

    def _adopt(self, keys: list[SeriesKey]) -> None:
        """Number ``keys`` on, and make room for their state."""
        for key in keys:
            own, given = self._own.id_of(key), self._table.id_of(key)
            for name, at in (("_local_of", given), ("_global_of", own)):
                array = getattr(self, name)
                if at >= len(array):
                    grown = np.full(max(at + 1, 2 * len(array)), UNKNOWN, np.int32)
                    grown[: len(array)] = array
                    setattr(self, name, grown)
            self._local_of[given] = own
            self._global_of[own] = given
        self._make_room()

    def _make_room(self) -> None:
        """State for all series there are."""
        n = len(self._own)
        self._model.resize(n)
        if not self._model.calibrated:
            self._calibrator.resize(n)
        self._gaps.resize(n, len(self._own.nodes))
        self._decisions.resize(n)
        self._budgets.adopt(self._own.keys)
        self._tracker.resize(n)
        self._flat.resize(n)
        if self._drift is not None:
            self._drift.resize(n)
