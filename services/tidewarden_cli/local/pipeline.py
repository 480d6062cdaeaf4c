"""The four resources as one process: which rooms there are, and how they are joined.

`LocalPipeline` reads as the wiring diagram: the stages are built from the consumers' end (the store
first, the sources last), so that everything published has a reader from the first record on, and they
stop from the sources' end, so that what was read is still scored, alerted and written down.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import Consumer, Record
from tidewarden.clock import Clock, SystemClock
from tidewarden.frames import SeriesKey, SeriesTable
from tidewarden.models.registry import check
from tidewarden.registry.start import start_of
from tidewarden.resources import AlertPolicy, AnomalyDetector, AnyResource, MetricSimulation, MetricStream
from tidewarden.resources.loader import Bundle
from tidewarden.sources import Source
from tidewarden.store.embedded import EmbeddedStore
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Purpose, StreamTopics
from tidewarden_cli.local.crew import Crew
from tidewarden_services.alert.notifier import Notifier
from tidewarden_services.alert.service import AlertService, Lives
from tidewarden_services.archive.service import ArchiveService
from tidewarden_services.contract import Service
from tidewarden_services.detect.board import DetectorBoard
from tidewarden_services.detect.service import DetectService
from tidewarden_services.ingest.making import Surroundings, make_source
from tidewarden_services.ingest.service import IngestService
from tidewarden_services.ingest.sources.http import HttpSource
from tidewarden_services.rollup.service import RollupService
from tidewarden_services.runtime import SNAPSHOT_EVERY_S, Runner
from tidewarden_services.sink import SinkRunner
from tidewarden_services.state import FileState, MemoryState, StateStore
from tidewarden_simulator.source import SimulationSource, series_keys

log = structlog.get_logger()

R = TypeVar("R", MetricSimulation, AnomalyDetector, AlertPolicy)

PATIENCE_S = 20.0  # a stage finishes its polled records (about a second) and its snapshot within this


class Stage(Protocol):
    """A runner of a service or a sink."""

    name: str

    def idle(self) -> bool:
        """Whether it has dealt with everything published so far."""

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop."""


@dataclass(slots=True)
class _Feed:
    service: IngestService
    source: Source


