"""A real Kafka for the tests: what is missing is fetched once, what is started is stopped.

It runs from the jars that its project publishes to Maven Central; they are kept outside of the source
tree. Where Java or Maven is missing, or nothing can be fetched, the tests say so and are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from servers.processes import bound_to_us, free_ports

KAFKA_VERSION = "4.3.1"
KAFKA_JARS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4")
FETCH_TIMEOUT_S = 280  # 44 MB; below the tests' own limit, so that a slow mirror skips instead of failing
START_TIMEOUT_S = 120  # 4 s on an idle machine, 20 s on one with much else to do
JVM = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class KafkaServer:
    """One Kafka node (KRaft, broker and controller in one) on free loopback ports.

    Stopping it with `kill` and starting it again keeps its ports and its data. Start it on the main
    thread: where the system allows, it ends with the thread that started it.

    Args:
        jars: folder with Kafka's jars.
        home: folder of its own, for settings, log and data.
        listeners: security protocols to speak besides PLAINTEXT; their addresses are in `addresses`.
        settings: further settings of the server, keys and logins for these listeners for example.
        scram: credentials to begin with, as ``SCRAM-SHA-512=[name=…,password=…]``.
    """

    def __init__(
        self,
        jars: Path,
        home: Path,
        *,
        listeners: Sequence[str] = (),
        settings: Mapping[str, object] | None = None,
        scram: str | None = None,
    ) -> None:
        self._java = [*bound_to_us(), "java", *JVM, f"-Dlog4j2.configurationFile={home / 'log4j2.properties'}"]
        self._java += ["-cp", str(jars / "*")]
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        controller, *ports = free_ports(2 + len(listeners))
        protocols = dict(zip(("PLAINTEXT", *listeners), ports, strict=True))
        self.addresses = {protocol: f"127.0.0.1:{port}" for protocol, port in protocols.items()}
        self.address = self.addresses["PLAINTEXT"]
        (home / "log4j2.properties").write_text(_LOGGING)
        all_settings = _settings(self.addresses, controller, home / "data") | dict(settings or {})
        lines = "".join(f"{name}={value}\n" for name, value in all_settings.items())
        (home / "server.properties").write_text(lines)
        # Fixed: one id in 64 drawn at random begins with "-", which the tool takes for an option.
        cluster = urlsafe_b64encode(b"tidewarden-tests").decode().rstrip("=")
        storage = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(home / "server.properties")]
        command = [*self._java, *storage, "--ignore-formatted", *(["--add-scram", scram] if scram else [])]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        if done.returncode:
            told = (done.stdout + done.stderr)[-2_000:]
            raise RuntimeError(f"Kafka's storage could not be formatted (exit {done.returncode}):\n{told}")

    def start(self) -> None:
        """Start it and wait until it answers."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        with (self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._java, "kafka.Kafka", str(self._home / "server.properties")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
        while True:
            try:
                admin.list_topics(timeout=1)
                return
            except KafkaException:
                ended = self._process.poll() is not None
                if ended or time.monotonic() > deadline:
                    self.kill()
                    told = (self._home / "server.log").read_text(errors="replace")[-2_000:]
                    raise RuntimeError(f"Kafka did not come up; its log ends with:\n{told}") from None

    def kill(self) -> None:
        """Kill it as a crash would; nothing is flushed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def stop(self) -> None:
        """Stop it in order, or kill it after ten seconds."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None


@pytest.fixture(scope="session")
def kafka_jars() -> Path:
    """Folder with Kafka's jars, fetched by Maven the first time."""
    return jars()


def jars() -> Path:
    """The same outside of a test, for an image, say."""
    missing = [program for program in ("java", "mvn") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"a real Kafka needs {' and '.join(missing)} on the PATH")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidewarden-tests"
    kept = cache / f"kafka-{KAFKA_VERSION}"
    if not kept.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            _fetch(Path(scratch))
            try:
                (Path(scratch) / "jars").rename(kept)
            except OSError:  # another test run was faster
                assert kept.is_dir()
    return kept


@pytest.fixture(scope="session")
def kafka_server(kafka_jars: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """A running Kafka for all tests of the session; use topics of your own."""
    server = KafkaServer(kafka_jars, tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_kafka_server(kafka_jars: Path, tmp_path: Path) -> Iterator[KafkaServer]:
    """A running Kafka for one test, which may kill it and start it again."""
    server = KafkaServer(kafka_jars, tmp_path)
    server.start()
    yield server
    server.stop()


def _fetch(folder: Path) -> None:
    dependencies = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
            *map(escape, jar.split(":"))
        )
        for jar in KAFKA_JARS
    )
    (folder / "pom.xml").write_text(
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>dev.tidewarden</groupId><artifactId>kafka-for-tests</artifactId><version>1</version>"
        f"<dependencies>{dependencies}</dependencies></project>"
    )
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder / 'jars'}"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"Kafka's jars could not be fetched within {FETCH_TIMEOUT_S} s")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"Kafka's jars could not be fetched: {error.stdout.strip()[-300:]}")


def _settings(addresses: Mapping[str, str], controller: int, data: Path) -> dict[str, object]:
    listeners = ",".join(f"{protocol}://{address}" for protocol, address in addresses.items())
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": ",".join(f"{name}:{name}" for name in addresses) + ",CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        "num.partitions": 3,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
    }


_LOGGING = """\
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1} %m%n
"""
