"""What people say of anomalies, and what it makes of later ones: exactly, and revocably."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.alerting.engine import AlertEngine
from tidewarden.bus.port import Record
from tidewarden.clock import ManualClock
from tidewarden.codec import Codec
from tidewarden.events import Anomaly, AnomalyBatch, AnomalyKind, Feedback
from tidewarden.frames import ABOVE, Frame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import AlertPolicy, AnomalyDetector, MetricStream
from tidewarden.scoring import feedback as bars
from tidewarden.scoring.anomalies import AnomalyTracker
from tidewarden.scoring.feedback import DAY_MS, Marks
from tidewarden.telemetry import Telemetry
from tidewarden_services.detect.service import DetectService

MINUTE = 60_000
BEGIN = 1_767_571_200_000
KEYS = [SeriesKey("t", "c", f"n{node}", metric) for node in range(2) for metric in ("errors", "latency")]
SPIKE, DIP, SHIFT = AnomalyKind.SPIKE, AnomalyKind.DIP, AnomalyKind.LEVEL_SHIFT


def word(
    name: str, verdict: str = "wrong", *, key: SeriesKey = KEYS[0], p_value: float = 1e-6, **more: Any
) -> Feedback:
    """A word on an anomaly called ``name``."""
    facts: dict[str, Any] = {"kind": "spike", "from_ms": BEGIN, "until_ms": BEGIN, "detector": "d"}
    return Feedback(
        id=f"{name}-{verdict}", anomaly_id=name, stream="s", **key._asdict(), p_value=p_value, verdict=verdict,  # type: ignore[arg-type]
        by="ann", at_ms=0, **(facts | more),
    )  # fmt: skip


def marks_of(*words: Feedback, at: int = BEGIN) -> Marks:
    """Marks of four known series; each word is given an hour after the one before it."""
    made = Marks(SeriesTable(KEYS))
    made.resize(len(KEYS))
    for number, each in enumerate(words):
        made.take(each, at + number * 60 * MINUTE)
    return made


def held(marks: Marks, p_value: float, *, kind: AnomalyKind = SPIKE, days: float = 0, series: int = 0) -> bool:
    """Whether a closed anomaly that begins so many days later is held back."""
    return marks.suppresses(series, int(kind), BEGIN + int(days * DAY_MS), p_value, running=False)


def test_after_a_wrong_one_only_rarer_ones_of_that_kind_in_that_series_pass() -> None:
    """Six decades were wrong: nine are asked for, half of it 30 days later; others pass as ever."""
    marks = marks_of(word("a", p_value=1e-6))
    assert held(marks, 1e-6)
    assert held(marks, 1.1e-9)
    assert not held(marks, 0.9e-9)
    assert held(marks, 1e-4, days=30)
    assert not held(marks, 1e-5, days=30)
    assert not held(marks, 1e-6, days=18)
    assert not held(marks, 1e-6, kind=DIP)
    assert not held(marks, 1e-6, series=1)


def test_three_wrong_ones_silence_the_kind_for_60_days() -> None:
    """However rare the next one is, it is held back, until the third newest mark is too old."""
    marks = marks_of(word("a", p_value=1e-4), word("b", p_value=1e-4), word("c", p_value=1e-4))
    assert held(marks, 1e-300)
    assert held(marks, 1e-300, days=59.9)
    assert not held(marks, 1e-300, days=60.1)
    assert not held(marks_of(word("a"), word("b")), 1e-300)


def test_a_right_one_takes_back_the_latest_wrong_one() -> None:
    """And one that comes before any wrong one takes back nothing."""
    assert not held(marks_of(word("a"), word("b", "right")), 1e-6)
    assert held(marks_of(word("b", "right"), word("a")), 1e-6)
    marks = marks_of(word("a", p_value=1e-4), word("b", p_value=1e-8), word("c", "right"))
    assert held(marks, 1e-4)
    assert not held(marks, 1e-8)


def test_a_short_run_has_to_pass_what_it_may_become() -> None:
    """A shift that is wrong again must not begin as an alert about a spike; a spike that ends as one is told."""
    marks = marks_of(word("a", kind="level_shift"))
    for running, kind, expected in ((True, SPIKE, True), (False, SPIKE, False), (False, SHIFT, True)):
        assert marks.suppresses(0, int(kind), BEGIN, 1e-6, running=running) is expected


WORDS = st.lists(
    st.tuples(
        st.integers(0, 5), st.sampled_from(["right", "wrong"]), st.sampled_from(["spike", "level_shift"]),
        st.sampled_from(KEYS[:2]), st.sampled_from([1e-4, 1e-7, 1e-12]),
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(WORDS, st.integers(0, 5))
def test_a_revoked_word_was_never_given(given_words: list[tuple[int, str, str, SeriesKey, float]], gone: int) -> None:
    """Whatever else was said before and after it, and after a snapshot as well."""
    words = [
        (BEGIN + hour * 60 * MINUTE, word(f"a{n}", verdict, key=KEYS[n % 2], kind=kind, p_value=p))
        for hour, (n, verdict, kind, _, p) in enumerate(given_words)
    ]
    with_it, without = marks_of(), marks_of()
    for at, each in words:
        with_it.take(each, at)
        if each.anomaly_id != f"a{gone}":
            without.take(each, at)
    with_it.take(word(f"a{gone}", "revoke", key=KEYS[gone % 2]), BEGIN)
    restored = marks_of()
    restored.load(msgspec.json.decode(msgspec.json.encode(with_it.save())))
    for marks in (with_it, restored):
        assert marks.save() == without.save()
        for series in range(2):
            for kind in (SPIKE, SHIFT):
                for p in (1e-5, 1e-9, 1e-15, 1e-30):
                    assert held(marks, p, kind=kind, series=series) == held(without, p, kind=kind, series=series)


def test_marks_are_bounded_and_rows_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the oldest mark falls out, and its series' row is another's."""
    monkeypatch.setattr(bars, "MAX_MARKS", 2)
    marks = marks_of(*(word(f"a{n}", key=KEYS[n % 4]) for n in range(200)))
    assert len(marks) == 2
    assert len(marks.bars) <= 64
    assert [held(marks, 1e-6, series=s) for s in range(4)] == [False, False, True, True]


