"""What all servers of the tests share: ports of their own, an end with us, and patience with what they do."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 60.0


def bound_to_us() -> list[str]:
    """What ends a program together with the thread that starts it, even if this process is killed."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition; an AssertionError says what did not happen."""
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: this did not happen in time"
        pause.wait(0.02)
