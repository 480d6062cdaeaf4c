"""Reading from the server: page by page where an answer is larger than a page, over one point in time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tidewarden.store.elasticsearch.client import ATTEMPTS, Client
from tidewarden.store.elasticsearch.names import Kind, StreamNames, stream_of
from tidewarden.store.elasticsearch.queries import IDS, PAGE, Body, by_ids
from tidewarden.store.port import StoreError

Hit = Mapping[str, Any]

KEEP_ALIVE = "1m"  # of a point in time between two pages; a page takes well under a second
# 3.1 s of waiting at most: a day's new index takes a moment until it can be searched; an outage is told after that.
READ_ATTEMPTS = ATTEMPTS
MAX_NAMES = 1_000_000  # names of series kept, 300 bytes each; beyond that they are read anew
# An alias that is not there yet is an empty one.
_LENIENT = {"ignore_unavailable": "true", "allow_no_indices": "true"}
# Half an answer looks like a whole one: rather none, and another attempt.
_WHOLE = {"allow_partial_search_results": "false"}


class Searcher:
    """Asks the indices of one namespace."""

    def __init__(self, client: Client, prefix: str, namespace: str) -> None:
        self._client = client
        self._prefix = prefix
        self._namespace = namespace
        self._names: dict[tuple[str, str], Mapping[str, str]] = {}

    def target(self, kind: Kind, stream: str | None) -> str:
        """The alias of a kind, of one stream or of all."""
        return StreamNames(self._prefix, self._namespace, "*" if stream is None else stream).alias(kind)

    def search(self, target: str, body: Body) -> Any:
        """One answer."""
        found = self._client.ask("POST", f"/{target}/_search", body, params=_LENIENT | _WHOLE, attempts=READ_ATTEMPTS)
        return {"hits": {"hits": []}} if found is None else found

    def count(self, target: str) -> int:
        """Number of documents."""
        found = self.search(target, {"size": 0, "track_total_hits": True})
        return int(found["hits"].get("total", {}).get("value", 0))

    def hits(self, target: str, body: Body, limit: int) -> Iterator[Hit]:
        """At most ``limit`` hits, one by one."""
        for page in self.pages(target, body, limit):
            yield from page

    def pages(self, target: str, body: Body, limit: int) -> Iterator[list[Hit]]:
        """At most ``limit`` hits in pages of at most `PAGE`; ``body`` must be sorted.

        More than one page is read from a point in time, so that what is written meanwhile shifts nothing.
        """
        body = {**body, "track_total_hits": False}
        if limit <= PAGE:
            found = self.search(target, {**body, "size": limit})["hits"]["hits"] if limit > 0 else []
            if found:
                yield found
            return
        opened = self._client.ask(
            "POST", f"/{target}/_pit", params={**_LENIENT, "keep_alive": KEEP_ALIVE}, attempts=READ_ATTEMPTS
        )
        if opened is None:
            return
        point = opened["id"]
        try:
            while limit > 0:
                body["pit"] = {"id": point, "keep_alive": KEEP_ALIVE}
                size = min(limit, PAGE)
                asked = {**body, "size": size}
                answer = self._client.ask("POST", "/_search", asked, params=_WHOLE, attempts=READ_ATTEMPTS)
                if answer is None:
                    raise StoreError(f"{self._client.url} lost a point in time while it was read: ask again")
                point = answer.get("pit_id", point)
                found = answer["hits"]["hits"]
                if found:
                    yield found
                if len(found) < size:
                    return
                limit -= len(found)
                body["search_after"] = found[-1]["sort"]
        finally:
            self._client.ask("DELETE", "/_pit", {"id": point}, attempts=1)

    def numbers(self, target: str, body: Body) -> dict[str, int]:
        """Number of documents by key of the aggregation ``by``."""
        answer = self.search(target, body)
        buckets = answer.get("aggregations", {}).get("by", {}).get("buckets", [])
        return {bucket["key"]: int(bucket["doc_count"]) for bucket in buckets}

    def by_ids(self, target: str, ids: Sequence[str], body: Body | None = None) -> Iterator[list[Hit]]:
        """The documents of these ids that there are, in pages."""
        for first in range(0, len(ids), IDS):
            some = ids[first : first + IDS]
            yield self.search(target, {**by_ids(some), **(body or {})})["hits"]["hits"]

    def names(self, series: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], Mapping[str, str]]:
        """Tenant, cluster, node and metric of each (stream, series id); what was just written included."""
        if len(self._names) > MAX_NAMES:
            self._names = {}
        known = self._names
        lacking = [key for key in series if key not in known]
        for first in range(0, len(lacking), IDS):
            some = lacking[first : first + IDS]
            wanted = [{"_index": self._of(stream).single("series"), "_id": one} for stream, one in some]
            found = self._client.ask("POST", "/_mget", {"docs": wanted}, attempts=READ_ATTEMPTS)
            for key, document in zip(some, found["docs"], strict=True):
                if "_source" not in document:
                    raise StoreError(
                        f"{self._client.url}: {document['_index']} has no series {key[1]}: restart the archive of "
                        f"{key[0]}, which writes down the series it meets"
                    )
                known[key] = document["_source"]
        return known

    def _of(self, stream: str) -> StreamNames:
        return StreamNames(self._prefix, self._namespace, stream)

    def names_of_hit(self, hit: Hit) -> StreamNames:
        """The names of the stream that a hit belongs to."""
        return self._of(stream_of(hit["_index"]))
