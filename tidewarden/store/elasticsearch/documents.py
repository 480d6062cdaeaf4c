"""From a batch to bulk operations, each under an id that depends on what it says alone.

A replay writes the same documents under the same ids, so it changes nothing. Rows of frames are made
by joining bytes: JSON of whole columns comes from one call, names from one prefix for each series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec
import numpy.typing as npt

from tidewarden.events import Alert, Anomaly, AnomalyKind, Rejection, stable_id
from tidewarden.frames import ABSENT, Frame, NodeKey, RollupFrame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.store.elasticsearch.client import Operation, Refused
from tidewarden.store.elasticsearch.names import DAY_MS, Dated, StreamNames
from tidewarden.store.port import Acknowledgement, WriteBatch

E = TypeVar("E", Anomaly, Alert)

MAX_SERIES = 1_000_000  # prefixes kept, 200 bytes each; beyond that they are made anew
_SCORE_NUMBERS: Final = (
    "timestamp", "value", "anomaly_score", "p_value", "expected", "lower", "upper", "flags",
)  # fmt: skip
_ROLLUP_NUMBERS: Final = ("timestamp", "score", "children", "peak")
_KINDS: Final = [msgspec.json.encode(kind.label) for kind in AnomalyKind]
_json = msgspec.json.encode


class Documents:
    """Makes the bulk operations of one stream.

    Args:
        names: where they go.
        days: days that one dated index holds.
    """

    def __init__(self, names: StreamNames, days: int) -> None:
        self._names = names
        self._days = days
        self._stream = _json(names.stream)
        self._series: dict[SeriesKey, tuple[bytes, bytes]] = {}
        self._written: set[SeriesKey] = set()
        self._added: dict[SeriesKey, None] = {}

    def of(self, batch: WriteBatch) -> list[Operation]:
        """All operations of a batch but its offsets: scores before the readings they belong to.

        A reader that asks for readings first and for scores then never finds a reading without its score.
        """
        self._added = {}
        scores = [operation for frame in batch.scores for operation in self._scores(frame)]
        readings = [operation for frame in batch.readings for operation in self._readings(frame)]
        rollups = [operation for frame in batch.rollups for operation in self._rollups(frame)]
        latest = self._latest(batch.rollups)
        anomalies = self._newest("anomalies", batch.anomalies)
        alerts = self._newest("alerts", batch.alerts)
        rejected = self.rejected(batch.rejected)
        series = [self._series_document(key) for key in self._added]
        return [
            *series, *scores, *readings, *rollups, *latest, *anomalies, *alerts, *rejected, *self._feedback(batch),
        ]  # fmt: skip

    def settle(self) -> None:
        """What `of` gave last is on the server: its series need not be written again."""
        self._written.update(self._added)

    def _key(self, key: SeriesKey) -> tuple[bytes, bytes]:
        """Id of a series and the beginning of its documents."""
        known = self._series.get(key)
        if known is None:
            if len(self._series) >= MAX_SERIES:
                self._series.clear()
                self._written.clear()
            series = series_id(key)
            body = _json({"stream": self._names.stream, **key._asdict(), "series": series})[:-1]
            known = self._series[key] = (series.encode(), body)
        if key not in self._written:
            self._added[key] = None
        return known

    def _keys(self, table: SeriesTable, series: npt.NDArray[Any]) -> Iterator[tuple[bytes, bytes]]:
        local = series.tolist()
        known = {number: self._key(table[number]) for number in dict.fromkeys(local)}
        return (known[number] for number in local)

    def _series_document(self, key: SeriesKey) -> Operation:
        action = _action("create", self._names.single("series"), series_id(key))
        return Operation(action, _json({"stream": self._names.stream, **key._asdict()}))

    def _indices(self, kind: Dated, timestamps: npt.NDArray[Any]) -> Iterator[bytes]:
        """For each timestamp the beginning of its action line, up to the id."""
        days = (timestamps // DAY_MS // self._days).tolist()
        heads = {
            day: b'{"index":{"_index":"%b","_id":"'
            % self._names.dated(kind, day * self._days * DAY_MS, self._days).encode()
            for day in set(days)
        }
        return (heads[day] for day in days)

    def _readings(self, frame: Frame) -> Iterator[Operation]:
        if not len(frame):
            return
        heads, keys = self._indices("readings", frame.timestamp), self._keys(frame.table, frame.series)
        times, values = _texts(frame.timestamp), _texts(frame.value)
        if frame.label is None:
            for head, (series, names), time, value in zip(heads, keys, times, values, strict=True):
                document = b'%b,"timestamp":%b,"value":%b}' % (names, time, value)
                yield Operation(b'%b%b.%b"}}' % (head, series, time), document)
            return
        for head, (series, names), time, value, label in zip(
            heads, keys, times, values, _texts(frame.label), strict=True
        ):
            document = b'%b,"timestamp":%b,"value":%b,"label":%b}' % (names, time, value, label)
            yield Operation(b'%b%b.%b"}}' % (head, series, time), document)

    def _scores(self, frame: ScoreFrame) -> Iterator[Operation]:
        if not len(frame):
            return
        heads, keys = self._indices("scores", frame.timestamp), self._keys(frame.table, frame.series)
        said = b',"detector":%b,"model_version":%b' % (_json(frame.detector), _json(frame.model_version))
        detector = stable_id(frame.detector).encode()
        columns = [_texts(getattr(frame, name)) for name in _SCORE_NUMBERS]
        absent = ((frame.flags & ABSENT) != 0).tolist()
        kinds = frame.kind.tolist()
        for head, (series, names), gone, kind, *numbers in zip(heads, keys, absent, kinds, *columns, strict=True):
            time = numbers[0]
            # That a reading is absent and how a late one scores are two things said of the same moment.
            place = b"%b.%b.%b%b" % (series, time, detector, b".absent" if gone else b"")
            document = b'%b%b,"kind":%b,"timestamp":%b,"value":%b,"anomaly_score":%b,"p_value":%b,"expected":%b' % (
                names, said, _KINDS[kind], *numbers[:5],
            )  # fmt: skip
            yield Operation(
                b'%b%b"}}' % (head, place), b'%b,"lower":%b,"upper":%b,"flags":%b}' % (document, *numbers[5:])
            )

    def _rollups(self, frame: RollupFrame) -> Iterator[Operation]:
        if not len(frame):
            return
        scopes = [
            (scope_id(frame.detector, scope).encode(), self._scope(frame.detector, scope)) for scope in frame.scopes
        ]
        columns = [_texts(getattr(frame, name)) for name in _ROLLUP_NUMBERS]
        for head, scope, *numbers in zip(
            self._indices("rollups", frame.timestamp), frame.scope.tolist(), *columns, strict=True
        ):
            place, names = scopes[scope]
            document = b'%b,"timestamp":%b,"score":%b,"children":%b,"peak":%b}' % (names, *numbers)
            yield Operation(b'%b%b.%b"}}' % (head, place, numbers[0]), document)

    def _latest(self, frames: Sequence[RollupFrame]) -> list[Operation]:
        """The newest row of each scope, which replaces an older one."""
        newest: dict[bytes, tuple[int, bytes]] = {}
        for frame in frames:
            bodies = [self._scope(frame.detector, scope) for scope in frame.scopes]
            ids = [scope_id(frame.detector, scope).encode() for scope in frame.scopes]
            columns = [_texts(getattr(frame, name)) for name in _ROLLUP_NUMBERS]
            for scope, at, *numbers in zip(frame.scope.tolist(), frame.timestamp.tolist(), *columns, strict=True):
                if ids[scope] not in newest or at >= newest[ids[scope]][0]:
                    body = b'%b,"timestamp":%b,"score":%b,"children":%b,"peak":%b}' % (bodies[scope], *numbers)
                    newest[ids[scope]] = (at, body)
        index = self._names.single("latest")
        # A version below zero is not to be had; before 1970 the last one written is the latest.
        return [
            Operation(_action("index", index, key.decode(), version=max(at, 0), version_type="external_gte"), body)
            for key, (at, body) in newest.items()
        ]

    def _scope(self, detector: str, scope: NodeKey) -> bytes:
        names = {"stream": self._names.stream, "detector": detector, **scope._asdict()}
        return _json({**names, "scope": scope_id(detector, scope)})[:-1]

    def _newest(self, kind: Any, events: Sequence[E]) -> list[Operation]:
        """The newest revision of each event; the server keeps the one it has if that is as new."""
        newest: dict[str, E] = {}
        for event in events:
            known = newest.get(event.id)
            if known is None or event.revision > known.revision:
                newest[event.id] = event
        index = self._names.single(kind)
        return [
            Operation(_action("index", index, e.id, version=e.revision, version_type="external"), _json(e))
            for e in newest.values()
        ]

    def rejected(self, rejections: Iterable[Rejection]) -> list[Operation]:
        """Rejections, each kept once: the first one stays."""
        return [
            Operation(
                _action("create", self._names.dated("rejected", r.received_at, self._days), r.id),
                _json(r),
            )
            for r in rejections
        ]

    def _feedback(self, batch: WriteBatch) -> list[Operation]:
        """What people said, each word once."""
        index = self._names.single("feedback")
        return [Operation(_action("create", index, each.id), _json(each)) for each in batch.feedback]

    def acknowledgement(self, said: Acknowledgement) -> Operation:
        """An acknowledgement, in place of an earlier one of the same alert."""
        body = {"alert_id": said.alert_id, "by": said.by, "at": said.at, "note": said.note}
        return Operation(_action("index", self._names.single("acknowledgements"), said.alert_id), _json(body))


def deletion(index: str, document_id: str) -> Operation:
    """Removes one document."""
    return Operation(_action("delete", index, document_id), None)


def refusal(names: StreamNames, refused: Refused, now_ms: int) -> Rejection:
    """What the server would not take, as a rejection that keeps it whole."""
    (target,) = msgspec.json.decode(refused.operation.action).values()
    document = refused.operation.document or b""
    facts = msgspec.json.decode(document) if document else {}
    return Rejection(
        id=stable_id("store", target["_index"], target["_id"]),
        stream=names.stream,
        source="archive",
        reason="store_refused",
        detail=f"Elasticsearch refused it: {refused.reason}"[:2_000],
        origin=f"{target['_index']}/{target['_id']}",
        received_at=now_ms,
        **{name: facts.get(name) for name in ("tenant", "cluster", "node", "metric", "timestamp", "value")},
        raw=document.decode(),
    )


def series_id(key: SeriesKey) -> str:
    """A series within its stream: 16 hex digits, whatever the length of its names."""
    return stable_id(*key)


def scope_id(detector: str, scope: NodeKey) -> str:
    """A scope within its stream."""
    return stable_id(detector, *scope)


def _texts(column: npt.NDArray[Any]) -> list[bytes]:
    """Each number as JSON; NaN, which is how frames say "missing", is null."""
    return _json(column.tolist())[1:-1].split(b",") if len(column) else []


def _action(what: str, index: str, document_id: str, **more: Any) -> bytes:
    return _json({what: {"_index": index, "_id": document_id, **more}})
