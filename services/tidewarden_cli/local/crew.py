"""The threads of one process: started together, stopped in order, none dying unseen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger()


@dataclass(slots=True)
class _Member:
    name: str
    stop: threading.Event
    thread: threading.Thread


class Crew:
    """Named threads, each with a stop event of its own so that stages can stop one after another."""

    def __init__(self) -> None:
        self._members: list[_Member] = []
        self.failed = threading.Event()
        self.failure: tuple[str, BaseException] | None = None

    def start(self, name: str, run: Callable[[threading.Event], None]) -> None:
        """Run ``run(stop)`` in a thread; what it raises is logged and sets ``failed``."""
        stop = threading.Event()

        def body() -> None:
            try:
                run(stop)
            except BaseException as error:
                log.exception("stopped by an error", service=name)
                if self.failure is None:
                    self.failure = (name, error)
                self.failed.set()

        thread = threading.Thread(target=body, name=name, daemon=True)
        self._members.append(_Member(name, stop, thread))
        thread.start()

    def stop(self, prefix: str, timeout_s: float) -> list[str]:
        """Stop the threads whose name starts with ``prefix`` and wait; names of those still running."""
        members = [member for member in self._members if member.name.startswith(prefix)]
        for member in members:
            member.stop.set()
        for member in members:
            member.thread.join(timeout_s)
        return [member.name for member in members if member.thread.is_alive()]

    def running(self, prefix: str = "") -> bool:
        """Whether any thread whose name starts with ``prefix`` is still at work."""
        return any(member.thread.is_alive() for member in self._members if member.name.startswith(prefix))
