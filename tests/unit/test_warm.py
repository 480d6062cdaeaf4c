"""The fleet whose play compiles the kernels."""

from __future__ import annotations

from pathlib import Path

from tidewarden.models.registry import kinds
from tidewarden.resources.loader import load
from tidewarden.resources.models import PARAMETERS
from tidewarden_cli.warm import fleet


def test_every_kind_is_warmed(tmp_path: Path) -> None:
    """The fleet is valid and has a detector of every kind that can be chosen, plug-ins included."""
    path = tmp_path / "warm.yaml"
    path.write_text(fleet())
    chosen = sorted(detector.spec.model.kind for detector in load([path]).detectors)
    assert chosen == kinds()
    assert set(PARAMETERS) <= set(chosen)
