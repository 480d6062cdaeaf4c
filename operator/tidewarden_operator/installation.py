"""Is an installation whole? Run by ``helm test`` in a pod: ``python -m tidewarden_operator.installation``.

Checks what only the inside of the cluster can see: the four kinds are served, the operator is ready, Kafka and
Elasticsearch answer. Says one line for each, and what to do about it; ends with 1 if any is not well.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import yaml

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KINDS = {"MetricStream", "MetricSimulation", "AnomalyDetector", "AlertPolicy"}
TIMEOUT_S = 5.0
PATIENCE_S = 60.0  # a Service refuses for about a second after a rollout; a broker that starts takes some ten
PAUSE_S = 1.0


class NotWellError(Exception):
    """What is not well, and the remedy."""


def kinds_served() -> str:
    """The API server knows the four kinds."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}/apis/tidewarden.dev/v1alpha1",
        headers={"Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}"},
    )
    remedy = "install the chart tidewarden-crds"
    try:
        tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=tls) as answer:  # noqa: S310
            missing = KINDS - {resource["kind"] for resource in json.load(answer)["resources"]}
    except urllib.error.HTTPError as error:
        raise NotWellError(f"tidewarden.dev/v1alpha1 is not served ({error.code}): {remedy}") from error
    if missing:
        raise NotWellError(f"{', '.join(sorted(missing))} not served: {remedy}")
    return f"{', '.join(sorted(KINDS))} are served"


def answers(what: str, address: str, remedy: str) -> str:
    """An HTTP server answers, if only to refuse: credentials are the pods' matter."""
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S):  # noqa: S310 - from the installation's settings
            return f"{what} answers at {address}"
    except urllib.error.HTTPError as error:
        if error.code in {401, 403}:
            return f"{what} answers at {address} and wants a log-in"
        raise NotWellError(f"{what} at {address} says {error.code}: {remedy}") from error
    except ssl.SSLCertVerificationError:
        return f"{what} answers at {address} with a certificate of your own authority"


def reachable(what: str, addresses: str, remedy: str) -> str:
    """At least one of the brokers takes connections."""
    refused = []
    for address in addresses.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            with socket.create_connection((host, int(port)), timeout=TIMEOUT_S):
                return f"{what} takes connections at {address}"
        except OSError as error:
            refused.append(f"{address}: {error}")
    raise NotWellError(f"{what} takes no connection ({'; '.join(refused)}): {remedy}")


def checks(settings: dict[str, dict[str, str]], operator: str) -> list[Callable[[], str]]:
    """What to ask, in the order in which one thing needs the other."""
    kafka, elasticsearch = settings["kafka"]["bootstrapServers"], settings.get("elasticsearch")
    asked: list[Callable[[], str]] = [
        kinds_served,
        lambda: reachable("Kafka", kafka, "see kafka.bootstrapServers in the values"),
        lambda: answers("The operator", f"{operator}/readyz", "see its log: kubectl logs deployment/…-operator"),
    ]
    if elasticsearch is not None:
        url = elasticsearch["url"]
        asked.append(lambda: answers("Elasticsearch", url, "see elasticsearch.url in the values"))
    return asked


def main() -> None:
    """Entry of the pod."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--settings", type=Path, required=True)
    asked.add_argument("--operator", required=True, help="address of its port 9464")
    given = asked.parse_args()
    deadline = time.monotonic() + PATIENCE_S
    well = True
    for check in checks(yaml.safe_load(given.settings.read_text()), given.operator):
        while True:
            try:
                print(f"ok    {check()}")  # noqa: T201 - the log of the test pod
                break
            except (NotWellError, OSError) as error:
                if time.monotonic() > deadline:
                    print(f"FAIL  {error}")  # noqa: T201
                    well = False
                    break
                time.sleep(PAUSE_S)
    sys.exit(not well)


if __name__ == "__main__":
    main()
