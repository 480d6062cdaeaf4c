"""How good and how far the models are, and what they cost."""

from __future__ import annotations

from tidewarden_operator.plan.dashboards.anomalies import DETECTORS
from tidewarden_operator.plan.dashboards.overview import NAMESPACES, STREAMS, per_second
from tidewarden_operator.plan.dashboards.panels import Dashboard, Panel, Query, Row, select
from tidewarden_operator.plan.rules import F1_LEAST, LEARNED_S

_READY = 'state="ready"'
_LINE = "{{namespace}} {{detector}}"
_JUDGED = "{{namespace}} {{simulation}} {{detector}}"


def _measure(name: str) -> str:
    """Of a running simulation as it says itself, of one that has ended as its status says."""
    told = f'tidewarden_operator_evaluation{{resource_namespace=~"$namespace",detector=~"$detector",measure="{name}"}}'
    unit = "" if name in ("false_alarms_per_day", "delay_seconds") else "_ratio"
    own = select(f"tidewarden_evaluation_{name}{unit}", "detector")
    moved = f'label_replace({told}, "namespace", "$1", "resource_namespace", "(.+)")'
    return f"max by (namespace, simulation, detector) ({own} or {moved})"


def _judged(title: str, name: str, text: str) -> Panel:
    return Panel(title, [Query(_measure(name), _JUDGED)], text, unit="percentunit", kind="stat", warn=0.7, bad=F1_LEAST,
                 width=6, height=5, most=1, needs="evaluation")  # fmt: skip


def _by_detector(metric: str, how: str = "sum") -> str:
    return f"{how} by (namespace, detector) ({select(metric, 'stream', 'detector')})"


def _drifting(*signs: str) -> str:
    chosen = f'sign=~"{"|".join(signs)}"'
    return f"sum by (namespace, detector, sign) ({select('tidewarden_drift_series', 'stream', 'detector', chosen)})"


_ACCURACY = Row(
    "How good (against the truth of simulations)",
    [
        _judged("F1", "f1", "Harmonic mean of precision and recall. Below a half an alert tells of it."),
        _judged(
            "Precision",
            "precision",
            "Share of what it reports that is true. Low: a smaller budget, or a higher threshold.",
        ),
        _judged("Recall", "recall", "Share of the true events that it finds. Low: a larger budget, or another model."),
        _judged("VUS-PR", "vus_pr", "Quality of the scores themselves, whatever the threshold: compares models."),
        Panel(
            "F1 over time",
            [Query(_measure("f1"), _JUDGED)],
            "An endless simulation is judged every minute over its last day.",
            unit="percentunit",
            most=1,
            warn=0.7,
            bad=F1_LEAST,
            needs="evaluation",
        ),
        Panel(
            "False alarms a day",
            [Query(_measure("false_alarms_per_day"), _JUDGED)],
            "Of the whole detector, in the simulation's time: to be compared with its budget.",
            width=6,
            needs="evaluation",
        ),
        Panel(
            "Delay of detection",
            [Query(_measure("delay_seconds"), _JUDGED)],
            "Median from an event's start to its detection, in the simulation's time.",
            unit="s",
            width=6,
            needs="evaluation",
        ),
    ],
)
_LEARNING = Row(
    "How far",
    [
        Panel(
            "Series by state",
            [
                Query(
                    f"sum by (namespace, detector, state) ({select('tidewarden_model_series', 'stream', 'detector')})",
                    "{{namespace}} {{detector}} {{state}}",
                )
            ],
            "A series is learned from before it is scored. Learning that does not end: readings too few or too far apart.",
            stacked=True,
        ),
        Panel(
            "Since it last learned",
            [Query(f"time() - {_by_detector('tidewarden_learned_timestamp_seconds', 'max')}", _LINE)],
            "By the clock. Grows while no readings of its selection arrive.",
            unit="s",
            warn=300,
            bad=LEARNED_S,
        ),
        Panel(
            "Readings scored",
            [Query(per_second("tidewarden_scored_readings_total", "namespace, detector", "stream", "detector"), _LINE)],
            "Readings a second.",
            unit="ops",
        ),
        Panel(
            "Share of series that are scored",
            [
                Query(
                    f"sum by (namespace, detector) ({select('tidewarden_model_series', 'stream', 'detector', _READY)}) / "
                    f"clamp_min({_by_detector('tidewarden_model_series')}, 1)",
                    _LINE,
                )
            ],
            "1: everything that is watched is past its warm-up.",
            unit="percentunit",
            most=1,
        ),
    ],
)
_COST = Row(
    "At what cost",
    [
        Panel(
            "Memory of the models",
            [Query(_by_detector("tidewarden_model_state_bytes"), _LINE)],
            "State of all series. It grows with the number of series, not with time.",
            unit="bytes",
        ),
        Panel(
            "Memory a series",
            [
                Query(
                    f"{_by_detector('tidewarden_model_state_bytes')} / "
                    f"clamp_min({_by_detector('tidewarden_model_series')}, 1)",
                    _LINE,
                )
            ],
            "To plan with: times the series that you expect.",
            unit="bytes",
        ),
        Panel(
            "Latency of scores",
            [
                Query(
                    f"sum by (le) (increase({select('tidewarden_score_latency_seconds_bucket', 'stream', 'detector')}[$__rate_interval]))",
                    "{{le}}",
                )
            ],
            "From a reading's arrival at ingest to its score on the bus.",
            unit="s",
            kind="heatmap",
            width=24,
        ),
    ],
)
_DRIFT = Row(
    "Whether it still fits (drift)",
    [
        Panel(
            "Data: series that drifted",
            [Query(_drifting("values", "residuals"), "{{namespace}} {{detector}} {{sign}}")],
            "Values with another distribution than in their reference window (PSI and KS), and residuals with another "
            "mean (ADWIN). If the change is meant, the models follow; else look at what changed.",
            width=8,
        ),
        Panel(
            "Model: off its calibration",
            [
                Query(_by_detector("tidewarden_drift_calibration_ratio", "max"), f"{_LINE} rare readings"),
                Query(_by_detector("tidewarden_drift_alarm_ratio", "max"), f"{_LINE} alarms"),
            ],
            "Of the last whole window, over what a calibrated model gives and the budget allows: 1 is as it should be.",
            warn=2,
            bad=4,
            width=8,
        ),
        Panel(
            "Source: series that changed their coming",
            [Query(_drifting("vanished", "appeared", "slow", "fast"), "{{namespace}} {{detector}} {{sign}}")],
            "Series that say nothing any more, are new, or come at another pace than the stream's interval.",
            width=8,
        ),
    ],
)

MODELS = Dashboard(
    "models",
    "Model performance",
    "Accuracy against simulations, progress of learning, drift, memory and latency of each detector.",
    [_ACCURACY, _LEARNING, _DRIFT, _COST],
    [NAMESPACES, STREAMS, DETECTORS],
)
