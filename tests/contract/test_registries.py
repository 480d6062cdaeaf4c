"""One suite for every place where a registry may lie: a folder, and a bucket of a real S3 server."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from servers.s3 import ACCESS, BUCKET, SECRET, S3Server
from tidewarden.registry.manifest import DamagedError, Draft, Period, Window
from tidewarden.registry.objects import FolderObjects, Objects, RegistryError
from tidewarden.registry.registry import Registry, UnknownVersionError
from tidewarden.registry.s3 import S3Objects

PREFIXES = itertools.count()
STATE = bytes(range(256)) * 64
DRAFT = Draft(
    detector="shop-latency",
    model={"kind": "auto"},
    seasonality_ms=[86_400_000],
    model_version="auto/1",
    window=Window(from_ms=1_000, to_ms=2_000, readings=12, series=2, interval_ms=60_000),
    code_version="0.1.0",
    created_at_ms=3_000,
    excluded=[Period(1_200, 1_300)],
    metrics={"vus_pr": 0.25, "delay_median_s": None},
    note="by hand — ü",
)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Objects, Path]]:
    """Where objects lie, and the folder in which a disk's failure can be played."""
    if request.param == "folder":
        yield FolderObjects(tmp_path / "models"), tmp_path / "models"
        return
    server: S3Server = request.getfixturevalue("s3_server")
    prefix = f"team/p{next(PREFIXES)}"
    objects = S3Objects(BUCKET, prefix, endpoint=server.url, credentials=(ACCESS, SECRET))
    yield objects, server.folder / BUCKET / prefix


@pytest.fixture
def objects(place: tuple[Objects, Path]) -> Objects:
    return place[0]


@pytest.fixture
def registry(objects: Objects) -> Registry:
    return Registry(objects)


def test_what_is_registered_is_read_back_whole(registry: Registry, objects: Objects) -> None:
    """A second reader sees number, draft, lineage and state as they were given."""
    made = registry.register(DRAFT, STATE)
    other = Registry(objects)
    read = other.manifest("shop-latency", 1)
    assert read == made
    assert (read.version, read.parent, read.state_bytes) == (1, None, len(STATE))
    assert (read.model, read.window, read.excluded) == (DRAFT.model, DRAFT.window, DRAFT.excluded)
    assert (read.metrics, read.note) == (DRAFT.metrics, DRAFT.note)
    assert other.state(read) == STATE
    assert (other.detectors(), other.versions("shop-latency")) == (["shop-latency"], [1])


def test_promotions_and_rollbacks_are_remembered(registry: Registry) -> None:
    """Two rollbacks take back two promotions, each with its place in the history; a third has nothing to take back."""
    for _ in range(3):
        registry.register(DRAFT, STATE)
    registry.promote("shop-latency", 1, at_ms=10)
    registry.promote("shop-latency", 3, at_ms=20, note="fewer alarms")
    assert registry.promote("shop-latency", 3, at_ms=25).history[-1].at_ms == 20, "it was the champion already"
    assert registry.register(DRAFT, STATE).parent == 3
    assert registry.rollback("shop-latency", at_ms=30).champion == 1
    assert registry.resolve("shop-latency", "champion").version == 1
    assert registry.resolve("shop-latency", "latest").version == 4
    final = registry.rollback("shop-latency", at_ms=40)
    assert final.champion is None
    assert [(m.action, m.version, m.previous) for m in final.history] == [
        ("promote", 1, None), ("promote", 3, 1), ("rollback", 1, 3), ("rollback", None, 1),
    ]  # fmt: skip
    with pytest.raises(UnknownVersionError, match="no promotion to take back"):
        registry.rollback("shop-latency", at_ms=50)
    with pytest.raises(UnknownVersionError, match=r"no champion: there are 1, 2, 3, 4"):
        registry.resolve("shop-latency", "champion")


