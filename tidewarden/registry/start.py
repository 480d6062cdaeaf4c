"""What a detector begins with, as its resource says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

from tidewarden.credentials import secret_folder
from tidewarden.registry.opening import open_registry
from tidewarden.registry.registry import Reference
from tidewarden.resources import AnomalyDetector


class Start(NamedTuple):
    """A version, for `Scorer.begin`."""

    state: bytes
    origin: dict[str, Any]  # detector, version, reference, sha256


def start_of(
    detector: AnomalyDetector, base_dir: Path | None = None, secrets_dir: Path | None = None
) -> Callable[[], Start] | None:
    """Looks up the version that ``spec.training`` names, when it is called; None where it names none.

    Args:
        detector: whose.
        base_dir: what a relative folder of its registry is relative to.
        secrets_dir: holds one folder for each Secret.
    """
    training, name = detector.spec.training, detector.metadata.name
    if training is None:
        return None

    def load() -> Start:
        secret = None
        if training.secret_ref is not None:
            field = f"AnomalyDetector/{name} spec.training.secretRef"
            secret = secret_folder(secrets_dir, training.secret_ref.name, field)
        registry = open_registry(training.registry, base_dir, secret)
        manifest = registry.resolve(name, cast("Reference", training.reference))
        origin = {
            "detector": name,
            "version": manifest.version,
            "reference": training.from_,
            "sha256": manifest.state_sha256,
        }
        return Start(registry.state(manifest), origin)

    return load
