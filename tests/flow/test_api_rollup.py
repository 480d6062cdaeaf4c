"""The API's rollup tree and the rollup service's rows are two views of one thing."""

from __future__ import annotations

import json

import numpy as np

from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import Record
from tidewarden.clock import ManualClock
from tidewarden.frames import ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.store.embedded import EmbeddedStore
from tidewarden.store.port import Query, WriteBatch
from tidewarden.telemetry import Telemetry, figures_of
from tidewarden.topics import StreamTopics
from tidewarden_services.api.context import ApiContext
from tidewarden_services.api.parameters import RollupFilter
from tidewarden_services.api.rollup import rollup
from tidewarden_services.rollup.service import RollupService

MINUTE = 60_000
STREAM = MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": {"tenants": ["a", "b"]}})
DETECTOR = AnomalyDetector.model_validate({"metadata": {"name": "d"}, "spec": {"stream": "shop"}})


def test_at_every_closed_tick_the_tree_has_the_scores_that_the_service_published() -> None:
    """To the last bit, on all three levels, with two readings of a series in one tick and uneven families."""
    rng = np.random.default_rng(3)
    table = SeriesTable(
        SeriesKey(t, c, f"n{n}", m)
        for t in "ab"
        for c in "xyz"[: 2 if t == "a" else 3]
        for n in range(3)
        for m in "pqr"[: n + 1]
    )
    service = RollupService(DETECTOR, STREAM, table)
    store, telemetry = EmbeddedStore(None), Telemetry()
    for step in range(20):  # two readings a minute
        n = len(table)
        floats = [rng.uniform(0, 1, n) ** 3, *(np.ones(n) for _ in range(4))]
        none = np.zeros(n, np.uint8)
        times = np.full(n, 1_700_000_040_000 + step * MINUTE // 2)
        scores = ScoreFrame(table, "d", "auto/1", np.arange(n, dtype=np.int32), times, np.ones(n), *floats, none, none)
        outputs = service.handle(Record("local.shop.scores", 0, step, "a", scores))
        store.write(WriteBatch("shop", scores=[scores], rollups=[output.value for output in outputs]))
    context = ApiContext(
        store, MemoryBus(), {"shop": StreamTopics("local", "shop")}, telemetry.board, telemetry,
        lambda: figures_of(telemetry), [STREAM, DETECTOR], ManualClock(), 0.0,
    )  # fmt: skip
    rows = store.rollups(Query(limit=10_000)).to_pylist()
    assert len({row["timestamp"] for row in rows}) >= 5
    seen = 0
    for at in sorted({row["timestamp"] for row in rows}):
        expected = {
            (row["tenant"], row["cluster"], row["node"]): (row["score"], row["peak"], row["children"])
            for row in rows
            if row["timestamp"] == at
        }
        document = json.loads(rollup(context, RollupFilter(detector="d", at=at)).body)
        found = {}
        for tenant in document["tenants"]:
            found[tenant["name"], "", ""] = (tenant["score"], tenant["peak"], len(tenant["children"]))
            for cluster in tenant["children"]:
                place = (tenant["name"], cluster["name"], "")
                found[place] = (cluster["score"], cluster["peak"], len(cluster["children"]))
                for node in cluster["children"]:
                    place = (tenant["name"], cluster["name"], node["name"])
                    found[place] = (node["score"], node["peak"], len(node["metrics"]))
        assert found == expected
        seen += len(found)
    assert seen >= 5 * 22
    store.close()
