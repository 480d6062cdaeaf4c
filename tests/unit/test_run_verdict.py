"""A simulation's end: when it is judged, what it says meanwhile, and what happens when nothing moves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from tidewarden.bus.port import TopicPartition
from tidewarden.clock import ManualClock
from tidewarden.evaluate.report import Evaluation
from tidewarden.store.memory import MemoryStore
from tidewarden.store.port import StoreUnavailableError, WriteBatch
from tidewarden.topics import StreamTopics
from tidewarden_cli.run.pulse import Pulses
from tidewarden_cli.run.verdict import NO_PROGRESS_S, NoProgressError, Through, Verdict

TOPICS = StreamTopics("local", "shop", 2)
READINGS = {TopicPartition("local.shop.readings", 0): 10, TopicPartition("local.shop.readings", 1): 0}
SCORES = {TopicPartition("local.shop.scores", 0): 8}
RESULT = Evaluation(
    detector="watch", simulation="fleet", precision=1 / 3, recall=1.0, f1=0.5, vus_pr=0.5, auc_pr=0.5,
    delay_median_s=60.0, false_alarms_per_day=0.1, events=4, detected=4, false_alarms=8,
    series=2, readings=100, learning=10,
)  # fmt: skip


class Group:
    """Positions of a detector's group, a few records further at each look."""

    def __init__(self, step: int) -> None:
        self.at, self.step = 0, step

    def ends(self, topics: list[str]) -> dict[TopicPartition, int]:
        return {place: end for place, end in (READINGS | SCORES).items() if place.topic in topics}

    def committed(self, group: str, topics: list[str]) -> dict[TopicPartition, int]:
        assert group == "local.detect.watch"
        self.at += self.step
        return {TopicPartition("local.shop.readings", 0): self.at}


class AwayStore(MemoryStore):
    """A store that is away for the first looks."""

    def __init__(self, away: int) -> None:
        super().__init__()
        self.away = away

    def offsets(self, stream: str) -> dict[TopicPartition, int]:
        if self.away:
            self.away -= 1
            raise StoreUnavailableError("Elasticsearch is away")
        return super().offsets(stream)


def through(clock: ManualClock, group: Group, store: MemoryStore) -> Through:
    return Through(TOPICS, {"watch": "local.detect.watch"}, group, store, clock, (StoreUnavailableError,))


def test_it_waits_for_detectors_then_for_the_archive() -> None:
    """Judged only when every reading is scored and every score is stored; a store that is away is waited for."""
    clock, store, said = ManualClock(), AwayStore(away=3), list[str]()
    store.write(WriteBatch("shop", offsets=READINGS | SCORES))
    assert through(clock, Group(step=4), store).wait(threading.Event(), said.append)
    assert said[0] == "waiting for AnomalyDetector/watch: 4 of 10 records"
    assert said[-1] == "Elasticsearch is away"


@pytest.mark.parametrize(("step", "stored", "who"), [(0, True, "AnomalyDetector/watch"), (10, False, "the archive")])
def test_what_does_not_move_is_named(step: int, stored: bool, who: str) -> None:
    """After the bound: who is waited for, how far it is, and where to look."""
    clock, store = ManualClock(), MemoryStore()
    store.write(WriteBatch("shop", offsets=READINGS | SCORES if stored else {}))
    began = clock.monotonic()
    with pytest.raises(NoProgressError, match=rf"{who}.* has not got past 0 of 1\d records for 300 s: see"):
        through(clock, Group(step), store).wait(threading.Event(), lambda _: None)
    assert NO_PROGRESS_S < clock.monotonic() - began < NO_PROGRESS_S + 5


def test_a_stop_ends_the_waiting() -> None:
    """SIGTERM while waiting is no verdict."""
    stop = threading.Event()
    clock, group = ManualClock(), Group(step=0)

    def say(_: str) -> None:
        stop.set()

    assert not through(clock, group, MemoryStore()).wait(stop, say)


class Play:
    """A simulation that has been played after a few looks."""

    def __init__(self, clock: ManualClock, *, error: str | None = None, total: int | None = 100) -> None:
        self.clock, self.error, self.total = clock, error, total
        self.looks = 0
        self.facts: list[dict[str, Any]] = []
        self.ended: list[tuple[int, dict[str, Any]]] = []
        self.judged: list[int | None] = []

    def finished(self) -> bool:
        self.looks += 1
        return self.looks > 3 and self.error is None

    def failed(self) -> str | None:
        return self.error if self.looks > 3 else None

    def evaluate(self, since: int | None) -> list[Evaluation]:
        self.judged.append(since)
        return [RESULT]

    def post(self, **facts: Any) -> None:
        self.facts.append(facts)

    def verdict(self, through: Through) -> Callable[[threading.Event], None]:
        return Verdict(
            finished=self.finished, failed=self.failed, through=through, evaluate=self.evaluate,
            progress=lambda: (min(self.looks * 30, 100), self.total), newest_ms=lambda: 100_000_000, post=self.post,
            finish=lambda code, words: self.ended.append((code, words)), clock=self.clock, pulses=Pulses(self.clock),
        ).run  # fmt: skip


def test_the_evaluation_is_posted_and_ends_the_process() -> None:
    """Board and last words carry the figures, rounded; the exit code is 0."""
    clock, store = ManualClock(), MemoryStore()
    store.write(WriteBatch("shop", offsets=READINGS | SCORES))
    play = Play(clock)
    play.verdict(through(clock, Group(step=5), store))(threading.Event())
    ((code, words),) = play.ended
    assert (code, words["played"], words["total"]) == (0, 100, 100)
    assert words["evaluation"][0]["precision"] == 0.3333
    assert play.facts[-1]["state"] == "finished"
    assert play.facts[-1]["evaluation"] == words["evaluation"]
    assert [facts["state"] for facts in play.facts][:1] == ["running"]
    assert "evaluating" in [facts["state"] for facts in play.facts]


def test_a_play_that_fails_ends_with_its_reason() -> None:
    """Exit code 1, the reason on the board and in the last words, no evaluation."""
    clock = ManualClock()
    play = Play(clock, error="the recording is gone")
    play.verdict(through(clock, Group(step=5), MemoryStore()))(threading.Event())
    assert play.ended == [(1, {"error": "the recording is gone", "played": 100, "total": 100})]
    assert (play.facts[-1]["state"], play.facts[-1]["message"]) == ("failed", "the recording is gone")
    assert play.judged == []


def test_an_endless_simulation_is_judged_over_its_last_day_again_and_again() -> None:
    """Once a minute, over what was played in the last day; the board keeps the newest figures."""
    clock, stop = ManualClock(), threading.Event()
    play = Play(clock, total=None)
    play.finished = lambda: False  # type: ignore[method-assign]
    run = play.verdict(through(clock, Group(step=5), MemoryStore()))
    judge = play.evaluate

    def evaluate(since: int | None) -> list[Evaluation]:
        if len(play.judged) == 2:
            stop.set()
        return judge(since)

    play.evaluate = evaluate  # type: ignore[method-assign]
    run = play.verdict(through(clock, Group(step=5), MemoryStore()))
    run(stop)
    assert play.judged == [100_000_000 - 86_400_000] * 3
    assert play.facts[-1]["evaluation"][0]["recall"] == 1.0
    assert play.ended == []
