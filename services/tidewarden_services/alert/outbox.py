"""One receiver's outbox: a bounded queue, a thread that empties it in order, and how far it has come."""

from __future__ import annotations

import random
import threading
from collections import deque
from typing import NamedTuple

import structlog

from tidewarden.bus.port import Record, TopicPartition
from tidewarden.clock import Clock
from tidewarden.events import Alert
from tidewarden.telemetry import Telemetry
from tidewarden_services.alert.receivers import Attempt, Channel, KeepingChannel

CAPACITY = 1_000  # alerts waiting; some 2 MB, and a month of good alerts

log = structlog.get_logger()


class Backoff(NamedTuple):
    """Waiting between attempts: doubled each time, never longer than ``longest_s``, with up to half of it random."""

    first_s: float = 0.5
    longest_s: float = 60.0

    def after(self, failures: int, chance: random.Random) -> float:
        """Seconds to wait after the n-th failure in a row (from 1)."""
        full = min(self.longest_s, self.first_s * 2.0 ** min(failures - 1, 30))
        return full * (0.5 + 0.5 * chance.random())


class _Parcel(NamedTuple):
    place: TopicPartition
    offset: int
    alert: Alert


class Outbox:
    """Delivers to one channel in a thread of its own, so that a broken receiver holds up nobody else."""

    def __init__(
        self,
        policy: str,
        channel: Channel,
        *,
        telemetry: Telemetry,
        clock: Clock,
        chance: random.Random,
        backoff: Backoff,
        capacity: int,
    ) -> None:
        self.name = channel.name
        self._policy = policy
        self._channel = channel
        self._telemetry = telemetry
        self._clock = clock
        self._chance = chance
        self._backoff = backoff
        self._capacity = capacity
        self._parcels: deque[_Parcel] = deque()
        self._taken: dict[TopicPartition, int] = {}  # offset of the next record to take in
        self._short: set[TopicPartition] = set()  # places where a record found no room
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._given_up = False
        self._counts = {"sent": 0, "retried": 0, "refused": 0}
        self._waiting = telemetry.outbox.labels(policy, channel.name)
        for result in self._counts:  # from 0, so that the first is an increase to those who watch
            telemetry.deliveries.labels(policy, channel.name, result)
        self._trouble = ""
        self._thread = threading.Thread(target=self._work, name=f"deliver.{policy}.{channel.name}", daemon=True)

    def start(self, positions: dict[TopicPartition, int], firing: list[Alert]) -> None:
        """Begin to deliver what comes after ``positions``, and to keep alive what was ``firing`` there."""
        self._taken = dict(positions)
        if isinstance(self._channel, KeepingChannel):
            self._channel.restore(firing)
        self._post()
        self._thread.start()

    def take(self, record: Record) -> None:
        """Take a record of the policy's alerts in; where there is no room, it must be read again later."""
        with self._changed:
            if record.offset < self._taken.get(record.place, 0) or record.place in self._short:
                return  # had it before, or an earlier one found no room: order first
            alerts = [a for a in record.value if a.policy == self._policy and self._channel.wants(a)]
            if alerts and self._parcels and len(self._parcels) + len(alerts) > self._capacity:
                self._taken[record.place] = record.offset
                self._short.add(record.place)
                return
            self._parcels.extend(_Parcel(record.place, record.offset, alert) for alert in alerts)
            self._taken[record.place] = record.offset + 1
            self._waiting.set(len(self._parcels))
            self._changed.notify_all()

    def missed(self) -> dict[TopicPartition, int]:
        """Offsets of the first records that found no room, by partition; empty where all did."""
        with self._changed:
            return {place: self._taken[place] for place in self._short}

    def resume(self) -> dict[TopicPartition, int]:
        """Where to read again, once half of the queue is free; empty while there is no need or no room."""
        with self._changed:
            if len(self._parcels) > self._capacity // 2:
                return {}
            places = {place: self._taken[place] for place in self._short}
            self._short.clear()
            return places

    def delivered(self) -> dict[TopicPartition, int]:
        """Offsets before which everything has been delivered or refused."""
        with self._changed:
            done = dict(self._taken)
            for parcel in reversed(self._parcels):
                done[parcel.place] = parcel.offset
            return done

    def kept(self) -> list[Alert]:
        """What the receiver keeps alive, at least as new as `delivered` said before."""
        return self._channel.kept() if isinstance(self._channel, KeepingChannel) else []

    def close(self, flush_s: float) -> int:
        """Try for at most ``flush_s`` seconds to deliver the rest; how many alerts are still waiting."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(flush_s)
        with self._changed:
            self._given_up = True
            return len(self._parcels)

    def _work(self) -> None:
        try:
            self._deliver_all()
        finally:
            self._channel.close()

    def _deliver_all(self) -> None:
        failures = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._parcels or self._closing.is_set(), self._until_keep_s())
                if self._given_up or (self._closing.is_set() and not self._parcels):
                    return
                alert = self._parcels[0].alert if self._parcels else None
            if self._until_keep_s() == 0.0:
                self._keep()
            if alert is None:
                continue
            attempt = self._channel.deliver(alert)
            if attempt.result != "retry":
                failures = 0
                self._done(alert, attempt)
                continue
            failures += 1
            last = self._closing.is_set()
            self._failed(alert, attempt, failures)
            if last:
                return
            pause = self._backoff.after(failures, self._chance)
            self._clock.wait(self._closing, max(pause, attempt.after_s or 0.0))

    def _until_keep_s(self) -> float | None:
        """Seconds until the channel tells again of what fires; None where it does not."""
        due = self._channel.keep_until() if isinstance(self._channel, KeepingChannel) else None
        return None if due is None else max(0.0, due - self._clock.monotonic())

    def _keep(self) -> None:
        assert isinstance(self._channel, KeepingChannel)
        attempt = self._channel.keep()
        self._trouble = attempt.reason
        if attempt.result != "sent":
            log.warning(
                "the receiver does not keep alerts alive", policy=self._policy, receiver=self.name,
                reason=attempt.reason,
            )  # fmt: skip
        self._post()

    def _done(self, alert: Alert, attempt: Attempt) -> None:
        with self._changed:
            self._parcels.popleft()
            self._changed.notify_all()
        self._trouble = attempt.reason
        self._count(attempt.result)
        if attempt.result == "refused":
            log.error(
                "the receiver refuses this alert for good", policy=self._policy, receiver=self.name,
                alert=alert.id, revision=alert.revision, reason=attempt.reason,
            )  # fmt: skip
        self._post()

    def _failed(self, alert: Alert, attempt: Attempt, failures: int) -> None:
        self._trouble = attempt.reason
        self._count("retried")
        if failures & (failures - 1) == 0:  # the 1st, 2nd, 4th, 8th … time: a day of silence is not 1,440 lines
            log.warning(
                "the receiver does not take alerts, trying again", policy=self._policy, receiver=self.name,
                alert=alert.id, reason=attempt.reason, attempts=failures, waiting=len(self._parcels),
            )  # fmt: skip
        self._post()

    def _count(self, result: str) -> None:
        self._counts[result] += 1
        self._telemetry.deliveries.labels(self._policy, self.name, result).inc()

    def _post(self) -> None:
        self._waiting.set(len(self._parcels))
        self._telemetry.board.post(
            "receivers",
            f"{self._policy}/{self.name}",
            waiting=len(self._parcels),
            message=self._trouble,
            **self._counts,
        )
