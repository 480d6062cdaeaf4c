"""The four kinds on a real API server: what it accepts, fills in, shows, and refuses with which words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from servers.apiserver import ApiServer
from tidewarden.resources import MetricSimulation, MetricStream
from tidewarden.resources.crd.columns import SHOWN
from tidewarden.resources.documents import Problem
from tidewarden.resources.loader import KINDS, ResourceError, load
from tidewarden.resources.references import check_references
from tidewarden.resources.status import STATUSES

pytestmark = pytest.mark.apiserver

ROOT = Path(__file__).resolve().parents[2]
DEMO = resources.files("tidewarden_cli") / "samples" / "demo.yaml"
SAMPLES = [*sorted((ROOT / "manifests" / "samples").glob("*.yaml")), Path(str(DEMO))]
SPACE = "crds"


@pytest.fixture(scope="module")
def server(api_server: ApiServer) -> Iterator[ApiServer]:
    """An API server that knows the four kinds, and a namespace for these tests."""
    code, _, errors = api_server.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    assert code == 0, errors
    names = [f"crd/{shown.plural}.tidewarden.dev" for shown in SHOWN.values()]
    code, out, errors = api_server.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    assert code == 0, out + errors
    assert api_server.kubectl("create", "namespace", SPACE)[0] == 0
    yield api_server
    for shown in SHOWN.values():
        assert api_server.kubectl("-n", SPACE, "delete", shown.plural, "--all")[0] == 0


def _resource(kind: str, spec: Any, name: str = "wrong") -> dict[str, Any]:
    return {
        "apiVersion": "tidewarden.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": SPACE},
        "spec": spec,
    }


def _create(server: ApiServer, resource: dict[str, Any], *options: str) -> tuple[int, str, str]:
    return server.kubectl("create", "--validate=strict", "-f", "-", *options, given=json.dumps(resource))


def _made(server: ApiServer, kind: str, name: str, spec: str) -> str:
    """Create a resource and return its name as kubectl writes it."""
    code, out, errors = _create(server, _resource(kind, yaml.safe_load(spec), name))
    assert code == 0, errors
    return out.split()[0]


def _fetched(server: ApiServer, name: str) -> dict[str, Any]:
    code, out, errors = server.kubectl("-n", SPACE, "get", name, "-o", "json")
    assert code == 0, errors
    answer: dict[str, Any] = json.loads(out)
    return answer


# --- what is accepted ------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_every_sample_is_accepted_and_comes_back_as_what_it_was(server: ApiServer, sample: Path) -> None:
    """With strict validation; what the server stores, defaults filled in, parses to the same resource as the file."""
    code, out, errors = server.kubectl("-n", SPACE, "create", "--validate=strict", "-f", str(sample))
    assert (code, errors) == (0, "")
    documents = [d for d in yaml.safe_load_all(sample.read_text()) if d is not None]
    assert len(out.splitlines()) == len(documents)
    for document in documents:
        kind, name = document["kind"], document["metadata"]["name"]
        stored = _fetched(server, f"{SHOWN[kind].plural}/{name}")
        assert KINDS[kind].model_validate(stored).spec == KINDS[kind].model_validate(document).spec
    assert server.kubectl("-n", SPACE, "delete", "-f", str(sample))[0] == 0


def test_an_ensemble_of_eight_is_accepted_and_comes_back_as_what_it_was(server: ApiServer) -> None:
    """With blocks and weights; the server's budget for checking rules lets the largest one through."""
    members = ", ".join(f"{{kind: quantile, weight: {k + 1}.5, quantile: {{window: {20 + k}}}}}" for k in range(8))
    text = f"{{stream: shop, model: {{kind: ensemble, ensemble: {{combine: weighted, members: [{members}]}}}}}}"
    stored = _fetched(server, _made(server, "AnomalyDetector", "ensemble-of-eight", text))
    wanted = KINDS["AnomalyDetector"].model_validate(_resource("AnomalyDetector", yaml.safe_load(text)))
    assert KINDS["AnomalyDetector"].model_validate(stored).spec == wanted.spec


def test_the_server_fills_in_every_default(server: ApiServer) -> None:
    """Of the smallest resource of each kind; the values are those that the parser takes."""
    smallest = {
        "MetricStream": "tenants: [shop]",
        "MetricSimulation": "{stream: shop, fleet: {tenants: [shop]}}",
        "AnomalyDetector": "stream: shop",
        "AlertPolicy": "stream: shop",
    }
    for kind, spec in smallest.items():
        stored = _fetched(server, _made(server, kind, "smallest", spec))["spec"]
        parsed = KINDS[kind].model_validate(_resource(kind, yaml.safe_load(spec))).spec
        assert stored == json.loads(parsed.model_dump_json(by_alias=True, exclude_none=True)), kind


@pytest.mark.parametrize("kind", KINDS)
def test_explain_says_what_each_field_is_for(server: ApiServer, kind: str) -> None:
    """`kubectl explain --recursive` finds every field, and none without a description."""
    code, out, errors = server.kubectl("explain", f"{kind.lower()}.spec")
    assert code == 0, errors
    assert "<no description>" not in out
    blocks = out.split("FIELDS:\n", 1)[1]
    names = re.findall(r"^  (\w+)\t<", blocks, re.MULTILINE)
    described = re.findall(r"^  \w+\t<.*\n(?:  enum: .*\n)?    \S", blocks, re.MULTILINE)
    assert len(names) == len(described) > 3
    code, tree, _ = server.kubectl("explain", f"{kind.lower()}.status", "--recursive")
    assert code == 0
    assert "conditions" in tree
    assert "lastTransitionTime" in tree


