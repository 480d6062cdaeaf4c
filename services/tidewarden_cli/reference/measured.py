"""What was measured of the models, from the files that the benchmarks write into docs: speed and accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[3] / "docs"
SPEED_COMMAND = "python -m benchmarks models --speed docs/speed.json"
SHIPPED = "shipped"
NOTHING = "–"


class Speeds(NamedTuple):
    """What ``speed.json`` says; nothing in it where the file is not there.

    Attributes:
        cpu: the processor's name, as its operating system calls it.
        readings_per_s_core: of each kind that was measured.
    """

    cpu: str
    readings_per_s_core: dict[str, float]

    @classmethod
    def read(cls, docs: Path) -> Speeds:
        """Of the file in ``docs``; KeyError names what is missing in it."""
        path = docs / "speed.json"
        if not path.exists():
            return cls("", {})
        document = json.loads(path.read_text("utf-8"))
        return cls(document["cpu"], document["readings_per_s_core"])

    def of(self, kind: str) -> str:
        """Three significant digits, or a dash where nothing was measured."""
        measured = self.readings_per_s_core.get(kind)
        return NOTHING if measured is None else f"{float(f'{measured:.3g}'):,.0f}"


class Accuracies(NamedTuple):
    """VUS-PR of scores as shipped, from ``accuracy.jsonl``; nothing in it where the file is not there.

    Attributes:
        vus_pr: by kind and set of labelled data, the mean over its files and seeds, 0 to 1.
    """

    vus_pr: dict[str, dict[str, float]]

    @classmethod
    def read(cls, docs: Path) -> Accuracies:
        """Of the file in ``docs``; KeyError names what is missing in one of its lines."""
        path = docs / "accuracy.jsonl"
        found: dict[str, dict[str, list[float]]] = {}
        for line in path.read_text("utf-8").splitlines() if path.exists() else ():
            row = json.loads(line)
            if row["variant"] == SHIPPED and row["vus_pr"] is not None:
                found.setdefault(row["model"], {}).setdefault(row["set"], []).append(row["vus_pr"])
        return cls({kind: {name: fmean(of) for name, of in sets.items()} for kind, sets in found.items()})

    def by_set(self, kind: str) -> str:
        """Two digits for each set, or nothing at all."""
        return ", ".join(f"{name} {_two_digits(value)}" for name, value in self.vus_pr.get(kind, {}).items())

    def mean(self, kind: str) -> str:
        """Over the sets; a dash unless it was measured on as many of them as any other, else nobody could compare."""
        most = max(map(len, self.vus_pr.values()), default=0)
        sets = self.vus_pr.get(kind, {})
        return _two_digits(fmean(sets.values())) if sets and len(sets) == most else NOTHING


def _two_digits(share: float) -> str:
    return f"{share:.2f}".removeprefix("0")
