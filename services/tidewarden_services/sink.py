"""The runtime of a sink: poll → collect → write with offsets → commit.

A sink writes what it read together with the offsets it covers, in one transaction or under
deterministic ids. On a restart it goes on from the offsets that the store itself names, so nothing is
lost or written twice, whenever the process was killed.
"""

from __future__ import annotations

import threading
from typing import Protocol

from tidewarden.bus.port import Bus, BusClosedError, Record, TopicPartition
from tidewarden.clock import Clock
from tidewarden.telemetry import Telemetry
from tidewarden.topics import PURPOSES, StreamTopics

POLL_RECORDS = 64
POLL_TIMEOUT_S = 0.1
PURGE_EVERY_S = 60.0


class Sink(Protocol):
    """What the archive service is to the runtime."""

    name: str

    def handle(self, records: list[Record]) -> None:
        """Collect."""

    def should_flush(self, now: float) -> bool:
        """Whether it is time to write, by size or by age; ``now`` in seconds on the monotonic clock."""

    def flush(self) -> dict[TopicPartition, int]:
        """Write everything collected and return the offsets covered."""

    def start_offsets(self) -> dict[TopicPartition, int]:
        """Where the store's own record says to go on."""

    def purge(self, now_ms: int) -> None:
        """Retention."""


class SinkRunner:
    """Runs a sink in the calling thread until it is told to stop."""

    def __init__(self, sink: Sink, *, stream: StreamTopics, bus: Bus, telemetry: Telemetry, clock: Clock) -> None:
        self.name = sink.name
        self._sink = sink
        self._clock = clock
        self._handled = telemetry.handled.labels(sink.name)
        self._lag = telemetry.lag.labels(sink.name)
        self._consumer = bus.consumer([stream.name(purpose) for purpose in PURPOSES], sink.name)
        self._pending = False

    def idle(self) -> bool:
        """Whether everything published so far is in the store."""
        return not self._pending and self._consumer.lag() == 0

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; what was collected by then is written."""
        self._consumer.seek(self._sink.start_offsets())
        next_purge = self._clock.monotonic() + PURGE_EVERY_S
        try:
            while not stop.is_set():
                before = self._consumer.lag()
                self._pending = self._pending or before > 0
                records = self._consumer.poll(POLL_RECORDS, POLL_TIMEOUT_S)
                self._pending = self._pending or bool(records)
                self._sink.handle(records)
                self._handled.inc(len(records))
                self._lag.set(self._consumer.lag())
                now = self._clock.monotonic()
                if self._pending and (self._sink.should_flush(now) or not records):
                    self._flush()
                if now >= next_purge:
                    self._sink.purge(self._clock.now_ms())
                    next_purge = now + PURGE_EVERY_S
            self._flush()
        except BusClosedError:
            self._flush()
        finally:
            self._consumer.close()

    def _flush(self) -> None:
        offsets = self._sink.flush()
        if offsets:
            self._consumer.commit(offsets)
        self._pending = False
