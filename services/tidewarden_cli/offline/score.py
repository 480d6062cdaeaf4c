"""``tidewarden score``: a file of readings in, a file of scores out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Level(StrEnum):
    """What a row of the output is about."""

    series = "series"
    node = "node"


@contextmanager
def clear_errors() -> Iterator[None]:
    """What a user got wrong becomes one line on stderr and exit code 2, not a traceback."""
    from tidewarden_cli.offline.reading import InputError

    try:
        yield
    except InputError as error:
        typer.echo(f"tidewarden: {error}", err=True)
        raise typer.Exit(2) from None
    except BrokenPipeError:  # `tidewarden score … | head` is a fine thing to do
        raise typer.Exit(0) from None


def score(
    input_file: Annotated[
        Path, typer.Argument(metavar="INPUT", help="CSV (.csv, .csv.gz) or Parquet file of readings.")
    ],
    model: Annotated[str, typer.Option(help="Kind of model: auto, ewma, mad, …, or a plug-in's.")] = "auto",
    warm: Annotated[Path | None, typer.Option(help="Clean file of the same form to learn from first.")] = None,
    trained: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DETECTOR@VERSION", help="Begin with a registered version: number, champion or latest."
        ),
    ] = None,
    registry: Annotated[
        str, typer.Option(help="With --from: folder or s3://BUCKET/PREFIX of the versions.")
    ] = "models",
    level: Annotated[Level, typer.Option(help="A row for each reading, or for each node and time.")] = Level.series,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="File to write, .csv, .csv.gz or .parquet; default: CSV to stdout."),
    ] = None,
) -> None:
    """Score a file of readings, as the stream would have scored them.

    INPUT has the columns timestamp,value; or one column a metric, with or without timestamp (rows are
    then one minute apart); or timestamp,tenant,cluster,node,metric,value. Columns named label,
    is_anomaly or kind are never read as metrics.

    The output has one row a reading, in input order, with anomaly_score (0 to 1; 0.8 is one in 63,000),
    p_value, expected, lower, upper and kind. With --level node it has one row for each node and time,
    with the metrics that drive its score.

    With --from the model and what it has learned are those of a version that `tidewarden train` has kept;
    series are told apart by their names, so the file must name them as the training's did.

    Examples:

      tidewarden score cpu.csv

      tidewarden score machine.csv.gz --warm clean.csv.gz --level node -o scores.parquet

      tidewarden score june.parquet --from shop-latency@champion -o scores.parquet
    """
    with clear_errors():
        if trained is None:
            _score(input_file, model, warm, level, output)
        else:
            from tidewarden_cli.training.scoring import score_from

            score_from(input_file, trained, registry, model, warm, level, output)


def _score(input_file: Path, model: str, warm: Path | None, level: Level, output: Path | None) -> None:
    from tidewarden_cli.offline.reading import read_readings
    from tidewarden_cli.offline.writing import check_output, node_table, series_table, write

    check_output(output)
    readings = read_readings(input_file)
    clean = read_readings(warm) if warm is not None else None

    from tidewarden_cli.offline.nodes import node_scores
    from tidewarden_cli.offline.run import detector_spec, placed_before, score_readings

    before = placed_before(clean, readings) if clean is not None else None
    scores = score_readings(readings, detector_spec(model), before)
    if level is Level.node:
        write(node_table(readings, node_scores(readings, scores, before)), output)
    else:
        write(series_table(readings, scores), output)
