"""The store on Elasticsearch: dated indices behind aliases, deterministic ids, offsets written last.

The order of a write, which is what makes it exact:

1. the index templates are there (made if not);
2. every document of the batch is encoded: what could fail in it fails before anything is sent;
3. all documents are written, each under an id that depends on what it says;
4. what the server refuses for good is written as rejections, with the reason;
5. the offsets are written.

A process that dies in between has offsets that are too old. It reads the same records again and writes the
same documents under the same ids. So nothing is lost or doubled, though a reader may for a while see a part
of a batch.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args

import msgspec
import pyarrow as pa
import structlog

from tidewarden.bus.port import TopicPartition
from tidewarden.clock import Clock, SystemClock
from tidewarden.events import Alert, Anomaly, Feedback, Rejection
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch import joining, queries
from tidewarden.store.elasticsearch.client import Client, Refused
from tidewarden.store.elasticsearch.documents import Documents, refusal
from tidewarden.store.elasticsearch.names import DAY_MS, Kind, StreamNames, stream_of
from tidewarden.store.elasticsearch.searching import Searcher
from tidewarden.store.elasticsearch.templates import REFRESH_S
from tidewarden.store.elasticsearch.upkeep import Upkeep
from tidewarden.store.port import Acknowledgement, Purgeable, Query, StoreError, WriteBatch

E = TypeVar("E", Anomaly, Alert, Rejection, Feedback)

log = structlog.get_logger()

DEFAULT_RETENTION_MS = 30 * DAY_MS  # of MetricStream.spec.archive.retention
_OFFSETS = "offsets"
_MARGIN = 8  # more detectors than that on one series are not worth an exact edge
MAX_SCOPES = 1_000_000  # scopes of all detectors; a fleet of 200,000 nodes with 5 detectors


class ElasticsearchStore:
    """A `Store` on Elasticsearch; nothing is asked of the server before the first call.

    Args:
        settings: where it is, and how its indices are called and cut.
        namespace: the resources' namespace; a store sees no other.
        clock: waits between attempts, and says when something was refused.
        refresh_s: how soon what was written can be found, for new indices; below zero: not by itself.
        refresh_after_write: make each write findable before it returns; costs about 20 ms a write. For tests
            and evaluation.

    Raises:
        StoreError: the settings cannot be used. Every other method raises it for what no waiting mends (with
            address, reason and remedy), and `StoreUnavailableError` for what it may.
    """

    def __init__(
        self,
        settings: ElasticsearchSettings,
        namespace: str,
        *,
        clock: Clock | None = None,
        refresh_s: float = REFRESH_S,
        refresh_after_write: bool = False,
    ) -> None:
        self._settings = settings
        self._namespace = namespace
        self._clock = SystemClock() if clock is None else clock
        self._refresh_after_write = refresh_after_write
        self._client = Client(settings, self._clock)
        self._searcher = Searcher(self._client, settings.prefix, namespace)
        self._upkeep = Upkeep(self._client, self._searcher, settings, refresh_s)
        self._documents: dict[str, Documents] = {}
        self._retention_ms: dict[str, int] = {}  # by stream, as told by prepare
        self._lock = threading.Lock()

    # Upkeep ------------------------------------------------------------------------------------------

    def prepare(self, stream: str, retention_ms: int) -> list[str]:
        """Make the stream's index templates (and ILM policy); the names of what had to be written.

        Idempotent, and without a write where nothing differs. A changed retention may change how many days an
        index holds; an archive that runs goes by what it found when it started.
        """
        self._retention_ms[stream] = retention_ms
        return self._upkeep.prepare(self._names(stream), retention_ms)

    def drop(self, stream: str) -> list[str]:
        """Remove all of a stream: indices, aliases, templates, policy; the names of what there was."""
        with self._lock:
            self._documents.pop(stream, None)
            return self._upkeep.drop(self._names(stream))

    def refresh(self, stream: str) -> None:
        """Make everything written so far findable; scores first, as readers rely on."""
        names = self._names(stream)
        for pattern in (names.pattern("scores"), names.everything):
            self._client.ask("POST", f"/{pattern}/_refresh")

    def purge(self, purpose: Purgeable, stream: str, before: int) -> int:
        """Retention: remove what is older than ``before`` (ms since the epoch); how many documents went.

        Readings, scores, rollups and rejections go by whole indices, so they may stay for as long as one holds.
        """
        if purpose == "readings" and self._upkeep.period_days(self._names(stream)) is None:
            # Somebody removed the templates: without them tomorrow's index would be anything.
            with self._lock:
                self._documents.pop(stream, None)
        return self._upkeep.purge(purpose, self._names(stream), before)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _names(self, stream: str) -> StreamNames:
        return StreamNames(self._settings.prefix, self._namespace, stream)

    # Writing -----------------------------------------------------------------------------------------

    def write(self, batch: WriteBatch) -> None:
        """Write all of ``batch``, its offsets last.

        Raises:
            StoreUnavailableError: a part may have been written; write the same batch again.
        """
        with self._lock:
            documents = self._documents_of(batch.stream)
            operations = documents.of(batch)
            refused = self._client.bulk(operations)
            if refused:
                self._keep_refused(documents, batch.stream, refused)
            documents.settle()
            if batch.offsets:
                self._write_offsets(batch.stream, batch.offsets)
            if self._refresh_after_write:
                self.refresh(batch.stream)

    def _documents_of(self, stream: str) -> Documents:
        known = self._documents.get(stream)
        if known is None:
            names = self._names(stream)
            days = self._upkeep.period_days(names)
            if days is None:
                self._upkeep.prepare(names, self._retention_ms.get(stream, DEFAULT_RETENTION_MS))
                days = self._upkeep.period_days(names)
                assert days is not None
            known = self._documents[stream] = Documents(names, days)
        return known

    def _keep_refused(self, documents: Documents, stream: str, refused: list[Refused]) -> None:
        now = self._clock.now_ms()
        kept = [refusal(self._names(stream), each, now) for each in refused]
        log.warning("the server refused documents", stream=stream, documents=len(kept), first=kept[0].detail)
        lost = self._client.bulk(documents.rejected(kept))
        if lost:
            raise StoreError(f"{self._client.url} refuses {len(lost)} documents and keeping them too: {lost[0].reason}")

    def _write_offsets(self, stream: str, offsets: Mapping[TopicPartition, int]) -> None:
        merged = {**self.offsets(stream), **offsets}
        topics: dict[str, dict[str, int]] = {}
        for place, position in merged.items():
            topics.setdefault(place.topic, {})[str(place.partition)] = position
        self._client.ask("PUT", f"/{self._names(stream).single('offsets')}/_doc/{_OFFSETS}", {"offsets": topics})

    def acknowledge(self, acknowledgement: Acknowledgement) -> bool:
        """Record it, in place of an earlier one; false where no alert has that id."""
        for page in self._searcher.by_ids(self._searcher.target("alerts", None), [acknowledgement.alert_id]):
            for hit in page:
                names = self._searcher.names_of_hit(hit)
                operation = Documents(names, 1).acknowledgement(acknowledgement)
                refused = self._client.bulk([operation])
                if refused:
                    raise StoreError(f"{self._client.url} refuses the acknowledgement: {refused[0].reason}")
                # Rare, and the one who wrote it looks at once.
                self._client.ask("POST", f"/{names.pattern('acknowledgements')}/_refresh")
                return True
        return False

    # Reading -----------------------------------------------------------------------------------------

    def offsets(self, stream: str) -> dict[TopicPartition, int]:
        """The offsets up to which this store covers the bus."""
        path = f"/{self._names(stream).single('offsets')}/_doc/{_OFFSETS}"
        found = self._client.ask("GET", path)
        topics = {} if found is None else found["_source"]["offsets"]
        return {TopicPartition(t, int(p)): position for t, parts in topics.items() for p, position in parts.items()}

    def readings(self, query: Query) -> pa.Table:
        """Readings with scores where there are any, oldest first, at most ``limit`` newest ones."""
        target = self._searcher.target
        # Several detectors may score one reading: the last reading of the limit needs all of them.
        wanted = query.limit + _MARGIN
        if query.min_score is None:
            # Readings before scores: see Documents.of.
            pages = self._searcher.pages(target("readings", query.stream), queries.readings(query), wanted)
            readings = joining.columns(pages, queries.READING_FIELDS)
            scores = self._scores(query, wanted)
            edges = [joining.last(table) for table in (readings, scores) if len(table) >= wanted]
            readings, scores = (joining.nearest(table, query, edges=edges) for table in (readings, scores))
        else:
            scores = self._scores(query, wanted)
            pages = (
                page
                for stream, ids in joining.reading_ids(scores).items()
                for page in self._searcher.by_ids(target("readings", stream), ids, queries.reading_columns())
            )
            readings = joining.columns(pages, queries.READING_FIELDS)
        rows = joining.joined(readings, scores, query)
        return joining.named(rows, self._searcher.names(joining.series_of(rows)))

    def _scores(self, query: Query, wanted: int) -> pa.Table:
        target = self._searcher.target("scores", query.stream)
        return joining.columns(self._searcher.pages(target, queries.scores(query), wanted), queries.SCORE_FIELDS)

    def series(self, query: Query) -> pa.Table:
        """One row a series: stream, tenant, cluster, node, metric, readings, first, last, last_value."""
        target = self._searcher.target("series", query.stream)
        by_stream: dict[str, dict[str, dict[str, Any]]] = {}
        for hit in self._searcher.hits(target, queries.series(query), query.limit):
            by_stream.setdefault(stream_of(hit["_index"]), {})[hit["_id"]] = {**hit["_source"], "readings": 0}
        for stream, found in by_stream.items():
            for facts in self._facts(stream, query, list(found)):
                found[facts.pop("series")].update(facts)
        rows = [row for found in by_stream.values() for row in found.values()]
        return pa.Table.from_pylist(rows, schema=joining.SERIES)

    def _facts(self, stream: str, query: Query, ids: list[str]) -> Iterator[dict[str, Any]]:
        target = self._searcher.target("readings", stream)
        for first in range(0, len(ids), queries.BUCKETS):
            body = queries.series_facts(query, ids[first : first + queries.BUCKETS])
            answer = self._searcher.search(target, body)
            for bucket in answer.get("aggregations", {}).get("series", {}).get("buckets", []):
                newest = bucket["newest"]["hits"]["hits"][0].get("fields", {})
                yield {
                    "series": bucket["key"],
                    "readings": int(bucket["doc_count"]),
                    "first": int(bucket["first"]["value"]),
                    "last": int(bucket["last"]["value"]),
                    "last_value": newest["value"][0] if "value" in newest else None,
                }

    def rollups(self, query: Query) -> pa.Table:
        """Rollup rows, oldest first, at most ``limit`` newest ones."""
        hits = self._searcher.hits(self._searcher.target("rollups", query.stream), queries.rollups(query), query.limit)
        rows = [hit["_source"] for hit in hits]
        rows.sort(key=lambda r: (r["timestamp"], r["detector"], r["tenant"], r["cluster"], r["node"]))
        return pa.Table.from_pylist(rows, schema=joining.ROLLUPS)

    def latest_rollup(self, detector: str | None) -> pa.Table:
        """For each scope its newest rollup row."""
        hits = self._searcher.hits(self._searcher.target("latest", None), queries.latest(detector), MAX_SCOPES)
        return pa.Table.from_pylist([hit["_source"] for hit in hits], schema=joining.ROLLUPS)

    def anomalies(self, query: Query) -> list[Anomaly]:
        """Anomalies that overlap the query's range, newest onset first unless the query says otherwise."""
        return self._events("anomalies", query, queries.anomalies(query), Anomaly)

    def anomaly(self, anomaly_id: str) -> Anomaly | None:
        """One anomaly by id."""
        pages = self._searcher.by_ids(self._searcher.target("anomalies", None), [anomaly_id])
        return next((msgspec.convert(hit["_source"], Anomaly) for page in pages for hit in page), None)

    def alerts(self, query: Query) -> list[tuple[Alert, Acknowledgement | None]]:
        """Alerts with who acknowledged them, newest first."""
        return self._acknowledged(self._events("alerts", query, queries.alerts(query), Alert))

    def alert(self, alert_id: str) -> tuple[Alert, Acknowledgement | None] | None:
        """One alert by id."""
        pages = self._searcher.by_ids(self._searcher.target("alerts", None), [alert_id])
        found = self._acknowledged([msgspec.convert(hit["_source"], Alert) for page in pages for hit in page])
        return found[0] if found else None

    def _acknowledged(self, alerts: list[Alert]) -> list[tuple[Alert, Acknowledgement | None]]:
        if not alerts:
            return []
        pages = self._searcher.by_ids(self._searcher.target("acknowledgements", None), [alert.id for alert in alerts])
        noted = [msgspec.convert(hit["_source"], Acknowledgement) for page in pages for hit in page]
        by_alert = {each.alert_id: each for each in noted}
        return [(alert, by_alert.get(alert.id)) for alert in alerts]

    def rejected(self, query: Query) -> list[Rejection]:
        """Rejected readings, newest first."""
        return self._events("rejected", query, queries.rejected(query), Rejection)

    def feedback(self, query: Query) -> list[Feedback]:
        """What people said of anomalies, by when they said it."""
        return self._events("feedback", query, queries.feedback(query), Feedback)

    def _events(self, kind: Kind, query: Query, body: queries.Body, of: type[E]) -> list[E]:
        hits = self._searcher.hits(self._searcher.target(kind, query.stream), body, query.limit)
        return [msgspec.convert(hit["_source"], of) for hit in hits]

    def states(self, purpose: Literal["anomalies", "alerts"]) -> dict[str, int]:
        """Number of anomalies or alerts by state."""
        return self._searcher.numbers(self._searcher.target(purpose, None), queries.number_by("state"))

    def rejected_counts(self, stream: str | None) -> dict[str, int]:
        """Number of rejections kept, by reason."""
        return self._searcher.numbers(self._searcher.target("rejected", stream), queries.number_by("reason"))

    def counts(self) -> dict[Purgeable, int]:
        """Documents of each kind in the store."""
        return {kind: self._searcher.count(self._searcher.target(kind, None)) for kind in get_args(Purgeable)}
