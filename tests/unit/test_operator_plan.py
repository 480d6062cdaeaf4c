"""What the four kinds become, as golden files: ``UPDATE_GOLDEN=1`` writes them anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tidewarden.resources import AlertPolicy, AnomalyDetector, AnyResource, MetricSimulation, MetricStream
from tidewarden.resources.loader import load
from tidewarden.settings import load_settings
from tidewarden_operator.keys import Manifest
from tidewarden_operator.plan import detector, monitoring, policy, shared, simulation, stream
from tidewarden_operator.plan.bundle import NamespaceBundle
from tidewarden_operator.plan.names import LONGEST_NAME, child_name
from tidewarden_operator.plan.site import Site
from tidewarden_operator.reconcile.context import Mistake, parse
from tidewarden_operator.settings import OperatorSettings

GOLDEN = Path(__file__).parent / "golden" / "operator"


def _site(*kinds: str, **settings: Any) -> Site:
    told = {
        "image": "registry.example/tidewarden:1",
        "imagePullSecrets": ["pull"],
        "kafka": {"bootstrapServers": "kafka:9092"},
        "elasticsearch": {"url": "http://search:9200", "secretRef": {"name": "search"}},
        "prometheusUrl": "http://prometheus:9090",
        "alertmanagerUrl": "http://alertmanager:9093",
        **settings,
    }
    return Site(OperatorSettings.model_validate(told), frozenset(kinds))


def _resource(kind: str, name: str, **spec: Any) -> Any:
    body = {"apiVersion": "tidewarden.dev/v1alpha1", "kind": kind, "spec": spec}
    found = parse({**body, "metadata": {"name": name, "namespace": "team", "uid": "u", "generation": 1}})
    assert not isinstance(found, Mistake), found.message
    return found


STREAM: MetricStream = _resource(
    "MetricStream",
    "shop",
    tenants=["shop"],
    sources=[
        {"name": "push", "http": {}},
        {"name": "legacy", "kafka": {"topic": "raw", "secretRef": {"name": "their-kafka"}}},
        {"name": "scrape", "prometheus": {"query": "up", "secretRef": {"name": "prometheus"}}},
        {"name": "history", "file": {"path": "2026/readings.csv", "claim": "history"}},
    ],
)
DETECTOR: AnomalyDetector = _resource("AnomalyDetector", "auto", stream="shop", replicas=2)
SCALED: AnomalyDetector = _resource(
    "AnomalyDetector", "auto", stream="shop", autoscaling={"min": 2, "max": 6}, rollup=[]
)
SIMULATION: MetricSimulation = _resource(
    "MetricSimulation", "rehearsal", stream="shop", fleet={"tenants": ["shop"]}, points=10, evaluate=["auto"]
)
POLICY: AlertPolicy = _resource(
    "AlertPolicy",
    "oncall",
    stream="shop",
    receivers=[{"webhook": {"url": "https://example.org/a", "secretRef": {"name": "webhook"}}}, {"alertmanager": {}}],
)
OWN_SERVERS: MetricStream = _resource(
    "MetricStream",
    "apart",
    tenants=["shop"],
    kafka={"bootstrapServers": "other:9093", "securityProtocol": "SASL_SSL", "secretRef": {"name": "other"}},
    elasticsearch={"url": "https://other:9200", "secretRef": {"name": "other-search"}},
)
PAUSED: AnomalyDetector = _resource("AnomalyDetector", "auto", stream="shop", paused=True)


def _plans() -> dict[str, list[Manifest]]:
    resources: list[AnyResource] = [STREAM, DETECTOR, SIMULATION, POLICY]
    rules = [{"name": "tidewarden", "rules": [{"alert": "Down", "expr": "up == 0"}]}]
    keda = _site("ScaledObject", "TriggerAuthentication", "PodMonitor", "PrometheusRule")
    apart = _resource("AnomalyDetector", "auto", stream="apart", autoscaling={"max": 6}, rollup=[])
    return {
        "stream": stream.children(STREAM, _site()),
        "stream-own-servers": stream.children(OWN_SERVERS, _site()),
        "detector": detector.children(DETECTOR, STREAM, _site()),
        "detector-paused": detector.children(PAUSED, STREAM, _site()),
        "detector-hpa": detector.children(SCALED, STREAM, _site()),
        "detector-keda": detector.children(apart, OWN_SERVERS, keda),
        "simulation": simulation.children(SIMULATION, STREAM, [DETECTOR], _site()),
        "policy": policy.children(POLICY, STREAM, _site()),
        "shared": shared.children("team", NamespaceBundle.of(resources), _site(), lambda _: rules),
        "shared-monitored": shared.children("team", NamespaceBundle.of(resources), keda, lambda _: rules),
    }


@pytest.mark.parametrize("name", sorted(_plans()))
def test_plans_are_as_the_golden_files_say(name: str, request: pytest.FixtureRequest) -> None:
    """What a kind becomes changes only together with its golden file, where a person sees it."""
    text = yaml.safe_dump_all([_plain(manifest) for manifest in _plans()[name]], sort_keys=True)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert path.exists(), f"{path} is missing: run with UPDATE_GOLDEN=1 and look at what it wrote"
    assert text == path.read_text(), "run with UPDATE_GOLDEN=1 and look at the difference"


def _plain(manifest: Manifest) -> Manifest:
    """Without shared parts, which YAML would write as anchors."""
    return dict(json.loads(json.dumps(manifest)))


@pytest.mark.parametrize("name", sorted(_plans()))
def test_pods_can_read_what_they_are_told(name: str, tmp_path: Path) -> None:
    """The loader of files, which is strict, takes every resources.yaml, and the settings every settings.yaml."""
    told = [m for m in _plans()[name] if m["kind"] == "ConfigMap" and "settings.yaml" in m["data"]]
    assert told
    for config in told:
        for file, text in config["data"].items():
            (tmp_path / file).write_text(text)
        bundle = load([tmp_path / "resources.yaml"])
        assert [one.metadata.namespace for one in bundle.streams] == ["team"]
        assert load_settings(tmp_path / "settings.yaml").namespace == "team"


def _config_hash(manifests: list[Manifest], kind: str) -> str:
    found = next(m for m in manifests if m["kind"] == kind)
    return str(found["spec"]["template"]["metadata"]["annotations"]["tidewarden.dev/config-hash"])


def test_what_does_not_concern_a_pod_does_not_restart_it() -> None:
    """Replicas, autoscaling, pause, retention, deletion policy and other sources change no detect pod's config."""
    before = _config_hash(detector.children(DETECTOR, STREAM, _site()), "StatefulSet")
    other = _resource("MetricStream", "shop", tenants=["shop"], retention="2d", deletionPolicy="Delete", paused=True)
    for changed in (_resource("AnomalyDetector", "auto", stream="shop", replicas=5), SCALED, PAUSED):
        if not changed.spec.rollup:
            continue
        assert _config_hash(detector.children(changed, STREAM, _site()), "StatefulSet") == before
    assert _config_hash(detector.children(DETECTOR, other, _site()), "StatefulSet") == before


