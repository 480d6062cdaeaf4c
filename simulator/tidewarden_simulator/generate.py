"""`tidewarden generate`: labelled, synthetic metrics as files."""

from __future__ import annotations

import csv
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic import ValidationError

from tidewarden.frames import SeriesKey
from tidewarden.resources.base import format_duration, parse_duration
from tidewarden.resources.metricsimulation import Anomalies, Fleet, Kind
from tidewarden_simulator.anomalies import CLASSIC_MIX, TruthEvent
from tidewarden_simulator.fleets import Block, FleetMaker
from tidewarden_simulator.signals import BUILT_IN
from tidewarden_simulator.writers import CsvWriter, ParquetWriter

BLOCK_READINGS = 200_000  # made and written at once; bounds the memory of a run of any length
METADATA = "metadata.csv"
_METADATA_COLUMNS = (
    "tenant", "cluster", "node", "metric", "has_anomaly", "kinds", "onsets", "ends", "magnitudes",
)  # fmt: skip


class Format(StrEnum):
    """Which files to write."""

    CSV = "csv"
    PARQUET = "parquet"
    BOTH = "both"


@dataclass(slots=True)
class Generated:
    """What a run has written.

    Attributes:
        files: paths, the metadata last.
        series: number of series.
        readings: number of readings, missing ones included.
        affected: series with at least one anomaly.
        kinds: anomalies by kind.
    """

    files: list[Path]
    series: int
    readings: int
    affected: int
    kinds: Counter[str] = field(default_factory=Counter)


def write_fleet(
    fleet: Fleet,
    anomalies: Anomalies,
    *,
    seed: int,
    interval_ms: int,
    start_ms: int,
    points: int,
    output_dir: Path,
    format: Format = Format.PARQUET,  # noqa: A002 - the name that users know from --format
) -> Generated:
    """Write ``points`` readings of every series of a fleet, with their labels.

    ``metrics.csv`` and ``metrics.parquet`` have a row a reading in time order; ``metadata.csv`` has a row a
    series: whether it has anomalies, and their kinds, onsets, ends and magnitudes, separated by semicolons.

    Raises:
        OSError: the folder or a file in it cannot be written.
    """
    maker = FleetMaker(fleet, anomalies, seed=seed, interval_ms=interval_ms, start_ms=start_ms, points=points)
    output_dir.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    with ExitStack() as stack:
        writers: list[CsvWriter | ParquetWriter] = []
        if format is not Format.PARQUET:
            files.append(output_dir / "metrics.csv")
            writers.append(CsvWriter(files[-1], maker.keys, [BUILT_IN[name].decimals for name in fleet.metrics]))
        if format is not Format.CSV:
            files.append(output_dir / "metrics.parquet")
            writers.append(ParquetWriter(files[-1], maker.keys))
        for writer in writers:
            stack.callback(writer.close)
        for block in _blocks(maker, points):
            for writer in writers:
                writer.write(block)
    truth = list(maker.truth(points))
    files.append(output_dir / METADATA)
    _write_metadata(files[-1], maker.keys, truth)
    return Generated(
        files,
        len(maker.keys),
        len(maker.keys) * points,
        len({event.series for event in truth}),
        Counter(event.kind.label for event in truth),
    )


def _blocks(maker: FleetMaker, points: int) -> Iterator[Block]:
    ticks = max(1, BLOCK_READINGS // len(maker.keys))
    for first in range(0, points, ticks):
        yield maker.block(first, min(points, first + ticks))


def _write_metadata(path: Path, keys: Sequence[SeriesKey], truth: Sequence[TruthEvent]) -> None:
    by_series: dict[SeriesKey, list[TruthEvent]] = {}
    for event in truth:
        by_series.setdefault(event.series, []).append(event)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_METADATA_COLUMNS)
        for key in keys:
            events = by_series.get(key, [])
            rows.writerow(
                (
                    *key,
                    int(bool(events)),
                    ";".join(event.kind.label for event in events),
                    ";".join(_iso(event.onset) for event in events),
                    ";".join(_iso(event.end) for event in events),
                    ";".join(f"{event.magnitude:.4g}" for event in events),
                )
            )


def _iso(instant_ms: int) -> str:
    instant = datetime.fromtimestamp(instant_ms / 1000, UTC)
    return instant.isoformat(timespec="milliseconds" if instant_ms % 1000 else "seconds").replace("+00:00", "Z")


