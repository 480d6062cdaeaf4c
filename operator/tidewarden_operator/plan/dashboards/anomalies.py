"""What is found, by kind and detector, and what becomes of it."""

from __future__ import annotations

from tidewarden_operator.plan.dashboards.overview import NAMESPACES, STREAMS, per_second
from tidewarden_operator.plan.dashboards.panels import Dashboard, Panel, Query, Row, Variable, select
from tidewarden_operator.plan.rules import STORM_SHARE

DETECTORS = Variable("detector", 'tidewarden_scored_readings_total{namespace=~"$namespace",stream=~"$stream"}')


def _opened(labels: str, window: str) -> str:
    return f"sum by ({labels}) (increase({select('tidewarden_anomalies_total', 'stream', 'detector')}[{window}]))"


_SERIES = f"sum by (namespace, detector) ({select('tidewarden_model_series', 'stream', 'detector')})"
_FIRED = 'state="firing"'
_LINE = "{{namespace}} {{detector}}"

_NOW = Row(
    "Is something going on?",
    [
        Panel(
            "Anomalies, last hour",
            [Query(f"sum({_opened('detector', '1h')})")],
            "Opened in the last hour. A budget of 2/day means about 0.1 an hour while all is calm.",
            kind="stat",
            warn=5,
            bad=50,
            width=6,
            height=4,
        ),
        Panel(
            "Share of series hit, 15 min",
            [Query(f"max({_opened('namespace, detector', '15m')} / {_SERIES})")],
            "Anomalies opened by series watched, of the detector with most of them. From a tenth on it is a storm.",
            unit="percentunit",
            kind="stat",
            warn=0.02,
            bad=STORM_SHARE,
            width=6,
            height=4,
        ),
        Panel(
            "Alerts fired, last hour",
            [Query(f"sum(increase({select('tidewarden_alerts_total', 'stream', _FIRED)}[1h]))")],
            "What people were told, after grouping and budget.",
            kind="stat",
            warn=3,
            bad=10,
            width=6,
            height=4,
        ),
        Panel(
            "Anomalies for one alert",
            [
                Query(
                    f"sum({_opened('stream', '1h')}) / "
                    f"clamp_min(sum(increase({select('tidewarden_alerts_total', 'stream', _FIRED)}[1h])), 1)"
                )
            ],
            "How many anomalies grouping makes one alert of. Near 1 in a storm: group by fewer labels.",
            kind="stat",
            width=6,
            height=4,
        ),
    ],
)
_FOUND = Row(
    "What is found",
    [
        Panel(
            "Anomalies by kind",
            [Query(_opened("kind", "$__rate_interval"), "{{kind}}")],
            "Opened in each step. 'missing' and 'flat_line' speak of the sender, spikes and shifts of what it measures.",
            stacked=True,
        ),
        Panel(
            "Anomalies by detector",
            [Query(_opened("namespace, detector", "$__rate_interval"), _LINE)],
            "Opened in each step, by the detector that found them.",
            stacked=True,
        ),
        Panel(
            "Kinds, last 24 hours",
            [Query(_opened("kind", "24h"), "{{kind}}")],
            "What kinds of anomalies there were.",
            kind="bargauge",
        ),
        Panel(
            "Detectors, last 24 hours",
            [Query(_opened("namespace, detector", "24h"), _LINE)],
            "Which detectors found most. One far above its budget does not fit its data, or there was an incident.",
            kind="bargauge",
        ),
        Panel(
            "Anomalies for a million readings",
            [
                Query(
                    f"1e6 * {per_second('tidewarden_anomalies_total', 'namespace, detector', 'stream', 'detector')} / "
                    f"{per_second('tidewarden_scored_readings_total', 'namespace, detector', 'stream', 'detector')}",
                    _LINE,
                )
            ],
            "Rate that does not depend on how much is watched, to compare detectors and days.",
        ),
        Panel(
            "Readings scored",
            [Query(per_second("tidewarden_scored_readings_total", "namespace, detector", "stream", "detector"), _LINE)],
            "Readings a second that each detector scores: no anomalies mean nothing where nothing is scored.",
            unit="ops",
        ),
    ],
)
_TOLD = Row(
    "What people are told",
    [
        Panel(
            "Alerts by state",
            [
                Query(
                    f"sum by (namespace, policy, state) (increase({select('tidewarden_alerts_total', 'stream')}[$__rate_interval]))",
                    "{{namespace}} {{policy}} {{state}}",
                )
            ],
            "Transitions of alerts: pending, firing, resolved. Firing without resolved: something lasts.",
        ),
        Panel(
            "Notifications by result",
            [
                Query(
                    "sum by (namespace, policy, receiver, result) "
                    f"(increase({select('tidewarden_alert_deliveries_total')}[$__rate_interval]))",
                    "{{namespace}} {{policy}}/{{receiver}} {{result}}",
                )
            ],
            "What reached receivers.",
        ),
    ],
)

ANOMALIES = Dashboard(
    "anomalies",
    "Anomaly analysis",
    "How many anomalies, of what kind, found by whom, and what became of them. Single ones: the page, or Kibana.",
    [_NOW, _FOUND, _TOLD],
    [NAMESPACES, STREAMS, DETECTORS],
)
