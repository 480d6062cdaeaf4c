"""A folder laid out as NAB's, scored file by file, each from a cold start as NAB demands."""

from __future__ import annotations

from pathlib import Path

from tidewarden.evaluate.nab import NabFile, parse_windows
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden_cli.offline.reading import InputError, read_readings
from tidewarden_cli.offline.run import score_readings

REPORT_EVERY = 120  # readings; the de-duplication that figures beside the plain NAB score use


def load_windows(path: Path) -> dict[str, list[tuple[int, int]]]:
    """A windows file: name of a data file → inclusive windows in ms since the epoch."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file: give a JSON file as NAB's combined_windows.json")
    try:
        return parse_windows(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def windows_of(windows: dict[str, list[tuple[int, int]]], path: Path) -> list[tuple[int, int]]:
    """The windows of one file, found by the end of its path, longest match first."""
    for depth in range(min(len(path.parts), 4), 0, -1):
        wanted = "/".join(path.parts[-depth:])
        for name, found in windows.items():
            if name == wanted or (depth == 1 and name.rpartition("/")[2] == wanted):
                return found
    if len(windows) == 1:
        return next(iter(windows.values()))
    raise InputError(f"the windows name no file {path.name}: there are {', '.join(sorted(windows)[:3])} …")


def score_corpus_folder(folder: Path, spec: AnomalyDetectorSpec) -> list[NabFile]:
    """Score each file that ``labels/combined_windows.json`` names and that is there.

    Windows and data may also lie in the folder itself, and the data may be gzipped.
    """
    listed = (folder / "labels/combined_windows.json", folder / "combined_windows.json")
    found = [path for path in listed if path.exists()]
    if not found:
        raise InputError(f"{folder}: no labels/combined_windows.json in it: give a folder laid out as NAB's")
    files = []
    windows = load_windows(found[0])
    for name in sorted(windows):
        likely = (folder / "data" / name, folder / name, folder / f"{name}.gz")
        places = [path for path in likely if path.exists()]
        if not places:
            continue  # a part of the corpus is fine: its windows are then no part of it either
        readings = read_readings(places[0])
        if readings.form != "single":
            raise InputError(f"{places[0]}: has the columns of form {readings.form}: a corpus has timestamp,value")
        scores = score_readings(readings, spec)
        files.append(NabFile(name, readings.timestamp, scores.anomaly_score, windows[name]))
    if not files:
        raise InputError(f"{folder}: none of the {len(windows)} files that {found[0].name} names is there")
    return files
