"""Time, passed in. Nothing below the entry points reads the wall clock by itself."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What a component may know of time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back, for durations and deadlines."""

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait for ``event`` for at most ``timeout`` seconds; true if it was set."""


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, UTC."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait for ``event`` for at most ``timeout`` seconds; true if it was set."""
        return event.wait(timeout)


class ManualClock:
    """A clock that moves only when told to, for tests: waiting advances it."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = float(now_ms)

    def now_ms(self) -> int:
        """The instant the test has set."""
        return int(self._now_ms)

    def monotonic(self) -> float:
        """The same instant in seconds."""
        return self._now_ms / 1000

    def advance(self, seconds: float) -> None:
        """Move time forward by ``seconds``."""
        self._now_ms += seconds * 1000

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Advance by ``timeout`` instead of waiting, unless ``event`` is already set."""
        if event.is_set():
            return True
        self.advance(timeout)
        return event.is_set()
