"""How the Elasticsearch store behaves towards a server that is busy, foreign, or says no.

The server here is a real HTTP server with answers from a script; waiting is done by a clock that only counts.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tidewarden.bus.port import TopicPartition
from tidewarden.clock import ManualClock
from tidewarden.events import Rejection
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch import ElasticsearchStore
from tidewarden.store.elasticsearch.client import ATTEMPTS
from tidewarden.store.port import StoreError, StoreUnavailableError, WriteBatch

DAY_MS = 86_400_000
Answer = Callable[[str, str, bytes], tuple[int, Any]]


class ScriptedServer:
    """Answers by ``answer(method, path, body)``, or as a server with nothing in it where that gives None."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.answer: Callable[[str, str, bytes], tuple[int, Any] | None] = lambda *_: None
        self.product = "Elasticsearch"
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _reply(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.split("?", maxsplit=1)[0]
                outer.asked.append((self.command, path, body))
                status, said = outer.answer(self.command, path, body) or outer.empty(self.command, path, body)
                payload = json.dumps(said).encode()
                self.send_response(status)
                if outer.product:
                    self.send_header("X-Elastic-Product", outer.product)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PUT = do_DELETE = _reply  # noqa: N815 - named by http.server

            def handle(self) -> None:
                with suppress(ssl.SSLError):  # a client that does not trust us has gone
                    super().handle()

            def log_message(self, *_: Any) -> None:
                """Silent."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        scheme = "http"
        if tls is not None:
            scheme = "https"
            # Each connection's thread shakes hands: a client that breaks it off must not stop the others.
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{scheme}://127.0.0.1:{self._http.server_address[1]}"
        self.templates: dict[str, Any] = {}
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def empty(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/":
            return 200, {"version": {"number": "8.19.21"}}
        if path.startswith("/_index_template/") and method == "GET":
            return 200, {"index_templates": [{"name": n, "index_template": b} for n, b in self.templates.items()]}
        if path.startswith("/_index_template/"):
            self.templates[path.rsplit("/", 1)[1]] = json.loads(body)
            return 200, {"acknowledged": True}
        if path == "/_bulk":
            return 200, {"errors": False, "items": []}
        if method == "GET":
            return 404, {"error": {"type": "not_found", "reason": "nothing here"}}
        return 200, {"acknowledged": True}

    def paths(self, method: str) -> list[str]:
        return [path for asked, path, _ in self.asked if asked == method]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    made = ScriptedServer()
    yield made
    made.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(server: ScriptedServer, clock: ManualClock) -> Iterator[ElasticsearchStore]:
    made = ElasticsearchStore(ElasticsearchSettings(url=server.url), "n", clock=clock)
    yield made
    made.close()


def rejections(*names: str) -> WriteBatch:
    kept = [
        Rejection(id=name, stream="shop", source="s", reason="r", detail="d", origin="o", received_at=0)
        for name in names
    ]
    return WriteBatch("shop", rejected=kept, offsets={TopicPartition("t", 0): 5})


def items(*statuses: int) -> tuple[int, Any]:
    each = [
        {"create": {"status": s, **({"error": {"type": "e", "reason": "why"}} if s >= 400 else {})}} for s in statuses
    ]
    return 200, {"errors": any(s >= 400 for s in statuses), "items": each}


def sent_ids(body: bytes) -> list[str]:
    return [json.loads(line)["create"]["_id"] for line in body.splitlines()[::2]]


def test_only_what_was_busy_is_sent_again_and_offsets_are_last(
    server: ScriptedServer, store: ElasticsearchStore
) -> None:
    """Items answered 429 or 503 are repeated alone; a conflict is a repetition; then the offsets are written."""
    answers = [items(429, 201, 503), items(409, 201)]
    server.answer = lambda _, path, __: answers.pop(0) if path == "/_bulk" else None
    store.write(rejections("a", "b", "c"))
    bulks = [sent_ids(body) for _, path, body in server.asked if path == "/_bulk"]
    assert bulks == [["a", "b", "c"], ["a", "c"]]
    assert server.asked[-1][:2] == ("PUT", "/tidewarden.n.shop.offsets.all/_doc/offsets")


@pytest.mark.parametrize("busy", [(429, {"error": "x"}), (503, {"error": "x"}), items(429)])
def test_patience_has_an_end_and_offsets_wait(
    server: ScriptedServer, store: ElasticsearchStore, clock: ManualClock, busy: tuple[int, Any]
) -> None:
    """A server that stays busy is "try again" after the bounded attempts and longer and longer waits; no offsets."""
    server.answer = lambda _, path, __: busy if path == "/_bulk" else None
    began = clock.monotonic()
    with pytest.raises(StoreUnavailableError, match=server.url):
        store.write(rejections("a"))
    assert server.paths("POST").count("/_bulk") == ATTEMPTS
    assert 3 <= clock.monotonic() - began < 10
    assert not [path for path in server.paths("PUT") if "offsets" in path.split("/")[1]]


def test_what_the_server_never_takes_is_kept_with_its_reason(server: ScriptedServer, store: ElasticsearchStore) -> None:
    """A document refused for good becomes a rejection that names index, id and reason and holds the document."""
    answers = [items(201, 400), items(201)]
    server.answer = lambda _, path, __: answers.pop(0) if path == "/_bulk" else None
    store.write(rejections("a", "b"))
    last = [body for _, path, body in server.asked if path == "/_bulk"][-1]
    kept = json.loads(last.splitlines()[1])
    assert (kept["reason"], kept["source"], kept["stream"]) == ("store_refused", "archive", "shop")
    assert "why" in kept["detail"]
    assert json.loads(kept["raw"])["id"] == "b"


def test_a_full_server_is_waited_for_not_taken_for_a_refusal(server: ScriptedServer, store: ElasticsearchStore) -> None:
    """Too many shards, a full disk: somebody can make room, so nothing is rejected."""
    full = {"type": "validation_exception", "reason": "this would add [1] shards, but there are [1000]/[1000] maximum"}
    said = {"errors": True, "items": [{"create": {"status": 400, "error": full}}]}
    server.answer = lambda _, path, __: (200, said) if path == "/_bulk" else None
    with pytest.raises(StoreUnavailableError, match="maximum"):
        store.write(rejections("a"))


@pytest.mark.parametrize(
    ("status", "told"), [(401, "apiKey, or username and password"), (403, "privileges"), (400, "refuses")]
)
def test_what_no_waiting_mends_says_address_reason_and_remedy(
    server: ScriptedServer, store: ElasticsearchStore, status: int, told: str
) -> None:
    """Wrong credentials, missing rights: an error at once, which is not "try again"."""
    server.answer = lambda *_: (status, {"error": {"type": "security_exception", "reason": "no"}})
    with pytest.raises(StoreError, match=told) as caught:
        store.write(rejections("a"))
    assert not isinstance(caught.value, StoreUnavailableError)
    assert server.url in str(caught.value)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("product", "number", "told"), [("Elasticsearch", "7.17.1", r"7\.17\.1"), ("", "8.19.21", "no Elasticsearch")]
)
def test_another_product_or_version_is_refused(
    server: ScriptedServer, store: ElasticsearchStore, product: str, number: str, told: str
) -> None:
    """The first answer decides; what is not Elasticsearch 8 or 9 is not written to."""
    server.product = product
    server.answer = lambda *_: (200, {"version": {"number": number}})
    with pytest.raises(StoreError, match=told):
        store.offsets("shop")
    assert server.asked == [("GET", "/", b"")]


def test_nobody_at_the_address_is_try_again(clock: ManualClock) -> None:
    """A refused connection is an outage, not a mistake."""
    gone = ScriptedServer()
    gone.close()
    store = ElasticsearchStore(ElasticsearchSettings(url=gone.url), "n", clock=clock)
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        store.write(rejections("a"))
    store.close()


def test_a_server_with_lifecycle_management_gets_the_policy_first(
    server: ScriptedServer, store: ElasticsearchStore
) -> None:
    """Asked once; then the policy, then templates that name it, in the bodies that the plan holds."""
    policies: dict[str, Any] = {}

    def answer(method: str, path: str, body: bytes) -> tuple[int, Any] | None:
        if path == "/_xpack":
            return 200, {"features": {"ilm": {"available": True, "enabled": True}}}
        if path.startswith("/_ilm/policy/") and method == "PUT":
            policies[path.rsplit("/", 1)[1]] = json.loads(body)
            return 200, {"acknowledged": True}
        if path.startswith("/_ilm/policy/") and policies:
            return 200, policies
        return None

    server.answer = answer
    first = store.prepare("shop", 30 * DAY_MS)
    assert first[0] == "_ilm/policy/tidewarden.n.shop.retention"
    assert policies["tidewarden.n.shop.retention"]["policy"]["phases"]["delete"]["min_age"] == f"{31 * 86_400}s"
    index = server.templates["tidewarden.n.shop.readings"]["template"]["settings"]["index"]
    assert index["lifecycle"] == {"name": "tidewarden.n.shop.retention"}
    assert store.prepare("shop", 30 * DAY_MS) == []
    assert server.paths("GET").count("/_xpack") == 1


def test_credentials_come_from_files(server: ScriptedServer, tmp_path: Path, clock: ManualClock) -> None:
    """An API key or a user with a password is sent; half of a login names what is missing."""
    seen: list[str] = []
    (tmp_path / "username").write_text("ann\n")
    settings = ElasticsearchSettings(url=server.url, secret_dir=tmp_path)
    with pytest.raises(StoreError, match="no password"):
        ElasticsearchStore(settings, "n", clock=clock)
    (tmp_path / "password").write_text("secret\n")
    seen += sent_authorization(ElasticsearchStore(settings, "n", clock=clock))
    (tmp_path / "apiKey").write_text("a2V5\n")
    seen += sent_authorization(ElasticsearchStore(settings, "n", clock=clock))
    assert seen == ["Basic YW5uOnNlY3JldA==", "ApiKey a2V5"]
    with pytest.raises(StoreError, match="is no folder"):
        ElasticsearchStore(ElasticsearchSettings(url=server.url, secret_dir=tmp_path / "none"), "n", clock=clock)


def sent_authorization(store: ElasticsearchStore) -> list[str]:
    headers = store._client._client._headers
    store.close()
    return [headers["authorization"]]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl, which is not installed")
def test_a_certificate_is_trusted_by_the_file_of_its_ca_only(tmp_path: Path, clock: ManualClock) -> None:
    """With ca.crt in the folder of secrets https works; without it, the error names the remedy and is no outage."""
    certificate, key = tmp_path / "ca.crt", tmp_path / "key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = ScriptedServer(tls)
    try:
        trusting = ElasticsearchStore(ElasticsearchSettings(url=server.url, secret_dir=tmp_path), "n", clock=clock)
        assert trusting.offsets("shop") == {}
        trusting.close()
        doubting = ElasticsearchStore(ElasticsearchSettings(url=server.url), "n", clock=clock)
        with pytest.raises(StoreError, match=r"ca\.crt") as caught:
            doubting.offsets("shop")
        assert not isinstance(caught.value, StoreUnavailableError)
        doubting.close()
    finally:
        server.close()
