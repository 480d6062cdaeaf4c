"""A reader on Kafka: alone with all partitions, or one member of a group that shares them.

Offsets are ours: where reading begins is always said explicitly (the owner of the state, else the group's
commit, else the oldest record), so a record is never skipped or repeated because of a client's default.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer as KafkaClient
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPlace

from tidewarden.bus.kafka.connection import Connection
from tidewarden.bus.kafka.records import RecordReader
from tidewarden.bus.port import Assignment, BusClosedError, Record, TopicPartition

# Read ahead at most: about 250 compressed frames of 10,000 readings. That, one fetch and the records in
# hand are all that a reader holds, however far it is behind.
QUEUED_KBYTES = 32_768
FETCH_BYTES = 4 * 1024 * 1024  # of one partition at a time
FETCH_MAX_BYTES = 16 * 1024 * 1024
# A pod that is restarted is back within 10 s and finds its partitions waiting for it; one that does not come back
# costs as long a silence. A third of it between heartbeats: two may be lost.
SESSION_TIMEOUT_MS = 10_000
HEARTBEAT_MS = 3_000
MAX_POLL_INTERVAL_MS = 300_000  # a snapshot of 100,000 series takes 3 s; a publisher may wait for a broker meanwhile
GROWTH_EVERY_S = 60.0
LAG_TIMEOUT_S = 1.0
_SLICE_S = 0.1  # so soon a closing bus is noticed
# So often a member joins anew before a commit gets through. One was seen to be fenced twice: probably its old self's
# wish to join, from before the outage, was granted after the new one's. A real rival fences us once more, and we end.
_SELVES = 3
_OUTAGE = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REQUEST_TIMED_OUT,
}
_FORBIDDEN = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED}
_LATEST, _EARLIEST = -1, -2  # Kafka's own signs for "the time of the end" and "of the beginning"


class FencedError(Exception):
    """Another process reads under our name: this one has to end."""


log = structlog.get_logger()


class KafkaConsumer:
    """A `Consumer` of a `KafkaBus`. Polled by one thread; `lag` may be asked by others.

    Args:
        connection: how to reach Kafka.
        topics: what to read.
        group: whose offsets to go on from and to commit.
        reader: decodes.
        partitions: asks how many partitions the topics have.
        member: name within the group, the same after a restart.
        assignment: whoever has state for each partition; None: read all partitions, without a group's coordination.
    """

    def __init__(
        self,
        connection: Connection,
        topics: Sequence[str],
        group: str,
        reader: RecordReader,
        partitions: Callable[[Iterable[str]], Mapping[str, int]],
        *,
        member: str | None = None,
        assignment: Assignment | None = None,
    ) -> None:
        self._connection = connection
        self._topics = list(topics)
        self._group = group
        self._reader = reader
        self._partitions = partitions
        self._assignment = assignment
        self._using = threading.RLock()  # the client must not be closed while it is polled
        self._closed = False
        self._joined = assignment is None
        self._position: dict[TopicPartition, int] = {}
        self._pending: list[Any] = []
        self._fatal: KafkaError | None = None
        self._outage = False  # partitions were lost, or a commit failed, and none has got through since
        self._selves = 0  # new ones since then
        self._uncommitted: dict[TopicPartition, int] = {}
        self._committing = False
        self._next_growth = time.monotonic() + GROWTH_EVERY_S
        self._member = member
        self._client = self._opened()
        if assignment is None:
            places = self._all_places()
            self._position = self._beginnings(places, {})
            self._assign_all()
        else:
            self._subscribe()

    def poll(self, max_records: int, timeout: float) -> list[Record]:
        """Up to ``max_records`` records, in order per partition; empty after ``timeout`` seconds.

        Calls the assignment. Returns as soon as there is anything, with all that is there.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._using:
                self._check()
                if self._assignment is None:
                    self._look_for_growth()
                left = deadline - time.monotonic()
                self._collect(max_records, max(0.0, min(left, _SLICE_S)))
                pending, self._pending = self._pending, []
                records = [self._reader.record(message) for message in pending]
                for record in records:
                    self._position[record.place] = record.offset + 1
            if records or left <= _SLICE_S:
                return records

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read on from these offsets, at most from the end; partitions not named stay where they are."""
        for place in offsets:
            if place not in self._position:
                raise ValueError(f"{self._group} does not read {place.topic}/{place.partition}")
        if not offsets:
            return
        with self._using:
            self._check()
            self._position.update(self._beginnings(list(offsets), offsets))
            self._assign_all()

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Everything before these offsets is dealt with. Sent, not awaited: one that is lost only lets go later.

        One is under way at a time, the newest offsets follow it: commits that pile up while a broker is away would
        arrive after the member has joined anew, and Kafka takes what an earlier self of it says for another process.
        """
        with self._using:
            if not self._closed:
                self._uncommitted.update(offsets)
                self._send_commit()

    @property
    def joined(self) -> bool:
        """Whether the group has given this member its share, be it nothing because there are more members."""
        return self._joined

    def lag(self) -> int:
        """Records published but not yet polled, of the partitions that are ours.

        While there are some, that is known from the last fetch; Kafka is asked only before this says 0.
        """
        if self._closed:
            return 0
        if not self._joined:
            return 1
        position = dict(self._position)
        known = sum(max(0, (self._known_end(place) or 0) - at) for place, at in position.items())
        if known or not position:
            return known
        try:
            ends = self._ends(list(position), LAG_TIMEOUT_S)
        except KafkaException:
            return 1
        return sum(max(0, end - position[place]) for place, end in ends.items())

    def known_lag(self) -> int:
        """The lag as of the last fetch; a partition that nothing was fetched of yet counts as 1.

        A question to Kafka would be answered after the fetch that waits there for new records, 100 ms later: a
        reader that asks after each round is that much behind.
        """
        if self._closed:
            return 0
        if not self._joined:
            return 1
        ends = [(self._known_end(place), at) for place, at in dict(self._position).items()]
        return sum(1 if end is None else max(0, end - at) for end, at in ends)

    def close(self) -> None:
        """Leave. A member with a name keeps its partitions until its session ends, so that it finds them again."""
        with self._using:
            if not self._closed:
                self._closed = True
                self._assignment = None
                self._pending = []
                self._committing = False
                self._send_commit()  # the client waits for it
                self._client.close()

    # --- reading -----------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closed or self._connection.closed.is_set():
            raise BusClosedError(f"the bus was closed while {self._group} was reading")
        if self._fatal is not None:
            if self._outage and self._selves < _SELVES and "OffsetCommit" in self._fatal.str():
                self._begin_anew()
            else:
                self._trouble(self._fatal)

    def _send_commit(self) -> None:
        if self._committing or not self._uncommitted:
            return
        places = [KafkaPlace(place.topic, place.partition, at) for place, at in self._uncommitted.items()]
        self._uncommitted, self._committing = {}, True
        self._client.commit(offsets=places, asynchronous=True)

    def _collect(self, max_records: int, timeout_s: float) -> None:
        """What is there goes to ``_pending``; callbacks of the group may take it out again."""
        self._take(self._client.consume(max_records, 0))
        if not self._pending and timeout_s > 0:
            first = self._client.poll(timeout_s)
            if first is not None:
                self._take([first])
                room = max_records - len(self._pending)
                if room:
                    self._take(self._client.consume(room, 0))

    def _take(self, messages: list[Any]) -> None:
        for message in messages:
            error = message.error()
            if error is None:
                if TopicPartition(message.topic(), message.partition()) in self._position:
                    self._pending.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._reached_end(TopicPartition(message.topic(), message.partition()), message.offset())
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                self._outside(TopicPartition(message.topic(), message.partition()))
            elif _is_fatal(error):  # may come this way before the callback tells of it; the next check decides
                self._on_fatal(error)
            else:
                self._trouble(error)

    def _reached_end(self, place: TopicPartition, end: int) -> None:
        """Offsets before the end may hold nothing to read: markers of transactions, what compaction removed."""
        if place in self._position and not any(
            (message.topic(), message.partition()) == place for message in self._pending
        ):
            self._position[place] = max(self._position[place], end)

    def _outside(self, place: TopicPartition) -> None:
        """Our offset is not there (any more): go on at the oldest record, or at the end of a shortened log."""
        if place not in self._position:
            return
        before = self._position[place]
        after = self._beginnings([place], {place: before})[place]
        log.warning("offset out of range", group=self._group, topic=place.topic, offset=before, going_on_at=after)
        self._pending = [m for m in self._pending if (m.topic(), m.partition()) != place]
        self.seek({place: after})

    def _trouble(self, error: KafkaError) -> None:
        if error.code() == KafkaError.FENCED_INSTANCE_ID or (_is_fatal(error) and "fenced" in error.str()):
            raise FencedError(f"another process reads as this member of {self._group}: end one of them")
        if _is_fatal(error) or error.code() in _FORBIDDEN:
            raise self._connection.failure(KafkaException(error), 0.0)
        log.warning("trouble while reading", group=self._group, error=error.str())

    # --- the client ---------------------------------------------------------------------------------

    def _opened(self) -> Any:
        own: dict[str, Any] = {}
        if self._assignment is not None:
            own = {
                # In order of the members' names, and all at once. The cooperative protocol moves a partition in two
                # steps, and members with names that are killed between them get back what they had after the first,
                # for ever: the partition would be nobody's.
                "partition_assignment_strategy": "range",
                "session_timeout_ms": SESSION_TIMEOUT_MS,
                "heartbeat_interval_ms": HEARTBEAT_MS,
                "max_poll_interval_ms": MAX_POLL_INTERVAL_MS,
                **({} if self._member is None else {"group_instance_id": self._member}),
            }
        return KafkaClient(
            self._connection.config(
                on_fatal=self._on_fatal,
                on_commit=self._on_commit,
                group_id=self._group,
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="error",  # decided here, see _outside
                enable_partition_eof=True,
                fetch_wait_max_ms=100,  # also how long a new partition waits for the fetch under way
                fetch_queue_backoff_ms=10,  # the default of 1 s stalls whoever catches up
                fetch_message_max_bytes=FETCH_BYTES,
                fetch_max_bytes=FETCH_MAX_BYTES,
                queued_max_messages_kbytes=QUEUED_KBYTES,
                **own,
            )
        )

    def _subscribe(self) -> None:
        self._client.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _begin_anew(self) -> None:
        """Join as a new self, after an outage in which Kafka took our own late commit for another process's.

        The client sends a commit again that the outage cut off; meanwhile it has joined anew, and is fenced by itself.
        """
        log.warning("fenced by a commit from before an outage, joining anew", group=self._group)
        places = list(self._position)
        assignment, self._assignment = self._assignment, None  # which is not asked to save anything
        self._client.close()
        self._assignment = assignment
        self._fatal, self._committing, self._pending, self._uncommitted = None, False, [], {}
        if places and assignment is not None:
            assignment.lost(places)
        self._forget(places)
        self._joined = False
        self._selves += 1  # the outage lasts until a commit gets through: the old self may still have asked to join
        self._client = self._opened()
        self._subscribe()

    # --- which partitions --------------------------------------------------------------------------

    def _all_places(self) -> list[TopicPartition]:
        counts = self._partitions(self._topics)
        return [TopicPartition(topic, number) for topic in self._topics for number in range(counts[topic])]

    def _look_for_growth(self) -> None:
        now = time.monotonic()
        if now < self._next_growth:
            return
        self._next_growth = now + GROWTH_EVERY_S
        try:
            counts = {t: len(self._client.list_topics(t, LAG_TIMEOUT_S).topics[t].partitions) for t in self._topics}
        except KafkaException as error:
            log.info("cannot look for new partitions now", group=self._group, error=error.args[0].str())
            return
        places = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        new = [place for place in places if place not in self._position]
        if new:
            log.info("new partitions", group=self._group, places=[f"{p.topic}/{p.partition}" for p in new])
            self._position.update(self._beginnings(new, {}))
            self._assign_all()

    def _assign_all(self) -> None:
        self._client.assign([self._at(place) for place in self._position])

    def _at(self, place: TopicPartition) -> KafkaPlace:
        return KafkaPlace(place.topic, place.partition, self._position[place])

    def _beginnings(
        self, places: list[TopicPartition], wanted: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """Where to begin: as wanted, else the commit, else the oldest; never outside of what is there."""
        if not places:
            return {}
        undecided = [KafkaPlace(p.topic, p.partition) for p in places if p not in wanted]
        committed: dict[TopicPartition, int] = {}
        if undecided:
            found = self._connection.patiently(lambda t: self._client.committed(undecided, t))
            committed = {TopicPartition(p.topic, p.partition): p.offset for p in found if p.offset >= 0}
        oldest = self._connection.patiently(lambda t: self._instants(places, _EARLIEST, t))
        ends = self._connection.patiently(lambda t: self._ends(places, t))
        begin = {}
        for place in places:
            at = wanted.get(place, committed.get(place, oldest[place]))
            if at > ends[place]:
                log.warning("ahead of the bus, going on at its end", group=self._group, offset=at, end=ends[place])
            begin[place] = max(oldest[place], min(at, ends[place]))
        return begin

    def _ends(self, places: Collection[TopicPartition], timeout_s: float) -> dict[TopicPartition, int]:
        return self._instants(places, _LATEST, timeout_s)

    def _instants(
        self, places: Collection[TopicPartition], instant: int, timeout_s: float
    ) -> dict[TopicPartition, int]:
        """The end or the beginning of several partitions, in one request."""
        asked = [KafkaPlace(place.topic, place.partition, instant) for place in places]
        found = self._client.offsets_for_times(asked, timeout=timeout_s)
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return {TopicPartition(place.topic, place.partition): place.offset for place in found}

    def _known_end(self, place: TopicPartition) -> int | None:
        try:
            bounds = self._client.get_watermark_offsets(KafkaPlace(place.topic, place.partition), cached=True)
        except (KafkaException, RuntimeError):  # not fetched yet; closed by its thread meanwhile
            return None
        return None if bounds is None or bounds[1] < 0 else int(bounds[1])

    # --- called by the client, within poll and close -----------------------------------------------

    def _on_assign(self, client: Any, partitions: list[KafkaPlace]) -> None:
        places = [TopicPartition(p.topic, p.partition) for p in partitions]
        self._joined = True
        if places and self._assignment is not None:
            log.info("assigned", group=self._group, partitions=[f"{p.topic}/{p.partition}" for p in places])
            wanted = self._assignment.assigned(places)
            self._position.update(self._beginnings(places, wanted))
        client.assign([self._at(place) for place in places if place in self._position])

    def _on_revoke(self, _client: Any, partitions: list[KafkaPlace]) -> None:
        places = self._let_go_of(partitions)
        if places and self._assignment is not None:
            log.info("revoked", group=self._group, partitions=[f"{p.topic}/{p.partition}" for p in places])
            self._assignment.revoked(places)
        self._forget(places)

    def _on_lost(self, _client: Any, partitions: list[KafkaPlace]) -> None:
        places = self._let_go_of(partitions)
        if places and self._assignment is not None:
            self._outage = True
            log.warning("lost", group=self._group, partitions=[f"{p.topic}/{p.partition}" for p in places])
            self._assignment.lost(places)
        self._forget(places)

    def _let_go_of(self, partitions: list[KafkaPlace]) -> list[TopicPartition]:
        """What this poll has collected of them was never handed on: the next owner reads it again."""
        places = [TopicPartition(p.topic, p.partition) for p in partitions]
        self._pending = [m for m in self._pending if (m.topic(), m.partition()) not in places]
        return places

    def _forget(self, places: list[TopicPartition]) -> None:
        for place in places:
            self._position.pop(place, None)
            self._reader.forget(place)

    def _on_fatal(self, error: KafkaError) -> None:
        self._fatal = error

    def _on_commit(self, error: KafkaError | None, _partitions: list[KafkaPlace]) -> None:
        self._committing = False
        if error is not None:
            self._outage = self._outage or error.code() in _OUTAGE
            log.info("a commit did not get through; a later one covers it", group=self._group, error=error.str())
        else:
            self._outage, self._selves = False, 0
            if not self._closed:
                self._send_commit()


def _is_fatal(error: KafkaError) -> bool:
    return bool(error.fatal() or error.code() == KafkaError._FATAL)
