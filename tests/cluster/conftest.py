"""One cluster with everything installed, for all tests of this folder.

``make cluster-test`` runs them: on a kind cluster that it makes and deletes, or, with ``ARGS="--cluster current"``, on
the one that kubectl speaks to. ``--keep`` leaves everything as it is, and the next run finds it. Where something fails,
everything that a person would look at is printed.

What makes the cluster has its own bounds (`engine`), so the tests' timeouts are for the tests alone: four times what
they took on two cores that other processes used, too. They are for a hang; what is merely slow is said by the condition
that did not come about.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.engine import Kind, build_image, images_of_servers
from cluster.helm import HERE, RELEASES, Helm
from cluster.kubectl import Kubectl

READY_S = 300.0  # 40 s measured with images at hand; Elasticsearch alone takes 20 s on two busy cores
GONE_S = 120  # a detector may take its grace of 60 s; 25 s measured on two cores that others used, too
FIGURES = pytest.StashKey[dict[str, str]]()
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidewarden-tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("cluster")
    group.addoption("--cluster", choices=["kind", "current"], default="kind", help="make one, or use kubectl's")
    group.addoption("--keep", action="store_true", help="leave the cluster and what is installed")


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Only on demand: where this folder, or something in it, is named on the command line."""
    begun_in, here = config.invocation_params.dir, Path(__file__).parent
    named = any((begun_in / arg.partition("::")[0]).resolve().is_relative_to(here) for arg in config.args)
    return None if named else True


@dataclass
class Installation:
    """What is installed where."""

    kubectl: Kubectl
    helm: Helm
    kind: Kind | None
    values: dict[str, Any]
    figures: dict[str, str] = field(default_factory=dict)

    def inside(self, program: str) -> str:
        """What a Python program prints in the operator's pod, from where Kafka and Elasticsearch are reached."""
        return self.kubectl("exec", f"deployment/{HERE}-operator", "--", "python", "-c", program)

    def topics(self) -> set[str]:
        """Names of Kafka's topics, but for its own."""
        told = self.inside(
            "from confluent_kafka.admin import AdminClient\n"
            f"admin = AdminClient({{'bootstrap.servers': '{HERE}-kafka.{HERE}.svc:9092'}})\n"
            "print('\\n'.join(admin.list_topics(timeout=10).topics))"
        )
        return {name for name in told.split() if not name.startswith("__")}

    def elasticsearch(self, path: str, body: Any = None) -> Any:
        """An answer of Elasticsearch."""
        data = "None" if body is None else repr(json.dumps(body).encode())
        told = self.inside(
            "import urllib.request as r\n"
            f"q = r.Request('http://{HERE}-elasticsearch.{HERE}.svc:9200/{path}', data={data}, "
            "headers={'Content-Type': 'application/json'})\n"
            "print(r.urlopen(q, timeout=10).read().decode())"
        )
        return json.loads(told)

    @property
    def indices(self) -> set[str]:
        """Names of our indices."""
        found = self.elasticsearch("_cat/indices?format=json")
        return {index["index"] for index in found if index["index"].startswith("tidewarden")}

    def memory(self) -> dict[str, int]:
        """Pod → bytes that its working set takes, of all namespaces; as kubelet tells it."""
        found = {}
        for node in self.kubectl.items("nodes"):
            told = self.kubectl("get", "--raw", f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary")
            for pod in json.loads(told)["pods"]:
                reference = pod["podRef"]
                found[f"{reference['namespace']}/{reference['name']}"] = pod.get("memory", {}).get("workingSetBytes", 0)
        return found


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Iterator[Installation]:
    """A cluster with the charts installed in namespace tidewarden, all of it ready."""
    mine, keep = request.config.getoption("cluster") == "kind", request.config.getoption("keep")
    for program in ("kubectl", "helm", *(["kind"] if mine else [])):
        if shutil.which(program) is None:
            pytest.skip(f"a cluster test needs {program} on the PATH")
    began = time.monotonic()
    kubeconfig = CACHE / "kind.kubeconfig" if mine else None
    CACHE.mkdir(parents=True, exist_ok=True)
    kind = Kind(kubeconfig) if kubeconfig else None
    try:
        if kind is not None:
            image, servers = kind.start()
        else:
            # The image of a cluster elsewhere comes from a registry that it reaches.
            image = os.environ.get("TIDEWARDEN_IMAGE", "") or build_image()
            servers = images_of_servers()
        kubectl = Kubectl(kubeconfig, HERE)
        found = Installation(kubectl, Helm(kubeconfig, HERE), kind, _values(image, servers))
        found.figures["cluster and images"] = f"{time.monotonic() - began:.0f} s"
        request.config.stash[FIGURES] = found.figures
        _install(found)
        yield found
    finally:
        if kind is not None and not keep:
            kind.delete()


def _values(image: str, servers: dict[str, str]) -> dict[str, Any]:
    def split(reference: str) -> dict[str, str]:
        repository, _, tag = reference.rpartition(":")
        return {"repository": repository, "tag": tag}

    values: dict[str, Any] = {name: {"image": split(reference)} for name, reference in servers.items()}
    # Tests want to see a reading soon; 5 s is still what Prometheus itself recommends at least.
    values.setdefault("prometheus", {})["scrapeInterval"] = "5s"
    return {"global": {"image": split(image)}, **values}


def _install(found: Installation) -> None:
    kubectl, began = found.kubectl, time.monotonic()
    if not kubectl("get", "namespace", HERE, "--ignore-not-found"):
        kubectl("create", "namespace", HERE)
    kubectl("label", "namespace", HERE, RESTRICTED, "--overwrite")
    _volumes(kubectl, found.kind)
    for release, chart in RELEASES.items():
        found.helm.install(release, chart, found.values if release == HERE else {}, READY_S)
    found.figures["helm install to all ready"] = f"{time.monotonic() - began:.0f} s"


def _volumes(kubectl: Kubectl, kind: Kind | None) -> None:
    """Where the only storage is the host-path one of Kubernetes' own tests, lay out volumes that others may write to.

    kind's usual provisioner makes folders that everybody can write; this one makes them for root alone.
    """
    classes = kubectl.items("storageclass")
    if kind is None or all(found["provisioner"] != "kubernetes.io/host-path" for found in classes):
        return
    kind.on_node("for n in 1 2 3; do mkdir -p /var/volumes/$n && chmod 777 /var/volumes/$n; done")
    for number in (1, 2, 3):
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"tests-{number}"},
            "spec": {
                "capacity": {"storage": "20Gi"},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": "standard",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": f"/var/volumes/{number}"},
            },
        }
        kubectl.apply(json.dumps(volume))


