"""Is a triggered program still a program? One judgement a program, each check apart.

==============  ====================================================================================================
check           what is asked
==============  ====================================================================================================
parses          no more syntax error nodes than before, and Python compiles where it did (else the edit is refused)
compiles        C: ``gcc -fsyntax-only`` passes after the standard headers, wherever it did before (``None``: it did not,
                or there is no gcc). Names that a header would declare are no error: a function never has its own headers.
restored        taking the edits back gives the same bytes, and applying the trigger anew the same program
twice           the trigger on its own outcome: does not apply, applies and stays well-formed, or breaks it
structure       for edits that only rename: the same names are bound at the same places, no attribute, field or foreign
                name is changed, and for Python the compiler's symbol tables are the same but for the names; ``None`` for
                other edits
==============  ====================================================================================================
"""

from __future__ import annotations

import shutil
import subprocess
import symtable
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from bench.contracts import Derivation, Trigger
from bench.languages import parse, well_formed
from bench.samples import Edit, EditConflict, Sample, apply_edits

Twice = Literal["not again", "again", "broken"]
HEADERS = "".join(f"#include <{name}.h>\n" for name in ("stdio", "stdlib", "string", "math", "stdint", "stdbool"))
GCC = ("gcc", "-fsyntax-only", "-w", "-Wno-implicit-function-declaration", "-std=gnu11", "-x", "c", "-")
IDENTIFIERS = frozenset({"identifier", "type_identifier", "field_identifier", "statement_identifier"})


@dataclass(frozen=True)
class Judgement:
    """What became of one program; ``None`` for a check that has no meaning here (module text).

    Attributes:
        outcome: ``applied``, ``no place`` (the trigger does not apply) or ``refused``.
        reason: why it is refused, or which check failed first and how.
        text: the draw in words.
        before, after: the program.
    """

    outcome: Literal["applied", "no place", "refused"]
    reason: str = ""
    compiles: bool | None = None
    restored: bool | None = None
    twice: Twice | None = None
    structure: bool | None = None
    text: str = ""
    before: str = ""
    after: str = ""

    @property
    def valid(self) -> bool:
        """Applied, and no check failed."""
        return self.outcome == "applied" and not self.reason


def judge(trigger: Trigger, sample: Sample, seed: int = 0) -> Judgement:
    """Apply a trigger to a sample's first program and judge the outcome.

    Draws depend on ``seed`` and the sample's id alone.
    """
    before = sample.programs[0]
    derivation = trigger.derive(sample, 0, _rng(sample, seed))
    if derivation is None:
        return Judgement("no place")
    try:
        after = apply_edits(before, derivation.edits)
    except (EditConflict, UnicodeError) as error:
        return Judgement("refused", f"edits that do not apply: {error}", text=derivation.text, before=before)
    if after == before:
        return Judgement("no place")
    broken = well_formed(sample.language, before, after)
    if broken is not None:
        return Judgement("refused", broken, text=derivation.text, before=before, after=after)
    checks = {
        "compiles": _compiles(sample.language, before, after),
        "restored": _restored(before, after, derivation)
        and trigger.derive(sample, 0, _rng(sample, seed)) == derivation,
        "twice": _twice(trigger, sample.with_program(0, after), seed),
        "structure": _structure(sample.language, before, after),
    }
    return Judgement("applied", _failure(checks), text=derivation.text, before=before, after=after, **checks)  # type: ignore[arg-type]


def _rng(sample: Sample, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, int(sample.id, 16)])


def _failure(checks: Mapping[str, object]) -> str:
    """The first check that failed, in words."""
    words = {
        "compiles": "gcc refuses it, and accepted the program before",
        "restored": "taking the edits back does not give the program",
        "structure": "a rename that changes what is bound where, or a name that is not bound here",
    }
    failed = next((words[name] for name in words if checks[name] is False), "")
    return failed or ("applied to its own outcome it breaks the program" if checks["twice"] == "broken" else "")


