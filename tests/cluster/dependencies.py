"""Images of Kafka, Elasticsearch, Prometheus and Alertmanager for a machine that reaches no image registry.

``python tests/cluster/dependencies.py [--engine podman] [--base localhost/debian:bookworm]`` builds them from
Debian's packages and the jars that the integration tests use; they honour the official images' interface.
"""

from __future__ import annotations

import argparse
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


def build(engine: str, base: str) -> dict[str, str]:
    """Build the four images; name → reference."""
    built = {}
    with tempfile.TemporaryDirectory() as scratch:
        context = Path(scratch)
        shutil.copytree(kafka.jars(), context / "kafka-libs")
        shutil.copytree(elasticsearch.home(), context / "elasticsearch-home", ignore=shutil.ignore_patterns("data"))
        for program in FOLDER.iterdir():
            shutil.copy(program, context)
        for target in TARGETS:
            built[target] = f"localhost/{target}:{TAG}"
            command = [engine, "build", "--network", "host", "--build-arg", f"DEBIAN_IMAGE={base}"]
            command += ["--target", target, "-t", built[target], str(context)]
            subprocess.run(command, check=True, timeout=BUILD_TIMEOUT_S)
    return built


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--engine", default=shutil.which("docker") or shutil.which("podman") or "docker")
    asked.add_argument("--base", default="debian:bookworm-slim")
    given = asked.parse_args()
    for name, reference in build(given.engine, given.base).items():
        sys.stdout.write(f"{name} {reference}\n")
