"""Liveness: which thread has been at its own work for too long.

A stage that waits for Kafka, Elasticsearch or a source is healthy however long that takes: ending the
process would help nobody. One that has not come back from its own code is not. So what a stage calls is
wrapped: while a call is out, its thread is waiting; between two calls, its thread is at work, and the
time since the last call ended is what is judged.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

from tidewarden.bus.port import Assignment, Bus, Consumer, Record, TopicPartition
from tidewarden.clock import Clock

# A round is 64 records of 10,000 readings at most, about a second of scoring; compiling every kernel for the
# first time takes a slow machine about a minute, and happens only where the image has not done it before.
STUCK_AFTER_S = 180.0

T = TypeVar("T")


class Pulse:
    """The pulse of one thread."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self._since = now
        self._waiting_for: list[str] = []  # calls may be nested: a poll hands partitions over, which loads state

    def beat(self, now: float) -> None:
        """The thread has come round once more."""
        self._since = now

    @contextlib.contextmanager
    def waiting(self, what: str, clock: Clock) -> Iterator[None]:
        """While this lasts, the thread waits for something outside."""
        self._waiting_for.append(what)
        try:
            yield
        finally:
            self._waiting_for.pop()
            self._since = clock.monotonic()

    def at_work_s(self, now: float) -> float:
        """For how long it has been in its own code; 0 while it waits."""
        return 0.0 if self._waiting_for else now - self._since


class Pulses:
    """The pulses of a process's threads, by thread."""

    def __init__(self, clock: Clock, stuck_after_s: float = STUCK_AFTER_S) -> None:
        self._clock = clock
        self._stuck_after_s = stuck_after_s
        self._lock = threading.Lock()
        self._pulses: dict[int, Pulse] = {}

    def mine(self) -> Pulse:
        """The pulse of the calling thread, which is judged from the first call until `forget`."""
        thread = threading.current_thread()
        ident = thread.ident
        assert ident is not None
        pulse = self._pulses.get(ident)
        if pulse is None or pulse.name != thread.name:  # the system gives idents of dead threads out again
            pulse = Pulse(thread.name, self._clock.monotonic())
            with self._lock:
                self._pulses[ident] = pulse
        return pulse

    def forget(self) -> None:
        """The calling thread ends here."""
        with self._lock:
            self._pulses.pop(threading.current_thread().ident or 0, None)

    def stuck(self) -> list[str]:
        """Names of the threads that have been at their own work for too long, and for how long."""
        now = self._clock.monotonic()
        with self._lock:
            pulses = list(self._pulses.values())
        ages = [(pulse.name, pulse.at_work_s(now)) for pulse in pulses]
        return [f"{name} has not come round for {age:.0f} s" for name, age in ages if age > self._stuck_after_s]

    def waiting(self, what: str) -> contextlib.AbstractContextManager[None]:
        """The calling thread waits for ``what`` while this lasts.

        A thread that has no pulse yet gets none: workers of a pool, which answer requests of people, call Kafka and
        Elasticsearch, too, and then rest until the next request; nobody may take them for stuck.
        """
        thread = threading.current_thread()
        pulse = self._pulses.get(thread.ident or 0)
        if pulse is None or pulse.name != thread.name:
            return contextlib.nullcontext()
        return pulse.waiting(what, self._clock)


def watched(target: T, what: str, pulses: Pulses) -> T:
    """``target`` with every method call counted as waiting for ``what``.

    What a method returns is handed on as it is; a consumer or an iterator of it is watched where it is made.
    """
    return cast(T, _Watched(target, what, pulses))


class _Watched:
    """Forwards everything; calls are noted in the pulse of the thread that makes them."""

    def __init__(self, target: Any, what: str, pulses: Pulses) -> None:
        self._target = target
        self._what = what
        self._pulses = pulses

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute):
            return attribute
        what, pulses = self._what, self._pulses

        def call(*args: Any, **kwargs: Any) -> Any:
            with pulses.waiting(what):
                return attribute(*args, **kwargs)

        self.__dict__[name] = call  # the next call finds it without coming here
        return call


class WatchedBus(_Watched):
    """A bus whose calls count as waiting for Kafka, and which tells of the partitions that its consumers get.

    Args:
        bus: the real one.
        pulses: of the process.
        partitions: kept up to date with what is assigned to consumers that share their topic with other processes.
        on_assigned: called when partitions have been taken over, their state restored, or when there are none left
            for this member.
    """

    def __init__(self, bus: Bus, pulses: Pulses, partitions: set[int], on_assigned: Callable[[], None]) -> None:
        super().__init__(bus, "kafka", pulses)
        self._partitions = partitions
        self._on_assigned = on_assigned

    def consumer(
        self, topics: Sequence[str], group: str, *, member: str | None = None, assignment: Assignment | None = None
    ) -> Consumer:
        """A watched consumer of the bus."""
        if assignment is None:
            return cast(Consumer, _Watched(self._target.consumer(topics, group), self._what, self._pulses))
        noted = _Noted(assignment, self._partitions, self._on_assigned)
        consumer = self._target.consumer(topics, group, member=member, assignment=noted)
        return cast(Consumer, _Member(consumer, self._what, self._pulses, self._on_assigned))


class _Member(_Watched):
    """A consumer that shares its topic; a member that the group has nothing for is ready, too."""

    def __init__(self, consumer: Any, what: str, pulses: Pulses, on_joined: Callable[[], None]) -> None:
        super().__init__(consumer, what, pulses)
        self._on_joined = on_joined
        self._told = False

    def poll(self, max_records: int, timeout: float) -> list[Record]:
        """As the consumer's; tells once that the group has taken it in."""
        with self._pulses.waiting(self._what):
            records: list[Record] = self._target.poll(max_records, timeout)
        if not self._told and getattr(self._target, "joined", False):
            self._told = True
            self._on_joined()
        return records


class _Noted:
    """An assignment that keeps book of what is assigned."""

    def __init__(self, inner: Assignment, partitions: set[int], on_assigned: Callable[[], None]) -> None:
        self._inner = inner
        self._partitions = partitions
        self._on_assigned = on_assigned

    def assigned(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        offsets = self._inner.assigned(places)
        self._partitions |= {place.partition for place in places}
        self._on_assigned()
        return offsets

    def revoked(self, places: Collection[TopicPartition]) -> None:
        self._inner.revoked(places)
        self._partitions -= {place.partition for place in places}

    def lost(self, places: Collection[TopicPartition]) -> None:
        self._inner.lost(places)
        self._partitions -= {place.partition for place in places}
