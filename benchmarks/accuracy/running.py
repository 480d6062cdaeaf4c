"""Which detector scores which case with which seed, two at a time, and only what is not kept already."""

from __future__ import annotations

import functools
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.accuracy import contestants, judging, ours
from benchmarks.accuracy.cache import Cache
from benchmarks.accuracy.contestants import Contestant
from benchmarks.accuracy.judging import Figures
from benchmarks.accuracy.sets import Case
from benchmarks.accuracy.summary import Run

PROCESSES = 2
JUDGED = "judged"


class Outcome(NamedTuple):
    """What became of one detector on one case with one seed."""

    contestant: Contestant
    case: Case
    seed: int
    variants: dict[str, Figures]  # empty where it failed
    seconds: float  # scoring and judging; 0 or so where raw scores were kept
    failure: str = ""


def key_of(contestant: Contestant, case: Case, seed: int) -> tuple[str, ...]:
    """Everything that the figures depend on."""
    return (JUDGED, contestant.name, str(seed), case.fingerprint, contestant.version(), ours.version(), _rules())


def failure_key(key: tuple[str, ...], budget_s: float) -> tuple[str, ...]:
    """Where it is kept that a detector needs longer than this; a longer budget asks anew."""
    return (*key, "gave up", f"{budget_s:g}")


@functools.cache
def _rules() -> str:
    """Of the code that judges."""
    house = ours.HOUSE
    files = [house / "benchmarks/accuracy/judging.py", *sorted((house / "tidewarden/evaluate").glob("*.py"))]
    return contestants.digest_of(files)


def outcomes(
    wanted: Sequence[Contestant],
    cases: Sequence[Case],
    n_seeds: int,
    cache: Cache,
    budget_s: float,
    kept_only: bool = False,
) -> Iterator[Outcome]:
    """Yields every outcome, kept ones first; progress goes to stderr. kept_only: what is missing stays so."""
    missing = []
    for case in cases:
        for contestant in wanted:
            for seed in range(n_seeds if contestant.seeded else 1):
                key = key_of(contestant, case, seed)
                kept = cache.get(key) or cache.get(failure_key(key, budget_s))
                if kept is None:
                    missing.append((contestant, case, seed))
                else:
                    yield _outcome(contestant, case, seed, kept)
    if kept_only:
        return
    done = 0
    running: dict[Future[dict[str, np.ndarray]], tuple[Contestant, Case, int]] = {}
    waiting = iter(missing)
    folder = str(cache.folder)
    with ProcessPoolExecutor(PROCESSES, get_context("spawn"), _end_with_parent) as pool:
        while True:
            # A case may weigh 20 MB on its way: no more are handed out than can start soon.
            while len(running) < PROCESSES + 1 and (job := next(waiting, None)) is not None:
                running[pool.submit(work, *job, folder, budget_s)] = job
            if not running:
                return
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                contestant, case, seed = running.pop(future)
                outcome = _outcome(contestant, case, seed, future.result())
                done += 1
                said = outcome.failure or f"{outcome.seconds:.1f} s"
                print(
                    f"[{done}/{len(missing)}] {case.set}/{case.name} {contestant.name} seed {seed}: {said}",
                    file=sys.stderr,
                    flush=True,
                )
                yield outcome


def _end_with_parent() -> None:
    """A killed run leaves nothing behind: its pool would wait for work for ever, and the libraries' workers with it."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def work(contestant: Contestant, case: Case, seed: int, folder: str, budget_s: float) -> dict[str, np.ndarray]:
    """Score, judge and keep; runs in a process of its own."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # two processes share two cores
    cache = Cache(Path(folder))
    start = time.perf_counter()
    try:
        variants = contestant.score(case, seed, cache, budget_s)
    except contestants.GaveUpError as gave_up:
        arrays = {"failure": np.array(str(gave_up)), "seconds": np.array(time.perf_counter() - start)}
        if gave_up.keep:
            cache.put(failure_key(key_of(contestant, case, seed), budget_s), arrays)
        return arrays
    arrays = {"seconds": np.array(time.perf_counter() - start)}
    for variant, scored in variants.items():
        for name, array in judging.judge(case, scored)._asdict().items():
            arrays[f"{variant}/{name}"] = array
    cache.put(key_of(contestant, case, seed), arrays)
    return arrays


def _outcome(contestant: Contestant, case: Case, seed: int, kept: dict[str, np.ndarray]) -> Outcome:
    if "failure" in kept:
        return Outcome(contestant, case, seed, {}, float(kept["seconds"]), str(kept["failure"]))
    names = dict.fromkeys(name.partition("/")[0] for name in kept if "/" in name)
    variants = {one: Figures(*(kept[f"{one}/{field}"] for field in Figures._fields)) for one in names}
    return Outcome(contestant, case, seed, variants, float(kept["seconds"]))


def by_case(found: Sequence[Outcome], contestant: Contestant, variant: str, cases: Sequence[Case]) -> list[Run] | None:
    """Figures by seed for each case, None where one is missing: a mean over fewer files would not compare."""
    runs: list[Run] = []
    for case in cases:
        run: Run = {
            one.seed: one.variants[variant]
            for one in found
            if one.contestant.name == contestant.name and one.case is case and variant in one.variants
        }
        if not run:
            return None
        runs.append(run)
    seeds = set.intersection(*(set(run) for run in runs))
    return [{seed: run[seed] for seed in sorted(seeds)} for run in runs] if seeds else None
