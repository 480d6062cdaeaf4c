"""The roles: which there are, what each needs to be told, and how each is put together.

`ROLES` is the wiring diagram of the pods, as `local/pipeline.py` is that of the one process. A builder adds
the stages of its role; they run when it returns.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from tidewarden.bus.port import Record
from tidewarden.resources import AlertPolicy, AnomalyDetector, AnyResource, MetricSimulation, MetricStream
from tidewarden.status import Board
from tidewarden.telemetry import by_label
from tidewarden.topics import Purpose, StreamTopics
from tidewarden_cli.run.connections import MistakeError
from tidewarden_cli.run.process import Process
from tidewarden_cli.run.servers import elasticsearch_settings, open_bus, open_store, topics_of

if TYPE_CHECKING:
    from tidewarden_services.contract import Service

Builder = Callable[[Process], None]
N = TypeVar("N", bound=MetricStream | MetricSimulation | AnomalyDetector | AlertPolicy)


def _ingest(process: Process) -> None:
    """One source of a stream into its topics."""
    from tidewarden_cli.run.feeding import add_source, source_of

    stream = _stream(process)
    if stream.spec.paused:
        _rest(process, "sources", f"{stream.metadata.name}/{process.name}", "MetricStream")
        return
    topics = topics_of(stream)
    open_bus(process, stream, topics.all(), topics.state())
    add_source(process, stream, source_of(process, stream))


def _simulate(process: Process) -> None:
    """A simulation into its stream's topics, and what came of it."""
    from tidewarden_cli.run.simulate import add_simulation

    simulation, stream = _named(process, process.bundle.simulations), _stream(process)
    if simulation.spec.paused or stream.spec.paused:
        _rest(process, "simulations", process.name, "MetricSimulation")
        return
    add_simulation(process, simulation, stream)


def _detect(process: Process) -> None:
    """One member of a detector's group: the partitions that it is assigned."""
    from tidewarden.models.registry import check
    from tidewarden.registry.start import start_of
    from tidewarden_services.detect.board import DetectorBoard
    from tidewarden_services.detect.service import DetectService

    detector, stream = _named(process, process.bundle.detectors), _stream(process)
    if detector.spec.paused:
        _rest(process, "detectors", process.name, "AnomalyDetector")
        return
    try:
        check(detector, stream)
    except ValueError as error:
        raise MistakeError(str(error)) from error
    topics, name, telemetry, clock = topics_of(stream), process.name, process.telemetry, process.clock
    open_bus(process, stream, topics.all(), topics.state(name))
    latency = telemetry.score_latency.labels(stream.metadata.name, name)

    def published(record: Record) -> None:
        if "arrived" in record.headers:
            latency.observe(max(0.0, clock.now_ms() / 1000 - float(record.headers["arrived"])))

    said = DetectorBoard(detector, stream, telemetry, clock)
    start = start_of(detector, secrets_dir=process.settings.secrets_dir)

    def make(partition: int) -> DetectService:
        return DetectService(
            detector, stream, process.table, telemetry, clock,
            partition=partition, partitions=topics.partitions, board=said, start=start,
        )  # fmt: skip

    service = f"detect.{name}"
    _add_runner(process, service, DetectService.reads, make, topics, process.orders.member, published)

    def add(board: Board) -> Board:
        facts = board.setdefault("detectors", {}).setdefault(name, {"stream": stream.metadata.name})
        facts["partitions"] = sorted(process.partitions)
        facts["lag_records"] = by_label(telemetry.lag, "service").get(service, 0)
        facts["anomalies_last_hour"] = said.last_hour()
        return board

    process.adds.append(add)


def _rollup(process: Process) -> None:
    """The scores of a detector into scores of nodes, clusters and tenants."""
    from tidewarden_services.rollup.service import RollupService

    detector, stream = _named(process, process.bundle.detectors), _stream(process)
    topics = topics_of(stream)
    open_bus(process, stream, topics.all(), topics.state())
    name = f"rollup.{process.name}"
    _add_runner(process, name, RollupService.reads, lambda _: RollupService(detector, stream, process.table), topics)


def _alert(process: Process) -> None:
    """The anomalies of a stream into alerts of one policy, and these to its receivers."""
    from tidewarden_services.alert.notifier import Notifier
    from tidewarden_services.alert.service import AlertService, Lives

    policy, stream = _named(process, process.bundle.policies), _stream(process)
    topics, telemetry, settings = topics_of(stream), process.telemetry, process.settings
    open_bus(process, stream, topics.all(), topics.state())
    name, delivery = f"alert.{process.name}", f"notify.{process.name}"
    state = process.state
    try:
        notifier = Notifier(
            delivery, policy, telemetry, process.clock,
            load_state=lambda: state.load(delivery), save_state=lambda content: state.save(delivery, content),
            page_url=settings.page_url, secrets_dir=settings.secrets_dir, alertmanager_url=settings.alertmanager_url,
        )  # fmt: skip
    except ValueError as error:
        raise MistakeError(f"AlertPolicy/{process.name}: {error}") from error
    alerts = process.bus.consumer([topics.name("alerts")], delivery)
    process.add_stage(delivery, lambda stop: notifier.run(stop, alerts))
    lives: Lives = {}

    def make(partition: int) -> AlertService:
        return AlertService(policy, stream, telemetry, partition=partition, lives=lives)

    _add_runner(process, name, AlertService.reads, make, topics)


