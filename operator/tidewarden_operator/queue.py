"""The work queue: every key at most once, never in two hands, later after a failure."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tidewarden.clock import Clock
from tidewarden_operator.keys import Key

# A failed key is tried again after 0.5 s, 1 s … 30 s: soon when the cause was a conflict, and at most two calls a
# minute and key against a server that stays away.
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0


@dataclass(order=True, slots=True)
class _Entry:
    due_s: float
    key: Key = field(compare=False)


class WorkQueue:
    """Keys that are due, in the order in which they fell due. Its size is bounded by the number of keys.

    A key that is added while a worker has it is handed out again afterwards. Of two times the earlier one counts.

    Args:
        clock: of the due times.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._heap: list[_Entry] = []
        self._due: dict[Key, float] = {}
        self._taken: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._closed = False

    def add(self, key: Key, delay_s: float = 0.0) -> None:
        """Hand out ``key`` after ``delay_s``, if not already sooner."""
        due = self._clock.monotonic() + delay_s
        with self._changed:
            known = self._due.get(key)
            if known is not None and known <= due:
                return
            self._due[key] = due
            heapq.heappush(self._heap, _Entry(due, key))
            self._changed.notify()

    def take(self, timeout_s: float) -> Key | None:
        """The next key that is due, or None after ``timeout_s`` or when closed. Give it back by `done`."""
        end = self._clock.monotonic() + timeout_s
        with self._changed:
            while not self._closed:
                now = self._clock.monotonic()
                key, wait_s = self._next(now)
                if key is not None:
                    del self._due[key]
                    self._taken.add(key)
                    return key
                wait_s = min(wait_s, end - now)
                if wait_s <= 0:
                    return None
                self._changed.wait(wait_s)
            return None

    def done(self, key: Key, *, failed: bool) -> float:
        """A worker is finished with ``key``; one that failed comes again. Returns after how many seconds, or 0."""
        with self._changed:
            self._taken.discard(key)
            self._changed.notify()
            if not failed:
                self._failures.pop(key, None)
                return 0.0
            count = self._failures[key] = self._failures.get(key, 0) + 1
        delay: float = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2 ** min(count - 1, 16))
        self.add(key, delay)
        return delay

    def due(self) -> int:
        """How many keys wait that are due."""
        now = self._clock.monotonic()
        with self._changed:
            return sum(due <= now for due in self._due.values())

    def oldest_s(self) -> float:
        """For how long the longest-waiting key has been due, seconds."""
        now = self._clock.monotonic()
        with self._changed:
            return max((now - due for key, due in self._due.items() if key not in self._taken), default=0.0)

    def close(self) -> None:
        """Hand out nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self, now: float) -> tuple[Key | None, float]:
        """The key to hand out, or None and how long the next one takes, seconds."""
        held: list[_Entry] = []
        found: Key | None = None
        wait_s = float("inf")
        while self._heap:
            entry = self._heap[0]
            if self._due.get(entry.key) != entry.due_s:  # an earlier time came after it
                heapq.heappop(self._heap)
            elif entry.due_s > now:
                wait_s = entry.due_s - now
                break
            elif entry.key in self._taken:
                held.append(heapq.heappop(self._heap))
            else:
                found = heapq.heappop(self._heap).key
                break
        for entry in held:
            heapq.heappush(self._heap, entry)
        return found, wait_s


class Workers:
    """Threads that take keys and work on them.

    Args:
        queue: of the keys.
        work: what to do with one; an exception is logged by ``failed`` and the key comes again.
        failed: told of the key, the exception and the seconds until the next attempt.
        count: threads.
        name: of the threads.
    """

    def __init__(
        self,
        queue: WorkQueue,
        work: Callable[[Key], None],
        failed: Callable[[Key, Exception, float], None],
        count: int,
        name: str,
        clock: Clock,
    ) -> None:
        self._queue = queue
        self._work = work
        self._failed = failed
        self._clock = clock
        self._stop = threading.Event()
        self._round: dict[str, float] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]

    def start(self) -> None:
        """Begin."""
        now = self._clock.monotonic()
        for thread in self._threads:
            self._round[thread.name] = now
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """End after what is in hand; what takes longer than ``timeout_s`` is left behind: it is safe to repeat."""
        self._stop.set()
        self._queue.close()
        end = self._clock.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, end - self._clock.monotonic()))

    def stuck_s(self) -> float:
        """How long ago the most recently active worker took up anything, seconds; infinite if all have died."""
        alive = [self._round[thread.name] for thread in self._threads if thread.is_alive()]
        return self._clock.monotonic() - max(alive) if alive else float("inf")

    def _run(self) -> None:
        name = threading.current_thread().name
        while not self._stop.is_set():
            self._round[name] = self._clock.monotonic()
            key = self._queue.take(timeout_s=1.0)
            if key is None:
                continue
            try:
                self._work(key)
            except Exception as error:
                self._failed(key, error, self._queue.done(key, failed=True))
            else:
                self._queue.done(key, failed=False)
