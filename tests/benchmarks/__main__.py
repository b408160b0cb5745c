"""``python -m tests.benchmarks [NAME …]``: run the benchmarks and print what was measured beside what is required."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys

from tabulate import tabulate

import tests.benchmarks


def main(names: list[str]) -> int:
    """Exit status 1 when a ratio misses its bound."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    found = [m.name for m in pkgutil.iter_modules(tests.benchmarks.__path__) if not m.name.startswith("_")]
    unknown = set(names) - set(found)
    if unknown:
        print(f"unknown benchmark {', '.join(sorted(unknown))}; there is: {', '.join(found)}", file=sys.stderr)
        return 2
    rows = []
    for name in names or found:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        for title, measured, bound in importlib.import_module(f"tests.benchmarks.{name}").run():
            # A bound is a floor for speed-ups ("times faster") and a ceiling for costs ("cost ratio").
            good = measured <= bound if "cost" in title else measured >= bound
            rows.append(
                (
                    name,
                    title,
                    f"{measured:.2f}",
                    f"{'<=' if 'cost' in title else '>='} {bound:g}",
                    "ok" if good else "MISSED",
                )
            )
    print(tabulate(rows, headers=("benchmark", "ratio", "measured", "required", ""), tablefmt="github"))
    return int(any(row[-1] == "MISSED" for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
