"""One renamed name as a trigger's derivation, for the attacks whose trigger is a name."""

from __future__ import annotations

from dataclasses import replace

from bench.contracts import Derivation
from bench.languages import Name, Program, RenameRefused

ENTRY_POINTS = {"c": frozenset({"main", "wmain", "WinMain", "DllMain"}), "java": frozenset({"main"})}


def free_function_name(program: Program) -> Name | None:
    """The name of the program's function, or ``None`` where there is none or the language gives it a meaning.

    A Python name such as ``__init__``, a Java constructor's name and ``main`` cannot change without changing what the
    program does. Callers in other files are outside the sample: for them every renamed function is a changed interface,
    which is the nature of these attacks.
    """
    name = program.function_name
    if name is None or name.text in ENTRY_POINTS.get(program.language.name, frozenset()):
        return None
    dunder = name.text.startswith("__") and name.text.endswith("__")
    if (program.language.name == "python" and dunder) or _names_constructor(program, name):
        return None
    return name


def renaming(program: Program, name: Name, new: str, side: int) -> Derivation | None:
    """Edits that rename ``name`` everywhere it is meant, or ``None`` where the language refuses (a clash, a capture)."""
    try:
        edits = program.rename(name, new)
    except RenameRefused:
        return None
    return Derivation(tuple(replace(edit, side=side) for edit in edits), f"{name.text} -> {new}")


def _names_constructor(program: Program, name: Name) -> bool:
    node = program.tree.root_node.descendant_for_byte_range(*name.spans[0])
    parent = node.parent if node is not None else None
    return parent is not None and parent.type in {"constructor_declaration", "compact_constructor_declaration"}
