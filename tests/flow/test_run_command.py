"""`tidewarden run` as a process: mistakes and their exit codes, the side server, waiting for a Kafka that is away."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.processes import free_ports
from servers.roles import RESOURCES, RoleProcess, Roles
from tidewarden.clock import SystemClock
from tidewarden.status import Figures
from tidewarden_cli.run.process import TERMINATION_BYTES, write_last_words
from tidewarden_services.api.peers import PeerBoard


@pytest.fixture
def roles(tmp_path: Path) -> Iterator[Roles]:
    """Processes of a namespace whose Kafka and Elasticsearch are not there."""
    resources = RESOURCES.replace("NAMESPACE", "one").replace("WEBHOOK", "http://127.0.0.1:9/").replace("SPEED", "0")
    (closed,) = free_ports(1)
    found = Roles(tmp_path / "roles", resources, f"127.0.0.1:{closed}", f"http://127.0.0.1:{closed}", "one")
    yield found
    found.close()


def ends(process: RoleProcess) -> tuple[int, str]:
    process.start()
    assert process.process is not None
    return process.process.wait(60), process.log


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ingest", "--stream", "shop"), "run ingest needs --source"),
        (("detect", "--name", "watch"), "run detect needs --member"),
        (("rollup", "--name", "watch", "--member", "m"), "run rollup has no use for --member m"),
        (("archive", "--stream", "shopp"), "'shopp' is not among the resources of its kind: there are shop"),
        (("ingest", "--stream", "shop", "--source", "pull"), "--source pull: MetricStream/shop has no such source"),
        (("alert", "--name", "pager"), "'pager' is not among the resources of its kind: there are page"),
    ],
)
def test_a_mistake_in_the_arguments_is_named(roles: Roles, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, one sentence with the remedy, no traceback, and the same sentence in the termination log."""
    process = roles.add("wrong", *arguments)
    roles.write_settings()
    code, log = ends(process)
    assert code == 2, log
    assert says in log
    assert "Traceback" not in log
    assert says in process.last_words["error"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("kafka:", "kaffka:", "kafka: Field required"),
        ("namespace: one", "namespace: two", "is not the namespace of the settings, 'two'"),
        ("securityProtocol", "securityProtocol", ""),
    ],
)
def test_a_mistake_in_the_settings_is_named(roles: Roles, old: str, new: str, says: str) -> None:
    """Exit code 2 and which field it is."""
    if not says:
        old, new, says = "bootstrapServers", "securityProtocol: TLS\n  bootstrapServers", "kafka.security"
    process = roles.add("wrong", "archive", "--stream", "shop")
    roles.write_settings()
    settings = process.folder / "settings.yaml"
    settings.write_text(settings.read_text().replace(old, new, 1))
    code, log = ends(process)
    assert code == 2, log
    assert says in log
    assert "Traceback" not in log


def test_a_wrong_resource_is_named_with_its_line(roles: Roles) -> None:
    """The loader's own words, as `tidewarden up` has them."""
    process = roles.add("wrong", "detect", "--name", "watch", "--member", "m")
    roles.write_settings()
    resources = process.folder / "resources.yaml"
    resources.write_text(resources.read_text().replace("interval: 1m", "interval: 1 minute"))
    code, log = ends(process)
    assert code == 2, log
    assert "resources.yaml:4" in log
    assert "spec.interval" in log


def test_a_simulation_without_a_start_needs_its_creation_time(roles: Roles) -> None:
    """Otherwise a restart would play other times: say so instead of starting."""
    process = roles.add("simulate", "simulate", "--name", "fleet")
    roles.write_settings()
    resources = process.folder / "resources.yaml"
    resources.write_text(resources.read_text().replace("  start: 2026-01-05T00:00:00Z\n", ""))
    code, log = ends(process)
    assert code == 2, log
    assert "metadata.creationTimestamp" in log


