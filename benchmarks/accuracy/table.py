"""The table in Markdown, and JSON lines with the figures of every file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.accuracy.judging import SMOOTH
from benchmarks.accuracy.running import Outcome
from benchmarks.accuracy.summary import Estimate, Summary, paired
from tidewarden.events import AnomalyKind


class Row(NamedTuple):
    """One detector on one set."""

    set: str
    name: str
    variant: str
    is_ours: bool
    summary: Summary

    @property
    def label(self) -> str:
        """As in the table."""
        plain = self.variant in ("shipped", "calibrated")
        name = f"**{self.name}**" if self.is_ours else self.name
        return name if plain else f"{name}, {self.variant.removeprefix('calibrated, ')}"


def markdown(
    rows: Sequence[Row], confusions: dict[str, dict[tuple[int, int], int]], failures: Sequence[str], about: str
) -> str:
    """The page."""
    sets = list(dict.fromkeys(row.set for row in rows))
    lines = ["# Accuracy", "", about, ""]
    lines += _overview(rows, sets)
    for name in sets:
        here = sorted((row for row in rows if row.set == name), key=lambda row: -_sortable(row.summary.vus_pr.mean))
        lines += ["", f"## {name}", ""]
        lines += _curves(here)
        if any(row.summary.nab for row in here):
            lines += ["", *_nab(here)]
        if name in ("fleets", "kinds"):
            lines += ["", *_kinds(here)]
    for name, counts in confusions.items():
        lines += ["", f"## Kinds, as {name} names them", "", *_confusion(counts)]
    if failures:
        lines += ["", "## Without a figure", "", *(f"- {failure}" for failure in failures)]
    return "\n".join(lines) + "\n"


def _sortable(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _cell(value: float, digits: int = 3) -> str:
    if math.isnan(value):
        return "–"
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def _interval(one: Estimate, digits: int = 3) -> str:
    if math.isnan(one.mean):
        return "–"
    text = f"{_cell(one.mean, digits)} [{_cell(one.low, digits)}, {_cell(one.high, digits)}]"
    return f"{text} ±{_cell(one.seeds_sd, digits)}" if one.seeds_sd >= 0.5 * 10**-digits else text


def _table(heads: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "|".join(["---"] + ["---:"] * (len(heads) - 1)) + "|"]
    return lines + ["| " + " | ".join(cells) + " |" for cells in body]


def _overview(rows: Sequence[Row], sets: Sequence[str]) -> list[str]:
    """VUS-PR / AUC-PR of every detector on every set, the best of each set in bold; a library by its best variant."""
    nothing = (-1.0, -1.0)
    cells: dict[str, dict[str, tuple[float, float]]] = {}
    for row in rows:
        here = cells.setdefault(row.label if row.is_ours else row.name, {})
        before = here.get(row.set, nothing)
        pair = (_sortable(row.summary.vus_pr.mean), _sortable(row.summary.auc_pr.mean))
        here[row.set] = (max(before[0], pair[0]), max(before[1], pair[1]))
    best = {name: [max(here.get(name, nothing)[at] for here in cells.values()) for at in (0, 1)] for name in sets}
    body = [
        [label, *(_pair(here[name], best[name]) if name in here else "" for name in sets)]
        for label, here in cells.items()
    ]
    title = (
        "VUS-PR / AUC-PR of the score as it is; of a library the best of its variants, for each set and figure anew:"
    )
    return [title, "", *_table(["", *sets], body)]


def _pair(values: tuple[float, float], best: Sequence[float]) -> str:
    """Both figures, bold where they are the best; – where there is none."""
    texts = ("–" if value < 0.0 else f"**{_cell(value)}**" if value == top else _cell(value)
             for value, top in zip(values, best, strict=True))  # fmt: skip
    return " / ".join(texts)


def _curves(here: Sequence[Row]) -> list[str]:
    heads = [
        "", "AUC-PR", "VUS-PR", f"AUC-PR, mean of {SMOOTH}", f"VUS-PR, mean of {SMOOTH}",
        "recall at 1 false alarm a week", "F1 there", "delay there", "F1 at budget", "false alarms a week at budget",
        "files × seeds",
    ]  # fmt: skip
    body = []
    for row in here:
        one = row.summary
        cells = [row.label, _interval(one.auc_pr), _interval(one.vus_pr)]
        cells += [_cell(one.auc_pr_smooth.mean), _cell(one.vus_pr_smooth.mean)]
        if one.at_rate is None or one.at_budget is None:
            cells += ["–"] * 5
        else:
            cells += [_interval(one.at_rate.recall, 2), _cell(one.at_rate.f1, 2), _cell(one.at_rate.delay, 0)]
            cells += [_cell(one.at_budget.f1, 2), _cell(one.at_budget.false_alarms_per_week, 2)]
        body.append([*cells, f"{one.files} × {one.seeds}"])
    lines = _table(heads, body)
    best_own = next((row for row in here if row.is_ours and row.name == "auto" and row.variant == "shipped"), None)
    peers = [row for row in here if not row.is_ours and not math.isnan(row.summary.vus_pr.mean)]
    if best_own is not None and peers:
        lines.append("")
        for title, at, mean in (("VUS-PR", "vus_by_unit", "vus_pr"), ("AUC-PR", "auc_by_unit", "auc_pr")):
            best = max(peers, key=lambda row: getattr(row.summary, mean).mean)
            gap = paired(getattr(best_own.summary, at), getattr(best.summary, at))
            lines.append(f"`auto` against {best.label}, the best library here in {title}: {gap.mean:+.3f} "
                         f"[{gap.low:+.3f}, {gap.high:+.3f}].")  # fmt: skip
    return lines


def _nab(here: Sequence[Row]) -> list[str]:
    profiles = list(here[0].summary.nab)
    heads = ["NAB", *(name.replace("_", " ") for name in profiles)]
    ranked = sorted(here, key=lambda row: -row.summary.nab[profiles[0]].mean)
    return _table(heads, [[row.label, *(_interval(row.summary.nab[name], 1) for name in profiles)] for row in ranked])


def _kinds(here: Sequence[Row]) -> list[str]:
    present = [row for row in here if row.summary.at_rate is not None]
    if not present:
        return []
    kinds = sorted(
        {kind for row in present for kind in (row.summary.at_rate.recall_by_kind if row.summary.at_rate else ())}
    )
    body = []
    for row in present:
        at = row.summary.at_rate
        assert at is not None
        body.append(
            [row.label, *(f"{_cell(at.recall_by_kind[k], 2)} / {_cell(at.delay_by_kind[k], 0)}" for k in kinds)]
        )
    return _table(["recall / median delay in readings", *(AnomalyKind(k).label for k in kinds)], body)


def _confusion(counts: dict[tuple[int, int], int]) -> list[str]:
    """A row a true kind, a column a said one; the share that is right among the found ones."""
    true = sorted({pair[0] for pair in counts})
    said = sorted({pair[1] for pair in counts})
    names = ["not found" if kind == 0 else AnomalyKind(kind).label for kind in said]
    body = []
    for kind in true:
        of_kind = [counts.get((kind, other), 0) for other in said]
        found = sum(of_kind) - counts.get((kind, 0), 0)
        share = counts.get((kind, kind), 0) / found if found else np.nan
        body.append([AnomalyKind(kind).label, *(str(n) for n in of_kind), _cell(share, 2)])
    right = sum(n for (a, b), n in counts.items() if a == b)
    found = sum(n for (_, b), n in counts.items() if b)
    whole = sum(counts.values())
    said_so = f"Right: {right} of {found} found ({right / max(found, 1):.1%}), of {whole} in all."
    return [*_table(["true \\ said", *names, "right of found"], body), "", said_so]


def json_lines(found: Iterable[Outcome]) -> str:
    """One line a file, detector, variant and seed; sorted, so that a rerun changes only what changed."""
    lines = []
    for one in found:
        for variant, figures in one.variants.items():
            line: dict[str, Any] = {
                "set": one.case.set, "file": one.case.name, "model": one.contestant.name, "variant": variant,
                "seed": one.seed, "auc_pr": _mean(figures.auc_pr), "vus_pr": _mean(figures.vus_pr),
                "auc_pr_smooth": _mean(figures.auc_pr_smooth), "vus_pr_smooth": _mean(figures.vus_pr_smooth),
                "events": len(figures.kind), "weeks": round(float(figures.weeks[0]), 4),
            }  # fmt: skip
            if len(figures.false_alarms):
                line["found_at_budget"] = int(np.isfinite(figures.delay[-1]).sum())
                line["false_alarms_at_budget"] = int(figures.false_alarms[-1])
            lines.append(json.dumps(line))
    return "".join(line + "\n" for line in sorted(lines))


def _mean(values: Any) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None
