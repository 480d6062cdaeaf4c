"""Nodes that fall silent altogether, noticed from the time of their tenant.

A node that says nothing says nothing of time either, so the other nodes of its tenant have to. What
counts is how far the tenant's time has moved on *since the node was last heard*, in order of arrival;
not how old the node's newest timestamp is. A file that holds one node after the other, or a backfill
of the past, is therefore no silence.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tidewarden.frames import IntArray, SeriesTable, TimeArray
from tidewarden.models.contract import State

_NEVER = np.iinfo(np.int64).max


class Silence:
    """When each node was last heard, by its tenant's time.

    Args:
        patience_ms: advance of a tenant's time after which a node that has said nothing counts as silent.
    """

    def __init__(self, patience_ms: int) -> None:
        self._patience_ms = patience_ms
        self._heard_at: TimeArray = np.zeros(0, np.int64)  # the tenant's time when the node was last heard
        self._spoke = np.zeros(0, np.bool_)  # since the tenant's time was last looked at
        self._tenants: dict[str, int] = {}
        self._tenant_of: IntArray = np.zeros(0, np.int32)  # number of each node's tenant

    def hear(self, nodes: IntArray, n_nodes: int) -> None:
        """Note that these nodes have reported; ids are below ``n_nodes``."""
        new = n_nodes - len(self._spoke)
        if new > 0:
            self._heard_at = np.concatenate([self._heard_at, np.full(new, _NEVER)])
            self._spoke = np.concatenate([self._spoke, np.zeros(new, np.bool_)])
        self._spoke[nodes] = True

    def silent(self, table: SeriesTable, watermarks: Mapping[str, int]) -> tuple[IntArray, TimeArray]:
        """Nodes that have been silent for too long, and the time of their tenant; arrays (m,).

        Args:
            table: names behind the node ids.
            watermarks: newest reading of each tenant, milliseconds since the epoch.
        """
        self._meet(table)
        times = np.array([watermarks.get(tenant, 0) for tenant in self._tenants], np.int64)
        now = times[self._tenant_of]
        self._heard_at = np.where(self._spoke, now, self._heard_at)
        self._spoke[:] = False
        quiet = np.flatnonzero((self._heard_at != _NEVER) & (now - self._heard_at >= self._patience_ms))
        return quiet.astype(np.int32), now[quiet]

    def _meet(self, table: SeriesTable) -> None:
        """Number the tenants of nodes that are new."""
        nodes = table.nodes[len(self._tenant_of) : len(self._spoke)]
        if nodes:
            new = [self._tenants.setdefault(node.tenant, len(self._tenants)) for node in nodes]
            self._tenant_of = np.concatenate([self._tenant_of, np.array(new, np.int32)])

    def snapshot(self) -> State:
        """The whole state as arrays (copies), nodes in the order of their ids."""
        return {"heard_at": self._heard_at.copy(), "spoke": self._spoke.copy()}

    def restore(self, state: State) -> None:
        """Go on from a snapshot, whose nodes have the same ids."""
        self._tenants, self._tenant_of = {}, np.zeros(0, np.int32)
        self._heard_at = state["heard_at"].astype(np.int64)
        self._spoke = state["spoke"].astype(np.bool_)
