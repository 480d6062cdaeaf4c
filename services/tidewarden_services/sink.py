"""The runtime of a sink: poll → collect → write with offsets → commit.

A sink writes what it read together with the offsets it covers, in one transaction or under
deterministic ids. On a restart it goes on from the offsets that the store itself names, so nothing is
lost or written twice, whenever the process was killed.

A store that is away (`StoreUnavailableError`) ends nothing: what was collected is kept, nothing more is polled,
which is the back-pressure, and the write is tried again after `FIRST_RETRY_S`, twice as long each time up to
`LAST_RETRY_S`. The offsets wait. Any other `StoreError` is for good and ends the sink. Told to stop while
the store is away, it tries once more and ends without committing; its next start reads the records again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog

from tidewarden.bus.port import Bus, BusClosedError, Record, TopicPartition
from tidewarden.clock import Clock
from tidewarden.store.port import StoreUnavailableError
from tidewarden.telemetry import Telemetry
from tidewarden.topics import PURPOSES, StreamTopics

POLL_RECORDS = 64
POLL_TIMEOUT_S = 0.1
PURGE_EVERY_S = 60.0
FIRST_RETRY_S = 0.25  # a server that is only busy
LAST_RETRY_S = 15.0  # after 7 attempts in 31 s; a store that was away for long is noticed within this

T = TypeVar("T")

log = structlog.get_logger()


class Sink(Protocol):
    """What the archive service is to the runtime."""

    name: str

    def handle(self, records: list[Record]) -> None:
        """Collect."""

    def should_flush(self, now: float) -> bool:
        """Whether it is time to write, by size or by age; ``now`` in seconds on the monotonic clock."""

    def flush(self) -> dict[TopicPartition, int]:
        """Write everything collected and return the offsets covered; where that fails, keep it."""

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
        self._board = telemetry.board
        self._errors = telemetry.errors.labels(sink.name, StoreUnavailableError.__name__)
        self._available = telemetry.store_available.labels(sink.name)
        self._handled = telemetry.handled.labels(sink.name)
        self._lag = telemetry.lag.labels(sink.name)
        self._wrote = telemetry.store_write.labels(sink.name)
        self._consumer = bus.consumer([stream.name(purpose) for purpose in PURPOSES], sink.name)
        self._pending = False
        self._collected = 0  # records that are not in the store yet

    def idle(self) -> bool:
        """Whether everything published so far is in the store."""
        return not self._pending and self._consumer.lag() == 0

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; what was collected by then is written.

        Raises:
            StoreError: The store refuses for good.
        """
        try:
            self._say("running")
            begin = self._insist(self._sink.start_offsets, stop)
            if begin is None:
                return
            self._consumer.seek(begin)
            self._work(stop)
            self._flush(stop)
        except BusClosedError:
            self._flush(stop)
        finally:
            self._consumer.close()

    def _work(self, stop: threading.Event) -> None:
        next_purge = self._clock.monotonic() + PURGE_EVERY_S
        while not stop.is_set():
            before = self._consumer.known_lag()
            self._pending = self._pending or before > 0
            records = self._consumer.poll(POLL_RECORDS, POLL_TIMEOUT_S)
            self._pending = self._pending or bool(records)
            self._sink.handle(records)
            self._handled.inc(len(records))
            self._collected += len(records)
            self._lag.set(self._consumer.known_lag() + self._collected)
            now = self._clock.monotonic()
            if self._pending and (self._sink.should_flush(now) or not records):
                self._flush(stop)
            if now >= next_purge:
                self._insist(lambda: self._sink.purge(self._clock.now_ms()), stop)
                next_purge = now + PURGE_EVERY_S

    def _flush(self, stop: threading.Event) -> None:
        offsets = self._insist(self._write, stop)
        if offsets is None:
            return
        if offsets:
            self._consumer.commit(offsets)
        self._pending = False
        self._collected = 0

    def _write(self) -> dict[TopicPartition, int]:
        began = self._clock.monotonic()
        offsets = self._sink.flush()
        if offsets:
            self._wrote.observe(self._clock.monotonic() - began)
        return offsets

    def _insist(self, attempt: Callable[[], T], stop: threading.Event) -> T | None:
        """Do it, again and again while the store is away; None where ``stop`` came first."""
        delay_s = FIRST_RETRY_S
        away_since: float | None = None
        while True:
            try:
                result = attempt()
            except StoreUnavailableError as error:
                self._errors.inc()
                now = self._clock.monotonic()
                if away_since is None:
                    away_since = now
                    log.warning("the store is away, trying again", service=self.name, reason=str(error))
                self._say("waiting", f"the store is away for {now - away_since:.0f} s: {error}")
                if stop.is_set() or self._clock.wait(stop, delay_s):
                    return self._last_attempt(attempt)
                delay_s = min(2 * delay_s, LAST_RETRY_S)
                continue
            if away_since is not None:
                log.info("the store is back", service=self.name, after_s=round(self._clock.monotonic() - away_since))
                self._say("running")
            return result

    def _last_attempt(self, attempt: Callable[[], T]) -> T | None:
        try:
            return attempt()
        except StoreUnavailableError as error:
            log.warning("ending without the store, nothing is lost: the next start reads it again",
                        service=self.name, reason=str(error))  # fmt: skip
            return None

    def _say(self, state: str, message: str = "") -> None:
        self._available.set(state == "running")
        self._board.post("services", self.name, state=state, message=message)
