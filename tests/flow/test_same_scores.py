"""One product, one score: the command line, the library and the pipeline say the same of the same readings."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from typer.testing import CliRunner

import tidewarden
import tidewarden_simulator
from tidewarden.resources.loader import load
from tidewarden.store.port import Query
from tidewarden_cli.local.pipeline import LocalPipeline
from tidewarden_cli.main import app

RECORDING = "nab/realAWSCloudwatch/elb_request_count_8c0756.csv.gz"
SAID = ("anomaly_score", "p_value", "expected", "lower", "upper")
RESOURCES = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: history}
spec:
  tenants: [team]
  interval: 5m
  sources: [{name: history, file: {path: FILE, tenant: team}}]
  archive: {retention: 36500d}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: watch}
spec: {stream: history, model: {kind: MODEL}}
"""


@pytest.fixture(scope="module")
def recording() -> Path:
    """A recording that the distribution ships: two weeks of a load balancer, with holes."""
    return Path(tidewarden_simulator.__file__).parent / "datasets" / RECORDING


def by_command(recording: Path, model: str, folder: Path) -> pa.Table:
    """What `tidewarden score` writes; Parquet, so that nothing is rounded on the way."""
    output = folder / "scores.parquet"
    result = CliRunner().invoke(app, ["score", str(recording), "--model", model, "-o", str(output)])
    assert result.exit_code == 0, result.output
    return parquet.read_table(output)


def by_pipeline(recording: Path, model: str, folder: Path) -> pa.Table:
    """What the store holds after the file has come through every room of the pipeline, oldest first."""
    resources = folder / "history.yaml"
    resources.write_text(RESOURCES.replace("FILE", str(recording)).replace("MODEL", model))
    pipeline = LocalPipeline(load([resources]), None)
    pipeline.start()
    deadline = time.monotonic() + 120
    tick = threading.Event()
    while not pipeline.finished():
        assert not pipeline.crew.failed.is_set(), "a service failed"
        assert time.monotonic() < deadline, "the pipeline did not finish"
        tick.wait(0.02)
    # The store closes with the pipeline, so it is read before.
    rows = pipeline.store.readings(Query(limit=1_000_000, newest_first=False))
    pipeline.stop()
    return rows


@pytest.mark.parametrize("model", ["auto", "density", "ewma", "mad", "seasonal"])
def test_command_library_and_pipeline_give_the_same_bits(recording: Path, model: str, tmp_path: Path) -> None:
    """Score, p-value, expected value and band of each reading are the same to the last bit, whichever way it goes."""
    table = csv.read_csv(recording)
    timestamp = table["timestamp"].cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()
    assert (np.diff(timestamp) > 0).all()
    library = tidewarden.score(table["value"].to_numpy(), timestamp, model=model)
    command = by_command(recording, model, tmp_path)
    stored = by_pipeline(recording, model, tmp_path)
    # The store also keeps what was noticed to be absent; a file has no rows for that.
    moments = stored["timestamp"].cast(pa.int64()).to_numpy()
    stored = stored.filter(pa.array(np.isin(moments, timestamp)))
    assert stored.num_rows == command.num_rows == len(library) == len(timestamp)
    assert np.ptp(library.anomaly_score) > 0.5  # not a row of zeros, which would agree easily
    for name in SAID:
        said = np.asarray(getattr(library, name))
        for other in (command, stored):
            column = other[name].to_numpy(zero_copy_only=False).astype(np.float64)
            np.testing.assert_array_equal(column, said, err_msg=name, strict=True)
