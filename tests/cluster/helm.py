"""helm for tests."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).resolve().parents[2] / "charts"
HERE = "tidewarden"  # namespace and release of the installation
RELEASES = {"tidewarden-crds": CHARTS / "tidewarden-crds", HERE: CHARTS / "tidewarden"}  # in the order of installing


class Helm:
    """helm with one kubeconfig and one namespace."""

    def __init__(self, kubeconfig: Path | None, namespace: str) -> None:
        self._command = ["helm", f"--namespace={namespace}", *([f"--kubeconfig={kubeconfig}"] if kubeconfig else [])]

    def __call__(self, *arguments: str, timeout_s: float = 60.0) -> str:
        """What helm prints; an AssertionError with what it says where it fails."""
        command = [*self._command, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s + 30, check=False)
        told = f"{done.stdout[-3_000:]}\n{done.stderr[-3_000:]}"
        assert done.returncode == 0, f"helm {' '.join(arguments)} ended with {done.returncode}:\n{told}"
        return done.stdout

    def install(self, release: str, chart: Path, values: dict[str, Any], timeout_s: float) -> None:
        """Install or upgrade, and wait until all of it is ready."""
        there = json.loads(self("list", "--all", "--output=json", f"--filter=^{release}$"))
        if there and there[0]["status"].startswith("pending"):  # a run that was killed left it so, in a kept cluster
            self("uninstall", release, "--no-hooks", "--wait", timeout_s=timeout_s)
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values, file)
            file.flush()
            self(
                "upgrade", "--install", release, str(chart), "-f", file.name, "--wait", f"--timeout={timeout_s:.0f}s",
                timeout_s=timeout_s,
            )  # fmt: skip