def test_explain_reads_well_down_to_the_leaves(server: ApiServer) -> None:
    """The words of the models, the choices and the default are what `kubectl explain` shows."""
    for path, words in (
        ("metricstream.spec.sources.prometheus.every", "Spacing of the steps; absent: the stream's interval."),
        ("anomalydetector.spec.alerting.quiet", "Calm readings after which an anomaly closes. Default: 10."),
        ("adet.spec.model.kind", "DESCRIPTION: Which model: auto, density, ewma,"),
        ("msim.status.evaluation.vusPr", "Volume under the precision-recall surface (VUS-PR)."),
        ("apol.spec.maintenance", "Windows in which alerts are kept back"),
    ):
        code, out, errors = server.kubectl("explain", path)
        assert code == 0, errors
        assert words in " ".join(out.split()), path


# --- what is refused -------------------------------------------------------------------------------

# ruff: noqa: E501 - a table reads better with one mistake a line
_FLEET = "stream: shop, fleet: {tenants: [shop]}"
_DUTY = "rrule: FREQ=DAILY;BYHOUR=2, duration: 1h"
# name: (kind, spec, what the server's words contain)
WRONG: dict[str, tuple[str, str, tuple[str, ...]]] = {
    # MetricStream
    "stream_no_tenants": ("MetricStream", "{}", ("spec.tenants: Required value",)),
    "stream_empty_tenants": ("MetricStream", "tenants: []", ("spec.tenants", "should have at least 1 items")),
    "stream_empty_tenant": ("MetricStream", "tenants: ['']", ("spec.tenants[0]", "at least 1 chars long")),
    "stream_tenant_twice": ("MetricStream", "tenants: [a, a]", ("spec.tenants[1]", 'Duplicate value: "a"')),
    "stream_two_source_kinds": ("MetricStream", "{tenants: [a], sources: [{name: s, http: {}, kafka: {topic: t}}]}", ("spec.sources[0]", "source 's' has http and kafka: give exactly one of http, kafka, prometheus, file")),
    "stream_no_source_kind": ("MetricStream", "{tenants: [a], sources: [{name: s}]}", ("spec.sources[0]", "source 's' has no kind: give exactly one of")),
    "stream_source_twice": ("MetricStream", "{tenants: [a], sources: [{name: s, http: {}}, {name: s, http: {}}]}", ("spec.sources", "source 's' is given twice: rename or remove one of them")),
    "stream_metric_twice": ("MetricStream", "{tenants: [a], metrics: [{name: m}, {name: m}]}", ("spec.metrics", "metric 'm' is given twice: rename or remove one of them")),
    "stream_source_name": ("MetricStream", "{tenants: [a], sources: [{name: My Source, http: {}}]}", ("spec.sources[0].name", "'My Source' is not a name: write lower-case letters")),
    "stream_metric_bounds": ("MetricStream", "{tenants: [a], metrics: [{name: m, min: 5, max: 1}]}", ("spec.metrics[0]", "min 5 is above max 1: swap them")),
    "stream_unit": ("MetricStream", "{tenants: [a], metrics: [{name: m, unit: furlongs}]}", ("spec.metrics[0].unit", '"furlongs"', 'supported values: "percent"')),
    "stream_interval_without_unit": ("MetricStream", "{tenants: [a], interval: '60'}", ("spec.interval", "'60' is not a duration: write a number and a unit (ms, s, m, h, d, w), as in 5m or 1h30m")),
    "stream_interval_number": ("MetricStream", "{tenants: [a], interval: 60}", ("spec.interval", "must be of type string")),
    "stream_interval_zero": ("MetricStream", "{tenants: [a], interval: 0s}", ("spec.interval", "'0s' is out of bounds: it must be at least 1ms")),
    "stream_retention_short": ("MetricStream", "{tenants: [a], retention: 30s}", ("spec.retention", "'30s' is out of bounds: it must be at least 1m")),
    "stream_archive_retention": ("MetricStream", "{tenants: [a], archive: {retention: 59s999ms}}", ("spec.archive.retention", "'59s999ms' is out of bounds: it must be at least 1m")),
    "stream_partitions_none": ("MetricStream", "{tenants: [a], partitions: 0}", ("spec.partitions", "should be greater than or equal to 1")),
    "stream_partitions_many": ("MetricStream", "{tenants: [a], partitions: 1001}", ("spec.partitions", "should be less than or equal to 1000")),
    "stream_prometheus_every": ("MetricStream", "{tenants: [a], sources: [{name: s, prometheus: {query: up, every: 10ms}}]}", ("spec.sources[0].prometheus.every", "'10ms' is out of bounds: it must be at least 1s")),
    "stream_prometheus_timeout": ("MetricStream", "{tenants: [a], sources: [{name: s, prometheus: {query: up, timeout: 1h}}]}", ("spec.sources[0].prometheus.timeout", "'1h' is out of bounds: it must be at least 100ms and at most 5m")),
    "stream_prometheus_url": ("MetricStream", "{tenants: [a], sources: [{name: s, prometheus: {query: up, url: 'prometheus:9090'}}]}", ("spec.sources[0].prometheus.url", "'prometheus:9090' is not an address: write one such as https://")),
    "stream_prometheus_no_query": ("MetricStream", "{tenants: [a], sources: [{name: s, prometheus: {}}]}", ("spec.sources[0].prometheus.query: Required value",)),
    "stream_prometheus_tenant_twice": ("MetricStream", "{tenants: [a], sources: [{name: s, prometheus: {query: up, tenant: a, labels: {tenant: team}}}]}", ("spec.sources[0].prometheus", "has both tenant (a) and labels.tenant (team): keep one of them")),
    "stream_prometheus_stranger": ("MetricStream", "{tenants: [a], sources: [{name: s, prometheus: {query: up, tenant: b}}]}", ("spec.sources", "'b', the tenant of a prometheus source, is not one of spec.tenants: add it there")),
    "stream_prometheus_which_tenant": ("MetricStream", "{tenants: [a, b], sources: [{name: s, prometheus: {query: up}}]}", ("spec.sources", "source 's' has no tenant, but the stream has several: give prometheus.tenant")),
    "stream_file_stranger": ("MetricStream", "{tenants: [a], sources: [{name: s, file: {path: x.csv, tenant: b}}]}", ("spec.sources", "'b', the tenant of a file source, is not one of spec.tenants: add it there")),
    "stream_kafka_topic": ("MetricStream", "{tenants: [a], sources: [{name: s, kafka: {topic: 'no spaces'}}]}", ("spec.sources[0].kafka.topic", "'no spaces' is not a topic: write letters, digits, dots")),
    "stream_kafka_log_in": ("MetricStream", "{tenants: [a], kafka: {bootstrapServers: 'k:9092', securityProtocol: SASL_SSL}}", ("spec.kafka", "securityProtocol SASL_SSL needs secretRef, a Secret with username and password: add it")),
    "stream_unknown_field": ("MetricStream", "{tenants: [a], intervall: 1m}", ('unknown field "spec.intervall"',)),
    "stream_deletion_policy": ("MetricStream", "{tenants: [a], deletionPolicy: Keep}", ("spec.deletionPolicy", '"Keep"', '"Retain", "Delete"')),
    # MetricSimulation
    "simulation_no_stream": ("MetricSimulation", "fleet: {tenants: [a]}", ("spec.stream: Required value",)),
    "simulation_neither": ("MetricSimulation", "stream: shop", ("exactly one of fleet and replay is given: add one",)),
    "simulation_both": ("MetricSimulation", f"{{{_FLEET}, replay: {{dataset: nab-cloud}}}}", ("exactly one of fleet and replay is given", "or remove one of them")),
    "simulation_anomalies_of_replay": ("MetricSimulation", "{stream: shop, replay: {dataset: nab-cloud}, anomalies: {}}", ("spec.anomalies", "a replay brings its own labels: remove one of them")),
    "simulation_replay_of_nothing": ("MetricSimulation", "{stream: shop, replay: {}}", ("spec.replay", "exactly one of path and dataset: add one")),
    "simulation_replay_of_both": ("MetricSimulation", "{stream: shop, replay: {path: x.csv, dataset: nab-cloud}}", ("spec.replay", "exactly one of path and dataset", "remove one of them")),
    "simulation_ratio": ("MetricSimulation", f"{{{_FLEET}, anomalies: {{ratio: 1.5}}}}", ("spec.anomalies.ratio", "should be less than or equal to 1")),
    "simulation_kind": ("MetricSimulation", f"{{{_FLEET}, anomalies: {{mix: {{spikes: 1}}}}}}", ("spec.anomalies.mix", "'spikes' is not a kind of anomaly: write spike, dip")),
    "simulation_weight": ("MetricSimulation", f"{{{_FLEET}, anomalies: {{mix: {{spike: -1}}}}}}", ("spec.anomalies.mix.spike", "should be greater than or equal to 0")),
    "simulation_metric": ("MetricSimulation", "{stream: shop, fleet: {tenants: [a], metrics: [latency]}}", ("spec.fleet.metrics", "metric 'latency' is not built in: describe it under custom, or use latency_ms")),
    "simulation_custom_bounds": ("MetricSimulation", "{stream: shop, fleet: {tenants: [a], custom: [{name: q, base: 1, min: 2.5, max: 1}]}}", ("spec.fleet.custom[0]", "min 2.5 is above max 1: swap them")),
    "simulation_speed": ("MetricSimulation", f"{{{_FLEET}, speed: -1}}", ("spec.speed", "should be greater than or equal to 0")),
    "simulation_start": ("MetricSimulation", f"{{{_FLEET}, start: yesterday}}", ("spec.start", "must be of type date-time")),
    "simulation_seed": ("MetricSimulation", f"{{{_FLEET}, seed: -7}}", ("spec.seed", "should be greater than or equal to 0")),
    # AnomalyDetector
    "detector_no_stream": ("AnomalyDetector", "{}", ("spec.stream: Required value",)),
    "detector_stream_name": ("AnomalyDetector", "stream: Shop", ("spec.stream", "'Shop' is not a name: write lower-case letters, digits and hyphens")),
    "detector_star": (
        "AnomalyDetector",
        "{stream: shop, select: {nodes: ['*-eu']}}",
        ("spec.select.nodes[0]", "'*-eu' has a * before its end: names may end in *"),
    ),
    "policy_star": (
        "AlertPolicy",
        f"{{stream: shop, maintenance: [{{{_DUTY}, match: {{node: 'a*b'}}}}]}}",
        ("spec.maintenance[0].match.node", "'a*b' has a * before its end: names may end in *"),
    ),
    "detector_budget_and_threshold": ("AnomalyDetector", "{stream: shop, alerting: {budget: 2/day, threshold: 0.8}}", ("spec.alerting", "has both budget (2/day) and threshold (0.8): keep one")),
    "detector_version": ("AnomalyDetector", "{stream: shop, training: {registry: models, from: newest}}", ("spec.training.from", "'newest' is no version: write champion, latest or a number in quotation marks")),
    "detector_version_bare": ("AnomalyDetector", "{stream: shop, training: {registry: models, from: 3}}", ("spec.training.from", "must be of type string")),
    "detector_no_registry": ("AnomalyDetector", "{stream: shop, training: {}}", ("spec.training.registry: Required value",)),
    "detector_budget": ("AnomalyDetector", "{stream: shop, alerting: {budget: 2 a day}}", ("spec.alerting.budget", "'2 a day' is not a budget: write a number, a slash and hour, day or week")),
    "detector_budget_none": ("AnomalyDetector", "{stream: shop, alerting: {budget: 0/week}}", ("spec.alerting.budget", "'0/week' is out of bounds: it must be more than 0/day")),
    "detector_budget_much": ("AnomalyDetector", "{stream: shop, alerting: {budget: 5000/hour}}", ("spec.alerting.budget", "'5000/hour' is out of bounds", "at most 100,000/day")),
    "detector_threshold": ("AnomalyDetector", "{stream: shop, alerting: {threshold: 80}}", ("spec.alerting.threshold", "should be less than or equal to 1")),
    "detector_threshold_zero": ("AnomalyDetector", "{stream: shop, alerting: {threshold: 0}}", ("spec.alerting.threshold", "should be greater than 0")),
    "detector_model": ("AnomalyDetector", "{stream: shop, model: {kind: prophet}}", ("spec.model.kind", "'prophet' is not one of auto, density", "correct it, or if it is a plug-in's kind give model.parameters, {}")),
    "detector_kind_written": ("AnomalyDetector", "{stream: shop, model: {kind: Prophet-2, parameters: {}}}", ("spec.model.kind", "'Prophet-2' is no kind of model: write lower-case letters")),
    "detector_parameters_of_ours": ("AnomalyDetector", "{stream: shop, model: {kind: mad, parameters: {halfLife: 9}}}", ("spec.model.kind", "'mad' is built in: write the block named like it instead of model.parameters")),
    "detector_other_block": ("AnomalyDetector", "{stream: shop, model: {kind: mad, ewma: {}}}", ("spec.model", "model.ewma is set but kind is 'mad': remove it or change the kind")),
    "detector_block_without_kind": ("AnomalyDetector", "{stream: shop, model: {ewma: {}}}", ("spec.model", "model.ewma is set but kind is 'auto': remove it or change the kind")),
    "detector_static_bare": ("AnomalyDetector", "{stream: shop, model: {kind: static}}", ("spec.model", "kind static needs model.static with lower, upper or both: add it")),
    "detector_static_empty": ("AnomalyDetector", "{stream: shop, model: {kind: static, static: {}}}", ("spec.model.static", "static needs lower, upper or both: add a limit")),
    "detector_static_upside_down": ("AnomalyDetector", "{stream: shop, model: {kind: static, static: {lower: 9, upper: 3}}}", ("spec.model.static", "lower 9 is not below upper 3: swap them")),
    "detector_quantile_dear": ("AnomalyDetector", "{stream: shop, model: {kind: quantile, quantile: {window: 20000, upper: 0.95}}}", ("spec.model.quantile", "window 20000 has more than 500 readings outside of the quantiles 0.005 to 0.95: take a shorter window")),
    "detector_warmup": ("AnomalyDetector", "{stream: shop, model: {kind: auto, auto: {warmup: 3}}}", ("spec.model.auto.warmup", "should be greater than or equal to 20")),
    "detector_no_season": ("AnomalyDetector", "{stream: shop, model: {kind: seasonal}, seasonality: []}", ("spec.seasonality", "seasonality is empty: write [1d], or choose model ewma or mad")),
    "ensemble_bare": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble}}", ("spec.model", "kind ensemble needs model.ensemble with members, two at least: add it")),
    "ensemble_other_block": ("AnomalyDetector", "{stream: shop, model: {kind: mad, ensemble: {members: [{kind: mad}, {kind: ewma}]}}}", ("spec.model", "model.ensemble is set but kind is 'mad': remove it or change the kind")),
    "ensemble_of_one": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {members: [{kind: mad}]}}}", ("spec.model.ensemble.members", "should have at least 2 items")),
    "ensemble_of_nine": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {members: [{}, {}, {}, {}, {}, {}, {}, {}, {}]}}}", ("spec.model.ensemble.members", "must have at most 8 items")),
    "ensemble_combine": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {combine: vote, members: [{}, {}]}}}", ("spec.model.ensemble.combine", '"vote"', 'supported values: "mean", "max", "median", "weighted"')),
    "ensemble_nested": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {members: [{kind: mad}, {kind: ensemble}]}}}", ("spec.model.ensemble.members[1].kind", "an ensemble cannot be a member of an ensemble")),
    "ensemble_member_unknown": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {members: [{kind: mad}, {kind: prophet}]}}}", ("spec.model.ensemble.members[1].kind", "'prophet' is not one of auto", "give member.parameters, {}")),
    "ensemble_other_member": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {members: [{kind: mad}, {kind: mad, ewma: {}}]}}}", ("spec.model.ensemble.members[1]", "member.ewma is set but kind is 'mad': remove it or change the kind")),
    "ensemble_member_static_bare": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {members: [{kind: mad}, {kind: static}]}}}", ("spec.model.ensemble.members[1]", "kind static needs member.static with lower, upper or both: add it")),
    "ensemble_member_bounds": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {members: [{kind: mad}, {kind: pca, pca: {warmup: 3}}]}}}", ("spec.model.ensemble.members[1].pca.warmup", "should be greater than or equal to 20")),
    "ensemble_weight": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {combine: weighted, members: [{kind: mad, weight: 0}, {}]}}}", ("spec.model.ensemble.members[0].weight", "should be greater than 0")),
    "ensemble_unread_weight": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {combine: max, members: [{kind: mad}, {weight: 2}]}}}", ("spec.model.ensemble", "weight 2 is read only with combine weighted, but combine is 'max': remove the weight or combine weighted")),
    "ensemble_no_season": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {members: [{}, {kind: seasonal}]}}, seasonality: []}", ("spec.seasonality", "seasonality is empty: write [1d], or choose model ewma or mad")),
    "detector_season": ("AnomalyDetector", "{stream: shop, seasonality: [daily]}", ("spec.seasonality[0]", "'daily' is not a duration")),
    "detector_season_zero": ("AnomalyDetector", "{stream: shop, seasonality: [0s]}", ("spec.seasonality[0]", "'0s' is out of bounds: it must be at least 1s")),
    "detector_three_seasons": ("AnomalyDetector", "{stream: shop, seasonality: [1h, 1d, 7d]}", ("spec.seasonality", "must have at most 2 items")),
    "detector_rollup": ("AnomalyDetector", "{stream: shop, rollup: [galaxy]}", ("spec.rollup[0]", '"galaxy"', 'supported values: "node"')),
    "detector_autoscaling": ("AnomalyDetector", "{stream: shop, autoscaling: {min: 5, max: 2}}", ("spec.autoscaling", "min 5 is above max 2: swap them")),
    "detector_autoscaling_open": ("AnomalyDetector", "{stream: shop, autoscaling: {min: 5}}", ("spec.autoscaling.max: Required value",)),
    "detector_replicas": ("AnomalyDetector", "{stream: shop, replicas: -1}", ("spec.replicas", "should be greater than or equal to 0")),
    # AlertPolicy
    "policy_two_receiver_kinds": ("AlertPolicy", "{stream: shop, receivers: [{log: {}, webhook: {url: 'http://x.example'}}]}", ("spec.receivers[0]", "a receiver has log and webhook: give exactly one of log, webhook, alertmanager")),
    "policy_no_receiver_kind": ("AlertPolicy", "{stream: shop, receivers: [{name: me}]}", ("spec.receivers[0]", "a receiver has no kind: give exactly one of")),
    "policy_webhook_url": ("AlertPolicy", "{stream: shop, receivers: [{webhook: {url: 'ftp://x.example'}}]}", ("spec.receivers[0].webhook.url", "'ftp://x.example' is not an address: write one such as https://")),
    "policy_webhook_timeout": ("AlertPolicy", "{stream: shop, receivers: [{webhook: {url: 'http://x.example', timeout: 1h}}]}", ("spec.receivers[0].webhook.timeout", "'1h' is out of bounds: it must be at least 100ms and at most 2m")),
    "policy_group": ("AlertPolicy", "{stream: shop, groupBy: [team]}", ("spec.groupBy[0]", '"team"', 'supported values: "tenant"')),
    "policy_severity": ("AlertPolicy", "{stream: shop, minSeverity: warn}", ("spec.minSeverity", '"warn"', 'supported values: "info", "warning", "critical"')),
    "policy_budget": ("AlertPolicy", "{stream: shop, budget: 0}", ("spec.budget", "should be greater than or equal to 1")),
    "policy_resolve_after": ("AlertPolicy", "{stream: shop, resolveAfter: soon}", ("spec.resolveAfter", "'soon' is not a duration: write a number and a unit")),
    "policy_secondly": ("AlertPolicy", "{stream: shop, maintenance: [{rrule: FREQ=SECONDLY, duration: 1h}]}", ("spec.maintenance[0].rrule", "'FREQ=SECONDLY' begins every few seconds", "use MINUTELY")),
    "policy_rrule": ("AlertPolicy", "{stream: shop, maintenance: [{rrule: every sunday, duration: 1h}]}", ("spec.maintenance[0].rrule", "'every sunday' is not an RFC 5545 recurrence rule: write e.g. FREQ=DAILY")),
    "policy_rrule_count": ("AlertPolicy", "{stream: shop, maintenance: [{rrule: FREQ=DAILY;COUNT=3, duration: 1h}]}", ("spec.maintenance[0].rrule", "COUNT needs DTSTART: write DTSTART:")),
    "policy_timezone": ("AlertPolicy", f"{{stream: shop, maintenance: [{{{_DUTY}, timezone: Central European Time}}]}}", ("spec.maintenance[0].timezone", "'Central European Time' is not an IANA time zone: write e.g. Europe/Berlin")),
    "policy_window": ("AlertPolicy", "{stream: shop, maintenance: [{rrule: FREQ=DAILY, duration: 8d}]}", ("spec.maintenance[0].duration", "'8d' is out of bounds: it must be at least 1m and at most 7d")),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_refused_by_the_server_and_by_the_parser(server: ApiServer, case: str, tmp_path: Path) -> None:
    """With the field, the value and the remedy; and no file loads that a cluster would refuse."""
    kind, text, parts = WRONG[case]
    spec = yaml.safe_load(text)
    code, out, errors = _create(server, _resource(kind, spec), "--dry-run=server")
    assert code != 0, f"the server took it: {out}"
    at = 0
    for part in parts:
        found = errors.find(part, at)
        assert found >= 0, f"{part!r} is not in (or not in this order): {errors}"
        at = found + len(part)
    assert "Internal error" not in errors
    assert "no such key" not in errors
    assert _refused_by_the_parser(kind, spec, tmp_path)


