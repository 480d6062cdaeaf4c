"""Train a version: feed a scorer with history, and measure it on the last part before it learns that, too.

Models learn reading by reading, so one pass does both: each reading of the last part is scored against
what came before it and learned afterwards, exactly as in the stream. What is registered has learned everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

import msgspec
import numpy as np

from tidewarden.evaluate.events import Intervals
from tidewarden.evaluate.report import Evaluation, LabelledSeries, evaluate, latest_revisions
from tidewarden.events import Anomaly
from tidewarden.frames import ABSENT, LEARNING, Frame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.registry.manifest import Draft, Period
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden.training.history import History

FRAME_READINGS = 65_536  # bounds the memory of intermediate arrays, and how long nobody hears of progress (~0.1 s)
HOLD_OUT = 0.3  # of the time; the rest is for warm-up and the tail of the p-values

Progress = Callable[[int], None]
"""Told how many readings were dealt with since it was last told; may raise to stop."""

Injector = Callable[[History], History]
"""The same readings with anomalies in them, and their labels."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What came of a training."""

    state: bytes
    model_version: str
    metrics: dict[str, float | int | None]


def train(
    config: ScorerConfig,
    history: History,
    *,
    excluded: Sequence[Period] = (),
    hold_out: float = HOLD_OUT,
    inject: Injector | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Learn from history.

    Args:
        config: the detector, with the history's interval.
        history: what to learn from.
        excluded: periods whose readings are left out, as if the sources had been silent.
        hold_out: share of the time, at its end, on which it is measured before it is learned.
        inject: puts anomalies into a history without labels, to measure how many are found.
        progress: told how far it is.

    Returns:
        State and metrics. With labels: precision, recall, f1, vus_pr, auc_pr, delay_median_s, false_alarms_per_day and
        counts of events. Without: false_alarms_per_day, counting every anomaly as one, and of what was
        injected recall, delay_median_s and the count. With a budget: budget_per_day, too. Always: readings measured,
        and how many were not because the model was still learning.
    """
    if not 0 < hold_out < 1:
        raise ValueError(f"hold_out is {hold_out}: give a share between 0 and 1")
    # A version begins with nothing but its own history, whatever its detector begins with.
    config = replace(config, spec=config.spec.model_copy(update={"training": None}))
    history = history.selected(config.spec.select).without(excluded)
    if not len(history):
        raise ValueError("there is no reading to learn from: name other data, or fewer excluded periods")
    table = SeriesTable()
    scorer = Scorer(config, table)
    tell = progress or (lambda _: None)
    split = int(np.searchsorted(history.timestamp, history.split_at(hold_out), side="right"))
    held = history.take(slice(split, len(history)))
    injecting = inject is not None and history.label is None and len(held) > 0
    _feed(scorer, table, history.take(slice(0, split)), tell)
    before = scorer.snapshot() if injecting else b""
    said = _judge(config, held, *_feed(scorer, table, held, tell), excluded)
    metrics = _figures(said, labelled=history.label is not None)
    if inject is not None and injecting:
        again = SeriesTable()
        second = Scorer(config, again)
        second.restore(before)
        spoiled = inject(held)
        found = _judge(config, spoiled, *_feed(second, again, spoiled, tell), excluded)
        metrics |= {
            "injected": found.events,
            "injected_recall": found.recall,
            "injected_delay_median_s": found.delay_median_s,
        }
    if config.spec.alerting.budget is not None:
        metrics["budget_per_day"] = config.spec.alerting.budget
    return Trained(scorer.snapshot(), scorer.model_version, metrics)


def draft(
    config: ScorerConfig,
    history: History,
    trained: Trained,
    *,
    created_at_ms: int,
    excluded: Sequence[Period] = (),
    note: str = "",
) -> Draft:
    """What the registry is told of a trained version; its interval is the one that the scorer has."""
    window = history.selected(config.spec.select).without(excluded).window()
    window = msgspec.structs.replace(window, interval_ms=config.interval_ms)
    return Draft(
        detector=config.detector,
        model=config.spec.model.model_dump(mode="json", by_alias=True, exclude_none=True),
        seasonality_ms=list(config.spec.seasonality),
        model_version=trained.model_version,
        window=window,
        code_version=version("tidewarden"),
        created_at_ms=created_at_ms,
        excluded=list(excluded),
        metrics=trained.metrics,
        note=note,
    )


def _feed(
    scorer: Scorer, table: SeriesTable, history: History, tell: Progress
) -> tuple[list[ScoreFrame], list[Anomaly]]:
    """Score and learn; scores are in the history's order, absent readings left out."""
    ids = table.ids_of(history.keys)
    frame = Frame(table, ids[history.series], history.timestamp, history.value)
    scores, anomalies = [], []
    for start in range(0, len(frame), FRAME_READINGS):
        part = frame.take(slice(start, start + FRAME_READINGS))
        said = scorer.score(part)
        scores.append(said.scores.take((said.scores.flags & ABSENT) == 0))
        anomalies += said.anomalies
        tell(len(part))
    return scores, anomalies


def _judge(
    config: ScorerConfig,
    history: History,
    frames: list[ScoreFrame],
    anomalies: list[Anomaly],
    excluded: Sequence[Period],
) -> Evaluation:
    """Scores of a history against its labels; without labels nothing is anomalous."""
    name = config.detector
    if not frames:
        return evaluate([], detector=name, simulation="hold-out", interval_ms=config.interval_ms)
    scores = ScoreFrame.concat(frames)
    label = np.zeros(len(history), np.uint8) if history.label is None else history.label
    learning = (scores.flags & LEARNING) != 0
    rows = np.flatnonzero(~learning & ~np.isnan(scores.anomaly_score))
    rows = rows[np.argsort(history.series[rows], kind="stable")]
    cuts = np.searchsorted(history.series[rows], np.arange(len(history.keys) + 1))
    spans = _spans(anomalies, int(history.timestamp[0]), excluded, config.interval_ms)
    nothing = np.zeros((0, 2), np.int64)
    series = []
    for number, key in enumerate(history.keys):
        part = rows[cuts[number] : cuts[number + 1]]
        series.append(
            LabelledSeries(history.timestamp[part], label[part], scores.anomaly_score[part], spans.get(key, nothing))
        )
    return evaluate(
        series, detector=name, simulation="hold-out", interval_ms=config.interval_ms, learning=int(learning.sum())
    )


def _spans(
    anomalies: list[Anomaly], from_ms: int, excluded: Sequence[Period], interval_ms: int
) -> dict[SeriesKey, Intervals]:
    """Onset and end of what was found from ``from_ms`` on, by series; not the silence that excluded periods are."""
    spans: dict[SeriesKey, list[tuple[int, int]]] = {}
    for anomaly in latest_revisions(anomalies):
        silence = any(
            anomaly.onset <= period.until_ms + interval_ms and anomaly.end >= period.from_ms for period in excluded
        )
        if anomaly.onset >= from_ms and not silence:
            spans.setdefault(anomaly.series, []).append((anomaly.onset, anomaly.end))
    return {key: np.array(pairs, np.int64) for key, pairs in spans.items()}


def _figures(said: Evaluation, *, labelled: bool) -> dict[str, float | int | None]:
    """The figures that mean something."""
    names = ["readings", "learning", "series", "false_alarms", "false_alarms_per_day"]
    if labelled:
        names += ["events", "detected", "precision", "recall", "f1", "vus_pr", "auc_pr", "delay_median_s"]
    return {name: getattr(said, name) for name in names}
