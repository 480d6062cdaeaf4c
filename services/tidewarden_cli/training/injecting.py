"""Anomalies put into real readings, to measure how many a model finds where nobody has labelled any."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tidewarden.events import AnomalyKind
from tidewarden.frames import FloatArray
from tidewarden.training.history import History
from tidewarden_simulator.anomalies import SHAPES, Event, Stretch, inject
from tidewarden_simulator.draws import Draws
from tidewarden_simulator.signals import BUILT_IN

KINDS = (AnomalyKind.SPIKE, AnomalyKind.DIP, AnomalyKind.LEVEL_SHIFT, AnomalyKind.DRIFT)
APART = 600  # readings for each anomaly of a series: two in a day of minutes
MOST = 20  # in one series
WIDE = 6.0  # robust standard deviations: what counts as the size of a series whose level is about zero
MAD_TO_DEVIATION = 1.4826


def inject_all(history: History, seed: int = 0) -> History:
    """The same readings with spikes, dips, level shifts and drifts in each series, all labelled.

    Lengths and sizes are those of the simulator, sizes as shares of the series' median, or of six robust standard
    deviations where that is more. Kinds go in turn, so that each is measured on as many series.
    """
    value, label = history.value.copy(), np.zeros(len(history), np.uint8)
    order = np.argsort(history.series, kind="stable")
    cuts = np.searchsorted(history.series[order], np.arange(len(history.keys) + 1))
    draws = Draws(seed, "training")
    turn = 0
    for number in range(len(history.keys)):
        rows = order[cuts[number] : cuts[number + 1]]
        count = min(MOST, len(rows) // APART) or (1 if len(rows) >= APART // 10 else 0)
        if count == 0:
            continue
        slot = len(rows) // count
        chance = draws.row(number, 4 * count).reshape(4, count)
        base = _size(value[rows])
        for one in range(count):
            kind = KINDS[turn % len(KINDS)]
            turn += 1
            shape = SHAPES[kind]
            length = int(shape.shortest + chance[0, one] * (shape.longest - shape.shortest))
            length = max(1, min(length, slot // 2))
            onset = one * slot + int(chance[1, one] * (slot - length))
            size = shape.smallest + chance[2, one] * (shape.largest - shape.smallest)
            down = kind is AnomalyKind.DIP or (shape.signed and chance[3, one] < 0.5)
            _put(value, rows[onset : onset + length], kind, -size if down else size, base)
            label[rows[onset : onset + length]] = int(kind)
    return replace(history, value=value, label=label)


def _put(value: FloatArray, rows: npt.NDArray[np.intp], kind: AnomalyKind, size: float, base: float) -> None:
    """Change some readings of a series in place."""
    if kind in {AnomalyKind.SPIKE, AnomalyKind.DIP}:
        # The simulator multiplies, which does nothing to a series about zero: a factor of 3 is 2 levels more here.
        kind, size = AnomalyKind.LEVEL_SHIFT, np.sign(size) * (abs(size) - 1)
    calm = value[rows]
    stretch = Stretch(calm=calm, noise=np.zeros(len(rows)), season=np.zeros(len(rows)), base=base, held=0.0)
    inject(Event(0, 0, len(rows) - 1, kind, size, -1), 0, next(iter(BUILT_IN.values())), stretch)
    value[rows] = stretch.calm


def _size(value: FloatArray) -> float:
    """Of the readings of a series; 1 where they are constant zeros or missing."""
    present = value[~np.isnan(value)]
    if not len(present):
        return 1.0
    middle = float(np.median(present))
    spread = float(np.median(np.abs(present - middle))) * MAD_TO_DEVIATION
    return max(abs(middle), WIDE * spread) or 1.0
