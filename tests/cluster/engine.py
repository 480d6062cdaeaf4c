"""A kind cluster with our images in it.

What is not the official is told by environment variables, see CONTRIBUTING.md:

=============================== ============================== ==========================================
variable                        default                        is
=============================== ============================== ==========================================
KIND_EXPERIMENTAL_PROVIDER      docker, or podman if only that container engine
KIND_NODE_IMAGE                 kind's own                     image of the nodes
TIDEWARDEN_PYTHON_IMAGE         the Dockerfile's               base of our image
TIDEWARDEN_DEBIAN_IMAGE         none                           if set: Kafka and the others are built from it
TIDEWARDEN_KAFKA_IMAGE          the chart's                    image of Kafka, as repository:tag
TIDEWARDEN_ELASTICSEARCH_IMAGE  the chart's                    … of Elasticsearch
TIDEWARDEN_PROMETHEUS_IMAGE     the chart's                    … of Prometheus
TIDEWARDEN_ALERTMANAGER_IMAGE   the chart's                    … of Alertmanager
=============================== ============================== ==========================================
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster import dependencies

ROOT = Path(__file__).resolve().parents[2]
NAME = "tidewarden-tests"
REPOSITORY = "localhost/tidewarden"
NEXT = "-next"  # behind the tag: the same image; to Kubernetes it is another
SERVERS = ("kafka", "elasticsearch", "prometheus", "alertmanager")
BUILD_TIMEOUT_S = 1_200  # 290 s measured on two cores that others used, kernels compiled anew
LOAD_TIMEOUT_S = 600  # 30 s for 1.4 GB
CREATE_TIMEOUT_S = 300  # 28 s measured where the node image is there


def engine() -> str:
    """docker or podman."""
    told = os.environ.get("KIND_EXPERIMENTAL_PROVIDER")
    return told or next((name for name in ("docker", "podman") if shutil.which(name)), "docker")


def images_of_servers() -> dict[str, str]:
    """Server → image, of those that are not the chart's own; built where a base for it is named."""
    told = {name: os.environ.get(f"TIDEWARDEN_{name.upper()}_IMAGE", "") for name in SERVERS}
    base = os.environ.get("TIDEWARDEN_DEBIAN_IMAGE")
    if base and not all(told.values()):
        built = dependencies.build(engine(), base)
        told = {name: image or built[name] for name, image in told.items()}
    return {name: image for name, image in told.items() if image}


def build_image() -> str:
    """Our image, from the working tree; layers that did not change are taken from the last build."""
    base = os.environ.get("TIDEWARDEN_PYTHON_IMAGE")
    arguments = [f"--build-arg=PYTHON_IMAGE={base}"] if base else []
    _run([engine(), "build", "--network=host", *arguments, "-t", f"{REPOSITORY}:tests", str(ROOT)], BUILD_TIMEOUT_S)
    told = _run([engine(), "image", "inspect", "--format={{.Id}}", f"{REPOSITORY}:tests"], 60)
    # The tag says what is in it: a cluster that was kept never runs an older one under the same name.
    image = f"{REPOSITORY}:{told.strip().removeprefix('sha256:')[:12]}"
    for name in (image, f"{image}{NEXT}"):
        _run([engine(), "tag", f"{REPOSITORY}:tests", name], 60)
    return image


class Kind:
    """The cluster of the tests; one that was kept is used again."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def start(self) -> tuple[str, dict[str, str]]:
        """Make the cluster and the images at the same time, load them; our image, and server → image."""
        with ThreadPoolExecutor(3) as pool:
            created, ours, servers = pool.submit(self._create), pool.submit(build_image), pool.submit(images_of_servers)
            told, image = servers.result(), ours.result()
            created.result()
        there = self.on_node("ctr --namespace k8s.io images ls -q").split()
        wanted = [image, f"{image}{NEXT}", *(name for name in told.values() if name.startswith("localhost/"))]
        missing = [name for name in wanted if name not in there]
        if missing:
            self._load(missing)
        return image, told

    def delete(self) -> None:
        """Delete the cluster; images stay."""
        _run(["kind", "delete", "cluster", "--name", NAME, "--kubeconfig", str(self.kubeconfig)], CREATE_TIMEOUT_S)

    def on_node(self, script: str) -> str:
        """What a shell script on the node prints."""
        return _run([engine(), "exec", f"{NAME}-control-plane", "sh", "-c", script], 60)

    def kill(self, pod_uid: str) -> bool:
        """SIGKILL to the processes of a pod, as the kernel would when memory ends; whether there were any."""
        script = (
            # systemd's driver writes the identifier with underscores, and it may be either.
            f"for p in /proc/[0-9]*; do if grep -q 'pod{pod_uid.replace('-', '[-_]')}' $p/cgroup 2>/dev/null "
            '&& grep -q "^python" $p/comm 2>/dev/null; then kill -9 "${p#/proc/}" && echo killed; fi; done; true'
        )
        return "killed" in self.on_node(script)

    def _create(self) -> None:
        known = _run(["kind", "get", "clusters"], 60).split()
        if NAME in known:
            _run(["kind", "export", "kubeconfig", "--name", NAME, "--kubeconfig", str(self.kubeconfig)], 60)
            return
        image = os.environ.get("KIND_NODE_IMAGE")
        command = ["kind", "create", "cluster", "--name", NAME, "--wait", "180s", "--kubeconfig", str(self.kubeconfig)]
        _run([*command, *(["--image", image] if image else [])], CREATE_TIMEOUT_S)

    def _load(self, images: list[str]) -> None:
        # By an archive: `kind load docker-image` calls docker, whatever the engine is.
        with tempfile.TemporaryDirectory() as folder:
            archive = Path(folder) / "images.tar"
            several = ["-q", "-m"] if engine() == "podman" else []
            _run([engine(), "save", *several, "-o", str(archive), *images], LOAD_TIMEOUT_S)
            _run(["kind", "load", "image-archive", str(archive), "--name", NAME], LOAD_TIMEOUT_S)


def _run(command: list[str], timeout_s: float) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    told = f"{done.stdout[-2_000:]}\n{done.stderr[-4_000:]}"
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{told}"
    return done.stdout
