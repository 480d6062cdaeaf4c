"""A library's detector as a contestant: raw scores from its own environment, then what ours get as well."""

from __future__ import annotations

import functools
import json
import os
import selectors
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import environments
from benchmarks.accuracy.cache import Cache
from benchmarks.accuracy.contestants import GaveUpError, digest_of
from benchmarks.accuracy.judging import Scored, node_log10_p
from benchmarks.accuracy.libraries import LIBRARIES, PER_SERIES, Batch, Library
from benchmarks.accuracy.ours import HOUSE, as_score, top_mean
from benchmarks.accuracy.sets import Case, as_one
from tidewarden.frames import FloatArray
from tidewarden.resources.anomalydetector import Alerting
from tidewarden.scoring.calibration import Calibrator
from tidewarden.scoring.decision import DECISION_ROW, Rules, decide

CALIBRATED = "calibrated"
RAW = "raw"
FARTHEST = 1e12  # spreads: a library that divides by a variance of nothing says as good as infinity
FEW = 20  # different raw scores in the warm-up from which their spread is taken
# Wall time a job may take: other work on the machine stretches CPU seconds; imports and compiling come on top.
STRETCH, EXTRA_S = 10.0, 300.0


class Server:
    """A `worker` process in one environment; lives as long as this process, and restarts where it was ended."""

    def __init__(self, environment: str) -> None:
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None

    def ask(self, job: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """The answer to a job; GaveUpError where none comes."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            ready = selector.select(timeout_s)
        line = process.stdout.readline() if ready else ""
        if not line:
            process.kill()
            process.wait()
            self._process = None
            raise GaveUpError("no answer in time" if not ready else "its process ended", keep=False)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            python = environments.python_of(self._environment)
            variables = {**os.environ, "PYTHONPATH": str(HOUSE), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [str(python), "-m", "benchmarks.accuracy.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                cwd=HOUSE,
                env=variables,
            )
        return self._process


@functools.cache
def server_of(environment: str) -> Server:
    """One for each process and environment."""
    return Server(environment)


@dataclass(frozen=True, slots=True)
class Peer:
    """A library's detector."""

    name: str
    seeded: bool
    is_ours: bool = False

    @property
    def library(self) -> Library:
        """What is behind the name."""
        return next(one for one in LIBRARIES if one.name == self.name)

    def version(self) -> str:
        """Of all code between its raw scores and ours."""
        return digest_of((Path(__file__),)) + self.raw_version()

    def raw_version(self) -> str:
        """Of its code here and of what is installed for it."""
        here = HOUSE / "benchmarks"
        listed = here / "requirements" / f"{self.library.environment}.txt"
        return digest_of((here / "accuracy/libraries.py", here / "peers.py", listed))

    def score(self, case: Case, seed: int, cache: Cache, budget_s: float) -> dict[str, Scored]:
        """Calibrated like ours, and raw; a batch detector also fitted once on the train file, where there is one."""
        _, values, start = as_one(case)
        raw = self._raw(case, values, seed, cache, budget_s, 0)
        found = self._variants(case, values, start, raw, "")
        if case.train is not None and isinstance(self.library.raw, Batch):
            trained = self._raw(case, values, seed, cache, budget_s, len(case.train))
            found |= self._variants(case, values, start, trained, ", fitted on train only")
        return found

    def _variants(self, case: Case, values: FloatArray, start: int, raw: FloatArray, suffix: str) -> dict[str, Scored]:
        n = len(case.values)
        scaled = in_spreads(raw, start)
        # A node taken as a whole misses a reading where all of its metrics do.
        seen = values if raw.shape == values.shape else np.where(np.isnan(values).all(axis=1), np.nan, 0.0)[:, None]
        rare = calibrated(scaled, seen, case.interval_ms)
        if not case.is_node or raw.shape[1] == 1:
            score = as_score(rare)
            return {CALIBRATED + suffix: Scored(score[-n:], rare[-n:]), RAW + suffix: Scored(scaled[-n:])}
        score = top_mean(as_score(rare))
        plain = top_mean(np.nan_to_num(scaled, nan=-np.inf))
        return {
            CALIBRATED + suffix: Scored(score[-n:, None], node_log10_p(score)[-n:, None]),
            RAW + suffix: Scored(np.where(np.isfinite(plain), plain, np.nan)[-n:, None]),
        }

    def _raw(
        self, case: Case, values: FloatArray, seed: int, cache: Cache, budget_s: float, train_rows: int
    ) -> FloatArray:
        """Raw scores of train and test, kept: they outlive changes of calibration and judging."""
        key = ("raw", self.name, str(seed), case.fingerprint, self.raw_version(), str(train_rows))
        kept = cache.get(key)
        if kept is not None:
            return kept["raw"]
        name = self.name if case.is_node or values.shape[1] == 1 else self.name + PER_SERIES
        job = {"name": name, "seed": seed, "budget_s": budget_s, "train_rows": train_rows}
        try:
            server = server_of(self.library.environment)
            with tempfile.TemporaryDirectory(prefix="tidewarden-accuracy-") as folder:
                given, made = Path(folder) / "values.npy", Path(folder) / "raw.npy"
                np.save(given, filled(values))
                answer = server.ask({**job, "input": str(given), "output": str(made)}, STRETCH * budget_s + EXTRA_S)
                if answer["failure"]:
                    raise GaveUpError(answer["failure"], keep=answer["slow"])
                raw: FloatArray = np.load(made)
        except environments.PeerMissingError as missing:
            raise GaveUpError(f"its environment could not be made: {missing}", keep=False) from missing
        cache.put(key, {"raw": raw})
        return raw


def peers() -> list[Peer]:
    """All of them."""
    return [Peer(one.name, one.seeded) for one in LIBRARIES]


def filled(values: FloatArray) -> FloatArray:
    """The last value where one is missing, as users of libraries that take no NaN do; 0 before the first."""
    rows = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    last = np.maximum.accumulate(rows, axis=0)
    return np.nan_to_num(np.take_along_axis(values, last, axis=0))


def in_spreads(raw: FloatArray, start: int) -> FloatArray:
    """Raw scores (n, c) by their mean deviations from the median before row ``start``: libraries' scales differ widely.

    The calibration takes a surprise's scale to be that of a logarithm, and differences of a hundredth for noise.
    """
    scaled = np.empty_like(raw)
    for column in range(raw.shape[1]):
        one = raw[:, column]
        known = one[:start]
        known = known[np.isfinite(known)]
        # Scores that do not move, as of a forest before its first window is full, say nothing of the scale.
        moving = known[known != known[0]] if len(known) else known
        middle = float(np.median(moving)) if len(moving) >= FEW else 0.0
        spread = float(np.abs(moving - middle).mean()) if len(moving) >= FEW else 1.0
        scaled[:, column] = np.clip((one - middle) / max(spread, 1e-12), -FARTHEST, FARTHEST)
    return scaled


def calibrated(surprise: FloatArray, values: npt.NDArray[np.float64], interval_ms: int) -> FloatArray:
    """−log10 p (n, c), by the calibration and the rule for missing readings that our own models get."""
    n, c = surprise.shape
    series = np.tile(np.arange(c, dtype=np.int32), n)
    value = np.ascontiguousarray(values).ravel()
    learn = np.isfinite(value)
    calibrator = Calibrator()
    calibrator.resize(c)
    given = np.where(learn, surprise.ravel(), np.nan)
    log10_p = calibrator.observe(series, given, learn)
    blank = np.full(n * c, np.nan)
    _, p_value = decide(
        series, value, log10_p, learn, np.zeros(n * c, np.bool_), blank, blank.copy(), blank.copy(),
        np.zeros(n * c, np.uint8), np.zeros((c, DECISION_ROW)), np.zeros(c, np.int32),
        np.zeros(1, np.int64), 0,
        Rules.of(Alerting.model_validate({}), interval_ms),
    )  # fmt: skip
    rare: FloatArray = -np.log10(p_value).reshape(n, c)
    return rare