def test_a_mark_of_a_series_not_met_yet_holds_when_it_comes() -> None:
    """A detector that began anew is told what was said before; series come later."""
    table = SeriesTable()
    marks = Marks(table)
    marks.take(word("a", key=KEYS[2]), BEGIN)
    table.ids_of(KEYS)
    marks.resize(len(KEYS))
    assert [held(marks, 1e-6, series=s) for s in range(4)] == [False, False, True, False]


# The tracker ---------------------------------------------------------------------------------------


def tracked(tracker: AnomalyTracker, table: SeriesTable, first: int, decades: list[float]) -> list[Anomaly]:
    """What is told of readings of the first series, one a minute, this rare each, spikes upwards."""
    rare = np.array(decades)
    n = len(rare)
    scores = ScoreFrame(
        table, "d", "auto/1", np.zeros(n, np.int32), BEGIN + (first + np.arange(n)) * MINUTE, 100 + 20 * rare,
        np.minimum(1, rare / 6), 10.0**-rare, np.full(n, 100.0), np.full(n, 90.0), np.full(n, 110.0),
        np.zeros(n, np.uint8), np.where(rare >= 4, ABOVE, 0).astype(np.uint8),
    )  # fmt: skip
    return tracker.observe(scores)


def tracker_of(table: SeriesTable) -> AnomalyTracker:
    return AnomalyTracker("d", "s", "auto/1", table, quiet=3, interval_ms=MINUTE)


def of(anomaly: Anomaly, verdict: str) -> Feedback:
    """A word on what was told."""
    return word(
        anomaly.id, verdict, p_value=anomaly.p_value, kind=anomaly.kind, from_ms=anomaly.onset, until_ms=anomaly.end
    )


CALM = [0.1] * 10


def test_like_ones_are_held_back_from_their_first_revision_to_their_last_and_rarer_ones_are_not() -> None:
    """The same again is kept and told as suppressed; one and a half times as many decades are told as ever."""
    table = SeriesTable(KEYS[:1])
    tracker = tracker_of(table)
    first = tracked(tracker, table, 0, [*CALM, 6, *CALM])
    assert [a.suppressed for a in first] == [False, False]
    assert tracker.mark(of(first[-1], "wrong"), BEGIN) == []
    again = tracked(tracker, table, 30, [*CALM, 6, *CALM])
    assert [(a.state, a.suppressed) for a in again] == [("open", True), ("closed", True)]
    rarer = tracked(tracker, table, 60, [*CALM, 9.5, *CALM])
    assert [a.suppressed for a in rarer] == [False, False]


def test_one_that_grows_rarer_is_told_at_the_reading_that_passes() -> None:
    """Its score has long been 1 by then, so nothing else would make it told again before it is over."""
    table = SeriesTable(KEYS[:1])
    tracker = tracker_of(table)
    first = tracked(tracker, table, 0, [*CALM, 6, *CALM])
    tracker.mark(of(first[-1], "wrong"), BEGIN)
    grown = tracked(tracker, table, 30, [*CALM, 6, 7, 8, 9.5])
    assert (grown[0].readings, grown[0].suppressed) == (1, True)
    assert (grown[-1].readings, grown[-1].suppressed, grown[-1].state) == (4, False, "open")


