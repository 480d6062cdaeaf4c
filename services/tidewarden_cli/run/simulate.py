"""``tidewarden run simulate``: play, wait until all of it is judged and stored, evaluate."""

from __future__ import annotations

import threading
from typing import Any

from tidewarden.evaluate.report import Evaluation
from tidewarden.resources import MetricSimulation, MetricStream
from tidewarden.store.port import StoreUnavailableError
from tidewarden.topics import consumer_group
from tidewarden_cli.evaluation import evaluate_stored
from tidewarden_cli.run.connections import MistakeError, kafka_of
from tidewarden_cli.run.feeding import ingest_of, watch_batches
from tidewarden_cli.run.process import Process
from tidewarden_cli.run.servers import elasticsearch_settings, open_bus, open_store, topics_of
from tidewarden_cli.run.verdict import Through, Verdict
from tidewarden_simulator.source import SimulationSource, series_keys


def add_simulation(process: Process, simulation: MetricSimulation, stream: MetricStream) -> None:
    """The stages of a simulation: its play and its verdict."""
    from tidewarden.bus.kafka.admin import TopicAdmin
    from tidewarden.bus.kafka.connection import KafkaUnavailableError

    name, topics, clock = simulation.metadata.name, topics_of(stream), process.clock
    settings = elasticsearch_settings(process, stream, f"the evaluation of MetricSimulation/{name}")
    source = source_of(process, simulation)
    open_bus(process, stream, topics.all(), topics.state())
    store = open_store(process, settings, lambda it: it.counts())
    watch_batches(source, process.pulses)
    ingest = ingest_of(process, stream, source)
    keys = series_keys(simulation, process.bundle.base_dir_of(simulation))

    def evaluate(since: int | None) -> list[Evaluation]:
        with process.pulses.waiting("elasticsearch"):
            store.refresh(stream.metadata.name)
            found = [evaluate_stored(store, simulation, stream, keys, one, since) for one in simulation.spec.evaluate]
        process.telemetry.evaluation.note(stream.metadata.name, found)
        return found

    def post(**facts: Any) -> None:
        process.telemetry.board.post("simulations", name, stream=stream.metadata.name, **facts)

    groups = {one: consumer_group(process.settings.namespace, f"detect.{one}") for one in simulation.spec.evaluate}
    played = threading.Event()

    def play(stop: threading.Event) -> None:
        ingest.run(stop)
        if ingest.finished:  # and everything is on the bus: ingest syncs before it returns
            played.set()

    verdict = Verdict(
        finished=played.is_set,
        failed=lambda: ingest.error,
        through=Through(
            topics, groups, TopicAdmin(kafka_of(process.settings, stream)), store, clock,
            (KafkaUnavailableError, StoreUnavailableError),
        ),
        evaluate=evaluate,
        progress=source.progress,
        newest_ms=lambda: ingest.stats()["newest_ms"],
        post=post,
        finish=process.finish,
        clock=clock,
        pulses=process.pulses,
    )  # fmt: skip
    process.add_stage(f"simulate.{name}", verdict.run, ends=True)
    process.add_stage(ingest.name, play, ends=True)


def source_of(process: Process, simulation: MetricSimulation) -> SimulationSource:
    """The source that plays it, from a start that is the same in every run."""
    base_dir = process.bundle.base_dir_of(simulation)
    start_ms = start_of(process, simulation)
    try:
        return SimulationSource(
            simulation, table=process.table, start_ms=start_ms, clock=process.clock, base_dir=base_dir
        )
    except ValueError as error:
        raise MistakeError(f"MetricSimulation/{simulation.metadata.name} spec.{error}") from error


def start_of(process: Process, simulation: MetricSimulation) -> int:
    """Time of the first reading: `spec.start`, or so that the last one is when the resource was created."""
    if simulation.spec.start is not None:
        return int(simulation.spec.start.timestamp() * 1000)
    created = simulation.metadata.creation_timestamp
    if created is None:
        raise MistakeError(
            f"MetricSimulation/{simulation.metadata.name} spec.start is absent, and so is metadata.creationTimestamp, "
            "which Kubernetes would set: write one of them, or a restart would play other times"
        )
    base_dir = process.bundle.base_dir_of(simulation)
    try:
        return SimulationSource.start_for(simulation, int(created.timestamp() * 1000), base_dir)
    except ValueError as error:
        raise MistakeError(f"MetricSimulation/{simulation.metadata.name} spec.{error}") from error
