"""One suite for every bus: order, offsets, groups, back-pressure, and what a killed process finds again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from tidewarden.bus.journal import JournalError, PartitionJournal
from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import Bus, BusClosedError, Consumer, Record, TopicPartition
from tidewarden.events import AnomalyBatch, Rejection
from tidewarden.frames import Frame, NodeKey, RollupFrame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.settings import KafkaSettings
from tidewarden.topics import Topic

TOPIC = "local.shop.readings"
PLACE = TopicPartition(TOPIC, 0)
WAIT_S = 30  # for what takes milliseconds on an idle machine

MakeBus = Callable[[], Bus]
_numbers = count()


def batch(number: int) -> AnomalyBatch:
    return AnomalyBatch(detector="d", anomalies=[], watermarks={"shop": number})


def number_of(value: AnomalyBatch) -> int:
    return value.watermarks["shop"]


def read(consumer: Consumer, expected: int) -> list[Record]:
    """Poll until so many records have come."""
    records: list[Record] = []
    deadline = time.monotonic() + WAIT_S
    while len(records) < expected and time.monotonic() < deadline:
        records += consumer.poll(expected - len(records), 1)
    return records


@pytest.fixture(params=["memory", "journaled", pytest.param("kafka", marks=pytest.mark.kafka)])
def make_bus(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A factory of buses; a journaled one made twice finds the same records again, and so does Kafka."""
    made: list[Bus] = []
    if request.param == "kafka":
        from tidewarden.bus.kafka.bus import KafkaBus

        server = request.getfixturevalue("kafka_server")
        settings = KafkaSettings(bootstrap_servers=server.address)
        number = next(_numbers)  # all tests share the server: each has its own topic and groups
        monkeypatch.setattr(request.module, "TOPIC", f"suite-{number}.shop.readings")
        monkeypatch.setattr(request.module, "PLACE", TopicPartition(TOPIC, 0))

    def make() -> Bus:
        bus: Bus
        if request.param == "kafka":
            bus = KafkaBus(settings, SeriesTable(), client_id="suite", namespace=f"suite-{number}")
        else:
            bus = MemoryBus(SeriesTable(), journal=tmp_path if request.param == "journaled" else None)
        bus.create([Topic(TOPIC, 2)])
        made.append(bus)
        return bus

    yield make
    for bus in made:
        bus.close()


def fill(bus: Bus, numbers: int = 5) -> None:
    """So many records in partition 0, for everybody to see."""
    for number in range(numbers):
        bus.publish(TOPIC, batch(number), key="k")
    bus.sync()


def test_records_come_back_in_order_with_key_headers_and_offset(make_bus: MakeBus) -> None:
    """What was published is read in order, each record with its own key, headers and offset."""
    bus = make_bus()
    for number in range(5):
        assert bus.publish(TOPIC, batch(number), key=f"k{number}", headers={"producer": "p"}) in {number, None}
    records = read(bus.consumer([TOPIC], "g"), 5)
    assert [number_of(r.value) for r in records] == [0, 1, 2, 3, 4]
    assert [r.offset for r in records] == [0, 1, 2, 3, 4]
    assert [r.key for r in records] == [f"k{n}" for n in range(5)]
    assert records[3].headers == {"producer": "p"}
    assert records[3].place == PLACE


def test_every_kind_of_value_comes_back_as_it_was(make_bus: MakeBus) -> None:
    """Frames, scores, rollups, anomalies, alerts and rejections arrive whole, also in a process with other ids."""
    bus = make_bus()
    key = SeriesKey("shop", "eu", "n1", "latency")
    table = bus._table  # type: ignore[attr-defined]
    table.ids_of([SeriesKey("x", "x", "x", "x"), key])
    ones, zeros = np.ones(2), np.zeros(2, np.uint8)
    series, instants = np.ones(2, np.int32), np.array([60_000, 120_000])
    scores = ScoreFrame(table, "d", "auto/1", series, instants, ones, ones, ones, ones, ones, ones, zeros, zeros)
    rollup = RollupFrame("d", [NodeKey("shop", "", "")], zeros.astype(np.int32), instants, ones, series, ones)
    rejection = Rejection(id="1", stream="s", source="p", reason="malformed", detail="d", origin="o", received_at=1)
    for value in (Frame(table, series, instants, np.array([1.5, np.nan])), scores, rollup, [rejection]):
        bus.publish(TOPIC, value, key="k")
    bus.sync()
    reader = bus if isinstance(bus, MemoryBus) else make_bus()  # the latter as in another process
    frame_, scores_, rollup_, rejections = (r.value for r in read(reader.consumer([TOPIC], "kinds"), 4))
    assert np.array_equal(frame_.value, [1.5, np.nan], equal_nan=True)
    assert [frame_.table[int(i)] for i in frame_.series] == [key, key]
    assert scores_.timestamp.tolist() == [60_000, 120_000]
    assert scores_.model_version == "auto/1"
    assert rollup_.scopes == [NodeKey("shop", "", "")]
    assert rejections == [rejection]


