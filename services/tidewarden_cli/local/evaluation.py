"""How well the detectors of each simulation of the one process did."""

from __future__ import annotations

import msgspec

from tidewarden.evaluate.report import Evaluation
from tidewarden_cli.evaluation import evaluate_stored
from tidewarden_cli.local.pipeline import LocalPipeline


def evaluate_all(pipeline: LocalPipeline) -> list[Evaluation]:
    """One evaluation for each simulation and detector it names; the status board gets them, too."""
    everything: list[Evaluation] = []
    board = pipeline.telemetry.board
    streams = {stream.metadata.name: stream for stream in pipeline.bundle.streams}
    for simulation in pipeline.bundle.simulations:
        name, stream = simulation.metadata.name, streams[simulation.spec.stream]
        keys = pipeline.keys_of(simulation)
        results = [
            evaluate_stored(pipeline.store, simulation, stream, keys, detector) for detector in simulation.spec.evaluate
        ]
        pipeline.telemetry.evaluation.note(simulation.spec.stream, results)
        facts = board.read().get("simulations", {}).get(name, {})
        board.post("simulations", name, **{**facts, "evaluation": msgspec.to_builtins(results)})
        everything += results
    return everything
