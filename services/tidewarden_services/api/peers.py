"""The board of a whole namespace: what every pod says at ``/status``, read as one.

A thread looks the peers up by DNS and asks each every two seconds, several at a time, each for a bounded
time. Who does not answer three rounds in a row, or is no longer in DNS, disappears from the board.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import NamedTuple

import msgspec
import structlog

from tidewarden.clock import Clock
from tidewarden.status import Board, Figures, ProcessStatus, merge_boards

EVERY_S = 2.0
ANSWER_S = 1.0  # a pod in the same cluster answers within milliseconds
AT_ONCE = 16  # 200 pods that all hang hold a round up for 200 / 16 × 1 s = 13 s
MISSES = 3
BYTES_AT_MOST = 4_000_000  # of one answer; a pod's board is some 10 KB, and 1 KB for each detector or source

log = structlog.get_logger(__name__)

Address = tuple[str, int]


class _Peer(NamedTuple):
    status: ProcessStatus
    misses: int


class PeerBoard:
    """What all peers say, as one board.

    Args:
        peers: ``host:port``, several with commas between them; each host is every address it resolves to.
        clock: paces the rounds.
        on_round: called each round, by the thread that asks.
    """

    def __init__(self, peers: str, clock: Clock, on_round: Callable[[], None] = lambda: None) -> None:
        self._names = [_split(name) for name in peers.split(",")]
        self._clock = clock
        self._on_round = on_round
        self._lock = threading.Lock()
        self._peers: dict[Address, _Peer] = {}
        self.rounds = 0

    def run(self, stop: threading.Event) -> None:
        """Ask round after round until ``stop`` is set."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="peer") as pool:
            while not stop.is_set():
                self._on_round()
                addresses = self._addresses()
                answers = dict(zip(addresses, pool.map(_ask, addresses), strict=True))
                with self._lock:
                    self._peers = dict(self._known(answers))
                    self.rounds += 1
                self._clock.wait(stop, EVERY_S)

    def read(self) -> Board:
        """The boards of all peers as one."""
        return merge_boards(status.board for status in self.peers())

    def figures(self) -> Figures:
        """The running totals of all peers, added up."""
        return reduce(Figures.plus, (status.figures for status in self.peers()), Figures())

    def peers(self) -> list[ProcessStatus]:
        """The newest word of each peer."""
        with self._lock:
            return [peer.status for peer in self._peers.values()]

    def _known(self, answers: dict[Address, ProcessStatus | None]) -> Iterable[tuple[Address, _Peer]]:
        for address, status in answers.items():
            known = self._peers.get(address)
            if status is not None:
                yield address, _Peer(status, 0)
            elif known is not None and known.misses + 1 < MISSES:
                yield address, _Peer(known.status, known.misses + 1)

    def _addresses(self) -> list[Address]:
        found: dict[Address, None] = {}
        for host, port in self._names:
            try:
                infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except socket.gaierror as error:
                log.debug("no such peers", host=host, error=str(error))
                continue
            found.update({(str(info[4][0]), port): None for info in infos})
        return list(found)


def _split(name: str) -> Address:
    host, colon, port = name.strip().rpartition(":")
    if not colon or not port.isdecimal():
        raise ValueError(f"peers: {name!r} is no host:port: write it as in tidewarden-peers:9464")
    return host.strip("[]"), int(port)


def _ask(address: Address) -> ProcessStatus | None:
    connection = http.client.HTTPConnection(*address, timeout=ANSWER_S)
    try:
        connection.request("GET", "/status")
        response = connection.getresponse()
        if response.status != http.HTTPStatus.OK:
            return None
        return msgspec.json.decode(response.read(BYTES_AT_MOST), type=ProcessStatus)
    except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
        log.debug("a peer does not answer", peer=f"{address[0]}:{address[1]}", error=str(error))
        return None
    finally:
        connection.close()
