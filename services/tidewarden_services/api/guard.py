"""What every response and every request passes: security headers, the origin check, the host check."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from tidewarden_services.api.problems import problem

# Inline styles: plotly sets them on what it draws. blob: and data: images: its download as PNG.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Pure ASGI, so that it also sees WebSockets and never buffers a body.

    Args:
        app: what it guards.
        hosts: names under which this server may be called; empty: any. A server on the loopback names
            itself, so that no foreign name that resolves to 127.0.0.1 can read it (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse foreign hosts and origins, add headers."""
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        host = urlsplit("//" + Headers(scope=scope).get("host", "")).hostname
        if self._hosts and host not in self._hosts:
            detail = f"this server does not go by the name {host!r}: call it as {' or '.join(sorted(self._hosts))}"
            await _refuse(scope, receive, send, 421, detail)
            return
        writes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if writes and foreign(Headers(scope=scope)):
            detail = "the Origin is another site: only the page of this server may write; programs send no Origin"
            await _refuse(scope, receive, send, 403, detail)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
            await send(message)

        await self._app(scope, receive, with_headers)


def foreign(headers: Headers) -> bool:
    """Whether a browser sent this for a page of another origin; programs send no Origin."""
    origin = headers.get("origin")
    if origin is None:
        return False
    return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, detail: str) -> None:
    if scope["type"] == "websocket":
        await WebSocketClose(1008, "foreign host or origin")(scope, receive, send)
        return
    await problem(status, detail, scope["path"])(scope, receive, send)
