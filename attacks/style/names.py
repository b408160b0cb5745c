"""The naming convention of local variables, in the three languages. Renames follow scopes (:meth:`bench.languages.Program.rename`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from attacks.style.form import Change, Form
from bench.languages import Program, RenameRefused

_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z][a-z0-9]*)+")
_CAMEL = re.compile(r"[a-z][a-z0-9]*([A-Z][a-z0-9]*)+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def camel(name: str) -> str | None:
    """``max_size`` → ``maxSize``; ``None`` for what is no snake-case name of several words."""
    if _SNAKE.fullmatch(name) is None:
        return None
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def snake(name: str) -> str | None:
    """``maxSize`` → ``max_size``; ``None`` for what is no camel-case name of several words."""
    return _HUMP.sub("_", name).lower() if _CAMEL.fullmatch(name) is not None else None


def _renamed(program: Program, spelling: Callable[[str], str | None]) -> Iterator[Change]:
    """Local variables (Java and C: and parameters, which only Python's callers may name) in another spelling.

    Python: the parameters of an inner function are among its locals, also of one that is returned or handed on. A caller that this
    program does not show and that names them (``made(max_size=3)``) would then fail. To leave them out changes which style is rarest
    in the stored results; it waits for the next version of the attack.
    """
    parameters = () if program.language.name == "python" else program.parameters
    taken: dict[str, str] = {}
    for name in (*parameters, *program.locals):
        new = spelling(name.text)
        if new is None or taken.setdefault(new, name.text) != name.text:
            continue
        try:
            yield Change(program.rename(name, new), None)
        except RenameRefused:
            continue


def _count(program: Program, pattern: re.Pattern[str]) -> int:
    parameters = () if program.language.name == "python" else program.parameters
    return sum(pattern.fullmatch(name.text) is not None for name in (*parameters, *program.locals))


FORMS = (
    Form(
        "camel_names",
        "names",
        "max_size  →  maxSize",
        lambda p: _renamed(p, camel),
        lambda p: _count(p, _CAMEL),
        opposite="snake_names",
    ),
    Form(
        "snake_names",
        "names",
        "maxSize  →  max_size",
        lambda p: _renamed(p, snake),
        lambda p: _count(p, _SNAKE),
        opposite="camel_names",
    ),
)