def _archive(process: Process) -> None:
    """Everything on a stream's topics into Elasticsearch."""
    from tidewarden_services.archive.service import ArchiveService
    from tidewarden_services.sink import SinkRunner

    stream = _stream(process)
    topics, telemetry = topics_of(stream), process.telemetry
    settings = elasticsearch_settings(process, stream, "the archive")
    open_bus(process, stream, topics.all())
    store = open_store(process, settings, lambda it: it.prepare(process.name, stream.spec.archive.retention))
    name = f"archive.{process.name}"
    runner = SinkRunner(
        ArchiveService(name, stream, store, telemetry),
        stream=topics, bus=process.bus, telemetry=telemetry, clock=process.clock,
    )  # fmt: skip
    process.add_stage(name, runner.run)

    def add(board: Board) -> Board:
        facts = {"state": "running", "message": "", **board.get("services", {}).get(name, {})}
        board.setdefault("archives", {})[process.name] = {
            "state": facts["state"],
            "message": facts["message"],
            "stored": by_label(telemetry.stored, "kind"),
            "lag_records": by_label(telemetry.lag, "service").get(name, 0),
        }
        return board

    process.adds.append(add)


def _api(process: Process) -> None:
    """The REST API, the live updates and the page of a namespace."""
    from tidewarden_cli.run.api import add_api

    add_api(process)


ROLES: Mapping[str, Builder] = {
    "ingest": _ingest,
    "simulate": _simulate,
    "detect": _detect,
    "rollup": _rollup,
    "alert": _alert,
    "archive": _archive,
    "api": _api,
}

# What each role must be told, by the names of the options.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "ingest": ("stream", "source"),
    "simulate": ("name",),
    "detect": ("name", "member"),
    "rollup": ("name",),
    "alert": ("name",),
    "archive": ("stream",),
    "api": (),
}


def identify(process: Process) -> None:
    """Find what the process is about in the resources; MistakeError where it is not told, or not there."""
    orders, bundle = process.orders, process.bundle
    for option in ("stream", "source", "name", "member"):
        given, needed = getattr(orders, option) is not None, option in NEEDS[orders.role]
        if needed and not given:
            raise MistakeError(f"run {orders.role} needs --{option}: say which one it is to run")
        if given and not needed:
            raise MistakeError(f"run {orders.role} has no use for --{option} {getattr(orders, option)}: leave it out")
    everything: list[AnyResource] = [*bundle.streams, *bundle.simulations, *bundle.detectors, *bundle.policies]
    for resource in everything:
        if resource.metadata.namespace != process.settings.namespace:
            raise MistakeError(
                f"{resource.kind}/{resource.metadata.name} metadata.namespace: {resource.metadata.namespace!r} is not "
                f"the namespace of the settings, {process.settings.namespace!r}: make them the same"
            )
    if orders.role == "api":
        process.name = process.settings.namespace
        return
    wanted = orders.stream
    if wanted is None:
        assert orders.name is not None
        process.name = orders.name
        kinds: dict[str, Sequence[MetricSimulation | AnomalyDetector | AlertPolicy]] = {
            "simulate": bundle.simulations, "detect": bundle.detectors, "rollup": bundle.detectors,
            "alert": bundle.policies,
        }  # fmt: skip
        wanted = _find(kinds[orders.role], orders.name).spec.stream
    process.stream = _find(bundle.streams, wanted)
    if orders.stream is not None:
        process.name = orders.source or orders.stream
    if orders.source is not None and orders.source not in [s.name for s in process.stream.spec.sources]:
        names = ", ".join(s.name for s in process.stream.spec.sources) or "none"
        raise MistakeError(f"--source {orders.source}: MetricStream/{wanted} has no such source, it has {names}")


def _add_runner(
    process: Process,
    name: str,
    reads: Purpose,
    make_service: Callable[[int], Service],
    topics: StreamTopics,
    member: str | None = None,
    on_published: Callable[[Record], None] = lambda _: None,
) -> None:
    """A service's stage; one that is single is a member by its own name, so a restart gets its partitions at once."""
    from tidewarden_services.runtime import Runner

    runner = Runner(
        name, reads, make_service,
        stream=topics, bus=process.bus, state=process.state, telemetry=process.telemetry, clock=process.clock,
        on_published=on_published, member=member or name,
    )  # fmt: skip
    process.wait_for("state", "no partition has been assigned yet")
    process.add_stage(name, runner.run)


def _find(resources: Sequence[N], name: str) -> N:
    for resource in resources:
        if resource.metadata.name == name:
            return resource
    there = ", ".join(resource.metadata.name for resource in resources) or "none"
    raise MistakeError(f"{name!r} is not among the resources of its kind: there are {there}; check --resources")


def _named(process: Process, resources: Sequence[N]) -> N:
    return _find(resources, process.name)


def _stream(process: Process) -> MetricStream:
    assert process.stream is not None
    return process.stream


def _rest(process: Process, section: str, name: str, kind: str) -> None:
    """What is paused waits to be stopped: the operator takes its pods away, a person sees why nothing happens."""
    assert process.stream is not None
    message = f"{kind} is paused: set spec.paused to false to go on"
    process.telemetry.board.post(section, name, stream=process.stream.metadata.name, state="paused", message=message)

    def rest(stop: threading.Event) -> None:
        with process.pulses.waiting("being needed"):
            stop.wait()

    process.add_stage(f"{process.orders.role}.paused", rest)
