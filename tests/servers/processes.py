"""What all servers of the tests share: ports of their own, an end with us, and patience with what they do."""

from __future__ import annotations

import os
import random
import shutil
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count as count_on
from typing import Any

PATIENCE_S = 60.0
WORKERS = 8  # of pytest-xdist, at most: 1,250 ports for each, of which a run takes a third
PORTS = range(20_000, 30_000)  # Linux gives away 32768 to 60999 by itself, Kubernetes' node ports begin at 30000

_turns = count_on(random.SystemRandom().randrange(len(PORTS)))  # what was given is the one thing to be remembered


def bound_to_us() -> list[str]:
    """What ends a program together with the thread that starts it, even if this process is killed."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has now, and that we are not given again.

    A server takes its port seconds later, or leaves it while it is dead. So they lie below those that the kernel gives
    away meanwhile; each worker has its own and gives them out in turn, from anywhere on: so does a run beside ours.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ours = PORTS[worker % WORKERS :: WORKERS]
    found: dict[int, socket.socket] = {}
    try:
        while len(found) < count:
            port = ours[next(_turns) % len(ours)]
            with suppress(OSError):  # somebody has it: the next
                found[port] = socket.create_server(("127.0.0.1", port))
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
