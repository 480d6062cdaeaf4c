"""Bringing the children of a resource about: write what differs, delete what is no longer wanted, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import structlog

from tidewarden_operator.cluster.client import ClusterError
from tidewarden_operator.cluster.compare import differences
from tidewarden_operator.cluster.kinds import KINDS
from tidewarden_operator.keys import Key, Manifest, Ref
from tidewarden_operator.plan.names import APPLIED_HASH, digest, owner_key
from tidewarden_operator.reconcile.context import Context

# How Kubernetes says that a field cannot be changed; anything else that it refuses is a mistake, and no reason to
# delete what runs.
_IMMUTABLE = ("field is immutable", "updates to statefulset spec for fields other than")

log = structlog.get_logger()


class NameTakenError(Exception):
    """An object of the name we need belongs to somebody else; says whose and the remedy."""


def bring_about(context: Context, key: Key, owners: Sequence[Manifest], desired: Sequence[Manifest]) -> int:
    """Make the cluster hold exactly ``desired`` for ``key``; returns how many objects were written or deleted.

    Raises:
        NameTakenError: an object of one of the names is not ours; everything else has been done.
        ClusterError: the API server refused or did not answer; what is missing comes with the next attempt.
    """
    known = {Ref.of(child): child for child in context.mirror.children(key)}
    wanted: set[Ref] = set()
    taken: list[str] = []
    changes = 0
    for plain in desired:
        manifest = _finished(plain, owners, known.get(Ref.of(plain)))
        ref = Ref.of(manifest)
        wanted.add(ref)
        live = context.mirror.get(ref)
        if live is not None and ref not in known:
            taken.append(str(ref))
            continue
        if live is None or _differs(context, ref, manifest, live):
            _apply(context, ref, manifest, live)
            changes += 1
    for ref, child in known.items():
        if ref not in wanted and KINDS[ref.kind].pruned and "deletionTimestamp" not in child["metadata"]:
            context.writer.delete(ref, child["metadata"]["uid"])
            context.metrics.deleted.labels(ref.kind).inc()
            context.memory.tolerated.pop(ref, None)
            log.info("deleted", object=str(ref), resource=str(key))
            changes += 1
    if taken:
        raise NameTakenError(f"{', '.join(taken)} belongs to somebody else: delete or rename it")
    return changes


def _finished(plain: Manifest, owners: Sequence[Manifest], live: Manifest | None) -> Manifest:
    """The manifest with its owners and the digest by which a changed plan is recognised."""
    manifest = copy.deepcopy(plain)
    metadata = manifest["metadata"]
    if owners:
        metadata["ownerReferences"] = list(owners)
    stamp = digest(manifest)
    if manifest["kind"] == "Job":
        # A Job's pods cannot be changed; it goes on, or has ended, as it was begun.
        stamp = digest({**manifest, "spec": {**manifest["spec"], "template": None}})
        if live is not None:
            manifest["spec"]["template"] = live["spec"]["template"]
    metadata["annotations"] = {**metadata.get("annotations", {}), APPLIED_HASH: stamp}
    return manifest


def _differs(context: Context, ref: Ref, manifest: Manifest, live: Manifest) -> bool:
    found = frozenset(differences(manifest, live))
    if not found:
        return False
    stamp, tolerated = context.memory.tolerated.get(ref, ("", frozenset()))
    if stamp == manifest["metadata"]["annotations"][APPLIED_HASH] and found <= tolerated:
        return False
    log.info("differs", object=str(ref), at=sorted(found)[:5])
    return True


def _apply(context: Context, ref: Ref, manifest: Manifest, live: Manifest | None) -> None:
    try:
        now = context.writer.apply(manifest)
    except ClusterError as error:
        if live is None or error.status != 422 or not any(words in str(error) for words in _IMMUTABLE):
            raise
        # An earlier version made it otherwise in a field that cannot be changed. Its state lies on topics, not in it.
        log.info("made anew", object=str(ref), because=str(error))
        context.writer.delete(ref, live["metadata"]["uid"])
        owner = owner_key(manifest)
        if owner is not None:
            context.again(owner, 1.0)
        return
    context.mirror.put(now)
    context.metrics.applied.labels(ref.kind).inc()
    left = frozenset(differences(manifest, now))
    if left:
        # Somebody changes it on its way in, such as an admission webhook: to insist would be a fight without end.
        log.warning("the cluster keeps it otherwise", object=str(ref), at=sorted(left)[:5])
        context.memory.tolerated[ref] = (manifest["metadata"]["annotations"][APPLIED_HASH], left)
    else:
        context.memory.tolerated.pop(ref, None)
