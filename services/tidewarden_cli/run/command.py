"""``tidewarden run ROLE``: files and arguments into a process, mistakes into exit code 2."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from tidewarden.telemetry import RecentErrors
    from tidewarden_cli.run.process import Orders

Role = Literal["ingest", "simulate", "detect", "rollup", "alert", "archive", "api"]
CONFIG = Path("/etc/tidewarden")
EXIT_FAILED = 1
EXIT_MISTAKE = 2


def run(
    role: Annotated[Role, typer.Argument(help="What to be.")],
    stream: Annotated[str | None, typer.Option(help="MetricStream; for ingest and archive.")] = None,
    source: Annotated[str | None, typer.Option(help="Source of the stream; for ingest.")] = None,
    name: Annotated[
        str | None, typer.Option(help="AnomalyDetector, AlertPolicy or MetricSimulation; for the other roles.")
    ] = None,
    member: Annotated[
        str | None, typer.Option(help="Name among the pods of the detector, the same after a restart; for detect.")
    ] = None,
    resources: Annotated[Path, typer.Option(help="Resource file or folder.")] = CONFIG / "resources.yaml",
    settings: Annotated[Path, typer.Option(help="Where Kafka, Elasticsearch and the others are.")] = CONFIG
    / "settings.yaml",
    termination_log: Annotated[
        Path, typer.Option("--termination-log", help="Where last words go as JSON, if the file exists.")
    ] = Path("/dev/termination-log"),
    log_format: Annotated[str, typer.Option("--log-format", help="text or json.")] = "json",
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "info",
) -> None:
    """Run one room of the pipeline over Kafka and Elasticsearch, as the pods of a cluster do.

    Every role serves /metrics, /healthz, /readyz and /status on the settings' metricsPort. It waits for servers
    that are away. Exit code 2: a mistake in files or arguments; 1: a failure; 0: SIGTERM, or a simulation's end.

    Examples:

      tidewarden run ingest --stream shop --source push

      tidewarden run detect --name shop-latency --member shop-latency-0

      tidewarden run api --resources shop.yaml --settings settings.yaml --log-format text
    """
    from tidewarden.telemetry import RecentErrors, configure_logging
    from tidewarden_cli.run.memory import keep_freed_memory, look_seldom_for_cycles

    if log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"--log-level {log_level}: choose debug, info, warning or error")
    if log_format not in ("text", "json"):
        raise typer.BadParameter(f"--log-format {log_format}: choose text or json")
    configure_logging(log_level, "json" if log_format == "json" else "text")
    keep_freed_memory()
    look_seldom_for_cycles()
    errors = RecentErrors()
    logging.getLogger().addHandler(errors)

    from tidewarden_cli.run.process import Orders

    orders = Orders(role, stream, source, name, member)
    raise typer.Exit(_run(orders, resources, settings, termination_log, errors))


def _run(orders: Orders, resources: Path, settings_file: Path, termination_log: Path, errors: RecentErrors) -> int:
    from tidewarden.resources.loader import ResourceError, load
    from tidewarden.settings import SettingsError, load_settings
    from tidewarden_cli.run.connections import MistakeError
    from tidewarden_cli.run.probes import SideServerError
    from tidewarden_cli.run.process import Process, write_last_words

    try:
        settings = load_settings(settings_file)
        bundle = load([resources])

        from tidewarden_cli.run.roles import ROLES, identify

        process = Process(orders, settings, bundle, termination_log, errors)
        identify(process)
        return process.run(ROLES[orders.role])
    except (SettingsError, ResourceError, MistakeError) as error:
        code, text = EXIT_MISTAKE, str(error)
    except SideServerError as error:
        code, text = EXIT_FAILED, str(error)
    typer.echo(text, err=True)
    write_last_words(termination_log, {"error": text})
    return code
