"""Raw scores of libraries a user might pick instead, each fed as its documentation shows, never from the future.

Imported in the environments of `benchmarks/requirements`, so of ours only `benchmarks.peers` may be imported here.
Streaming detectors score a reading, then learn it. Batch detectors are fitted every `REFIT` rows on the last `HISTORY`
and score the rows in between, as a user would run them on a stream; or once on a train file, if there is one. Of a
single series they see the last `LAGS` readings, without which they could see nothing but levels. Parameters are the
libraries' defaults where they have them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.peers import PEERS

FloatArray = npt.NDArray[np.float64]
LAGS = 8
REFIT = 500
HISTORY = 2_000
STUMPY_WINDOW = 24
PATIENCE_S = 10.0  # CPU after which the pace is known well enough to give up early


class TooSlowError(Exception):
    """It would need more than its budget."""


class Budget:
    """CPU seconds for one file."""

    def __init__(self, budget_s: float, rows: int) -> None:
        self._budget_s, self._rows = budget_s, rows
        self._start = time.process_time()

    def forgive(self, seconds: float) -> None:
        """Do not count what was spent on getting ready."""
        self._start += seconds

    def check(self, done: int) -> None:
        """TooSlowError where the rows will not be through in time, given how far ``done`` rows came."""
        spent = time.process_time() - self._start
        if spent > self._budget_s or (spent > PATIENCE_S and spent * self._rows > done * self._budget_s * 1.2):
            pace = done / max(spent, 1e-9)
            raise TooSlowError(f"{self._rows:,} rows at {pace:,.0f} a second need more than {self._budget_s:g} s")


Raw = Callable[[FloatArray, int, Budget], FloatArray]
"""Values (n, k) without NaN, seed, budget → raw scores (n,), higher is more anomalous, NaN where there is none yet."""


class Batch(NamedTuple):
    """A detector that is fitted on rows and then scores others."""

    make: Callable[[int], Any]
    score: Callable[[Any, FloatArray], FloatArray]


class Library(NamedTuple):
    """A detector of a library."""

    name: str
    environment: str
    takes_vectors: bool  # a node's metrics at once; else it is fed one metric at a time
    seeded: bool
    raw: Raw | Batch


def lagged(values: FloatArray) -> FloatArray:
    """The last `LAGS` readings of a single series, (n, LAGS), its first one repeated; vectors as they are."""
    if values.shape[1] > 1:
        return values
    padded = np.concatenate([np.full(LAGS - 1, values[0, 0]), values[:, 0]])
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(padded, LAGS))


def _stream(values: FloatArray, step: Callable[[Any], float], budget: Budget) -> FloatArray:
    raw = np.empty(len(values))
    for row, value in enumerate(values):
        raw[row] = step(value)
        if row % 64 == 63:
            budget.check(row + 1)
    return raw


def _gaussian(values: FloatArray, seed: int, budget: Budget) -> FloatArray:
    del seed
    peer = next(peer for peer in PEERS if peer.name == "river GaussianScorer")
    step, _ = peer.make()
    return _stream(values, lambda value: step(float(value[0])), budget)


def _half_space_trees(values: FloatArray, seed: int, budget: Budget) -> FloatArray:
    from river import anomaly, compose, preprocessing

    # Half-space trees expect values in [0, 1]; the scaler is river's own advice.
    model = compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=seed))
    names = [f"m{i}" for i in range(values.shape[1])]

    def step(value: FloatArray) -> float:
        features = dict(zip(names, value.tolist(), strict=True))
        score = float(model.score_one(features))
        model.learn_one(features)
        return score

    return _stream(values, step, budget)


def _loda(values: FloatArray, seed: int, budget: Budget) -> FloatArray:
    from pysad.models import LODA

    model = LODA(random_state=seed)
    return _stream(lagged(values), lambda row: float(np.ravel(model.fit_score_partial(row))[0]), budget)


def _knn_cad(values: FloatArray, seed: int, budget: Budget) -> FloatArray:
    from pysad.models import KNNCAD

    del seed
    model = KNNCAD(min(int(0.15 * len(values)), 750))  # NAB's probation, for which it was made
    return _stream(values, lambda row: float(np.ravel(model.fit_score_partial(row))[0]), budget)


def _rrcf(values: FloatArray, seed: int, budget: Budget) -> FloatArray:
    import rrcf

    # 40 trees of 256 points, the size of the library's own streaming example.
    forest = [rrcf.RCTree(random_state=1_000 * seed + tree) for tree in range(40)]
    count = 0

    def step(point: FloatArray) -> float:
        nonlocal count
        total = 0.0
        for tree in forest:
            if len(tree.leaves) >= 256:
                tree.forget_point(count - 256)
            tree.insert_point(point, index=count)
            total += tree.codisp(count)
        count += 1
        return total / len(forest)

    return _stream(lagged(values), step, budget)


def _stumpy_compiled_s() -> float:
    """CPU seconds that its kernels take to compile, which they do once a process."""
    import stumpy

    start = time.process_time()
    stumpy.stump(np.random.default_rng(0).normal(size=4 * STUMPY_WINDOW), STUMPY_WINDOW)
    return time.process_time() - start


def _stumpy(values: FloatArray, seed: int, budget: Budget) -> FloatArray:
    import stumpy

    del seed
    budget.forgive(_stumpy_compiled_s())
    # The left matrix profile looks at the past only: the same as stumpy's own streaming class, and much quicker.
    series = values[:, 0]
    raw = np.full(len(series), np.nan)
    profile = stumpy.stump(series, STUMPY_WINDOW)
    nearest = profile.left_I_.astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(series, STUMPY_WINDOW)
    spread = windows.std(axis=1, keepdims=True)
    shapes = (windows - windows.mean(axis=1, keepdims=True)) / np.where(spread > 0.0, spread, 1.0)
    known = np.flatnonzero(nearest >= 0)
    known = known[known >= min(len(series) // 10, HISTORY)]  # before, there is hardly a past to be near to
    raw[known + STUMPY_WINDOW - 1] = np.sqrt(((shapes[known] - shapes[nearest[known]]) ** 2).sum(axis=1))
    budget.check(len(series))
    return raw


def _refitted(batch: Batch, values: FloatArray, seed: int, budget: Budget) -> FloatArray:
    """Fitted every `REFIT` rows on the last `HISTORY`."""
    rows = lagged(values)
    found = np.full(len(rows), np.nan)
    # The first fit as soon as there are some readings, so that a short file has scores behind its probation.
    first = min(REFIT, max(len(rows) // 10, 2 * LAGS))
    for at in range(first, len(rows), REFIT):
        found[at : at + REFIT] = _fitted(batch, rows[max(at - HISTORY, 0) : at], rows[at : at + REFIT], seed)
        budget.check(min(at + REFIT, len(rows)))
    return found


def _trained(batch: Batch, values: FloatArray, train_rows: int, seed: int, budget: Budget) -> FloatArray:
    """Fitted once on the train rows, which then are scored, too: for the scale of the others."""
    rows = lagged(values)
    found = _fitted(batch, rows[:train_rows], rows, seed)
    budget.check(len(rows))
    return found


def _fitted(batch: Batch, known: FloatArray, asked: FloatArray, seed: int) -> FloatArray:
    centre, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 0.0, spread, 1.0)
    model = batch.make(seed)
    model.fit((known - centre) / spread)
    return batch.score(model, (asked - centre) / spread)


def _scikit_learn(model: Any, rows: FloatArray) -> FloatArray:
    return -np.asarray(model.score_samples(rows), np.float64)


def _pyod(model: Any, rows: FloatArray) -> FloatArray:
    return np.asarray(model.decision_function(rows), np.float64)


def _isolation_forest(seed: int) -> Any:
    from sklearn.ensemble import IsolationForest

    return IsolationForest(random_state=seed)


def _lof(_seed: int) -> Any:
    from sklearn.neighbors import LocalOutlierFactor

    return LocalOutlierFactor(novelty=True)


def _one_class_svm(_seed: int) -> Any:
    from sklearn.svm import OneClassSVM

    return OneClassSVM(nu=0.1)  # its default 0.5 calls half of the readings outliers


def _pyod_knn(_seed: int) -> Any:
    from pyod.models.knn import KNN

    return KNN()


def _pyod_ecod(_seed: int) -> Any:
    from pyod.models.ecod import ECOD

    return ECOD()


def _pyod_pca(seed: int) -> Any:
    from pyod.models.pca import PCA

    return PCA(random_state=seed)


def _pyod_hbos(_seed: int) -> Any:
    from pyod.models.hbos import HBOS

    return HBOS()


def _merlion(values: FloatArray, seed: int, budget: Budget) -> FloatArray:
    import pandas
    from merlion.models.defaults import DefaultDetector, DefaultDetectorConfig
    from merlion.utils import TimeSeries

    del seed
    # Its default detector, trained once on the first part and then run over the rest.
    first = min(max(len(values) // 10, 100), HISTORY)
    index = pandas.to_datetime(np.arange(len(values)) * 60, unit="s")
    whole = pandas.DataFrame(values, index=index, columns=[f"m{i}" for i in range(values.shape[1])])
    model = DefaultDetector(DefaultDetectorConfig(granularity="1min"))
    model.train(TimeSeries.from_pd(whole[:first]))
    raw = np.full(len(values), np.nan)
    for at in range(first, len(values), REFIT):
        part = TimeSeries.from_pd(whole[at : at + REFIT])
        score = model.get_anomaly_score(part, TimeSeries.from_pd(whole[max(at - HISTORY, 0) : at])).to_pd()
        raw[np.searchsorted(index, score.index)] = np.abs(score.iloc[:, 0].to_numpy())
        budget.check(min(at + REFIT, len(values)))
    return raw


LIBRARIES = (
    Library("river-hst", "accuracy", True, True, _half_space_trees),
    Library("river-gaussian", "accuracy", False, False, _gaussian),
    Library("pysad-loda", "accuracy", True, True, _loda),
    Library("pysad-knncad", "accuracy", False, False, _knn_cad),
    Library("rrcf", "accuracy", True, True, _rrcf),
    Library("stumpy-left-profile", "accuracy", False, False, _stumpy),
    Library("sklearn-iforest", "accuracy", True, True, Batch(_isolation_forest, _scikit_learn)),
    Library("sklearn-lof", "accuracy", True, False, Batch(_lof, _scikit_learn)),
    Library("sklearn-ocsvm", "accuracy", True, False, Batch(_one_class_svm, _scikit_learn)),
    Library("pyod-knn", "accuracy", True, False, Batch(_pyod_knn, _pyod)),
    Library("pyod-ecod", "accuracy", True, False, Batch(_pyod_ecod, _pyod)),
    Library("pyod-pca", "accuracy", True, False, Batch(_pyod_pca, _pyod)),
    Library("pyod-hbos", "accuracy", True, False, Batch(_pyod_hbos, _pyod)),
    Library("merlion-default", "merlion", True, False, _merlion),
)


def raw_scores(name: str, values: FloatArray, seed: int, budget_s: float, train_rows: int = 0) -> FloatArray:
    """Raw scores (n, c) of values (n, k): one column for a node that is taken as a whole, else one a metric or series.

    With ``train_rows`` a batch detector is fitted once, on so many first rows.

    Raises:
        TooSlowError: it would need more than ``budget_s`` of CPU.
    """
    library = next(one for one in LIBRARIES if one.name == name.removesuffix(PER_SERIES))
    whole = library.takes_vectors and not name.endswith(PER_SERIES)
    parts = [values] if whole else [values[:, i : i + 1] for i in range(values.shape[1])]
    budget = Budget(budget_s, len(values) * len(parts))
    columns = []
    for number, part in enumerate(parts):
        here = _Shifted(budget, number * len(values))
        if not isinstance(library.raw, Batch):
            columns.append(library.raw(part, seed, here))
        elif train_rows:
            columns.append(_trained(library.raw, part, train_rows, seed, here))
        else:
            columns.append(_refitted(library.raw, part, seed, here))
    return np.stack(columns, axis=1)


PER_SERIES = " per series"  # appended to the name: every column is a series of its own


class _Shifted(Budget):
    """A budget of several series, of which so many rows were done before this one."""

    def __init__(self, whole: Budget, before: int) -> None:
        self._whole, self._before = whole, before

    def check(self, done: int) -> None:
        """As `Budget.check`."""
        self._whole.check(self._before + done)

    def forgive(self, seconds: float) -> None:
        """As `Budget.forgive`."""
        self._whole.forgive(seconds)
