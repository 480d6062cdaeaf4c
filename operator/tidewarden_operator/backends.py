"""Kafka topics and Elasticsearch indices: brought about beside the reconciling.

So a server that is away holds up nobody's pods.

`Keeper.want` says at once how things stand; the work is done by threads of its own, and when something has changed the
resource is reconciled again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import structlog

from tidewarden.clock import Clock
from tidewarden.settings import ElasticsearchSettings, KafkaSettings
from tidewarden.topics import Topic
from tidewarden_operator.keys import Key
from tidewarden_operator.queue import Workers, WorkQueue

# One that just did not answer one resource is not asked for the next 199: within this time they get the same word.
SAME_WORD_S = 5.0
THREADS = 2

T = TypeVar("T")

log = structlog.get_logger()


class BackendError(Exception):
    """A server refused or was away.

    Args:
        reason: CamelCase, for the condition.
        message: address, cause and remedy.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Topics(Protocol):
    """Topics of one Kafka."""

    def apply(self, topics: Sequence[Topic]) -> list[str]:
        """Bring topics about; says in words what was changed. Raises `BackendError`."""

    def delete(self, names: Sequence[str]) -> None:
        """Delete topics that are there. Raises `BackendError`."""


class Indices(Protocol):
    """Indices of one Elasticsearch and namespace."""

    def prepare(self, stream: str, retention_ms: int) -> None:
        """Bring templates and aliases about. Raises `BackendError`."""

    def drop(self, stream: str) -> None:
        """Delete indices, templates and aliases. Raises `BackendError`."""


class Opener(Protocol):
    """Opens connections; `servers.py` has the real one."""

    def topics(self, kafka: KafkaSettings, namespace: str) -> Topics:
        """The topics of a Kafka. Raises `BackendError` where credentials are missing."""

    def indices(self, elasticsearch: ElasticsearchSettings, namespace: str) -> Indices:
        """The indices of an Elasticsearch. Raises `BackendError` where credentials are missing."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one server's part stands: None while it is not known yet."""

    ok: bool | None = None
    reason: str = "Pending"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """What one resource wants to have.

    Args:
        kafka: where its topics are.
        topics: which topics.
        elasticsearch: where its indices are; None: it has none.
        stream: whose indices.
        retention_ms: how long they are kept.
    """

    kafka: KafkaSettings
    topics: tuple[Topic, ...]
    elasticsearch: ElasticsearchSettings | None = None
    stream: str = ""
    retention_ms: int = 0


@dataclass(slots=True)
class Standing:
    """How a resource's topics and indices stand."""

    topics: Outcome = field(default_factory=Outcome)
    store: Outcome = field(default_factory=Outcome)


@dataclass(slots=True)
class _Entry:
    request: Request
    standing: Standing
    done_at_s: float = float("-inf")


class Keeper:
    """Brings topics and indices about, again and again.

    Args:
        opener: of connections.
        clock: of freshness and waits.
        again_s: what was fine is looked at again after so long, which mends what was changed by hand.
        changed: told of a key whose standing has changed.
    """

    def __init__(self, opener: Opener, clock: Clock, again_s: float, changed: Callable[[Key], None]) -> None:
        self._opener = opener
        self._clock = clock
        self._again_s = again_s
        self._changed = changed
        self._lock = threading.Lock()
        self._entries: dict[Key, _Entry] = {}
        self._trouble: dict[str, tuple[float, BackendError]] = {}
        self._queue = WorkQueue(clock)
        self.workers = Workers(self._queue, self._work, self._failed, THREADS, "backends", clock)

    def want(self, key: Key, request: Request) -> Standing:
        """Ask for topics and indices; says how they stand now."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.request != request:
                standing = Standing() if entry is None else replace(entry.standing)
                entry = self._entries[key] = _Entry(request, standing)
                self._queue.add(key)
            return replace(entry.standing)

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        with self._lock:
            self._entries.pop(key, None)

    def remove(self, request: Request, namespace: str) -> None:
        """Delete topics and indices, now.

        Raises:
            BackendError: a server refused or was away; what it has was left.
        """
        kafka, search = request.kafka, request.elasticsearch
        names = [topic.name for topic in request.topics]
        self._asked(kafka.bootstrap_servers, lambda: self._opener.topics(kafka, namespace).delete(names))
        if search is not None:
            self._asked(search.url, lambda: self._opener.indices(search, namespace).drop(request.stream))

    def _work(self, key: Key) -> None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return
            request, before = entry.request, replace(entry.standing)
        topics = steady(before.topics, self._topics(key, request))
        store = steady(before.store, self._store(key, request))
        with self._lock:
            current = self._entries.get(key)
            if current is not entry:
                return  # asked for something else meanwhile, which is in the queue
            entry.standing = Standing(topics, store)
            entry.done_at_s = self._clock.monotonic()
        if entry.standing != before:
            self._changed(key)
        if topics.ok is False or store.ok is False:
            raise BackendError(topics.reason, topics.message if topics.ok is False else store.message)
        self._queue.add(key, self._again_s)

    def _topics(self, key: Key, request: Request) -> Outcome:
        try:
            changes = self._asked(
                request.kafka.bootstrap_servers,
                lambda: self._opener.topics(request.kafka, key.namespace).apply(request.topics),
            )
        except BackendError as error:
            return Outcome(False, error.reason, str(error))
        if changes:
            log.info("topics changed", resource=str(key), changes=changes)
        count = "1 topic" if len(request.topics) == 1 else f"{len(request.topics)} topics"
        return Outcome(True, "TopicsAsPlanned", f"{count} on {request.kafka.bootstrap_servers}")

    def _store(self, key: Key, request: Request) -> Outcome:
        search = request.elasticsearch
        if search is None:
            return Outcome(True, "NotArchived", "no Elasticsearch is configured: nothing is archived")

        try:
            self._asked(
                search.url,
                lambda: self._opener.indices(search, key.namespace).prepare(request.stream, request.retention_ms),
            )
        except BackendError as error:
            return Outcome(False, error.reason, str(error))
        return Outcome(True, "TemplatesAsPlanned", f"indices on {search.url}")

    def _asked(self, address: str, call: Callable[[], T]) -> T:
        now = self._clock.monotonic()
        with self._lock:
            known = self._trouble.get(address)
        if known is not None and now - known[0] < SAME_WORD_S:
            raise known[1]
        try:
            answer = call()
        except BackendError as error:
            if error.reason.endswith("Unavailable"):
                with self._lock:
                    self._trouble[address] = (self._clock.monotonic(), error)
            raise
        with self._lock:
            self._trouble.pop(address, None)
        return answer

    def _failed(self, key: Key, error: Exception, delay_s: float) -> None:
        if not isinstance(error, BackendError):
            log.error("topics or indices could not be looked after", resource=str(key), exc_info=error)
            return
        log.debug("server away", resource=str(key), error=str(error), again_in_s=delay_s)


def steady(before: Outcome, now: Outcome) -> Outcome:
    """The outcome, in the words of the first time while a server stays away.

    Clients say "timed out" once and "connection refused" the next time; each would be a write to every resource.
    """
    same = (before.ok, before.reason) == (now.ok, now.reason)
    return before if same and now.reason.endswith("Unavailable") else now