def _refused_by_the_parser(kind: str, spec: Any, folder: Path) -> list[Problem]:
    """The loader's problems with the resource, beside the stream that it may name."""
    file = folder / "wrong.yaml"
    known = _resource("MetricStream", {"tenants": ["shop", "a"]}, "shop")
    file.write_text(yaml.safe_dump_all([known, _resource(kind, spec)]))
    with pytest.raises(ResourceError) as refused:
        load([file])
    return refused.value.problems


# What the server cannot know, since it looks at one resource at a time: the operator says it in the condition Accepted.
# name: (kind, spec, field, what the message says)
ELSEWHERE: dict[str, tuple[str, str, str, str]] = {
    "no_such_stream": ("AnomalyDetector", "stream: shpo", "spec.stream", "no MetricStream is called 'shpo': did you mean 'shop'?"),
    "policy_of_no_stream": ("AlertPolicy", "stream: bank", "spec.stream", "no MetricStream is called 'bank': there are shop"),
    "simulated_stranger": ("MetricSimulation", "{stream: shop, fleet: {tenants: [bank]}}", "spec.fleet.tenants[0]", "'bank' is not a tenant of MetricStream 'shop': add it to spec.tenants of the stream"),
    "replayed_stranger": ("MetricSimulation", "{stream: shop, replay: {dataset: nab-cloud}}", "spec.replay.tenant", "'replay' is not a tenant of MetricStream 'shop': add it"),
    "watched_stranger": ("AnomalyDetector", "{stream: shop, select: {tenants: [bank]}}", "spec.select.tenants[0]", "'bank' is not a tenant of MetricStream 'shop'"),
    "no_such_detector": ("MetricSimulation", f"{{{_FLEET}, evaluate: [shop-auto]}}", "spec.evaluate[0]", "no AnomalyDetector is called 'shop-auto': there is no AnomalyDetector, add one"),
    "warmup_below_a_season": ("AnomalyDetector", "{stream: shop, model: {kind: seasonal, seasonal: {warmup: 100}}}", "spec.model.seasonal.warmup", "100 readings are 1h40m at the interval 1m of MetricStream 'shop', less than the season 1d: write at least 1440"),
    "season_below_two_readings": ("AnomalyDetector", "{stream: shop, model: {kind: seasonal}, seasonality: [90s]}", "spec.seasonality[0]", "season 1m30s has less than two readings at the interval 1m of MetricStream 'shop': write a longer season"),
    "warmup_of_an_ensembles_member_below_a_season": ("AnomalyDetector", "{stream: shop, model: {kind: ensemble, ensemble: {members: [{}, {kind: seasonal, seasonal: {warmup: 100}}]}}}", "spec.model.ensemble.members[1].seasonal.warmup", "100 readings are 1h40m at the interval 1m of MetricStream 'shop', less than the season 1d: write at least 1440"),
    "rrule_that_only_a_parser_knows": ("AlertPolicy", "{stream: shop, maintenance: [{rrule: FREQ=DAILY;BYHOUR=late, duration: 1h}]}", "spec.maintenance[0].rrule", "'FREQ=DAILY;BYHOUR=late' is not an RFC 5545 recurrence rule"),
    "a_plugin_that_is_not_installed": ("AnomalyDetector", "{stream: shop, model: {kind: prophet, parameters: {growth: {cap: 8.5, days: [1, 2]}}}}", "spec.model.kind", "'prophet' is not one of auto, density"),
    "a_zone_that_is_not": ("AlertPolicy", "{stream: shop, maintenance: [{rrule: FREQ=DAILY, duration: 1h, timezone: Europe/Atlantis}]}", "spec.maintenance[0].timezone", "'Europe/Atlantis' is not an IANA time zone, e.g. Europe/Berlin or UTC"),
}  # fmt: skip


