"""NAB with the shipped `auto`, one configuration, five seeds.

    python -m benchmarks.bench_nab [FOLDER]

FOLDER is a checkout of numenta/NAB (its ``data`` and ``labels`` are read) or laid out alike; without one
the part that Tidewarden ships (realAWSCloudwatch and realKnownCause) is scored, whose figures do not
compare with published ones. The environment variable ``NAB_FOLDER`` names it for ``python -m benchmarks``.
Each profile is given as NAB defines it and with one report in 120 points, as alerting does; ``ratio`` is
against Numenta HTM, the best detector published with NAB's own repository by its makers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np

from benchmarks.report import Result, print_table
from tidewarden.evaluate.nab import score_corpus
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden_cli.offline.corpus import REPORT_EVERY, score_corpus_folder

SEEDS = range(5)
# numenta/NAB, results/final_results.json.
NUMENTA_HTM = {"standard": 70.1, "reward_low_FP_rate": 63.1, "reward_low_FN_rate": 74.3}


def run(folder: Path | None = None) -> Iterator[Result]:
    """Mean and range over the seeds for each profile."""
    named = os.environ.get("NAB_FOLDER")
    home = folder or (Path(named) if named else Path(str(files("tidewarden_simulator") / "datasets/nab")))
    whole = folder is not None or named is not None
    name = "nab" if whole else "nab, shipped part"
    found: dict[tuple[str, str], list[float]] = {}
    for seed in SEEDS:
        spec = AnomalyDetectorSpec.model_validate({"stream": "nab", "model": {"kind": "auto", "auto": {"seed": seed}}})
        scored = score_corpus_folder(home, spec)
        for way, every in (("plain", None), (f"one report in {REPORT_EVERY}", REPORT_EVERY)):
            for score in score_corpus(scored, report_every=every):
                found.setdefault((way, score.profile), []).append(score.score)
    for (way, profile), values in found.items():
        mean = float(np.mean(values))
        subject = f"auto, {way}, {profile} ({min(values):.1f} to {max(values):.1f} over {len(values)} seeds)"
        yield Result(name, subject, mean, "NAB score", mean / NUMENTA_HTM[profile] if whole else None)


if __name__ == "__main__":
    print_table(run(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