@dataclass(slots=True)
class LocalPipeline:
    """The running product in one process.

    Args:
        bundle: the resources.
        data_dir: where everything is kept across restarts; None: in memory, gone at the end.
        telemetry: metrics and status board.
        clock: the wall clock, or a test's.
        snapshot_every_s: how often services take snapshots.
        partitions: of each stream; one process needs one.
        secrets_dir: holds one folder for each Secret that a resource names.
    """

    bundle: Bundle
    data_dir: Path | None
    telemetry: Telemetry = field(default_factory=Telemetry)
    clock: Clock = field(default_factory=SystemClock)
    snapshot_every_s: float = SNAPSHOT_EVERY_S
    partitions: int = 1
    secrets_dir: Path | None = None
    table: SeriesTable = field(default_factory=SeriesTable)
    crew: Crew = field(default_factory=Crew)
    http_sources: list[HttpSource] = field(default_factory=list)
    _feeds: list[_Feed] = field(default_factory=list)
    _stages: list[Stage] = field(default_factory=list)
    _background: list[tuple[str, Callable[[threading.Event], None]]] = field(default_factory=list)
    _seen_published: int = -1
    _seen_still: bool = False
    bus: MemoryBus = field(init=False)
    store: EmbeddedStore = field(init=False)
    _state: StateStore = field(init=False)

    def __post_init__(self) -> None:
        self.telemetry.build.labels("up", version("tidewarden")).set(1)
        journal = None
        if self.data_dir is not None:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            journal = self.data_dir / "bus"
        self._state = MemoryState() if self.data_dir is None else FileState(self.data_dir / "state")
        self.store = EmbeddedStore(None if self.data_dir is None else self.data_dir / "store.duckdb")
        self.bus = MemoryBus(self.table, journal=journal)
        self._build()

    @property
    def topics(self) -> dict[str, StreamTopics]:
        """Topics of each stream."""
        return {
            s.metadata.name: StreamTopics(s.metadata.namespace, s.metadata.name, self.partitions)
            for s in self.bundle.streams
        }

    @property
    def resources(self) -> list[AnyResource]:
        """All resources, in the order in which they depend on each other."""
        b = self.bundle
        return [*b.streams, *b.simulations, *b.detectors, *b.policies]

    def start(self) -> None:
        """Let every stage run, those that read first."""
        for name, run in self._background:
            self.crew.start(name, run)
        for stage in self._stages:
            self.crew.start(stage.name, stage.run)
        for feed in self._feeds:
            self.crew.start(feed.service.name, feed.service.run)

    def _build(self) -> None:
        """Every stage, from the store to the sources; nothing runs yet."""
        for stream in self.bundle.streams:
            self.bus.create(self.topics[stream.metadata.name].all())
        for stream in self.bundle.streams:
            self._add_archive(stream)
            self._add_alerts(stream)
            for detector in self._of_stream(self.bundle.detectors, stream):
                self._add_detector(detector, stream)
            self._add_sources(stream)

    def finished(self) -> bool:
        """Whether every source has ended and all that came of it is in the store.

        A record in a service's hands is on no topic, so stillness is believed only when two calls in a
        row have seen every stage idle and nothing new published in between.
        """
        published = self._published()
        still = (
            all(feed.service.finished for feed in self._feeds)
            and all(stage.idle() for stage in self._stages)
            and published == self._seen_published
        )
        self._seen_published = published
        confirmed = still and self._seen_still
        self._seen_still = still
        return confirmed

    def source_errors(self) -> list[str]:
        """What ended sources before their end."""
        return [feed.service.error for feed in self._feeds if feed.service.error is not None]

    def stop(self) -> None:
        """Stop from the sources on; everything already read reaches the store."""
        for prefix in ("ingest.", "detect.", "rollup.", "alert.", "notify.", "archive."):
            late = self.crew.stop(prefix, PATIENCE_S)
            if late:
                log.warning("still busy, left behind", services=late)
        self.bus.close()
        self.store.close()

    def keys_of(self, simulation: MetricSimulation) -> list[SeriesKey]:
        """The series that a simulation plays."""
        return series_keys(simulation, self.bundle.base_dir_of(simulation))

    def post_progress(self) -> None:
        """Tell the status board how far the simulations are; what was said of their evaluation stays."""
        board = self.telemetry.board
        known = board.read().get("simulations", {})
        for feed in self._feeds:
            if feed.source.kind == "simulation":
                played, total = feed.source.progress()
                facts = {**known.get(feed.source.name, {}), "played": played, "total": total}
                board.post("simulations", feed.source.name, **facts)

    def lag_records(self) -> int:
        """Records on the bus that some service has not yet read."""
        return int(sum(s.value for m in self.telemetry.lag.collect() for s in m.samples))

    # --- the rooms, from the end to the beginning ------------------------------------------------

    def _add_archive(self, stream: MetricStream) -> None:
        name = f"archive.{stream.metadata.name}"
        sink = ArchiveService(name, stream, self.store, self.telemetry)
        topics = self.topics[stream.metadata.name]
        self._stages.append(SinkRunner(sink, stream=topics, bus=self.bus, telemetry=self.telemetry, clock=self.clock))

    def _add_alerts(self, stream: MetricStream) -> None:
        topics = self.topics[stream.metadata.name]
        for policy in self._of_stream(self.bundle.policies, stream):
            name = policy.metadata.name
            lives: Lives = {}

            def alert(partition: int, policy: AlertPolicy = policy, lives: Lives = lives) -> AlertService:
                return AlertService(policy, stream, self.telemetry, partition=partition, lives=lives)

            self._add_service(f"alert.{name}", AlertService.reads, alert, stream)
            load, save = self._state_of(f"notify.{name}")
            notifier = Notifier(
                f"notify.{name}",
                policy,
                self.telemetry,
                self.clock,
                load_state=load,
                save_state=save,
                secrets_dir=self.secrets_dir,
            )
            consumer = self.bus.consumer([topics.name("alerts")], f"notify.{name}")

            def run(stop: threading.Event, notifier: Notifier = notifier, consumer: Consumer = consumer) -> None:
                notifier.run(stop, consumer)

            self._background.append((f"notify.{name}", run))

    def _add_detector(self, detector: AnomalyDetector, stream: MetricStream) -> None:
        name = detector.metadata.name
        check(detector, stream)
        if detector.spec.rollup:

            def rollup(_: int) -> RollupService:
                return RollupService(detector, stream, self.table)

            self._add_service(f"rollup.{name}", RollupService.reads, rollup, stream)
        latency = self.telemetry.score_latency.labels(stream.metadata.name, name)

        def published(record: Record) -> None:
            if "arrived" in record.headers:
                latency.observe(max(0.0, self.clock.now_ms() / 1000 - float(record.headers["arrived"])))

        board = DetectorBoard(detector, stream, self.telemetry, self.clock)
        start = start_of(detector, self.bundle.base_dir_of(detector), self.secrets_dir)

        def detect(partition: int) -> DetectService:
            return DetectService(
                detector, stream, self.table, self.telemetry, self.clock,
                partition=partition, partitions=self.partitions, board=board, start=start,
            )  # fmt: skip

        self._add_service(f"detect.{name}", DetectService.reads, detect, stream, on_published=published)

    def _add_service(
        self,
        name: str,
        reads: Purpose,
        make_service: Callable[[int], Service],
        stream: MetricStream,
        on_published: Callable[[Record], None] = lambda _: None,
    ) -> None:
        self._stages.append(
            Runner(
                name,
                reads,
                make_service,
                stream=self.topics[stream.metadata.name],
                bus=self.bus,
                state=self._state,
                telemetry=self.telemetry,
                clock=self.clock,
                on_published=on_published,
                snapshot_every_s=self.snapshot_every_s,
            )
        )

    def _add_sources(self, stream: MetricStream) -> None:
        sources: list[Source] = []
        for spec in stream.spec.sources:
            around = Surroundings(self.bundle.base_dir_of(stream), secrets_dir=self.secrets_dir)
            source = make_source(stream, spec, self.table, self.clock, around)
            if isinstance(source, HttpSource):
                self.http_sources.append(source)
            sources.append(source)
        sources += [self._simulation(simulation) for simulation in self._of_stream(self.bundle.simulations, stream)]
        for source in [] if stream.spec.paused else sources:
            load, save = self._state_of(f"ingest.{stream.metadata.name}.{source.name}")
            service = IngestService(
                stream,
                source,
                self.bus,
                self.topics[stream.metadata.name],
                self.table,
                self.clock,
                self.telemetry,
                load_state=load,
                save_state=save,
                sync=self.bus.sync,
            )
            self._feeds.append(_Feed(service, source))

    def _simulation(self, simulation: MetricSimulation) -> SimulationSource:
        base_dir = self.bundle.base_dir_of(simulation)
        try:
            start_ms = self._start_of(simulation)
            return SimulationSource(
                simulation, table=self.table, start_ms=start_ms, clock=self.clock, base_dir=base_dir
            )
        except ValueError as error:
            raise ValueError(f"MetricSimulation/{simulation.metadata.name} spec.{error}") from error

    def _start_of(self, simulation: MetricSimulation) -> int:
        """Time of the first reading; without `spec.start` chosen once, and kept in the data directory."""
        if simulation.spec.start is not None:
            return int(simulation.spec.start.timestamp() * 1000)
        chosen: dict[str, int] = {}
        path = None if self.data_dir is None else self.data_dir / "simulations.json"
        if path is not None and path.exists():
            chosen = json.loads(path.read_text())
        name = simulation.metadata.name
        if name not in chosen:
            chosen[name] = SimulationSource.start_for(
                simulation, self.clock.now_ms(), self.bundle.base_dir_of(simulation)
            )
            if path is not None:
                fresh = path.with_suffix(".new")
                fresh.write_text(json.dumps(chosen))
                os.replace(fresh, path)
        return chosen[name]

    def _state_of(self, name: str) -> tuple[Callable[[], bytes | None], Callable[[bytes], None]]:
        return (lambda: self._state.load(name)), (lambda state: self._state.save(name, state))

    def _published(self) -> int:
        return sum(sum(self.bus.ends(topic.name).values()) for t in self.topics.values() for topic in t.all())

    @staticmethod
    def _of_stream(resources: Sequence[R], stream: MetricStream) -> list[R]:
        return [r for r in resources if r.spec.stream == stream.metadata.name and not r.spec.paused]