def generate(
    n_series: Annotated[
        int, typer.Option(min=1, max=100_000, help="Nodes; each has one series of every metric.")
    ] = 1000,
    n_points: Annotated[int, typer.Option(min=1, help="Readings of each series.")] = 1440,
    frequency: Annotated[str, typer.Option(help="Spacing of the readings: 30s, 1min, 5m, 1h …")] = "1min",
    anomaly_ratio: Annotated[float, typer.Option(min=0, max=1, help="Share of the series with anomalies.")] = 0.3,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same bytes.")] = 7,
    format: Annotated[Format, typer.Option(help="Which files to write.")] = Format.CSV,  # noqa: A002 - the option's name
    output_dir: Annotated[Path, typer.Option(help="Folder for the files; made if it is not there.")] = Path("data"),
    metrics: Annotated[
        str, typer.Option(help=f"Metrics of each node, separated by commas: {', '.join(BUILT_IN)}.")
    ] = "latency_ms,error_rate,throughput",
    kinds: Annotated[
        str, typer.Option(help="Kinds of anomaly in equal shares, separated by commas; or kind=weight.")
    ] = ",".join(CLASSIC_MIX),
    start: Annotated[str, typer.Option(help="Time of the first reading, ISO 8601, UTC unless it says otherwise.")] = (
        "2026-01-01T00:00:00Z"
    ),
) -> None:
    """Write labelled, synthetic metrics to files.

    Readings: timestamp, tenant, cluster, node, metric, value, is_anomaly, kind. `metadata.csv` has one row a
    series: has_anomaly, kinds, onsets, ends, magnitudes.

    Examples:

      tidewarden generate --n-series 1000 --n-points 1440 --format parquet --output-dir data

      tidewarden generate --n-series 10 --anomaly-ratio 1 --kinds spike,drift --seed 3
    """
    from rich.console import Console

    interval_ms, start_ms = _interval_of(frequency), _start_of(start)
    anomalies = Anomalies(ratio=anomaly_ratio, mix=_mix_of(kinds))
    begun = time.perf_counter()
    try:
        fleet = Fleet(tenants=["sim"], clusters=1, nodes=n_series, metrics=_metrics_of(metrics))
        done = write_fleet(
            fleet, anomalies, seed=seed, interval_ms=interval_ms, start_ms=start_ms, points=n_points,
            output_dir=output_dir, format=format,
        )  # fmt: skip
    except (ValidationError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    except OSError as error:
        raise typer.BadParameter(
            f"{output_dir} cannot be written: {error.strerror or error}; choose another --output-dir"
        ) from error
    seconds = time.perf_counter() - begun
    console = Console(highlight=False)
    console.print(
        f"[bold]{done.readings:,}[/] readings of {done.series:,} series every {format_duration(interval_ms)}, "
        f"seed {seed}, in {seconds:.2f} s ({done.readings / seconds:,.0f} a second)",
        soft_wrap=True,
    )
    told = ", ".join(f"{kind} {count:,}" for kind, count in sorted(done.kinds.items())) or "none"
    console.print(f"{done.affected:,} series with anomalies: {told}", soft_wrap=True)
    for path in done.files:
        console.print(f"  {path}  [dim]{path.stat().st_size / 1e6:.1f} MB[/]", soft_wrap=True)


def _metrics_of(text: str) -> list[str]:
    names = _listed(text, "--metrics")
    for name in names:
        if name not in BUILT_IN:
            raise ValueError(f"metric {name!r} is not built in; there are: {', '.join(BUILT_IN)}")
    return names


def _listed(text: str, option: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise typer.BadParameter(f"{option} is empty; name at least one, separated by commas")
    return names


def _interval_of(frequency: str) -> int:
    """Milliseconds of ``5m``, or of pandas' spelling ``5min``."""
    text = frequency.strip()
    try:
        interval_ms = parse_duration(re.sub(r"min$", "m", text if text[:1].isdigit() else f"1{text}"))
    except ValueError as error:
        raise typer.BadParameter(f"--frequency: {error}") from error
    if interval_ms < 1:
        raise typer.BadParameter(f"--frequency {frequency!r} is no time at all; give at least 1ms")
    return interval_ms


def _mix_of(text: str) -> dict[Kind, float]:
    allowed: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}
    mix: dict[Kind, float] = {}
    for part in _listed(text, "--kinds"):
        name, _, weight = part.partition("=")
        kind = allowed.get(name.strip().replace("-", "_"))
        if kind is None:
            raise typer.BadParameter(f"--kinds: {name!r} is not a kind of anomaly; there are: {', '.join(allowed)}")
        try:
            mix[kind] = float(weight or 1)
        except ValueError as error:
            raise typer.BadParameter(f"--kinds: the weight {weight!r} of {name} is not a number") from error
        if not 0 <= mix[kind] < float("inf"):
            raise typer.BadParameter(f"--kinds: the weight {weight!r} of {name} must be 0 or more")
    if not any(mix.values()):
        raise typer.BadParameter("--kinds: all weights are 0; give one kind a weight above 0")
    return mix


def _start_of(text: str) -> int:
    try:
        start = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"--start: {text!r} is not a time; write it as 2026-01-01T00:00:00Z") from error
    start = start if start.tzinfo else start.replace(tzinfo=UTC)
    return round(start.timestamp() * 1000)
