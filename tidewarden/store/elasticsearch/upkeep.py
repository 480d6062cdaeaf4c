"""Upkeep: templates made, old data removed, a stream's indices dropped. Nothing is written where nothing differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch.client import Client, Operation
from tidewarden.store.elasticsearch.documents import deletion
from tidewarden.store.elasticsearch.names import DATED, KINDS, Dated, Single, StreamNames, end_of
from tidewarden.store.elasticsearch.queries import PAGE, older
from tidewarden.store.elasticsearch.searching import Searcher
from tidewarden.store.elasticsearch.templates import plan
from tidewarden.store.port import Purgeable, StoreError

DROPPED_AT_ONCE = 30  # names in one address: 30 × at most 130 bytes stay below the 4 KB that a server takes
# At most 100 pages of events go in one round of retention; the rest goes in the next, a minute later.
PURGED_EVENTS = 100 * PAGE
_AGE: Final[Mapping[str, tuple[Single, str]]] = {
    "anomalies": ("anomalies", "end"),
    "alerts": ("alerts", "updated_at"),
    "feedback": ("feedback", "at_ms"),
}


class Upkeep:
    """Looks after the indices of one namespace.

    Args:
        client: to the server.
        searcher: of the namespace.
        settings: shards and replicas.
        refresh_s: of the templates, see `templates.plan`.
    """

    def __init__(self, client: Client, searcher: Searcher, settings: ElasticsearchSettings, refresh_s: float) -> None:
        self._client = client
        self._searcher = searcher
        self._settings = settings
        self._refresh_s = refresh_s
        self._has_ilm: bool | None = None

    def has_ilm(self) -> bool:
        """Whether the server has index lifecycle management; asked once."""
        if self._has_ilm is None:
            status, answer = self._client.status("GET", "/_xpack?categories=features")
            self._has_ilm = knows_ilm(status, answer)
        return self._has_ilm

    def prepare(self, names: StreamNames, retention_ms: int) -> list[str]:
        """Make templates and policy as planned; what had to be written, nothing if all was there."""
        wanted = plan(self._settings, names, retention_ms, has_ilm=self.has_ilm(), refresh_s=self._refresh_s)
        written = []
        for name, body in wanted.policies.items():
            found = self._client.ask("GET", f"/_ilm/policy/{name}")
            if found is None or found[name]["policy"].get("phases") != body["phases"]:
                self._client.ask("PUT", f"/_ilm/policy/{name}", {"policy": body})
                written.append(f"_ilm/policy/{name}")
        there = self._templates(names)
        for name, body in wanted.templates.items():
            if there.get(name) != body:
                self._client.ask("PUT", f"/_index_template/{name}", body)
                written.append(f"_index_template/{name}")
        return written

    def period_days(self, names: StreamNames) -> int | None:
        """How many days a dated index of the stream holds, as its templates say; None if there is none yet."""
        there = self._templates(names)
        if any(names.template(kind) not in there for kind in KINDS):
            return None
        return int(there[names.template("readings")]["_meta"]["period_days"])

    def _templates(self, names: StreamNames) -> dict[str, Any]:
        found = self._client.ask("GET", f"/_index_template/{names.everything}", missing={"index_templates": []})
        return {each["name"]: each["index_template"] for each in found["index_templates"]}

    def drop(self, names: StreamNames) -> list[str]:
        """Remove the stream's indices (with their aliases), templates and policy; what there was."""
        gone = self._indices(names.everything)
        self._drop(gone)
        for template in sorted(self._templates(names)):
            self._client.ask("DELETE", f"/_index_template/{template}")
            gone.append(f"_index_template/{template}")
        policy = f"/_ilm/policy/{names.policy}"
        if self.has_ilm() and self._client.ask("GET", policy) is not None:
            self._client.ask("DELETE", policy)
            gone.append(policy.removeprefix("/"))
        return gone

    def purge(self, purpose: Purgeable, names: StreamNames, before: int) -> int:
        """Remove what is older than ``before``; how many documents went.

        Of dated kinds, indices go whole, once all of their days are older. Anomalies, alerts, feedback and the
        latest rollup of scopes are few and go one by one.
        """
        if purpose in _AGE:
            kind, field = _AGE[purpose]
            also = names.single("acknowledgements") if purpose == "alerts" else None
            return self._remove(names.single(kind), field, before, also)
        if purpose not in DATED:
            raise StoreError(f"there is no retention for {purpose!r}")
        if purpose == "rollups":
            self._remove(names.single("latest"), "timestamp", before, None)
        return self._purge_dated(purpose, names, before)

    def _purge_dated(self, kind: Dated, names: StreamNames, before: int) -> int:
        ends = {index: end_of(index) for index in self._indices(names.pattern(kind))}
        doomed = [index for index, end in ends.items() if end is not None and end <= before]
        removed = sum(self._searcher.count(index) for index in doomed)
        self._drop(doomed)
        return removed

    def _remove(self, index: str, field: str, before: int, also: str | None) -> int:
        removed = 0
        for page in self._searcher.pages(index, older(field, before), PURGED_EVENTS):
            operations: list[Operation] = [deletion(index, hit["_id"]) for hit in page]
            if also is not None:
                operations += [deletion(also, hit["_id"]) for hit in page]
            refused = self._client.bulk(operations)
            if refused:
                raise StoreError(f"{self._client.url} deletes nothing from {index}: {refused[0].reason}")
            removed += len(page)
        if removed:  # seen at once, so that counts and the next round agree with what was said here
            self._client.ask("POST", f"/{index}/_refresh")
        return removed

    def _indices(self, pattern: str) -> list[str]:
        # By name: a server refuses to delete by pattern (action.destructive_requires_name).
        return sorted(self._client.ask("GET", f"/{pattern}/_alias", missing={}))

    def _drop(self, indices: list[str]) -> None:
        for first in range(0, len(indices), DROPPED_AT_ONCE):
            some = ",".join(indices[first : first + DROPPED_AT_ONCE])
            self._client.ask("DELETE", f"/{some}", params={"ignore_unavailable": "true"})


def knows_ilm(status: int, answer: Any) -> bool:
    """What the answer to ``GET /_xpack?categories=features`` says of index lifecycle management.

    Anything but a clear yes is a no (a server without it, a user who may not ask): retention does not need it.
    """
    if status != 200 or not isinstance(answer, Mapping):
        return False
    feature = answer.get("features", {}).get("ilm", {})
    return bool(feature.get("available")) and bool(feature.get("enabled"))
