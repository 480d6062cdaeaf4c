"""`tidewarden train`, `models` and what begins with a version: from files to scores, through the real commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from typer.testing import CliRunner

from servers.s3 import ACCESS, BUCKET, SECRET, S3Server
from tidewarden.frames import LEARNING
from tidewarden.store.embedded import EmbeddedStore
from tidewarden.store.port import Query
from tidewarden_cli.main import app

N, LATER = 700, 60  # minutes of history, and of what comes after it
RESOURCES = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec:
  tenants: [t]
  interval: 1m
  sources: [{name: later, file: {path: later.parquet, format: parquet}}]
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: latency}
spec:
  stream: shop
  model: {kind: ewma}
  alerting: {budget: 2/day}
TRAINING---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: other}
spec: {stream: shop, model: {kind: mad}}
"""


def write(path: Path, first: int, last: int, *, labelled: bool) -> None:
    """Readings of three nodes with two metrics; the nodes' last hundred minutes of history have an incident."""
    value = 100 + np.random.default_rng(1).normal(0, 1, (N + LATER, 6))
    label = np.zeros(value.shape, np.uint8)
    value[N - 60 : N - 55, :3] += 30
    label[N - 60 : N - 55, :3] = 1
    minutes = np.arange(first, last)
    rows: dict[str, Any] = {
        "timestamp": pa.array(np.repeat(1_767_571_200_000 + minutes * 60_000, 6), pa.timestamp("ms", "UTC")),
        "tenant": ["t"] * 6 * len(minutes),
        "cluster": ["c"] * 6 * len(minutes),
        "node": ["n1", "n1", "n2", "n2", "n3", "n3"] * len(minutes),
        "metric": ["p50", "p99"] * 3 * len(minutes),
        "value": value[first:last].ravel(),
    }
    if labelled:
        rows["label"] = label[first:last].ravel()
    table = pa.table(rows)
    parquet.write_table(table, path) if path.suffix == ".parquet" else csv.write_csv(table, path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in: resources, labelled and unlabelled history, and what comes later."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.yaml").write_text(RESOURCES.replace("TRAINING", ""))
    write(tmp_path / "history.parquet", 0, N, labelled=True)
    write(tmp_path / "plain.csv", 0, N, labelled=False)
    write(tmp_path / "later.parquet", N, N + LATER, labelled=False)
    return tmp_path


