"""``python -m benchmarks [NAME…] [--output FILE]``: run every ``bench_*.py`` here that has a ``run()``."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.report import Result, as_line, print_table, write_lines


def names() -> list[str]:
    """NAME of each module ``bench_NAME`` beside this one."""
    found = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return [name.removeprefix("bench_") for name in found if name.startswith("bench_")]


def runner(name: str) -> Callable[[], Iterable[Result]] | None:
    """The bench's ``run``; None for a script that prints by itself."""
    run: Callable[[], Iterable[Result]] | None = getattr(
        importlib.import_module(f"benchmarks.bench_{name}"), "run", None
    )
    return run


def main() -> None:
    """Print a JSON line as soon as a figure is there, and a table of all at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; default: all")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.jsonl"), help="file for the JSON lines")
    arguments = parser.parse_args()
    known = names()
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are: {', '.join(known)}")
    results = []
    for name in arguments.names or known:
        run = runner(name)
        for result in run() if run is not None else ():
            print(as_line(result), flush=True)
            results.append(result)
    results.sort(key=lambda result: result.bench)
    print_table(results)
    write_lines(results, arguments.output)


if __name__ == "__main__":
    main()
