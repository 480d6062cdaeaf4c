"""The mirror: what the cluster looks like, as far as we have been told. Reconciling reads nothing else.

It is filled by lists and kept by watches; an object that we have written is noted from the answer, so that what we
know is never older than what we did. Of two words about one object the one with the higher resource version is the
newer one (Kubernetes compares them as numbers, by KEP 5504 officially).
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator

from tidewarden_operator.keys import Key, Manifest, Ref
from tidewarden_operator.plan.names import owner_key

# Deleted objects are remembered so that a late word does not bring them back; the watch is at most minutes behind.
_GRAVES = 10_000


class Mirror:
    """Objects of all watched kinds, by address and by owner; safe from several threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._objects: dict[str, dict[Ref, Manifest]] = defaultdict(dict)
        self._children: dict[Key, set[Ref]] = defaultdict(set)
        self._graves: dict[str, int] = {}  # uid → resource version of its last word

    def put(self, found: Manifest) -> Manifest | None:
        """Take in an object; returns what was known before. Older words than the known one change nothing."""
        ref = Ref.of(found)
        slim = _slim(found)
        with self._lock:
            known = self._objects[ref.kind].get(ref)
            if known is not None and _version(known) >= _version(slim):
                return known
            if slim["metadata"].get("uid") in self._graves:
                return known
            if known is not None:
                self._forget(ref, known)
            self._objects[ref.kind][ref] = slim
            owner = owner_key(slim)
            if owner is not None:
                self._children[owner].add(ref)
            return known

    def drop(self, gone: Manifest) -> Manifest | None:
        """An object is gone; returns what was known. A newer one of the same name stays."""
        ref = Ref.of(gone)
        uid = gone["metadata"].get("uid", "")
        with self._lock:
            known = self._objects[ref.kind].get(ref)
            if uid:
                self._graves[uid] = _version(gone)
                while len(self._graves) > _GRAVES:
                    del self._graves[next(iter(self._graves))]
            if known is None or (uid and known["metadata"].get("uid") != uid):
                return None
            self._forget(ref, known)
            return known

    def replace(self, kind: str, listed: Iterable[Manifest], version: int, namespace: str = "") -> set[Ref]:
        """A list was taken at ``version``: what it lacks is gone. Returns what changed."""
        found = {Ref.of(item): item for item in listed}
        changed: set[Ref] = set()
        with self._lock:
            for ref, known in list(self._objects[kind].items()):
                if namespace and ref.namespace != namespace:
                    continue
                if ref not in found and _version(known) <= version:
                    self._forget(ref, known)
                    changed.add(ref)
            for ref, item in found.items():
                before = self.put(item)
                if before is None or _version(before) < _version(item):
                    changed.add(ref)
        return changed

    def get(self, ref: Ref) -> Manifest | None:
        """What is known of an object."""
        with self._lock:
            return self._objects[ref.kind].get(ref)

    def of_kind(self, kind: str, namespace: str | None = None) -> list[Manifest]:
        """All objects of a kind, or those of a namespace, by name."""
        with self._lock:
            found = [o for ref, o in self._objects[kind].items() if namespace is None or ref.namespace == namespace]
        return sorted(found, key=lambda item: (item["metadata"].get("namespace", ""), item["metadata"]["name"]))

    def children(self, key: Key) -> list[Manifest]:
        """All objects that we made for a key, by their labels; pods included."""
        with self._lock:
            refs = sorted(self._children.get(key, ()))
            return [self._objects[ref.kind][ref] for ref in refs]

    def owners(self) -> Iterator[Key]:
        """All keys that have children."""
        with self._lock:
            return iter([key for key, refs in self._children.items() if refs])

    def _forget(self, ref: Ref, known: Manifest) -> None:
        del self._objects[ref.kind][ref]
        owner = owner_key(known)
        if owner is not None and owner in self._children:
            self._children[owner].discard(ref)
            if not self._children[owner]:
                del self._children[owner]


def _version(item: Manifest) -> int:
    return int(item["metadata"].get("resourceVersion") or 0)


def _slim(item: Manifest) -> Manifest:
    """Without what nobody here reads and what makes up half of an object."""
    metadata = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    return {**item, "metadata": metadata}
