"""Ingest over a real bus: what is published, what is kept, and that a kill at any point changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import BusClosedError
from tidewarden.clock import ManualClock
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.sources import Batch, Refused, SourceError
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics, partition_of
from tidewarden_services.ingest.service import IngestService

NOW = 1_700_000_000_000
STREAM = MetricStream.model_validate(
    {
        "kind": "MetricStream",
        "metadata": {"name": "s"},
        "spec": {"tenants": ["shop"], "interval": "1m", "metrics": [{"name": "m0", "max": 90.0}]},
    }
)


class KilledError(Exception):
    """Stands for kill -9: nothing after it runs."""


class Scripted:
    """Plays numbered batches with late, double, refused and broken readings; the position is the number."""

    kind = "file"

    def __init__(self, table: SeriesTable, batches: int = 12, name: str = "script", base: int = 0) -> None:
        self.name = name
        self._table = table
        self._count = batches
        self._base = base

    def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
        for number in range(0 if position is None else int(position), self._count):
            if stop.is_set():
                return
            yield self._batch(number)

    def _batch(self, number: int) -> Batch:
        rng = np.random.default_rng(number)
        keys = [SeriesKey("shop", "c", f"n{self._base + i % 5}", f"m{i % 2}") for i in range(20)]
        at = NOW + (number * 4 + rng.integers(-3, 4, 20)) * 20_000
        readings = Frame(self._table, self._table.ids_of(keys), at.astype(np.int64), rng.uniform(0, 100, 20))
        broken = [Refused("malformed", "broken on purpose", f"line {number}", raw="?")] * (number % 3 == 0)
        return Batch(readings, broken, position=str(number + 1), origin="script")

    def progress(self) -> tuple[int, int | None]:
        return 0, None


class MortalBus:
    """Passes everything on to a real bus, and dies at the ``fuse``-th publish: before it, or just after it."""

    def __init__(self, bus: MemoryBus, fuse: int, *, after: bool) -> None:
        self._bus = bus
        self._fuse = fuse
        self._after = after

    def __getattr__(self, name: str) -> object:
        return getattr(self._bus, name)

    def publish(self, *args: object, **options: object) -> int:
        self._fuse -= 1
        if self._fuse == 0 and not self._after:
            raise KilledError
        offset = self._bus.publish(*args, **options)
        if self._fuse == 0:
            raise KilledError
        return offset


class Slot:
    """Where a state is kept; ``every`` lets only some saves through, as a slow clock would."""

    def __init__(self, every: int = 1) -> None:
        self.state: bytes | None = None
        self.saves = 0
        self._every = every

    def load(self) -> bytes | None:
        return self.state

    def save(self, state: bytes) -> None:
        if self.saves % self._every == 0:
            self.state = state
        self.saves += 1


class TickingClock(ManualClock):
    """Every look at it takes half a second, so that a save falls due every few batches."""

    def monotonic(self) -> float:
        self.advance(0.1)
        return super().monotonic()


def everything(bus: MemoryBus, topics: StreamTopics) -> dict[str, list]:
    """What a reader that was there from the start would have seen, by name instead of by id."""
    seen: dict[str, list] = {}
    for purpose in ("readings", "rejected"):
        consumer = bus.consumer([topics.name(purpose)], f"look-{purpose}-{len(bus._consumers)}")
        while consumer.lag():
            for record in consumer.poll(100, 0):
                place = seen.setdefault(f"{purpose}/{record.partition}", [])
                if purpose == "readings":
                    f = record.value
                    rows = zip(f.series.tolist(), f.timestamp.tolist(), f.value.tolist(), strict=True)
                    told = (record.headers.get("position", "end"), record.headers.get("time"))
                    place.append((told, [(f.table[s].path, t, v) for s, t, v in rows]))
                else:
                    place.append([(r.id, r.reason, r.origin) for r in record.value])
        consumer.close()
    return seen


def service(bus: object, table: SeriesTable, slot: Slot, topics: StreamTopics, **options: object) -> IngestService:
    source = options.pop("source", None) or Scripted(table)
    clock = options.pop("clock", None) or TickingClock(NOW + 10**6)
    telemetry = options.pop("telemetry", None) or Telemetry()
    return IngestService(STREAM, source, bus, topics, table, clock, telemetry, slot.load, slot.save)


def run_whole(partitions: int) -> tuple[dict[str, list], dict]:
    table = SeriesTable()
    bus, topics, slot = MemoryBus(table), StreamTopics("local", "s", partitions), Slot()
    bus.create(topics.all())
    ingest = service(bus, table, slot, topics)
    ingest.run(threading.Event())
    assert ingest.finished
    return everything(bus, topics), counts(ingest)


def counts(ingest: IngestService) -> dict:
    facts = ingest.stats()
    return {name: facts[name] for name in ("accepted", "rejected", "rejected_by_reason", "late", "gaps", "newest_ms")}


def test_accepted_and_rejected_are_everything_that_was_sent() -> None:
    seen, facts = run_whole(1)
    readings = sum(len(rows) for _, rows in seen["readings/0"])
    rejections = [item for record in seen["rejected/0"] for item in record]
    assert readings + len(rejections) == 12 * 20 + 4
    assert facts["accepted"] == readings
    assert facts["rejected"] == len(rejections) == len({identity for identity, _, _ in rejections})
    assert set(facts["rejected_by_reason"]) == {"malformed", "duplicate", "too_late", "out_of_bounds"}


def test_partitions_keep_each_node_together_and_in_order() -> None:
    whole, _ = run_whole(1)
    seen, _ = run_whole(3)
    for partition in range(3):
        nodes = {path.rpartition("/")[0] for _, rows in seen.get(f"readings/{partition}", []) for path, _, _ in rows}
        assert all(partition_of(node, 3) == partition for node in nodes)
        expected = [row for _, rows in whole["readings/0"] for row in rows if row[0].rpartition("/")[0] in nodes]
        assert [row for _, rows in seen.get(f"readings/{partition}", []) for row in rows] == expected


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=5), st.integers(1, 4), st.sampled_from([1, 3]))
def test_kills_at_any_publish_change_no_record_and_no_count(
    fuses: list[tuple[int, bool]], save_every: int, partitions: int
) -> None:
    """Killed before or after any publish, with a state that may be old: the topics and the counts end up the same."""
    expected, expected_counts = run_whole(partitions)
    table = SeriesTable()
    bus, topics, slot = MemoryBus(table), StreamTopics("local", "s", partitions), Slot(save_every)
    bus.create(topics.all())
    for fuse, after in fuses:
        ingest = service(MortalBus(bus, fuse, after=after), table, slot, topics)
        try:
            ingest.run(threading.Event())
        except KilledError:
            continue
    final = service(bus, table, slot, topics)
    final.run(threading.Event())
    assert everything(bus, topics) == expected
    assert counts(final) == expected_counts


def test_a_journal_gives_a_new_process_what_it_needs(tmp_path: Path) -> None:
    topics, slot = StreamTopics("local", "s"), Slot(every=3)
    expected, expected_counts = run_whole(1)
    for fuse in (5, 7, 1000):
        table = SeriesTable([SeriesKey("z", "z", "z", str(fuse))])
        bus = MemoryBus(table, journal=tmp_path)
        bus.create(topics.all())
        ingest = service(MortalBus(bus, fuse, after=True), table, slot, topics)
        try:
            ingest.run(threading.Event())
        except KilledError:
            bus.close()
    assert counts(ingest) == expected_counts
    assert everything(bus, topics) == expected
    bus.close()


def test_two_sources_of_a_stream_do_not_mistake_each_other_for_themselves() -> None:
    table = SeriesTable()
    bus, topics = MemoryBus(table), StreamTopics("local", "s")
    bus.create(topics.all())
    slots = {"one": Slot(every=100), "two": Slot(every=100)}
    for name, base in (("one", 0), ("two", 10), ("one", 0), ("two", 10)):
        service(bus, table, slots[name], topics, source=Scripted(table, name=name, base=base)).run(threading.Event())
    whole, _ = run_whole(1)
    assert len(everything(bus, topics)["readings/0"]) == 2 * len(whole["readings/0"])


class Pushed(Scripted):
    """The same readings without positions: nobody can ask for them again."""

    kind = "push"

    def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
        for batch in super().batches(None, stop):
            batch.position = None
            yield batch


def test_a_push_source_sent_again_after_a_kill_is_recognised_as_duplicate() -> None:
    table = SeriesTable()
    bus, topics, slot = MemoryBus(table), StreamTopics("local", "s"), Slot(every=100)
    bus.create(topics.all())
    first = service(MortalBus(bus, 4, after=True), table, slot, topics, source=Pushed(table, 1))
    first.run(threading.Event())
    again = service(bus, table, slot, topics, source=Pushed(table, 1))
    again.run(threading.Event())
    assert again.stats()["accepted"] == first.stats()["accepted"]
    assert set(again.stats()["rejected_by_reason"]) <= {"malformed", "duplicate", "too_late", "out_of_bounds"}


def newest_times(bus: MemoryBus, topics: StreamTopics) -> dict[int, str]:
    """What each partition has heard of time last."""
    consumer, told = bus.consumer([topics.name("readings")], "times"), {}
    while consumer.lag():
        for record in consumer.poll(100, 0.0):
            if "ended" not in record.headers:
                told[record.partition] = record.headers["time"]
    consumer.close()
    return told


def pushed(partitions: int) -> tuple[SeriesTable, MemoryBus, StreamTopics]:
    table = SeriesTable()
    bus, topics = MemoryBus(table), StreamTopics("local", "s", partitions)
    bus.create(topics.all())
    return table, bus, topics


@pytest.mark.parametrize("before_the_last", range(1, 8))
def test_a_push_that_a_kill_cut_off_between_partitions_tells_all_of_them_the_time(before_the_last: int) -> None:
    """Where every reading had got through, but not the time to every partition, a restart tells the others."""
    table, whole, topics = pushed(12)
    counted = MortalBus(whole, 10**6, after=True)
    service(counted, table, Slot(every=100), topics, source=Pushed(table, 3)).run(threading.Event())
    publishes = 10**6 - counted._fuse - topics.partitions  # without those that say that the source has ended

    table, bus, topics = pushed(12)
    slot = Slot(every=100)
    with pytest.raises(KilledError):
        service(
            MortalBus(bus, publishes - before_the_last, after=True), table, slot, topics, source=Pushed(table, 3)
        ).run(threading.Event())
    service(bus, table, slot, topics, source=Pushed(table, 3)).run(threading.Event())
    assert newest_times(bus, topics) == newest_times(whole, topics)


def test_statistics_reach_the_board_and_the_counters() -> None:
    table, telemetry = SeriesTable(), Telemetry()
    bus, topics, slot = MemoryBus(table), StreamTopics("local", "s"), Slot()
    bus.create(topics.all())
    ingest = service(bus, table, slot, topics, telemetry=telemetry)
    ingest.run(threading.Event())
    facts = telemetry.board.read()["sources"]["s/script"]
    assert (facts["state"], facts["accepted"], facts["rejected"]) == (
        "finished",
        ingest.stats()["accepted"],
        ingest.stats()["rejected"],
    )
    labels = {"stream": "s", "source": "script"}
    assert telemetry.registry.get_sample_value("tidewarden_readings_total", labels) == facts["accepted"]
    refused = [
        telemetry.registry.get_sample_value("tidewarden_rejected_total", {**labels, "reason": reason})
        for reason in facts["rejected_by_reason"]
    ]
    assert sum(refused) == facts["rejected"]
    assert facts["success_rate"] == facts["accepted"] / (facts["accepted"] + facts["rejected"])


def test_a_source_that_cannot_go_on_says_so_and_ends() -> None:
    class Broken(Scripted):
        def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
            yield self._batch(0)
            raise SourceError("file x.csv is gone: put it back")

    table, telemetry = SeriesTable(), Telemetry()
    bus, topics, slot = MemoryBus(table), StreamTopics("local", "s"), Slot()
    bus.create(topics.all())
    ingest = service(bus, table, slot, topics, source=Broken(table), telemetry=telemetry)
    ingest.run(threading.Event())
    assert ingest.finished
    assert ingest.error == "file x.csv is gone: put it back"
    assert telemetry.board.read()["sources"]["s/script"]["state"] == "failed"


def test_a_source_that_shrank_is_an_error_not_a_silence() -> None:
    table = SeriesTable()
    bus, topics, slot = MemoryBus(table), StreamTopics("local", "s"), Slot(every=100)
    bus.create(topics.all())
    service(bus, table, slot, topics).run(threading.Event())
    shrunk = service(bus, table, slot, topics, source=Scripted(table, 3))
    shrunk.run(threading.Event())
    assert shrunk.error is not None
    assert "another name" in shrunk.error


def test_a_closed_bus_ends_the_service_quietly() -> None:
    table = SeriesTable()
    bus, topics, slot = MemoryBus(table), StreamTopics("local", "s"), Slot()
    bus.create(topics.all())

    class Closing(Scripted):
        def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
            bus.close()
            yield self._batch(0)

    service(bus, table, slot, topics, source=Closing(table)).run(threading.Event())
    with pytest.raises(BusClosedError):
        bus.publish(topics.name("readings"), [], key="x")
