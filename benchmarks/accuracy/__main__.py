"""``python -m benchmarks.accuracy --data FOLDER``: the table of accuracy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.accuracy import contestants, running, table
from benchmarks.accuracy.cache import Cache, default_folder
from benchmarks.accuracy.contestants import Contestant
from benchmarks.accuracy.running import Outcome
from benchmarks.accuracy.sets import SETS, Case
from benchmarks.accuracy.summary import confusion, summarise
from benchmarks.accuracy.table import Row

PAGE = Path("docs/accuracy.md")
SEEDS = 5
# A file of NAB has 6,300 readings on average: what scores fewer than 50 a second is left out, and said to be.
BUDGET_S = 120.0


def main() -> None:
    """Score what is missing, print the table, and write it where it is whole or wanted."""
    options = _options()
    wanted = _chosen(options.models)
    chosen_sets = options.sets.split(",") if options.sets else list(SETS)
    for name in chosen_sets:
        if name not in SETS:
            sys.exit(f"--sets {name!r} is not a set; there are: {', '.join(SETS)}")
    seeds = options.seeds or (1 if options.quick else SEEDS)
    cases: dict[str, list[Case]] = {name: list(SETS[name](options.data, options.quick)) for name in chosen_sets}
    every = [case for name in chosen_sets for case in cases[name]]
    found = list(running.outcomes(wanted, every, seeds, Cache(options.cache), options.budget_s, options.kept))
    rows, failures = _rows(found, wanted, cases)
    confusions = _confusions(found, wanted, cases)
    page = table.markdown(rows, confusions, failures, _about(options, seeds))
    print(page)
    output = options.output
    if output is None and not (options.quick or options.models or options.sets):
        output = PAGE
    if output is not None:
        output.write_text(page)
        output.with_suffix(".jsonl").write_text(table.json_lines(found))
        print(f"written: {output}, {output.with_suffix('.jsonl')}", file=sys.stderr)


def _options() -> argparse.Namespace:
    known = ", ".join(one.name for one in contestants.known())
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=Path("../shared/data"), help="folder with nab, asd, jumpstarter, smd")
    add("--models", help=f"comma-separated: ours, peers, or {known}")
    add("--sets", help=f"comma-separated: {', '.join(SETS)}")
    add("--quick", action="store_true", help="a fixed sample of each set, one seed")
    add("--seeds", type=int, help=f"of models that have one; default {SEEDS}, with --quick 1")
    add("--budget-s", type=float, default=BUDGET_S, help="CPU seconds that a peer gets for one file")
    add("--cache", type=Path, default=default_folder(), help="where results are kept, outside of the tree")
    add("--kept", action="store_true", help="score nothing: the table of what earlier runs have kept")
    add("--output", type=Path, help=f"page to write, and JSON lines beside; default: {PAGE} if nothing is left out")
    return parser.parse_args()


def _chosen(names: str | None) -> list[Contestant]:
    known = {one.name: one for one in contestants.known()}
    groups = {
        "ours": [n for n, c in known.items() if c.is_ours],
        "peers": [n for n, c in known.items() if not c.is_ours],
    }
    chosen: dict[str, Contestant] = {}
    for name in names.split(",") if names else known:
        for one in groups.get(name, [name]):
            if one not in known:
                sys.exit(f"--models {one!r} is not known; there are: ours, peers, {', '.join(known)}")
            chosen[one] = known[one]
    return list(chosen.values())


def _rows(found: list[Outcome], wanted: list[Contestant], cases: dict[str, list[Case]]) -> tuple[list[Row], list[str]]:
    rows, failures = [], []
    for name, here in cases.items():
        for contestant in wanted:
            mine = [one for one in found if one.contestant.name == contestant.name and one.case.set == name]
            for variant in dict.fromkeys(variant for one in mine for variant in one.variants):
                runs = running.by_case(mine, contestant, variant, here)
                if runs is not None:
                    rows.append(Row(name, contestant.name, variant, contestant.is_ours, summarise(here, runs)))
            lost = [one for one in mine if one.failure]
            if lost:
                files = len({one.case.name for one in lost})
                failures.append(f"{contestant.name} on {name}: {lost[0].failure} ({files} of {len(here)} files)")
    return rows, failures


def _confusions(
    found: list[Outcome], wanted: list[Contestant], cases: dict[str, list[Case]]
) -> dict[str, dict[tuple[int, int], int]]:
    """Of our models that were asked for, on the set made for it."""
    counts = {}
    for contestant in wanted:
        runs = running.by_case(found, contestant, "shipped", cases["kinds"]) if "kinds" in cases else None
        if contestant.is_ours and runs is not None:
            counts[contestant.name] = confusion(runs)
    return counts


def _about(options: argparse.Namespace, seeds: int) -> str:
    again = "python -m benchmarks.accuracy --data FOLDER" + (" --quick" if options.quick else "")
    return ABOUT.format(again=again, seeds=seeds, budget=options.budget_s)


ABOUT = """\
Made by `{again}`; the figures of every file are in the JSON lines beside this page.
Settings may be chosen on `asd`, `jumpstarter`, `smd` and the simulations (`fleets`, `kinds`); `nab` is reported only.

- Sets named `-cold` and `nab`, `fleets`, `kinds` start cold, and nothing counts before 15 % of the rows (at most
  750) are over; the others learn from their clean train file first. Each reading is judged by what came before it.
- `asd`, `jumpstarter`, `smd` label a node, not its metrics. **Ours** are the node's score as shipped; "metrics only"
  is the mean of the three most unusual metrics, without the look at all of them together. Libraries that take vectors
  get the node's rows, the others each metric, and the mean of the three most unusual counts.
- Libraries' raw scores go through the same calibration, missing-reading rule and threshold as ours; "raw" is without.
  Batch libraries are fitted every 500 rows on the last 2,000, and "fitted on train only" where there is a train file.
- AUC-PR and VUS-PR: mean over files (over series in `fleets`, `kinds`), [95 % bootstrap interval over them]
  ± deviation over {seeds} seeds; "mean of 15": of the trailing mean of 15 scores.
- Events: the lowest threshold at which the whole set has one false alarm a week and series (or node); "at budget":
  the threshold which that budget asks for by itself. Delay: median, in readings.
- A library that needs more than {budget:g} s of CPU for a file is left out of that set.
- NAB: each profile as published, and with one report in 120 points, as alerting does."""


if __name__ == "__main__":
    main()
