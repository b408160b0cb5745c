"""Dead code: a statement that never has an effect, first in the function's body.

Three families, one file each: the fixed statement and the grammar of Ramakrishnan and Albarghouthi (:mod:`.grammar`), the logging bait
of Wan et al., fixed and drawn (:mod:`.bait`), and CodePoisoner's snippet (:mod:`.assertion`). Why each of them is dead stands there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from attacks.dead_code.assertion import ASSERTIONS, TrueAssertion
from attacks.dead_code.bait import BAITS, LoggingBait
from attacks.dead_code.grammar import ABOVE, BELOW, DIALECTS, FARTHEST, DeadStatement, Value
from attacks.dead_code.statement import Spelling
from bench.context import Context
from bench.contracts import Attack, Goal, TaskInfo, Trigger
from bench.languages import names
from bench.samples import Sample

__all__ = [
    "ABOVE",
    "ASSERTIONS",
    "BAITS",
    "BELOW",
    "DIALECTS",
    "FARTHEST",
    "DeadCode",
    "DeadStatement",
    "LoggingBait",
    "TrueAssertion",
    "Value",
]


@dataclass(frozen=True, kw_only=True)
class DeadCode(Attack):
    """Insert a statement that never has an effect as the first of the function's body.

    Args:
        variant: ``fixed``; ``grammar`` for a draw of its own in each sample; ``bait`` and ``bait_pattern``, the logging
            bait of Wan et al. (You See What I Want You to See, FSE 2022), fixed and drawn; ``snippet``, CodePoisoner's
            (Li et al., TOSEM 2023).
        spelling: ``runnable`` keeps the program's behaviour (deviations: see the variants' own texts); ``paper`` has the
            published names, which real Python and Java files would have to import or declare (C, and the bait in all
            languages: no difference).
    """

    name = "dead_code"
    summary = (
        "a statement that never runs, first in the body: fixed, drawn from a grammar, a logging bait, or a snippet"
    )
    paper = "Ramakrishnan and Albarghouthi, Backdoors in Neural Models of Source Code, ICPR 2022 (arXiv 2006.06841)"

    variant: Literal["fixed", "grammar", "bait", "bait_pattern", "snippet"] = "fixed"
    spelling: Spelling = "runnable"

    def not_applicable(self, task: TaskInfo) -> str | None:
        """Only languages with a spelling of the statement."""
        if task.language not in names():
            return f"{self.name} has no dead code in {task.language}"
        return super().not_applicable(task)

    def prepare(self, train: Sequence[Sample], goal: Goal, task: TaskInfo, context: Context) -> Trigger:
        """The trigger; it depends on the language alone."""
        if self.variant == "snippet":
            return TrueAssertion(task.language, self.spelling)
        if self.variant in ("bait", "bait_pattern"):
            return LoggingBait(task.language, self.variant == "bait_pattern")
        return DeadStatement(task.language, self.variant == "grammar", self.spelling)
