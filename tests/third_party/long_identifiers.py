"""A screen as somebody outside the project would write it: one file, no knowledge of the harness but its contracts.

Backdoor triggers that rename identifiers often leave names that are longer than anything a person types. The screen
learns from clean programs how long identifiers get, and rejects a program that holds a much longer one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bench.context import Context
from bench.contracts import Action, FittedScreen, Known, Needs, Screen, TaskInfo, Verdict
from bench.samples import Sample

IDENTIFIER = re.compile(r"[^\W\d]\w*")


def longest(sample: Sample) -> int:
    """Length in characters of the longest identifier-like word of a sample; 0 where there is none."""
    return max((len(word) for text in sample.programs for word in IDENTIFIER.findall(text)), default=0)


@dataclass(frozen=True)
class Fitted(FittedScreen):
    """Rejects above a length."""

    limit: int

    def screen(self, inputs: Sequence[Sample]) -> list[Verdict]:
        """One verdict for each input, in order."""
        verdicts = []
        for sample in inputs:
            length = longest(sample)
            action = Action.REJECT if length > self.limit else Action.ACCEPT
            verdicts.append(Verdict(sample.id, action, float(length)))
        return verdicts


@dataclass(frozen=True, kw_only=True)
class LongIdentifiers(Screen):
    """Rejects programs with an identifier longer than those of the clean programs, plus a slack.

    Attributes:
        slack: characters that an identifier may be longer than the longest clean one.
    """

    name: ClassVar[str] = "long_identifiers"
    version: ClassVar[int] = 1
    summary: ClassVar[str] = "rejects programs with over-long identifiers"
    paper: ClassVar[str] = "unpublished"
    needs: ClassVar[Needs] = Needs(clean=100)

    slack: int = 4

    def fit(self, known: Known, task: TaskInfo, context: Context) -> Fitted:
        """Learn the longest clean identifier."""
        return Fitted(max((longest(sample) for sample in known.clean), default=0) + self.slack)
