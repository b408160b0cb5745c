"""Parsing other people's Python in silence."""

from __future__ import annotations

import ast
import gc
import warnings


def parse(text: str) -> ast.Module:
    """:func:`ast.parse` without the warnings (invalid escapes …) that are the text's own business.

    Raises:
        SyntaxError: the text does not parse.
        ValueError: it holds null bytes.
    """
    # The collector looks through every new node for cycles, of which there are none: a quarter of the time.
    collecting = gc.isenabled()
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    finally:
        if collecting:
            gc.enable()


def compiles(text: str) -> bool:
    """Does Python compile the text as a module?"""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<sample>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True
