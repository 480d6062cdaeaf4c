"""``python -m benchmarks.calibration [--kinds a,b] [--output FILE]``: are p-values what they claim, and budgets kept?

Five families of series without anomalies, every kind of model, the whole scorer. What is learned in the first days
does not count. Two questions for each kind and family:

* the share of readings with p <= 0.1, 0.01 and 0.001, over that number: 1 is calibrated, less is careful;
* anomalies that were opened, over what the budget allows, with the upper end of the 95 % interval of a Poisson count.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tidewarden.drift.model import poisson_quantile
from tidewarden.frames import FloatArray, Frame, SeriesKey, SeriesTable
from tidewarden.models.registry import kinds
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.scoring.scorer import Scorer, ScorerConfig

STEP_MS = 300_000
DAY = 288  # readings
LEARNED, JUDGED = 4, 10  # days
SERIES = 100
BUDGET = 10  # false alarms a day, of all series
LEVELS = (0.1, 0.01, 0.001)
FAMILIES = ("noise", "wave", "slow", "counts", "heavy")
NOT_JUDGED = {"static": "has limits that a person gives", "ensemble": "is as its members are"}


def calm(family: str, n: int, n_series: int, seed: int) -> FloatArray:
    """Readings (n, n_series) without anomalies: white noise; a daily wave with noise; a slow AR(0.95); Poisson counts
    of a daily rhythm; log-normal values, whose largest are far away."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(n, n_series))
    phase = rng.uniform(0, 2 * np.pi, n_series)
    wave = np.sin(2 * np.pi * np.arange(n)[:, None] / DAY + phase)
    if family == "wave":
        return 100 + 20 * wave + 5 * noise
    if family == "slow":
        slow = np.zeros((n, n_series))
        for i in range(1, n):
            slow[i] = 0.95 * slow[i - 1] + noise[i]
        return 100 + 5 * slow
    if family == "counts":
        return rng.poisson(np.exp(1.5 + 0.7 * wave)).astype(float)
    return 100 + 5 * noise if family == "noise" else np.exp(0.8 * noise)


def judge(kind: str, family: str, seed: int) -> dict[str, Any]:
    """Shares of small p-values and anomalies of one kind on one family."""
    table = SeriesTable(SeriesKey("calm", family, f"n{i // 4}", f"m{i % 4}") for i in range(SERIES))
    spec = {
        "stream": "calm", "model": {"kind": kind}, "alerting": {"budget": f"{BUDGET}/day"}, "drift": {"watch": False}
    }  # fmt: skip
    config = ScorerConfig("watch", "calm", AnomalyDetectorSpec.model_validate(spec), STEP_MS, STEP_MS)
    scorer = Scorer(config, table)
    values = calm(family, (LEARNED + JUDGED) * DAY, SERIES, seed)
    p_values, opened = [], set()
    for day in range(LEARNED + JUDGED):
        part = values[day * DAY : (day + 1) * DAY]
        at = np.repeat(np.arange(day * DAY, (day + 1) * DAY, dtype=np.int64) * STEP_MS, SERIES)
        scored = scorer.score(Frame(table, np.tile(np.arange(SERIES, dtype=np.int32), DAY), at, part.ravel().copy()))
        if day >= LEARNED:
            p_values.append(scored.scores.p_value)
            opened |= {anomaly.id for anomaly in scored.anomalies if anomaly.revision == 1}
    p = np.concatenate(p_values)
    return {
        "kind": kind, "family": family, "seed": seed, "readings": len(p),
        "ratios": [round(float((p <= level).mean() / level), 3) for level in LEVELS],
        "anomalies": len(opened), "allowed": BUDGET * JUDGED, "most": poisson_quantile(BUDGET * JUDGED, 0.975),
    }  # fmt: skip


def page(results: list[dict[str, Any]]) -> str:
    """The results as a page: a row a kind, a column a family."""
    by = {(result["kind"], result["family"]): result for result in results}
    names = sorted({result["kind"] for result in results})
    allowed, most = results[0]["allowed"], results[0]["most"]
    head = f"|  | {' | '.join(FAMILIES)} |\n|---|{'---:|' * len(FAMILIES)}"
    lines = [
        "# Calibration",
        "",
        "Made by `python -m benchmarks.calibration`; its figures are in the JSON lines beside this page.",
        "",
        f"Series without anomalies ({SERIES} of each family, readings every {STEP_MS // 60_000} minutes;",
        f"{LEARNED} days to learn, then {JUDGED} days that count), through the whole scorer: white noise, a daily wave",
        "with noise, a slow AR(0.95), counts of a daily rhythm, log-normal values.",
        "",
        "## Budgets",
        "",
        f"Anomalies that were opened; {allowed} are allowed, and {most} are the upper end of the 95 % interval of a",
        "Poisson count of that. **Bold**: more than that.",
        "",
        head,
    ]
    for name in names:
        counts = [by[name, family]["anomalies"] for family in FAMILIES]
        lines.append(f"| `{name}` | {' | '.join(f'**{n}**' if n > most else str(n) for n in counts)} |")
    lines += [
        "",
        "## p-values",
        "",
        "Share of readings with p ≤ 0.1 / 0.01 / 0.001, over that number: 1 is calibrated, less is careful.",
        "",
        head,
    ]
    for name in names:
        shares = [" / ".join(f"{ratio:.2g}" for ratio in by[name, family]["ratios"]) for family in FAMILIES]
        lines.append(f"| `{name}` | {' | '.join(shares)} |")
    lines += ["", *(f"`{name}` {why}, and is left out." for name, why in NOT_JUDGED.items()), ""]
    return "\n".join(lines)


def _all(names: list[str]) -> Iterator[dict[str, Any]]:
    for name in names:
        for family in FAMILIES:
            yield judge(name, family, seed=7)


def main() -> None:
    """Print a JSON line as soon as a figure is there; write page and lines where an output is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--kinds", help="kinds of model, comma-separated; default: all")
    parser.add_argument("--output", type=Path, help="page to write, as docs/calibration.md; its lines go beside it")
    arguments = parser.parse_args()
    chosen = arguments.kinds.split(",") if arguments.kinds else [k for k in kinds() if k not in NOT_JUDGED]
    results = []
    for result in _all(chosen):
        print(json.dumps(result), flush=True)
        results.append(result)
    if arguments.output:
        arguments.output.write_text(page(results))
        lines = "".join(json.dumps(result) + "\n" for result in results)
        arguments.output.with_suffix(".jsonl").write_text(lines)


if __name__ == "__main__":
    main()
