"""How well the detectors of a simulation did, from what the store holds."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from tidewarden.evaluate.report import Evaluation, evaluate_table
from tidewarden.resources import MetricSimulation
from tidewarden.store.port import Query, Store
from tidewarden_cli.local.pipeline import LocalPipeline

ROWS_AT_MOST = 50_000_000  # about 5 GB of Arrow; past that an evaluation belongs on a bigger machine


def evaluate_all(pipeline: LocalPipeline) -> list[Evaluation]:
    """One evaluation for each simulation and detector it names; the status board gets them, too."""
    everything: list[Evaluation] = []
    board = pipeline.telemetry.board
    for simulation in pipeline.bundle.simulations:
        name = simulation.metadata.name
        results = [_evaluate(pipeline, simulation, detector) for detector in simulation.spec.evaluate]
        facts = board.read().get("simulations", {}).get(name, {})
        board.post("simulations", name, **{**facts, "evaluation": msgspec.to_builtins(results)})
        everything += results
    return everything


def _evaluate(pipeline: LocalPipeline, simulation: MetricSimulation, detector: str) -> Evaluation:
    store: Store = pipeline.store
    keys = pipeline.keys_of(simulation)
    tenants = sorted({key.tenant for key in keys})
    stream = next(s for s in pipeline.bundle.streams if s.metadata.name == simulation.spec.stream)
    tables = []
    anomalies = []
    for tenant in tenants:
        query = Query(
            stream=stream.metadata.name, tenant=tenant, detector=detector, limit=ROWS_AT_MOST, newest_first=False
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
