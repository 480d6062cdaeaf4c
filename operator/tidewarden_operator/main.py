"""``tidewarden operator``: the entry point, where Kopf's watches and our engine are put together."""

from __future__ import annotations

import asyncio
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import kopf
import structlog
import typer

from tidewarden.clock import SystemClock
from tidewarden.settings import SettingsError
from tidewarden.telemetry import configure_logging
from tidewarden_operator.cluster.client import Cluster, ClusterError
from tidewarden_operator.cluster.kinds import KINDS
from tidewarden_operator.engine import Engine, evaluations
from tidewarden_operator.handlers import register
from tidewarden_operator.health import LOOP_S, WORKERS_S, HealthServer, Pulse
from tidewarden_operator.keys import OWNER_KINDS, Ref
from tidewarden_operator.metrics import OperatorMetrics
from tidewarden_operator.plan.names import FINALIZER
from tidewarden_operator.plan.rules import pipeline_groups
from tidewarden_operator.servers import ServerOpener
from tidewarden_operator.settings import OperatorSettings, load_operator_settings
from tidewarden_operator.watching import open_session

EXIT_FAILED = 1
EXIT_MISTAKE = 2
# The API server ends a watch after this time, and Kopf begins it anew where it stopped: a sign of life every minute,
# also on a cluster where nothing happens. One GET a minute for each of 18 kinds.
WATCH_FOR_S = 60
# Bookmarks come once a minute; a watch that says nothing for longer is dead, though its connection may be open.
SILENCE_S = 70.0

log = structlog.get_logger()


def operator(
    action: Annotated[
        str, typer.Argument(help="run, or release: take our finalizers off all resources, before an uninstallation.")
    ] = "run",
    settings: Annotated[Path, typer.Option(help="Settings of the operator.")] = Path("/etc/tidewarden/operator.yaml"),
    kubeconfig: Annotated[
        Path | None, typer.Option(help="How to reach the cluster. Default: the pod's account, else as kubectl does.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
    host: Annotated[str, typer.Option(help="Address that /healthz, /readyz and /metrics listen on.")] = "0.0.0.0",  # noqa: S104 - a pod's probes come from outside
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
    log_format: Annotated[str, typer.Option("--log-format", help="text or json.")] = "json",
) -> None:
    """Run the operator: it makes pods, topics and indices of the four kinds of resource.

    Examples:

      tidewarden operator --settings operator.yaml --kubeconfig ~/.kube/config

      tidewarden operator release --settings operator.yaml
    """
    configure_logging(log_level, "text" if log_format == "text" else "json")
    logging.getLogger("kopf").setLevel(logging.WARNING)  # it would say a line for each event
    # That optional kinds are not there, each time; that our own are missing is said by /readyz.
    logging.getLogger("kopf._core.reactor.observation").setLevel(logging.ERROR)
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)  # what fails is said by the condition
    try:
        told = load_operator_settings(settings)
        cluster = Cluster(kubeconfig, context, pool=told.workers + 4)
        if action == "release":
            _release(cluster, told)
        elif action == "run":
            _run(cluster, told, host)
        else:
            typer.echo(f"{action!r} is no action: write run or release", err=True)
            raise typer.Exit(EXIT_MISTAKE)
    except SettingsError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_MISTAKE) from error
    except ClusterError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(EXIT_FAILED) from error


