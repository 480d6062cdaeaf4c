"""``tidewarden up`` and ``tidewarden demo``: the resources of a file as one process."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib import resources as packaged
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tidewarden_cli.local.pipeline import LocalPipeline
    from tidewarden_cli.local.server import Server
    from tidewarden_cli.local.summary import Summary

EXIT_FAILED = 1
EXIT_MISTAKE = 2
LOOK_EVERY_S = 0.1

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Keep everything here and go on from it. Default: in memory.")
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port of page and API; 0 takes any free one.")]
ExitWhenDone = Annotated[
    bool, typer.Option("--exit-when-done", help="End when every simulation and file has been played.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object with the counts as the last line.")]
Headless = Annotated[bool, typer.Option("--headless", help="No page and no API, no port.")]
SecretsDir = Annotated[
    Path | None, typer.Option("--secrets-dir", help="Folder with one folder a Secret, one file a key, for secretRef.")
]
LogFormat = Annotated[str, typer.Option("--log-format", help="text or json.")]
LogLevel = Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")]


def up(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="Resource file or folder; may be repeated.")],
    data_dir: DataDir = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    exit_when_done: ExitWhenDone = False,
    json: Json = False,
    headless: Headless = False,
    secrets_dir: SecretsDir = None,
    log_format: LogFormat = "text",
    log_level: LogLevel = "warning",
) -> None:
    """Run the resources of a file in this one process: sources, detectors, alerts, store, API and page.

    Examples:

      tidewarden up -f shop.yaml

      tidewarden up -f shop.yaml --data-dir ./data --port 9000

      tidewarden up -f shop.yaml --exit-when-done --json
    """
    _configure(log_level, log_format)
    code = _run(
        file,
        data_dir,
        host,
        port,
        exit_when_done=exit_when_done,
        json=json,
        headless=headless,
        secrets_dir=secrets_dir,
    )
    raise typer.Exit(code)


def demo(
    data_dir: DataDir = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    exit_when_done: ExitWhenDone = False,
    json: Json = False,
    headless: Headless = False,
    log_format: LogFormat = "text",
    log_level: LogLevel = "warning",
) -> None:
    """Replay real cloud incidents beside a simulated fleet, live on the page. Needs nothing but this program.

    Examples:

      tidewarden demo

      tidewarden demo --exit-when-done --json
    """
    _configure(log_level, log_format)
    with packaged.as_file(packaged.files("tidewarden_cli") / "samples" / "demo.yaml") as sample:
        code = _run([sample], data_dir, host, port, exit_when_done=exit_when_done, json=json, headless=headless)
    raise typer.Exit(code)


def _configure(log_level: str, log_format: str) -> None:
    from tidewarden.telemetry import configure_logging

    if log_level not in ("debug", "info", "warning", "error"):
        raise typer.BadParameter(f"--log-level {log_level}: choose debug, info, warning or error")
    if log_format not in ("text", "json"):
        raise typer.BadParameter(f"--log-format {log_format}: choose text or json")
    configure_logging(log_level, "json" if log_format == "json" else "text")


def _run(
    files: Sequence[Path],
    data_dir: Path | None,
    host: str,
    port: int,
    *,
    exit_when_done: bool,
    json: bool,
    headless: bool,
    secrets_dir: Path | None = None,
) -> int:
    from tidewarden.bus.journal import JournalError
    from tidewarden.resources.loader import ResourceError, load
    from tidewarden.store.port import StoreError

    try:
        bundle = load(files)
    except ResourceError as error:
        typer.echo(str(error), err=True)
        return EXIT_MISTAKE

    from tidewarden_cli.local.pipeline import LocalPipeline
    from tidewarden_cli.local.server import Server, ServerError

    try:
        pipeline = LocalPipeline(bundle, data_dir, secrets_dir=secrets_dir)
    except (StoreError, JournalError, OSError) as error:
        typer.echo(f"cannot start{f' on --data-dir {data_dir}' if data_dir else ''}: {error}", err=True)
        return EXIT_FAILED
    except ValueError as error:  # an address that is absent, a recording that nobody can read
        typer.echo(str(error), err=True)
        return EXIT_MISTAKE
    server = None
    if not headless:
        try:
            server = Server(pipeline, host, port)
        except ServerError as error:
            typer.echo(str(error), err=True)
            pipeline.stop()
            return EXIT_FAILED
    return _serve(pipeline, server, exit_when_done=exit_when_done, json=json)


def _serve(pipeline: LocalPipeline, server: Server | None, *, exit_when_done: bool, json: bool) -> int:
    import msgspec
    from rich.console import Console

    from tidewarden_cli.local.evaluation import evaluate_all
    from tidewarden_cli.local.terminal import Progress, show_summary

    console = Console(stderr=True)
    stop = _stop_on_signals()
    began = time.monotonic()
    pipeline.start()
    if server is not None:
        server.start()
    evaluated = False
    with Progress(pipeline, console, server.address if server else None) as progress:
        while not stop.wait(LOOK_EVERY_S) and not pipeline.crew.failed.is_set():
            pipeline.post_progress()
            progress.update()
            if not evaluated and pipeline.finished():
                evaluated = True
                if exit_when_done:
                    break
                evaluate_all(pipeline)
    seconds = time.monotonic() - began
    summary = _summary(pipeline, seconds)
    if server is not None:
        server.stop()
    pipeline.stop()
    show_summary(summary, console)
    if json:
        sys.stdout.write(msgspec.json.encode(summary).decode() + "\n")
        sys.stdout.flush()
    if pipeline.crew.failure is not None:
        name, error = pipeline.crew.failure
        typer.echo(f"{name} stopped by an error: {error}", err=True)
        return EXIT_FAILED
    return EXIT_FAILED if pipeline.source_errors() else 0


def _summary(pipeline: LocalPipeline, seconds: float) -> Summary:
    from tidewarden_cli.local.evaluation import evaluate_all
    from tidewarden_cli.local.summary import Summary, totals

    now = totals(pipeline)
    return Summary(
        readings=now.readings,
        rejected=now.rejected,
        anomalies=now.anomalies,
        alerts=now.alerts,
        seconds=round(seconds, 3),
        readings_per_second=round(now.readings / seconds, 1) if seconds else 0.0,
        evaluation=evaluate_all(pipeline),
    )


def _stop_on_signals() -> threading.Event:
    """An event that Ctrl-C and SIGTERM set; a second Ctrl-C ends the process at once."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    return stop
