"""The runtime: poll → handle → publish → snapshot → commit, once, for every service.

Order of a round, and why a kill at any point changes nothing:

1. poll records;
2. for each record: `Service.handle`, then publish each output with the headers ``producer`` (the
   service) and ``input`` (topic/partition/offset of the record it answers);
3. every few seconds: sync the bus, save the snapshot together with the offsets that it contains;
4. commit these offsets to the bus, which may now forget what came before them.

A new process restores the snapshot and seeks to its offsets (3), so every record after it is handled
again and gives the same outputs (2). Those that the topics already hold are recognised by the
``input`` header of the newest record of this producer, and left out: nothing lost, nothing doubled.
Killed between 3 and 4: the commit only lets go of old records, so a late one is harmless.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import msgspec
import structlog

from tidewarden.bus.port import Bus, BusClosedError, Consumer, Record, TopicPartition
from tidewarden.clock import Clock
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Purpose, StreamTopics, partition_of
from tidewarden_services.contract import Service
from tidewarden_services.state import StateStore

POLL_RECORDS = 64  # at 10,000 readings a record about a second of work: a stop is never far
POLL_TIMEOUT_S = 0.2
SNAPSHOT_EVERY_S = 2.0  # what a restart has to replay at most, unless snapshots are large
SNAPSHOT_SHARE = 0.05  # of the time may go into snapshots: a slow one is taken more rarely

log = structlog.get_logger()


class Snapshot(msgspec.Struct):
    """What is saved: the service's state and the offsets it contains."""

    version: int
    offsets: dict[str, int]
    state: bytes


class Runner:
    """Runs one service in the calling thread until it is told to stop.

    Args:
        service: the state machine to run.
        stream: names the topics.
        bus: where its inputs come from and its outputs go to.
        state: where its snapshots go.
        telemetry: for its counters.
        clock: for durations.
        on_published: called with the record handled after its outputs are on the bus.
    """

    def __init__(
        self,
        service: Service,
        *,
        stream: StreamTopics,
        bus: Bus,
        state: StateStore,
        telemetry: Telemetry,
        clock: Clock,
        sync: Callable[[], None] = lambda: None,
        on_published: Callable[[Record], None] = lambda _: None,
        snapshot_every_s: float = SNAPSHOT_EVERY_S,
    ) -> None:
        self.service = service
        self.name = service.name
        self._stream = stream
        self._bus = bus
        self._state = state
        self._clock = clock
        self._sync = sync
        self._on_published = on_published
        self._snapshot_every_s = snapshot_every_s
        self._handled = telemetry.handled.labels(service.name)
        self._lag = telemetry.lag.labels(service.name)
        # Attached here, not in run(): from now on nothing that is published can be missed.
        self._consumer: Consumer = bus.consumer([stream.name(purpose) for purpose in service.inputs], service.name)
        self._offsets: dict[TopicPartition, int] = {}
        self._done: dict[tuple[str, int], dict[TopicPartition, int]] = {}
        self._busy = False

    def idle(self) -> bool:
        """Whether everything published so far has been handled."""
        return not self._busy and self._consumer.lag() == 0

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then take a last snapshot."""
        self._restore()
        next_snapshot = self._clock.monotonic() + self._snapshot_every_s
        try:
            while not stop.is_set():
                self._busy = True
                records = self._consumer.poll(POLL_RECORDS, 0.0)
                if not records:
                    self._busy = False
                    records = self._consumer.poll(POLL_RECORDS, POLL_TIMEOUT_S)
                    self._busy = bool(records)
                for record in records:
                    self._handle(record)
                self._lag.set(self._consumer.lag())
                now = self._clock.monotonic()
                if now >= next_snapshot:
                    took = self._snapshot()
                    next_snapshot = now + max(self._snapshot_every_s, took / SNAPSHOT_SHARE)
            self._snapshot()
        except BusClosedError:
            log.debug("bus closed", service=self.name)
        finally:
            self._busy = False
            self._consumer.close()

    def _handle(self, record: Record) -> None:
        for output in self.service.handle(record):
            self._publish(output.purpose, output.key, output.value, record)
        self._offsets[record.place] = record.offset + 1
        self._handled.inc()
        self._on_published(record)

    def _publish(self, purpose: Purpose, key: str, value: object, answers: Record) -> None:
        topic = self._stream.name(purpose)
        partition = partition_of(key, self._stream.partitions)
        if answers.offset <= self._published_up_to(topic, partition).get(answers.place, -1):
            return
        headers = {"producer": self.name, "input": f"{answers.topic}/{answers.partition}/{answers.offset}"}
        if "arrived" in answers.headers:
            headers["arrived"] = answers.headers["arrived"]
        self._bus.publish(topic, value, key=key, partition=partition, headers=headers)

    def _published_up_to(self, topic: str, partition: int) -> dict[TopicPartition, int]:
        """Newest input that this output partition answers already, as found when we first came to it.

        The newest record of a producer names one input partition. That is exact while a service reads one
        partition, as in one process; a bus with more has to be read from the snapshot's ends on.
        """
        known = self._done.get((topic, partition))
        if known is None:
            known = {}
            newest = self._bus.last(topic, partition, self.name)
            if newest is not None and "input" in newest.headers:
                source, number, offset = newest.headers["input"].rsplit("/", 2)
                known[TopicPartition(source, int(number))] = int(offset)
            self._done[topic, partition] = known
        return known

    def _restore(self) -> None:
        saved = self._state.load(self.name)
        if saved is None:
            return
        snapshot = msgspec.msgpack.decode(saved, type=Snapshot)
        try:
            self.service.restore(snapshot.state)
        except ValueError as error:
            # Its configuration has changed, say: what comes from here on is better than not starting.
            log.warning("cannot go on from the snapshot, starting anew", service=self.name, reason=str(error))
        for name, offset in snapshot.offsets.items():
            topic, number = name.rsplit("/", 1)
            self._offsets[TopicPartition(topic, int(number))] = offset
        self._consumer.seek(self._offsets)
        log.info("restored", service=self.name, lag_records=self._consumer.lag())

    def _snapshot(self) -> float:
        began = self._clock.monotonic()
        if self._offsets:
            self._sync()
            offsets = {f"{place.topic}/{place.partition}": at for place, at in self._offsets.items()}
            self._state.save(self.name, msgspec.msgpack.encode(Snapshot(1, offsets, self.service.snapshot())))
            self._consumer.commit(self._offsets)
        return self._clock.monotonic() - began
