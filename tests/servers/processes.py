"""What all servers of the tests share: ports of their own, and an end with us."""

from __future__ import annotations

import shutil
import socket


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
