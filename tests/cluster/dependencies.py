"""Images of Kafka, Elasticsearch, Prometheus and Alertmanager for a machine that reaches no image registry.

``python tests/cluster/dependencies.py [--engine podman] [--base localhost/debian:bookworm]`` builds them from
the jars that the integration tests use, Debian's packages and, of Prometheus, its Go module (Debian's build knows
no Kubernetes). They honour the official images' interface.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a program; under pytest it is there

from servers import elasticsearch, kafka

FOLDER = Path(__file__).parent / "images"
TAG = "tests"
TARGETS = ("kafka", "elasticsearch", "prometheus", "alertmanager")
BUILD_TIMEOUT_S = 900  # 40 s measured; a JRE of 190 MB comes through a slow mirror
PROMETHEUS = "github.com/prometheus/prometheus@v0.308.0"  # Go modules have no major version here: this is 3.8.0
# The only discovery that the chart uses; all of them would bring in the libraries of twenty clouds.
PLUGINS = """package plugins

import _ "github.com/prometheus/prometheus/discovery/kubernetes"
"""
COMPILE_TIMEOUT_S = 1_800  # a bound on a hang, the first time only; Go keeps what it has compiled


def build(engine: str, base: str) -> dict[str, str]:
    """Build the four images; name → reference."""
    built = {}
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch)
        shutil.copytree(kafka.jars(), context / "kafka-libs")
        shutil.copytree(elasticsearch.home(), context / "elasticsearch-home", ignore=shutil.ignore_patterns("data"))
        shutil.copy(prometheus(), context / "prometheus")
        for program in FOLDER.iterdir():
            shutil.copy(program, context)
        for target in TARGETS:
            built[target] = f"localhost/{target}:{TAG}"
            command = [engine, "build", "--network", "host", "--build-arg", f"DEBIAN_IMAGE={base}"]
            command += ["--target", target, "-t", built[target], str(context)]
            subprocess.run(command, check=True, timeout=BUILD_TIMEOUT_S)
    return built


def prometheus() -> Path:
    """The program, compiled the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidewarden-tests"
    kept = cache / f"prometheus-{PROMETHEUS.partition('@v')[2]}"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            source = Path(scratch) / "source"
            told = _go(["mod", "download", "-json", PROMETHEUS], Path(scratch))
            shutil.copytree(json.loads(told)["Dir"], source)
            for folder in (source, source / "plugins"):
                folder.chmod(0o755)  # the module cache is read-only
            (source / "plugins" / "plugins.go").unlink()
            (source / "plugins" / "plugins.go").write_text(PLUGINS)
            _go(["build", "-ldflags", "-s -w", "-o", str(Path(scratch) / "prometheus"), "./cmd/prometheus"], source)
            for folder, _, _ in os.walk(source):
                Path(folder).chmod(0o755)  # so that it can be removed
            (Path(scratch) / "prometheus").rename(kept)
    return kept


def _go(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "CGO_ENABLED": "0"}
    return subprocess.run(
        ["go", *arguments],
        cwd=folder,
        env=environment,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        timeout=COMPILE_TIMEOUT_S,
    ).stdout


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--engine", default=shutil.which("docker") or shutil.which("podman") or "docker")
    asked.add_argument("--base", default="debian:bookworm-slim")
    given = asked.parse_args()
    for name, reference in build(given.engine, given.base).items():
        sys.stdout.write(f"{name} {reference}\n")
