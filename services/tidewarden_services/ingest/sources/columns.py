"""What parsers fill: columns of readings, and what could not become one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import overload

import numpy as np

from tidewarden.frames import Frame, IntArray, SeriesKey, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.sources import Refused
from tidewarden_services.ingest.reasons import MISSING_FIELD, TOO_LARGE, Code, unknown_tenant_detail

MAX_NAME = 512  # characters of a tenant, cluster, node or metric; a metric may bring its labels along

Metrics = dict[str, int]


class Refusal(Exception):  # noqa: N818 - it is an outcome, not an error of the program
    """Why something did not become a reading."""

    def __init__(self, reason: str, detail: str, **fields: object) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.fields = fields


class SeriesIndex:
    """Finds the id of a series by its names, and admits new ones only where the stream serves their tenant.

    The check is here and not in validation alone, because the series table never forgets: a producer with
    made-up tenants must not be able to fill it.
    """

    def __init__(self, stream: MetricStream, table: SeriesTable) -> None:
        self.table = table
        self._stream = stream.metadata.name
        self._tenants = stream.spec.tenants
        self._allowed = frozenset(stream.spec.tenants)
        self.nodes: dict[tuple[str, str, str], Metrics] = {}

    def id_of(self, tenant: str, cluster: str, node: str, metric: str) -> int:
        """The id of a series; raises `Refusal` where a name cannot be one."""
        metrics = self.nodes.get((tenant, cluster, node))
        if metrics is not None:
            known = metrics.get(metric)
            if known is not None:
                return known
        return self._admit(tenant, cluster, node, metric)

    def _admit(self, tenant: str, cluster: str, node: str, metric: str) -> int:
        fields = {"tenant": tenant, "cluster": cluster, "node": node, "metric": metric}
        for field, name in fields.items():
            if not name:
                raise Refusal(MISSING_FIELD, f"{field} is empty: every reading names its {field}", **fields)
            if len(name) > MAX_NAME:
                short = {**fields, field: f"{name[:MAX_NAME]}…"}
                raise Refusal(
                    TOO_LARGE, f"{field} has {len(name)} characters, {MAX_NAME} are allowed: shorten it", **short
                )
        if tenant not in self._allowed:
            raise Refusal(
                Code.UNKNOWN_TENANT.reason, unknown_tenant_detail(tenant, self._stream, self._tenants), **fields
            )
        series = self.table.id_of(SeriesKey(tenant, cluster, node, metric))
        self.nodes.setdefault((tenant, cluster, node), {})[metric] = series
        return series


class Columns:
    """Readings of one request or chunk as they are parsed, each with the row that it stands in."""

    def __init__(self, index: SeriesIndex, origin: Callable[[int], str]) -> None:
        self.index = index
        self.origin = origin
        self.series = array("i")
        self.timestamp = array("q")
        self.value = array("d")
        self.row = array("i")
        self.label: array[int] | None = None  # truth, where a source carries it
        self.refused: list[Refused] = []
        self.refused_rows: list[int] = []

    def with_labels(self) -> None:
        """The source carries truth: each reading gets a label from now on."""
        self.label = array("B")

    def add(self, row: int, series: int, timestamp: int, value: float) -> None:
        """One reading."""
        self.series.append(series)
        self.timestamp.append(timestamp)
        self.value.append(value)
        self.row.append(row)

    def refuse(self, row: int, refusal: Refusal, raw: str | None) -> None:
        """Something in ``row`` that did not become a reading; ``raw`` is the row as it came.

        Only the first refusal of a row keeps ``raw``: a row of 10,000 bad cells would otherwise be kept 10,000 times.
        """
        if self.refused_rows and self.refused_rows[-1] == row:
            raw = None
        self.refused.append(Refused(refusal.reason, refusal.detail, self.origin(row), raw, refusal.fields))
        self.refused_rows.append(row)

    def frame(self) -> Frame:
        """The readings so far."""
        label = None if self.label is None else np.array(self.label, np.uint8)
        return Frame(
            self.index.table,
            np.array(self.series, np.int32),
            np.array(self.timestamp, np.int64),
            np.array(self.value, np.float64),
            label,
        )

    def rows(self) -> IntArray:
        """The row of each reading."""
        return np.array(self.row, np.int32)


def labelled(metric: str, labels: Mapping[str, str]) -> str:
    """A metric with the labels that tell its series apart: ``requests{code="500",method="GET"}``."""
    if not labels:
        return metric
    return metric + "{" + ",".join(f'{name}="{labels[name]}"' for name in sorted(labels)) + "}"


def escaped(raw: bytes | memoryview) -> str:
    r"""Bytes as text; what is no UTF-8 as ``\xNN``."""
    return bytes(raw).decode("utf-8", "backslashreplace")


class RowOrigins(Sequence[str]):
    """Where each reading of a batch came from, written out only when somebody asks."""

    def __init__(self, rows: IntArray, origin: Callable[[int], str]) -> None:
        self._rows = rows
        self._origin = origin

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> RowOrigins: ...

    def __getitem__(self, at: int | slice) -> str | RowOrigins:
        if isinstance(at, slice):
            return RowOrigins(self._rows[at], self._origin)
        return self._origin(int(self._rows[at]))
