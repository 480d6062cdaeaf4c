"""The contract between the runtime (poll → handle → flush → commit) and a service.

A service is a state machine over records: what it publishes is a function of its state and the record
in hand, nothing else; no clock, no randomness, no store. That is what makes a restart exact: the
runtime restores the snapshot, seeks to the offsets that the snapshot contains, replays, and leaves out
the outputs that its topics already hold.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from tidewarden.bus.port import Record
from tidewarden.topics import Purpose


class Output(NamedTuple):
    """One record to publish: which of the stream's topics, the key, the value."""

    purpose: Purpose
    key: str
    value: Any


class Service(Protocol):
    """A room between topics: detect, rollup, alert."""

    name: str  # unique in the process, e.g. "detect.shop-latency"; also the consumer group
    inputs: tuple[Purpose, ...]

    def handle(self, record: Record) -> list[Output]:
        """Take one record in; at most one output per topic comes back."""

    def snapshot(self) -> bytes:
        """All state, in a versioned format without pickles."""

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
