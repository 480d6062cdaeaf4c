"""The real Kafka and Elasticsearch behind the ports of `backends.py`."""

from __future__ import annotations

import base64
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tidewarden.settings import ElasticsearchSettings, KafkaSettings
from tidewarden.store.port import StoreError, StoreUnavailableError
from tidewarden.topics import Topic
from tidewarden_operator.backends import BackendError, Indices, Topics
from tidewarden_operator.cluster.client import Cluster, ClusterError
from tidewarden_operator.plan.config import installed_elasticsearch, installed_kafka
from tidewarden_operator.plan.names import digest
from tidewarden_operator.settings import OperatorSettings

if TYPE_CHECKING:
    from tidewarden.bus.kafka.admin import TopicAdmin
    from tidewarden.store.elasticsearch import ElasticsearchStore

# One attempt of the operator; it comes again by itself, so it need not outlast a broker's restart.
PATIENCE_S = 5.0
# Clients that are kept: one for each different connection. Beyond this, the least recently opened one goes.
KEPT = 32

T = TypeVar("T")
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class KafkaTopics:
    """Topics by `TopicAdmin`."""

    admin: TopicAdmin
    address: str

    def apply(self, topics: Sequence[Topic]) -> list[str]:
        """See `backends.Topics`."""
        changes = self._asked(lambda: self.admin.apply(topics))
        return [f"{change.topic} {change.field}: {change.after}" for change in changes]

    def delete(self, names: Sequence[str]) -> None:
        """See `backends.Topics`."""
        self._asked(lambda: self.admin.delete(names))

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except ConnectionError as error:
            raise BackendError("KafkaUnavailable", str(error)) from error
        except ValueError as error:
            raise BackendError("TopicsRefused", str(error)) from error


@dataclass(frozen=True, slots=True)
class ElasticsearchIndices:
    """Indices by `ElasticsearchStore`."""

    store: ElasticsearchStore

    def prepare(self, stream: str, retention_ms: int) -> None:
        """See `backends.Indices`."""
        self._asked(lambda: self.store.prepare(stream, retention_ms))

    def drop(self, stream: str) -> None:
        """See `backends.Indices`."""
        self._asked(lambda: self.store.drop(stream))

    def _asked(self, call: Callable[[], object]) -> None:
        try:
            call()
        except StoreUnavailableError as error:
            raise BackendError("ElasticsearchUnavailable", str(error)) from error
        except StoreError as error:
            raise BackendError("ElasticsearchRefuses", str(error)) from error


class ServerOpener:
    """Opens connections with the operator's own credentials, or with those of a stream's Secret, and keeps them.

    A Secret is read by its name, only where a stream names one, and only if the installation grants `get` on
    Secrets: there is no list and no watch of them.

    Args:
        settings: of the operator.
        cluster: to read a Secret from.
        folder: where a Secret's files are put for the clients to read; only we may.
    """

    def __init__(self, settings: OperatorSettings, cluster: Cluster, folder: Path | None = None) -> None:
        self._settings = settings
        self._cluster = cluster
        self._folder = folder or Path(tempfile.mkdtemp(prefix="tidewarden-operator-"))
        self._lock = threading.Lock()
        self._admins: dict[str, TopicAdmin] = {}
        self._stores: dict[str, ElasticsearchStore] = {}

    def topics(self, kafka: KafkaSettings, namespace: str) -> Topics:
        """The topics of a Kafka."""
        from tidewarden.bus.kafka.admin import TopicAdmin

        own = self._settings.kafka
        if kafka == installed_kafka(self._settings):
            kafka = kafka.model_copy(update={"secret_dir": own.secret_dir})
        elif kafka.secret_dir is not None:
            kafka = kafka.model_copy(update={"secret_dir": self._secret(namespace, kafka.secret_dir.name)})

        def opened() -> TopicAdmin:
            try:
                return TopicAdmin(kafka, client_id="tidewarden-operator", patience_s=PATIENCE_S)
            except ValueError as error:
                raise BackendError("KafkaSettingsInvalid", str(error)) from error

        return KafkaTopics(self._kept(self._admins, repr(kafka), opened), kafka.bootstrap_servers)

    def indices(self, elasticsearch: ElasticsearchSettings, namespace: str) -> Indices:
        """The indices of an Elasticsearch."""
        from tidewarden.store.elasticsearch import ElasticsearchStore

        search = elasticsearch
        if search == installed_elasticsearch(self._settings):
            own = self._settings.elasticsearch
            search = search.model_copy(update={"secret_dir": None if own is None else own.secret_dir})
        elif search.secret_dir is not None:
            search = search.model_copy(update={"secret_dir": self._secret(namespace, search.secret_dir.name)})

        def opened() -> ElasticsearchStore:
            try:
                return ElasticsearchStore(search, namespace)
            except StoreError as error:
                raise BackendError("ElasticsearchSettingsInvalid", str(error)) from error

        return ElasticsearchIndices(self._kept(self._stores, f"{namespace} {search!r}", opened))

    def _kept(self, kept: dict[str, C], name: str, opened: Callable[[], C]) -> C:
        with self._lock:
            if name not in kept:
                kept[name] = opened()
                while len(kept) > KEPT:
                    del kept[next(iter(kept))]
            return kept[name]

    def _secret(self, namespace: str, name: str) -> Path:
        """Folder with the files of a Secret; another content is another folder, so that clients are opened anew."""
        try:
            content = self._cluster.secret(namespace, name)
        except ClusterError as error:
            if error.status != 403:
                raise BackendError("SecretUnavailable", str(error)) from error
            message = (
                f"the operator may not read Secret {name!r} of namespace {namespace!r}, which it needs for the topics "
                f"and indices: kubectl -n {namespace} create role tidewarden-{name} --verb=get --resource=secrets "
                f"--resource-name={name}, and bind it to the operator's service account"
            )
            raise BackendError("SecretForbidden", message) from error
        if content is None:
            message = f"there is no Secret {name!r} in namespace {namespace!r}: create it, or correct secretRef"
            raise BackendError("SecretNotFound", message)
        folder = self._folder / f"{namespace}.{name}.{digest(content)}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for key, value in content.items():
            file = folder / Path(key).name
            if not file.exists():
                file.touch(mode=0o600)
                file.write_bytes(base64.b64decode(value))
        return folder
