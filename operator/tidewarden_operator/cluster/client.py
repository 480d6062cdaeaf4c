"""The only file with effects on Kubernetes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import structlog
import urllib3
from kubernetes import client, config

from tidewarden_operator.cluster.kinds import CHILDREN, KINDS, KindInfo
from tidewarden_operator.keys import Manifest, Ref
from tidewarden_operator.plan.names import MANAGED_BY, MANAGER

# An API server answers an apply within 10 ms, under load within a second; one that takes ten is away, and a worker
# that waits for it longer is missing elsewhere.
TIMEOUT_S = (3.0, 10.0)  # to connect, to answer
PAGE = 500

log = structlog.get_logger()


class ClusterError(Exception):
    """The API server refused or did not answer.

    Args:
        message: what was tried, and what it said.
        status: HTTP status; 0 where there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API server is and how we log in, for the watches, which have an HTTP client of their own."""

    server: str
    ca_path: str | None
    certificate_path: str | None
    private_key_path: str | None
    insecure: bool
    token_header: str | None


class Cluster:
    """Reads and writes objects as JSON.

    Args:
        kubeconfig: file to log in with; None: the pod's own account, or KUBECONFIG and ~/.kube/config outside a pod.
        context: of that file.
        pool: connections kept open, one for each thread that calls.
    """

    def __init__(self, kubeconfig: Path | None, context: str | None = None, pool: int = 8) -> None:
        self._configuration = client.Configuration()
        if kubeconfig is None and context is None:
            try:
                config.load_incluster_config(client_configuration=self._configuration)
            except config.ConfigException:
                config.load_kube_config(client_configuration=self._configuration)
        else:
            path = None if kubeconfig is None else str(kubeconfig)
            config.load_kube_config(path, context=context, client_configuration=self._configuration)
        self._configuration.connection_pool_maxsize = pool
        # The client's own calls know typed objects; ours are JSON, so only its login, TLS and pool are of use.
        self._pool: urllib3.PoolManager = client.ApiClient(self._configuration).rest_client.pool_manager

    def connection(self) -> Connection:
        """How to reach the API server, with a token that is fresh now."""
        c = self._configuration
        return Connection(
            server=c.host,
            ca_path=c.ssl_ca_cert,
            certificate_path=c.cert_file,
            private_key_path=c.key_file,
            insecure=not c.verify_ssl,
            token_header=self._token(),
        )

    def available(self) -> frozenset[str]:
        """Which optional kinds the cluster has.

        Raises:
            ClusterError: the API server did not answer.
        """
        found = set()
        for version in {info.api_version for info in CHILDREN if info.optional}:
            try:
                listed = self._call("GET", f"/apis/{version}")
            except ClusterError as error:
                if error.status == 404:
                    continue
                raise
            plurals = {entry["name"] for entry in listed["resources"]}
            found |= {i.kind for i in CHILDREN if i.optional and i.api_version == version and i.plural in plurals}
        return frozenset(found)

    def list(self, info: KindInfo, namespace: str = "") -> tuple[list[Manifest], int]:
        """All objects of a kind, of children only our own, and the resource version of the list.

        Raises:
            ClusterError: the API server did not answer or refused.
        """
        query = {"limit": str(PAGE)}
        if not info.ours:
            query["labelSelector"] = f"{MANAGED_BY}={MANAGER}"
        items: list[Manifest] = []
        while True:
            answer = self._call("GET", info.path(namespace), query=query)
            # Lists leave out what every element shares.
            items += [{"apiVersion": info.api_version, "kind": info.kind, **item} for item in answer["items"]]
            following = answer["metadata"].get("continue")
            if not following:
                return items, int(answer["metadata"]["resourceVersion"])
            query["continue"] = following

    def apply(self, manifest: Manifest, subresource: str = "") -> Manifest:
        """Server-side apply as the one field manager; returns the object as it is now.

        Raises:
            ClusterError: the API server did not answer or refused.
        """
        ref = Ref.of(manifest)
        path = KINDS[ref.kind].path(ref.namespace, ref.name) + (f"/{subresource}" if subresource else "")
        query = {"fieldManager": MANAGER, "force": "true"}
        return dict(self._call("PATCH", path, query=query, body=manifest, content_type="application/apply-patch+yaml"))

    def merge(self, ref: Ref, patch: Manifest) -> Manifest:
        """A merge patch.

        Raises:
            ClusterError: the API server did not answer or refused.
        """
        path = KINDS[ref.kind].path(ref.namespace, ref.name)
        query = {"fieldManager": MANAGER}
        return dict(self._call("PATCH", path, query=query, body=patch, content_type="application/merge-patch+json"))

    def delete(self, ref: Ref, uid: str) -> None:
        """Delete exactly this object, with what belongs to it; one that is gone already is fine.

        Raises:
            ClusterError: the API server did not answer or refused.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        try:
            self._call("DELETE", KINDS[ref.kind].path(ref.namespace, ref.name), body=body)
        except ClusterError as error:
            if error.status not in {404, 409}:  # 409: another object has the name by now
                raise

    def get(self, ref: Ref) -> Manifest | None:
        """One object, or None.

        Raises:
            ClusterError: the API server did not answer or refused.
        """
        try:
            return dict(self._call("GET", KINDS[ref.kind].path(ref.namespace, ref.name)))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def secret(self, namespace: str, name: str) -> dict[str, str] | None:
        """A Secret's content in base64 by key, or None.

        Raises:
            ClusterError: the API server did not answer or refused; with status 403 we have no right to read it.
        """
        try:
            content = self._call("GET", f"/api/v1/namespaces/{namespace}/secrets/{quote(name)}")
        except ClusterError as error:
            if error.status == 404:
                return None
            raise
        return dict(content.get("data") or {})

    def event(self, namespace: str, content: Manifest) -> None:
        """Tell people what happened.

        Raises:
            ClusterError: the API server did not answer or refused.
        """
        self._call("POST", f"/api/v1/namespaces/{namespace}/events", body=content)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Any:
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": MANAGER}
        token = self._token()
        if token is not None:
            headers["Authorization"] = token
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            answer = self._pool.request(
                method,
                url,
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(connect=TIMEOUT_S[0], read=TIMEOUT_S[1]),
                retries=False,  # what was not answered may have been done; reconciling anew is our retry
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ClusterError(f"{method} {path}: no answer from {self._configuration.host}: {error}") from error
        try:
            content = json.loads(answer.data)
        except ValueError as error:
            said = answer.data[:200].decode(errors="replace")
            raise ClusterError(f"{method} {path}: {answer.status} {said}", answer.status) from error
        if answer.status >= 400:
            raise ClusterError(f"{method} {path}: {answer.status} {content.get('message')}", answer.status)
        return content

    def _token(self) -> str | None:
        """The Authorization header; a pod's token is read anew when it has been renewed."""
        login = self._configuration.auth_settings().get("BearerToken")
        return None if login is None else login["value"]
