"""Which series share a budget of false alarms, and how many of them have reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tidewarden.frames import FloatArray, IntArray, SeriesKey, TimeArray
from tidewarden.scoring.decision import ACTIVE

Scope = Literal["detector", "tenant", "series"]


class Budgets:
    """The budgets of a detector: one, or one for each tenant.

    With ``scope: series`` there is one, too, and nobody shares it (`Rules.shared`).

    Attributes:
        group_of: number of each series' budget.
        n_active: series of each budget that have reported, in order of arrival.
    """

    def __init__(self, scope: Scope) -> None:
        self._by_tenant = scope == "tenant"
        self._groups: dict[str, int] = {} if self._by_tenant else {"": 0}
        self.group_of: IntArray = np.zeros(0, np.int32)
        self.n_active: TimeArray = np.zeros(len(self._groups), np.int64)

    def adopt(self, keys: Sequence[SeriesKey]) -> None:
        """Number the budgets of all series that the scorer has, ``keys``, of which it had the first ones already."""
        new = keys[len(self.group_of) :]
        if not new:
            return
        if self._by_tenant:
            groups = [self._groups.setdefault(key.tenant, len(self._groups)) for key in new]
            self.n_active = np.concatenate([self.n_active, np.zeros(len(self._groups) - len(self.n_active), np.int64)])
            self.group_of = np.concatenate([self.group_of, np.array(groups, np.int32)])
        else:
            self.group_of = np.zeros(len(keys), np.int32)

    def count(self, rows: FloatArray) -> None:
        """Count anew who has reported, of the rows (n_series, DECISION_ROW) of a snapshot."""
        active = self.group_of[: len(rows)][rows[:, ACTIVE] == 1.0]
        self.n_active = np.bincount(active, minlength=len(self.n_active)).astype(np.int64)
