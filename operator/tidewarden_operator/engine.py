"""The engine: watches fill the mirror and enqueue keys, workers reconcile them.

Two clocks see to what no watch tells: a resync, and asking the pods how they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog

from tidewarden.clock import Clock
from tidewarden.resources.base import parse_duration
from tidewarden_operator.backends import Keeper, Opener
from tidewarden_operator.cluster.client import Cluster, ClusterError
from tidewarden_operator.cluster.kinds import KINDS, KindInfo
from tidewarden_operator.cluster.mirror import Mirror
from tidewarden_operator.keys import OWNER_KINDS, Key, Manifest, Ref
from tidewarden_operator.metrics import OperatorMetrics
from tidewarden_operator.peers import Peers
from tidewarden_operator.plan.names import owner_key
from tidewarden_operator.plan.shared import RulesOf
from tidewarden_operator.plan.site import Site
from tidewarden_operator.queue import Workers, WorkQueue
from tidewarden_operator.reconcile import reconcile
from tidewarden_operator.reconcile.context import Context
from tidewarden_operator.settings import OperatorSettings

# Many words about one resource within so short a time, as while its pods start, are one reason to look at it.
SETTLE_S = 0.05
# What resources share is looked at once for all that are applied together: its API pod restarts with every change.
GATHER_S = 1.0
# For each of the two sets of workers; together below the 20 s that the chart grants. What is cut off is done by the
# successor.
STOP_S = 8.0
# Of an evaluation, and how the status spells them.
MEASURES: Mapping[str, tuple[str, Callable[[Any], float]]] = {
    "precision": ("precision", float),
    "recall": ("recall", float),
    "f1": ("f1", float),
    "vus_pr": ("vusPr", float),
    "false_alarms_per_day": ("falseAlarmsPerDay", float),
    "delay_seconds": ("delay", lambda text: parse_duration(text) / 1000),
}

log = structlog.get_logger()


class Engine:
    """Everything of the operator but the watches.

    Args:
        settings: of the operator.
        cluster: reads and writes.
        opener: of connections to Kafka and Elasticsearch.
        clock: of all waits.
        metrics: of the operator.
        rules: alert rules of a namespace.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        cluster: Cluster,
        opener: Opener,
        clock: Clock,
        metrics: OperatorMetrics,
        rules: RulesOf,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._clock = clock
        self._metrics = metrics
        self._stop = threading.Event()
        self._resync = threading.Event()
        self._kinds: frozenset[str] = frozenset()
        self.synced = threading.Event()
        self.mirror = Mirror()
        self.queue = WorkQueue(clock)
        self.workers = Workers(self.queue, self._work, self._failed, settings.workers, "reconcile", clock)
        self._keeper = Keeper(opener, clock, settings.resync_s, self._enqueue)
        self._peers = Peers(lambda: self.mirror.of_kind("Pod"), self._enqueue)
        self.context = Context(
            mirror=self.mirror,
            writer=cluster,
            site=lambda: Site(settings, self._kinds),
            keeper=self._keeper,
            peers=self._peers,
            clock=clock,
            again=self.queue.add,
            metrics=metrics,
            rules=rules,
        )
        self._threads = [
            threading.Thread(target=self._resync_for_ever, name="resync", daemon=True),
            threading.Thread(target=self._every(settings.status_s, self._peers.refresh), name="peers", daemon=True),
        ]

    def start(self) -> None:
        """Begin: the mirror is filled first, so that nobody acts upon half the truth."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after what is in hand."""
        self._stop.set()
        self._resync.set()
        self.workers.stop(STOP_S)
        self._keeper.workers.stop(STOP_S)
        self._peers.close()
        self._cluster.close()

    def resync(self) -> None:
        """List everything and reconcile every resource, soon: a watch may have missed something."""
        self._resync.set()

    def notice(self, event: str | None, body: Manifest) -> None:
        """A watch says that an object is as ``body``; ``event`` is ADDED, MODIFIED, DELETED or None for listed."""
        before = self.mirror.drop(body) if event == "DELETED" else self.mirror.put(body)
        now = None if event == "DELETED" else self.mirror.get(Ref.of(body))
        if now is not before:
            self._enqueue_for(body, before, now)

    def known(self) -> dict[str, tuple[int, int]]:
        """By kind: resources that are ours, and how many of them are not Ready."""
        found: dict[str, tuple[int, int]] = {}
        for kind in OWNER_KINDS:
            bodies = self.mirror.of_kind(kind)
            found[kind] = (len(bodies), sum(not _is_ready(body) for body in bodies))
        return found

    def _enqueue(self, key: Key) -> None:
        self.queue.add(key, SETTLE_S)

    def _enqueue_for(self, body: Manifest, before: Manifest | None, now: Manifest | None) -> None:
        metadata = body["metadata"]
        namespace = metadata.get("namespace", "")
        if not KINDS[body["kind"]].ours:
            owner = owner_key(body)
            if owner is not None:
                self._enqueue(owner)
            return
        self._enqueue(Key(body["kind"], namespace, metadata["name"]))
        if body["kind"] == "MetricSimulation" and _phase(before) != _phase(now):
            # The stream counts what it has played, which its pod no longer says when it has ended.
            self._enqueue(Key("MetricStream", namespace, body["spec"]["stream"]))
        if _spec(before) == _spec(now):
            return
        # Others of the namespace may refer to it, and the API shows it.
        self.queue.add(Key("Namespace", namespace), GATHER_S)
        if body["kind"] in {"MetricStream", "AnomalyDetector"}:
            for kind in OWNER_KINDS:
                for other in self.mirror.of_kind(kind, namespace):
                    self._enqueue(Key(kind, namespace, other["metadata"]["name"]))

    def _work(self, key: Key) -> None:
        with self._metrics.reconciles.labels(key.kind).time():
            reconcile(self.context, key)

    def _failed(self, key: Key, error: Exception, delay_s: float) -> None:
        self._metrics.errors.labels(key.kind).inc()
        if isinstance(error, ClusterError):
            log.warning("not yet", resource=str(key), error=str(error), again_in_s=delay_s)
        else:
            log.error("reconciling failed", resource=str(key), again_in_s=delay_s, exc_info=error)

    def _resync_for_ever(self) -> None:
        pause_s = 1.0
        while not self._stop.is_set():
            self._resync.clear()
            try:
                self._list_all()
            except ClusterError as error:
                log.warning("the cluster cannot be listed", error=str(error), again_in_s=pause_s)
                self._clock.wait(self._stop, pause_s)
                pause_s = min(30.0, pause_s * 2)
                continue
            pause_s = 1.0
            if not self.synced.is_set():
                self.synced.set()
                self.workers.start()
                self._keeper.workers.start()
            self._clock.wait(self._resync, self._settings.resync_s)

    def _list_all(self) -> None:
        self._kinds = self._cluster.available()
        keys: set[Key] = set()
        for info in KINDS.values():
            if info.optional and info.kind not in self._kinds:
                continue
            for namespace in self._settings.namespaces or [""]:
                self._list_one(info, namespace)
            if info.ours:
                for body in self.mirror.of_kind(info.kind):
                    namespace = body["metadata"]["namespace"]
                    keys |= {Key(info.kind, namespace, body["metadata"]["name"]), Key("Namespace", namespace)}
        keys |= {key for key in self.mirror.owners() if key.kind == "Namespace"}
        for key in sorted(keys):
            self.queue.add(key)

    def _list_one(self, info: KindInfo, namespace: str) -> None:
        listed, version = self._cluster.list(info, namespace)
        self.mirror.replace(info.kind, listed, version, namespace)

    def _every(self, pause_s: float, act: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            while not self._clock.wait(self._stop, pause_s):
                if self.synced.is_set():
                    act()

        return run


def _phase(body: Manifest | None) -> object:
    return ((body or {}).get("status") or {}).get("phase")


def _spec(body: Manifest | None) -> object:
    """What others may depend on."""
    if body is None:
        return None
    metadata = body["metadata"]
    return body.get("spec"), metadata.get("uid"), metadata.get("deletionTimestamp")


def _is_ready(body: Manifest) -> bool:
    conditions = (body.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def evaluations(mirror: Mirror) -> Iterator[tuple[str, str, str, str, float]]:
    """What the simulations' statuses say: namespace, simulation, detector, measure, its value."""
    for body in mirror.of_kind("MetricSimulation"):
        metadata = body["metadata"]
        for row in (body.get("status") or {}).get("evaluation") or []:
            for measure, (field, number) in MEASURES.items():
                if row.get(field) is not None:
                    yield metadata["namespace"], metadata["name"], row["detector"], measure, number(row[field])
