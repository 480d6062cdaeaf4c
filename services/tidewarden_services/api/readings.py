"""Series and their readings with scores and bands."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from fastapi import APIRouter, Query

from tidewarden.store.port import Query as StoreQuery
from tidewarden.store.port import Store
from tidewarden_services.api.context import Context, reply
from tidewarden_services.api.parameters import ReadingsFilter, SeriesFilter, store_query
from tidewarden_services.api.problems import ProblemError

router = APIRouter(tags=["readings"])

COLUMNS = ("timestamp", "value", "anomaly_score", "p_value", "expected", "lower", "upper", "kind")
# Rows read to thin out: four weeks at one a second would be 2.4 million; 200,000 rows are 139 days at one a minute.
THINNED_ROWS = 200_000


@router.get("/api/series")
def series(context: Context, parameters: Annotated[SeriesFilter, Query()]) -> Any:
    """The series there are, with number of readings and the latest one."""
    return reply({"series": context.store.series(store_query(parameters)).to_pylist()})


@router.get("/api/readings")
def readings(context: Context, parameters: Annotated[ReadingsFilter, Query()]) -> Any:
    """One series as columns, oldest first; where several detectors scored it, one of them is shown."""
    limit = parameters.limit if parameters.points is None else THINNED_ROWS
    query = store_query(parameters, limit=limit)
    document = columns_of(context.store, query, parameters.points)
    if document is None:
        path = "/".join((parameters.tenant, parameters.cluster, parameters.node, parameters.metric))
        raise ProblemError(404, f"no series is called {path!r}; /api/series lists the series")
    return reply(document)


def columns_of(store: Store, query: StoreQuery, points: int | None = None) -> dict[str, Any] | None:
    """The document of ``GET /api/readings``; None where the series is not known."""
    table = store.readings(query)
    if table.num_rows == 0 and _unknown(store, query):
        return None
    found = sorted(name for name in pc.unique(table.column("detector")).to_pylist() if name is not None)
    detector = query.detector or (found[0] if found else None)
    if len(found) > 1:
        of = table.column("detector")
        table = table.filter(pc.or_kleene(pc.is_null(of), pc.equal(of, detector)))
    if points is not None and table.num_rows > points:
        table = table.take(pa.array(thin(table, points)))
    names = {"tenant": query.tenant, "cluster": query.cluster, "node": query.node, "metric": query.metric}
    return {
        "series": names,
        "detector": detector,
        "detectors": found,
        "columns": {name: table.column(name).to_pylist() for name in COLUMNS},
    }


def _unknown(store: Store, query: StoreQuery) -> bool:
    q = query
    asked = StoreQuery(stream=q.stream, tenant=q.tenant, cluster=q.cluster, node=q.node, metric=q.metric, limit=1)
    return int(store.series(asked).num_rows) == 0


def thin(table: pa.Table, points: int) -> npt.NDArray[np.intp]:
    """Rows to keep so that about ``points`` are left and a chart looks the same.

    The rows are cut into equal runs; of each run its lowest and highest value, its highest score and
    one missing reading (a gap stays a gap) are kept, and the first and last row of all.
    """
    n = table.num_rows
    value = table.column("value").to_numpy().astype(np.float64)
    score = np.nan_to_num(table.column("anomaly_score").to_numpy().astype(np.float64), nan=-1.0)
    missing = np.isnan(value)
    starts = np.linspace(0, n, max(1, points // 4), endpoint=False).astype(np.intp)
    run = np.searchsorted(starts, np.arange(n), side="right") - 1
    kept = [np.array([0, n - 1], np.intp)]
    for rank in (
        np.where(missing, np.inf, value),
        np.where(missing, np.inf, -value),
        -score,
        np.where(missing, 0.0, 1.0),
    ):
        first_of_run = np.lexsort((rank, run))[starts]
        kept.append(first_of_run)
    return np.unique(np.concatenate(kept))
