"""What a program means by a name that a statement is to use.

Most programs hold none of the names asked for, or use them as everybody does; both is told from the text. The tokens are read
only where it is not.
"""

from __future__ import annotations

from functools import cached_property

from bench.languages import Program, word_ends

SCOPE_READERS = ("locals", "vars", "dir", "eval", "exec")


class Mentions:
    """The words of a program and what stands after them."""

    def __init__(self, program: Program) -> None:
        self._program = program

    @cached_property
    def _followers(self) -> dict[str, set[str]]:
        """For every token of the program, the tokens that come right after it."""
        texts = [leaf.text for leaf in self._program.leaves]
        followers: dict[str, set[str]] = {}
        for text, after in zip(texts, [*texts[1:], ""], strict=True):
            followers.setdefault(text, set()).add(after)
        return followers

    def holds(self, *names: str) -> bool:
        """Is one of the names a token of the program?"""
        text = self._program.text
        return any(name in text and word_ends(name, text) and name in self._followers for name in names)

    @cached_property
    def _reads_its_scope(self) -> bool:
        return self.holds(*SCOPE_READERS)

    def can_import(self, name: str) -> bool:
        """Can the function import the name for itself (Python)?

        An imported name is bound in the whole function, so the program must not mention it at all, nor read its own scope.
        """
        return not self._reads_its_scope and not self.holds(name)

    def is_library(self, name: str, after: str) -> bool:
        """Is the name a library's here?

        It is, unless the program uses it for something else: as its function (Python: as anything that it binds, an inner
        function too), or not followed by ``after`` (``exp`` alone is a variable, ``exp(`` the library's function).
        """
        text = self._program.text
        places = word_ends(name, text)
        if not places:
            return True
        if all(text[place : place + 80].lstrip().startswith(after) for place in places):
            return not self._is_own(name)
        return self._followers.get(name, set()) <= {after} and (name not in self._followers or not self._is_own(name))

    def _is_own(self, name: str) -> bool:
        """Is it the program's function (Python: does the program bind it anywhere)?"""
        if self._program.language.name == "python":
            return self._program.binds(name)
        own = self._program.function_name
        return own is not None and own.text == name
