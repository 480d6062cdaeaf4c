"""A real S3 server for the tests: Versity's gateway over a folder, built once by Go from its module.

It is kept outside of the source tree. Where Go is missing, or the module cannot be fetched, the tests say so and
are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers.processes import bound_to_us, free_ports

VERSION = "v1.8.0"
MODULE = f"github.com/versity/versitygw/cmd/versitygw@{VERSION}"
BUILD_TIMEOUT_S = 280  # below the tests' own limit, so that a slow machine skips instead of failing; 60 s on two cores
START_TIMEOUT_S = 30
ACCESS, SECRET = "tests", "tests-only"  # loopback, random port, gone with the test
BUCKET = "models"


class S3Server:
    """One gateway on a loopback port, with an empty bucket called `BUCKET`. Its disk is a folder."""

    def __init__(self, program: Path, home: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.folder = home / "data"
        (self.folder / BUCKET).mkdir(parents=True)
        command = [*bound_to_us(), str(program), "--port", f"127.0.0.1:{port}", "--access", ACCESS, "--secret", SECRET]
        self._log = home / "server.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*command, "posix", str(self.folder)], stdout=log, stderr=log)

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=2).close()
            except urllib.error.HTTPError:  # refused without credentials: it is there
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"the S3 server did not come up:\n{self._log.read_text()[-2_000:]}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(10)


def gateway() -> Path:
    """The program, built where it is not there yet; skips where that is not possible."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidewarden-tests" / f"versitygw-{VERSION}"
    program = cache / "versitygw"
    if program.exists():
        return program
    if shutil.which("go") is None:
        pytest.skip("an S3 server needs Go to be built")
    cache.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=cache.parent))
    try:
        done = subprocess.run(
            ["go", "install", MODULE],
            env={**os.environ, "GOBIN": str(fresh)},
            check=False, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"the S3 server could not be built: {done.stderr[-500:]}")
        cache.mkdir(exist_ok=True)
        (fresh / "versitygw").replace(program)
    except subprocess.TimeoutExpired:
        pytest.skip(f"the S3 server was not built within {BUILD_TIMEOUT_S} s")
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return program


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """One S3 server for all tests of the session."""
    server = S3Server(gateway(), tmp_path_factory.mktemp("s3"))
    server.wait()
    yield server
    server.stop()
