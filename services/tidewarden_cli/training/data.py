"""History from files of readings, and from the store that `tidewarden up --data-dir` keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidewarden.evaluate.nab import parse_time
from tidewarden.registry.manifest import Period
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.resources.loader import Bundle, ResourceError, load
from tidewarden.training.history import History
from tidewarden_cli.evaluation import ROWS_AT_MOST
from tidewarden_cli.offline.reading import InputError, read_readings


def detector_of(files: Sequence[Path], name: str | None) -> tuple[AnomalyDetector, MetricStream, Bundle]:
    """The detector of that name, or the only one there is, and its stream."""
    try:
        bundle = load(files)
    except ResourceError as error:
        raise InputError(str(error)) from None
    names = [detector.metadata.name for detector in bundle.detectors]
    if name is None and len(names) != 1:
        raise InputError(
            f"{files[0]}: has {len(names)} AnomalyDetectors{': ' if names else ''}{', '.join(names)}: "
            "name one with --detector"
        )
    for detector in bundle.detectors:
        if name in {None, detector.metadata.name}:
            stream = next(s for s in bundle.streams if s.metadata.name == detector.spec.stream)
            return detector, stream, bundle
    raise InputError(f"--detector {name}: {files[0]} has no such AnomalyDetector; there are: {', '.join(names)}")


def read_history(paths: Sequence[Path], stream: MetricStream, detector: str) -> History:
    """The readings of all files together; of a store, those of the stream."""
    return History.join(
        [_of_store(path, stream, detector) if path.suffix == ".duckdb" else _of_file(path) for path in paths]
    )


def _of_file(path: Path) -> History:
    readings = read_readings(path)
    label = None if readings.truth is None else readings.truth[readings.row]
    return History.of(readings.keys, readings.series, readings.timestamp, readings.value, label)


def _of_store(path: Path, stream: MetricStream, detector: str) -> History:
    from tidewarden.store.embedded import EmbeddedStore
    from tidewarden.store.port import Query, StoreError

    if not path.exists():
        raise InputError(f"{path}: there is no such file: name the store.duckdb of a --data-dir")
    try:
        store = EmbeddedStore(path)
    except StoreError as error:
        raise InputError(f"{path}: {error}") from None
    try:
        # Named, so that a reading that several detectors scored has one row.
        table = store.readings(Query(stream=stream.metadata.name, detector=detector, limit=ROWS_AT_MOST))
    finally:
        store.close()
    if table.num_rows == ROWS_AT_MOST:
        raise InputError(f"{path}: has more than {ROWS_AT_MOST:,} readings: train on files with a part of them")
    if not table.num_rows:
        raise InputError(f"{path}: has no reading of stream {stream.metadata.name}: name another store or stream")
    return History.of_store(table, stream.spec.interval)


def parse_period(text: str) -> Period:
    """A period such as ``2024-05-01T12:00/2024-05-02``."""
    begin, slash, end = text.partition("/")
    try:
        if not slash:
            raise ValueError(f"{text!r} has no slash")
        period = Period(parse_time(begin), parse_time(end))
    except ValueError as error:
        raise InputError(f"--exclude {text}: {error}; a period is FROM/TO, as in 2024-05-01T12:00/2024-05-02") from None
    if period.from_ms >= period.until_ms:
        raise InputError(f"--exclude {text}: ends before it begins: swap the two")
    return period
