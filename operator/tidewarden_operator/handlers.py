"""Kopf's handlers: they only pass on what the watches say.

Kopf keeps no annotation, finalizer or progress of its own, so it never writes.
"""

from __future__ import annotations

from typing import Any

import kopf

from tidewarden_operator.cluster.kinds import KINDS, KindInfo
from tidewarden_operator.engine import Engine
from tidewarden_operator.plan.names import MANAGED_BY, MANAGER


def register(registry: kopf.OperatorRegistry, settings: kopf.OperatorSettings, engine: Engine) -> None:
    """Watch all kinds; of children only our own, chosen by the server."""
    for info in KINDS.values():
        selector: Any = (info.version, info.plural) if not info.group else (info.group, info.version, info.plural)
        _register(registry, selector, info, engine)
        if not info.ours:
            settings.watching.label_selectors[selector] = f"{MANAGED_BY}={MANAGER}"


def _register(registry: kopf.OperatorRegistry, selector: Any, info: KindInfo, engine: Engine) -> None:
    @kopf.on.event(*selector, registry=registry, id="notice")
    async def notice(event: Any, **_: Any) -> None:
        engine.notice(event["type"], {"apiVersion": info.api_version, "kind": info.kind, **event["object"]})
