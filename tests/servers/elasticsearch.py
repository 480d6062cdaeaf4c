"""A real Elasticsearch for the tests: what is missing is fetched once, what is started is stopped.

It runs from the jars that its project publishes to Maven Central, with the launcher and the plugin in the
folder beside this file; both are kept outside of the source tree. Where Java or Maven is missing, or
nothing can be fetched, the tests say so and are skipped.

``python tests/servers/elasticsearch.py FOLDER`` assembles the same server in FOLDER, for an image, say.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

VERSION = "8.19.21"
JARS = (f"org.elasticsearch:elasticsearch:{VERSION}", f"org.elasticsearch.plugin:transport-netty4:{VERSION}")
# The network module has a class loader of its own; its jars must not lie in lib as well.
NETWORK = ("transport-netty4-", "netty-", "elasticsearch-ssl-config-")
SOURCES = Path(__file__).parent / "elasticsearch"
FETCH_TIMEOUT_S = 280  # 41 MB; below the tests' own limit, so that a slow mirror skips instead of failing
START_TIMEOUT_S = 90  # 4 s on an idle machine
JVM = "-Xms384m -Xmx384m -XX:TieredStopAtLevel=1"


class MissingError(Exception):
    """The server cannot be assembled on this machine: says what is missing."""


class ElasticsearchServer:
    """One Elasticsearch node on a free loopback port.

    Stopping it with `kill` and starting it again keeps its port and its data. Start it on the main
    thread: where the system allows, it ends with the thread that started it.
    """

    def __init__(self, home: Path, folder: Path) -> None:
        self._command = [*_bound_to_us(), str(home / "bin" / "elasticsearch")]
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        from servers.processes import free_ports  # not above: as a program, this file stands alone

        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        config = folder / "config"
        config.mkdir(parents=True)
        (config / "elasticsearch.yml").write_text(
            "network.host: 127.0.0.1\n"
            f"http.port: {port}\n"
            "transport.port: 0\n"
            "discovery.type: single-node\n"
            f"path.data: {folder / 'data'}\n"
            f"path.logs: {folder / 'logs'}\n"
            # A nearly full disk of the machine is no reason to refuse a test's few megabytes.
            "cluster.routing.allocation.disk.threshold_enabled: false\n"
        )
        self._environment = {"PATH": os.environ["PATH"], "ES_PATH_CONF": str(config), "ES_JAVA_OPTS": JVM}

    def start(self) -> None:
        """Start it and wait until it answers and has found its data."""
        log = self._folder / "server.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(self._command, stdout=out, stderr=out, env=self._environment)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                told = log.read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"Elasticsearch did not come up; its log ends with:\n{told}")

    def _answers(self) -> bool:
        # Primary shards of all indices: yellow is as healthy as one node gets.
        health = f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=1s"
        try:
            with urllib.request.urlopen(health, timeout=5) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False
        except OSError:
            time.sleep(0.05)  # the port is closed: it answers at once, so this paces the asking
            return False

    @property
    def pid(self) -> int:
        """Process id, of a server that was started."""
        assert self._process is not None
        return self._process.pid

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
def elasticsearch_home() -> Path:
    """Folder with the server's program, assembled the first time."""
    try:
        return home()
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def elasticsearch_server(
    elasticsearch_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ElasticsearchServer]:
    """A running Elasticsearch for all tests of the session; use a prefix of your own."""
    server = ElasticsearchServer(elasticsearch_home, tmp_path_factory.mktemp("elasticsearch"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_elasticsearch_server(elasticsearch_home: Path, tmp_path: Path) -> Iterator[ElasticsearchServer]:
    """A running Elasticsearch for one test, which may kill it and start it again."""
    server = ElasticsearchServer(elasticsearch_home, tmp_path / "elasticsearch")
    server.start()
    yield server
    server.stop()


def home() -> Path:
    """The server's program in the cache of this machine, assembled the first time.

    Raises:
        MissingError: Java or Maven is missing, or nothing can be fetched.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidewarden-tests"
    ours = hashlib.blake2b(b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir())), digest_size=4)
    kept = cache / f"elasticsearch-{VERSION}-{ours.hexdigest()}"
    if not kept.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = Path(scratch) / "home"
            assemble(made)
            try:
                made.rename(kept)
            except OSError:  # another test run was faster
                assert kept.is_dir()
    return kept


def assemble(folder: Path) -> None:
    """Put a whole server into ``folder``: bin/elasticsearch, lib, modules, config.

    Raises:
        MissingError: Java or Maven is missing, or nothing can be fetched.
    """
    missing = [program for program in ("java", "javac", "mvn") if shutil.which(program) is None]
    if missing:
        raise MissingError(f"a real Elasticsearch needs {' and '.join(missing)} on the PATH")
    lib, network = folder / "lib", folder / "modules" / "transport-netty4"
    for made in (lib, network, folder / "plugins", folder / "config", folder / "bin"):
        made.mkdir(parents=True, exist_ok=True)
    _fetch(lib)
    for jar in [jar for jar in lib.iterdir() if jar.name.startswith(NETWORK)]:
        jar.rename(network / jar.name)
    described = "META-INF/es-plugins/transport-netty4/plugin-descriptor.properties"
    with zipfile.ZipFile(network / f"transport-netty4-{VERSION}.jar") as jar_file:
        lines = jar_file.read(described).decode().splitlines()
    # Without the name of its module it is loaded from the class path, where the server is too.
    kept = [line for line in lines if not line.startswith("modulename=")]
    (network / "plugin-descriptor.properties").write_text("\n".join(kept))
    _compile(folder)
    program = folder / "bin" / "elasticsearch"
    shutil.copyfile(SOURCES / "elasticsearch", program)
    program.chmod(0o755)
    (folder / "config" / "elasticsearch.yml").write_text("network.host: 127.0.0.1\n")


def _compile(folder: Path) -> None:
    root = folder / "modules" / "root"
    root.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        for source, jar in (("Launcher", folder / "lib" / "launcher.jar"), ("RootPlugin", root / "root.jar")):
            classes = Path(scratch) / source
            command = ["javac", "-nowarn", "-cp", str(folder / "lib" / "*"), "-d", str(classes)]
            command.append(str(SOURCES / f"{source}.java"))
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
            if done.returncode:
                raise RuntimeError(f"{source}.java does not compile:\n{done.stderr[-2_000:]}")
            with zipfile.ZipFile(jar, "w") as made:
                for path in sorted(classes.rglob("*.class")):
                    made.write(path, path.relative_to(classes).as_posix())
    (root / "plugin-descriptor.properties").write_text(
        "description=Answers GET /\nname=root\nclassname=dev.tidewarden.elasticsearch.RootPlugin\n"
        f"version={VERSION}\nelasticsearch.version={VERSION}\njava.version=17\n"
    )


def _fetch(folder: Path) -> None:
    dependencies = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
            *map(escape, jar.split(":"))
        )
        for jar in JARS
    )
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "pom.xml").write_text(
            '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
            "<groupId>dev.tidewarden</groupId><artifactId>elasticsearch-for-tests</artifactId><version>1</version>"
            f"<dependencies>{dependencies}</dependencies></project>"
        )
        command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder.resolve()}"]
        try:
            subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise MissingError(f"Elasticsearch's jars could not be fetched within {FETCH_TIMEOUT_S} s") from None
        except subprocess.CalledProcessError as error:
            raise MissingError(f"Elasticsearch's jars could not be fetched: {error.stdout.strip()[-300:]}") from error


def _bound_to_us() -> list[str]:
    """What ends a server together with the thread that starts it, even if this process is killed."""
    return ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
