"""How libraries are fed in `make accuracy`: never from the future, within a budget, in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.libraries import (
    HISTORY,
    LAGS,
    LIBRARIES,
    REFIT,
    Batch,
    Budget,
    TooSlowError,
    _refitted,
    _trained,
    lagged,
)
from benchmarks.accuracy.ours import HOUSE


class Farthest:
    """Distance from the mean of what it was fitted on, in its deviations."""

    def fit(self, rows: np.ndarray) -> None:
        self.middle = rows.mean(axis=0)

    def far(self, rows: np.ndarray) -> np.ndarray:
        return np.abs(rows - self.middle).max(axis=1)


DISTANCE = Batch(lambda _seed: Farthest(), lambda model, rows: model.far(rows))


def plenty() -> Budget:
    """More than any test needs, from now on."""
    return Budget(1_000.0, 5_000)


def test_a_series_is_seen_with_its_last_readings_and_a_vector_as_it_is() -> None:
    """Row i of a single series holds readings i−7 … i; before the first stands the first."""
    series = np.arange(20.0)[:, None]
    rows = lagged(series)
    assert rows.shape == (20, LAGS)
    assert rows[10].tolist() == [3, 4, 5, 6, 7, 8, 9, 10]
    assert rows[0].tolist() == [0.0] * LAGS
    assert lagged(np.ones((20, 2))).shape == (20, 2)


def test_refitted_detectors_do_not_see_the_future() -> None:
    """What changes from a row on changes no score before it, and the first fit gives no score of its own rows."""
    values = np.random.default_rng(0).normal(size=(2 * HISTORY, 1))
    changed = values.copy()
    changed[3_210:] += 40.0
    one, other = (_refitted(DISTANCE, each, 0, plenty()) for each in (values, changed))
    np.testing.assert_array_equal(one[:3_210], other[:3_210])
    assert np.isnan(one[: min(REFIT, 400)]).all()
    assert np.isfinite(one[REFIT:]).all()
    assert other[3_210] > 20.0


def test_refitted_detectors_forget_what_is_older_than_their_history() -> None:
    """A level that lasts is unusual until the history holds nothing else."""
    values = np.random.default_rng(1).normal(size=(5_000, 1))
    values[1_000:] += 30.0
    found = _refitted(DISTANCE, values, 0, plenty())
    assert found[1_000] > 10.0
    assert np.median(found[1_000 + HISTORY + REFIT :]) < 3.0


def test_detectors_trained_on_a_file_learn_nothing_from_what_they_judge() -> None:
    """The same level stays unusual to the end."""
    values = np.random.default_rng(2).normal(size=(3_000, 3))
    values[1_000:] += 30.0
    found = _trained(DISTANCE, values, 1_000, 0, plenty())
    assert found[:1_000].max() < 10.0
    assert found[1_000:].min() > 20.0


def test_a_budget_ends_what_would_take_longer() -> None:
    """The message says the pace; what was spent on compiling is forgiven."""
    spent = Budget(0.0, 1_000)
    with pytest.raises(TooSlowError, match=r"1,000 rows at .* a second need more than 0 s"):
        spent.check(10)
    spent.forgive(100.0)
    spent.check(10)


def test_names_are_unique_and_each_environment_has_its_requirements() -> None:
    """`--models` takes names, and an environment is made of ``requirements/NAME.txt``."""
    names = [one.name for one in LIBRARIES]
    assert len(set(names)) == len(names)
    for one in LIBRARIES:
        assert (HOUSE / "benchmarks" / "requirements" / f"{one.environment}.txt").exists()


def test_the_worker_answers_each_job_and_outlives_those_that_fail(tmp_path: Path) -> None:
    """A detector that no library has and a file that is not there are failures by name, one line each."""
    job = {"name": "nobody", "output": str(tmp_path / "o.npy"), "seed": 0, "budget_s": 1.0, "train_rows": 0}
    np.save(tmp_path / "i.npy", np.zeros((10, 1)))
    jobs = [{**job, "input": str(tmp_path / "i.npy")}, {**job, "input": str(tmp_path / "missing.npy")}]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.accuracy.worker"],
        input="".join(json.dumps(one) + "\n" for one in jobs),
        capture_output=True,
        text=True,
        check=True,
        cwd=HOUSE,
        env={**os.environ, "PYTHONPATH": str(HOUSE)},
        timeout=120,
    )
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first["failure"].startswith("StopIteration")
    assert second["failure"].startswith("FileNotFoundError")
    assert not first["slow"]