def test_what_is_not_there_is_said_with_what_is(registry: Registry) -> None:
    """Unknown versions and names that are no names are refused with a remedy, and nothing is promoted."""
    with pytest.raises(UnknownVersionError, match="tidewarden train"):
        registry.resolve("shop-latency", "latest")
    registry.register(DRAFT, STATE)
    with pytest.raises(UnknownVersionError, match="no version 7: there is 1"):
        registry.promote("shop-latency", 7, at_ms=1)
    assert registry.aliases("shop-latency").champion is None
    with pytest.raises(UnknownVersionError, match="no name of a detector"):
        registry.versions("../shop")


def test_trainers_at_the_same_time_get_different_numbers(objects: Objects) -> None:
    """Eight writers without a lock between them: eight versions, each with its own state."""

    def train(number: int) -> int:
        return Registry(objects).register(DRAFT, bytes([number]) * 1000).version

    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(train, range(8)))
    assert sorted(versions) == list(range(1, 9))
    registry = Registry(objects)
    for number, version in enumerate(versions):
        assert registry.state(registry.manifest("shop-latency", version)) == bytes([number]) * 1000


def test_no_promotion_is_lost_to_another_at_the_same_time(registry: Registry, objects: Objects) -> None:
    """Six promotions at once are all in the history, each knowing whom it followed."""
    for _ in range(6):
        registry.register(DRAFT, STATE)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: Registry(objects).promote("shop-latency", n, at_ms=n), range(1, 7)))
    history = registry.aliases("shop-latency").history
    assert sorted(move.version or 0 for move in history) == [1, 2, 3, 4, 5, 6]
    assert [move.previous for move in history[1:]] == [move.version for move in history[:-1]]


def test_a_trainer_that_dies_half_way_costs_a_number(registry: Registry, objects: Objects) -> None:
    """A state without a manifest is no version, and nobody writes over it."""
    assert objects.create("shop-latency/1/state.bin", b"half")
    assert registry.versions("shop-latency") == []
    assert registry.register(DRAFT, STATE).version == 2


@pytest.mark.parametrize("file", ["1/state.bin", "1/manifest.json", "aliases.json"])
def test_damage_is_noticed_and_named(registry: Registry, place: tuple[Objects, Path], file: str) -> None:
    """One changed byte in any of the files: an error with its name and both checksums, never a wrong model."""
    made = registry.register(DRAFT, STATE)
    registry.promote("shop-latency", 1, at_ms=10)
    path = place[1] / "shop-latency" / file
    data = bytearray(path.read_bytes())
    at = (
        data.index(b'"version": 1') + 11
        if file == "aliases.json"
        else data.index(b"auto")
        if "manifest" in file
        else 100
    )
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedError, match=rf"{file}.* should be [0-9a-f]{{64}}, but is [0-9a-f]{{64}}"):
        registry.state(made) if "state" in file else registry.resolve("shop-latency", "champion")


def test_conditions_hold(objects: Objects) -> None:
    """A key is created once; only who has read the newest may replace it; listing is by prefix."""
    assert objects.get("a/b") is None
    assert objects.create("a/b", b"one")
    assert not objects.create("a/b", b"two")
    first = objects.get("a/b")
    assert first is not None
    assert first.data == b"one"
    assert objects.replace("a/b", b"three", first.etag)
    assert not objects.replace("a/b", b"four", first.etag)
    assert not objects.replace("a/none", b"five", first.etag)
    assert objects.create("ab/c", b"")
    assert objects.create("a/d/e", b"x")
    assert (objects.keys("a/"), objects.keys("a/d")) == (["a/b", "a/d/e"], ["a/d/e"])


def test_a_server_that_is_not_there_is_said(tmp_path: Path) -> None:
    """The message has the object's address and what to check."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RegistryError, match="cannot be written"):
        FolderObjects(tmp_path / "file").create("a/b", b"")


@pytest.mark.s3
def test_a_missing_bucket_or_wrong_keys_are_said(s3_server: S3Server) -> None:
    """Both end in one line that names the object."""
    for bucket, secret in (("nobody", SECRET), (BUCKET, "wrong")):
        objects = S3Objects(bucket, "p", endpoint=s3_server.url, credentials=(ACCESS, secret))
        with pytest.raises(RegistryError, match=rf"s3://{bucket}/p/.*check address, credentials"):
            objects.create("a/b", b"x")
