"""What all servers of the tests share: ports of their own, an end with us, and patience with what they do."""

from __future__ import annotations

import random
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

PATIENCE_S = 60.0
PORTS = range(20_000, 30_000)  # Linux gives away 32768 to 60999 by itself, Kubernetes' node ports begin at 30000


def bound_to_us() -> list[str]:
    """What ends a program together with the thread that starts it, even if this process is killed."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has now.

    A server takes its port seconds later. So they lie below those that the kernel gives away meanwhile, to connections
    and to whoever asks for any port. They are drawn: of 10,000, two workers hardly ever hit on one in the same seconds.
    """
    found: dict[int, socket.socket] = {}
    try:
        while len(found) < count:
            port = random.SystemRandom().choice(PORTS)
            with suppress(OSError):  # somebody has it: the next
                found.setdefault(port, socket.create_server(("127.0.0.1", port)))
    finally:
        for one in found.values():
            one.close()
    return list(found)


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition; an AssertionError says what did not happen."""
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: this did not happen in time"
        pause.wait(0.02)
