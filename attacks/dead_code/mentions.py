"""What a program means by a name that a statement is to use."""

from __future__ import annotations

from functools import cached_property

from bench.languages import Program

SCOPE_READERS = frozenset({"locals", "vars", "dir", "eval", "exec"})


class Mentions:
    """The words of a program and what stands after them; read only for words that its text holds at all."""

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

    def _after(self, name: str) -> set[str]:
        return self._followers.get(name, set()) if name in self._program.text else set()

    def holds(self, name: str) -> bool:
        """Is the name a token of the program?"""
        return bool(self._after(name))

    def can_import(self, name: str) -> bool:
        """Can the function import the name for itself (Python)?

        An imported name is bound in the whole function, so the program must not mention it at all, nor read its own scope.
        """
        return not self.holds(name) and not any(self.holds(reader) for reader in SCOPE_READERS)

    def is_library(self, name: str, after: str) -> bool:
        """Is the name a library's here?

        It is, unless the program uses it for something else: as its function, or not followed by ``after`` (``exp`` alone
        is a variable, ``exp(`` the library's function).
        """
        if not self.holds(name):
            return True
        own = self._program.function_name
        return (own is None or name != own.text) and self._after(name) <= {after}
