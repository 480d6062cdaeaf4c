"""``tidewarden train``: history in, a version of a detector's model out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidewarden_cli.offline.score import clear_errors

if TYPE_CHECKING:
    from tidewarden.registry.manifest import Period
    from tidewarden.registry.registry import Registry
    from tidewarden.scoring.scorer import ScorerConfig
    from tidewarden.training.history import History

RegistryAddress = Annotated[
    str, typer.Option("--registry", help="Folder, or s3://BUCKET/PREFIX with ?endpoint=URL if not Amazon's.")
]
EXIT_FAILED = 1


def train(
    file: Annotated[list[Path], typer.Option("--file", "-f", help="Resource file or folder; may be repeated.")],
    data: Annotated[
        list[Path], typer.Option(help="Readings: CSV, Parquet, or a data directory's store.duckdb; may be repeated.")
    ],
    detector: Annotated[str | None, typer.Option(help="AnomalyDetector to train; default: the only one.")] = None,
    registry: RegistryAddress = "models",
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="FROM/TO", help="Period to learn nothing from; may be repeated.")
    ] = None,
    hold_out: Annotated[
        float, typer.Option(min=0.05, max=0.9, help="Share of the time, at the end, that is measured before learned.")
    ] = 0.3,
    search: Annotated[bool, typer.Option("--search", help="Search for the best kind and parameters first.")] = False,
    trials: Annotated[int, typer.Option(min=1, max=10_000, help="With --search: models to try at most.")] = 50,
    time: Annotated[str, typer.Option(help="With --search: time to take at most, as 5m.")] = "5m",
    kinds: Annotated[
        str | None, typer.Option(help="With --search: kinds to try, comma-separated; default: the quick ones.")
    ] = None,
    memory: Annotated[int, typer.Option(min=1, help="With --search: MiB that a model's state may take.")] = 2_048,
    journal: Annotated[
        Path | None, typer.Option(help="With --search: file of the trials, to go on from after an interruption.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the search, and of the injected anomalies.")] = 0,
    promote: Annotated[bool, typer.Option("--promote", help="Make the new version the champion.")] = False,
    note: Annotated[str, typer.Option(help="For those who read the registry.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the version's manifest as one JSON object.")] = False,
) -> None:
    """Train a version of a detector's model on history, measure it, and keep it in the registry.

    The model is fed with the readings in time order, as the stream would have fed it. The last part is
    measured before it is learned: with a label or is_anomaly column by precision, recall, F1, VUS-PR, AUC-PR and
    delay; without one by the false alarms a day, and by how many injected anomalies are found.

    With --search the kinds of model and their parameters are searched first, beginning with the resource's
    own; the version is of the best one, and its model is printed for spec.model. A detector begins with a version
    by spec.training: {registry: ADDRESS, from: champion}.

    Exit code 0: trained; 1: the registry cannot be reached or is damaged; 2: a mistake in the call, resources or data.

    Examples:

      tidewarden train -f shop.yaml --data history.parquet

      tidewarden train -f shop.yaml --detector latency --data may.csv --data june.csv --exclude 2024-06-03/2024-06-05

      tidewarden train -f shop.yaml --data june.csv --search --time 10m --kinds auto,seasonal,mad --promote

      tidewarden train -f shop.yaml --data data/store.duckdb --registry "s3://models/shop?endpoint=http://minio:9000"
    """
    with clear_errors(), clear_failures():
        _train(
            file, data, detector, registry, exclude or [], hold_out,
            _Search(trials, time, kinds, memory, journal) if search else None, seed, note,
            promote=promote, as_json=as_json,
        )  # fmt: skip


@contextmanager
def clear_failures() -> Iterator[None]:
    """What is wrong with the registry becomes one line on stderr: exit code 2 for what is not there, else 1."""
    from tidewarden.registry.manifest import DamagedError
    from tidewarden.registry.objects import RegistryError
    from tidewarden.registry.registry import UnknownVersionError

    try:
        yield
    except UnknownVersionError as error:
        typer.echo(f"tidewarden: {error.args[0]}", err=True)
        raise typer.Exit(2) from None
    except (RegistryError, DamagedError) as error:
        typer.echo(f"tidewarden: {error}", err=True)
        raise typer.Exit(EXIT_FAILED) from None


class _Search:
    """The options of a search."""

    def __init__(self, trials: int, time: str, kinds: str | None, memory: int, journal: Path | None) -> None:
        from tidewarden.resources.base import parse_duration
        from tidewarden.resources.models import PARAMETERS
        from tidewarden.training.search import KINDS, Limits
        from tidewarden_cli.offline.reading import InputError

        try:
            seconds = parse_duration(time) / 1000
        except ValueError as error:
            raise InputError(f"--time {error}") from None
        self.kinds = list(KINDS) if kinds is None else [kind for kind in re.split(r"[,\s]+", kinds) if kind]
        possible = sorted(set(PARAMETERS) - {"ensemble", "static"})  # these need what only a person can give
        strangers = [kind for kind in self.kinds if kind not in possible]
        if strangers or not self.kinds:
            raise InputError(
                f"--kinds {kinds}: {', '.join(strangers)} cannot be searched; there are: {', '.join(possible)}"
            )
        self.limits = Limits(trials, seconds, memory << 20)
        self.journal = journal


def _train(
    files: list[Path],
    data: list[Path],
    name: str | None,
    address: str,
    exclude: list[str],
    hold_out: float,
    search: _Search | None,
    seed: int,
    note: str,
    *,
    promote: bool,
    as_json: bool,
) -> None:
    from rich.console import Console

    from tidewarden.clock import SystemClock
    from tidewarden.registry.opening import open_registry
    from tidewarden.scoring.scorer import ScorerConfig
    from tidewarden_cli.offline.reading import InputError
    from tidewarden_cli.training.data import detector_of, parse_period, read_history

    resource, stream, _ = detector_of(files, name)
    excluded = [parse_period(text) for text in exclude]
    registry = open_registry(address)
    history = read_history(data, stream, resource.metadata.name)
    config = ScorerConfig.of(resource, stream)
    console = Console(stderr=True)
    try:
        history = history.selected(config.spec.select)
        if history.interval_ms != config.interval_ms:
            console.print(
                f"The readings are {history.interval_ms / 1000:g} s apart, but MetricStream/{stream.metadata.name} "
                f"says {config.interval_ms / 1000:g} s: gaps and seasons are measured by the latter.",
                style="yellow",
            )
        if search is not None:
            config = _search(config, history, search, excluded, hold_out, seed, console)
        draft, state = _version(config, history, excluded, hold_out, seed, note, console, SystemClock().now_ms())
    except ValueError as error:
        raise InputError(str(error)) from None
    manifest = registry.register(draft, state)
    if promote:
        registry.promote(manifest.detector, manifest.version, SystemClock().now_ms(), note)
    _say(registry, manifest, console, promote=promote, as_json=as_json, searched=search is not None)


def _version(
    config: ScorerConfig,
    history: History,
    excluded: list[Period],
    hold_out: float,
    seed: int,
    note: str,
    console: Any,
    now_ms: int,
) -> tuple[Any, bytes]:
    """Train once, with a bar for the readings."""
    from tidewarden.training.train import draft, train
    from tidewarden_cli.training.injecting import inject_all
    from tidewarden_cli.training.progress import Readings

    total = int(len(history) * (1 if history.label is not None else 1 + hold_out))
    with Readings(console, f"training {config.detector}", total) as told:
        trained = train(
            config, history, excluded=excluded, hold_out=hold_out,
            inject=lambda held: inject_all(held, seed), progress=told,
        )  # fmt: skip
    return draft(config, history, trained, created_at_ms=now_ms, excluded=excluded, note=note), trained.state


def _search(
    config: ScorerConfig,
    history: History,
    asked: _Search,
    excluded: list[Period],
    hold_out: float,
    seed: int,
    console: Any,
) -> ScorerConfig:
    """The detector with the best model that was found."""
    from tidewarden.training.search import Search, with_model
    from tidewarden_cli.training.injecting import inject_all
    from tidewarden_cli.training.progress import Trials

    with Trials(console, asked.limits.trials) as told:
        found = Search(
            config, history, kinds=asked.kinds, limits=asked.limits, seed=seed, journal=asked.journal,
            excluded=excluded, hold_out=hold_out, inject=lambda held: inject_all(held, seed), heard=told,
        ).run()  # fmt: skip
    before = "" if found.before is None else f", the resource's own {found.before:.3f}"
    console.print(
        f"Best of {found.trials} trials ({found.pruned} given up early): {found.value:.3f}{before}", highlight=False
    )
    return with_model(config, found.model)


def _say(registry: Registry, manifest: Any, console: Any, *, promote: bool, as_json: bool, searched: bool) -> None:
    """What was kept, for people on stderr or for programs on stdout."""
    import msgspec

    from tidewarden_cli.training.showing import as_yaml, manifest_table

    if as_json:
        typer.echo(msgspec.json.encode(manifest).decode())
        return
    console.print(manifest_table(manifest, champion=promote))
    console.print(f"Kept in {registry.address} as version {manifest.version} of {manifest.detector}.", highlight=False)
    if searched:
        console.print("Its model, for the resource:", highlight=False)
        typer.echo(as_yaml({"model": manifest.model}))
    if not promote:
        console.print(
            f"`tidewarden models promote {manifest.detector} {manifest.version}` makes it the champion.",
            highlight=False,
        )
