"""The HTTP session of the watches: it logs in as the writer does, and every answer to a watch is a sign of life."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from types import SimpleNamespace

import aiohttp

from tidewarden_operator.cluster.client import Connection


def open_session(
    connection: Callable[[], Connection], watched: Callable[[str], None], listed: Callable[[str], None]
) -> aiohttp.ClientSession:
    """A session for all watches.

    Args:
        connection: how to reach the API server; asked before each request, because a pod's token is renewed.
        watched: told of the path of a watch that was begun or begun anew.
        listed: told of the path of a list: a watch that lost its place begins with one, and what was deleted
            meanwhile it does not tell.
    """

    async def on_start(_: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestStartParams) -> None:
        token = connection().token_header
        if token is not None:
            params.headers["Authorization"] = token

    async def on_end(_: aiohttp.ClientSession, __: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        if params.response.status >= 400 or params.method != "GET":
            return
        tell = watched if "watch" in params.url.query else listed
        tell(params.url.path)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(on_start)
    trace.on_request_end.append(on_end)
    connector = aiohttp.TCPConnector(limit=0, ssl=_tls(connection()))
    return aiohttp.ClientSession(connector=connector, trace_configs=[trace])


def _tls(connection: Connection) -> ssl.SSLContext | bool:
    if not connection.server.startswith("https"):
        return False
    context = ssl.create_default_context(cafile=connection.ca_path)
    if connection.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if connection.certificate_path is not None:
        context.load_cert_chain(connection.certificate_path, connection.private_key_path)
    return context
