"""The labelled data: one function a set, each yielding cases.

Settings may be chosen on ``asd``, ``jumpstarter``, ``smd`` and the simulations. ``nab`` is the public scoreboard: it is
reported, and nothing is tuned on it.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tidewarden.evaluate.nab import read_corpus
from tidewarden.frames import ByteArray, FloatArray, TimeArray
from tidewarden.resources.metricsimulation import Anomalies, Fleet
from tidewarden_simulator.anomalies import CLASSIC_MIX
from tidewarden_simulator.fleets import FleetMaker

EPOCH_MS = 946_684_800_000  # 2000-01-01T00:00Z: where files without times begin, at midnight as daily seasons expect
MINUTE_MS = 60_000
FLEET_POINTS = 10_080  # a week of minutes
FLEET_NODES = 10  # × 4 metrics
EVENTS_A_SERIES = 4
# What issue 5 wants told apart, in equal shares.
ALL_KINDS = ("spike", "dip", "level_shift", "drift", "missing", "flat_line", "seasonal_change", "noise")


class Case(NamedTuple):
    """One labelled file: a series, a node of several metrics under one label, or many series with one each.

    Attributes:
        set: name of the data set.
        name: of the file within it.
        timestamp: of each row, ms since the epoch, shape (n,).
        values: NaN where a reading is missing, shape (n, k).
        labels: shape (n,) where the k metrics are one node, else (n, k); `AnomalyKind` or 1, 0 is normal.
        train: the rows before, to learn from; they carry no label, shape (m, k); None: a cold start.
        windows: NAB's, in ms since the epoch; None for every other set.
    """

    set: str
    name: str
    timestamp: TimeArray
    values: FloatArray
    labels: ByteArray
    train: FloatArray | None = None
    windows: Sequence[tuple[int, int]] | None = None

    @property
    def interval_ms(self) -> int:
        """Median spacing of the rows."""
        step = np.diff(self.timestamp)
        return max(1, int(np.median(step[step > 0])))

    @property
    def is_node(self) -> bool:
        """One label for several metrics."""
        return self.labels.ndim == 1 and self.values.shape[1] > 1

    @property
    def fingerprint(self) -> str:
        """Of what a detector sees and is judged by."""
        digest = hashlib.blake2b(digest_size=8)
        for array in (self.timestamp, self.values, self.labels, self.train):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        digest.update(repr((self.set, self.name, self.windows)).encode())
        return digest.hexdigest()


def nab(data: Path, quick: bool) -> Iterator[Case]:
    """NAB, each file from a cold start; quick: the production metrics only, whose score does not compare with NAB's."""
    for file in read_corpus(data / "nab"):
        if quick and not file.name.startswith(("realAWSCloudwatch/", "realKnownCause/")):
            continue
        labels = np.zeros(len(file.timestamp), np.uint8)
        for start, end in file.windows:
            labels[(file.timestamp >= start) & (file.timestamp <= end)] = 1
        yield Case("nab", file.name, file.timestamp, file.value[:, None], labels, None, file.windows)


def _read_wide(path: Path) -> tuple[FloatArray, ByteArray | None]:
    """Values (n, k) of a csv.gz without times, and its ``label`` column if it has one."""
    from pyarrow import csv

    table = csv.read_csv(path)
    names = [name for name in table.column_names if name != "label"]
    values = np.stack([table[name].cast("float64").to_numpy() for name in names], axis=1)
    label = table["label"].to_numpy().astype(np.uint8) if "label" in table.column_names else None
    return np.ascontiguousarray(values), label


def _machines(data: Path, folder: str, interval_ms: int, name: str, keep: Sequence[str] | None) -> Iterator[Case]:
    """Pairs ``X_train.csv.gz`` and ``X_test.csv.gz``, the test labelled, both without times."""
    tests = sorted((data / folder).glob("*_test.csv.gz"))
    if not tests:
        raise ValueError(f"{data / folder}: no file *_test.csv.gz in it: pass the folder that holds {folder}")
    for test in tests:
        stem = test.name.removesuffix("_test.csv.gz")
        if keep is not None and stem not in keep:
            continue
        values, label = _read_wide(test)
        if label is None:
            raise ValueError(f"{test}: has no column label")
        train, _ = _read_wide(test.with_name(f"{stem}_train.csv.gz"))
        if train.shape[1] != values.shape[1]:
            raise ValueError(f"{test}: {values.shape[1]} metrics, but its train file has {train.shape[1]}")
        timestamp = EPOCH_MS + (len(train) + np.arange(len(values), dtype=np.int64)) * interval_ms
        yield Case(name, stem, timestamp, values, label, train)


