"""How far a source has come with each tenant, told to every partition.

A node that falls silent, or a partition that has no node of a tenant, says nothing of time; ingest does.
What it says is a function of the source's batches: other sources of the stream have no part in it, so a
replay says the same again, however the sources took turns the first time.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from tidewarden.frames import Frame, IntArray

NEVER = -(2**63)


class TenantTimes:
    """Newest timestamp of each tenant, ms since the epoch, and what every partition was told last."""

    def __init__(self, interval_ms: int) -> None:
        self._interval_ms = interval_ms
        self.newest: dict[str, int] = {}
        self.told: dict[str, int] = {}
        self._tenants: list[str] = []
        self._tenant_of: IntArray = np.zeros(0, np.int32)

    def observe(self, frame: Frame) -> bool:
        """Note accepted readings; whether time has moved on so far that every partition must hear of it."""
        table = frame.table
        new = [table[series].tenant for series in range(len(self._tenant_of), len(table))]
        if new:
            self._tenants += sorted(set(new) - set(self._tenants))
            numbers = {tenant: number for number, tenant in enumerate(self._tenants)}
            self._tenant_of = np.concatenate([self._tenant_of, np.array([numbers[t] for t in new], np.int32)])
        newest = np.full(len(self._tenants), NEVER)
        np.maximum.at(newest, self._tenant_of[frame.series], frame.timestamp)
        return self.hear(dict(zip(self._tenants, newest.tolist(), strict=True)))

    def hear(self, times: Mapping[str, int]) -> bool:
        """Let tenants come as far as ``times``; whether every partition must hear of it."""
        moved = False
        for tenant, at in times.items():
            if at > self.newest.get(tenant, NEVER):
                self.newest[tenant] = at
                if at >= self.told.get(tenant, NEVER) + self._interval_ms:
                    self.told[tenant] = at
                    moved = True
        return moved

    def header(self, later_ms: int = 0) -> str:
        """Tenant → ms, as JSON, for the header ``time``."""
        times = {tenant: at + later_ms for tenant, at in sorted(self.newest.items())}
        return msgspec.json.encode(times).decode()