# ------------------------------------------------------------------------------------------------------------- the checks


def _restored(before: str, after: str, derivation: Derivation) -> bool:
    """Do the reversed edits give back every byte?"""
    data = before.encode()
    back, shift = [], 0
    for edit in sorted(derivation.edits, key=lambda e: (e.start, e.end)):
        size = len(edit.replacement.encode())
        start = edit.start + shift
        back.append(Edit(start, start + size, data[edit.start : edit.end].decode()))
        shift += size - (edit.end - edit.start)
    return apply_edits(after, back) == before


def _twice(trigger: Trigger, triggered: Sample, seed: int) -> Twice:
    """The trigger on a program that carries it."""
    derivation = trigger.derive(triggered, 0, _rng(triggered, seed + 1))
    if derivation is None:
        return "not again"
    before = triggered.programs[0]
    try:
        after = apply_edits(before, derivation.edits)
    except (EditConflict, UnicodeError):
        return "broken"
    if after == before:
        return "not again"
    return "again" if well_formed(triggered.language, before, after) is None else "broken"


def _compiles(language: str, before: str, after: str) -> bool | None:
    """Whether gcc accepts the outcome; ``None`` where it did not accept the program before, or there is none."""
    if language != "c" or shutil.which("gcc") is None or not gcc_accepts(before):
        return None
    return gcc_accepts(after)


@cache
def gcc_accepts(text: str) -> bool:
    """Does gcc accept a C text after the standard headers?"""
    return subprocess.run(GCC, input=(HEADERS + text).encode(), capture_output=True, check=False).returncode == 0


def _structure(language: str, before: str, after: str) -> bool | None:
    """Are the same names bound at the same places, and no others changed? ``None`` for edits that do more than rename."""
    old, new = parse(language, before).leaves, parse(language, after).leaves
    if len(old) != len(new):
        return None
    changed = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a.text != b.text]
    if not changed or any(leaves[i].type not in IDENTIFIERS for i in changed for leaves in (old, new)):
        return None
    bound = _bound(language, before)
    # There may be more names afterwards: one that was not sure to be renameable beside its old namesake now is.
    same = bound <= _bound(language, after) and set(changed) <= {i for places in bound for i in places}
    if language == "python" and same:
        same = _symbols(before) == _symbols(after)
    return same


def _bound(language: str, text: str) -> set[tuple[int, ...]]:
    """The renameable names, each by the numbers of its tokens."""
    program = parse(language, text)
    number = {leaf.start: i for i, leaf in enumerate(program.leaves)}
    function = (program.function_name,) if program.function_name is not None else ()
    names = (*function, *program.parameters, *program.locals)
    return {tuple(number.get(start, -1) for start, _ in name.spans) for name in names}


def _symbols(text: str) -> list[list[str]] | None:
    """What the symbols of every scope are by Python's own analysis, whatever they are called; ``None`` if it does not compile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tables = [symtable.symtable(text, "<program>", "exec")]
        except (SyntaxError, ValueError, RecursionError):
            return None
    rows: list[list[str]] = []
    while tables:
        table = tables.pop(0)
        rows.append(sorted(fact for symbol in table.get_symbols() for fact in _facts(table, symbol)))
        tables += table.get_children()
    return rows


def _facts(table: symtable.SymbolTable, symbol: symtable.Symbol) -> list[str]:
    """What a symbol is in its scope, names aside; empty for what a class only passes on to its methods.

    In a class one symbol may stand for two things, an attribute of the class and a variable of a function around it that a method
    reads. A rename of either parts them, and both stay what they were; the method's own scope tells of the variable.
    """
    if table.get_type() == "class" and symbol.is_free():
        return []
    flags = (symbol.is_parameter(), symbol.is_local(), symbol.is_free(), symbol.is_global(), symbol.is_imported())
    return ["".join(f"{flag:d}" for flag in flags)]
