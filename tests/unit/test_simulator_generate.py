"""What `tidewarden generate` promises: the same labelled readings in CSV and Parquet, and clear refusals."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import typer
from typer.testing import CliRunner

from tidewarden.resources.metricsimulation import Anomalies, Fleet, MetricSimulation
from tidewarden_simulator.fleets import FleetMaker
from tidewarden_simulator.generate import Format, generate, write_fleet
from tidewarden_simulator.source import series_keys, truth
from tidewarden_simulator.writers import COLUMNS

START_MS = 1_767_225_600_000
ALL = dict.fromkeys(("spike", "dip", "missing", "noise", "flat_line", "drift", "level_shift"), 1.0)
app = typer.Typer(rich_markup_mode=None)
app.command()(generate)


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output of the command."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, result.output


def test_csv_and_parquet_hold_exactly_what_the_fleet_made(tmp_path: Path) -> None:
    metrics = ["latency_ms", "error_rate", "memory_percent"]
    fleet, anomalies = Fleet(tenants=["t"], nodes=30, metrics=metrics), Anomalies(ratio=1, mix=ALL)  # type: ignore[arg-type]
    write_fleet(fleet, anomalies, seed=3, interval_ms=500, start_ms=START_MS, points=400, output_dir=tmp_path,
                format=Format.BOTH)  # fmt: skip
    maker = FleetMaker(fleet, anomalies, seed=3, interval_ms=500, start_ms=START_MS, points=400)
    block = maker.block(0, 400)
    as_csv = pyarrow.csv.read_csv(tmp_path / "metrics.csv")
    as_parquet = pyarrow.parquet.read_table(tmp_path / "metrics.parquet")
    for table in (as_csv, as_parquet):
        assert tuple(table.column_names) == COLUMNS
        values = table["value"].to_numpy().astype(np.float64)
        np.testing.assert_array_equal(values, block.value.ravel())
        np.testing.assert_array_equal(table["is_anomaly"].to_numpy().astype(bool), block.label.ravel() != 0)
        times = table["timestamp"].cast(pyarrow.timestamp("ms", "UTC")).cast("int64").to_numpy()
        np.testing.assert_array_equal(times, np.repeat(block.timestamp, 90))
        for part, name in enumerate(("tenant", "cluster", "node", "metric")):
            assert table[name].to_pylist()[:90] == [key[part] for key in maker.keys]
    kinds = [kind or "" for kind in as_parquet["kind"].to_pylist()]
    assert as_csv["kind"].to_pylist() == kinds
    assert set(kinds) == {"", *ALL}


def test_the_metadata_has_a_row_a_series_that_agrees_with_the_readings(tmp_path: Path) -> None:
    code, output = run("--n-series", "40", "--n-points", "600", "--anomaly-ratio", "0.3", "--output-dir", str(tmp_path))
    assert code == 0, output
    assert "72,000 readings of 120 series every 1m, seed 7" in output
    assert "36 series with anomalies" in output
    with (tmp_path / "metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120
    assert sum(row["has_anomaly"] == "1" for row in rows) == 36
    first: dict[tuple[str, ...], tuple[str, str]] = {}
    with (tmp_path / "metrics.csv").open() as file:
        for row in csv.DictReader(file):
            if row["is_anomaly"] == "1":
                first.setdefault((row["node"], row["metric"]), (row["timestamp"], row["kind"]))
    assert first == {(r["node"], r["metric"]): (r["onsets"], r["kinds"]) for r in rows if r["has_anomaly"] == "1"}


def test_the_same_seed_writes_the_same_csv_bytes(tmp_path: Path) -> None:
    options = (
        "--n-series",
        "20",
        "--n-points",
        "300",
        "--kinds",
        "spike=3,noise",
        "--metrics",
        "throughput,cpu_percent",
    )
    digests = []
    for name, seed in (("a", "7"), ("b", "7"), ("c", "8")):
        assert run(*options, "--seed", seed, "--output-dir", str(tmp_path / name))[0] == 0
        digests.append(hashlib.sha256((tmp_path / name / "metrics.csv").read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]
    assert digests[0] == GOLDEN


GOLDEN = "8dae15800d02c94af6de5a3fd1f23547bdfe1611a7d4866d34b302439a89bb33"


def test_a_folder_that_was_generated_can_be_replayed_with_its_kinds(tmp_path: Path) -> None:
    code, output = run("--n-series", "10", "--n-points", "400", "--format", "both", "--output-dir", str(tmp_path))
    assert code == 0, output
    spec = {"stream": "s", "replay": {"path": ".", "tenant": "other"}}
    resource = MetricSimulation.model_validate({"metadata": {"name": "again"}, "spec": spec})
    assert len(series_keys(resource, tmp_path)) == 30
    with (tmp_path / "metadata.csv").open() as file:
        written = {(r["node"], r["metric"], r["kinds"]) for r in csv.DictReader(file) if r["has_anomaly"] == "1"}
    replayed = truth(resource, START_MS, base_dir=tmp_path)
    assert {(e.series.node, e.series.metric, e.kind.label) for e in replayed} == written


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kinds", "spikes"), "'spikes' is not a kind of anomaly; there are: spike, dip"),
        (("--kinds", "spike=much"), "the weight 'much' of spike is not a number"),
        (("--kinds", "spike=0"), "all weights are 0"),
        (("--metrics", "latency"), "metric 'latency' is not built in; there are: latency_ms"),
        (("--metrics", ","), "--metrics is empty"),
        (("--frequency", "1x"), "'1x' is not a duration"),
        (("--frequency", "0s"), "is no time at all"),
        (("--start", "soon"), "'soon' is not a time"),
        (("--anomaly-ratio", "1.5"), "--anomaly-ratio"),
        (("--output-dir", "/proc/none"), "choose another --output-dir"),
    ],
)
def test_a_mistake_in_an_option_is_told_with_the_remedy(arguments: tuple[str, ...], message: str) -> None:
    code, output = run("--n-series", "1", "--n-points", "1", *arguments)
    assert code == 2
    assert message in " ".join(output.split())
