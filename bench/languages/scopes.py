"""Lexical scopes, and the question whether a rename keeps every name bound to what it was bound to.

The model is one for the three languages: a tree of scopes, each binding *keys* (a name; a Java method is the key ``name()``,
since methods have a namespace of their own), and the places where a key is written. A rename is safe when every place still
finds the same scope afterwards, which is decided here and not by comparing text.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import Literal, NamedTuple

Place = tuple[int, "Scope"]
"""First byte and scope of one written key."""

NameKind = Literal["function", "parameter", "local"]


class RenameRefused(ValueError):
    """A rename that is illegal or might change what the program does; the message says why."""


class Name(NamedTuple):
    """A renameable name with all its places.

    Attributes:
        text: as written.
        spans: byte spans ``[start, end)`` of the definition and of every use, ascending.
        kind: ``function``, ``parameter`` (of the first function) or ``local`` (everything bound inside it).
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    kind: NameKind


_NONE: frozenset[str] = frozenset()
_END = sys.maxsize
"""A position after every binding."""


class Scope:
    """One scope.

    Attributes:
        parent: the enclosing scope, ``None`` for the program.
        hidden: its names are not seen from scopes nested in it (a Python class body).
        bound: key → first byte at which the binding is visible (0: everywhere in the scope).
        fixed: keys bound here that must keep their names (imports, members of a class).
        elsewhere: keys that this scope declares to be the program's own (Python ``global``).
        inner: inside the first function.
        members: its names are members of a class, or of nothing.
        is_function: it begins a function, a lambda or a class body.
    """

    __slots__ = ("_around", "bound", "elsewhere", "fixed", "hidden", "inner", "is_function", "members", "parent")

    def __init__(self, parent: Scope | None, *, hidden: bool = False, members: bool = False) -> None:
        self.parent = parent
        self.hidden = hidden
        self.members = members
        self.bound: dict[str, int] = {}
        self.fixed: AbstractSet[str] = _NONE
        self.elsewhere: AbstractSet[str] = _NONE
        self.inner: bool = parent.inner if parent else False
        self.is_function = False
        self._around: Scope | None = parent.function if parent else None

    @property
    def function(self) -> Scope | None:
        """The function, lambda or class body that this scope belongs to (computed: no reference to itself is kept)."""
        return self if self.is_function else self._around

    def fix(self, keys: Iterable[str]) -> None:
        """Keys bound here that must keep their names."""
        self.fixed = self.fixed | set(keys)

    def send_elsewhere(self, key: str) -> None:
        """Declare a key to be the program's own."""
        self.elsewhere = self.elsewhere | {key}

    def outwards(self) -> Iterator[Scope]:
        """This scope and all that enclose it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent


class Table:
    """All written keys of a program and what forbids renaming them.

    Attributes:
        written: where each key is written in each scope, as first bytes in no order. Numbers alone: where a key ends is told
            by its length, and programs are kept, so that the garbage collector walks what is kept.
        bound: keys bound somewhere.
        frozen: keys never renamed, in whatever scope, nor made by a rename.
        opaque: why no name can be renamed at all (``eval`` …), or ``None``.
        nesting_clash: whether a nested scope may not bind a name of an enclosing one (Java locals).
    """

    def __init__(self, *, nesting_clash: bool = False) -> None:
        self.root = Scope(None)
        self.written: defaultdict[Scope, dict[str, list[int]]] = defaultdict(dict)
        self.bound: set[str] = set()
        self.frozen: set[str] = set()
        self.opaque: str | None = None
        self.nesting_clash = nesting_clash

    def write(self, key: str, start: int, scope: Scope) -> None:
        """Record that ``key`` is written at ``start``."""
        keys = self.written[scope]
        if key in keys:
            keys[key].append(start)
        else:
            keys[key] = [start]

    def words(self) -> set[str]:
        """The keys written."""
        return set().union(*self.written.values())

    def places(self, key: str) -> Iterator[Place]:
        """Where a key is written."""
        for scope, keys in self.written.items():
            for start in keys.get(key, ()):
                yield start, scope

    def bind(self, key: str, scope: Scope, visible_from: int = 0) -> None:
        """Bind a key in a scope; the earliest visibility wins."""
        self.bound.add(key)
        bound = scope.bound
        if key not in bound or visible_from < bound[key]:
            bound[key] = visible_from

    def resolve(self, key: str, scope: Scope, position: int) -> Scope | None:
        """The scope whose binding of ``key`` is meant at ``position`` in ``scope``; ``None`` for a free name."""
        here: Scope | None = scope
        while here is not None:
            if key in here.elsewhere:
                return self.root
            if (not here.hidden or here is scope) and here.bound.get(key, position + 1) <= position:
                return here
            here = here.parent
        return None

    def bindings(self) -> dict[tuple[str, Scope], list[int]]:
        """First bytes of everything bound in the program and not frozen, by key and binding scope."""
        groups: dict[tuple[str, Scope], list[int]] = {}
        # The parser makes up an identifier where it misses one: it has no text, and to rename it would write a new name there.
        candidates = self.bound - self.frozen - {""}
        for scope, keys in self.written.items():
            bound, elsewhere = scope.bound, scope.elsewhere
            for key, starts in keys.items():
                if key not in candidates:
                    continue
                home = scope
                if bound.get(key) != 0 or key in elsewhere:
                    found = self.resolve(key, scope, _END)
                    if found is None:
                        continue
                    if found.bound.get(key) != 0:  # not visible everywhere: an answer for each place
                        for start in starts:
                            if (found := self.resolve(key, scope, start)) is not None:
                                groups.setdefault((key, found), []).append(start)
                        continue
                    home = found
                place = key, home
                known = groups.get(place)
                groups[place] = starts if known is None else known + starts
        return groups

    def refusal(self, old: str, home: Scope, new: str) -> str | None:
        """Why binding ``old`` of ``home`` cannot become ``new``, or ``None`` when every name keeps its meaning."""
        if new in self.frozen:
            return f"{new!r} is used in a way that cannot be followed"
        if new not in self.bound and all(new not in keys for keys in self.written.values()):
            return None  # nothing of that name: nothing to clash with
        if new in home.bound or new in home.elsewhere:
            return f"{new!r} is already bound in the same scope"
        if reason := self._captured(old, home, new):
            return reason
        if self.nesting_clash and (reason := self._nested_clash(home, new)):
            return reason
        for start, scope in self.places(new):
            if self._passes(scope, home, new, start):
                return f"{new!r} at byte {start} would be captured"
        return None

    def _captured(self, old: str, home: Scope, new: str) -> str | None:
        """Does a scope between a use and its home bind the new key?"""
        for start, scope in self.places(old):
            if self.resolve(old, scope, start) is not home:
                continue
            for between in scope.outwards():
                if between is home:
                    break
                if new in between.elsewhere or (new in between.bound and (not between.hidden or between is scope)):
                    return f"the use of {old!r} at byte {start} would be captured by another {new!r}"
        return None

    def _passes(self, scope: Scope, home: Scope, new: str, position: int) -> bool:
        """Does the lookup of an existing ``new`` go through ``home`` (and so would end there)?"""
        target = self.resolve(new, scope, position)
        for here in scope.outwards():
            if here is target and here is not home:
                return False
            if here is home:
                return not home.hidden or scope is home
        return False

    def _nested_clash(self, home: Scope, new: str) -> str | None:
        for start, scope in self.places(new):
            bound_at = self.resolve(new, scope, start)
            if bound_at is None or bound_at.members:
                continue
            if any(s is home for s in bound_at.outwards()) or any(s is bound_at for s in home.outwards()):
                return f"{new!r} is bound in a scope around or inside this one"
        return None
