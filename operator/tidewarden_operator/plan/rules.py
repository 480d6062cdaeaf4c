"""The alert rules: the one place that says when somebody is told, how urgently, and what to do.

Pure. The same rules become PrometheusRules, ConfigMaps and the files below ``charts/tidewarden/rules``. Each has a page
in ``docs/runbooks``, which a test holds it to.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from tidewarden_operator.plan.monitoring import RuleGroups

RUNBOOKS = "https://github.com/tidewarden/tidewarden/blob/main/docs/runbooks/"
JOB = 'job="tidewarden"'
NAMESPACE = "NAMESPACE"  # stands in an expression where a matcher of the namespace goes

# A reading is scored within 0.15 s of its tick on a machine that keeps up (the product's own aim): 1 s is not noise.
LATENCY_S = 1.0
# What is behind is caught up with in that many seconds at the pace of the last five minutes. 120 s is two ticks of a
# minute: from there on an alert comes noticeably late.
CATCH_UP_S = 120
# One series in ten within a quarter of an hour: a calibrated detector opens a few anomalies a day in all.
STORM_SHARE, STORM_LEAST = 0.1, 5
# Half: below it a detector is wrong more often than right, or misses more than it finds.
F1_LEAST = 0.5
REJECTED_SHARE = 0.05
# Five readings in a row may be late or lost; what delivers every second gets ten minutes, as a restart may take.
SILENT_S, SILENT_INTERVALS = 600, 5
# Snapshots are taken every 2 s, and every 20 times their own duration when they are slow: 10 min is 30 s of writing.
SNAPSHOT_S = 600
LEARNED_S = 900
# Failed reconciliations are tried again, at first within a second: one is nothing, five in 15 min stay.
OPERATOR_ERRORS = 5
# The API server says something on each watch at least every 70 s, or the operator begins it anew.
WATCH_S = 180
QUEUE_S = 120

Severity = Literal["critical", "warning"]


class Rule(NamedTuple):
    """One alert.

    Args:
        name: of the alert and of its page.
        expr: PromQL with `NAMESPACE` in each selector.
        wait: how long it must hold, e.g. ``5m``.
        severity: critical means that readings are not watched or alerts reach nobody.
        summary: one line, with Prometheus' templates.
        description: what it means and what to do first.
    """

    name: str
    expr: str
    wait: str
    severity: Severity
    summary: str
    description: str


def _rate(metric: str, labels: str, window: str, *matchers: str) -> str:
    return f"sum by (namespace, {labels}) (rate({metric}{{{','.join([NAMESPACE, *matchers])}}}[{window}]))"


def _sum(metric: str, labels: str, *matchers: str) -> str:
    return f"sum by (namespace, {labels}) ({metric}{{{','.join([NAMESPACE, *matchers])}}})"


_ANOMALIES = f"sum by (namespace, stream, detector) (increase(tidewarden_anomalies_total{{{NAMESPACE}}}[15m]))"
_READINGS = _rate("tidewarden_readings_total", "stream, source", "10m")
_REJECTED = _rate("tidewarden_rejected_total", "stream, source", "10m")
_READY = _sum("tidewarden_model_series", "stream, detector", 'state="ready"')
_SILENCE = (
    f"(time() - max by (namespace, stream, source) (tidewarden_source_delivered_timestamp_seconds{{{NAMESPACE}}}))"
)
_LEARNED_AGE = f"(time() - max by (namespace, stream, detector) (tidewarden_learned_timestamp_seconds{{{NAMESPACE}}}))"


def _f1() -> str:
    """Of running simulations from themselves, of ended ones from their status."""
    told = f'tidewarden_operator_evaluation{{RESOURCE_{NAMESPACE},measure="f1"}}'
    return (
        f"max by (namespace, simulation, detector) (tidewarden_evaluation_f1_ratio{{{NAMESPACE}}} or "
        f'label_replace({told}, "namespace", "$1", "resource_namespace", "(.+)"))'
    )


PIPELINE: tuple[Rule, ...] = (
    Rule(
        "TidewardenServiceDown",
        f"up{{{NAMESPACE},{JOB}}} == 0",
        "2m",
        "critical",
        "{{ $labels.namespace }}/{{ $labels.pod }} ({{ $labels.instance }}) does not answer",
        "Prometheus has not reached this process for two minutes: what it does is not being done, and is made up for "
        "when it is back. See why it does not run: kubectl describe pod, kubectl logs --previous.",
    ),
    Rule(
        "TidewardenHighAnomalyRate",
        f"{_ANOMALIES} > {STORM_LEAST} and {_ANOMALIES} / {_READY} > {STORM_SHARE}",
        "5m",
        "warning",
        '{{ $labels.detector }} has found {{ printf "%.0f" $value }} anomalies on {{ $labels.stream }} in 15 minutes',
        "More than one series in ten turned unusual at nearly the same time: an incident that hits much of what is "
        "watched, a source that sends something else than before, or a detector that does not fit. Look at the "
        "dashboard 'Anomaly analysis' which kinds, and at the page which clusters and metrics.",
    ),
    Rule(
        "TidewardenHighScoreLatency",
        "histogram_quantile(0.99, sum by (namespace, stream, detector, le) "
        f"(rate(tidewarden_score_latency_seconds_bucket{{{NAMESPACE}}}[5m]))) > {LATENCY_S:g}",
        "10m",
        "warning",
        "{{ $labels.detector }} scores {{ $labels.stream }} {{ $value | humanizeDuration }} after their arrival",
        "One reading in a hundred waits that long or longer. If its lag grows too, give the detector more replicas, up "
        "to the stream's partitions; else look at processor time and throttling of its pods.",
    ),
    Rule(
        "TidewardenLowAccuracy",
        f"{_f1()} < {F1_LEAST:g}",
        "10m",
        "warning",
        '{{ $labels.detector }} reaches F1 {{ printf "%.2f" $value }} on simulation {{ $labels.simulation }}',
        "Against the truth of this simulation the detector misses too much or reports too much. See on the dashboard "
        "'Model performance' which of both, then change its model, its seasonality or its budget.",
    ),
    Rule(
        "TidewardenConsumerLag",
        f"{_sum('tidewarden_lag_records', 'service')} / {_rate('tidewarden_records_handled_total', 'service', '5m')} "
        f"> {CATCH_UP_S}",
        "5m",
        "warning",
        "{{ $labels.service }} is {{ $value | humanizeDuration }} behind",
        "At its present pace the service needs that long for what waits on its topics. Nothing is lost within the "
        "topics' retention. A detector takes more replicas; everything else: see what it waits for (/status), and its "
        "processor time.",
    ),
    Rule(
        "TidewardenRejects",
        f"{_REJECTED} / ({_READINGS} + {_REJECTED}) > {REJECTED_SHARE:g}",
        "10m",
        "warning",
        "{{ $value | humanizePercentage }} of what {{ $labels.stream }}/{{ $labels.source }} sends is refused",
        "These readings are watched by nobody; they are kept with their reason. See the reasons on the dashboard "
        "'Pipeline overview' or with GET /api/rejected, then correct the sender or the stream's contract.",
    ),
    Rule(
        "TidewardenSourceSilent",
        f"{_SILENCE} > {SILENT_S} and {_SILENCE} > {SILENT_INTERVALS} * "
        f"max by (namespace, stream, source) (tidewarden_source_interval_seconds{{{NAMESPACE}}})",
        "1m",
        "warning",
        "source {{ $labels.source }} of {{ $labels.stream }} is silent for {{ $value | humanizeDuration }}",
        "It has delivered before, it has not ended, and now nothing comes, neither good nor bad readings. Read its "
        "message in /status or with kubectl describe metricstream: what it reads from may be away.",
    ),
    Rule(
        "TidewardenModelStale",
        f"{_LEARNED_AGE} > {LEARNED_S} and on (namespace, stream) "
        f"sum by (namespace, stream) (rate(tidewarden_readings_total{{{NAMESPACE}}}[15m])) > 0",
        "5m",
        "warning",
        "{{ $labels.detector }} last learned from {{ $labels.stream }} {{ $value | humanizeDuration }} ago",
        "Readings come in, but this detector has had none to learn from. Its selection may match nothing any more, it "
        "may be paused, or its pods cannot get their partitions: see kubectl describe anomalydetector.",
    ),
    Rule(
        "TidewardenSnapshotOld",
        f"time() - min by (namespace, service) (tidewarden_snapshot_timestamp_seconds{{{NAMESPACE}}} > 0) "
        f"> {SNAPSHOT_S}",
        "5m",
        "warning",
        "{{ $labels.service }} last saved its state {{ $value | humanizeDuration }} ago",
        "A restart would replay all that came since, and readings that have left the topic by then would be missing. "
        "See in its log why saving fails: Kafka's state topic refuses, or the snapshot takes very long.",
    ),
    Rule(
        "TidewardenStoreUnavailable",
        f"min by (namespace, service) (tidewarden_store_available{{{NAMESPACE}}}) == 0",
        "5m",
        "critical",
        "{{ $labels.service }} cannot write to the store",
        "Nothing is lost while the topics' retention lasts, but the page and the API show nothing new. See whether "
        "Elasticsearch runs, has disk space and takes writes; the archive goes on by itself.",
    ),
    Rule(
        "TidewardenAlertsUndelivered",
        f"sum by (namespace, policy, receiver) (increase(tidewarden_alert_deliveries_total{{{NAMESPACE},"
        'result="refused"}[15m])) > 0 or '
        f"(max by (namespace, policy, receiver) (tidewarden_alert_outbox_alerts{{{NAMESPACE}}}) > 0 and "
        f"sum by (namespace, policy, receiver) (increase(tidewarden_alert_deliveries_total{{{NAMESPACE},"
        'result="sent"}[15m])) == 0)',
        "5m",
        "critical",
        "alerts of {{ $labels.policy }} do not reach {{ $labels.receiver }}",
        "The receiver refuses alerts, or has taken none for 15 minutes while some wait: people hear nothing. Its "
        "answer stands in /status (receivers) and in the log of the policy's pod; correct address or credentials.",
    ),
)

OPERATOR: tuple[Rule, ...] = (
    Rule(
        "TidewardenOperatorDown",
        "absent(tidewarden_operator_queue_depth)",
        "5m",
        "critical",
        "no operator of Tidewarden is running",
        "What runs goes on, but changed resources take no effect and nothing is mended. See its Deployment: kubectl "
        "describe, kubectl logs --previous.",
    ),
    Rule(
        "TidewardenOperatorErrors",
        f"sum by (kind) (increase(tidewarden_operator_errors_total[15m])) > {OPERATOR_ERRORS}",
        "5m",
        "warning",
        '{{ printf "%.0f" $value }} reconciliations of {{ $labels.kind }} failed in 15 minutes',
        "They are tried again, but something keeps failing. The operator's log names resource and cause ('not yet'): "
        "often a right that it lacks, or an admission webhook that refuses.",
    ),
    Rule(
        "TidewardenOperatorStuck",
        f"max(tidewarden_operator_queue_oldest_seconds) > {QUEUE_S} or "
        f"max(tidewarden_operator_watch_age_seconds) > {WATCH_S}",
        "5m",
        "critical",
        "the operator is {{ $value | humanizeDuration }} behind the cluster",
        "A resource waits for its turn, or a watch has heard nothing, for that long. Its liveness should have ended "
        "it: see its log and whether the API server answers it, then delete its pod; it recovers in seconds.",
    ),
    Rule(
        "TidewardenResourceNotReady",
        "sum by (kind) (tidewarden_operator_resources_not_ready) > 0",
        "15m",
        "warning",
        "{{ $value }} resources of kind {{ $labels.kind }} are not Ready",
        "kubectl get tidewarden --all-namespaces shows which; kubectl describe says in its conditions what is missing "
        "and what to do next.",
    ),
)


def pipeline_groups(namespace: str | None = None) -> RuleGroups:
    """Rules about the pods of one namespace; None: of whatever is scraped."""
    return [_group("tidewarden-pipeline", PIPELINE, namespace)]


def operator_groups() -> RuleGroups:
    """Rules about the operator itself, to be installed once."""
    return [_group("tidewarden-operator", OPERATOR, None)]


def all_groups() -> RuleGroups:
    """Everything that one Prometheus may have to tell."""
    return [*pipeline_groups(), *operator_groups()]


def _group(name: str, rules: tuple[Rule, ...], namespace: str | None) -> dict[str, Any]:
    return {"name": name, "interval": "30s", "rules": [_rule(rule, namespace) for rule in rules]}


def _rule(rule: Rule, namespace: str | None) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": _scoped(rule.expr, namespace),
        "for": rule.wait,
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description,
            "runbook_url": f"{RUNBOOKS}{rule.name}.md",
        },
    }


def _scoped(expr: str, namespace: str | None) -> str:
    """The expression for one namespace, or without a matcher."""
    if namespace is None:
        bare = expr.replace(f"RESOURCE_{NAMESPACE},", "").replace(f"{NAMESPACE},", "")
        return bare.replace(f"{{{NAMESPACE}}}", "")
    chosen = expr.replace(f"RESOURCE_{NAMESPACE}", f'resource_namespace="{namespace}"')
    return chosen.replace(NAMESPACE, f'namespace="{namespace}"')