def test_what_concerns_a_pod_restarts_it() -> None:
    """Another model, interval or broker is another config hash."""
    before = _config_hash(detector.children(DETECTOR, STREAM, _site()), "StatefulSet")
    other_model = _resource("AnomalyDetector", "auto", stream="shop", model={"kind": "ewma"})
    other_interval = _resource("MetricStream", "shop", tenants=["shop"], interval="10s")
    site = _site(kafka={"bootstrapServers": "elsewhere:9092"})
    assert _config_hash(detector.children(other_model, STREAM, _site()), "StatefulSet") != before
    assert _config_hash(detector.children(DETECTOR, other_interval, _site()), "StatefulSet") != before
    assert _config_hash(detector.children(DETECTOR, STREAM, site), "StatefulSet") != before


def test_the_registry_s_credentials_are_mounted_where_they_are_needed() -> None:
    """Detect pods get the Secret and are told of the registry; the rollup gets neither, and is not restarted."""
    training = {"registry": "s3://models/shop", "secretRef": {"name": "bucket"}}
    plain = {m["kind"]: m for m in detector.children(_detector(), STREAM, _site())}
    made = {m["kind"]: m for m in detector.children(_detector(training=training), STREAM, _site())}
    assert "bucket" in json.dumps(made["StatefulSet"]["spec"]["template"]["spec"]["volumes"])
    assert _config_hash([made["StatefulSet"]], "StatefulSet") != _config_hash([plain["StatefulSet"]], "StatefulSet")
    assert made["Deployment"] == plain["Deployment"]


def _detector(**spec: Any) -> AnomalyDetector:
    made = _resource("AnomalyDetector", "auto", stream="shop", **spec)
    assert isinstance(made, AnomalyDetector)
    return made


def test_a_finished_simulation_does_not_run_again_for_another_image() -> None:
    """A Job's name depends on its scenario alone; another seed is another Job."""

    def job(of: MetricSimulation, site: Site) -> str:
        return str(simulation.children(of, STREAM, [], site)[1]["metadata"]["name"])

    other = _resource("MetricSimulation", "rehearsal", stream="shop", fleet={"tenants": ["shop"]}, points=10, seed=8)
    assert job(SIMULATION, _site()) == job(SIMULATION, _site(image="registry.example/tidewarden:2"))
    assert job(SIMULATION, _site()) != job(other, _site())


NAMES = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


@given(NAMES, NAMES)
def test_names_of_children_are_dns_labels(owner: str, source: str) -> None:
    """However long the parts are, a name fits a StatefulSet's pods and begins and ends as Kubernetes wants."""
    for name in (child_name(owner, "ingest", source), child_name(owner, "detect")):
        assert len(name) <= LONGEST_NAME
        assert name[0].isalnum()
        assert name[-1].isalnum()


TRICKY = st.lists(st.sampled_from(["a", "ingest", "detect", "b"]), min_size=1, max_size=4).map("-".join)


@given(st.tuples(TRICKY, st.sampled_from(["ingest"]), TRICKY), st.tuples(TRICKY, st.sampled_from(["ingest"]), TRICKY))
def test_two_sources_never_share_a_name(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    """Stream a-ingest-b with source c and stream a with source b-ingest-c are two workloads."""
    assert (child_name(*one) == child_name(*other)) == (one == other)


@given(st.tuples(TRICKY, st.sampled_from(["ingest"]), TRICKY), TRICKY, st.sampled_from(["detect", "archive", "alert"]))
def test_a_source_and_a_detector_never_share_a_name(source: tuple[str, str, str], owner: str, role: str) -> None:
    """A source called like a role does not take the name of another resource's workload."""
    assert child_name(*source) != child_name(owner, role)


def test_rules_are_a_config_map_where_the_prometheus_operator_is_absent() -> None:
    """Its label is what a plain Prometheus is told to look for; without rules there is none."""
    from tidewarden_operator.keys import Key

    groups = [{"name": "g", "rules": []}]
    found = monitoring.children(Key("Namespace", "team"), _site(), groups)
    assert found[0]["metadata"]["labels"]["tidewarden.dev/rules"] == "true"
    assert yaml.safe_load(found[0]["data"]["tidewarden.yaml"]) == {"groups": groups}
    assert monitoring.children(Key("Namespace", "team"), _site(), []) == []
