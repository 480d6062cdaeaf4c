"""Scoring alone: the shipped `auto` at 1,000 series beside the streaming libraries a user would pick.

All are fed the same daily waves with noise, on one core, in one run; time is CPU time of this process.
``ratio`` says how many times faster `auto` is than the subject, and for state how many times the memory
of `auto` the subject takes (pickled, for the peers). The peers get ten series, which is to
their advantage (fewer cache misses), and a bounded time; compilation and imports are not counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from benchmarks.peers import PEERS, measure
from benchmarks.report import Result, print_table
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.scoring.scorer import Scorer, ScorerConfig

DAY_MS = 86_400_000
SERIES = 1000
POINTS = 1440
FRAME_READINGS = 10_000  # as the detect service gets them from the bus
PEER_SERIES = 10
PEER_BUDGET_S = 6.0
KINDS = ("auto", "density", "ewma")


def waves(n_points: int, n_series: int) -> npt.NDArray[np.float64]:
    """Noisy daily waves, one reading a minute, shape (n_points, n_series)."""
    rng = np.random.default_rng(0)
    phase = np.arange(n_points)[:, None] * 2 * np.pi / 1440
    return 100 + 20 * np.sin(phase) + rng.normal(0, 5, (n_points, n_series))


def as_frame(values: npt.NDArray[np.float64]) -> Frame:
    """The same as readings in time order, four metrics a node."""
    n_points, n_series = values.shape
    table = SeriesTable(SeriesKey("shop", "eu", f"n{i // 4}", f"m{i % 4}") for i in range(n_series))
    timestamp = np.repeat(np.arange(n_points, dtype=np.int64) * 60_000, n_series)
    return Frame(table, np.tile(np.arange(n_series, dtype=np.int32), n_points), timestamp, values.ravel())


def scorer_speed(kind: str, frame: Frame) -> tuple[float, int]:
    """Readings per CPU second of a whole scorer, from gaps to anomalies, and bytes a series."""
    spec = AnomalyDetectorSpec.model_validate({"stream": "bench", "model": {"kind": kind}})
    scorer = Scorer(ScorerConfig("bench", "bench", spec), frame.table)
    first = len(frame.table)
    scorer.score(frame.take(slice(0, first)))  # compiles, and makes room for the state
    start = time.process_time()
    for at in range(first, len(frame), FRAME_READINGS):
        scorer.score(frame.take(slice(at, at + FRAME_READINGS)))
    return (len(frame) - first) / (time.process_time() - start), scorer.state_bytes_per_series


def run() -> Iterator[Result]:
    """`auto` and `ewma` first, then the peers that are installed."""
    frame = as_frame(waves(POINTS, SERIES))
    ours = {kind: scorer_speed(kind, frame) for kind in KINDS}
    auto, auto_bytes = ours["auto"]
    for kind, (speed, size) in ours.items():
        yield Result("scoring", f"tidewarden {kind}, {SERIES} series", speed, "readings/s/core", auto / speed)
        yield Result("state", f"tidewarden {kind}", size, "bytes/series", size / auto_bytes)
    values = waves(20_000, PEER_SERIES)
    for peer in PEERS:
        try:
            reached = measure(peer, values, PEER_BUDGET_S)
        except ImportError as error:
            print(f"{peer.name} is left out ({error}): pip install 'tidewarden[bench]'", file=sys.stderr)
            continue
        yield Result(
            "scoring", peer.name, reached.readings_per_second, "readings/s/core", auto / reached.readings_per_second
        )
        yield Result(
            "state", peer.name, reached.bytes_per_series, "bytes/series", reached.bytes_per_series / auto_bytes
        )


if __name__ == "__main__":
    print_table(sorted(run(), key=lambda result: result.bench))
