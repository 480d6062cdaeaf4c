"""Alerts, and who has taken note of them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from tidewarden.events import Alert
from tidewarden.store.port import Acknowledgement
from tidewarden_services.api.context import Context, reply
from tidewarden_services.api.parameters import AlertFilter, Text, store_query
from tidewarden_services.api.problems import ProblemError

router = APIRouter(tags=["alerts"])


@router.get("/api/alerts")
def alerts(context: Context, parameters: Annotated[AlertFilter, Query()]) -> Any:
    """Alerts that overlap the range, newest first, each with its acknowledgement or null."""
    return reply({"alerts": [shown(alert, ack) for alert, ack in context.store.alerts(store_query(parameters))]})


class Note(BaseModel):
    """Who takes note of an alert."""

    model_config = ConfigDict(extra="forbid")

    by: Text
    note: str = Field("", max_length=2000)


@router.post("/api/alerts/{alert_id}/acknowledge")
def acknowledge(request: Request, context: Context, alert_id: Annotated[str, Path(max_length=64)], note: Note) -> Any:
    """Take note of an alert; a second note replaces the first. Every live client hears of it."""
    acknowledgement = Acknowledgement(alert_id, note.by, context.clock.now_ms(), note.note)
    if not context.store.acknowledge(acknowledgement):
        raise ProblemError(404, f"no alert has the id {alert_id!r}; /api/alerts lists the alerts")
    alert = context.store.alert(alert_id)
    if alert is None:  # retention removed it between the two lines
        raise ProblemError(404, f"alert {alert_id!r} has just been removed by the retention")
    request.app.state.announce(alert[0])
    return reply(shown(*alert))


def shown(alert: Alert, acknowledgement: Acknowledgement | None) -> dict[str, Any]:
    """An alert as the API shows it."""
    document: dict[str, Any] = msgspec.to_builtins(alert)
    a = acknowledgement
    document["acknowledged"] = None if a is None else {"by": a.by, "at": a.at, "note": a.note}
    return document