@pytest.fixture
def namespace(installation: Installation, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """A namespace of the test's own, under restricted Pod Security; deleting it must end within `GONE_S`."""
    name = f"t-{request.node.name.removeprefix('test_').replace('_', '-')[:50].strip('-')}"
    kubectl = installation.kubectl.elsewhere(name)
    remove(kubectl)  # what a run with --keep has left
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, RESTRICTED)
    yield kubectl
    if not request.config.getoption("keep"):
        remove(kubectl)


def remove(kubectl: Kubectl) -> None:
    """Delete a namespace and wait until it is gone, which it would never be if anything were stranded in it."""
    told = f"--timeout={GONE_S}s"
    kubectl("delete", "namespace", kubectl.namespace, "--ignore-not-found", told, timeout_s=GONE_S + 30)


@pytest.fixture
def told(installation: Installation) -> Callable[[str, str], None]:
    """Note a figure that the run should report."""

    def note(name: str, value: str) -> None:
        installation.figures[name] = value

    return note


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """After a failure, what a person would look at first."""
    report: Any = yield
    found = getattr(item, "funcargs", {}).get("installation")
    if report.failed and found is not None:
        report.sections.append(("the cluster", _look_around(found.kubectl)))
    return report


def _look_around(kubectl: Kubectl) -> str:
    pages = [
        kubectl(
            "get",
            "pods,metricstreams,metricsimulations,anomalydetectors,alertpolicies",
            "-A",
            "-o",
            "wide",
            check=False,
        ),
        kubectl("get", "events", "-A", "--sort-by=.lastTimestamp", check=False)[-8_000:],
    ]
    for pod in kubectl.items("pods", "-A"):
        metadata, statuses = pod["metadata"], pod["status"].get("containerStatuses", [])
        if metadata["namespace"] in {"kube-system", "local-path-storage"}:
            continue
        there = kubectl.elsewhere(metadata["namespace"])
        if not all(status["ready"] for status in statuses):
            pages.append(there("describe", "pod", metadata["name"], check=False)[-4_000:])
        again = any(status["restartCount"] for status in statuses)
        for extra in (["--previous"], []) if again else ([],):
            log = there("logs", metadata["name"], "--all-containers", "--tail=40", *extra, check=False)
            pages.append(f"--- log of {metadata['namespace']}/{metadata['name']} {' '.join(extra)}\n{log[-6_000:]}")
    kinds = ("metricstream", "metricsimulation", "anomalydetector", "alertpolicy")
    pages += [kubectl("describe", kind, "-A", check=False)[-6_000:] for kind in kinds]
    return "\n".join(pages)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The figures of the run."""
    figures = terminalreporter.config.stash.get(FIGURES, {})
    if figures:
        terminalreporter.section("figures")
    for name, value in figures.items():
        terminalreporter.line(f"{name:45} {value}")
