"""A new plugin: one file that does nothing clever yet and already passes the conformance suite."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Collection
from importlib import resources
from pathlib import Path

from bench.contracts import DEFENSE_FAMILIES, FAMILIES
from bench.errors import ConfigError, suggest
from bench.plugins import Registry

NAME = re.compile(r"[a-z][a-z0-9_]*")
KINDS = ("attack", "defense", "task")
"""What can be made; a defense is of one of four families."""


def family_of(kind: str, family: str | None) -> str:
    """The plugin family that ``new KIND --family FAMILY`` asks for. A family's own name is a kind, too (``new screen …``).

    Raises:
        ConfigError: no such kind, a defense without its family, or a family that does not belong to the kind.
    """
    if kind == "defense":
        if family is None:
            raise ConfigError(
                f"a defense is of one of four families: add --family {', --family '.join(DEFENSE_FAMILIES[:-1])} or --family "
                f"{DEFENSE_FAMILIES[-1]}"
            )
        if family not in DEFENSE_FAMILIES:
            raise ConfigError(f"there is no defense family {family!r}.{suggest(family, DEFENSE_FAMILIES)}")
        return family
    if kind not in FAMILIES:
        raise ConfigError(f"there is no kind of plugin {kind!r}.{suggest(kind, (*KINDS, *DEFENSE_FAMILIES))}")
    if family not in (None, kind):
        raise ConfigError(f"--family {family} says what kind of defense is meant; a new {kind} has no other family")
    return kind


def template(family: str) -> str:
    """The module in :mod:`bench.scaffolds` that a new plugin of the family is copied from.

    Raises:
        ConfigError: no such family.
    """
    if family not in FAMILIES:
        raise ConfigError(f"there is no template for family {family!r}.{suggest(family, FAMILIES)}")
    return resources.files("bench.scaffolds").joinpath(f"{family}.py").read_text(encoding="utf-8")


def plugin_text(family: str, name: str, taken: Collection[str] = ()) -> str:
    """The source of a new plugin.

    Args:
        family: task, attack, filter, training, repair or screen.
        name: as suites will spell it.
        taken: names that it may not have.

    Raises:
        ConfigError: no such family, a name that suites or Python could not spell, or one that is taken.
    """
    text = template(family)
    if not NAME.fullmatch(name):
        raise ConfigError(f"plugin name {name!r} must match {NAME.pattern}, e.g. my_{family}")
    if name in taken:
        raise ConfigError(f"the name {name!r} is taken by a plugin that is there already; choose another")
    words = [word for word in name.split("_") if word]
    cls = "".join(word.capitalize() for word in words)
    if keyword.iskeyword(cls) or cls in _identifiers(text):
        raise ConfigError(
            f"plugin name {name!r} would make a class {cls}, which the contracts call something else; add a word"
        )
    text = text.replace(f"My{family.capitalize()}", cls).replace(f"My {family}", " ".join(words).capitalize())
    return text.replace(f'"my_{family}"', f'"{name}"')


def _identifiers(text: str) -> set[str]:
    """Every name that a module imports, defines or uses."""
    found = set[str]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.alias | ast.ClassDef | ast.FunctionDef):
            found.add(node.name)
    return found


def write_plugin(family: str, name: str, folder: Path) -> Path:
    """Write ``folder/name.py`` and return its path.

    Raises:
        ConfigError: as :func:`plugin_text`, or the file exists already (it is never overwritten), or cannot be written.
    """
    registry = Registry().discover()
    families = DEFENSE_FAMILIES if family in DEFENSE_FAMILIES else (family,)
    text = plugin_text(family, name, [known for each in families for known in registry.names(each)])
    path = folder / f"{name}.py"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"{path} exists already; choose another name or folder") from None
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    return path
