"""What the pods say of themselves: their `/status`, asked for by several threads with bounded patience."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import structlog
import urllib3

from tidewarden.settings import METRICS_PORT
from tidewarden_operator.keys import Key, Manifest, Ref
from tidewarden_operator.plan.names import owner_key

# 1,000 pods by 16 threads at 5 ms each take 0.3 s; 100 of them silent take 100 / 16 × 2 s = 12 s.
THREADS = 16
TIMEOUT_S = 2.0
# A status is a few KB; one beyond this is not one of ours.
MAX_BYTES = 4 * 1024 * 1024

log = structlog.get_logger()
Status = dict[str, Any]


class Peers:
    """The last word of each pod.

    Args:
        pods: all pods that are ours.
        changed: told of the owner of pods that say something new.
    """

    def __init__(self, pods: Callable[[], list[Manifest]], changed: Callable[[Key], None]) -> None:
        self._pods = pods
        self._changed = changed
        self._lock = threading.Lock()
        self._said: dict[Ref, Status] = {}
        self._http = urllib3.PoolManager(num_pools=256, maxsize=1, retries=False)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="peers")

    def of(self, pods: list[Manifest]) -> dict[str, Status]:
        """What these pods last said, by name; those that said nothing are absent."""
        with self._lock:
            found = {Ref.of(pod): self._said.get(Ref.of(pod)) for pod in pods}
        return {ref.name: status for ref, status in found.items() if status is not None}

    def refresh(self) -> None:
        """Ask every pod once, and tell whose pods say something new."""
        pods = {Ref.of(pod): pod for pod in self._pods()}
        asked = list(pods.items())
        answers = list(self._threads.map(lambda item: self._ask(item[1]), asked))
        owners: set[Key] = set()
        with self._lock:
            for (ref, pod), answer in zip(asked, answers, strict=True):
                before = self._said.get(ref)
                if _facts(before) != _facts(answer):
                    owner = owner_key(pod)
                    if owner is not None:
                        owners.add(owner)
                if answer is None:
                    self._said.pop(ref, None)
                else:
                    self._said[ref] = answer
            for ref in self._said.keys() - pods.keys():
                del self._said[ref]
        for owner in owners:
            self._changed(owner)

    def close(self) -> None:
        """Ask nobody any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.clear()

    def _ask(self, pod: Manifest) -> Status | None:
        address = (pod.get("status") or {}).get("podIP")
        if not address or (pod.get("status") or {}).get("phase") != "Running":
            return None
        host = f"[{address}]" if ":" in address else address
        try:
            answer = self._http.request(
                "GET", f"http://{host}:{_port(pod)}/status", timeout=TIMEOUT_S, preload_content=False
            )
            try:
                body = answer.read(MAX_BYTES)
            finally:
                answer.release_conn()
            content = msgspec.json.decode(body)
        except (urllib3.exceptions.HTTPError, OSError, msgspec.DecodeError) as error:
            log.debug("a pod does not say how it is", pod=pod["metadata"]["name"], error=str(error))
            return None
        return content if answer.status == 200 and isinstance(content, dict) else None


def _port(pod: Manifest) -> int:
    for container in pod["spec"].get("containers", []):
        for port in container.get("ports") or []:
            if port.get("name") == "metrics":
                return int(port["containerPort"])
    return METRICS_PORT


def _facts(status: Mapping[str, Any] | None) -> object:
    """What counts as news: everything but when it was said."""
    return None if status is None else {name: value for name, value in status.items() if name != "at"}
