"""Is the pipeline well, and where does it hang? The first page for whoever is on call."""

from __future__ import annotations

from tidewarden_operator.plan.dashboards.panels import Dashboard, Panel, Query, Row, Variable, select
from tidewarden_operator.plan.rules import CATCH_UP_S, JOB, LATENCY_S, REJECTED_SHARE

NAMESPACES = Variable("namespace", "tidewarden_build_info")
STREAMS = Variable("stream", 'tidewarden_readings_total{namespace=~"$namespace"}')


def per_second(metric: str, labels: str, *matchers: str) -> str:
    """A counter's rate by labels."""
    return f"sum by ({labels}) (rate({select(metric, *matchers)}[$__rate_interval]))"


def quantile(q: float, metric: str, labels: str, *matchers: str) -> str:
    """A quantile of a histogram by labels."""
    buckets = f"rate({select(f'{metric}_bucket', *matchers)}[$__rate_interval])"
    return f"histogram_quantile({q:g}, sum by ({labels}, le) ({buckets}))"


_REFUSED = per_second("tidewarden_rejected_total", "namespace, stream, source", "stream")
_TAKEN = per_second("tidewarden_readings_total", "namespace, stream, source", "stream")
CATCH_UP = (
    f"sum by (namespace, service) ({select('tidewarden_lag_records')}) / "
    f"sum by (namespace, service) (rate({select('tidewarden_records_handled_total')}[5m]))"
)
FIRING = 'count(ALERTS{alertname=~"Tidewarden.+",alertstate="firing"}) or vector(0)'

