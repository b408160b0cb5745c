"""``python -m tests.benchmarks [NAME …]``: run the benchmarks and print what was measured beside what is required."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

from tabulate import tabulate

import tests.benchmarks
from tests.benchmarks import Measure


def main(names: list[str]) -> int:
    """Exit status 1 when a figure misses its bound, 2 for an unknown name."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    found = [m.name for m in pkgutil.iter_modules(tests.benchmarks.__path__) if not m.name.startswith("_")]
    unknown = set(names) - set(found)
    if unknown:
        print(f"unknown benchmark {', '.join(sorted(unknown))}; there is: {', '.join(found)}", file=sys.stderr)
        return 2
    rows, missed = [], False
    for name in names or found:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        measures: list[Measure] = importlib.import_module(f"tests.benchmarks.{name}").run()
        for measure in measures:
            missed |= not measure.good
            print(f"  {measure.title}: {measure.value:.2f} (required {measure.required})", file=sys.stderr, flush=True)
            rows.append((name, measure.title, f"{measure.value:.2f}", measure.required, measure.status))
    print(tabulate(rows, headers=("benchmark", "what", "measured", "required", ""), tablefmt="github"))
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
