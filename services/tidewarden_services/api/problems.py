"""Errors as RFC 9457 problem details: what went wrong, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

PROBLEM = "application/problem+json"

log = structlog.get_logger(__name__)


class ProblemError(Exception):
    """Raised by an endpoint; ends as a problem response."""

    def __init__(self, status: int, detail: str, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.members = members


def problem(
    status: int, detail: str, instance: str, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """A problem response; ``about:blank`` as type says that the status tells the kind."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
        **members,
    }
    return Response(msgspec.json.encode(body), status, dict(headers or {}), media_type=PROBLEM)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem."""
    app.add_exception_handler(ProblemError, _stated)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _stated(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return problem(error.status, error.detail, request.url.path, **error.members)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {
            "field": ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]),
            "in": str(item["loc"][0]),
            "detail": item["msg"],
            "value": _shown(item.get("input")),
        }
        for item in error.errors()[:20]
    ]
    first = errors[0]
    detail = f"{first['field']} = {first['value']}: {first['detail']}"
    return problem(422, detail, request.url.path, errors=errors)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404 and detail == "Not Found":
        detail = f"nothing is at {request.url.path}; /openapi.json lists what there is"
    return problem(error.status_code, detail, request.url.path, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    # Without the traceback: Starlette raises the error again, and the server logs it in full.
    log.error("request failed", path=request.url.path, error=type(error).__name__)
    return problem(500, "an internal error; the server's log has the details", request.url.path)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
