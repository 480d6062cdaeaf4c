"""Fails the build if a module's kernels are not where a pod will look for them: it would compile them for minutes."""

import sys
from pathlib import Path

from numba.core.caching import UserProvidedCacheLocator

LIB, KERNELS = Path("/opt/tidewarden/lib"), Path("/opt/tidewarden/kernels")
there = {path.name for path in KERNELS.iterdir()}
# NAB's own score is for the offline command, which may compile it.
compiled = [path for path in LIB.rglob("*.py") if path.name != "nab.py" and "cache=True" in path.read_text()]
missing = [path for path in compiled if UserProvidedCacheLocator.get_suitable_cache_subpath(str(path)) not in there]
if missing or not compiled:
    sys.exit(f"no kernels of {', '.join(map(str, missing)) or 'any module'} in {KERNELS}: {sorted(there)}")
