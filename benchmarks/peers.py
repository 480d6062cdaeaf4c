"""Streaming detectors that a user might pick instead, each fed as its documentation shows.

One model a series, as they are made for; a reading is scored, then learned. Parameters are the
libraries' defaults where they have them. They come with the extra ``bench``; one that is not installed
is left out and named.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Step = Callable[[float], float]
"""Score one reading, then learn it."""


class Peer(NamedTuple):
    """A detector by name, how to make one for a series, and the object that holds its state."""

    name: str
    make: Callable[[], tuple[Step, Any]]


def _half_space_trees() -> tuple[Step, Any]:
    from river import anomaly, compose, preprocessing

    # Half-space trees expect values in [0, 1]; the scaler is river's own advice.
    model = compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=1))

    def step(value: float) -> float:
        features = {"value": value}
        score = float(model.score_one(features))
        model.learn_one(features)
        return score

    return step, model


def _gaussian() -> tuple[Step, Any]:
    from river import anomaly

    model = anomaly.GaussianScorer()

    def step(value: float) -> float:
        score = float(model.score_one(None, value))
        model.learn_one(None, value)
        return score

    return step, model


def _loda() -> tuple[Step, Any]:
    from pysad.models import LODA

    model = LODA(random_state=1)
    window: deque[float] = deque([0.0] * 8, maxlen=8)

    def step(value: float) -> float:
        window.append(value)
        return float(np.ravel(model.fit_score_partial(np.array(window)))[0])

    return step, model


def _rrcf() -> tuple[Step, Any]:
    import rrcf

    # 40 trees of 256 points, the size of the library's own streaming example.
    forest = [rrcf.RCTree(random_state=seed) for seed in range(40)]
    count = 0

    def step(value: float) -> float:
        nonlocal count
        total = 0.0
        point = np.array([value])
        for tree in forest:
            if len(tree.leaves) >= 256:
                tree.forget_point(count - 256)
            tree.insert_point(point, index=count)
            total += tree.codisp(count)
        count += 1
        return total / len(forest)

    return step, forest


def _isolation_forest() -> tuple[Step, Any]:
    from sklearn.ensemble import IsolationForest

    # It does not learn online: refitted every 500 readings on the last 2,000. Scoring one reading takes as
    # long as scoring a hundred, so it gets them in hundreds, which no alarm would wait for.
    history: deque[float] = deque(maxlen=2000)
    waiting: list[list[float]] = []
    state: dict[str, Any] = {"forest": None, "seen": 0, "score": 0.0}

    def step(value: float) -> float:
        history.append(value)
        waiting.append([value])
        state["seen"] += 1
        if state["seen"] % 500 == 0:
            state["forest"] = IsolationForest(random_state=1).fit(np.array(history)[:, None])
        if len(waiting) == 100:
            if state["forest"] is not None:
                state["score"] = float(-state["forest"].score_samples(waiting)[-1])
            waiting.clear()
        return float(state["score"])

    return step, state


PEERS = (
    Peer("river HalfSpaceTrees", _half_space_trees),
    Peer("river GaussianScorer", _gaussian),
    Peer("PySAD LODA", _loda),
    Peer("rrcf 40×256", _rrcf),
    Peer("scikit-learn IForest, refit every 500", _isolation_forest),
)


class Speed(NamedTuple):
    """What a peer reached."""

    readings_per_second: float
    bytes_per_series: int


def measure(peer: Peer, values: npt.NDArray[np.float64], budget_s: float) -> Speed:
    """Feed series (n_points, n_series) tick by tick until ``budget_s`` of CPU is spent.

    Raises:
        ImportError: the library is not installed.
    """
    made = [peer.make() for _ in range(values.shape[1])]
    for column, (step, _) in enumerate(made):  # what is imported or compiled at the first reading is not counted
        step(float(values[0, column]))
    done = 0
    start = time.process_time()
    for value, step in _ticks(values[1:], [step for step, _ in made]):
        step(value)
        done += 1
        if done % 16 == 0 and time.process_time() - start > budget_s:
            break
    elapsed = time.process_time() - start
    return Speed(done / elapsed, len(pickle.dumps(made[0][1])))


def _ticks(values: npt.NDArray[np.float64], steps: list[Step]) -> Iterator[tuple[float, Step]]:
    for tick in values.tolist():
        yield from zip(tick, steps, strict=True)
