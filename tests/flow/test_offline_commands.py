"""`tidewarden score` and `tidewarden evaluate` as a user runs them, on files of every form."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from typer.testing import CliRunner

from tidewarden_cli.main import app

N = 400
SPIKE = slice(300, 306)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of all forms with the same two metrics; one incident in m1, and labels."""
    home = tmp_path_factory.mktemp("offline")
    rng = np.random.default_rng(4)
    clean = 10 + rng.normal(size=(N, 2))
    values = 10 + rng.normal(size=(N, 2))
    values[SPIKE, 1] += 40
    label = np.zeros(N, np.int64)
    label[SPIKE] = 1
    times = [f"2024-05-{1 + k // 1440:02d}T{k // 60 % 24:02d}:{k % 60:02d}:00Z" for k in range(N)]
    wide = {"label": label, "m0": values[:, 0], "m1": values[:, 1]}
    csv.write_csv(pa.table({"timestamp": times, "value": values[:, 1], "label": label}), home / "single.csv")
    csv.write_csv(pa.table(wide), home / "wide.csv")
    (home / "wide.csv.gz").write_bytes(gzip.compress((home / "wide.csv").read_bytes()))
    csv.write_csv(pa.table({"m0": clean[:, 0], "m1": clean[:, 1]}), home / "clean.csv")
    long = {
        "timestamp": [t for t in times for _ in range(2)], "tenant": ["t"] * 2 * N, "cluster": ["c"] * 2 * N,
        "node": ["n"] * 2 * N, "metric": ["m0", "m1"] * N, "value": values.ravel(),
        "is_anomaly": np.repeat(label > 0, 2), "kind": ["spike" if x else "none" for x in np.repeat(label, 2)],
    }  # fmt: skip
    parquet.write_table(pa.table(long), home / "long.parquet")
    windows = {"single.csv": [["2024-05-01 04:58:00", "2024-05-01 05:06:00"]]}
    (home / "windows.json").write_text(json.dumps(windows))
    return home


@pytest.fixture
def run() -> Iterator[CliRunner]:
    return CliRunner()


