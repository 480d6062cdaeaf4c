"""What people say of anomalies: right, wrong, or nothing after all; and all that was said so far."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from tidewarden.events import Anomaly, Feedback, Verdict, stable_id
from tidewarden.frames import NodeKey
from tidewarden.topics import partition_of
from tidewarden_services.api.context import Context, reply
from tidewarden_services.api.parameters import FeedbackFilter, Text, store_query
from tidewarden_services.api.problems import ProblemError

router = APIRouter(tags=["feedback"])


class Word(BaseModel):
    """What somebody says of an anomaly."""

    model_config = ConfigDict(extra="forbid")

    verdict: Verdict = Field(description="right, wrong, or revoke: as if nothing had been said")
    by: Text = Field(description="who says so")
    note: str = Field("", max_length=2000)


@router.post("/api/v1/anomalies/{anomaly_id}/feedback", status_code=202)
def say(context: Context, anomaly_id: Annotated[str, Path(max_length=64)], word: Word) -> Any:
    """Say that an anomaly was right or wrong, or take that back; the newest word on an anomaly counts.

    It travels among the readings of the anomaly's node, where the detector meets it at one place, the same after a
    restart. Scores do not change; which later anomalies people are alerted of does.
    """
    anomaly = context.store.anomaly(anomaly_id)
    if anomaly is None:
        raise ProblemError(404, f"no anomaly has the id {anomaly_id!r}; /api/anomalies lists them")
    topics = context.topics_by_stream.get(anomaly.stream)
    if topics is None:
        raise ProblemError(409, f"the anomaly's stream {anomaly.stream!r} is not running here: ask its own API")
    feedback = _feedback(anomaly, word, context.clock.now_ms())
    node = NodeKey(anomaly.tenant, anomaly.cluster, anomaly.node)
    context.bus.publish(
        topics.name("readings"), feedback, key=node.path, partition=partition_of(node, topics.partitions),
        headers={"producer": "api"},
    )  # fmt: skip
    return reply(feedback, 202)


@router.get("/api/v1/feedback")
def feedback(context: Context, parameters: Annotated[FeedbackFilter, Query()]) -> Any:
    """Everything that was said of anomalies, newest first, revoked or replaced words included."""
    return reply({"feedback": context.store.feedback(store_query(parameters))})


def _feedback(anomaly: Anomaly, word: Word, at_ms: int) -> Feedback:
    return Feedback(
        id=stable_id("feedback", anomaly.id, word.verdict, word.by, word.note, at_ms),
        anomaly_id=anomaly.id,
        stream=anomaly.stream,
        detector=anomaly.detector,
        tenant=anomaly.tenant,
        cluster=anomaly.cluster,
        node=anomaly.node,
        metric=anomaly.metric,
        kind=anomaly.kind,
        from_ms=anomaly.onset,
        until_ms=anomaly.end,
        p_value=anomaly.p_value,
        verdict=word.verdict,
        by=word.by,
        at_ms=at_ms,
        note=word.note,
    )
