"""Delivery: alerts from the bus to the receivers of one policy, none lost while a receiver is down.

Each receiver has an outbox and a position of its own. Where an outbox is full, its receiver's position
stays, and the records it could not take are read again once there is room; the others go on meanwhile.
The bus may forget only what every receiver has taken, which is what is committed. A position is saved
after the delivery, so a kill in between repeats a delivery, under the same Idempotency-Key.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import structlog

from tidewarden.bus.port import BusClosedError, Consumer, TopicPartition
from tidewarden.clock import Clock
from tidewarden.events import Alert
from tidewarden.resources import AlertPolicy
from tidewarden.resources.alertpolicy import Receiver
from tidewarden.telemetry import Telemetry
from tidewarden_services.alert.outbox import CAPACITY, Backoff, Outbox
from tidewarden_services.alert.receivers import channel_of

POLL_RECORDS = 100
POLL_TIMEOUT_S = 0.2
FLUSH_S = 5.0  # at shutdown; an orchestrator gives 30 s for everything
STATE_VERSION = 1

log = structlog.get_logger()


class _State(msgspec.Struct):
    version: int
    receivers: dict[str, dict[str, int]]  # receiver → topic/partition → offset of the next record
    firing: dict[str, list[Alert]] = {}  # receiver → alerts that it keeps alive, as far as it does


class Notifier:
    """Delivers the alerts of one policy.

    Args:
        name: for logs and metrics.
        policy: whose receivers; where it is paused, what comes is read and not delivered.
        telemetry: for counters and the status board.
        clock: for waiting between attempts.
        load_state: gives what `save_state` last got, or None.
        save_state: keeps the receivers' positions.
        chance: for the jitter between attempts.
        environ: where ``${NAME}`` in headers is looked up.
        page_url: address of the web page, for links in notifications.
        secrets_dir: holds one folder for each Secret that a receiver names.
        alertmanager_url: default of alertmanager receivers.
        backoff: waiting between attempts.
        capacity: alerts that may wait for each receiver.
        flush_s: seconds that delivery may go on after a stop.
    """

    def __init__(
        self,
        name: str,
        policy: AlertPolicy,
        telemetry: Telemetry,
        clock: Clock,
        *,
        load_state: Callable[[], bytes | None] = lambda: None,
        save_state: Callable[[bytes], None] = lambda _: None,
        chance: random.Random | None = None,
        environ: Mapping[str, str] | None = None,
        page_url: str | None = None,
        secrets_dir: Path | None = None,
        alertmanager_url: str | None = None,
        backoff: Backoff = Backoff(),  # noqa: B008 - immutable
        capacity: int = CAPACITY,
        flush_s: float = FLUSH_S,
    ) -> None:
        self.name = name
        self._telemetry = telemetry
        self._load_state = load_state
        self._save_state = save_state
        self._saved = b""
        self._committed: dict[TopicPartition, int] = {}
        self._seen: dict[TopicPartition, int] = {}
        self._clock = clock
        self._flush_s = flush_s
        chance = chance or random.Random()  # noqa: S311 - jitter is no secret
        environ = os.environ if environ is None else environ
        receivers = [] if policy.spec.paused else policy.spec.receivers
        self._outboxes: list[Outbox] = []
        for receiver, receiver_name in zip(receivers, receiver_names(receivers), strict=True):
            try:
                channel = channel_of(
                    receiver,
                    receiver_name,
                    namespace=policy.metadata.namespace,
                    clock=clock,
                    environ=environ,
                    page_url=page_url,
                    secrets_dir=secrets_dir,
                    alertmanager_url=alertmanager_url,
                )
            except ValueError as error:
                raise ValueError(f"AlertPolicy/{policy.metadata.name} {error}") from error
            self._outboxes.append(
                Outbox(
                    policy.metadata.name,
                    channel,
                    telemetry=telemetry,
                    clock=clock,
                    chance=random.Random(chance.random()),  # noqa: S311 - one each: threads do not share it
                    backoff=backoff,
                    capacity=capacity,
                )
            )

    def run(self, stop: threading.Event, consumer: Consumer) -> None:
        """Deliver in this and the receivers' threads until ``stop`` is set, then flush for a bounded time."""
        self._begin(consumer)
        try:
            while not stop.is_set():
                if self._all_full():
                    # Standing at what nobody could take is what holds the publishers back.
                    consumer.seek(_oldest(outbox.missed() for outbox in self._outboxes))
                    self._clock.wait(stop, POLL_TIMEOUT_S)
                    self._catch_up(consumer)
                else:
                    self._round(consumer, POLL_TIMEOUT_S)
            while not self._all_full() and self._round(consumer, 0.0):
                continue  # what was published before the stop is delivered in this life, if it can be
        except BusClosedError:
            log.debug("bus closed", service=self.name)
        waiting = self._close()
        self._save()
        if any(waiting.values()):
            log.warning("stopped with alerts still to be delivered; the next start goes on", waiting=waiting)
        try:
            self._commit(consumer)
        except BusClosedError:
            log.debug("bus closed", service=self.name)
        consumer.close()

    def _begin(self, consumer: Consumer) -> None:
        positions, firing = self._load()
        for outbox in self._outboxes:
            outbox.start(positions.get(outbox.name, {}), firing.get(outbox.name, []))
        begin = _oldest(positions.get(outbox.name, {}) for outbox in self._outboxes)
        if begin:
            consumer.seek(begin)

    def _round(self, consumer: Consumer, timeout_s: float) -> int:
        """Read on; how many records there were."""
        self._catch_up(consumer)
        records = consumer.poll(POLL_RECORDS, timeout_s)
        for record in records:
            for outbox in self._outboxes:
                outbox.take(record)
            self._seen[record.place] = record.offset + 1
        self._telemetry.lag.labels(self.name).set(consumer.known_lag())
        self._telemetry.handled.labels(self.name).inc(len(records))
        self._save()
        self._commit(consumer)
        return len(records)

    def _catch_up(self, consumer: Consumer) -> None:
        """Go back for the outboxes that had no room and have some now."""
        back = _oldest(outbox.resume() for outbox in self._outboxes)
        if back:
            consumer.seek(back)

    def _all_full(self) -> bool:
        return bool(self._outboxes) and all(outbox.missed() for outbox in self._outboxes)

    def _close(self) -> dict[str, int]:
        """Close all outboxes at once, so that they share the time that there is."""
        waiting: dict[str, int] = {}
        threads = [
            threading.Thread(target=lambda box=box: waiting.__setitem__(box.name, box.close(self._flush_s)))
            for box in self._outboxes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return waiting

    # --- positions ------------------------------------------------------------------------------

    def _load(self) -> tuple[dict[str, dict[TopicPartition, int]], dict[str, list[Alert]]]:
        raw = self._load_state()
        if raw is None:
            return {}, {}
        state = msgspec.json.decode(raw, type=_State)
        if state.version != STATE_VERSION:
            raise ValueError(f"{self.name}: state version {state.version} is not {STATE_VERSION}: begin without it")
        positions = {
            name: {TopicPartition(*_split(place)): offset for place, offset in places.items()}
            for name, places in state.receivers.items()
        }
        return positions, state.firing

    def _save(self) -> None:
        receivers = {
            box.name: {f"{place.topic}/{place.partition}": offset for place, offset in sorted(box.delivered().items())}
            for box in self._outboxes
        }
        # After the positions: what fires may be ahead of them, since a repetition changes nothing, but never behind.
        firing = {box.name: kept for box in self._outboxes if (kept := box.kept())}
        raw = msgspec.json.encode(_State(STATE_VERSION, receivers, firing))
        if raw != self._saved:
            self._save_state(raw)
            self._saved = raw

    def _commit(self, consumer: Consumer) -> None:
        done = _oldest(outbox.delivered() for outbox in self._outboxes) if self._outboxes else dict(self._seen)
        if done != self._committed:
            consumer.commit(done)
            self._committed = done


def receiver_names(receivers: list[Receiver]) -> list[str]:
    """A name for each receiver: its own or its kind, with a number where that is taken."""
    names: list[str] = []
    for receiver in receivers:
        stem = receiver.name or receiver.kind
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def _oldest(offsets: Iterable[Mapping[TopicPartition, int]]) -> dict[TopicPartition, int]:
    """The smallest offset of each partition."""
    found: dict[TopicPartition, int] = {}
    for places in offsets:
        for place, offset in places.items():
            found[place] = min(offset, found.get(place, offset))
    return found


def _split(place: str) -> tuple[str, int]:
    topic, _, number = place.rpartition("/")
    return topic, int(number)
