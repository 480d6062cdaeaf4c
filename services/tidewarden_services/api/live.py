"""The live half of the API: one background reader of the bus, any number of WebSocket clients.

The reader polls all the time and never waits for a client, so the pipeline is never held back. Each
client has a bounded queue; one that cannot keep up is closed with 1013 ("try again later") and may
come back for a fresh start, because everything it missed is in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import structlog
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from tidewarden.bus.port import BusClosedError, Consumer, Record, TopicPartition
from tidewarden.events import Alert, Anomaly, AnomalyBatch
from tidewarden.frames import NodeKey, RollupFrame
from tidewarden.store.port import Acknowledgement, Query, StoreUnavailableError
from tidewarden.topics import Purpose
from tidewarden_services.api.alerts import shown
from tidewarden_services.api.context import ApiContext
from tidewarden_services.api.readings import columns_of
from tidewarden_services.api.statistics import Statistics

log = structlog.get_logger(__name__)

PURPOSES: tuple[Purpose, ...] = ("anomalies", "alerts", "rollups")
QUEUE_MESSAGES = 512  # a client that is two seconds behind the largest possible flow
EVENTS_PER_BEAT = 100  # anomalies sent each beat at most, the highest scores; all are in the store
BEAT_S = 0.25
TICK_S = 1.0
MAX_CLIENTS = 256
CLOSE_TIMEOUT_S = 2.0
SUBSCRIBED_ROWS = 600
TRY_AGAIN_LATER = 1013
STORE_PATIENCE_S = 60.0  # of an Elasticsearch that starts beside us; then the pod is started anew
STORE_RETRY_S = 1.0


class Subscribe(msgspec.Struct):
    """The series a client wants to follow; null ends it."""

    series: str | None = None
    detector: str | None = None
    since: int | None = None


class ClientMessage(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say."""

    subscribe: Subscribe


class LatestRollups:
    """The newest score of each scope, fed by the reader thread, read by the sender."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, NodeKey], tuple[int, float, float]] = {}
        self.version = 0

    def take_in(self, frame: RollupFrame) -> None:
        """Keep the last row of each scope."""
        last = {scope: row for row, scope in enumerate(frame.scope.tolist())}
        with self._lock:
            for scope, row in last.items():
                at = int(frame.timestamp[row])
                key = (frame.detector, frame.scopes[scope])
                known = self._rows.get(key)
                if known is None or at >= known[0]:
                    self._rows[key] = (at, float(frame.score[row]), float(frame.peak[row]))
            self.version += 1

    def load(self, rows: list[dict[str, Any]]) -> None:
        """Begin with what the store has; what the bus has said since stays."""
        with self._lock:
            for row in rows:
                key = (row["detector"], NodeKey(row["tenant"], row["cluster"], row["node"]))
                self._rows.setdefault(key, (row["timestamp"], row["score"], row["peak"]))
            self.version += 1

    def read(self) -> list[dict[str, Any]]:
        """One row a scope: of several detectors the one with the highest score."""
        with self._lock:
            rows = sorted(self._rows.items())
        best: dict[NodeKey, dict[str, Any]] = {}
        for (detector, scope), (at, score, peak) in rows:
            known = best.get(scope)
            if known is None or score > known["score"]:
                best[scope] = {**scope._asdict(), "score": score, "peak": peak, "at": at, "detector": detector}
        return list(best.values())


class Client:
    """One WebSocket with its queue."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.subscription: Subscribe | None = None
        self.dropped = asyncio.Event()
        self._queue: asyncio.Queue[str] = asyncio.Queue(QUEUE_MESSAGES)

    def offer(self, message: str) -> None:
        """Queue a message; a full queue drops the client instead of waiting."""
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self.dropped.set()

    async def send_all(self) -> None:
        """Send what is queued, for ever."""
        while True:
            await self.socket.send_text(await self._queue.get())


