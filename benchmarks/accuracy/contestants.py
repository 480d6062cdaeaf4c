"""Who is compared: our models, and libraries a user might pick instead, behind one face."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.accuracy import ours
from benchmarks.accuracy.cache import Cache
from benchmarks.accuracy.judging import Scored
from benchmarks.accuracy.sets import Case


class GaveUpError(Exception):
    """A detector has no scores for a case: says why. keep: the same would happen again."""

    def __init__(self, reason: str, keep: bool = True) -> None:
        super().__init__(reason)
        self.keep = keep


class Contestant(Protocol):
    """A detector that can be asked for scores."""

    @property
    def name(self) -> str:
        """As in the table and for ``--models``."""
        ...

    @property
    def seeded(self) -> bool:
        """Scores depend on a seed."""
        ...

    @property
    def is_ours(self) -> bool:
        """Tidewarden's own."""
        ...

    def version(self) -> str:
        """Of the code behind it, beside what calibrates and judges."""
        ...

    def score(self, case: Case, seed: int, cache: Cache, budget_s: float) -> dict[str, Scored]:
        """Scores of the rows of ``case.values``, by variant; GaveUpError where there are none."""
        ...


@dataclass(frozen=True, slots=True)
class Own:
    """One of Tidewarden's models with its defaults."""

    name: str
    is_ours: bool = True

    @property
    def seeded(self) -> bool:
        """It has a parameter of this name."""
        return ours.is_seeded(self.name)

    def version(self) -> str:
        """All of it is in `ours.version`, which every key has."""
        return ""

    def score(self, case: Case, seed: int, cache: Cache, budget_s: float) -> dict[str, Scored]:  # noqa: ARG002 - as Contestant; ours are quick
        """See `ours.score_case`."""
        return ours.score_case(case, self.name, seed)


@functools.cache
def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def digest_of(files: Iterable[Path]) -> str:
    """Of the contents of source files."""
    return _digest(tuple(files))


def own() -> list[Contestant]:
    """Every model of ours."""
    return [Own(kind) for kind in ours.kinds()]


def known() -> list[Contestant]:
    """Everyone."""
    from benchmarks.accuracy.peer import peers  # it needs this module's error and face

    return [*own(), *peers()]
