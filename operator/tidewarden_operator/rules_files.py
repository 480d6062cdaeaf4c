"""Alert rules from ConfigMaps to files, for a Prometheus that reads files only.

Runs beside Prometheus in its pod: ``python -m tidewarden_operator.rules_files``. It looks for ConfigMaps that carry
the label `LABEL`, writes their entries into a folder and asks Prometheus to read it again. Nothing but the standard
library: it takes 10 MiB and starts at once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import ssl
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

LABEL = "tidewarden.dev/rules=true"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Rules change when resources do, and Prometheus evaluates them every 15 s: asking more often would show nothing
# sooner. One list from the API server's cache costs it about a millisecond.
INTERVAL_S = 10.0
TIMEOUT_S = 10.0


class Api:
    """The API server as a pod sees it."""

    def __init__(self, account: Path, address: str) -> None:
        self._account = account
        self._address = address
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def rules(self, namespaces: list[str]) -> dict[str, str]:
        """File name → content of every entry of every labelled ConfigMap; no namespaces: of all."""
        found: dict[str, str] = {}
        for path in [f"namespaces/{name}/configmaps" for name in namespaces] or ["configmaps"]:
            query = urllib.parse.urlencode({"labelSelector": LABEL, "resourceVersion": "0"})
            # The token is read anew each time: Kubernetes replaces it every hour.
            request = urllib.request.Request(  # noqa: S310 - https, to the API server
                f"{self._address}/api/v1/{path}?{query}",
                headers={"Authorization": f"Bearer {(self._account / 'token').read_text().strip()}"},
            )
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls) as answer:  # noqa: S310
                found.update(entries(json.load(answer)["items"]))
        return found


def entries(config_maps: list[dict[str, object]]) -> Iterator[tuple[str, str]]:
    """(File name, content) of each entry; names cannot clash, because neither part may have an underscore."""
    for config_map in config_maps:
        metadata, data = config_map["metadata"], config_map.get("data")
        if not isinstance(metadata, dict) or not isinstance(data, dict):
            continue
        for key, content in data.items():
            yield f"{metadata['namespace']}_{metadata['name']}_{Path(key).stem}.yaml", content


def lay(folder: Path, wanted: dict[str, str]) -> bool:
    """Make the folder's files what is wanted; whether anything had to change."""
    changed = False
    for path in folder.glob("*.yaml"):
        if path.name not in wanted:
            path.unlink()
            changed = True
    for name, content in wanted.items():
        path = folder / name
        if not path.exists() or path.read_text() != content:
            beside = folder / f".{name}"
            beside.write_text(content)
            beside.replace(path)  # at once: Prometheus never reads half a file
            changed = True
    return changed


def reload(address: str) -> None:
    """Ask Prometheus to read its files again; OSError when it is away or refuses them."""
    request = urllib.request.Request(address, method="POST")  # noqa: S310 - the container beside
    with urllib.request.urlopen(request, timeout=TIMEOUT_S):  # noqa: S310
        pass


def keep(api: Api, namespaces: list[str], folder: Path, reload_address: str, stopped: threading.Event) -> None:
    """Go on until stopped; what fails is said and tried again."""
    current = True  # Prometheus has read what lies in the folder
    while True:
        try:
            current = not lay(folder, api.rules(namespaces)) and current
            if not current:
                reload(reload_address)
                current = True
        except urllib.error.HTTPError as error:
            print(f"{error.url}: {error.code}: {error.read(2_000).decode(errors='replace')}", file=sys.stderr)  # noqa: T201
        except OSError as error:
            print(f"rules could not be brought up to date, tried again in {INTERVAL_S:.0f} s: {error}", file=sys.stderr)  # noqa: T201
        if stopped.wait(INTERVAL_S):
            return


def main() -> None:
    """Entry of the container."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--folder", type=Path, required=True, help="where Prometheus looks for rules")
    asked.add_argument("--reload", required=True, help="address that makes Prometheus read them")
    asked.add_argument("--namespaces", default="", help="comma-separated; absent: all")
    given = asked.parse_args()
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    api = Api(ACCOUNT, f"https://{f'[{host}]' if ':' in host else host}:{port}")
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    keep(api, [name for name in given.namespaces.split(",") if name], given.folder, given.reload, stopped)


if __name__ == "__main__":
    main()
