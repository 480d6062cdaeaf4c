"""The real Kafka and Elasticsearch behind the ports of `backends.py`."""

from __future__ import annotations

from tidewarden.settings import ElasticsearchSettings, KafkaSettings
from tidewarden_operator.backends import BackendError, Indices, Topics
from tidewarden_operator.cluster.client import Cluster
from tidewarden_operator.settings import OperatorSettings


class ServerOpener:
    """Opens connections with the operator's own credentials, or with those of a stream's Secret.

    A Secret is read by its name, only where a stream names one, and only if the installation grants `get` on
    Secrets: there is no list and no watch of them.
    """

    def __init__(self, settings: OperatorSettings, cluster: Cluster) -> None:
        self._settings = settings
        self._cluster = cluster

    def topics(self, kafka: KafkaSettings, namespace: str) -> Topics:
        """The topics of a Kafka."""
        raise BackendError("KafkaUnavailable", f"{kafka.bootstrap_servers}: not built yet")

    def indices(self, elasticsearch: ElasticsearchSettings, namespace: str) -> Indices:
        """The indices of an Elasticsearch."""
        raise BackendError("ElasticsearchUnavailable", f"{elasticsearch.url}: not built yet")