def _run(cluster: Cluster, settings: OperatorSettings, host: str) -> None:
    clock = SystemClock()
    metrics = OperatorMetrics()
    metrics.build.labels("operator", version("tidewarden")).set(1)
    pulse = Pulse(clock)
    opener = ServerOpener(settings, cluster)
    engine = Engine(settings, cluster, opener, clock, metrics, rules=pipeline_groups)

    def watches() -> dict[str, str]:
        kinds = engine.context.site().kinds
        return {
            info.path(namespace): f"{info.kind}{'.' + namespace if namespace else ''}"
            for info in KINDS.values()
            if not info.optional or info.kind in kinds
            for namespace in settings.namespaces or [""]
        }

    def alive() -> list[str]:
        wrong = [f"the event loop hangs for {pulse.loop_age_s():.0f} s"] if pulse.loop_age_s() > LOOP_S else []
        if engine.synced.is_set():
            silent = {kind: age for kind, age in pulse.watch_ages(watches()).items() if age > settings.watch_patience_s}
            wrong += [f"the watch of {kind} is silent for {age:.0f} s" for kind, age in silent.items()]
            if engine.workers.stuck_s() > WORKERS_S:
                wrong.append(f"all workers hang for {engine.workers.stuck_s():.0f} s")
        return wrong

    def ready() -> list[str]:
        return [] if engine.synced.is_set() else ["the cluster has not been listed yet: see the log"]

    def refresh() -> None:
        metrics.queue.set(engine.queue.due())
        metrics.queue_age.set(engine.queue.oldest_s())
        for kind, age in pulse.watch_ages(watches()).items():
            metrics.watch_age.labels(kind).set(age)
        for kind, (count, unready) in engine.known().items():
            metrics.resources.labels(kind).set(count)
            metrics.not_ready.labels(kind).set(unready)
        metrics.evaluation.clear()  # those of resources that are gone
        for *labels, value in evaluations(engine.mirror):
            metrics.evaluation.labels(*labels).set(value)

    server = HealthServer(host, settings.metrics_port, alive, ready, metrics, refresh)
    log.info("operator starts", namespaces=settings.namespaces or "all", image=settings.image, port=server.port)
    try:
        engine.start()
        asyncio.run(_watch(cluster, settings, engine, pulse))
    finally:
        engine.stop()
        server.stop()


async def _watch(cluster: Cluster, settings: OperatorSettings, engine: Engine, pulse: Pulse) -> None:
    """Kopf's loop, until a signal ends it."""
    registry = kopf.OperatorRegistry()
    options = kopf.OperatorSettings()
    options.posting.enabled = False
    options.watching.server_timeout = WATCH_FOR_S
    options.watching.inactivity_timeout = SILENCE_S
    options.watching.connect_timeout = 5.0
    options.process.ultimate_exiting_timeout = None
    # Watching which kinds and namespaces come and go needs rights on the whole cluster; a list needs none.
    options.scanning.disabled = bool(settings.namespaces)
    register(registry, options, engine)
    begun: set[str] = set()

    def watched(path: str) -> None:
        begun.add(path)
        pulse.watch(path)

    def listed(path: str) -> None:
        if path in begun:
            engine.resync()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.AiohttpSession:
        session = open_session(cluster.connection, watched, listed)
        return kopf.AiohttpSession(server=cluster.connection().server, aiohttp_session=session)

    beat = asyncio.create_task(pulse.beat())
    try:
        await kopf.operator(
            registry=registry,
            settings=options,
            standalone=True,
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
        )
    finally:
        beat.cancel()


def _release(cluster: Cluster, settings: OperatorSettings) -> None:
    """Take our finalizers off everything, so that resources can be deleted without us."""
    for kind in OWNER_KINDS:
        for namespace in settings.namespaces or [""]:
            try:
                listed, _ = cluster.list(KINDS[kind], namespace)
            except ClusterError as error:
                if error.status == 404:  # the CRD is gone already, and all resources with it
                    continue
                raise
            for body in listed:
                finalizers = body["metadata"].get("finalizers") or []
                if FINALIZER in finalizers:
                    _drop_finalizer(cluster, Ref.of(body), body, finalizers)


def _drop_finalizer(cluster: Cluster, ref: Ref, body: dict[str, Any], finalizers: list[str]) -> None:
    metadata = {
        "resourceVersion": body["metadata"]["resourceVersion"],
        "finalizers": [name for name in finalizers if name != FINALIZER],
    }
    cluster.merge(ref, {"metadata": metadata})
    typer.echo(f"released {ref}; its topics and indices stay")
