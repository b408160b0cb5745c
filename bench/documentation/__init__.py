"""What the documentation site says of plugins, made from the plugins themselves, the committed boards and the examples' page.

Text alone: reStructuredText, which is what docstrings are written in. ``docs/conf.py`` has it written when the site is built;
nothing of it is committed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.contracts import FAMILIES
from bench.documentation import committed, examples, lists, page
from bench.plugins import Registry

__all__ = ["pages", "write_pages"]


def pages(registry: Registry, root: Path) -> Mapping[str, str]:
    """Every generated page by its path below ``plugins/``: one a plugin, one list a family, and the definitions.

    Args:
        registry: what is documented.
        root: the repository: ``results`` and ``docs/attacks-examples.md`` are read, where they are there.

    Raises:
        bench.errors.BenchError: a plugin does not import, or has parameters that cannot be read.
        bench.errors.DataError: the examples' page or a board is not readable.
    """
    boards, shown = committed.boards(root / "results"), examples.read(root / "docs" / "attacks-examples.md")
    made = {"definitions.txt": lists.definitions_table()}
    for family in FAMILIES:
        plugins = [registry.build(family, name) for name in registry.names(family)]
        made[f"{family}s.rst"] = lists.family_list(family, plugins)
        for plugin in plugins:
            made[f"{family}/{plugin.name}.rst"] = page.of_plugin(plugin, registry, boards, shown)
    return made


def write_pages(registry: Registry, root: Path, target: Path) -> None:
    """Write :func:`pages` below ``target`` and remove what is there of other plugins. A page that is as it was is not touched."""
    made = {target / name: text for name, text in pages(registry, root).items()}
    for old in target.rglob("*.rst"):
        if old not in made:
            old.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
