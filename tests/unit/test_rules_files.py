"""Rules from ConfigMaps to files: names that cannot clash, whole files, and nothing touched for nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tidewarden_operator import rules_files


def _config_map(namespace: str, name: str, **data: str) -> dict[str, object]:
    return {"metadata": {"namespace": namespace, "name": name}, "data": data}


class _Prometheus(BaseHTTPRequestHandler):
    answers: list[int] = []  # noqa: RUF012 - of one test's server, set by its fixture
    asked = 0

    def do_POST(self) -> None:
        type(self).asked += 1
        self.send_response(self.answers.pop(0) if self.answers else 200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Nothing: pytest shows enough."""


@pytest.fixture
def prometheus() -> Iterator[tuple[type[_Prometheus], str]]:
    """A server that counts how often it was asked to reload."""
    handler = type("Handler", (_Prometheus,), {"answers": [], "asked": 0})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}/-/reload"
    server.shutdown()
    thread.join()
    server.server_close()


class _Api:
    """Answers with one round of rules after the other, then ends the loop."""

    def __init__(self, rounds: list[dict[str, str]], stopped: threading.Event) -> None:
        self._rounds, self._stopped = rounds, stopped

    def rules(self, namespaces: list[str]) -> dict[str, str]:
        found = self._rounds.pop(0)
        if not self._rounds:
            self._stopped.set()
        return found


def test_every_entry_has_a_file_name_of_its_own() -> None:
    """Namespace, name and key are told apart, also where joining them by dashes would be ambiguous."""
    found = dict(
        rules_files.entries(
            [_config_map("a", "b-c", rules="1"), _config_map("a-b", "c", rules="2"), {"metadata": {"name": "empty"}}]
        )
    )
    assert found == {"a_b-c_rules.yaml": "1", "a-b_c_rules.yaml": "2"}


def test_files_follow_what_is_wanted(tmp_path: Path) -> None:
    """New, changed and gone entries are; a second time nothing changes, and says so."""
    assert rules_files.lay(tmp_path, {"a.yaml": "1", "b.yaml": "2"})
    assert not rules_files.lay(tmp_path, {"a.yaml": "1", "b.yaml": "2"})
    assert rules_files.lay(tmp_path, {"b.yaml": "3"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b.yaml": "3"}


def test_prometheus_is_asked_only_after_a_change_and_again_where_it_refused(
    tmp_path: Path, prometheus: tuple[type[_Prometheus], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused reload is asked for again in the next round, though no file changed; a quiet round asks nothing."""
    handler, address = prometheus
    handler.answers = [500]
    monkeypatch.setattr(rules_files, "INTERVAL_S", 0.0)
    stopped = threading.Event()
    rounds = [{"a.yaml": "1"}, {"a.yaml": "1"}, {"a.yaml": "1"}]
    rules_files.keep(_Api(rounds, stopped), [], tmp_path, address, stopped)  # type: ignore[arg-type]
    assert handler.asked == 2
