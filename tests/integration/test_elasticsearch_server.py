"""The Elasticsearch that the other tests rely on."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest

from servers.elasticsearch import VERSION, ElasticsearchServer

pytestmark = pytest.mark.elasticsearch


def _ask(url: str, body: dict[str, Any] | None = None, method: str = "GET") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def test_it_says_who_it_is_and_keeps_its_data_over_a_kill(own_elasticsearch_server: ElasticsearchServer) -> None:
    """The port answers as Elasticsearch does, and what was acknowledged is there after kill -9."""
    server = own_elasticsearch_server
    assert _ask(server.url)["version"]["number"] == VERSION
    assert _ask(f"{server.url}/things/_doc/1", {"name": "kept"}, "PUT")["result"] == "created"
    server.kill()
    server.start()
    assert _ask(f"{server.url}/things/_doc/1")["_source"] == {"name": "kept"}
