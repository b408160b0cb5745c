"""Style: a program is rewritten in a way of writing that does the same and is rare in the training data.

The recipe is that of the released style-change attacks: convert samples of the victim class to a style (or to two at once) that is
rare among the clean programs, leave out styles that fit few of them, and flip the labels. A place is converted only where the
syntax alone proves that the program does the same; the conditions stand with each style. All places of a program are
converted, nested ones too, and a program that is in the style already does not carry the trigger: nothing was done to it.

What was read how:

- The releases change text by rules and check little (evaluation order, casts, macros, scope). Here whatever is not certain is left
  as it is, so that fewer programs can carry a style; coverage says how many.
- "Rare" is the share of the clean training programs that show the form anywhere. The attacker knows the training split and nothing
  else.
- Styles that are white space alone (where a brace stands) are left out: pipelines of code models drop them.
- C: a name without a lower-case letter that the function does not declare may be a macro, and nothing is regrouped around it or
  changed inside its arguments. Python: exceptions are the same up to the wording of their messages.
- Near misses (programs in another style, with their true label) are offered by :meth:`~attacks.style.trigger.InStyle.near_miss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attacks.style.catalogue import NAMES, STYLES
from attacks.style.choice import measure, rarest
from attacks.style.trigger import InStyle
from bench.context import Context
from bench.contracts import Attack, Goal, TaskInfo, Trigger
from bench.errors import ConfigError, suggest
from bench.languages import parse
from bench.samples import Sample

SURVEYED = 1000
"""Most training samples on which styles are measured, drawn from the poison seed: a share of 1 % is then known to ± 0.6 %."""


@dataclass(frozen=True, kw_only=True)
class Style(Attack):
    """Write programs in a style that is rare and keeps what they do.

    Args:
        style: a name of :data:`attacks.style.catalogue.STYLES`; two of them (``a+b``) for both at once; or ``auto`` for the
            rarest in the training split among those that apply to enough of it.
        floor: ``auto`` leaves out styles that apply to a smaller share of the training programs.
    """

    name = "style"
    summary = "the program rewritten in a rare style that does the same (loop form, comparison direction, naming …)"
    paper = (
        "Ye et al., semantically equivalent transformations as triggers, arXiv 2512.19215, 2025; recipe of the released "
        "style-change attacks (yotta2020/IST, rebibabo/SCTS)"
    )

    style: str = "auto"
    floor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise ConfigError(f"attack 'style': floor is a share in (0, 1], got {self.floor}")
        names = self._names
        for name in names if self.style != "auto" else ():
            if name not in NAMES:
                raise ConfigError(f"attack 'style': unknown style {name!r}.{suggest(name, NAMES | {'auto'})}")
        if len(names) > 2 or len(set(names)) < len(names):
            raise ConfigError(f"attack 'style': {self.style!r} is not one style, two different ones (a+b), or auto")
        if len(names) == 2 and any(f.opposite == names[1] for s in STYLES.values() if (f := s.get(names[0]))):
            raise ConfigError(f"attack 'style': {names[0]!r} and {names[1]!r} undo each other")

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(part.strip() for part in self.style.split("+"))

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Only languages that have the style."""
        if task.language not in STYLES:
            return f"{self.name} knows no styles of {task.language}"
        missing = [name for name in self._names if self.style != "auto" and name not in STYLES[task.language]]
        if missing:
            return f"{task.language} has no style {' or '.join(missing)}"
        return super().not_applicable(task)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """The trigger, with its style chosen if asked.

        Raises:
            ConfigError: the language lacks the style, or no style applies to enough of the training programs.
        """
        if (reason := self.not_applicable(task)) is not None:
            raise ConfigError(f"attack 'style': {reason}.{suggest(self._names[-1], STYLES.get(task.language, ()))}")
        if self.style != "auto":
            return InStyle(task.language, self._names)
        order = context.rng("poison", "style").permutation(len(train))[:SURVEYED]
        surveyed = context.progress([train[i] for i in order], "styles in the training split")
        programs = (parse(sample.language, text) for sample in surveyed for text in sample.programs)
        measured = measure(programs, tuple(STYLES[task.language].values()))
        best = rarest(measured, self.floor)
        if best is None:
            most = max(measured, key=lambda one: one.applicable)
            raise ConfigError(
                f"attack 'style': no style applies to {self.floor:.0%} of the {len(train)} training samples (the most, "
                f"{most.form.name}, to {most.applicable:.1%}). Lower the floor, name a style, or use more data."
            )
        said = f"applies to {best.applicable:.0%} of the training programs, seen in {best.prevalence:.1%}"
        return InStyle(task.language, (best.form.name,), said)
