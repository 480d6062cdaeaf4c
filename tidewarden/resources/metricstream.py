"""MetricStream: where readings live and come from."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, HttpUrl, model_validator

from tidewarden.resources.base import TOPIC_PATTERN, DeletionPolicy, Duration, Label, Model, Name, Resource, SecretRef


class MetricContract(Model):
    """What a metric may look like; readings outside it are rejected with reason ``out_of_bounds``."""

    name: Label = Field(description="Name of the metric.")
    unit: Literal["percent", "count", "ms", "bytes", "per_second", "celsius", "none"] = Field(
        "none", description="percent implies 0 to 100, count, bytes and per_second imply at least 0."
    )
    min: float | None = Field(None, description="Lowest value accepted.")
    max: float | None = Field(None, description="Highest value accepted.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: swap them")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value accepted, from the unit unless said otherwise."""
        low, high = {
            "percent": (0.0, 100.0),
            "count": (0.0, float("inf")),
            "bytes": (0.0, float("inf")),
            "per_second": (0.0, float("inf")),
        }.get(self.unit, (float("-inf"), float("inf")))
        return (low if self.min is None else self.min, high if self.max is None else self.max)


class HttpSource(Model):
    """Push: ``POST /api/v1/readings`` (JSON or Arrow) and Prometheus remote write at ``/api/v1/write``."""

    max_body_bytes: int = Field(
        33_554_432, ge=1_024, le=1_073_741_824, description="Largest request body (after decompression)."
    )


class FileSource(Model):
    """A CSV, Parquet or JSON lines file, read once from its beginning."""

    path: str = Field(min_length=1, description="Path, relative to the resource file.")
    format: Literal["csv", "parquet", "json"] | None = Field(
        None, description="Absent: by the file's ending (.csv, .csv.gz, .parquet, .json, .jsonl, .ndjson)."
    )
    tenant: Label | None = Field(None, description="Tenant of files that name none.")
    cluster: str = Field("default", description="Cluster of files that name none.")
    node: str | None = Field(None, description="Node of files that name none; absent: the file's stem.")
    claim: Name | None = Field(
        None, description="PersistentVolumeClaim that holds the file, in a cluster; the path is relative to its root."
    )


class KafkaSource(Model):
    """A Kafka topic that somebody else writes: JSON, a node's metrics or one metric in each message, keyed by node."""

    topic: str = Field(min_length=1, max_length=249, pattern=TOPIC_PATTERN, description="Topic to read; it must exist.")
    format: Literal["json"] = Field("json", description="How messages are written.")
    bootstrap_servers: str | None = Field(
        None, description="Brokers, as host:port,host:port; absent: those of the stream."
    )
    secret_ref: SecretRef | None = Field(
        None, description="Credentials for those brokers: keys username, password, ca.crt, tls.crt, tls.key."
    )
    start: Literal["earliest", "latest"] = Field("earliest", description="Where to begin the first time.")


class PrometheusLabels(Model):
    """Which label of a result names what."""

    tenant: str | None = Field(None, description="Label that names the tenant; absent: the source's tenant.")
    cluster: str = Field("cluster", description="Label that names the cluster.")
    node: str = Field("instance", description="Label that names the node.")
    metric: str = Field("__name__", description="Label that names the metric, unless the source names it.")


class PrometheusSource(Model):
    """A PromQL query, asked again and again; steps missed meanwhile are made up by a range query."""

    url: HttpUrl | None = Field(None, description="Server, without /api; absent: the installation's Prometheus.")
    query: str = Field(min_length=1, description="PromQL that gives an instant vector; use rate() for counters.")
    every: Duration | None = Field(None, ge=1_000, description="Spacing of the steps; absent: the stream's interval.")
    delay: Duration = Field(
        0, ge=0, le=3_600_000, description="Ask for the past only, so that slow scrapes have arrived."
    )
    backfill: Duration = Field(0, ge=0, description="How far back to begin the first time, by range queries.")
    timeout: Duration = Field(30_000, ge=100, le=300_000, description="How long one query may take.")
    tenant: Label | None = Field(None, description="Tenant of results; absent: the stream's, if it has only one.")
    cluster: str = Field("default", description="Cluster of results that lack the label.")
    metric: str | None = Field(None, description="Metric of results, which lose their name under rate() and sum().")
    labels: PrometheusLabels = Field(
        default_factory=PrometheusLabels,
        description='Which labels name what; all others become part of the metric, as in requests{code="500"}.',
    )
    secret_ref: SecretRef | None = Field(
        None, description="Log-in: key token, or username and password; ca.crt where the authority is your own."
    )

    @model_validator(mode="after")
    def _one_tenant(self) -> Self:
        if self.tenant is not None and self.labels.tenant is not None:
            raise ValueError(
                f"has both tenant ({self.tenant!r}) and labels.tenant ({self.labels.tenant!r}): keep one of them"
            )
        return self