@pytest.mark.parametrize("case", ELSEWHERE)
def test_what_needs_other_resources_is_accepted_and_then_found(server: ApiServer, case: str, tmp_path: Path) -> None:
    """The server takes it; what the operator puts into the condition names field, value and remedy."""
    kind, text, path, words = ELSEWHERE[case]
    spec = yaml.safe_load(text)
    code, _, errors = _create(server, _resource(kind, spec), "--dry-run=server")
    assert (code, errors) == (0, "")
    [problem] = _refused_by_the_parser(kind, spec, tmp_path)
    assert problem.path == path
    assert words in problem.message


def test_what_the_server_filled_in_is_not_held_against_anybody(server: ApiServer) -> None:
    """A replay of a file names its tenants row by row: the default tenant that the server adds is no mistake."""
    spec = "{stream: shop, replay: {path: x.csv}}"
    stored = _fetched(server, _made(server, "MetricSimulation", "replayed", spec))
    assert stored["spec"]["replay"]["tenant"] == "replay"
    stream = MetricStream.model_validate(_resource("MetricStream", {"tenants": ["shop"]}, "shop"))
    assert list(check_references([stream], [MetricSimulation.model_validate(stored)], [], [])) == []


def test_a_name_that_pods_could_not_carry_is_refused(server: ApiServer) -> None:
    """Kubernetes would take 253 characters with dots; labels of pods take 63 without."""
    resource = _resource("MetricStream", {"tenants": ["a"]}, "shop.example")
    code, _, errors = _create(server, resource, "--dry-run=server")
    assert code != 0
    assert "metadata.name 'shop.example' is not a name: write lower-case letters, digits and hyphens" in errors