def test_an_open_one_is_told_anew_at_once() -> None:
    """Marked wrong while it is open, it is held back from then on; the word taken back, it is not."""
    table = SeriesTable(KEYS[:1])
    tracker = tracker_of(table)
    (opened,) = tracked(tracker, table, 0, [*CALM, 6])
    (held_back,) = tracker.mark(of(opened, "wrong"), BEGIN)
    assert (held_back.id, held_back.revision, held_back.suppressed) == (opened.id, opened.revision + 1, True)
    (told,) = tracker.mark(of(opened, "revoke"), BEGIN)
    assert (told.revision, told.suppressed) == (opened.revision + 2, False)
    assert tracker.mark(of(opened, "right"), BEGIN) == []


# Alerts --------------------------------------------------------------------------------------------


def test_nobody_is_alerted_of_one_that_is_held_back_and_a_firing_alert_resolves() -> None:
    """A suppressed anomaly starts no alert; one that becomes so while it is open is over for its alert."""
    table = SeriesTable(KEYS[:1])
    tracker = tracker_of(table)
    policy = AlertPolicy.model_validate(
        {"metadata": {"name": "p"}, "spec": {"stream": "s", "minSeverity": "info", "resolveAfter": "5m"}}
    )
    engine = AlertEngine(policy, "s")

    def observe(anomalies: list[Anomaly], minute: int) -> list[str]:
        marks = {"t": BEGIN + minute * MINUTE}
        return [a.state for a in engine.observe(AnomalyBatch(detector="d", anomalies=anomalies, watermarks=marks))]

    (opened,) = tracked(tracker, table, 0, [*CALM, 6])
    assert observe([opened], 10) == ["firing"]
    assert observe(tracker.mark(of(opened, "wrong"), BEGIN), 10) == []
    assert observe([], 15) == ["resolved"]
    assert observe(tracked(tracker, table, 11, [6] * 10), 21) == []
    again = tracked(tracker, table, 21, [*CALM, 6, *CALM])
    assert [a.suppressed for a in again] == [True] * len(again)
    assert observe(again, 60) == []
    tracker.mark(of(opened, "revoke"), BEGIN)
    assert observe(tracked(tracker, table, 60, [*CALM, 6]), 71) == ["firing"]


# The detect service --------------------------------------------------------------------------------

STREAM = MetricStream.model_validate({"metadata": {"name": "s"}, "spec": {"tenants": ["t"], "interval": "1m"}})
DETECTOR = AnomalyDetector.model_validate(
    {"metadata": {"name": "d"}, "spec": {"stream": "s", "model": {"kind": "ewma"}, "alerting": {"threshold": 0.7}}}
)
MINUTES = 400


def values() -> np.ndarray[Any, np.dtype[np.float64]]:
    """Noise in four series, with a spike in each of them every 40 minutes from 120 on."""
    made = 100 + np.random.default_rng(3).normal(0, 1, (MINUTES, len(KEYS)))
    made[120::40] += 14
    return made


class Played:
    """A detector and the records of its partition, one a minute, and words between them."""

    def __init__(self, detector: AnomalyDetector = DETECTOR) -> None:
        self.detector = detector
        self.table = SeriesTable()
        self.service = self._fresh()
        self.scores: list[ScoreFrame] = []
        self.told: list[Anomaly] = []

    def _fresh(self) -> DetectService:
        return DetectService(self.detector, STREAM, self.table, Telemetry(), ManualClock())

    def restart(self) -> None:
        """Go on in a process that numbers series otherwise."""
        state = self.service.snapshot()
        self.table = SeriesTable(reversed(KEYS))
        self.service = self._fresh()
        self.service.restore(state)

    def take(self, value: Frame | Feedback) -> None:
        for output in self.service.handle(Record("x.s.readings", 0, 0, "k", value)):
            if isinstance(output.value, ScoreFrame):
                self.scores.append(output.value)
            else:
                self.told += output.value.anomalies

    def minute(self, minute: int) -> None:
        series = self.table.ids_of(KEYS)
        at = np.full(len(KEYS), BEGIN + minute * MINUTE)
        self.take(Frame(self.table, series, at, values()[minute]))

    def all_scores(self) -> dict[str, Any]:
        return {
            name: np.concatenate([getattr(frame, name) for frame in self.scores]).tolist()
            for name in ("timestamp", "anomaly_score", "p_value", "flags")
        }


def play(
    words: dict[int, list[Feedback]], restarts: set[int] | None = None, detector: AnomalyDetector = DETECTOR
) -> Played:
    played = Played(detector)
    for minute in range(MINUTES):
        for each in words.get(minute, []):
            played.take(each)
        if minute in (restarts or ()):
            played.restart()
        played.minute(minute)
    return played


