"""What every reconciliation is given, and what it looks up first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from pydantic import ValidationError

from tidewarden.clock import Clock
from tidewarden.resources import AnyResource
from tidewarden.resources.loader import KINDS as MODELS
from tidewarden.resources.references import check_references
from tidewarden.resources.wording import dotted
from tidewarden_operator.backends import Keeper
from tidewarden_operator.cluster.mirror import Mirror
from tidewarden_operator.keys import OWNER_KINDS, Key, Manifest, Ref
from tidewarden_operator.metrics import OperatorMetrics
from tidewarden_operator.observation import Observation
from tidewarden_operator.peers import Peers
from tidewarden_operator.plan.bundle import NamespaceBundle
from tidewarden_operator.plan.shared import RulesOf
from tidewarden_operator.plan.site import Site


@dataclass(frozen=True, slots=True)
class Mistake:
    """Why a resource cannot be acted upon, with a stable reason."""

    reason: str
    message: str


class Writer(Protocol):
    """The effects on the cluster; see `cluster.client.Cluster`."""

    def apply(self, manifest: Manifest, subresource: str = "") -> Manifest:
        """Server-side apply; returns the object as it is now."""

    def delete(self, ref: Ref, uid: str) -> None:
        """Delete exactly this object."""

    def event(self, namespace: str, content: Manifest) -> None:
        """Tell people what happened."""


@dataclass(slots=True)
class Memory:
    """What is remembered between reconciliations; all of it may be lost without harm.

    Args:
        tolerated: differences that an apply did not mend, by object, with the digest they belong to.
        flows: newest count of readings and when it last grew, by key.
        written_s: when a status was last written, by key.
        leaving_s: since when a resource is being deleted, by key.
        said: digest of the last status, and what the cluster did not keep of it, by key.
        parsed: what became of the newest generation of a resource, with its uid and generation.
    """

    tolerated: dict[Ref, tuple[str, frozenset[str]]] = field(default_factory=dict)
    flows: dict[Key, tuple[int, float]] = field(default_factory=dict)
    written_s: dict[Key, float] = field(default_factory=dict)
    leaving_s: dict[Key, float] = field(default_factory=dict)
    said: dict[Key, tuple[str, frozenset[str]]] = field(default_factory=dict)
    parsed: dict[Ref, tuple[tuple[str, int], AnyResource | Mistake]] = field(default_factory=dict)

    def forget(self, key: Key) -> None:
        """A resource is gone."""
        for known in (self.flows, self.written_s, self.leaving_s, self.said):
            known.pop(key, None)
        self.parsed.pop(Ref(key.kind, key.namespace, key.name), None)


@dataclass(slots=True)
class Context:
    """Everything a reconciliation needs.

    Args:
        mirror: the cluster as we know it.
        writer: effects on the cluster.
        site: settings and optional kinds, as of now.
        keeper: topics and indices.
        peers: what pods say.
        clock: for durations and times of transitions.
        again: have a key reconciled after so many seconds.
        metrics: of the operator.
        rules: alert rules of a namespace.
        memory: between reconciliations.
    """

    mirror: Mirror
    writer: Writer
    site: Callable[[], Site]
    keeper: Keeper
    peers: Peers
    clock: Clock
    again: Callable[[Key, float], None]
    metrics: OperatorMetrics
    rules: RulesOf
    memory: Memory = field(default_factory=Memory)

    def now(self) -> str:
        """The time, as Kubernetes writes it."""
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def bundle(self, namespace: str) -> NamespaceBundle:
        """The namespace's resources, less those that cannot be parsed and those that are being deleted."""
        found: list[AnyResource] = []
        incomplete = False
        for kind in OWNER_KINDS:
            for body in self.mirror.of_kind(kind, namespace):
                if "deletionTimestamp" in body["metadata"]:
                    continue
                parsed = self.parsed(body)
                if isinstance(parsed, Mistake):
                    incomplete = True
                else:
                    found.append(parsed)
        return NamespaceBundle.of(found, incomplete=incomplete)

    def parsed(self, body: Manifest) -> AnyResource | Mistake:
        """As `parse`; a generation of a resource is parsed once, though all of its namespace look at it."""
        ref, metadata = Ref.of(body), body["metadata"]
        version = (metadata.get("uid", ""), metadata.get("generation", 0))
        known = self.memory.parsed.get(ref)
        if known is not None and known[0] == version:
            return known[1]
        found = parse(body)
        self.memory.parsed[ref] = (version, found)
        return found

    def observe(self, key: Key) -> Observation:
        """What runs for a resource."""
        children = self.mirror.children(key)
        pods = [child for child in children if child["kind"] == "Pod"]
        return Observation.of(children, self.peers.of(pods))

    def flowing(self, key: Key, count: int, within_s: float) -> bool:
        """Whether a count of readings has grown within the last ``within_s`` seconds."""
        now = self.clock.monotonic()
        known = self.memory.flows.get(key)
        if known is None:
            # Our own start is not news: only growth that we have seen counts as flowing.
            self.memory.flows[key] = (count, float("-inf") if count == 0 else now)
        elif count != known[0]:
            self.memory.flows[key] = (count, now)
        last = self.memory.flows[key][1]
        if now - last <= within_s:
            self.again(key, within_s)
            return True
        return False


def parse(body: Manifest) -> AnyResource | Mistake:
    """The resource of a Kubernetes object, unknown fields ignored: CRDs are upgraded before operators are."""
    try:
        return MODELS[body["kind"]].model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        return Mistake("Invalid", f"{dotted(first['loc'])}: {message}{more}")


def check(resource: AnyResource, bundle: NamespaceBundle) -> Mistake | None:
    """The first reference of a resource that leads nowhere, in the words that the loader of files uses."""
    findings = check_references(
        list(bundle.streams.values()),
        list(bundle.simulations.values()),
        list(bundle.detectors.values()),
        list(bundle.policies.values()),
        incomplete=False,
    )
    for finding in findings:
        found = finding.resource
        if found.kind == resource.kind and found.metadata.name == resource.metadata.name:
            return Mistake(_reason(finding.path, finding.message), f"{dotted(finding.path)}: {finding.message}")
    return None


def _reason(path: tuple[str | int, ...], message: str) -> str:
    if path == ("spec", "stream"):
        return "StreamNotFound"
    if path[:2] == ("spec", "evaluate"):
        return "DetectorOfOtherStream" if "watches stream" in message else "DetectorNotFound"
    return "UnknownTenant" if "tenant" in path or "tenants" in path else "Invalid"
