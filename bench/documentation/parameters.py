"""The parameters of a plugin as a reader needs them: name, type, default, and what the docstring says."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from bench.contracts import Plugin

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "length at least"}
SECTIONS = ("Attributes:", "Args:")
_ENTRY = re.compile(r"^(\w+(?:, \w+)*): ?(.*)$")


@dataclass(frozen=True)
class Parameter:
    """One field of a plugin.

    Attributes:
        name: as suites spell it.
        type: in words.
        default: as Python writes it; empty where there is none.
        meaning: from the docstring's ``Attributes`` or ``Args``, in reStructuredText; empty where it says nothing.
    """

    name: str
    type: str
    default: str
    meaning: str


def parameters(cls: type[Plugin]) -> tuple[Parameter, ...]:
    """The parameters of a plugin class, in the order of its fields."""
    hints = get_type_hints(cls, include_extras=True)
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        meanings |= attributes(base.__dict__.get("__doc__") or "")
    return tuple(
        Parameter(f.name, type_words(hints[f.name]), _default(f), meanings.get(f.name, ""))
        for f in fields(cast(Any, cls))
    )


def _default(field: Any) -> str:
    if field.default is not MISSING:
        return repr(field.default)
    return repr(field.default_factory()) if field.default_factory is not MISSING else ""


def type_words(hint: Any) -> str:
    """A type as a person says it: ``int, at least 1, or None``."""
    return " or ".join(_alternatives(hint))


def _alternatives(hint: Any) -> Iterator[str]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [words for extra in arguments[1:] for words in _bounds(extra)]
        yield ", ".join([type_words(arguments[0]), *bounds])
    elif origin in (Union, types.UnionType):
        for argument in arguments:
            yield from _alternatives(argument)
    elif origin is Literal:
        yield from map(repr, arguments)
    elif origin is tuple:
        yield f"tuple, each {type_words(arguments[0])}" if arguments else "tuple"
    elif origin is not None:
        inside = ", ".join(map(type_words, arguments))
        yield f"{getattr(origin, '__name__', origin)} of {inside}"
    else:
        yield "None" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _bounds(extra: Any) -> Iterator[str]:
    for constraint in extra.metadata if isinstance(extra, FieldInfo) else (extra,):
        for name, words in BOUNDS.items():
            if hasattr(constraint, name):
                yield f"{words} {getattr(constraint, name)}"


def attributes(docstring: str) -> Mapping[str, str]:
    """What the section of a docstring that lists parameters says of each name, on one line."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in _sections(docstring)[1]:
        entry = _ENTRY.match(line.strip())
        if entry is not None and len(line) - len(line.lstrip()) == 4:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def description(docstring: str) -> str:
    """A docstring without the section that lists parameters."""
    return "\n".join(_sections(docstring)[0]).strip()


def _sections(docstring: str) -> tuple[list[str], list[str]]:
    """The lines of a docstring: those outside, and those inside the section that lists parameters."""
    outside, inside = list[str](), list[str]()
    listing = False
    for line in inspect.cleandoc(docstring).splitlines():
        if line.strip() and not line.startswith(" "):
            listing = line.strip() in SECTIONS
            if listing:
                continue
        if not listing:
            outside.append(line)
        elif line.strip():
            inside.append(line)
    return outside, inside
