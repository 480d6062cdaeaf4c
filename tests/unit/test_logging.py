"""Logs: ours at the level asked for, libraries' only where they are news."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from tidewarden.telemetry import configure_logging

LIBRARIES = ("elastic_transport.transport", "elastic_transport.node_pool", "httpx")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the process's logging as it was."""
    names = ["elastic_transport", *LIBRARIES]
    root, levels = logging.getLogger(), {name: logging.getLogger(name).level for name in names}
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def written(level: str) -> str:
    stream = io.StringIO()
    configure_logging(level, "json", stream)
    for name in LIBRARIES:
        logging.getLogger(name).info("%s made a request", name)
    logging.getLogger("elastic_transport.node_pool").warning("a node has failed again")
    logging.getLogger("tidewarden").info("ours")
    return stream.getvalue()


def test_every_request_of_a_library_is_no_news() -> None:
    """At level info our own lines are there, and none for each request or for each attempt at a node."""
    text = written("info")
    assert "ours" in text
    assert "made a request" not in text
    assert "failed again" not in text


def test_level_debug_keeps_nothing_back() -> None:
    """Who looks for the cause of trouble sees every request."""
    text = written("debug")
    assert all(f"{name} made a request" in text for name in LIBRARIES)
    assert "failed again" in text


def test_level_error_holds_for_libraries_too() -> None:
    """What is asked to be quiet is not made louder by its libraries' own levels."""
    assert written("error") == ""
