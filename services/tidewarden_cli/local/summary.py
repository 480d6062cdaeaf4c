"""The counts of a run, for the terminal, ``--json`` and tests."""

from __future__ import annotations

import msgspec

from tidewarden.evaluate.report import Evaluation
from tidewarden_cli.local.pipeline import LocalPipeline


class Totals(msgspec.Struct, frozen=True):
    """Counts at one moment."""

    readings: int
    rejected: int
    anomalies: int
    alerts: int
    firing: int
    lag_records: int


class Summary(msgspec.Struct, frozen=True):
    """The JSON object that ends ``--exit-when-done --json``."""

    readings: int
    rejected: int
    anomalies: int
    alerts: int
    seconds: float
    readings_per_second: float
    evaluation: list[Evaluation]


def accepted(pipeline: LocalPipeline) -> int:
    """Readings accepted so far, from the status board: cheap enough to ask for many times a second."""
    sources = pipeline.telemetry.board.read().get("sources", {}).values()
    return sum(int(facts["accepted"]) for facts in sources)


def totals(pipeline: LocalPipeline) -> Totals:
    """Counts so far; anomalies and alerts are those in the store, so they include earlier runs on its data."""
    sources = pipeline.telemetry.board.read().get("sources", {}).values()
    alerts = pipeline.store.states("alerts")
    return Totals(
        readings=accepted(pipeline),
        rejected=sum(int(facts["rejected"]) for facts in sources),
        anomalies=sum(pipeline.store.states("anomalies").values()),
        alerts=sum(alerts.values()),
        firing=alerts.get("firing", 0),
        lag_records=pipeline.lag_records(),
    )
