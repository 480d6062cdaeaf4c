"""Results kept outside of the tree, one file each: a rerun does only what is missing."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]


class Cache:
    """Named arrays by key. A key says everything that the result depends on: detector, data, seed, code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, key: tuple[str, ...]) -> Path:
        digest = hashlib.blake2b("\x1f".join(key).encode(), digest_size=12).hexdigest()
        return self.folder / f"{digest}.npz"

    def __contains__(self, key: tuple[str, ...]) -> bool:
        return self._path(key).exists()

    def get(self, key: tuple[str, ...]) -> Arrays | None:
        """What was put under ``key``, None where nothing was."""
        path = self._path(key)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}

    def put(self, key: tuple[str, ...], arrays: Arrays) -> None:
        """Keep ``arrays`` under ``key``; a reader sees all of it or nothing, also when this process is killed."""
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the names for options
        os.replace(file.name, self._path(key))


def default_folder() -> Path:
    """Beside the environments of the peers."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tidewarden-bench" / "accuracy"
