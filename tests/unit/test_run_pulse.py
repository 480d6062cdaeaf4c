"""Liveness: a thread that waits for a server is healthy, one that does not come back from its own code is not."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import TopicPartition
from tidewarden.clock import ManualClock, SystemClock
from tidewarden.frames import SeriesTable
from tidewarden.topics import Topic
from tidewarden_cli.run.pulse import Pulses, WatchedBus, watched
from tidewarden_services.api.peers import PeerBoard


class Server:
    """Something outside that answers after as long as the test wants."""

    def __init__(self, clock: ManualClock, takes_s: float) -> None:
        self.clock, self.takes_s = clock, takes_s
        self.seen: list[list[str]] = []
        self.pulses: Pulses | None = None

    def ask(self) -> int:
        self.clock.advance(self.takes_s)
        assert self.pulses is not None
        self.seen.append(self.pulses.stuck())
        return 7


def test_waiting_for_a_server_is_no_fault_however_long() -> None:
    """Within a call nothing is stuck; the time of the call does not count afterwards either."""
    clock = ManualClock()
    pulses = Pulses(clock, stuck_after_s=60)
    server = Server(clock, 3_600)
    server.pulses = pulses
    pulses.mine()
    assert watched(server, "the server", pulses).ask() == 7
    assert server.seen == [[]]
    assert pulses.stuck() == []


def test_a_worker_that_rests_after_a_request_is_not_stuck() -> None:
    """A thread of a pool calls a server and waits for the next request, for hours: the process stays alive."""
    clock = ManualClock()
    pulses = Pulses(clock, stuck_after_s=60)
    pulses.mine()
    server = Server(clock, 1)
    server.pulses = pulses
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(watched(server, "the server", pulses).ask).result(5) == 7
        clock.advance(7_200)
        pulses.mine().beat(clock.monotonic())
        assert pulses.stuck() == []


def test_a_thread_that_does_not_come_round_is_named() -> None:
    """After the bound, the complaint has the thread's name and for how long; a beat ends it."""
    clock = ManualClock()
    pulses = Pulses(clock, stuck_after_s=60)
    pulses.mine()
    clock.advance(59)
    assert pulses.stuck() == []
    clock.advance(12)
    assert pulses.stuck() == [f"{threading.current_thread().name} has not come round for 71 s"]
    pulses.mine().beat(clock.monotonic())
    assert pulses.stuck() == []


def test_who_asks_the_peers_says_each_round_that_it_lives() -> None:
    """Its thread calls nothing that is watched: without its word the API would be ended after three minutes."""
    rounds, stop = threading.Semaphore(0), threading.Event()
    board = PeerBoard("127.0.0.1:9", SystemClock(), rounds.release)
    thread = threading.Thread(target=board.run, args=(stop,))
    thread.start()
    try:
        assert rounds.acquire(timeout=30)
        assert rounds.acquire(timeout=30)
    finally:
        stop.set()
        thread.join(30)


def test_a_thread_that_has_ended_is_not_missed() -> None:
    """What a stage forgets at its end is not judged any more."""
    clock = ManualClock()
    pulses = Pulses(clock, stuck_after_s=60)
    pulses.mine()
    pulses.forget()
    clock.advance(600)
    assert pulses.stuck() == []


def test_partitions_are_known_once_their_state_is_restored() -> None:
    """The bus tells of partitions after the service has taken them over, and of their loss."""
    told: list[str] = []
    partitions: set[int] = set()

    class Service:
        def assigned(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
            assert not partitions, "told before the state was there"
            return {}

        def revoked(self, places: Collection[TopicPartition]) -> None: ...

        def lost(self, places: Collection[TopicPartition]) -> None: ...

    bus = MemoryBus(SeriesTable())
    bus.create([Topic("t", 3)])
    pulses = Pulses(ManualClock())
    watching = WatchedBus(bus, pulses, partitions, lambda: told.append("assigned"))
    consumer = watching.consumer(["t"], "g", member="m", assignment=Service())
    consumer.poll(1, 0.0)
    assert (partitions, told) == ({0, 1, 2}, ["assigned"])
    bus.close()


def test_a_member_that_gets_nothing_is_ready_too() -> None:
    """With more members than partitions the group's word counts, not a partition."""
    told: list[str] = []

    class Spare:
        joined = False

        def poll(self, max_records: int, timeout: float) -> list[object]:
            return []

    class Group:
        def consumer(self, topics: list[str], group: str, **_: object) -> Spare:
            return spare

    class Nobody:
        def assigned(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
            raise AssertionError("nothing is assigned")

        def revoked(self, places: Collection[TopicPartition]) -> None: ...

        def lost(self, places: Collection[TopicPartition]) -> None: ...

    spare = Spare()
    bus = WatchedBus(Group(), Pulses(ManualClock()), set(), lambda: told.append("joined"))  # type: ignore[arg-type]
    consumer = bus.consumer(["t"], "g", member="m", assignment=Nobody())
    consumer.poll(1, 0.0)
    assert told == []
    spare.joined = True
    consumer.poll(1, 0.0)
    consumer.poll(1, 0.0)
    assert told == ["joined"]