def test_poll_returns_at_most_what_was_asked_for_and_nothing_when_all_is_read(make_bus: MakeBus) -> None:
    """A poll is bounded, an empty one ends after its timeout, and the lag says what is left."""
    bus = make_bus()
    fill(bus)
    consumer = bus.consumer([TOPIC], "g")
    assert consumer.lag() == 5
    assert len(read(consumer, 3)) == 3
    assert consumer.lag() == 2
    assert len(read(consumer, 2)) == 2
    assert consumer.poll(3, 0.01) == []
    assert consumer.lag() == 0
    fill(bus, 1)
    assert consumer.lag() == 1


def test_what_is_known_of_the_lag_is_told_without_asking_the_bus(
    make_bus: MakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gauges get a lag at once: some while nothing has been heard, what is left while reading, 0 after the last."""

    def asked(*_: object) -> None:
        raise AssertionError("asked Kafka, whose answer waits behind the fetch that waits there for records")

    bus = make_bus()
    fill(bus)
    consumer = bus.consumer([TOPIC], "g")
    monkeypatch.setattr(consumer, "_ends", asked, raising=False)
    assert consumer.known_lag() > 0
    assert len(read(consumer, 3)) == 3
    assert consumer.known_lag() >= 2
    assert len(read(consumer, 2)) == 2
    deadline = time.monotonic() + WAIT_S
    while consumer.known_lag() and time.monotonic() < deadline:  # until each partition has been heard of
        assert consumer.poll(3, 0.1) == []
    assert consumer.known_lag() == 0


def test_groups_do_not_see_each_other(make_bus: MakeBus) -> None:
    """Every group reads every record."""
    bus = make_bus()
    first, second = bus.consumer([TOPIC], "a"), bus.consumer([TOPIC], "b")
    bus.publish(TOPIC, batch(1), key="k")
    assert [number_of(r.value) for r in read(first, 1)] == [1]
    assert [number_of(r.value) for r in read(second, 1)] == [1]


def test_a_group_goes_on_where_it_committed(make_bus: MakeBus) -> None:
    """A reader that left and came back starts at its committed offset, not where it had polled to."""
    bus = make_bus()
    fill(bus)
    consumer = bus.consumer([TOPIC], "g")
    assert len(read(consumer, 4)) == 4
    consumer.commit({PLACE: 2})
    consumer.close()
    again = bus.consumer([TOPIC], "g")
    assert [number_of(r.value) for r in read(again, 3)] == [2, 3, 4]


def test_seek_goes_back_to_what_is_not_committed(make_bus: MakeBus) -> None:
    """A restored snapshot may read again what was polled after it was taken."""
    bus = make_bus()
    consumer = bus.consumer([TOPIC], "g")
    fill(bus)
    assert len(read(consumer, 5)) == 5
    consumer.seek({PLACE: 1})
    assert [number_of(r.value) for r in read(consumer, 4)] == [1, 2, 3, 4]


def test_a_seek_past_the_end_goes_on_at_the_end(make_bus: MakeBus) -> None:
    """A snapshot that is ahead of its bus, whose files were lost, does not make the reader skip what comes."""
    bus = make_bus()
    consumer = bus.consumer([TOPIC], "g")
    consumer.seek({PLACE: 1000})
    assert consumer.lag() == 0
    bus.publish(TOPIC, batch(7), key="k")
    assert [number_of(r.value) for r in read(consumer, 1)] == [7]


def test_whoever_has_state_is_told_which_partitions_are_its_own_and_says_where_to_begin(make_bus: MakeBus) -> None:
    """The first poll hands the partitions over, and reading begins where the owner of their state says."""
    bus = make_bus()
    fill(bus)

    class Owner:
        places: tuple[TopicPartition, ...] = ()

        def assigned(self, places: Collection[TopicPartition]) -> dict[TopicPartition, int]:
            self.places = tuple(sorted(places))
            return {PLACE: 3}

        def revoked(self, places: Collection[TopicPartition]) -> None:
            self.places = tuple(set(self.places) - set(places))

        lost = revoked

    owner = Owner()
    consumer = bus.consumer([TOPIC], "g", member="one", assignment=owner)
    assert consumer.lag() > 0
    records = read(consumer, 2)
    assert owner.places == (PLACE, TopicPartition(TOPIC, 1))
    assert [number_of(r.value) for r in records] == [3, 4]
    assert consumer.lag() == 0
    consumer.close()


def test_partitions_are_apart(make_bus: MakeBus) -> None:
    """Each partition has its own offsets and its own newest record."""
    bus = make_bus()
    bus.publish(TOPIC, batch(1), key="k", partition=0)
    bus.publish(TOPIC, batch(2), key="k", partition=1, headers={"producer": "p"})
    bus.sync()
    assert bus.ends(TOPIC) == {PLACE: 1, TopicPartition(TOPIC, 1): 1}
    newest = bus.last(TOPIC, 1, "p")
    assert newest is not None
    assert newest.offset == 0
    assert newest.headers == {"producer": "p"}
    assert bus.last(TOPIC, 0, "p") is None
    assert bus.last(TOPIC, 1, "p", since=1) is None


def test_a_topic_exists_with_at_least_the_partitions_asked_for(make_bus: MakeBus) -> None:
    """Making a topic twice is nothing, more partitions than it has are refused, an unknown topic is an error."""
    bus = make_bus()
    bus.create([Topic(TOPIC, 2), Topic(TOPIC, 1)])
    with pytest.raises(ValueError, match=f"topic {TOPIC} has 2 partitions, 3 are asked for"):
        bus.create([Topic(TOPIC, 3)])
    with pytest.raises(KeyError, match="partition 2"):
        bus.publish(TOPIC, batch(1), key="k", partition=2)
    with pytest.raises(KeyError, match="create it first"):
        bus.consumer(["local.shop.unknown"], "g")


def test_a_closed_bus_wakes_whoever_waits(make_bus: MakeBus) -> None:
    """Nobody hangs at shutdown: a waiting reader gets BusClosedError."""
    bus = make_bus()
    consumer = bus.consumer([TOPIC], "g")
    outcome: list[str] = []

    def wait() -> None:
        try:
            consumer.poll(1, 60)
        except BusClosedError:
            outcome.append("woken")

    reader = threading.Thread(target=wait)
    reader.start()
    bus.close()
    reader.join(10)
    assert outcome == ["woken"]


def test_a_publisher_waits_for_a_slow_reader_and_loses_nothing(tmp_path: Path) -> None:
    """With room for 100 rows, 1,000 rows go through one slow reader, in order, none dropped."""
    table = SeriesTable([SeriesKey("t", "c", "n", "m")])
    for journal in (None, tmp_path / "j"):
        bus = MemoryBus(table, journal=journal, capacity_rows=100)
        bus.create([Topic(TOPIC, 1)])
        consumer = bus.consumer([TOPIC], "g")
        highest_lag = 0

        def publish(bus: MemoryBus = bus) -> None:
            for n in range(100):
                bus.publish(TOPIC, frame(table, n * 10, 10), key="k")

        writer = threading.Thread(target=publish)
        writer.start()
        seen: list[int] = []
        while len(seen) < 1000:
            for record in consumer.poll(3, 5):
                highest_lag = max(highest_lag, consumer.lag())
                seen += record.value.timestamp.tolist()
            consumer.commit({PLACE: record.offset + 1})
        writer.join(10)
        assert seen == list(range(1000))
        assert highest_lag <= 11
        bus.close()


def frame(table: SeriesTable, start: int, n: int) -> Frame:
    return Frame(table, np.zeros(n, np.int32), np.arange(start, start + n), np.arange(n) / 7)


@pytest.mark.timeout(30)
def test_sync_does_not_wait_for_a_waiting_publisher(tmp_path: Path) -> None:
    """A reader may sync while a publisher waits for that reader: neither waits for ever."""
    table = SeriesTable([SeriesKey("t", "c", "n", "m")])
    bus = MemoryBus(table, journal=tmp_path, capacity_rows=10)
    bus.create([Topic(TOPIC, 1)])
    consumer = bus.consumer([TOPIC], "g")
    writer = threading.Thread(target=lambda: [bus.publish(TOPIC, frame(table, n, 10), key="k") for n in range(3)])
    writer.start()
    seen = 0
    while seen < 3:
        bus.sync()
        seen += len(consumer.poll(1, 1))
    writer.join(10)
    assert not writer.is_alive()
    bus.close()


def test_a_new_process_reads_the_journal_on(tmp_path: Path) -> None:
    """Frames published before a kill are there for the next process, from any offset, whatever its series ids."""
    table = SeriesTable([SeriesKey("t", "c", "n", "m"), SeriesKey("t", "c", "n", "other")])
    bus = MemoryBus(table, journal=tmp_path)
    bus.create([Topic(TOPIC, 1)])
    for n in range(10):
        bus.publish(TOPIC, frame(table, n * 10, 10), key="k", headers={"producer": "p", "position": str(n)})
    # no close: the process is gone

    other = SeriesTable([SeriesKey("x", "x", "x", "x")])
    after = MemoryBus(other, journal=tmp_path)
    after.create([Topic(TOPIC, 1)])
    newest = after.last(TOPIC, 0, "p")
    assert newest is not None
    assert newest.headers["position"] == "9"
    consumer = after.consumer([TOPIC], "g")
    consumer.seek({PLACE: 4})
    after.publish(TOPIC, frame(other, 100, 10), key="k")
    records = consumer.poll(100, 1)
    assert [r.offset for r in records] == list(range(4, 11))
    assert np.concatenate([r.value.timestamp for r in records]).tolist() == list(range(40, 110))
    assert other[int(records[0].value.series[0])] == SeriesKey("t", "c", "n", "m")
    after.close()
    bus.close()


def test_a_torn_last_entry_is_cut_off(tmp_path: Path) -> None:
    """However many bytes of the last entry reached the disk, the journal opens with all entries before it."""
    journal = PartitionJournal(tmp_path)
    for n in range(3):
        journal.append("k", {}, "x", b"payload %d" % n)
    journal.close()
    path = next(tmp_path.glob("*.log"))
    whole = path.read_bytes()
    entry_bytes = whole.index(b"payload 2") - whole.index(b"payload 1")
    for cut in range(1, entry_bytes):
        path.write_bytes(whole[:-cut])
        again = PartitionJournal(tmp_path)
        assert [e.data for e in again.read(0)] == [b"payload 0", b"payload 1"]
        assert again.append("k", {}, "x", b"after") == 2
        assert [e.data for e in again.read(1)] == [b"payload 1", b"after"]
        again.close()


def test_damage_in_the_middle_is_an_error(tmp_path: Path) -> None:
    """A flipped byte before the end is never skipped over in silence."""
    journal = PartitionJournal(tmp_path)
    for n in range(3):
        journal.append("k", {}, "x", b"payload %d" % n)
    journal.close()
    path = next(tmp_path.glob("*.log"))
    content = bytearray(path.read_bytes())
    content[content.index(b"payload 0")] ^= 1
    path.write_bytes(content)
    with pytest.raises(JournalError, match="damaged at byte"):
        PartitionJournal(tmp_path)


def test_segments_are_removed_once_every_group_is_past_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal stays small, and still knows how far each producer had come."""
    monkeypatch.setattr("tidewarden.bus.journal.SEGMENT_BYTES", 400)
    bus = MemoryBus(journal=tmp_path)
    bus.create([Topic(TOPIC, 1)])
    fast, slow = bus.consumer([TOPIC], "fast"), bus.consumer([TOPIC], "slow")
    bus.publish(TOPIC, batch(0), key="k", headers={"producer": "early", "position": "0"})
    for number in range(1, 60):
        bus.publish(TOPIC, batch(number), key="k")
    segments = len(list(tmp_path.rglob("*.log")))
    assert segments > 5
    fast.poll(100, 1)
    fast.commit({PLACE: 60})
    assert len(list(tmp_path.rglob("*.log"))) == segments
    slow.poll(100, 1)
    slow.commit({PLACE: 60})
    assert len(list(tmp_path.rglob("*.log"))) == 1
    bus.close()

    again = MemoryBus(journal=tmp_path)
    again.create([Topic(TOPIC, 1)])
    early = again.last(TOPIC, 0, "early")
    assert early is not None
    assert early.headers["position"] == "0"
    assert again.ends(TOPIC) == {PLACE: 60}
    again.close()