def test_while_kafka_is_away_a_pod_is_alive_and_not_ready(roles: Roles) -> None:
    """Probes find somebody at once: alive, waiting for Kafka by its address; SIGTERM ends it with code 0."""
    process = roles.add("detect", "detect", "--name", "watch", "--member", "m")
    roles.write_settings()
    process.start()

    def waits_for_kafka() -> bool:
        answer = process.get("/readyz")
        return (
            answer is not None and answer.status_code == 503 and f"Kafka at {roles.kafka} gave no answer" in answer.text
        )

    roles.wait("it waits for Kafka", waits_for_kafka, 60)
    alive = process.get("/healthz")
    assert alive is not None
    assert (alive.status_code, alive.text) == (200, "ok\n")
    document = process.status()
    assert document is not None
    assert (document["state"], document["ready"], document["role"]) == ("starting", False, "detect")
    assert any(f"Kafka at {roles.kafka}" in reason for reason in document["waiting_for"])
    assert any("gave no answer" in error["text"] for error in document["errors"])
    nowhere = process.get("/nowhere")
    assert nowhere is not None
    assert nowhere.status_code == 404
    code, seconds = process.end()
    assert code == 0, process.log
    assert seconds < 20


def test_a_taken_port_is_an_error_with_a_remedy(roles: Roles) -> None:
    """Two processes with one metricsPort: the second says so and ends with code 1."""
    first, second = (
        roles.add("first", "archive", "--stream", "shop"),
        roles.add("second", "archive", "--stream", "shop"),
    )
    second.metrics_port = first.metrics_port
    roles.write_settings()
    first.start()
    roles.wait("the first listens", lambda: first.get("/healthz") is not None, 60)
    code, log = ends(second)
    assert code == 1, log
    assert f"metricsPort {first.metrics_port}" in log
    assert "Traceback" not in log


def test_the_api_sees_every_pod_and_forgets_those_that_are_gone(roles: Roles) -> None:
    """The board of the namespace has what each process says, adds nothing, and drops who no longer answers."""
    one, two = (
        roles.add("one", "detect", "--name", "watch", "--member", "m1"),
        roles.add("two", "archive", "--stream", "shop"),
    )
    roles.write_settings()
    roles.start_all()
    board = PeerBoard(f"127.0.0.1:{one.metrics_port},127.0.0.1:{two.metrics_port}", SystemClock())
    stop = threading.Event()
    thread = threading.Thread(target=board.run, args=(stop,), daemon=True)
    thread.start()
    try:
        roles.wait("both are seen", lambda: {peer.role for peer in board.peers()} == {"detect", "archive"}, 60)
        assert board.figures() == Figures()
        two.kill()
        roles.wait("one is gone", lambda: {peer.role for peer in board.peers()} == {"detect"}, 30)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_peers_that_are_no_address_are_refused() -> None:
    """A typing mistake in the settings is named, not silently without peers."""
    with pytest.raises(ValueError, match="peers: 'tidewarden-peers' is no host:port"):
        PeerBoard("tidewarden-peers", SystemClock())


def test_last_words_fit_into_what_kubernetes_keeps(tmp_path: Path) -> None:
    """At most 4 KB of valid JSON; a long list is cut and says how much is missing; no file, no words."""
    path = tmp_path / "termination-log"
    words = {"played": 1, "evaluation": [{"detector": f"detector-{n}", "precision": 0.1234} for n in range(500)]}
    write_last_words(path, words)
    assert not path.exists()
    path.touch()
    write_last_words(path, words)
    assert path.stat().st_size <= TERMINATION_BYTES
    found = json.loads(path.read_text())
    assert found["left_out"] + len(found["evaluation"]) == 500
    assert found["left_out"] > 0
    write_last_words(path, {"error": "x" * 10_000})
    assert path.stat().st_size <= TERMINATION_BYTES
    assert json.loads(path.read_text())["error"].startswith("xxx")


def test_the_command_imports_nothing_heavy_for_its_help() -> None:
    """`tidewarden run --help` and a mistake in the arguments need neither kernels nor Kafka's client."""
    code = (
        "import sys, tidewarden_cli.main, tidewarden_cli.run.command; "
        "print(sorted({'numba', 'duckdb', 'fastapi', 'pyarrow', 'confluent_kafka'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == "[]"


def test_a_detector_pod_does_without_the_web(tmp_path: Path) -> None:
    """What a detector runs on does not load the web framework or the embedded store: memory for every pod."""
    code = (
        "import sys; from tidewarden_cli.run import roles, servers, probes; import tidewarden.bus.kafka.bus, "
        "tidewarden_services.detect.service, tidewarden_services.runtime; "
        "print(sorted({'duckdb', 'fastapi', 'uvicorn', 'starlette', 'elasticsearch'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == "[]"
