"""Programs in one spelling: the same behaviour written in the same way, whoever wrote it.

Six steps, each switchable, one file each (Python has the last three in one, since its compiler's own tree does them all):

==============  =====================================================================================================
step            what it does
==============  =====================================================================================================
``characters``  NFKC and no invisible characters, outside strings (:mod:`~bench.languages.normalising.characters`)
``comments``    comments and docstrings are taken out (:mod:`~bench.languages.normalising.comments`)
``dead_code``   branches that provably never run, statements without effect and stores that nobody reads are taken out
``literals``    arithmetic on literals is done, literals get one spelling
``names``       function, parameters and locals are called ``f``, ``v0``, ``v1`` … (:mod:`~bench.languages.normalising.naming`)
``layout``      the program is printed again: one statement a line, one way to put blanks
==============  =====================================================================================================

Steps are repeated until nothing changes, so that normalising twice is normalising once. A step that would add a syntax error, or
whose outcome cannot be proved to be the same program, is left out for that program.

What may change all the same: ``__doc__``, ``__name__`` and line numbers; what a macro like ``assert`` prints of its argument; and
the random sequence of a program from which a dead condition such as ``rand() < 0`` is taken out. A library function (``sin``,
``rand``, ``Math.random``) is believed to be the library's where the program itself binds its name to nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, get_args

from bench.errors import ConfigError
from bench.languages import parse, well_formed
from bench.languages.normalising import braces, characters, comments, layout, naming, python
from bench.languages.normalising.result import Normalised

__all__ = ["STEPS", "Normalised", "Step", "check_steps", "normalise"]

Step = Literal["characters", "comments", "dead_code", "literals", "names", "layout"]
STEPS: tuple[Step, ...] = get_args(Step)
ROUNDS = 8
"""Passes over all steps; real programs settle in two or three."""


def check_steps(steps: Collection[Step]) -> None:
    """Raise :class:`~bench.errors.ConfigError` unless the steps go together."""
    if "layout" in steps and "comments" not in steps:
        raise ConfigError("the step 'layout' prints a program without its comments: it needs the step 'comments' too")


def normalise(language: str, text: str, steps: Collection[Step] = STEPS, *, function_name: bool = True) -> Normalised:
    """The program in one spelling.

    Args:
        language: ``python``, ``java`` or ``c``.
        text: the source; what does not parse is normalised as far as that goes.
        steps: which steps to take; their order is always that of :data:`STEPS`.
        function_name: whether ``names`` also renames the function itself.

    Raises:
        ConfigError: there is no such language, or the steps do not go together.
    """
    check_steps(steps)
    doing: dict[Step, Callable[[str, str], Normalised]] = {
        "characters": characters.plain,
        "comments": comments.without,
        "dead_code": python.without_dead_code if language == "python" else braces.without_dead_code,
        "literals": python.folded if language == "python" else braces.folded,
        "names": lambda language, text: naming.renamed(language, text, function_name=function_name),
        "layout": python.printed if language == "python" else layout.printed,
    }
    now = Normalised(text)
    for _ in range(ROUNDS):
        before = now.text
        for step in STEPS:
            if step in steps:
                now = _taken(language, now, doing[step])
        if now.text == before:
            break
    return now


def _taken(language: str, now: Normalised, step: Callable[[str, str], Normalised]) -> Normalised:
    """One step, unless it breaks the program or leaves nothing of it."""
    new = step(language, now.text)
    if new.text == now.text:
        return now
    if not parse(language, new.text).leaves or well_formed(language, now.text, new.text) is not None:
        return now
    return Normalised(new.text, now.dead + new.dead, now.characters + new.characters)
