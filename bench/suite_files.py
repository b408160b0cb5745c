"""Where suite files lie."""

from __future__ import annotations

from pathlib import Path

from bench.errors import ConfigError, suggest

SUITES = Path("results") / "suites"


def suite_file(name: str | Path) -> Path:
    """The file of a suite that is given by path, or by name from ``results/suites``.

    Raises:
        ConfigError: no suite of that name; a path is not looked at.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    known = sorted(p.stem for p in SUITES.glob("*.yaml"))
    if str(name) not in known:
        raise ConfigError(f"there is no suite {str(name)!r} in {SUITES}.{suggest(str(name), known)}")
    return SUITES / f"{name}.yaml"
