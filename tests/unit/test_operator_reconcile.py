"""Reconciling against a cluster in memory: what is written, what is left, what the status says."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tidewarden.clock import ManualClock
from tidewarden.resources.status import STATUSES
from tidewarden.settings import ElasticsearchSettings, KafkaSettings
from tidewarden.topics import Topic
from tidewarden_operator.backends import Indices, Keeper, Topics
from tidewarden_operator.cluster.mirror import Mirror
from tidewarden_operator.keys import Key, Manifest, Ref
from tidewarden_operator.metrics import OperatorMetrics
from tidewarden_operator.peers import Peers
from tidewarden_operator.plan.site import Site
from tidewarden_operator.reconcile import reconcile
from tidewarden_operator.reconcile.context import Context
from tidewarden_operator.settings import OperatorSettings
from tidewarden_operator.status import Arrivals

STREAM = Key("MetricStream", "team", "shop")


class Cluster:
    """Keeps what is applied, as the API server would; ``mutate`` is an admission webhook."""

    def __init__(self) -> None:
        self.mirror = Mirror()
        self.mutate: Callable[[Manifest], None] = lambda _: None
        self.calls: list[str] = []
        self._version = 0

    def apply(self, manifest: Manifest, subresource: str = "") -> Manifest:
        ref = Ref.of(manifest)
        self.calls.append(f"apply {ref.kind}{'/' + subresource if subresource else ''} {ref.name}")
        known = self.mirror.get(ref) or {}
        found = {**known, **copy.deepcopy(manifest)}
        found["metadata"] = {**known.get("metadata", {}), **found["metadata"]}
        self.mutate(found)
        return self.put(found)

    def delete(self, ref: Ref, uid: str) -> None:
        self.calls.append(f"delete {ref.kind} {ref.name}")
        known = self.mirror.get(ref)
        assert known is not None
        assert known["metadata"]["uid"] == uid
        self.mirror.drop(known)

    def event(self, namespace: str, content: Manifest) -> None:
        self.calls.append(f"event {content['reason']}")

    def put(self, found: Manifest) -> Manifest:
        """The object, with a version of its own."""
        self._version += 1
        found = {**found, "metadata": dict(found["metadata"])}
        found["metadata"] |= {
            "resourceVersion": str(self._version),
            "uid": found["metadata"].get("uid", f"u{self._version}"),
        }
        self.mirror.put(found)
        return found


class NoServers:
    """Kafka and Elasticsearch that nobody asks here."""

    def topics(self, kafka: KafkaSettings, namespace: str) -> Topics:
        raise AssertionError

    def indices(self, elasticsearch: ElasticsearchSettings, namespace: str) -> Indices:
        raise AssertionError

    def apply(self, topics: Sequence[Topic]) -> list[str]:
        raise AssertionError


@pytest.fixture
def cluster() -> Cluster:
    """An empty cluster."""
    return Cluster()


@pytest.fixture
def context(cluster: Cluster) -> Context:
    """A context on it, with a clock that stands still."""
    told = {"image": "x:1", "kafka": {"bootstrapServers": "kafka:9092"}, "elasticsearch": {"url": "http://search:9200"}}
    settings = OperatorSettings.model_validate(told)
    clock = ManualClock()
    return Context(
        mirror=cluster.mirror,
        writer=cluster,
        site=lambda: Site(settings),
        keeper=Keeper(NoServers(), clock, 60.0, lambda _: None),
        peers=Peers(list, lambda _: None),
        clock=clock,
        again=lambda key, delay_s: None,
        metrics=OperatorMetrics(),
        rules=lambda _: [],
    )


def _put(cluster: Cluster, kind: str, name: str, generation: int = 1, **spec: Any) -> Key:
    metadata = {"name": name, "namespace": "team", "generation": generation, "uid": f"{kind}-{name}"}
    known = cluster.mirror.get(Ref(kind, "team", name)) or {}
    body = {"apiVersion": "tidewarden.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    cluster.put({**known, **body})
    return Key(kind, "team", name)


def _shop(cluster: Cluster) -> list[Key]:
    source = [{"name": "push", "http": {}}]
    return [
        _put(cluster, "MetricStream", "shop", tenants=["shop"], sources=source),
        _put(cluster, "AnomalyDetector", "auto", stream="shop"),
        _put(cluster, "MetricSimulation", "r", stream="shop", fleet={"tenants": ["shop"]}, points=1, evaluate=["auto"]),
        _put(cluster, "AlertPolicy", "oncall", stream="shop"),
        Key("Namespace", "team"),
    ]


def test_a_second_round_writes_nothing(context: Context, cluster: Cluster) -> None:
    """All that is to be done is done in the first round: reconciling again costs no call."""
    keys = _shop(cluster)
    for key in keys:
        reconcile(context, key)
    assert len(cluster.calls) > 25
    cluster.calls.clear()
    for key in keys:
        reconcile(context, key)
    assert cluster.calls == []


def test_a_webhook_that_changes_what_we_write_starts_no_fight(context: Context, cluster: Cluster) -> None:
    """What is changed on its way in is written once, not again and again; another plan is written once more."""

    def mutate(found: Manifest) -> None:
        if found["kind"] == "Deployment":
            found["spec"]["template"]["spec"]["containers"][0]["image"] = "mirror.example/x:1"

    cluster.mutate = mutate
    key = _put(cluster, "MetricStream", "shop", tenants=["shop"], sources=[{"name": "push", "http": {}}])
    reconcile(context, key)
    cluster.calls.clear()
    reconcile(context, key)
    assert cluster.calls == []
    _put(cluster, "MetricStream", "shop", 2, tenants=["shop"], sources=[{"name": "push", "http": {}}], paused=True)
    reconcile(context, key)
    assert [call for call in cluster.calls if "Deployment" in call] == ["apply Deployment shop-ingest-push"]


def test_an_object_of_somebody_else_is_never_touched(context: Context, cluster: Cluster) -> None:
    """Where a name is taken, the condition says by what, and the other children are made all the same."""
    metadata = {"name": "shop-archive", "namespace": "team", "labels": {"app": "theirs"}}
    cluster.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {}})
    key = _put(cluster, "MetricStream", "shop", tenants=["shop"], sources=[{"name": "push", "http": {}}])
    reconcile(context, key)
    body = cluster.mirror.get(Ref("MetricStream", "team", "shop"))
    assert body is not None
    accepted = body["status"]["conditions"][0]
    assert (accepted["reason"], accepted["status"]) == ("NameTaken", "False")
    assert accepted["message"] == "Deployment/team/shop-archive belongs to somebody else: delete or rename it"
    assert "apply Deployment shop-ingest-push" in cluster.calls
    assert "apply Deployment shop-archive" not in cluster.calls


def test_what_cannot_be_parsed_leaves_what_runs_as_it_is(context: Context, cluster: Cluster) -> None:
    """A wrong change deletes and changes no child; the condition says field, value and remedy."""
    key = _put(cluster, "MetricStream", "shop", tenants=["shop"], sources=[{"name": "push", "http": {}}])
    reconcile(context, key)
    cluster.calls.clear()
    _put(cluster, "MetricStream", "shop", 2, tenants=["shop", "shop"])
    reconcile(context, key)
    assert cluster.calls == ["apply MetricStream/status shop", "event Invalid"]
    body = cluster.mirror.get(Ref("MetricStream", "team", "shop"))
    assert body is not None
    assert "tenant 'shop' is given twice" in body["status"]["conditions"][0]["message"]


def test_statuses_have_only_fields_of_the_crds(context: Context, cluster: Cluster) -> None:
    """Every field that is written is one of the models that the CRDs are made from, and valid there."""
    for key in _shop(cluster):
        reconcile(context, key)
        body = cluster.mirror.get(Ref(key.kind, key.namespace, key.name))
        if body is None:
            continue
        model = STATUSES[key.kind]
        known = {field.alias or name for name, field in model.model_fields.items()}
        assert set(body["status"]) <= known, key
        model.model_validate(body["status"])


def test_a_stream_counts_what_simulations_deliver(context: Context, cluster: Cluster) -> None:
    """A stream that is fed by a simulation alone shows its readings, also after the simulation has ended."""
    key = _shop(cluster)[0]
    simulation = cluster.mirror.get(Ref("MetricSimulation", "team", "r"))
    assert simulation is not None
    cluster.put({**simulation, "status": {"played": 1_440}})
    reconcile(context, key)
    body = cluster.mirror.get(Ref("MetricStream", "team", "shop"))
    assert body is not None
    assert body["status"]["readings"] == 1_440


def test_arrivals_add_up() -> None:
    """Counts are summed over sources; the newest timestamp of any of them is the stream's."""
    one = Arrivals.of({"sources": {"a/b": {"accepted": 3, "rejected": 1, "newest_ms": 5}, "a/c": {"accepted": 4}}})
    assert one == Arrivals(7, 1, 5)
    assert one.plus(Arrivals(1, 0, 9)) == Arrivals(8, 1, 9)
    assert Arrivals.of({}) == Arrivals()