# --- what cannot be changed ------------------------------------------------------------------------

# name: (kind, spec, patch of it, what the server says; nothing where it is allowed)
CHANGES: dict[str, tuple[str, str, str, str]] = {
    "a_detectors_stream": ("AnomalyDetector", "stream: shop", "stream: bank", "stream is 'shop' and cannot become 'bank': create a new resource instead"),
    "a_policys_stream": ("AlertPolicy", "stream: shop", "stream: bank", "stream is 'shop' and cannot become 'bank'"),
    "a_simulations_stream": ("MetricSimulation", f"{{{_FLEET}}}", "stream: bank", "stream is 'shop' and cannot become 'bank'"),
    "a_tenant_removed": ("MetricStream", "tenants: [a, b]", "tenants: [b]", "tenant 'a' is missing: tenants may be added, never removed or renamed"),
    "a_tenant_renamed": ("MetricStream", "tenants: [a, b]", "tenants: [a, c]", "tenant 'b' is missing: tenants may be added, never removed or renamed"),
    "a_tenant_added": ("MetricStream", "tenants: [a, b]", "tenants: [c, b, a]", ""),
    "partitions_shrunk": ("MetricStream", "{tenants: [a], partitions: 6}", "partitions: 3", "partitions cannot shrink from 6 to 3: Kafka cannot take any away"),
    "partitions_grown": ("MetricStream", "{tenants: [a], partitions: 6}", "partitions: 12", ""),
    "another_interval": ("MetricStream", "tenants: [a]", "interval: 5m", "interval is '1m' and cannot become '5m', since models have learned at it"),
    "the_same_interval": ("MetricStream", "tenants: [a]", "interval: 60s", ""),
    "paused": ("AnomalyDetector", "stream: shop", "paused: true", ""),
    "another_model": ("AnomalyDetector", "stream: shop", "model: {kind: mad}", ""),
    "from_threshold_to_budget": ("AnomalyDetector", "{stream: shop, alerting: {threshold: 0.9}}", "alerting: {budget: 1/day}", "has both budget (1/day) and threshold (0.9): keep one"),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_what_cannot_be_changed_is_refused_and_all_else_is_taken(server: ApiServer, case: str) -> None:
    kind, spec, patch, refusal = CHANGES[case]
    name = _made(server, kind, case.replace("_", "-"), spec)
    document = json.dumps({"spec": yaml.safe_load(patch)})
    code, out, errors = server.kubectl("-n", SPACE, "patch", name, "--type=merge", "-p", document)
    if refusal:
        assert code != 0, f"the server took it: {out}"
        assert refusal in errors
    else:
        assert (code, errors) == (0, "")


# --- what is shown ---------------------------------------------------------------------------------

_CONDITION = {
    "type": "Ready",
    "status": "True",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
    "reason": "AllRunning",
    "message": "everything runs",
}
_STATUS: dict[str, dict[str, Any]] = {
    "MetricStream": {"readings": 1200, "rejected": 3, "detectors": 2, "lagRecords": 7, "sources": [{"name": "push", "kind": "http", "readings": 1200, "lag": "1m30s"}]},
    "MetricSimulation": {"phase": "Running", "played": 720, "total": 1440, "percent": 50, "evaluation": [{"detector": "d", "precision": 0.75, "recall": 1, "f1": 0.857, "delay": "2m", "vusPr": 0.9, "falseAlarmsPerDay": 0.5}]},
    "AnomalyDetector": {"series": 160, "learning": 34, "ready": 126, "lagRecords": 12, "anomaliesLastHour": 5, "replicas": 2, "readyReplicas": 2, "selector": "app.kubernetes.io/instance=shown", "message": "learning 34 of 160"},
    "AlertPolicy": {"firing": 1, "pending": 2, "receivers": [{"name": "log", "kind": "log", "sent": 9}]},
}  # fmt: skip
_ROWS = {
    "MetricStream": {"READY": "True", "READINGS": "1200", "REJECTED": "3", "DETECTORS": "2", "LAG": "7", "PAUSED": "false", "INTERVAL": "1m", "PARTITIONS": "6", "RETENTION": "7d", "REASON": "AllRunning"},
    "MetricSimulation": {"READY": "True", "PHASE": "Running", "PLAYED": "720", "PERCENT": "50", "F1": "0.857", "PAUSED": "false", "STREAM": "shop", "TOTAL": "1440", "PRECISION": "0.75", "RECALL": "1"},
    "AnomalyDetector": {"READY": "True", "MODEL": "auto", "SERIES": "160", "LAG": "12", "ANOMALIES (1H)": "5", "PAUSED": "false", "STREAM": "shop", "LEARNING": "34", "REPLICAS": "2", "MESSAGE": "learning 34 of 160"},
    "AlertPolicy": {"READY": "True", "FIRING": "1", "PENDING": "2", "SEVERITY": "warning", "PAUSED": "false", "STREAM": "shop", "REASON": "AllRunning"},
}  # fmt: skip
_SPECS = {
    "MetricStream": "{tenants: [a], sources: [{name: push, http: {}}]}",
    "MetricSimulation": f"{{{_FLEET}}}",
    "AnomalyDetector": "{stream: shop, replicas: 2}",
    "AlertPolicy": "stream: shop",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_columns_show_the_status_and_the_status_comes_back(server: ApiServer, kind: str) -> None:
    """A status written by the models is kept whole, shown by `kubectl get -o wide`, and parsed again."""
    name = _made(server, kind, "shown", _SPECS[kind])
    status = STATUSES[kind].model_validate({**_STATUS[kind], "observedGeneration": 1, "conditions": [_CONDITION]})
    written = json.loads(status.model_dump_json(by_alias=True, exclude_none=True))
    patch = json.dumps({"status": written})
    code, _, errors = server.kubectl("-n", SPACE, "patch", name, "--subresource=status", "--type=merge", "-p", patch)
    assert (code, errors) == (0, "")
    stored = _fetched(server, name)
    assert stored["status"] == written
    assert stored["metadata"]["generation"] == 1, "a status is not a change of the spec"
    assert STATUSES[kind].model_validate(stored["status"]) == status
    head, row = server.kubectl("-n", SPACE, "get", name, "-o", "wide")[1].splitlines()
    starts = {column: head.index(column) for column in re.split(r"\s{3,}|\s{2,}", head.strip())}
    shown = {column: row[at:].split("   ")[0].strip() for column, at in starts.items()}
    assert {column: shown[column] for column in _ROWS[kind]} == _ROWS[kind]
    narrow = server.kubectl("-n", SPACE, "get", name)[1].splitlines()[0]
    assert "STREAM" not in narrow
    assert "PAUSED" in narrow


def test_short_names_and_the_category_find_all_four(server: ApiServer) -> None:
    code, out, errors = server.kubectl(
        "api-resources", "--api-group=tidewarden.dev", "--no-headers", "--categories=tidewarden"
    )
    assert code == 0, errors
    assert {line.split()[1] for line in out.splitlines()} == {"mstream", "msim", "adet", "apol"}


def test_a_status_that_is_wrong_is_refused(server: ApiServer) -> None:
    """So that a mistake of the operator is seen at once: a second Ready, a share above one."""
    name = _made(server, "MetricSimulation", "mistaken", _SPECS["MetricSimulation"])
    for status, words in (
        ({"conditions": [_CONDITION, _CONDITION]}, "Duplicate value"),
        ({"evaluation": [{"detector": "d", "precision": 1.5}]}, "should be less than or equal to 1"),
        ({"phase": "Sleeping"}, "Unsupported value"),
    ):
        patch = json.dumps({"status": status})
        code, _, errors = server.kubectl(
            "-n", SPACE, "patch", name, "--subresource=status", "--type=merge", "-p", patch
        )
        assert code != 0
        assert words in errors


def test_scale_changes_the_replicas_of_a_detector(server: ApiServer) -> None:
    """`kubectl scale` writes spec.replicas, and the scale shows the status and the selector an autoscaler needs."""
    name = _made(server, "AnomalyDetector", "scaled", "{stream: shop, replicas: 1}")
    status = {"status": {"replicas": 1, "selector": "tidewarden.dev/detector=scaled"}}
    server.kubectl("-n", SPACE, "patch", name, "--subresource=status", "--type=merge", "-p", json.dumps(status))
    code, _, errors = server.kubectl("-n", SPACE, "scale", name, "--replicas=4")
    assert (code, errors) == (0, "")
    assert _fetched(server, name)["spec"]["replicas"] == 4
    path = f"/apis/tidewarden.dev/v1alpha1/namespaces/{SPACE}/anomalydetectors/scaled/scale"
    scale = json.loads(server.get(path))
    assert (scale["kind"], scale["spec"]["replicas"]) == ("Scale", 4)
    assert scale["status"] == {"replicas": 1, "selector": "tidewarden.dev/detector=scaled"}


def test_the_definitions_are_kept_as_they_were_written(server: ApiServer) -> None:
    """Nothing in them is unknown to the server, dropped by it, or open to fields that nobody declared."""
    for kind, shown in SHOWN.items():
        written = yaml.safe_load((ROOT / "crds" / f"{shown.plural}.yaml").read_text())
        stored = json.loads(server.kubectl("get", "crd", f"{shown.plural}.tidewarden.dev", "-o", "json")[1])
        assert stored["spec"]["versions"] == written["spec"]["versions"], kind
        reasons = {c["type"]: c["status"] for c in stored["status"]["conditions"]}
        assert reasons == {"NamesAccepted": "True", "Established": "True"}, "a NonStructuralSchema would be a third"