def _score(run: CliRunner, *arguments: object) -> pa.Table:
    result = run.invoke(app, ["score", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return csv.read_csv(pa.BufferReader(result.stdout_bytes))


def test_a_single_series_gets_one_row_a_reading_in_input_order(run: CliRunner, folder: Path) -> None:
    """Timestamps and values come back as written, with a band and the incident as the highest score."""
    scored = _score(run, folder / "single.csv", "--model", "ewma")
    expected_columns = ["timestamp", "value", "anomaly_score", "p_value", "expected", "lower", "upper", "kind"]
    assert scored.column_names == expected_columns
    assert scored.num_rows == N
    assert b"2024-05-01T00:01:00Z" in (folder / "single.csv").read_bytes()
    assert scored["value"].to_numpy() == pytest.approx(csv.read_csv(folder / "single.csv")["value"].to_numpy())
    score = scored["anomaly_score"].to_numpy()
    assert ((score >= 0) & (score <= 1)).all()
    assert score.argmax() in range(300, 306)
    assert scored["kind"][300].as_py() != "none"


def test_wide_files_are_scored_row_by_row_metric_by_metric(run: CliRunner, folder: Path) -> None:
    """No timestamps: a minute a row; label is never a metric; gzip makes no difference."""
    plain = _score(run, folder / "wide.csv", "--model", "ewma")
    assert plain.column_names[:3] == ["timestamp", "metric", "value"]
    assert plain["metric"].to_pylist()[:4] == ["m0", "m1", "m0", "m1"]
    assert plain.num_rows == 2 * N
    assert plain.equals(_score(run, folder / "wide.csv.gz", "--model", "ewma"))


def test_all_forms_give_the_same_scores(run: CliRunner, folder: Path) -> None:
    """single, wide and long are one code path: the same readings at the same spacing, the same scores."""
    single = _score(run, folder / "single.csv", "--model", "ewma")["anomaly_score"].to_numpy()
    wide = _score(run, folder / "wide.csv", "--model", "ewma")["anomaly_score"].to_numpy()
    long = _score(run, folder / "long.parquet", "--model", "ewma")
    assert long.column_names[:6] == ["timestamp", "tenant", "cluster", "node", "metric", "value"]
    assert (long["anomaly_score"].to_numpy() == wide).all()
    assert (wide[1::2] == single).all()


def test_rows_out_of_order_come_back_in_their_order(run: CliRunner, folder: Path, tmp_path: Path) -> None:
    """A file sorted by series is scored in time order and answered in its own."""
    table = parquet.read_table(folder / "long.parquet")
    order = np.argsort(table["metric"].to_numpy(zero_copy_only=False), kind="stable")
    parquet.write_table(table.take(pa.array(order)), tmp_path / "by_metric.parquet")
    straight = _score(run, folder / "long.parquet", "--model", "ewma")["anomaly_score"].to_numpy()
    by_metric = _score(run, tmp_path / "by_metric.parquet", "--model", "ewma")["anomaly_score"].to_numpy()
    assert (by_metric == straight[order]).all()


def test_warm_learns_first_so_that_no_reading_is_learning(run: CliRunner, folder: Path) -> None:
    """With a clean file the very first row has an expectation; without it the warm-up has none."""
    cold = _score(run, folder / "wide.csv", "--model", "ewma")
    warm = _score(run, folder / "wide.csv", "--model", "ewma", "--warm", folder / "clean.csv")
    assert cold["expected"].null_count > 0
    assert warm["expected"].null_count == 0
    assert warm.num_rows == cold.num_rows
    assert warm["timestamp"].equals(cold["timestamp"])


def test_node_level_has_one_row_a_time_and_contributions_that_add_up(
    run: CliRunner, folder: Path, tmp_path: Path
) -> None:
    """The metric with the incident is named first, and what is named makes up the score."""
    output = tmp_path / "nodes.parquet"
    result = run.invoke(
        app, ["score", str(folder / "wide.csv"), "--model", "ewma", "--level", "node", "-o", str(output)]
    )
    assert result.exit_code == 0, result.output
    nodes = parquet.read_table(output).to_pylist()
    assert len(nodes) == N
    worst = max(nodes, key=lambda row: row["anomaly_score"])
    assert nodes.index(worst) in range(300, 306)
    assert worst["contributions"].startswith("m1 ")
    shares = [float(part.split()[-1]) for part in worst["contributions"].split("; ")]
    assert sum(shares) == pytest.approx(worst["anomaly_score"], abs=0.02)


def test_evaluate_reads_what_score_wrote(run: CliRunner, folder: Path, tmp_path: Path) -> None:
    """Scoring and judging in two steps gives the ranking figures of doing both in one."""
    scores = tmp_path / "scores.csv"
    assert run.invoke(app, ["score", str(folder / "single.csv"), "--model", "ewma", "-o", str(scores)]).exit_code == 0
    two = run.invoke(app, ["evaluate", str(scores), "--truth", str(folder / "single.csv"), "--json"])
    one = run.invoke(app, ["evaluate", str(folder / "single.csv"), "--model", "ewma", "--json"])
    assert (two.exit_code, one.exit_code) == (0, 0), two.output + one.output
    in_two, in_one = json.loads(two.stdout), json.loads(one.stdout)
    for figure in ("events", "vus_pr", "auc_pr", "readings", "learning", "recall"):
        assert in_two[figure] == pytest.approx(in_one[figure]), figure
    assert in_one["events"] == 1
    assert in_one["detected"] == 1
    assert in_one["recall"] == 1.0
    assert in_one["auc_pr"] > 0.5
    assert in_one["delay_median_s"] == 0.0


def test_evaluate_takes_windows_and_whole_corpora(run: CliRunner, folder: Path, tmp_path: Path) -> None:
    """Windows add the NAB score; a folder of files gives the three profiles, and a table is printed by default."""
    arguments = ["evaluate", str(folder / "single.csv"), "--model", "ewma", "--windows", str(folder / "windows.json")]
    one = run.invoke(app, [*arguments, "--json"])
    assert one.exit_code == 0, one.output
    assert 0 < json.loads(one.stdout)["nab"]["standard"] <= 100
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/combined_windows.json").write_bytes((folder / "windows.json").read_bytes())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/single.csv").write_bytes((folder / "single.csv").read_bytes())
    corpus = run.invoke(app, ["evaluate", "--nab", str(tmp_path), "--model", "ewma", "--json"])
    assert corpus.exit_code == 0, corpus.output
    result = json.loads(corpus.stdout)
    assert set(result["nab"]) == {"standard", "reward_low_FP_rate", "reward_low_FN_rate"}
    assert (result["files"], result["readings"]) == (1, N)
    table = run.invoke(app, arguments)
    assert "vus pr" in table.stdout


def test_nodes_can_be_judged_as_well(run: CliRunner, folder: Path) -> None:
    """A wide file is one node: its rows, its labels, one series."""
    result = run.invoke(
        app,
        ["evaluate", str(folder / "wide.csv"), "--model", "ewma", "--level", "node", "--threshold", "0.4", "--json"],
    )
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["series"], figures["events"], figures["detected"]) == (1, 1, 1)
    assert figures["readings"] + figures["learning"] == N


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        (None, [], "there is no such file"),
        ("", [], "Empty CSV file"),
        ("label,kind\n1,spike\n", [], "no column to score among label, kind"),
        ("timestamp,value\n2024-05-01,1\n2024-05-02,n/o\n", [], "row 2, column 'value': 'n/o' is not a number: corr"),
        ("timestamp,value\nyesterday,1\n", [], "row 1, column 'timestamp': 'yesterday' is not a time: write it like"),
        ("timestamp,value\n,1\n", [], "row 1, column 'timestamp' is empty"),
        ("timestamp,value\n2024-05-01,1,2\n", [], "Expected 2 columns, got 3"),
        ("metric,value\ncpu,1\n", [], "needs a timestamp column"),
        ("timestamp,metric,value\n2024-05-01,,1\n", [], "row 1, column 'metric' is empty"),
        ("1.5,2.5\n1,2\n", [], "put a line with column names first"),
        ("a,a\n1,2\n", [], "column 'a' is there twice"),
        ("value\n1\n", ["--model", "magic"], "--model magic: 'magic' is not one of auto, density"),
        ("value\n1\n", ["-o", "scores.xlsx"], "the ending names the format"),
        ("value\n1\n", ["-o", "nowhere/scores.csv"], "create it first"),
        ("value\n1\n", ["--warm", "nowhere.csv"], "nowhere.csv: there is no such file"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line_and_exit_code_2(
    run: CliRunner, tmp_path: Path, content: str | None, arguments: list[str], message: str
) -> None:
    """File, row, column, value and remedy on stderr; no traceback, nothing on stdout."""
    file = tmp_path / "input.csv"
    if content is not None:
        file.write_text(content)
    result = run.invoke(app, ["score", str(file), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_evaluate_says_what_it_lacks(run: CliRunner, folder: Path) -> None:
    """No file, no scores, no labels: each says what to give."""
    for arguments, message in (
        ([], "name a file of scores"),
        ([str(folder / "single.csv")], "run `tidewarden score` first, or pass --model auto"),
        ([str(folder / "clean.csv"), "--model", "ewma"], "has no label or is_anomaly column"),
        (["--nab", str(folder)], "give a folder laid out as NAB's"),
    ):
        result = run.invoke(app, ["evaluate", *arguments])
        assert result.exit_code == 2
        assert message in result.stderr


def test_scoring_imports_neither_the_web_nor_the_store() -> None:
    """`tidewarden score` starts without what it does not use."""
    program = (
        "import sys, tidewarden_cli.offline.score, tidewarden_cli.offline.run, tidewarden_cli.offline.writing\n"
        "bad = {'fastapi', 'duckdb', 'uvicorn', 'confluent_kafka', 'httpx'} & set(sys.modules)\n"
        "sys.exit(f'imports {bad}' if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
