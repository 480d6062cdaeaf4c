"""The `http` source: readings pushed as JSON, Arrow or Prometheus remote write.

A request is answered when its readings are on the bus, not before: an answer of 200 is a promise. While
one batch is on its way, further requests gather in the inbox and become the next batch together, so that
many small requests cost little more than a few large ones.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, overload

import msgspec
import numpy as np
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from tidewarden.clock import Clock
from tidewarden.events import Rejection
from tidewarden.frames import Frame, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.resources.metricstream import Source as SourceSpec
from tidewarden.sources import Batch, Refused
from tidewarden_services.ingest.reasons import LATE_CODE, REFUSED, TOO_LARGE
from tidewarden_services.ingest.sources.arrow import ArrowDecoder
from tidewarden_services.ingest.sources.columns import Columns, Refusal, SeriesIndex, escaped
from tidewarden_services.ingest.sources.inbox import Answer, Inbox, Push, RowError, UnavailableError
from tidewarden_services.ingest.sources.json_readings import parse_body
from tidewarden_services.ingest.sources.requests import (
    RequestProblem,
    media_type_of,
    problem,
    read_body,
    unpacked,
)
from tidewarden_services.ingest.validate import Verdict

if TYPE_CHECKING:
    from tidewarden_services.ingest.sources.remote_write import RemoteWriteDecoder

Say = Callable[[Literal["running", "waiting"], str], None]

BATCH_READINGS = 10_000
LISTEN_S = 0.1  # how soon a stop is seen
ADMIT_S = 5.0  # how long a full inbox makes a sender wait before it says 503
ANSWER_S = 30.0  # longer than any back-pressure that still moves; then 503, and what comes again is a duplicate
RETRY_AFTER_S = 2
MAX_ERRORS = 100
INLINE_BYTES = 32_768  # parsing more than this takes over a millisecond, and moves to a thread

JSON_TYPES = {"application/json", "text/json", ""}
LINES_TYPES = {"application/x-ndjson", "application/jsonl", "application/jsonlines", "application/ndjson"}
ARROW_TYPES = {"application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"}
PROTOBUF_TYPES = {"application/x-protobuf"}

# What the handlers parse by themselves, for the OpenAPI page.
_NAMES = {name: {"type": "string"} for name in ("tenant", "cluster", "node")}
_READING: dict[str, Any] = {
    "type": "object",
    "required": ["tenant", "cluster", "node", "timestamp"],
    "description": "With metrics, or with metric and value; other fields are ignored.",
    "properties": {
        **_NAMES,
        "timestamp": {
            "anyOf": [{"type": "number"}, {"type": "string", "format": "date-time"}],
            "description": "Milliseconds, or seconds below 1e11, since the epoch; or RFC 3339.",
        },
        "metrics": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
        "metric": {"type": "string"},
        "value": {"type": ["number", "null"]},
    },
    "example": {
        "tenant": "shop", "cluster": "eu-1", "node": "web-3", "timestamp": "2026-01-31T08:00:00Z",
        "metrics": {"latency_ms": 104.2, "error_rate": None},
    },
}  # fmt: skip
_BINARY = {"schema": {"type": "string", "format": "binary"}}
READINGS_BODY: dict[str, Any] = {
    "application/json": {"schema": {"anyOf": [_READING, {"type": "array", "items": _READING}]}},
    "application/x-ndjson": {"schema": {"type": "string"}},
    "application/vnd.apache.arrow.stream": _BINARY,
}
WRITE_BODY: dict[str, Any] = {"application/x-protobuf": _BINARY}


class HttpSource:
    """A push source with the routes that feed it.

    Args:
        stream: whose readings they are.
        spec: an entry of the stream's sources with ``http`` set.
        table: the process's series.
        clock: for the time of arrival.
    """

    kind = "http"

    def __init__(self, stream: MetricStream, spec: SourceSpec, table: SeriesTable, clock: Clock) -> None:
        if spec.http is None:
            raise ValueError(f"source {spec.name!r} is no http source: give it http")
        self.name = spec.name
        self._stream = stream.metadata.name
        self._max_bytes = spec.http.max_body_bytes
        self._index = SeriesIndex(stream, table)
        self._clock = clock
        tenants = stream.spec.tenants
        self._only_tenant = tenants[0] if len(tenants) == 1 else ""
        self._arrow = ArrowDecoder(self._max_bytes)
        self._inbox = Inbox()
        self._open: list[Push] = []
        self._yielded = 0
        self._say: Say = lambda state, message: None  # noqa: ARG005
        self.router = self._routes()

    # --- the source ------------------------------------------------------------------------------

    def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:  # noqa: ARG002 - cannot go back
        """What was pushed, as it comes, until ``stop`` is set."""
        self._inbox.open()
        try:
            while not stop.is_set():
                pushes = self._inbox.take(BATCH_READINGS, LISTEN_S)
                if pushes:
                    self._open = pushes
                    yield _merged(pushes)
                else:  # what came last is told of although nothing follows it, and the lag grows
                    self._say("running", "")
        finally:
            left, self._open = self._open, []
            for push in left:
                push.fail("the source is stopping")
            self._inbox.done()
            self._inbox.close("the source is stopping")

    def report_to(self, say: Say) -> None:
        """Whom to tell that nothing comes."""
        self._say = say

    def progress(self) -> tuple[int, int | None]:
        """Readings taken in so far; there is no end to them."""
        return self._yielded, None

    def idle(self) -> bool:
        """Whether no request waits for its answer."""
        return self._inbox.idle()

    def settled(self, batch: Batch, verdict: Verdict, rejections: list[Rejection]) -> None:
        """Answer the requests of ``batch``, which is on the bus now."""
        pushes, self._open = self._open, []
        self._yielded += len(batch.frame)
        details = dict(zip(verdict.refused_rows, rejections[len(batch.refused) :], strict=True))
        start = 0
        for push in pushes:
            end = start + len(push.frame)
            codes = verdict.codes[start:end]
            bad = np.flatnonzero(codes >= REFUSED).tolist()
            errors = [
                RowError(row, item.reason, item.detail)
                for row, item in zip(push.refused_rows, push.refused, strict=True)
            ]
            for at in bad[:MAX_ERRORS]:
                item = details[start + at]
                errors.append(RowError(int(push.rows[at]), item.reason, item.detail))
            errors.sort(key=lambda error: error.row)
            push.settle(
                Answer(
                    accepted=len(codes) - len(bad),
                    rejected=len(push.refused) + len(bad),
                    late=int(np.count_nonzero(codes == LATE_CODE)),
                    errors=errors[:MAX_ERRORS],
                )
            )
            start = end
        self._inbox.done()

    # --- the routes ------------------------------------------------------------------------------

    def _routes(self) -> APIRouter:
        """The well-known paths, and the same below the stream's name for processes with several streams."""
        router = APIRouter(tags=["ingest"])
        answers = {
            200: {"description": "The readings are on the bus; errors lists rows that were refused."},
            400: {"description": "The body as a whole cannot be read."},
            413: {"description": "The body is larger than maxBodyBytes."},
            415: {"description": "Neither JSON, NDJSON, Arrow nor remote write."},
            422: {"description": "Every reading was refused; errors says why."},
            503: {"description": "Ingest is behind or paused: try again."},
        }
        for prefix in ("/api/v1", f"/api/v1/streams/{self._stream}"):
            for path, endpoint, says, body in (
                ("readings", self._post_readings, "Push readings", READINGS_BODY),
                ("write", self._post_write, "Prometheus remote write", WRITE_BODY),
            ):
                router.add_api_route(
                    f"{prefix}/{path}",
                    endpoint,
                    methods=["POST"],
                    response_class=Response,
                    responses=answers,  # type: ignore[arg-type]
                    summary=says,
                    openapi_extra={"requestBody": {"required": True, "content": body}},
                    operation_id=f"{self._stream}_{self.name}_{path}_{'named' if 'streams' in prefix else 'default'}",
                )
        return router

    async def _post_readings(self, request: Request) -> Response:
        """Readings as JSON (one, a list, NDJSON) or Arrow."""
        return await self._handle(request, JSON_TYPES | LINES_TYPES | ARROW_TYPES)

    async def _post_write(self, request: Request) -> Response:
        """Samples of Prometheus or an agent that speaks remote write 1.0."""
        return await self._handle(request, PROTOBUF_TYPES)

    async def _handle(self, request: Request, known: set[str]) -> Response:
        arrived = self._clock.now_ms() / 1000
        where = request.url.path
        origin = f"http {request.client.host}" if request.client is not None else "http"
        columns = Columns(self._index, lambda row: f"{origin} row {row}")
        unreadable: Refusal | None = None
        body = b""
        try:
            media_type = media_type_of(request, known)
            body = await read_body(request, self._max_bytes)
            if len(body) <= INLINE_BYTES:
                self._parse(request, media_type, body, columns)
            else:
                await run_in_threadpool(self._parse, request, media_type, body, columns)
        except RequestProblem as error:
            return problem(error.status, error.detail, where)
        except Refusal as refusal:
            unreadable = refusal
            columns = Columns(self._index, lambda _: origin)
            columns.refuse(0, refusal, escaped(body) if body else None)
        push = Push(columns.frame(), columns.rows(), columns.refused, columns.refused_rows, origin, arrived)
        try:
            answer = await self._answered(push)
        except UnavailableError as error:
            detail = f"the readings were not taken in: {error}; send them again in {RETRY_AFTER_S} s"
            return problem(503, detail, where, {"Retry-After": str(RETRY_AFTER_S)})
        if unreadable is not None:
            status = 413 if unreadable.reason == TOO_LARGE else 400
            return problem(status, unreadable.detail, where, answer=answer)
        if answer.rejected and not answer.accepted:
            first = answer.errors[0]
            detail = f"all {answer.rejected} readings were refused; row {first.row}: {first.detail}"
            return problem(422, detail, where, answer=answer)
        return Response(msgspec.json.encode(answer), media_type="application/json")

    @cached_property
    def _remote_write(self) -> RemoteWriteDecoder:
        # protobuf takes an eighth of a second to import: not before somebody writes with it.
        from tidewarden_services.ingest.sources.remote_write import RemoteWriteDecoder

        return RemoteWriteDecoder(self._only_tenant, self._max_bytes)

    def _parse(self, request: Request, media_type: str, body: bytes, columns: Columns) -> None:
        if media_type in PROTOBUF_TYPES:
            self._remote_write.parse(body, columns, request.headers.get("x-scope-orgid"))
            return
        body = unpacked(body, request.headers.get("content-encoding", ""), self._max_bytes)
        if media_type in ARROW_TYPES:
            self._arrow.parse(body, columns)
        else:
            parse_body(body, columns, lines=media_type in LINES_TYPES)

    async def _answered(self, push: Push) -> Answer:
        if self._inbox.has_room():
            self._inbox.put(push, 0.0)
        else:
            await run_in_threadpool(self._inbox.put, push, ADMIT_S)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(push.answer), ANSWER_S)
        except TimeoutError:
            raise UnavailableError(f"the bus did not take them within {ANSWER_S:g} s") from None


class _Origins(Sequence[str]):
    """Origin of each reading of a merged batch, written out only when somebody asks."""

    def __init__(self, pushes: list[Push]) -> None:
        self._pushes = pushes
        self._starts = np.cumsum([0, *(len(push.frame) for push in pushes)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> list[str]: ...

    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[row] for row in range(*at.indices(len(self)))]
        number = int(np.searchsorted(self._starts, at, side="right")) - 1
        push = self._pushes[number]
        return f"{push.origin} row {int(push.rows[at - self._starts[number]])}"


def _merged(pushes: list[Push]) -> Batch:
    refused: list[Refused] = [item for push in pushes for item in push.refused]
    return Batch(
        Frame.concat([push.frame for push in pushes]),
        refused,
        position=None,
        origins=_Origins(pushes),
        origin=pushes[0].origin,
        arrived=min(push.arrived for push in pushes),
    )