def asd(data: Path, quick: bool) -> Iterator[Case]:
    """Application Server Dataset: services of 19 metrics, warmed on their train file."""
    keep = ("omi-1", "omi-4", "omi-7", "omi-10") if quick else None
    yield from _machines(data, "asd", 5 * MINUTE_MS, "asd", keep)


def jumpstarter(data: Path, quick: bool) -> Iterator[Case]:
    """Production services of 19 metrics, warmed on their train file."""
    keep = ("Dataset2_service0", "Dataset2_service12", "Dataset2_service25") if quick else None
    yield from _machines(data, "jumpstarter", MINUTE_MS, "jumpstarter", keep)


def smd(data: Path, quick: bool) -> Iterator[Case]:
    """Server Machine Dataset: machines of 38 metrics, warmed on their train file."""
    keep = ("machine-1-6", "machine-3-3") if quick else None
    yield from _machines(data, "smd", MINUTE_MS, "smd", keep)


def _cold(warm: Callable[[Path, bool], Iterator[Case]]) -> Callable[[Path, bool], Iterator[Case]]:
    def cold(data: Path, quick: bool) -> Iterator[Case]:
        for case in warm(data, quick):
            yield case._replace(set=f"{case.set}-cold", train=None)

    cold.__doc__ = f"As `{warm.__name__}`, but nothing to learn from beforehand."
    return cold


def _fleet_case(name: str, number: int, mix: dict[str, float]) -> Case:
    anomalies = Anomalies.model_validate({"ratio": 0.5, "mix": mix, "per_series": EVENTS_A_SERIES})
    fleet = Fleet(tenants=["sim"], nodes=FLEET_NODES)
    # crc32, not hash(): the same fleet in every process.
    seed = zlib.crc32(name.encode()) % 100_000 + number
    maker = FleetMaker(
        fleet, anomalies, seed=seed, interval_ms=MINUTE_MS, start_ms=EPOCH_MS, points=FLEET_POINTS
    )  # fmt: skip
    block = maker.block(0, FLEET_POINTS)
    return Case(name, f"fleet-{number}", block.timestamp, block.value, block.label)


def fleets(data: Path, quick: bool) -> Iterator[Case]:  # noqa: ARG001 - made, not read
    """Simulated fleets of 40 series over a week with the five classic kinds; each series has its own label."""
    for number in range(1 if quick else 5):
        yield _fleet_case("fleets", number, CLASSIC_MIX)


def kinds(data: Path, quick: bool) -> Iterator[Case]:  # noqa: ARG001 - made, not read
    """As `fleets`, with all eight kinds: for the confusion matrix."""
    for number in range(1 if quick else 5):
        yield _fleet_case("kinds", number, dict.fromkeys(ALL_KINDS, 1.0))


SETS: dict[str, Callable[[Path, bool], Iterator[Case]]] = {
    "asd": asd,
    "jumpstarter": jumpstarter,
    "smd": smd,
    "asd-cold": _cold(asd),
    "jumpstarter-cold": _cold(jumpstarter),
    "smd-cold": _cold(smd),
    "fleets": fleets,
    "kinds": kinds,
    "nab": nab,
}


def as_one(case: Case) -> tuple[TimeArray, FloatArray, int]:
    """Times and values of train and test in a row, and the row from which scores count.

    A warmed case counts from its first test row. In a cold start nothing counts before NAB's probation is over
    (15 % of the rows, at most 750), the same for all detectors, however soon they dare to speak.
    """
    from tidewarden.evaluate.nab import probation_length

    if case.train is None:
        return case.timestamp, case.values, probation_length(len(case.values))
    m = len(case.train)
    before = case.timestamp[0] - np.arange(m, 0, -1, dtype=np.int64) * case.interval_ms
    return np.concatenate([before, case.timestamp]), np.concatenate([case.train, case.values]), m


def labels_by_series(case: Case) -> npt.NDArray[np.uint8]:
    """Labels (n, s): a column for each thing that is judged, which is a node or a series."""
    return case.labels if case.labels.ndim == 2 else case.labels[:, None]
