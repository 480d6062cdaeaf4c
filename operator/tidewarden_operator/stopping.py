"""Stops the operator before an uninstallation: ``python -m tidewarden_operator.stopping DEPLOYMENT NAMESPACE``.

``tidewarden operator release`` follows. An operator that still ran would hold on again to what has just been released.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TIMEOUT_S = 10.0
PATIENCE_S = 60.0  # its pod ends within its grace of 20 s
PAUSE_S = 0.5


def ask(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """An answer of the API server, as the pod's own account."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
            "Content-Type": "application/merge-patch+json",
        },
    )
    tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=tls) as answer:  # noqa: S310
        found: dict[str, Any] = json.load(answer)
    return found


def stop(deployment: str, namespace: str) -> None:
    """Scale it to nothing and wait until its pod has ended; TimeoutError where it does not."""
    scale = f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}/scale"
    try:
        ask("PATCH", scale, {"spec": {"replicas": 0}})
    except urllib.error.HTTPError as error:
        if error.code == 404:  # somebody deleted it before us
            return
        raise
    deadline = time.monotonic() + PATIENCE_S
    while ask("GET", scale)["status"]["replicas"]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"deployment {deployment} still has pods after {PATIENCE_S:.0f} s")
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    stop(sys.argv[1], sys.argv[2])
