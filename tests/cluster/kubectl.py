"""kubectl for tests: what a person would type, with waiting on conditions and port-forwards that end."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
LOOK_AGAIN_S = 0.5  # between two looks at a condition that cannot be watched


class Kubectl:
    """kubectl with one kubeconfig and one namespace.

    Args:
        kubeconfig: its file; None: what kubectl takes by itself.
        namespace: of everything that has one.
    """

    def __init__(self, kubeconfig: Path | None, namespace: str) -> None:
        self._command = ["kubectl", *([f"--kubeconfig={kubeconfig}"] if kubeconfig else []), f"--namespace={namespace}"]
        self._kubeconfig = kubeconfig
        self.namespace = namespace

    def elsewhere(self, namespace: str) -> Kubectl:
        """The same in another namespace."""
        return Kubectl(self._kubeconfig, namespace)

    def __call__(self, *arguments: str, stdin: str | None = None, timeout_s: float = 60.0, check: bool = True) -> str:
        """What kubectl prints; an AssertionError with what it says where it fails."""
        command = [*self._command, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()[-3_000:]}"
        return done.stdout

    def apply(self, manifest: str) -> None:
        """Apply YAML or JSON."""
        self("apply", "-f", "-", stdin=manifest)

    def get(self, *what: str) -> dict[str, Any]:
        """One object, or a List."""
        found: dict[str, Any] = json.loads(self("get", *what, "-o", "json"))
        return found

    def items(self, *what: str) -> list[dict[str, Any]]:
        """The objects of a kind or selector."""
        items: list[dict[str, Any]] = self.get(*what)["items"]
        return items

    def wait(self, *what: str, until: str, timeout_s: float) -> None:
        """`kubectl wait --for`; where it is in vain, says how the object looks instead."""
        arguments = ["wait", *what, f"--for={until}", f"--timeout={timeout_s:.0f}s"]
        command = [*self._command, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s + 30, check=False)
        if done.returncode:
            shown = self("get", *what, "-o", "yaml", "--show-managed-fields=false", check=False)
            raise AssertionError(
                f"{' '.join(what)} not {until} within {timeout_s:.0f} s: {done.stderr}\n{shown[-6_000:]}"
            )

    @contextmanager
    def forward(self, target: str, port: int) -> Iterator[str]:
        """A port of a Service or pod on loopback, as http://127.0.0.1:PORT."""
        command = [*self._command, "port-forward", "--address=127.0.0.1", target, f":{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                found = re.search(r"127\.0\.0\.1:(\d+)", line)
                assert found, f"kubectl port-forward {target}: {line}"
                yield f"http://127.0.0.1:{found[1]}"
            finally:
                process.terminate()


def until(what: str, look: Callable[[], T | None], timeout_s: float) -> T:
    """What ``look`` finds, as soon as it finds anything; AssertionError after ``timeout_s``."""
    deadline = time.monotonic() + timeout_s
    last: BaseException | None = None
    while True:
        try:
            found = look()
            if found:
                return found
        except (OSError, AssertionError, subprocess.TimeoutExpired) as error:
            last = error  # a Service refuses for a second after a rollout, an API server may be busy
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}") from last
        time.sleep(LOOK_AGAIN_S)


def fetch(url: str, body: Any = None) -> Any:
    """JSON of a URL, or its text where it is none; POST where there is a body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    try:
        return json.loads(text)
    except ValueError:
        return text


def condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    """One condition of a resource's status; {} if it is not there."""
    conditions = resource.get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind), {})
