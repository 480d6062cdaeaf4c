"""``python -m benchmarks [NAME…] [--output FILE] [--speed FILE]``: the ``run()`` of every ``bench_*.py`` here."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from pathlib import Path

from benchmarks.report import as_line, print_table, write_lines
from benchmarks.speed import write_speeds


def names() -> list[str]:
    """NAME of each module ``bench_NAME`` beside this one, with hyphens."""
    found = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    return [name.removeprefix("bench_").replace("_", "-") for name in found if name.startswith("bench_")]


def main() -> None:
    """Print a JSON line as soon as a figure is there, and a table of all at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which to run; default: all")
    parser.add_argument("--output", type=Path, default=Path("benchmarks.jsonl"), help="file for the JSON lines")
    parser.add_argument(
        "--speed",
        type=Path,
        help="file for the figures of `models`: the catalogue shows docs/speed.json",
    )
    arguments = parser.parse_args()
    known = names()
    unknown = sorted(set(arguments.names) - set(known))
    if unknown:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are: {', '.join(known)}")
    if arguments.speed and arguments.names and "models" not in arguments.names:
        parser.error("--speed takes its figures from the benchmark `models`: name it, too")
    results = []
    for name in arguments.names or known:
        for result in importlib.import_module(f"benchmarks.bench_{name.replace('-', '_')}").run():
            print(as_line(result), flush=True)
            results.append(result)
    results.sort(key=lambda result: result.bench)
    print_table(results)
    write_lines(results, arguments.output)
    if arguments.speed:
        write_speeds(results, arguments.speed)


if __name__ == "__main__":
    main()
