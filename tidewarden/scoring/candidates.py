"""Champion and candidate: two scorers over the same readings, one of which answers for each series.

A `Contest` is used like a `Scorer`. Series, gaps and silence are the champion's and shared, so that both judge the
same rows. What it says and decides is a function of its snapshot and of the readings, record by record: there is no
clock. Time is counted in readings, which a single wrong timestamp cannot shift.

**Who answers.** In shadow the champion. In canary the candidate for a share of the series, by a hash of their names.
When promoted, which the resource says, the candidate for all; but never before both are ready in that series.
An anomaly is told to its end by whoever opened it, so what is told stays whole when the answer changes hands.

**Rollback** weighs evidence that may be looked at after every record (`evidence.py`), on the events where the two
differ, as McNemar's test has it. Nothing promotes a candidate by itself: a person reads the status and says so. Of
several partitions each decides by itself over its own nodes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import msgspec
import numpy as np
import structlog

from tidewarden.drift.monitor import Findings
from tidewarden.events import Anomaly, Feedback
from tidewarden.frames import LEARNING, SCORE_COLUMNS, BoolArray, Frame, ScoreFrame, SeriesKey, SeriesTable, TimeArray
from tidewarden.resources.candidate import Candidate
from tidewarden.scoring.comparison import CANDIDATE, CHAMPION, SIDES, Comparison
from tidewarden.scoring.decision import DAY_MS
from tidewarden.scoring.evidence import log_evidence_for_more, log_evidence_of_excess
from tidewarden.scoring.gaps import Filled
from tidewarden.scoring.growth import with_room
from tidewarden.scoring.scorer import Learning, Scored, Scorer, ScorerConfig

log = structlog.get_logger()

ROLLBACK_LOG = math.log(1_000.0)  # at most one in a thousand that as good a candidate is ever rolled back, by each rule
NEVER = np.iinfo(np.int64).max

Phase = Literal["shadow", "canary", "promoted", "rolledBack"]


class _State(msgspec.Struct):
    """What a contest remembers beside its two scorers."""

    identity: str  # of both models, mode and share: with others the contest begins anew
    phase: Phase
    ready_from: bytes  # int64 by own number of the series, ms: since when both are ready
    comparison: Comparison
    told: list[dict[str, Anomaly]]  # by side: id → newest revision of an anomaly that was told and is open
    reason: str = ""
    answered: int = 0  # readings that the candidate answered for
    raised: int = 0  # anomalies that it opened there
    version: int = 1


@dataclass(frozen=True, slots=True)
class ContestReport:
    """How a contest stands, for people."""

    version: str
    mode: Phase
    series: int  # that the candidate answers for
    comparison: Comparison
    days: float  # of one series
    message: str


class Contest:
    """A champion and its candidate.

    Args:
        config: the champion's; it must have a candidate.
        table: the process's series.
    """

    def __init__(self, config: ScorerConfig, table: SeriesTable) -> None:
        candidate = config.spec.candidate
        if candidate is None:
            raise ValueError(f"detector {config.detector} has no candidate: use a Scorer")
        self._config = config
        self._spec: Candidate = candidate
        self._table = table
        self._champion = Scorer(config, table)
        self._candidate = self._new_candidate()
        self._in_share = np.zeros(64, np.bool_)
        self._n_hashed = 0
        self._ready_from: TimeArray = _never(0)
        self._state = self._new_state()

    @property
    def champion(self) -> Scorer:
        """The detector's own model at work."""
        return self._champion

    @property
    def model_version(self) -> str:
        """Of the champion."""
        return self._champion.model_version

    @property
    def n_series(self) -> int:
        """Series that the detector watches and has met."""
        return self._champion.n_series

    @property
    def state_bytes(self) -> int:
        """Memory that the state of both scorers takes."""
        return self._champion.state_bytes + self._candidate.state_bytes

    @property
    def origin(self) -> Mapping[str, Any] | None:
        """The registered version that the champion began with; see `Scorer.origin`."""
        return self._champion.origin

    def begin(
        self, state: bytes, origin: Mapping[str, Any], mine: Callable[[SeriesKey], bool] = lambda _: True
    ) -> None:
        """The champion begins with a registered version; see `Scorer.begin`. The candidate learns from nothing."""
        self._champion.begin(state, origin, mine)

    def drift(self, watermarks: Mapping[str, int]) -> Findings:
        """What has drifted, as the champion sees it; see `Scorer.drift`."""
        return self._champion.drift(watermarks)

    def learning(self) -> Learning:
        """How far the champion is."""
        return self._champion.learning()

    def score(self, frame: Frame) -> Scored:
        """As `Scorer.score`."""
        return self._both(self._champion.hear(frame))

    def advance(self, watermarks: Mapping[str, int]) -> Scored:
        """As `Scorer.advance`."""
        scored = self._both(self._champion.owed(watermarks))
        closed = [scorer.close_silent(watermarks) for scorer in (self._champion, self._candidate)]
        scored.anomalies += self._anomalies(closed)
        return scored

    def truth(self, series: SeriesKey, from_ms: int, until_ms: int, right: bool | None) -> None:
        """A person marked what was found in a series: right, wrong, or takes it back (None).

        Args:
            series: whose it was.
            from_ms: onset of the anomaly, ms since the epoch.
            until_ms: its end.
            right: whether it was one.
        """
        number = self._champion.own.find(series)
        if number is not None and self._ready_from[number] <= from_ms:
            tolerance_ms = self._config.spec.alerting.quiet * self._config.interval_ms
            self._state.comparison.mark(series.path, from_ms, until_ms, right, tolerance_ms)
            self._decide()

    def feedback(self, feedback: Feedback, at: int) -> list[Anomaly]:
        """As `Scorer.feedback`, for both; what is told anew is what had been told."""
        self._candidate.accompany(self._champion)
        anomalies = []
        for side, scorer in ((CHAMPION, self._champion), (CANDIDATE, self._candidate)):
            told = self._state.told[side]
            for anomaly in scorer.feedback(feedback, at):
                if anomaly.id in told:
                    told[anomaly.id] = anomaly
                    anomalies.append(anomaly)
        return anomalies

    def snapshot(self) -> tuple[bytes, bytes, bytes]:
        """State of the champion, of the candidate, and of the contest."""
        self._candidate.accompany(self._champion)
        self._state.ready_from = self._ready_from[: self.n_series].tobytes()
        return self._champion.snapshot(), self._candidate.snapshot(), msgspec.msgpack.encode(self._state)

    def restore(self, champion: bytes, candidate: bytes, contest: bytes) -> list[Anomaly]:
        """Go on from a snapshot, each model with the state that fits it; ValueError says what does not fit.

        Where the champion's state fits the detector's model but the candidate's does not fit its candidate, or where
        neither bytes of a contest are there (``b""``), the candidate begins anew.

        Returns:
            Anomalies that a model told which is no longer here, closed.
        """
        self._champion = Scorer(self._config, self._table)
        fits = restore_either(self._champion, champion, candidate)
        self._candidate = self._new_candidate()
        lost = ""
        try:
            restore_either(self._candidate, *((candidate, champion) if fits == CHAMPION else (champion, candidate)))
            self._candidate.accompany(self._champion)
        except ValueError as error:
            lost = str(error)
            self._candidate = self._new_candidate()
            self._candidate.accompany(self._champion)
        self._state, self._ready_from = self._new_state(), _never(self.n_series)
        if not contest:
            return []
        before = msgspec.msgpack.decode(contest, type=_State)
        if lost:
            log.warning("the candidate begins anew, nothing counted", detector=self._config.detector, reason=lost)
            self._state.told[CHAMPION] = before.told[fits]
            return closed_for_good(before.told[1 - fits])
        if before.identity == self._state.identity:
            self._state = before
            self._ready_from = np.frombuffer(before.ready_from, np.int64).copy()
            return []
        if _models(before.identity) == _models(self._state.identity):  # another mode or share: what was counted counts
            self._state.comparison, self._state.told = before.comparison, before.told
            self._ready_from = np.frombuffer(before.ready_from, np.int64).copy()
            return []
        self._state.told[CHAMPION] = before.told[fits]
        return closed_for_good(before.told[1 - fits])

    def report(self) -> ContestReport:
        """How it stands."""
        state = self._state
        answers = int(self._answers()[: self.n_series].sum())
        days = state.comparison.readings * self._config.interval_ms / DAY_MS
        return ContestReport(
            self._candidate.model_version, state.phase, answers, state.comparison, days, state.reason or self._outlook()
        )

    def _new_candidate(self) -> Scorer:
        champion = self._config.spec
        spec = champion.model_copy(
            update={
                "model": self._spec.model,
                "candidate": None,
                "training": None,  # names a version of the champion's model
                "drift": champion.drift.model_copy(update={"watch": False}),  # of the readings, which are the same
            }
        )
        return Scorer(replace(self._config, spec=spec), self._table)

    def _new_state(self) -> _State:
        models = [m.model_dump_json(exclude_none=True) for m in (self._config.spec.model, self._spec.model)]
        identity = msgspec.json.encode([*models, self._spec.mode, self._spec.share]).decode()
        return _State(identity, self._spec.mode, b"", Comparison(), [{}, {}])

    def _both(self, filled: Filled) -> Scored:
        """Let both judge, and give the rows of whoever answers for their series."""
        self._candidate.accompany(self._champion)
        shadow = replace_flags(filled)
        said = [self._champion.judge(filled), self._candidate.judge(shadow)]
        champion, candidate = said[CHAMPION].scores, said[CANDIDATE].scores
        own = filled.series
        ready = ((champion.flags | candidate.flags) & LEARNING) == 0
        self._ready_from = with_room(self._ready_from, self.n_series, _never)
        if ready.any():
            new = ready & (self._ready_from[own] == NEVER)
            if new.any():
                rows = np.flatnonzero(new)[::-1]  # the first row of a series is written last
                self._ready_from[own[rows]] = filled.timestamp[rows]
            self._state.comparison.readings += int(ready.sum())
        by_candidate = self._answers()[own] & ready
        self._state.answered += int(by_candidate.sum())
        anomalies = self._anomalies([s.anomalies for s in said])
        scores = _chosen(champion, candidate, by_candidate)
        self._decide()
        return Scored(scores, anomalies)

    def _answers(self) -> BoolArray:
        """Series, by own number, for which the candidate answers as soon as it is ready in them."""
        own, n = self._champion.own, self.n_series
        if self._state.phase == "promoted":
            return np.ones(n, np.bool_)
        if self._state.phase != "canary":
            return np.zeros(n, np.bool_)
        self._in_share = with_room(self._in_share, n, _nobody)
        for number in range(self._n_hashed, n):
            self._in_share[number] = in_share(own[number].path, self._spec.share)
        self._n_hashed = n
        return self._in_share[:n]

    def _anomalies(self, said: list[list[Anomaly]]) -> list[Anomaly]:
        """Count the anomalies of both, and give those that are told."""
        state, own = self._state, self._champion.own
        events: list[tuple[SeriesKey, int, bool, int, int]] = []
        for side in SIDES:
            newest: dict[SeriesKey, int] = {}  # a late reading does not go back behind what its series said before
            for position, anomaly in enumerate(said[side]):
                at = newest[anomaly.series] = max(anomaly.updated_at, newest.get(anomaly.series, anomaly.updated_at))
                events.append((anomaly.series, at, anomaly.state == "closed", side, position))
        answers = self._answers()
        told: list[tuple[int, int, Anomaly]] = []
        # By series, as their readings came: a sum over series does not depend on how these lay in frames.
        for series, _, _, side, position in sorted(events):
            anomaly = said[side][position]
            number = own.find(series)
            assert number is not None
            both = bool(self._ready_from[number] <= anomaly.onset)
            earlier = anomaly.revision > 1 and series.path not in state.comparison.running[side]
            state.comparison.take(side, anomaly, series.path, counted=both)
            if earlier and side == CHAMPION:  # open since before there was a candidate: told to its end, too
                state.told[side][anomaly.id] = anomaly
            if anomaly.revision == 1 and (both and bool(answers[number])) == (side == CANDIDATE):
                state.told[side][anomaly.id] = anomaly
                state.raised += side == CANDIDATE
            if anomaly.id in state.told[side]:
                told.append((side, position, anomaly))
                if anomaly.state == "closed":
                    del state.told[side][anomaly.id]
                else:
                    state.told[side][anomaly.id] = anomaly
        return [anomaly for _, _, anomaly in sorted(told, key=lambda t: t[:2])]  # each side's as it said them

    def _decide(self) -> None:
        """Roll back a candidate that answers, where all that was counted so far speaks against it."""
        state = self._state
        if state.phase in ("canary", "promoted"):
            reason = self._against()
            if reason:
                state.phase, state.reason = "rolledBack", f"rolled back: {reason}; change spec.candidate to try again"

    def _against(self) -> str:
        """What speaks against the candidate so much that it must go; empty where nothing does."""
        state, counted = self._state, self._state.comparison
        if log_evidence_for_more(counted.alone[CANDIDATE], counted.alone[CHAMPION]) >= ROLLBACK_LOG:
            return f"{counted.alone[CANDIDATE]} alarms are its own, {counted.alone[CHAMPION]} the champion's"
        better, worse = counted.truths()
        if log_evidence_for_more(worse, better) >= ROLLBACK_LOG:
            return f"of the marked anomalies {worse} speak against it, {better} for it"
        budget = self._config.spec.alerting.budget
        if budget is None or not self.n_series:
            return ""
        share = budget * self._config.budget_share / self.n_series  # a day, of one series
        allowed = share * state.answered * self._config.interval_ms / DAY_MS
        if log_evidence_of_excess(state.raised, allowed) >= ROLLBACK_LOG:
            return f"{state.raised} anomalies where the budget allows {allowed:.3g}"
        return ""

    def _outlook(self) -> str:
        counted = self._state.comparison
        alone, (better, worse) = counted.alone, counted.truths()
        text = f"{alone[CHAMPION]} alarms only of the champion, {alone[CANDIDATE]} only of the candidate, "
        text += f"which {counted.as_well()[1]}"
        return f"{text}; {better} marks speak for it, {worse} against it" if better or worse else text