def run(*arguments: object, code: int = 0) -> str:
    """Standard output of a command."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.output


def train(*arguments: object) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(run("train", "-f", "shop.yaml", "--detector", "latency", "--json", *arguments))
    return made


def test_a_version_s_life(folder: Path) -> None:
    """Train two, list, show, diff, promote, roll back; scores from the champion are those of having fed the history."""
    first = train("--data", "history.parquet", "--promote", "--note", "first")
    second = train("--data", "plain.csv", "--exclude", "2026-01-05T03:00/2026-01-05T04:00")
    assert (first["version"], first["metrics"]["events"], first["metrics"]["recall"]) == (1, 3, 1.0)
    assert (second["version"], second["parent"]) == (2, 1)
    assert second["window"]["readings"] == first["window"]["readings"] - 360
    assert second["metrics"]["injected"] > 0

    listed = json.loads(run("models", "list", "--json"))["latency"]
    assert [one["version"] for one in listed["versions"]] == [1, 2]
    assert "* 1" in run("models", "list")
    assert json.loads(run("models", "show", "latency", "--json")) == first
    assert "kind: ewma" in run("models", "show", "latency", 2)
    changed = json.loads(run("models", "diff", "latency", 1, 2, "--json"))
    assert changed["readings"] == ["4,200", "3,840"]
    assert "model" not in changed
    assert "champion 1 → 2" in run("models", "promote", "latency", 2)
    assert "champion 2 → 1" in run("models", "rollback", "latency", "--note", "as before")
    assert json.loads(run("models", "list", "latency", "--json"))["latency"]["aliases"]["champion"] == 1

    begun = csv.read_csv(pa.BufferReader(run("score", "later.parquet", "--from", "latency").encode()))
    fed = csv.read_csv(
        pa.BufferReader(run("score", "later.parquet", "--warm", "history.parquet", "--model", "ewma").encode())
    )
    for name in ("anomaly_score", "p_value", "expected", "lower", "upper"):
        np.testing.assert_array_equal(begun[name].to_numpy(), fed[name].to_numpy(), err_msg=name)


def test_a_search_prints_the_model_for_the_resource(folder: Path) -> None:
    """Standard output is the block to paste, and the version has learned with it."""
    (folder / "shop.yaml").write_text(
        RESOURCES.replace("TRAINING", "").replace("ewma}", "ewma, ewma: {halfLife: 0.5}}")
    )
    options = ["--search", "--trials", 4, "--kinds", "mad,zscore", "--journal", "trials.log"]
    printed = run("train", "-f", "shop.yaml", "--detector", "latency", "--data", "history.parquet", *options)
    assert printed.startswith("model:\n  kind: ")
    kind = printed.split("kind: ")[1].split()[0]
    assert json.loads(run("models", "show", "latency", "--json"))["model"]["kind"] == kind
    assert (folder / "trials.log").exists()


def test_up_begins_with_the_champion_and_goes_on_from_its_snapshot(folder: Path) -> None:
    """The local process scores the first reading of the stream, with no warm-up, as `score --from` does."""
    train("--data", "history.parquet", "--promote")
    (folder / "shop.yaml").write_text(RESOURCES.replace("TRAINING", "  training: {registry: models}\n"))
    command = [sys.executable, "-m", "tidewarden_cli.main", "up", "-f", "shop.yaml", "--data-dir", "data", "--headless"]
    command += ["--exit-when-done", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["readings"] == 6 * LATER
    store = EmbeddedStore(folder / "data" / "store.duckdb")
    said = store.readings(Query(stream="shop", detector="latency", limit=10_000))
    other = store.readings(Query(stream="shop", detector="other", limit=10_000))
    store.close()
    assert said.num_rows == 6 * LATER
    assert not (said["flags"].to_numpy() & LEARNING).any()
    assert (other["flags"].to_numpy() & LEARNING).any(), "which begins with nothing"
    scored = csv.read_csv(pa.BufferReader(run("score", "later.parquet", "--from", "latency").encode()))
    by_name = [("timestamp", "ascending"), ("node", "ascending"), ("metric", "ascending")]
    np.testing.assert_array_equal(
        said.sort_by(by_name)["anomaly_score"].to_numpy(), scored.sort_by(by_name)["anomaly_score"].to_numpy()
    )
    # What the store has kept is history, too: the readings of a --data-dir train the next version.
    again = train("--data", "data/store.duckdb")
    assert (again["version"], again["window"]["readings"]) == (2, 6 * LATER)


def test_up_says_what_is_wrong_with_the_version(folder: Path) -> None:
    """No champion, or a version of another model: the process ends with code 1 and the remedy."""
    (folder / "shop.yaml").write_text(RESOURCES.replace("TRAINING", "  training: {registry: models}\n"))
    command = [sys.executable, "-m", "tidewarden_cli.main", "up", "-f", "shop.yaml", "--headless", "--exit-when-done"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "latency has no champion" in done.stderr
    assert "tidewarden train" in done.stderr


@pytest.mark.s3
def test_a_bucket_is_a_registry_like_a_folder(
    folder: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same commands with s3://, credentials from the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    address = f"s3://{BUCKET}/commands?endpoint={s3_server.url}"
    made = train("--data", "history.parquet", "--registry", address, "--promote")
    assert json.loads(run("models", "show", "latency", "champion", "--registry", address, "--json")) == made
    scored = run("score", "later.parquet", "--from", "latency@1", "--registry", address)
    assert scored.count("\n") == 6 * LATER + 1


TRAIN = ["train", "-f", "shop.yaml", "--data", "plain.csv", "--detector"]


@pytest.mark.s3
def test_up_reads_a_bucket_with_the_secret_that_the_resource_names(
    folder: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials of the environment are not asked; a Secret that lacks a key is named."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    address = f"s3://{BUCKET}/up?endpoint={s3_server.url}"
    train("--data", "history.parquet", "--registry", address, "--promote")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    training = f"  training: {{registry: '{address}', secretRef: {{name: bucket}}}}\n"
    (folder / "shop.yaml").write_text(RESOURCES.replace("TRAINING", training))
    secret = folder / "secrets" / "bucket"
    secret.mkdir(parents=True)
    (secret / "access-key-id").write_text(ACCESS)
    command = [sys.executable, "-m", "tidewarden_cli.main", "up", "-f", "shop.yaml", "--headless", "--exit-when-done"]
    command += ["--json", "--secrets-dir", "secrets"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "Secret 'bucket' lacks the key secret-access-key" in done.stderr) == (1, True), done.stderr
    (secret / "secret-access-key").write_text(SECRET)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["readings"] == 6 * LATER


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["train", "-f", "shop.yaml", "--data", "plain.csv"], 2, "has 2 AnomalyDetectors: latency, other"),
        ([*TRAIN, "x"], 2, "there are: latency, other"),
        (["train", "-f", "shop.yaml", "--data", "no.csv", "--detector", "latency"], 2, "no.csv: there is no such file"),
        ([*TRAIN, "latency", "--exclude", "may"], 2, "FROM/TO"),
        ([*TRAIN, "latency", "--search", "--kinds", "magic"], 2, "magic cannot be searched; there are: ar, auto"),
        (["models", "show", "latency"], 2, "latency has no version: train one with `tidewarden train`"),
        (["models", "promote", "latency"], 2, "the version to promote is missing"),
        (["models", "promote", "latency", "best"], 2, "write its number, champion or latest"),
        (["models", "list", "--registry", "ftp://x"], 1, "write a folder, or s3://BUCKET/PREFIX"),
        (["models", "list", "--registry", "s3://b/p?zone=1"], 1, "there are endpoint and region"),
        (["score", "later.parquet", "--from", "latency", "--model", "mad"], 2, "leave out --model and --warm"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_the_remedy(folder: Path, arguments: list[str], code: int, told: str) -> None:
    """Exit code 2 where the caller is wrong, 1 where the registry is; never a traceback."""
    output = run(*arguments, code=code)
    assert told in output
    assert len([line for line in output.splitlines() if line.startswith("tidewarden: ")]) == 1


def test_damage_is_said_by_the_commands(folder: Path) -> None:
    """A changed state is refused with its file and both checksums, exit code 1."""
    train("--data", "history.parquet", "--promote")
    state = folder / "models" / "latency" / "1" / "state.bin"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    told = run("score", "later.parquet", "--from", "latency", code=1)
    assert "latency/1/state.bin: is damaged: its checksum should be " in told