SOURCE_KINDS = ("http", "kafka", "prometheus", "file")


class Source(Model):
    """One source: a name and exactly one kind."""

    name: Name = Field(description="Unique within the stream; statistics and rejections carry it.")
    http: HttpSource | None = None
    kafka: KafkaSource | None = None
    prometheus: PrometheusSource | None = None
    file: FileSource | None = None

    @property
    def kind(self) -> str:
        """Which of the kinds it is."""
        return next(kind for kind in SOURCE_KINDS if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in SOURCE_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"source {self.name!r} has {' and '.join(given) or 'no kind'}: give exactly one of "
                f"{', '.join(SOURCE_KINDS)} (with {{}} where it needs no settings)"
            )
        return self


class KafkaConnection(Model):
    """Brokers of a stream that are not the installation's."""

    bootstrap_servers: str = Field(min_length=1, description="Brokers, as host:port,host:port.")
    secret_ref: SecretRef | None = Field(
        None, description="Credentials: keys username, password, ca.crt, tls.crt, tls.key."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to speak with the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How to log in, where the protocol has SASL."
    )

    @model_validator(mode="after")
    def _log_in(self) -> Self:
        if self.security_protocol.startswith("SASL") and self.secret_ref is None:
            raise ValueError(
                f"securityProtocol {self.security_protocol} needs secretRef, a Secret with username and password: "
                "add it, or use SSL or PLAINTEXT"
            )
        return self


class ElasticsearchConnection(Model):
    """An Elasticsearch of a stream that is not the installation's."""

    url: HttpUrl = Field(description="Address of the server or of the load balancer before it.")
    secret_ref: SecretRef | None = Field(
        None, description="Credentials: key apiKey, or username and password; ca.crt where the authority is your own."
    )


class Archive(Model):
    """What is kept in the store, and for how long."""

    readings: bool = Field(True, description="Keep raw readings and their scores, not only what was unusual.")
    retention: Duration = Field(30 * 86_400_000, ge=60_000, description="Older data is removed.")


class MetricStreamSpec(Model):
    """Spec of a MetricStream."""

    tenants: list[Label] = Field(
        min_length=1,
        max_length=1_000,
        description="Any other tenant is refused and counted; add some, never take any away.",
    )
    interval: Duration = Field(60_000, ge=1, description="Expected spacing of the readings of a series.")
    lateness: Duration | None = Field(None, ge=0, description="How late a reading may come. Default: one interval.")
    max_gap: int = Field(
        5, ge=1, le=10_000, description="Intervals of silence after which a whole node counts as gone."
    )
    future: Duration = Field(
        300_000, ge=0, description="How far ahead of the clock a timestamp may be, before it is refused."
    )
    partitions: int = Field(6, ge=1, le=1_000, description="Partitions of the stream's topics; one process uses one.")
    retention: Duration = Field(7 * 86_400_000, ge=60_000, description="How long the bus keeps records.")
    metrics: list[MetricContract] = Field(
        default_factory=list, max_length=256, description="Optional contract per metric."
    )
    sources: list[Source] = Field(default_factory=list, max_length=64, description="Where readings come from.")
    archive: Archive = Field(default_factory=Archive)
    kafka: KafkaConnection | None = Field(None, description="Absent: the installation's Kafka. A cluster only.")
    elasticsearch: ElasticsearchConnection | None = Field(
        None, description="Absent: the installation's Elasticsearch. A cluster only."
    )
    deletion_policy: DeletionPolicy = Field(
        "Retain", description="What becomes of topics and indices when the stream is deleted. A cluster only."
    )
    paused: bool = Field(False, description="Stop reading from the sources.")

    @property
    def lateness_ms(self) -> int:
        """Lateness, one interval unless said otherwise."""
        return self.interval if self.lateness is None else self.lateness

    @model_validator(mode="after")
    def _unique(self) -> Self:
        for what, names in (
            ("source", [s.name for s in self.sources]),
            ("metric", [m.name for m in self.metrics]),
            ("tenant", self.tenants),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{what} {twice[0]!r} is given twice: names are unique within a stream")
        return self


class MetricStream(Resource):
    """Where readings live and come from."""

    kind: Literal["MetricStream"] = Field("MetricStream", description="The kind of resource.")
    spec: MetricStreamSpec
