"""Where pushed readings wait until ingest takes them in, and their senders for an answer."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import msgspec

from tidewarden.frames import Frame, IntArray
from tidewarden.sources import Refused

MAX_WAITING_PUSHES = 256
MAX_WAITING_READINGS = 200_000  # 4 MB of columns; what is more waits in the sender


class RowError(msgspec.Struct):
    """Why one row of a request was refused."""

    row: int
    reason: str
    detail: str


class Answer(msgspec.Struct):
    """What became of a request."""

    accepted: int
    rejected: int
    late: int
    errors: list[RowError]  # the first 100


class UnavailableError(Exception):
    """Ingest cannot take this in now: the sender should try again."""


@dataclass(slots=True, eq=False)
class Push:
    """One request, parsed, on its way to the bus."""

    frame: Frame
    rows: IntArray
    refused: list[Refused]
    refused_rows: list[int]
    origin: str
    arrived: float
    answer: Future[Answer] = field(default_factory=Future)

    @property
    def weight(self) -> int:
        """Its share of the inbox, in readings."""
        return max(1, len(self.frame) + len(self.refused))

    def settle(self, answer: Answer) -> None:
        """Answer the sender, unless it has given up."""
        try:
            self.answer.set_result(answer)
        except InvalidStateError:
            return  # it was cancelled in this very moment; the readings are on the bus all the same

    def fail(self, why: str) -> None:
        """Tell the sender to try again, unless it has given up."""
        try:
            self.answer.set_exception(UnavailableError(why))
        except InvalidStateError:
            return  # it was cancelled in this very moment, and nobody listens


class Inbox:
    """A bounded queue of pushes; closed until ingest listens."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Push] = deque()
        self._weight = 0
        self._open = False
        self._busy = False

    def open(self) -> None:
        """From now on somebody takes what is put in."""
        with self._changed:
            self._open = True

    def close(self, why: str) -> None:
        """Nobody takes anything any more: all who wait are told to try again."""
        with self._changed:
            self._open = False
            left, self._waiting, self._weight = self._waiting, deque(), 0
            self._changed.notify_all()
        for push in left:
            push.fail(why)

    def put(self, push: Push, timeout_s: float) -> None:
        """Queue ``push``; `UnavailableError` where there is no room within ``timeout_s``, or nobody to take it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open or self.has_room(), timeout_s)
            if not self._open:
                raise UnavailableError("the source is paused or not running yet")
            if not self.has_room():
                raise UnavailableError(f"{self._weight} readings are waiting already")
            self._waiting.append(push)
            self._weight += push.weight
            self._changed.notify_all()

    def take(self, most: int, timeout_s: float) -> list[Push]:
        """What waits, in order, up to ``most`` readings (one push is never cut); empty after ``timeout_s``."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._waiting), timeout_s)
            taken: list[Push] = []
            readings = 0
            while self._waiting and (not taken or readings + len(self._waiting[0].frame) <= most):
                push = self._waiting.popleft()
                taken.append(push)
                readings += len(push.frame)
                self._weight -= push.weight
            self._busy = bool(taken)
            self._changed.notify_all()
            return taken

    def done(self) -> None:
        """What was taken last is dealt with."""
        with self._changed:
            self._busy = False

    def idle(self) -> bool:
        """Whether nothing waits, and nothing that was taken is still on its way."""
        with self._changed:
            return not self._waiting and not self._busy

    def has_room(self) -> bool:
        """Whether a push need not wait."""
        return self._weight < MAX_WAITING_READINGS and len(self._waiting) < MAX_WAITING_PUSHES
