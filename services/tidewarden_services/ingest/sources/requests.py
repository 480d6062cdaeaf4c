"""What the http source does with a request before its readings are parsed: sizes, types, encodings, problems."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tidewarden_services.ingest.reasons import MALFORMED, TOO_LARGE
from tidewarden_services.ingest.sources.columns import Refusal
from tidewarden_services.ingest.sources.inbox import Answer

GZIP = 16 + zlib.MAX_WBITS  # zlib's way of saying: a gzip header, not a zlib one


class RequestProblem(Exception):  # noqa: N818 - named like what it becomes
    """The request is refused before anything of it was read."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def problem(
    status: int, detail: str, instance: str, headers: Mapping[str, str] | None = None, answer: Answer | None = None
) -> Response:
    """A problem response (RFC 9457), with the members of the ordinary answer where there is one."""
    members = {} if answer is None else msgspec.to_builtins(answer)
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
        **members,
    }
    return Response(msgspec.json.encode(body), status, dict(headers or {}), media_type="application/problem+json")


def media_type_of(request: Request, known: set[str]) -> str:
    """Content type of a request without its parameters; a problem where it is not among ``known``."""
    declared = request.headers.get("content-type", "")
    media_type, _, parameters = declared.partition(";")
    media_type = media_type.strip().lower()
    listed = ", ".join(sorted(filter(None, known)))
    if media_type not in known or "write.v2" in parameters:
        raise RequestProblem(415, f"content type {declared!r} is not taken here: send one of {listed}")
    return media_type


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body as it came, still compressed; `Refusal` where it is too large."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise _too_large(f"{declared} bytes", max_bytes)
    pieces = bytearray()
    async for piece in request.stream():
        pieces += piece
        if len(pieces) > max_bytes:
            raise _too_large(f"more than {max_bytes} bytes", max_bytes)
    return bytes(pieces)


def unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its content encoding; never more than ``max_bytes``, whatever it claims to hold."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise RequestProblem(415, f"content encoding {encoding!r} is not taken here: send gzip or none")
    unzip = zlib.decompressobj(GZIP)
    try:
        plain = unzip.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise Refusal(MALFORMED, f"this is no gzip ({error}): compress with gzip or leave out the header") from None
    if len(plain) > max_bytes:
        raise _too_large(f"more than {max_bytes} bytes once unpacked", max_bytes)
    if not unzip.eof:
        raise Refusal(MALFORMED, "the gzip data ends too early: send it whole")
    return plain


def _too_large(size: str, max_bytes: int) -> Refusal:
    return Refusal(TOO_LARGE, f"the body has {size}, {max_bytes} are allowed: send less at once, or raise maxBodyBytes")
