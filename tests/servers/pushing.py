"""A client of the push source that does what its documentation asks for: what was not answered is sent again."""

from __future__ import annotations

import random
import threading

import httpx

BEGIN_MS = 1_767_571_200_000  # 2026-01-05T00:00:00Z
INTERVAL_MS = 60_000
NODES = 4
LEARNED = 120  # ticks before the first spike
SPIKE_EVERY, SPIKE_TICKS = 37, 4
TIMEOUT_S = 8.0  # shorter than an outage, so that what is sent again is still on its way from the first time
AGAIN_S = 0.3
LAST = 20  # ticks that are kept back until the end is asked for


def readings(ticks: int) -> list[list[dict[str, object]]]:
    """Tick by tick the readings of some nodes with noise, and with spikes of one node at a time."""
    chance = random.Random(5)
    series = []
    for tick in range(ticks):
        row: list[dict[str, object]] = []
        for node in range(NODES):
            value = 100 + chance.gauss(0, 2)
            since = tick - LEARNED
            if since >= 0 and since % SPIKE_EVERY < SPIKE_TICKS and since // SPIKE_EVERY % NODES == node:
                value += 60
            place = {"tenant": "own", "cluster": "pushed", "node": f"n{node}", "metric": "queue_length"}
            row.append({**place, "timestamp": BEGIN_MS + tick * INTERVAL_MS, "value": round(value, 6)})
        series.append(row)
    return series


class PushClient:
    """Sends one request a tick, in order, in a thread of its own.

    Args:
        url: of the push source; it may be away.
        ticks: how many.
        pause_s: between an answer and the next request, until `finish` is called; the last ticks wait for that.
    """

    def __init__(self, url: str, ticks: int, pause_s: float) -> None:
        self.sent = 0
        self.repeated = 0
        self.failure = ""
        self._url = f"{url}/api/v1/readings"
        self._rows = readings(ticks)
        self._pause_s = pause_s
        self._finish = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether there is something left to send."""
        return self._thread.is_alive()

    def finish(self) -> None:
        """Send the rest as fast as answers come."""
        self._finish.set()

    def close(self) -> None:
        """Give up."""
        self._stop.set()
        self._finish.set()
        self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        with httpx.Client(timeout=TIMEOUT_S) as client:
            for number, row in enumerate(self._rows):
                self._finish.wait(self._pause_s if number < len(self._rows) - LAST else None)
                if self._stop.is_set():
                    return
                while not self._taken(client, row):
                    self.repeated += 1
                    if self._stop.wait(AGAIN_S):
                        return
                if self.failure:
                    return
                self.sent += 1

    def _taken(self, client: httpx.Client, row: list[dict[str, object]]) -> bool:
        """Whether every reading is on the bus by the source's own word; False: send it again."""
        try:
            answer = client.post(self._url, json=row)
        except httpx.TransportError:
            return False
        if answer.status_code == 503:
            return False
        known = answer.json()
        reasons = {error["reason"] for error in known.get("errors", [])}
        complete = known.get("accepted", 0) + known.get("rejected", 0) == len(row)
        # A reading that was on the bus already when it came again is a duplicate: that, too, says that it is there.
        if not complete or not reasons <= {"duplicate"}:
            self.failure = f"{answer.status_code}: {answer.text}"
        return True
