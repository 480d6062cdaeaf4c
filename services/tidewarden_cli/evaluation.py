"""How well a detector did against the truth of a simulation, from what a store holds."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from tidewarden.evaluate.report import Evaluation, evaluate_table
from tidewarden.frames import SeriesKey
from tidewarden.resources import MetricSimulation, MetricStream
from tidewarden.store.port import Query, Store

ROWS_AT_MOST = 50_000_000  # about 5 GB of Arrow; past that an evaluation belongs on a bigger machine


def evaluate_stored(
    store: Store,
    simulation: MetricSimulation,
    stream: MetricStream,
    keys: Iterable[SeriesKey],
    detector: str,
    since: int | None = None,
) -> Evaluation:
    """One detector's figures.

    Args:
        store: has readings with labels, scores and anomalies.
        simulation: whose readings they are.
        stream: that it feeds.
        keys: the simulation's series.
        detector: name of the AnomalyDetector.
        since: only what is newer, ms since the epoch; None: everything.
    """
    tables = []
    anomalies = []
    for tenant in sorted({key.tenant for key in keys}):
        query = Query(
            stream=stream.metadata.name,
            tenant=tenant,
            detector=detector,
            since=since,
            limit=ROWS_AT_MOST,
            newest_first=False,
        )
        tables.append(store.readings(query))
        anomalies += store.anomalies(query)
    return evaluate_table(
        pa.concat_tables(tables),
        anomalies,
        detector=detector,
        simulation=simulation.metadata.name,
        interval_ms=stream.spec.interval,
    )
