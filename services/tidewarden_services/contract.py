"""The contract between the runtime (poll → handle → publish → snapshot → commit) and a service.

A service is a state machine over the records of one partition: what it publishes is a function of its
state and the record in hand, nothing else; no clock, no randomness, no store. That is what makes a
restart exact: the runtime restores the snapshot, goes back to the offset that the snapshot contains,
replays, and leaves out the outputs that its topics already hold.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from tidewarden.bus.port import Record
from tidewarden.topics import Purpose


class Output(NamedTuple):
    """One record to publish: which of the stream's topics, the key, the value, and whose time it is.

    ``time`` is how far the service's time of the key has come, ms since the epoch; it goes into the header of
    that name, for those who merge what several instances say. None: nobody merges it.
    """

    purpose: Purpose
    key: str
    value: Any
    time: int | None = None


class Service(Protocol):
    """A room between topics: detect, rollup, alert. One instance has the records of one partition."""

    def handle(self, record: Record) -> list[Output]:
        """Take one record in; at most one output per topic and key comes back."""

    def snapshot(self) -> bytes:
        """All state, in a versioned format without pickles."""

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""

    def close(self) -> None:
        """Let go: the partition is another process's now, so say nothing of it any more."""


@runtime_checkable
class JoiningService(Service, Protocol):
    """A service that reads what several instances wrote; the runtime merges it (`merge.py`)."""

    def join(self, records: list[Record]) -> Any:
        """One value of what several instances said at one instant, the same however their input was cut."""
