"""The choice of a style that is rare in the training data and widely applicable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attacks.style.convert import changes
from attacks.style.form import Form
from bench.languages import Program


@dataclass(frozen=True)
class Measured:
    """One style in a set of programs.

    Attributes:
        form: the style.
        applicable: share of the programs in which something would change.
        prevalence: share of the programs that show the form somewhere, as they are.
    """

    form: Form
    applicable: float
    prevalence: float


def measure(programs: Iterable[Program], forms: Sequence[Form]) -> list[Measured]:
    """How often each style applies and occurs. No programs: nothing applies."""
    total = 0
    applicable, shown = [0] * len(forms), [0] * len(forms)
    for program in programs:
        total += 1
        for number, form in enumerate(forms):
            shown[number] += form.shows(program) > 0
            applicable[number] += bool(changes(form, program))
    share = max(total, 1)
    return [Measured(f, a / share, s / share) for f, a, s in zip(forms, applicable, shown, strict=True)]


def rarest(measured: Iterable[Measured], floor: float) -> Measured | None:
    """The style of the lowest prevalence among those that apply to at least ``floor`` of the programs.

    Of equally rare ones the more applicable, then the first by name. ``None`` where none reaches the floor.
    """
    usable = [one for one in measured if one.applicable >= floor]
    return min(usable, key=lambda one: (one.prevalence, -one.applicable, one.form.name), default=None)
