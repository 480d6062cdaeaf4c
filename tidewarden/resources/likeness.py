"""What somebody may have meant who wrote what is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def did_you_mean(given: Any, known: Iterable[Any]) -> str:
    """``: did you mean 'x'?`` where something known is close; else nothing."""
    names = [str(name) for name in known]
    close = difflib.get_close_matches(str(given), names, n=1, cutoff=0.6)
    if not close:
        folded = {name.replace("_", "").lower(): name for name in names}
        close = [folded[key] for key in (str(given).replace("_", "").replace("-", "").lower(),) if key in folded]
    return f": did you mean {close[0]!r}?" if close else ""