_NOW = Row(
    "Is it well?",
    [
        Panel(
            "Alerts about Tidewarden",
            [Query(FIRING)],
            "Alert rules about Tidewarden itself that fire now; the pages in docs/runbooks say what to do.",
            kind="stat",
            warn=1,
            bad=1,
            width=3,
            height=4,
        ),
        Panel(
            "Processes down",
            [Query(f"count({select('up', JOB)} == 0) or vector(0)")],
            "Processes that Prometheus knows of and cannot reach. Anything but 0: see 'Infrastructure'.",
            kind="stat",
            warn=1,
            bad=1,
            width=3,
            height=4,
        ),
        Panel(
            "Longest time to catch up",
            [Query(f"max({CATCH_UP} >= 0) or vector(0)")],
            f"What the slowest service needs for its backlog at its present pace. Above {CATCH_UP_S} s alerts come late.",
            unit="s",
            kind="stat",
            warn=30,
            bad=CATCH_UP_S,
            width=3,
            height=4,
        ),
        Panel(
            "Latency of scores, 99 %",
            [Query(f"max({quantile(0.99, 'tidewarden_score_latency_seconds', 'detector', 'stream')})")],
            "From arrival at ingest to the score on the bus, of the slowest detector. 0.15 s is what we aim for.",
            unit="s",
            kind="stat",
            warn=0.25,
            bad=LATENCY_S,
            width=3,
            height=4,
        ),
        Panel(
            "Readings",
            [Query(f"sum({per_second('tidewarden_readings_total', 'stream', 'stream')})")],
            "Readings accepted by all sources together.",
            unit="ops",
            kind="stat",
            width=3,
            height=4,
        ),
        Panel(
            "Refused share",
            [Query(f"max({_REFUSED} / ({_TAKEN} + {_REFUSED}) >= 0) or vector(0)")],
            "Share of the readings that ingest refuses, of the source that has most of it. They are kept with reasons.",
            unit="percentunit",
            kind="stat",
            warn=0.01,
            bad=REJECTED_SHARE,
            width=3,
            height=4,
        ),
        Panel(
            "Store takes writes",
            [Query(f"min({select('tidewarden_store_available')})")],
            "1: every archive writes. 0: one is held up; nothing is lost while the topics' retention lasts.",
            kind="stat",
            warn=1,
            bad=0.5,
            width=3,
            height=4,
        ),
        Panel(
            "Alerts not yet delivered",
            [Query(f"sum({select('tidewarden_alert_outbox_alerts')})")],
            "Alerts that wait for receivers. More than a handful for minutes: people do not hear of anomalies.",
            kind="stat",
            warn=1,
            bad=10,
            width=3,
            height=4,
        ),
    ],
)
_IN = Row(
    "What comes in",
    [
        Panel(
            "Readings accepted",
            [Query(_TAKEN, "{{namespace}} {{stream}}/{{source}}")],
            "Readings a second of each source. A line that falls to 0 is a silent source.",
            unit="ops",
        ),
        Panel(
            "Readings refused",
            [
                Query(
                    per_second("tidewarden_rejected_total", "namespace, stream, reason", "stream"),
                    "{{namespace}} {{stream}} {{reason}}",
                )
            ],
            "Refused readings a second by reason; each is kept and shown under Rejected on the page.",
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Age of the newest reading",
            [
                Query(
                    f"max by (namespace, stream, source) ({select('tidewarden_source_lag_seconds', 'stream')})",
                    "{{namespace}} {{stream}}/{{source}}",
                )
            ],
            "Now minus the newest timestamp. A replay of old data is as old as its data.",
            unit="s",
        ),
        Panel(
            "Silence of sources",
            [
                Query(
                    f"time() - max by (namespace, stream, source) ({select('tidewarden_source_delivered_timestamp_seconds', 'stream')})",
                    "{{namespace}} {{stream}}/{{source}}",
                )
            ],
            "Since a source last delivered anything, by the clock. Sources that have ended are not shown.",
            unit="s",
        ),
        Panel(
            "Late readings",
            [
                Query(
                    per_second("tidewarden_late_readings_total", "namespace, stream, source", "stream"),
                    "{{namespace}} {{stream}}/{{source}}",
                )
            ],
            "Readings older than the newest of their series. They are scored all the same where the model can.",
            unit="ops",
        ),
    ],
)
_THROUGH = Row(
    "How it flows",
    [
        Panel(
            "Backlog",
            [Query(f"sum by (namespace, service) ({select('tidewarden_lag_records')})", "{{namespace}} {{service}}")],
            "Records on the bus that each service has not read yet. The first service that grows is the slow one.",
        ),
        Panel(
            "Time to catch up",
            [Query(CATCH_UP, "{{namespace}} {{service}}")],
            "Backlog by present pace. Empty where nothing waits and nothing comes.",
            unit="s",
            warn=30,
            bad=CATCH_UP_S,
        ),
        Panel(
            "Records handled",
            [Query(per_second("tidewarden_records_handled_total", "namespace, service"), "{{namespace}} {{service}}")],
            "Records a second of each service; a record holds up to 10,000 readings.",
            unit="ops",
        ),
        Panel(
            "Held back by merges",
            [
                Query(
                    f"sum by (namespace, service) ({select('tidewarden_waiting_records')})", "{{namespace}} {{service}}"
                )
            ],
            "Records that wait until every instance of a detector has come as far. Growing: a detector pod is behind or away.",
        ),
        Panel(
            "Latency of scores",
            [
                Query(
                    quantile(0.5, "tidewarden_score_latency_seconds", "namespace, detector", "stream"),
                    "{{namespace}} {{detector}} 50 %",
                ),
                Query(
                    quantile(0.99, "tidewarden_score_latency_seconds", "namespace, detector", "stream"),
                    "{{namespace}} {{detector}} 99 %",
                ),
            ],
            "From a reading's arrival at ingest to its score on the bus.",
            unit="s",
            warn=0.25,
            bad=LATENCY_S,
        ),
        Panel(
            "Failures survived",
            [
                Query(
                    f"{per_second('tidewarden_errors_total', 'namespace, service, error')} or vector(0)",
                    "{{namespace}} {{service}} {{error}}",
                )
            ],
            "Errors that a service went on after; its log says more.",
            unit="ops",
        ),
    ],
)
_OUT = Row(
    "What comes out",
    [
        Panel(
            "Rows stored",
            [
                Query(
                    per_second("tidewarden_stored_rows_total", "namespace, stream, kind", "stream"),
                    "{{namespace}} {{stream}} {{kind}}",
                )
            ],
            "Rows a second that the archive writes, by kind.",
            unit="ops",
            stacked=True,
        ),
        Panel(
            "Duration of a batch's write",
            [
                Query(
                    quantile(0.5, "tidewarden_store_write_seconds", "namespace, service"),
                    "{{namespace}} {{service}} 50 %",
                ),
                Query(
                    quantile(0.99, "tidewarden_store_write_seconds", "namespace, service"),
                    "{{namespace}} {{service}} 99 %",
                ),
            ],
            "How long the store took for one batch. Seconds: Elasticsearch is slow, and the archive waits for it.",
            unit="s",
        ),
        Panel(
            "Notifications",
            [
                Query(
                    per_second("tidewarden_alert_deliveries_total", "namespace, policy, receiver, result"),
                    "{{namespace}} {{policy}}/{{receiver}} {{result}}",
                )
            ],
            "Deliveries a second by result. 'refused' is for good, 'retried' is tried again.",
            unit="ops",
        ),
        Panel(
            "Alerts waiting for receivers",
            [
                Query(
                    f"sum by (namespace, policy, receiver) ({select('tidewarden_alert_outbox_alerts')})",
                    "{{namespace}} {{policy}}/{{receiver}}",
                )
            ],
            "Alerts in each receiver's outbox; it holds 1,000, then the policy waits.",
            warn=10,
            bad=100,
        ),
    ],
)

OVERVIEW = Dashboard(
    "pipeline",
    "Pipeline overview",
    "From the sources to the receivers: is it well, and if not, where does it hang?",
    [_NOW, _IN, _THROUGH, _OUT],
    [NAMESPACES, STREAMS],
)
