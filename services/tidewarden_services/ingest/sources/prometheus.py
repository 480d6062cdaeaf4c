"""The `prometheus` source: a PromQL query, evaluated at steps that are multiples of ``every`` since the epoch.

A step is taken once it lies ``delay`` in the past. One step is an instant query, several (after a pause, or
for ``backfill``) are range queries, whose answers for a step are the same. The position is the time of the
last step evaluated, so a restart goes on with the next one. What the server says of a step must not change
any more once it is asked: set ``delay`` to what scrapes and rules take, and a replay gives the same readings.

A result's names come from its labels, as the source's spec says; labels that name nothing tell series apart
and become part of the metric, as in ``requests{code="500",method="GET"}``. A value of NaN means "missing"; a
series that has gone stale is not in the answer, and its absence is noticed as any other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, UnsetType

from tidewarden.clock import Clock
from tidewarden.credentials import CredentialsError
from tidewarden.frames import Frame, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.resources.metricstream import Source as SourceSpec
from tidewarden.sources import Batch
from tidewarden_services.ingest.reasons import MISSING_FIELD, WRONG_TYPE
from tidewarden_services.ingest.sources.columns import Columns, Refusal, RowOrigins, SeriesIndex, labelled

if TYPE_CHECKING:
    import httpx

MAX_STEPS = 11_000  # of one range query: what Prometheus allows
BATCH_READINGS = 100_000  # wanted of one range query: series × steps
MAX_ANSWER_BYTES = 67_108_864  # about 3 million samples of a range query
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0  # between attempts, doubled each time; nothing is lost by waiting
LISTEN_S = 0.5  # how soon a stop is seen and the status is renewed

Say = Callable[[Literal["running", "waiting"], str], None]


class _Result(msgspec.Struct):
    metric: dict[str, str] = {}
    value: tuple[float, str] | UnsetType = UNSET
    values: list[tuple[float, str]] = []


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _Answer(msgspec.Struct, rename="camel"):
    status: str
    data: _Data | UnsetType = UNSET
    error: str = ""
    error_type: str = ""
    warnings: list[str] = []


_ANSWER = msgspec.json.Decoder(_Answer)
_RESULTS = msgspec.json.Decoder(list[_Result])
_SCALAR = msgspec.json.Decoder(tuple[float, str])


class QueryError(Exception):
    """A query was not answered: says why. ``large`` where fewer steps at once may help."""

    def __init__(self, reason: str, *, large: bool = False) -> None:
        super().__init__(reason)
        self.large = large


class PrometheusSource:
    """Asks one query.

    Args:
        stream: whose readings they are; its interval is the default of ``every``.
        spec: an entry of the stream's sources with ``prometheus`` set.
        table: the process's series.
        clock: for the steps, and for waiting.
        url: of the server, without ``/api``.
        client: to ask with; closed at the end of `batches`.
    """

    kind = "prometheus"

    def __init__(
        self,
        stream: MetricStream,
        spec: SourceSpec,
        table: SeriesTable,
        clock: Clock,
        url: str,
        client: Callable[[], httpx.Client],
    ) -> None:
        if spec.prometheus is None:
            raise ValueError(f"source {spec.name!r} is no prometheus source: give it prometheus.query")
        self.name = spec.name
        self._spec = spec.prometheus
        self._url = url.rstrip("/")
        self._make_client = client
        self._clock = clock
        self._every_ms = self._spec.every or max(stream.spec.interval, 1_000)
        tenants = stream.spec.tenants
        self._tenant = self._spec.tenant or (tenants[0] if len(tenants) == 1 else "")
        self._index = SeriesIndex(stream, table)
        self._cuts: list[int] = []
        self._say: Say = lambda state, message: None  # noqa: ARG005
        self._steps = 1_000  # of the next range query; the first answer tells how many fit
        self._warning = ""
        self._read = 0

    def progress(self) -> tuple[int, int | None]:
        """Readings yielded so far; there is no end."""
        return self._read, None

    def cut_at(self, positions: Sequence[str]) -> None:
        """End a batch at exactly each of these positions."""
        self._cuts = sorted(int(position) for position in positions)

    def report_to(self, say: Say) -> None:
        """Say to ``say`` what is wrong."""
        self._say = say

    def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
        """Yield the answers for the steps after ``position``, until ``stop`` is set."""
        if position is None:
            done_ms = self._cuts[0] if self._cuts else self._before_first()
            yield Batch(Frame.empty(self._index.table), position=str(done_ms), origin=self.name)
        else:
            done_ms = int(position)
            for cut_ms in [cut_ms for cut_ms in self._cuts if cut_ms <= done_ms]:
                # The topics lost their newest records, the state did not.
                yield Batch(Frame.empty(self._index.table), position=str(cut_ms), origin=self.name)
                yield Batch(Frame.empty(self._index.table), position=str(done_ms), origin=self.name)
        client = self._make_client()
        failures = 0
        try:
            while not stop.is_set():
                first_ms = (done_ms // self._every_ms + 1) * self._every_ms
                end_ms = self._end_of_next(first_ms)
                if end_ms is None:
                    self._say("running", self._warning)
                    self._wait_for_step(first_ms, stop)
                    continue
                try:
                    batch = self._ask(client, first_ms, end_ms)
                except (QueryError, CredentialsError) as error:
                    if isinstance(error, QueryError) and error.large and end_ms > first_ms:
                        self._steps = max(1, ((end_ms - first_ms) // self._every_ms + 1) // 2)
                        continue
                    failures += 1
                    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30))
                    self._say("waiting", f"{error}; trying again every {pause_s:g} s")
                    self._clock.wait(stop, pause_s)
                    continue
                failures = 0
                self._say("running", self._warning)
                done_ms = end_ms
                yield batch
        finally:
            client.close()

    # --- steps -----------------------------------------------------------------------------------

    def _due(self) -> int:
        """The newest step that may be taken."""
        now_ms = self._clock.now_ms() - self._spec.delay
        return now_ms - now_ms % self._every_ms

    def _before_first(self) -> int:
        """The step before the first one ever: with ``backfill`` so far back, else the newest there is."""
        return self._due() - self._spec.backfill // self._every_ms * self._every_ms - self._every_ms

    def _end_of_next(self, first_ms: int) -> int | None:
        """The last step of the query that begins with ``first_ms``; None while none is due."""
        end_ms = min(self._due(), first_ms + (self._steps - 1) * self._every_ms)
        if end_ms < first_ms:
            return None
        return next((cut_ms for cut_ms in self._cuts if first_ms <= cut_ms < end_ms), end_ms)

    def _wait_for_step(self, step_ms: int, stop: threading.Event) -> None:
        """Until the step may be taken, or a little earlier, so that the status stays fresh."""
        left_s = (step_ms + self._spec.delay - self._clock.now_ms()) / 1000
        self._clock.wait(stop, min(max(left_s, 0.001), LISTEN_S))

    # --- queries ---------------------------------------------------------------------------------

    def _ask(self, client: httpx.Client, first_ms: int, end_ms: int) -> Batch:
        arrived = self._clock.now_ms() / 1000
        form = {"query": self._spec.query, "timeout": f"{self._spec.timeout}ms"}
        if first_ms == end_ms:
            results = self._answer(client, "query", {**form, "time": _seconds(end_ms)})
        else:
            span = {"start": _seconds(first_ms), "end": _seconds(end_ms), "step": _seconds(self._every_ms)}
            results = self._answer(client, "query_range", {**form, **span})
        batch = self._batch(results, end_ms, arrived)
        steps = (end_ms - first_ms) // self._every_ms + 1
        self._steps = min(MAX_STEPS, max(1, BATCH_READINGS // max(1, len(batch.frame) // steps)))
        return batch

    def _answer(self, client: httpx.Client, path: str, form: dict[str, str]) -> list[_Result]:
        """The results of one query, in an order that depends on their labels alone."""
        status, body = self._post(client, f"{self._url}/api/v1/{path}", form)
        try:
            answer = _ANSWER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise QueryError(
                f"{self._spec_url} answered {status}, but not as Prometheus does: correct the url"
            ) from None
        if answer.status != "success" or answer.data is UNSET:
            large = status in (400, 422) and ("resolution" in answer.error or "too many samples" in answer.error)
            raise QueryError(f"the query failed ({answer.error_type or status}): {answer.error}", large=large)
        self._warning = "Prometheus warns: " + "; ".join(answer.warnings) if answer.warnings else ""
        kind = answer.data.result_type
        try:
            if kind in ("vector", "matrix") and (kind == "matrix") == (path == "query_range"):
                return sorted(_RESULTS.decode(answer.data.result), key=lambda result: sorted(result.metric.items()))
            if kind == "scalar":
                return [_Result({}, _SCALAR.decode(answer.data.result))]
        except msgspec.DecodeError as error:
            raise QueryError(f"the answer is not as Prometheus writes it ({error})") from None
        raise QueryError(
            f"the query gives a {kind}: write one that gives an instant vector, without a range at its end"
        )

    @property
    def _spec_url(self) -> str:
        return "the server" if self._spec.url is None else str(self._spec.url)

    def _post(self, client: httpx.Client, url: str, form: dict[str, str]) -> tuple[int, bytes]:
        import httpx

        body = bytearray()
        try:
            with client.stream("POST", url, data=form) as response:
                if response.status_code in (401, 403):
                    raise QueryError(
                        f"the server answered {response.status_code}: set secretRef to a Secret that logs in"
                    )
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        reason = f"the answer has more than {MAX_ANSWER_BYTES} bytes: narrow or aggregate the query"
                        raise QueryError(reason, large=True)
                if response.is_error and not body.startswith(b"{"):
                    raise QueryError(f"the server answered {response.status_code} {response.reason_phrase}")
                return response.status_code, bytes(body)
        except httpx.TimeoutException:
            raise QueryError(f"no answer within {self._spec.timeout / 1000:g} s", large=True) from None
        except (httpx.TransportError, OSError) as error:
            raise QueryError(f"the server cannot be reached ({type(error).__name__}: {error})") from None

    # --- readings --------------------------------------------------------------------------------

    def _batch(self, results: list[_Result], end_ms: int, arrived: float) -> Batch:
        shown = [_selector(result.metric) for result in results]

        def origin(row: int) -> str:
            return f"{self.name}: {shown[row]}"

        columns = Columns(self._index, origin)
        for row, result in enumerate(results):
            samples = result.values if result.value is UNSET else [result.value]
            try:
                series = self._index.id_of(*self._names(result.metric))
                if not samples:
                    raise Refusal(WRONG_TYPE, "the result has no numbers: native histograms need histogram_quantile()")
            except Refusal as refusal:
                for at, value in samples or [(end_ms / 1000, "")]:
                    found = {**refusal.fields, "timestamp": round(at * 1000)}
                    columns.refuse(row, Refusal(refusal.reason, refusal.detail, **found), f"{shown[row]} {value}")
                continue
            for at, value in samples:
                columns.add(row, series, round(at * 1000), float(value))
        frame, rows = columns.frame(), columns.rows()
        in_time = np.argsort(frame.timestamp, kind="stable")  # a range query answers series by series
        self._read += len(frame)
        return Batch(
            frame.take(in_time),
            columns.refused,
            position=str(end_ms),
            origins=RowOrigins(rows[in_time], origin),
            origin=self.name,
            arrived=arrived,
        )

    def _names(self, labels: dict[str, str]) -> tuple[str, str, str, str]:
        """Tenant, cluster, node and metric of a result; raises `Refusal` where one cannot be found."""
        rest, of = dict(labels), self._spec.labels
        name = rest.pop("__name__", "")
        found: dict[str, Any] = {
            "tenant": self._tenant if of.tenant is None else rest.pop(of.tenant, ""),
            "cluster": rest.pop(of.cluster, "") or self._spec.cluster,
            "node": rest.pop(of.node, ""),
        }
        metric = self._spec.metric or (name if of.metric == "__name__" else rest.pop(of.metric, ""))
        remedies = {
            "tenant": (of.tenant, "prometheus.tenant, or prometheus.labels.tenant to a label that is there"),
            "node": (of.node, "prometheus.labels.node to a label that the query keeps, as in sum by (instance) (…)"),
        }
        for field, (label, remedy) in remedies.items():
            if not found[field]:
                what = f"there is no label {label!r}" if label else "the stream has several tenants"
                raise Refusal(MISSING_FIELD, f"{field} is unknown, {what}: set {remedy}", **found, metric=metric)
        if not metric:
            detail = (
                f"metric is unknown, there is no label {of.metric!r}, as after rate() or sum(): set prometheus.metric"
            )
            raise Refusal(MISSING_FIELD, detail, **found)
        return found["tenant"], found["cluster"], found["node"], labelled(metric, rest)


def _seconds(ms: int) -> str:
    """Milliseconds as the decimal seconds that the API reads, without a float in between."""
    return f"{ms // 1000}.{ms % 1000:03d}"


def _selector(labels: dict[str, str]) -> str:
    name = labels.get("__name__", "")
    return labelled(name, {key: value for key, value in labels.items() if key != "__name__"}) or "{}"
