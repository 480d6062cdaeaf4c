"""The charts, as far as helm alone can tell: they render to the golden files, are valid, and refuse mistakes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tidewarden"
GOLDEN = Path(__file__).parent / "golden" / "charts"
KUBE_VERSION = "--kube-version=1.34.0"  # helm without a cluster takes the version it was built with
CASES: dict[str, list[str]] = {
    "defaults": [],
    "two-namespaces": ["--set=global.watchNamespaces={shop,bank}"],
    "servers-elsewhere": [
        *(f"--set={name}.enabled=false" for name in ("kafka", "elasticsearch", "prometheus", "alertmanager")),
        "--set=kafka.bootstrapServers=kafka-0.example:9093\\,kafka-1.example:9093",
        "--set=kafka.securityProtocol=SASL_SSL",
        "--set=kafka.secret=kafka-login",
        "--set=elasticsearch.url=https://search.example:9200",
        "--set=elasticsearch.secret=search-login",
        "--set=grafana.dashboards=false",
    ],
}

pytestmark = pytest.mark.skipif(shutil.which("helm") is None, reason="charts are rendered by helm")


def _helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["helm", *arguments], capture_output=True, text=True, timeout=60, check=False)


def _render(*arguments: str) -> list[dict[str, Any]]:
    done = _helm("template", "tw", str(CHART), "--namespace=tidewarden", KUBE_VERSION, *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def _pods(documents: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for document in documents:
        name = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "Pod":
            found.append((name, document["spec"]))
        elif document["kind"] in {"Deployment", "StatefulSet", "Job"}:
            found.append((name, document["spec"]["template"]["spec"]))
    return found


def _without_files(document: dict[str, Any]) -> dict[str, Any]:
    """Dashboards and rules are files of the chart, which have a test of their own: here it is enough where they go."""
    files = {p.read_text("utf-8").strip(): f"{p.parent.name}/{p.name}" for p in CHART.glob("*/*.*") if p.is_file()}
    data = {key: files.get(text.strip(), text) for key, text in (document.get("data") or {}).items()}
    return {**document, "data": data} if data else document


@pytest.mark.parametrize("case", CASES)
def test_the_chart_renders_to_its_golden_file(case: str) -> None:
    """What an installation is made of changes only on purpose: TIDEWARDEN_UPDATE_GOLDEN=1 writes the files anew."""
    rendered = yaml.safe_dump_all(map(_without_files, _render(*CASES[case])), sort_keys=True, width=120)
    golden = GOLDEN / f"{case}.yaml"
    if os.environ.get("TIDEWARDEN_UPDATE_GOLDEN"):
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(rendered)
    assert golden.read_text() == rendered


@pytest.mark.parametrize("chart", ["tidewarden", "tidewarden-crds"])
def test_helm_finds_nothing_wrong(chart: str) -> None:
    """`helm lint` has no errors and no warnings."""
    done = _helm("lint", "--strict", str(ROOT / "charts" / chart))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("case", CASES)
def test_every_container_is_restricted_and_bounded(case: str) -> None:
    """Restricted Pod Security, a read-only root, requests and a memory limit, and never the tag latest."""
    pods = _pods(_render(*CASES[case]))
    assert pods
    for name, spec in pods:
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            security, resources = container["securityContext"], container["resources"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert {"cpu", "memory"} <= resources["requests"].keys(), name
            assert "memory" in resources["limits"], name
            assert container["image"].rpartition(":")[2] not in {"", "latest"}, name


def test_servers_have_probes() -> None:
    """What runs for long says whether it is ready and alive; only the container that copies rules serves nothing."""
    for name, spec in _pods(_render("--no-hooks")):
        for container in spec["containers"]:
            if container["name"] != "rules":
                assert {"readinessProbe", "livenessProbe"} <= container.keys(), name


def test_with_namespaces_named_nothing_is_granted_for_all() -> None:
    """A list of namespaces means Roles in them; the ClusterRoles that remain are for people, and bound to nobody."""
    documents = _render(*CASES["two-namespaces"])
    assert not [document for document in documents if document["kind"] == "ClusterRoleBinding"]
    roles = [document for document in documents if document["kind"] == "Role"]
    assert {"shop", "bank"} <= {role["metadata"].get("namespace") for role in roles}


def test_operator_settings_are_what_the_operator_reads(tmp_path: Path) -> None:
    """operator.yaml of every case is accepted by the operator's own reader, field by field."""
    from tidewarden_operator.settings import load_operator_settings

    for arguments in CASES.values():
        [text] = [
            document["data"]["operator.yaml"]
            for document in _render(*arguments)
            if document["kind"] == "ConfigMap" and "operator.yaml" in document["data"]
        ]
        file = tmp_path / "operator.yaml"
        file.write_text(text)
        settings = load_operator_settings(file)
        said = settings.model_dump(by_alias=True, mode="json", exclude_unset=True)
        assert json.loads(json.dumps(yaml.safe_load(text))) == said, "a field that the operator does not know"


@pytest.mark.parametrize(
    ("argument", "told"),
    [
        ("--set=global.image.tag=latest", "/global/image/tag"),
        ("--set=kafka.enabled=false", "say where Kafka is"),
        ("--set=kafka.bootstrapServers=kafka", "/kafka/bootstrapServers"),
        ("--set=elasticsearch.url=search:9200", "/elasticsearch/url"),
        ("--set=workloads.detector.limits.memory=1Gi", "detector"),
        ("--set=global.watchNamespaces={Shop}", "/global/watchNamespaces/0"),
        ("--set=replicas=2", "replicas"),
    ],
)
def test_a_mistake_in_the_values_is_refused_and_named(argument: str, told: str) -> None:
    """The schema of the values names the field, before anything is installed."""
    done = _helm("template", "tw", str(CHART), KUBE_VERSION, argument)
    assert done.returncode != 0
    assert told in done.stderr


def test_where_prometheus_operator_is_the_operator_brings_its_objects() -> None:
    """With its kinds there: a PrometheusRule and a PodMonitor of the operator; else a labelled ConfigMap."""
    plain = {d["kind"]: d for d in _render() if d["metadata"]["name"] == "tw-operator-rules"}
    assert plain["ConfigMap"]["metadata"]["labels"]["tidewarden.dev/rules"] == "true"
    kinds = [f"--api-versions=monitoring.coreos.com/v1/{kind}" for kind in ("PrometheusRule", "PodMonitor")]
    found = {d["kind"]: d for d in _render(*kinds) if d["apiVersion"] == "monitoring.coreos.com/v1"}
    assert found.keys() == {"PrometheusRule", "PodMonitor"}
    groups = yaml.safe_load((CHART / "rules" / "operator.yaml").read_text())["groups"]
    assert found["PrometheusRule"]["spec"]["groups"] == groups
    assert yaml.safe_load(plain["ConfigMap"]["data"]["rules.yaml"])["groups"] == groups
    assert not [d for d in _render("--set=operator.alertRules=false") if d["metadata"]["name"] == "tw-operator-rules"]