@pytest.fixture(scope="module")
def plain() -> Played:
    """Nobody says anything."""
    return play({})


def said_of(plain: Played) -> dict[int, list[Feedback]]:
    """Words on anomalies of three series: one of them while it is still open, one revoked, one followed by "right"."""
    spikes = {
        (a.series, round((a.onset - BEGIN) / MINUTE)): a for a in plain.told if a.state == "closed" and not a.suppressed
    }

    def on(key: SeriesKey, minute: int, verdict: str) -> Feedback:
        a = spikes[key, minute]
        return word(a.id, verdict, key=key, p_value=a.p_value, kind=a.kind, from_ms=a.onset, until_ms=a.end)

    return {
        140: [on(KEYS[0], 120, "wrong"), on(KEYS[1], 120, "wrong")],
        202: [on(KEYS[2], 200, "wrong")],
        260: [on(KEYS[1], 120, "revoke")],
        330: [on(KEYS[2], 320, "right")],
    }


def held_back(played: Played) -> set[tuple[str, int]]:
    return {(a.series.path, round((a.onset - BEGIN) / MINUTE)) for a in played.told if a.suppressed}


def test_words_take_effect_at_their_place_and_change_no_score(plain: Played) -> None:
    """Scores are the same to the last bit; like anomalies are held back between a word and the one that ends it."""
    spoken = play(said_of(plain))
    assert spoken.all_scores() == plain.all_scores()
    assert {a.id for a in spoken.told} == {a.id for a in plain.told}
    errors, latency, other, _ = (key.path for key in KEYS)
    assert held_back(spoken) == {
        (errors, 160), (latency, 160), (latency, 200), (latency, 240), (other, 200), (other, 240), (other, 280),
        (other, 320),
    }  # fmt: skip
    assert held_back(plain) == set()


@pytest.mark.parametrize("seed", range(6))
def test_restarts_change_nothing(plain: Played, seed: int) -> None:
    """With words in the snapshot and words still to come, whatever ids the next process gives."""
    words = said_of(plain)
    dice = random.Random(seed)
    restarts = {dice.randrange(MINUTES) for _ in range(6)} | {141, 203}
    calm, killed = play(words), play(words, restarts)
    assert killed.told == calm.told
    assert sorted(killed.all_scores()["p_value"]) == sorted(calm.all_scores()["p_value"])


@pytest.mark.parametrize("mode", ["shadow", "promoted"])
def test_a_candidate_hears_of_them_too(plain: Played, mode: str) -> None:
    """Whoever answers, the candidate with the same model or the champion, holds back the same, also after restarts."""
    spec = DETECTOR.spec.model_dump(mode="json", exclude_none=True, by_alias=True)
    spec["candidate"] = {"model": {"kind": "ewma", "ewma": {"halfLife": 31}}, "mode": mode}
    both = AnomalyDetector.model_validate({"metadata": {"name": "d"}, "spec": spec})
    words = said_of(plain)
    spoken, killed = play(words, detector=both), play(words, {141, 203, 245}, both)
    assert killed.told == spoken.told
    assert {("t/c/n0/latency", 160), ("t/c/n1/errors", 200), ("t/c/n1/errors", 240)} <= held_back(spoken)
    assert not {minute for path, minute in held_back(spoken) if path == "t/c/n0/latency" and minute > 260}
    revisions: dict[str, int] = {}
    for anomaly in spoken.told:
        assert anomaly.revision > revisions.get(anomaly.id, 0)
        revisions[anomaly.id] = anomaly.revision


def test_words_on_others_anomalies_are_not_this_detectors(plain: Played) -> None:
    """Every detector of the stream reads them; only the one that found the anomaly acts."""
    words = {
        minute: [msgspec.structs.replace(w, detector="e") for w in said] for minute, said in said_of(plain).items()
    }
    assert play(words).told == plain.told


def test_a_snapshot_of_before_there_was_feedback_restores() -> None:
    """A header that lacks it means that nothing was said."""
    from tidewarden.scoring.snapshots import pack, unpack

    played = Played()
    played.minute(0)
    header, arrays = unpack(played.service._scorer.snapshot())
    assert header.pop("feedback") == []
    played.service._scorer.restore(pack(header, arrays))


def test_it_travels_as_it_is() -> None:
    """Bytes on the bus and back, every field."""
    codec = Codec(SeriesTable())
    given_word = word("a", note="the backup, café")
    kind, data = codec.encode(given_word)
    assert (kind, codec.decode(kind, data)) == ("feedback", given_word)
