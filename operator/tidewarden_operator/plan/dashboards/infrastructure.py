"""Processes and the operator: memory, processor time, restarts, saved state, reconciliations.

From the processes' own metrics, so that it needs neither kube-state-metrics nor cAdvisor.
"""

from __future__ import annotations

from tidewarden_operator.plan.dashboards.overview import NAMESPACES
from tidewarden_operator.plan.dashboards.panels import Dashboard, Panel, Query, Row, select
from tidewarden_operator.plan.rules import JOB, QUEUE_S, SNAPSHOT_S, WATCH_S

_POD = "{{namespace}} {{pod}}"
_OPERATOR = "tidewarden_operator"


def _by_pod(expr: str) -> str:
    return f"max by (namespace, pod, instance) ({expr})"


def _operator(title: str, expr: str, legend: str, text: str, unit: str = "short", **more: float) -> Panel:
    return Panel(
        title, [Query(expr, legend)], text, unit=unit, needs="operator", warn=more.get("warn"), bad=more.get("bad")
    )


_PROCESSES = Row(
    "Processes",
    [
        Panel(
            "Down",
            [Query(f"count({select('up', JOB)} == 0) or vector(0)")],
            "Processes that do not answer.",
            kind="stat",
            warn=1,
            bad=1,
            width=6,
            height=4,
        ),
        Panel("Up", [Query(f"sum({select('up', JOB)})")], "Processes that answer.", kind="stat", width=6, height=4),
        Panel(
            "Restarts, last hour",
            [Query(f"sum(changes({select('process_start_time_seconds', JOB)}[1h]))")],
            "Processes that began anew under the same name, as after a crash or a kill for memory.",
            kind="stat",
            warn=1,
            bad=5,
            width=6,
            height=4,
        ),
        Panel(
            "Versions",
            [Query(f"count by (version) ({select('tidewarden_build_info')})", "{{version}}")],
            "How many processes run which version. Two for long: an upgrade hangs.",
            kind="stat",
            width=6,
            height=4,
        ),
        Panel("Answers", [Query(_by_pod(select("up", JOB)), _POD)], "1 while Prometheus can reach it.", most=1),
        Panel(
            "Memory",
            [Query(_by_pod(select("process_resident_memory_bytes", JOB)), _POD)],
            "Resident memory. One that nears its limit is killed and begins anew.",
            unit="bytes",
        ),
        Panel(
            "Processor time",
            [Query(_by_pod(f"rate({select('process_cpu_seconds_total', JOB)}[$__rate_interval])"), _POD)],
            "Cores. A detector at 1 for long is as fast as one process gets: give it replicas.",
            unit="none",
        ),
        Panel(
            "Open files",
            [Query(_by_pod(f"{select('process_open_fds', JOB)} / {select('process_max_fds', JOB)}"), _POD)],
            "Share of the limit; near 1 connections fail.",
            unit="percentunit",
            most=1,
            warn=0.7,
            bad=0.9,
        ),
        Panel(
            "Age of the saved state",
            [
                Query(
                    f"time() - min by (namespace, service) ({select('tidewarden_snapshot_timestamp_seconds')} > 0)",
                    "{{namespace}} {{service}}",
                )
            ],
            "What a restart would replay. A few seconds is normal.",
            unit="s",
            warn=60,
            bad=SNAPSHOT_S,
        ),
        Panel(
            "Duration of saving",
            [
                Query(
                    f"max by (namespace, service) ({select('tidewarden_snapshot_duration_seconds')})",
                    "{{namespace}} {{service}}",
                )
            ],
            "Saving takes at most a twentieth of the time: slow ones are rarer.",
            unit="s",
        ),
    ],
)
_RECONCILING = Row(
    "Operator",
    [
        _operator(
            "Resources", f"sum by (kind) ({_OPERATOR}_resources)", "{{kind}}", "Resources of each kind that it keeps."
        ),
        _operator(
            "Resources not Ready",
            f"sum by (kind) ({_OPERATOR}_resources_not_ready)",
            "{{kind}}",
            "kubectl describe says what each of them lacks.",
            warn=1,
            bad=5,
        ),
        _operator(
            "Reconciliations",
            f"sum by (kind) (rate({_OPERATOR}_reconcile_seconds_count[$__rate_interval]))",
            "{{kind}}",
            "A second. At rest only the resync is left.",
            "ops",
        ),
        _operator(
            "Duration of reconciling, 99 %",
            f"histogram_quantile(0.99, sum by (kind, le) (rate({_OPERATOR}_reconcile_seconds_bucket[$__rate_interval])))",
            "{{kind}}",
            "Seconds: the API server is slow.",
            "s",
            warn=1,
            bad=10,
        ),
        _operator(
            "Failed reconciliations",
            f"sum by (kind) (rate({_OPERATOR}_errors_total[$__rate_interval]))",
            "{{kind}}",
            "They are tried again; a line that stays up is a fault that stays.",
            "ops",
        ),
        _operator("Waiting", f"max({_OPERATOR}_queue_depth)", "resources", "Resources that wait for their turn."),
        _operator(
            "Longest wait",
            f"max({_OPERATOR}_queue_oldest_seconds)",
            "oldest",
            "Of the resource that waits longest.",
            "s",
            warn=10,
            bad=QUEUE_S,
        ),
        _operator(
            "Silence of watches",
            f"max by (kind) ({_OPERATOR}_watch_age_seconds)",
            "{{kind}}",
            "Since the API server last said something. Up to 70 s is normal.",
            "s",
            warn=75,
            bad=WATCH_S,
        ),
        _operator(
            "Objects written",
            f"sum by (kind) (rate({_OPERATOR}_applied_objects_total[$__rate_interval]))",
            "{{kind}}",
            "A second. Not 0 at rest: somebody else changes the same fields.",
            "ops",
        ),
        _operator(
            "Statuses written",
            f"sum by (kind) (rate({_OPERATOR}_status_writes_total[$__rate_interval]))",
            "{{kind}}",
            "A second; written on change only.",
            "ops",
        ),
    ],
)

INFRASTRUCTURE = Dashboard(
    "infrastructure",
    "Infrastructure",
    "Processes and the operator: who is down, who restarts, who needs what.",
    [_PROCESSES, _RECONCILING],
    [NAMESPACES],
)
