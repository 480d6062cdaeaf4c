"""The three watches of one detector, fed by its `Scorer`, and what they found in words and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidewarden.drift.adwin import Adwin
from tidewarden.drift.distribution import Distribution
from tidewarden.drift.model import OVER, ModelDrift
from tidewarden.drift.source import Source
from tidewarden.frames import IntArray, ScoreFrame, SeriesTable
from tidewarden.models.contract import State
from tidewarden.resources.anomalydetector import AnomalyDetectorSpec
from tidewarden.scoring.decision import DAY_MS, DECADES, DEFAULT_THRESHOLD

_NAMED = 3  # series that a message names
_LEAST_READINGS = 200  # in a window, where the seasons are short


@dataclass(frozen=True, slots=True)
class Finding:
    """What one of the three watches says.

    Attributes:
        judged: series that could be judged (for the model: 1 or 0); 0: too early to say.
        drifting: of these, how many have drifted.
        message: which, how far, and what to do; empty where nothing has.
    """

    judged: int = 0
    drifting: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the three watches say, and the figures for the metrics."""

    data: Finding = field(default_factory=Finding)
    model: Finding = field(default_factory=Finding)
    source: Finding = field(default_factory=Finding)
    series: Mapping[str, int] = field(default_factory=dict)  # sort of drift → series
    calibration: float = 1.0
    alarms: float = 0.0  # of the last window, over what is allowed


class DriftMonitor:
    """Drift of the data, of the model and of the source of one detector.

    Args:
        spec: of the detector.
        interval_ms: expected spacing of readings.
        budget_share: of the detector's budget, as the scorer has it.
    """

    def __init__(self, spec: AnomalyDetectorSpec, interval_ms: int, budget_share: float = 1.0) -> None:
        alerting = spec.alerting
        longest = spec.drift.window or max([DAY_MS, *spec.seasonality])
        self._window_ms = max(longest, _LEAST_READINGS * interval_ms)
        share = 1.0 if alerting.scope == "series" else budget_share
        allowed = None if alerting.budget is None else alerting.budget * share * self._window_ms / DAY_MS
        self._scope = alerting.scope
        threshold = DEFAULT_THRESHOLD if alerting.threshold is None else alerting.threshold
        self._distribution = Distribution(self._window_ms)
        self._adwin = Adwin()
        self._source = Source(self._window_ms, interval_ms)
        self._model = ModelDrift(self._window_ms, allowed, 10.0 ** (-threshold * DECADES))

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        parts = (self._distribution, self._adwin, self._source)
        return sum(part.bytes_per_series for part in parts)

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``."""
        for part in (self._distribution, self._adwin, self._source):
            part.resize(n_series)

    def observe(self, scores: ScoreFrame, opened: int) -> None:
        """Take scores in, own series numbers, in order; ``opened`` anomalies began with them."""
        self._distribution.observe(scores.series, scores.timestamp, scores.value)
        self._adwin.observe(
            scores.series, scores.timestamp, scores.value, scores.expected, scores.lower, scores.upper
        )  # fmt: skip
        self._source.observe(scores.series, scores.timestamp, scores.value)
        self._model.observe(scores.timestamp, scores.p_value, scores.flags, opened)

    def findings(self, table: SeriesTable, watermarks: Mapping[str, int]) -> Findings:
        """What has drifted, of the series in ``table``, by the tenants' times ``watermarks`` in ms."""
        compared = self._distribution.compared()
        drifting = self._distribution.drifting()
        shifted = self._adwin.cut_since(self._source.newest(), self._window_ms)
        found = self._source.found(table, watermarks)
        n_watched = self._source.n_series
        counts = {"values": len(drifting), "residuals": len(shifted), **{word: len(of) for word, of in found.items()}}
        budgets = {"detector": 1, "tenant": self._source.n_tenants, "series": len(table)}[self._scope]
        alarms, allowed, _ = self._model.alarms(budgets)
        return Findings(
            Finding(len(compared), len(drifting), self._data_message(table, drifting, len(compared))),
            Finding(int(self._model.judged), *self._model_finding(budgets)),
            Finding(
                n_watched if watermarks else 0,
                sum(len(of) for of in found.values()),
                _source_message(table, found),
            ),
            counts,
            self._model.calibration,
            alarms / allowed if allowed > 0.0 else 0.0,
        )

    def _data_message(self, table: SeriesTable, drifting: IntArray, compared: int) -> str:
        if not len(drifting):
            return ""
        named = []
        for series in drifting[:_NAMED].tolist():
            psi, distance = self._distribution.figures(series)
            named.append(f"{table[series].path} (PSI {psi:.2f}, KS {distance:.2f})")
        return (
            f"{len(drifting)} of {compared} series have other values than in their reference window: "
            f"{_listed(named, len(drifting))}; if the change is meant, the models follow by themselves"
        )

    def _model_finding(self, budgets: int) -> tuple[int, str]:
        said = []
        if self._model.judged and self._model.calibration >= OVER:
            said.append(
                f"{self._model.calibration:.1f} times as many readings have p <= 0.01 as a calibrated model gives"
            )
        alarms, allowed, most = self._model.alarms(budgets)
        if self._model.judged and alarms > most:
            said.append(f"{alarms} anomalies opened in the last window where {allowed:.3g} are allowed")
        if not said:
            return 0, ""
        return 1, " and ".join(said) + "; if no incident explains it, train the model anew or choose another"

    def snapshot(self) -> State:
        """The whole state as arrays (copies), named ``part.array``."""
        parts: dict[str, State] = {
            "distribution": self._distribution.snapshot(),
            "adwin": self._adwin.snapshot(),
            "source": self._source.snapshot(),
            "model": self._model.snapshot(),
        }
        return {f"{part}.{name}": array for part, state in parts.items() for name, array in state.items()}

    def restore(self, state: State) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""

        def part(prefix: str) -> State:
            return {n.partition(".")[2]: a for n, a in state.items() if n.startswith(prefix + ".")}

        self._distribution.restore(part("distribution"))
        self._adwin.restore(part("adwin"))
        self._source.restore(part("source"))
        self._model.restore(part("model"))


_SOURCE_WORDS = {
    "vanished": "say nothing any more",
    "appeared": "are new",
    "slow": "come less than half as often as the stream's interval says",
    "fast": "come more than twice as often as the stream's interval says",
}


def _source_message(table: SeriesTable, found: Mapping[str, IntArray]) -> str:
    said = []
    for word, text in _SOURCE_WORDS.items():
        series = found[word]
        if len(series):
            named = [table[number].path for number in series[:_NAMED].tolist()]
            said.append(f"{len(series)} series {text}: {_listed(named, len(series))}")
    return "; ".join(said) + ("; look at the source, or correct the stream's interval" if said else "")


def _listed(named: list[str], n: int) -> str:
    return ", ".join(named) + (f" and {n - len(named)} more" if n > len(named) else "")