def in_share(path: str, percent: float) -> bool:
    """Whether a canary of so many percent has this series: always the same, and kept when the share grows."""
    number = int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest(), "big")
    return number < percent / 100.0 * 2.0**64


def restore_either(scorer: Scorer, first: bytes, second: bytes) -> int:
    """Restore ``scorer`` from whichever state fits its model, and say which, 0 or 1; else the first's ValueError."""
    try:
        scorer.restore(first)
    except ValueError:
        if not second:
            raise
        try:
            scorer.restore(second)
        except ValueError:
            pass
        else:
            return 1
        raise
    return 0


def left_behind(contest: bytes, stays: int) -> list[Anomaly]:
    """Anomalies that the other model of an ended contest told, closed; ``stays`` is the one that goes on."""
    return closed_for_good(msgspec.msgpack.decode(contest, type=_State).told[1 - stays]) if contest else []


def closed_for_good(told: Mapping[str, Anomaly]) -> list[Anomaly]:
    """The last revision of anomalies whose model is gone."""
    return [
        msgspec.structs.replace(anomaly, state="closed", revision=anomaly.revision + 1) for anomaly in told.values()
    ]


def replace_flags(filled: Filled) -> Filled:
    """The same rows with flags of their own, which judging writes to."""
    return replace(filled, flags=filled.flags.copy())


def _models(identity: str) -> list[str]:
    return list(msgspec.json.decode(identity)[:2])


def _chosen(champion: ScoreFrame, candidate: ScoreFrame, by_candidate: BoolArray) -> ScoreFrame:
    if not by_candidate.any():
        return champion
    if by_candidate.all():
        return candidate
    columns = [np.where(by_candidate, getattr(candidate, n), getattr(champion, n)) for n in SCORE_COLUMNS]
    version = f"{champion.model_version}+{candidate.model_version}"
    return ScoreFrame(champion.table, champion.detector, version, *columns)


def _never(n: int) -> TimeArray:
    return np.full(n, NEVER, np.int64)


def _nobody(n: int) -> BoolArray:
    return np.zeros(n, np.bool_)