class Live:
    """Reads the bus in a thread and tells every client."""

    def __init__(self, context: ApiContext, statistics: Statistics) -> None:
        self._context = context
        self._statistics = statistics
        self._clients: set[Client] = set()
        self._rollups = LatestRollups()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._anomalies: dict[str, Anomaly] = {}
        self._alerts: dict[str, Alert] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read and send while the application lives."""
        await asyncio.to_thread(self._load)
        consumer = self._consumer()
        thread = threading.Thread(target=self._read, args=(consumer,), name="api-live", daemon=True)
        thread.start()
        tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._tick())]
        try:
            yield
        finally:
            self._stop.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(thread.join, 5.0)

    def _load(self) -> None:
        """What the store knows; one that has just started says for seconds that its shards are missing."""
        deadline = self._context.clock.monotonic() + STORE_PATIENCE_S
        while True:
            try:
                self._rollups.load(self._context.store.latest_rollup(None).to_pylist())
            except StoreUnavailableError as error:
                if self._context.clock.monotonic() > deadline or self._stop.wait(STORE_RETRY_S):
                    raise
                log.info("the store cannot answer yet", reason=str(error))
            else:
                return

    # The reader thread ---------------------------------------------------------------------------

    def _consumer(self) -> Consumer:
        """A reader from now on: what was before is in the store."""
        bus = self._context.bus
        for topics in self._context.topics_by_stream.values():
            bus.create(topics.all())  # the server may be up before the services are
        names = [topics.name(purpose) for topics in self._context.topics_by_stream.values() for purpose in PURPOSES]
        consumer = bus.consumer(names, "api")
        ends = bus.ends(*names)
        consumer.seek(ends)
        consumer.commit(ends)
        return consumer

    def _read(self, consumer: Consumer) -> None:
        clock = self._context.clock
        read: dict[TopicPartition, int] = {}
        committed_at = clock.monotonic()
        try:
            while not self._stop.is_set():
                for record in consumer.poll(256, 0.1):
                    self._take_in(record)
                    read[record.place] = record.offset + 1
                if read and clock.monotonic() - committed_at >= TICK_S:
                    consumer.commit(read)
                    read, committed_at = {}, clock.monotonic()
        except BusClosedError:
            log.debug("the bus was closed: no more live messages")
        finally:
            consumer.close()

    def _take_in(self, record: Record) -> None:
        value = record.value
        if isinstance(value, RollupFrame):
            self._rollups.take_in(value)
        elif isinstance(value, AnomalyBatch):
            with self._lock:
                self._anomalies.update((anomaly.id, anomaly) for anomaly in value.anomalies)
                if len(self._anomalies) > 4 * EVENTS_PER_BEAT:
                    worst = sorted(self._anomalies.values(), key=lambda a: -a.peak_score)[:EVENTS_PER_BEAT]
                    self._anomalies = {anomaly.id: anomaly for anomaly in worst}
        elif isinstance(value, list):
            with self._lock:
                self._alerts.update((alert.id, alert) for alert in value if isinstance(alert, Alert))

    # The event loop ------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Anomalies and alerts a few times a second, the newest revision of each."""
        while True:
            await asyncio.sleep(BEAT_S)
            with self._lock:
                anomalies, self._anomalies = list(self._anomalies.values()), {}
                alerts, self._alerts = list(self._alerts.values()), {}
            with self._surviving():
                for anomaly in sorted(anomalies, key=lambda a: -a.peak_score)[:EVENTS_PER_BEAT]:
                    self._tell("anomaly", anomaly)
                for alert in alerts[-EVENTS_PER_BEAT:] if self._clients else []:
                    self._tell("alert", shown(alert, await asyncio.to_thread(self._acknowledgement, alert)))

    def _acknowledgement(self, alert: Alert) -> Acknowledgement | None:
        known = self._context.store.alert(alert.id)
        return None if known is None else known[1]

    def announce(self, alert: Alert) -> None:
        """Tell every client of an alert once more, because somebody has taken note of it; from any thread."""
        with self._lock:
            self._alerts.setdefault(alert.id, alert)

    async def _tick(self) -> None:
        """Statistics, rollups and subscribed readings each second."""
        told = -1
        while True:
            await asyncio.sleep(TICK_S)
            self._statistics.tick()
            if not self._clients:
                continue
            with self._surviving():
                self._tell("statistics", await asyncio.to_thread(self._statistics.read))
                if self._rollups.version != told:
                    told = self._rollups.version
                    self._tell("rollup", self._rollups.read())
                for client in list(self._clients):
                    await self._send_readings(client)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        """One bad beat must not end all later ones: it is counted and logged."""
        try:
            yield
        except Exception as error:
            self._context.telemetry.errors.labels("api", type(error).__name__).inc()
            log.warning("live update failed", exc_info=error)

    async def _send_readings(self, client: Client) -> None:
        wanted = client.subscription
        if wanted is None or wanted.series is None:
            return
        tenant, cluster, node, metric = wanted.series.split("/")
        query = Query(
            tenant=tenant, cluster=cluster, node=node, metric=metric, detector=wanted.detector, since=wanted.since,
            limit=SUBSCRIBED_ROWS,
        )  # fmt: skip
        document = await asyncio.to_thread(columns_of, self._context.store, query)
        if document is None or not document["columns"]["timestamp"]:
            return
        if client.subscription is not wanted:
            return
        columns = document["columns"]
        # A score may be written a moment after its reading: what has none yet is sent again.
        unscored = (at for at, p in zip(columns["timestamp"], columns["p_value"], strict=True) if p is None)
        since = columns["timestamp"][-1] + 1 if document["detector"] is None else next(
            unscored, columns["timestamp"][-1] + 1
        )  # fmt: skip
        client.subscription = Subscribe(wanted.series, wanted.detector or document["detector"], since)
        client.offer(_message("readings", document))

    def _tell(self, kind: str, data: Any) -> None:
        if self._clients:
            message = _message(kind, data)
            for client in self._clients:
                client.offer(message)

    # One client ----------------------------------------------------------------------------------

    async def serve(self, socket: WebSocket) -> None:
        """Speak with one client until it leaves or falls behind."""
        await socket.accept()
        if len(self._clients) >= MAX_CLIENTS:
            await socket.close(TRY_AGAIN_LATER, "too many clients")
            return
        client = Client(socket)
        client.offer(_message("hello", await asyncio.to_thread(self._statistics.read)))
        client.offer(_message("rollup", self._rollups.read()))
        self._clients.add(client)
        tasks = {
            asyncio.create_task(client.send_all()),
            asyncio.create_task(self._listen(client)),
            asyncio.create_task(client.dropped.wait()),
        }
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._clients.discard(client)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if client.dropped.is_set():
            self._context.telemetry.errors.labels("api", "slow_client").inc()
        if client.dropped.is_set() and socket.application_state is WebSocketState.CONNECTED:
            # The peer may not read at all; then the transport's own timeout ends it.
            with contextlib.suppress(asyncio.TimeoutError, RuntimeError, WebSocketDisconnect):
                await asyncio.wait_for(socket.close(TRY_AGAIN_LATER, "too slow"), CLOSE_TIMEOUT_S)

    async def _listen(self, client: Client) -> None:
        while True:
            try:
                text = await client.socket.receive_text()
            except (WebSocketDisconnect, KeyError):  # KeyError: a binary message, which nobody here sends
                return
            try:
                wanted = msgspec.json.decode(text, type=ClientMessage).subscribe
            except msgspec.DecodeError as error:
                client.offer(_message("error", {"detail": f"{error}; write {{'subscribe': {{'series': 't/c/n/m'}}}}"}))
                continue
            if wanted.series is not None and wanted.series.count("/") != 3:
                detail = f"series = {wanted.series!r}: write tenant/cluster/node/metric"
                client.offer(_message("error", {"detail": detail}))
                continue
            client.subscription = wanted
            await self._send_readings(client)


def _message(kind: str, data: Any) -> str:
    return msgspec.json.encode({"type": kind, "data": data}).decode()
