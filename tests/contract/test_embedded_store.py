"""What only the embedded store promises: it survives a kill, says who holds its file, and is fast."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

from tidewarden.bus.port import TopicPartition
from tidewarden.frames import Frame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.store.embedded import EmbeddedStore
from tidewarden.store.port import Query, StoreError, WriteBatch

PLACE = TopicPartition("local.shop.readings", 0)

# Goes on from the store's own offsets, as the archive does, and says so after each batch.
WRITER = """
import sys
from pathlib import Path
import numpy as np
from tidewarden.bus.port import TopicPartition
from tidewarden.events import Rejection
from tidewarden.frames import Frame, SeriesKey, SeriesTable
from tidewarden.store.embedded import EmbeddedStore
from tidewarden.store.port import WriteBatch

store = EmbeddedStore(Path(sys.argv[1]))
place = TopicPartition("local.shop.readings", 0)
table = SeriesTable(SeriesKey("shop", "eu", f"n{i}", "cpu") for i in range(1000))
batch = store.offsets("shop").get(place, 0)
print("open", flush=True)
while True:
    frame = Frame(table, np.arange(1000, dtype=np.int32), np.full(1000, batch, np.int64), np.full(1000, float(batch)))
    said = {"stream": "shop", "source": "s", "reason": "late", "detail": "", "origin": "", "received_at": batch}
    rejected = Rejection(id=f"r{batch}", **said)
    store.write(WriteBatch("shop", readings=[frame], rejected=[rejected], offsets={place: batch + 1}))
    batch += 1
    print(batch, flush=True)
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)


def lines_of(writer: subprocess.Popen[str], count: int) -> list[str]:
    assert writer.stdout is not None
    return [writer.stdout.readline().strip() for _ in range(count)]


def test_a_killed_writer_leaves_whole_batches_and_the_offsets_that_fit_them(tmp_path: Path) -> None:
    """Killed with -9 amid writing, four times over: what was said to be written is there, once and whole."""
    for kill_after in (1, 9, 3, 17):
        writer = start_writer(tmp_path / "store.duckdb")
        said = lines_of(writer, 1 + kill_after)
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()
        store = EmbeddedStore(tmp_path / "store.duckdb")
        written = store.offsets("shop")[PLACE]
        assert written >= int(said[-1])
        assert store.counts()["readings"] == 1000 * written
        assert store.counts()["rejected"] == written
        newest = store.series(Query(limit=1000))
        assert newest.num_rows == 1000
        assert set(newest.column("readings").to_pylist()) == {written}
        assert set(newest.column("last").to_pylist()) == {written - 1}
        store.close()


def test_a_second_process_is_told_who_holds_the_file(tmp_path: Path) -> None:
    writer = start_writer(tmp_path / "store.duckdb")
    try:
        assert lines_of(writer, 1) == ["open"]
        with pytest.raises(StoreError, match=r"another process holds .*--data-dir"):
            EmbeddedStore(tmp_path / "store.duckdb")
    finally:
        writer.kill()
        writer.wait()
        assert writer.stdout is not None
        writer.stdout.close()


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Also the numbering of series, so that new rows join the old ones."""
    for run in range(3):
        store = EmbeddedStore(tmp_path / "store.duckdb")
        table = SeriesTable([SeriesKey("shop", "eu", f"n{run + 1}", "cpu"), SeriesKey("shop", "eu", "n0", "cpu")])
        both = Frame(table, np.array([0, 1], np.int32), np.array([run, run], np.int64), np.array([1.0, 2.0]))
        store.write(WriteBatch("shop", readings=[both], offsets={PLACE: run + 1}))
        assert store.offsets("shop") == {PLACE: run + 1}
        store.close()
    store = EmbeddedStore(tmp_path / "store.duckdb")
    assert store.series(Query()).column("readings").to_pylist() == [3, 1, 1, 1]
    store.close()


def test_a_file_of_another_version_or_kind_is_refused_with_a_remedy(tmp_path: Path) -> None:
    EmbeddedStore(tmp_path / "newer").close()
    with duckdb.connect(str(tmp_path / "newer")) as connection:
        connection.execute("UPDATE meta SET version = 99")
    with pytest.raises(StoreError, match=r"format 99.*--data-dir"):
        EmbeddedStore(tmp_path / "newer")
    (tmp_path / "broken").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(StoreError, match="cannot open the store"):
        EmbeddedStore(tmp_path / "broken")


def test_a_million_readings_and_scores_go_in_within_seconds_and_come_out_at_once(tmp_path: Path) -> None:
    """Measured at 3 million rows a second on two cores; the bounds leave room for a busy machine."""
    store = EmbeddedStore(tmp_path / "store.duckdb")
    table = SeriesTable(SeriesKey("shop", "eu", f"n{i // 4}", f"m{i % 4}") for i in range(1000))
    series, zero = np.tile(np.arange(1000, dtype=np.int32), 100), np.zeros(100_000, np.uint8)
    value = np.random.default_rng(0).normal(size=100_000)
    began = time.perf_counter()
    for batch in range(10):
        timestamp = np.repeat(np.arange(100, dtype=np.int64) + 100 * batch, 1000) * 60_000
        frame = Frame(table, series, timestamp, value)
        floats = [value, np.abs(value) / 10, np.ones_like(value), value, value - 1, value + 1]
        scored = ScoreFrame(table, "d", "auto/1", series, timestamp, *floats, zero, zero)
        store.write(WriteBatch("shop", readings=[frame], scores=[scored], offsets={PLACE: batch}))
    wrote = time.perf_counter() - began
    began = time.perf_counter()
    one = store.readings(Query(tenant="shop", cluster="eu", node="n7", metric="m1", limit=500))
    read = time.perf_counter() - began
    store.close()
    assert one.num_rows == 500
    assert one.column("timestamp")[-1].as_py() == 999 * 60_000
    assert wrote < 10, f"2,000,000 rows took {wrote:.1f} s"
    assert read < 1, f"500 rows of 2,000,000 took {read:.2f} s"
