"""``tidewarden evaluate``: scores against labels, as a table or one JSON object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidewarden_cli.offline.score import Level, clear_errors

if TYPE_CHECKING:
    from tidewarden.evaluate.nab import NabScore
    from tidewarden.frames import BoolArray, FloatArray
    from tidewarden_cli.offline.reading import Readings


def evaluate(
    scores: Annotated[
        Path | None,
        typer.Argument(metavar="SCORES", help="Output of `tidewarden score`, or raw readings with --model."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="File with a label or is_anomaly column; default: SCORES itself.")
    ] = None,
    windows: Annotated[
        Path | None, typer.Option(help="Truth as NAB windows, JSON {file: [[start, end]]}, instead of labels.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Score SCORES first, with this model: auto, ewma, mad, seasonal.")
    ] = None,
    warm: Annotated[Path | None, typer.Option(help="With --model: clean file to learn from first.")] = None,
    level: Annotated[Level, typer.Option(help="With --model: judge each series, or each node.")] = Level.series,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Score from which a reading is an anomaly; default: what the detector said."
        ),
    ] = None,
    nab: Annotated[
        Path | None, typer.Option(help="Folder laid out as NAB's: score the whole corpus and print the NAB scores.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure scores against labels.

    Prints precision, recall and F1 by event, the median detection delay, false alarms a day, AUC-PR and
    VUS-PR. An event is a run of labelled readings; an anomaly finds it by overlapping it, up to three
    readings behind its end. Readings on which the model was still learning are left out and counted.
    With --windows or --nab also the NAB score: 0 is silence, 100 perfect, one best threshold.

    Examples:

      tidewarden score machine.csv -o scores.csv && tidewarden evaluate scores.csv --truth machine.csv

      tidewarden evaluate machine.csv --model auto --level node --json

      tidewarden evaluate --nab NAB --model auto
    """
    with clear_errors():
        if nab is not None:
            result = _corpus(nab, model or "auto")
        else:
            result = _file(scores, truth, windows, model, warm, level, threshold)
    if as_json:
        import msgspec

        typer.echo(msgspec.json.encode(result).decode())
    else:
        _print(result)


def _corpus(folder: Path, model: str) -> dict[str, Any]:
    from tidewarden.evaluate.nab import score_corpus
    from tidewarden_cli.offline.corpus import REPORT_EVERY, score_corpus_folder
    from tidewarden_cli.offline.run import detector_spec

    files = score_corpus_folder(folder, detector_spec(model))
    return {
        "detector": model,
        "files": len(files),
        "readings": sum(len(file.score) for file in files),
        "nab": _profiles(score_corpus(files)),
        f"nab_one_report_per_{REPORT_EVERY}": _profiles(score_corpus(files, report_every=REPORT_EVERY)),
    }


def _profiles(scores: list[NabScore]) -> dict[str, float]:
    return {score.profile: score.score for score in scores}


def _file(
    scores: Path | None,
    truth: Path | None,
    windows: Path | None,
    model: str | None,
    warm: Path | None,
    level: Level,
    threshold: float | None,
) -> dict[str, Any]:
    import msgspec
    import numpy as np

    from tidewarden.evaluate.nab import NabFile, score_corpus
    from tidewarden_cli.offline.corpus import load_windows, windows_of
    from tidewarden_cli.offline.judging import THRESHOLD, judge, truth_of, window_labels, written_scores
    from tidewarden_cli.offline.reading import InputError, read_readings

    if scores is None:
        raise InputError("nothing to evaluate: name a file of scores, or a corpus with --nab FOLDER")
    readings = read_readings(scores)
    if "anomaly_score" in readings.scores.column_names:
        if model is not None:
            raise InputError(f"{scores}: is scored already: leave out --model, or give the readings themselves")
        score, above, learning = written_scores(readings)
        detector = "scores"
    elif model is None:
        raise InputError(f"{scores}: has no anomaly_score column: run `tidewarden score` first, or pass --model auto")
    else:
        readings, score, above, learning = _scored(readings, model, warm, level)
        detector = model
    if threshold is not None or above is None:
        above = score >= (THRESHOLD if threshold is None else threshold)
    spans = windows_of(load_windows(windows), truth or scores) if windows is not None else None
    if spans is not None:
        label = window_labels(readings.timestamp, spans)
    else:
        label = truth_of(readings, read_readings(truth) if truth is not None else None)
    result: dict[str, Any] = msgspec.to_builtins(
        judge(readings, label, score, np.asarray(above, np.bool_), learning, detector, scores)
    )
    if spans and len(readings.keys) == 1:
        order = np.argsort(readings.timestamp, kind="stable")
        result["nab"] = _profiles(score_corpus([NabFile(scores.name, readings.timestamp[order], score[order], spans)]))
    return result


def _scored(
    readings: Readings, model: str, warm: Path | None, level: Level
) -> tuple[Readings, FloatArray, BoolArray | None, BoolArray]:
    """The readings (or their nodes, as one series each), their scores, what is an anomaly, what was learning."""
    from tidewarden.frames import ABOVE, LEARNING
    from tidewarden_cli.offline.nodes import as_series, node_scores
    from tidewarden_cli.offline.reading import read_readings
    from tidewarden_cli.offline.run import detector_spec, placed_before, score_readings

    before = placed_before(read_readings(warm), readings) if warm is not None else None
    said = score_readings(readings, detector_spec(model), before)
    learning = (said.flags & LEARNING) != 0
    if level is Level.series:
        return readings, said.anomaly_score, (said.flags & ABOVE) != 0, learning
    nodes = node_scores(readings, said, before)
    return as_series(readings, nodes), nodes.anomaly_score, None, nodes.learning


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in result.items():
        if isinstance(value, dict):
            for profile, score in value.items():
                table.add_row(f"{name} {profile}".replace("_", " "), f"{score:.1f}")
        else:
            shown = "–" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
            table.add_row(name.replace("_", " "), shown)
    Console().print(table)
