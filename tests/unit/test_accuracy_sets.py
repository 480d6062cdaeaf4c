"""What the loaders of `make accuracy` promise, on small files made here."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.sets import SETS, Case, as_one, labels_by_series

MINUTE = 60_000


def _write(path: Path, header: str, rows: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress("\n".join([header, *rows, ""]).encode()))


def _machine(folder: Path, name: str) -> None:
    _write(folder / f"{name}_train.csv.gz", "m0,m1", ["1,2", "3,4", "5,6"])
    _write(folder / f"{name}_test.csv.gz", "label,m0,m1", ["0,7,8", "1,9,"])


@pytest.mark.parametrize(("name", "interval"), [("asd", 5 * MINUTE), ("jumpstarter", MINUTE), ("smd", MINUTE)])
def test_machines_have_values_labels_and_train_with_rows_an_interval_apart(
    tmp_path: Path, name: str, interval: int
) -> None:
    """The label column is truth and never a metric; an empty cell is a missing reading."""
    _machine(tmp_path / name, "omi-1")
    _machine(tmp_path / name, "omi-2")
    first, second = SETS[name](tmp_path, False)
    assert (first.set, first.name, second.name) == (name, "omi-1", "omi-2")
    np.testing.assert_array_equal(first.values, [[7, 8], [9, np.nan]])
    np.testing.assert_array_equal(first.labels, [0, 1])
    np.testing.assert_array_equal(first.train, [[1, 2], [3, 4], [5, 6]])
    assert first.is_node
    assert first.interval_ms == interval


def test_a_cold_set_is_the_same_without_train(tmp_path: Path) -> None:
    """`asd-cold` has the test files of `asd`, and nothing to learn from."""
    _machine(tmp_path / "asd", "omi-1")
    (warm,), (cold,) = SETS["asd"](tmp_path, False), SETS["asd-cold"](tmp_path, False)
    assert cold.set == "asd-cold"
    assert cold.train is None
    np.testing.assert_array_equal(cold.values, warm.values)


def test_a_folder_without_its_files_is_refused_by_name(tmp_path: Path) -> None:
    """The error names the folder that was looked into."""
    with pytest.raises(ValueError, match=r"smd: no file \*_test\.csv\.gz"):
        list(SETS["smd"](tmp_path, False))


def test_nab_labels_what_its_windows_hold_and_quick_keeps_production_metrics(tmp_path: Path) -> None:
    """A window is inclusive at both ends."""
    windows = {
        "realAWSCloudwatch/a.csv": [["2014-01-01 00:05:00", "2014-01-01 00:10:00"]],
        "artificialNoAnomaly/b.csv": [],
    }
    (tmp_path / "nab/labels").mkdir(parents=True)
    (tmp_path / "nab/labels/combined_windows.json").write_text(json.dumps(windows))
    for name in windows:
        path = tmp_path / "nab/data" / name
        path.parent.mkdir(parents=True)
        path.write_text("timestamp,value\n" + "".join(f"2014-01-01 00:{m:02d}:00,{m}\n" for m in range(0, 20, 5)))
    whole, quick = list(SETS["nab"](tmp_path, False)), list(SETS["nab"](tmp_path, True))
    assert [case.name for case in whole] == ["artificialNoAnomaly/b.csv", "realAWSCloudwatch/a.csv"]
    assert [case.name for case in quick] == ["realAWSCloudwatch/a.csv"]
    assert quick[0].labels.tolist() == [0, 1, 1, 0]
    assert quick[0].values[:, 0].tolist() == [0, 5, 10, 15]
    assert not quick[0].is_node


def test_fleets_are_the_same_every_time_and_each_series_has_its_own_labels(tmp_path: Path) -> None:
    """Two calls give one fingerprint; labels say the kind, and a fifth of the week is clean."""
    (one,), (again,) = SETS["fleets"](tmp_path, True), SETS["fleets"](tmp_path, True)
    assert one.fingerprint == again.fingerprint
    assert one.labels.shape == one.values.shape
    assert set(np.unique(one.labels)) == {0, 2, 4, 5, 6, 8}
    assert not one.labels[: len(one.labels) // 5].any()
    (other,) = SETS["kinds"](tmp_path, True)
    assert other.fingerprint != one.fingerprint


def test_scores_count_from_the_first_test_row_or_behind_the_probation() -> None:
    """Train rows end one interval before the test begins; a cold start counts from 15 %, at most 750 rows."""
    times = 1_000_000 + np.arange(100, dtype=np.int64) * 10
    case = Case("s", "n", times, np.ones((100, 2)), np.zeros(100, np.uint8), np.zeros((3, 2)))
    timestamp, values, start = as_one(case)
    assert timestamp[:4].tolist() == [999_970, 999_980, 999_990, 1_000_000]
    assert (values.shape, start) == ((103, 2), 3)
    assert as_one(case._replace(train=None))[2] == 15
    long = np.arange(10_000, dtype=np.int64)
    assert as_one(Case("s", "n", long, np.ones((10_000, 1)), np.zeros(10_000, np.uint8)))[2] == 750
    assert labels_by_series(case).shape == (100, 1)


def test_a_fingerprint_changes_with_everything_that_is_seen_or_judged() -> None:
    """Values, labels, train, times and windows all count."""
    times = np.arange(5, dtype=np.int64)
    case = Case("s", "n", times, np.ones((5, 1)), np.zeros(5, np.uint8))
    others = [
        case._replace(values=np.full((5, 1), 2.0)),
        case._replace(labels=np.ones(5, np.uint8)),
        case._replace(train=np.ones((2, 1))),
        case._replace(timestamp=times + 1),
        case._replace(windows=[(1, 2)]),
        case._replace(name="m"),
    ]
    assert len({one.fingerprint for one in (case, *others)}) == 7
