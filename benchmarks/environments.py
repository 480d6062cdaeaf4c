"""Virtual environments of peers whose pins collide with ours or with each other: made once, outside of the tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
INSTALL_TIMEOUT_S = 600.0


class PeerMissingError(Exception):
    """It could not be made: says what pip said."""


def python_of(name: str) -> Path:
    """The interpreter of the environment with what ``requirements/<name>.txt`` lists."""
    listed = REQUIREMENTS / f"{name}.txt"
    version = hashlib.sha256(listed.read_bytes() + sys.version.encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidewarden-bench"
    folder = cache / f"{name}-{version}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(folder)],
        [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(listed)],
    ):
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        except subprocess.CalledProcessError as error:
            raise PeerMissingError(f"{name}: {error.stderr.strip()[-300:]}") from error
    (folder / "complete").touch()
    return python
